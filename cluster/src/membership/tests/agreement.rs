//! What a member agrees to, what it objects to, and what agreeing binds it to.

use super::*;

#[test]
fn a_member_agrees_to_what_the_coordinator_it_sees_proposes() {
    let mut membership = acting(3, &[1, 2, 3]);
    let neighbours = all_well(3, &[1, 2, 3]);
    let answer =
        answer(&mut membership, 1, proposal(1, value(&[1, 2, 3]), dropping(&[2])), &neighbours);
    assert!(matches!(answer, Some(Control::Agree { storage_ok: true, .. })));
}

#[test]
fn objections_say_what_is_wrong() {
    let base = value(&[1, 2, 3]);
    let mut neighbours = all_well(3, &[1, 2, 3]);
    let mut membership = acting(3, &[1, 2, 3]);
    let asked = proposal(2, base.clone(), dropping(&[1]));
    assert_eq!(
        objection(answer(&mut membership, 2, asked, &neighbours)),
        Objection::OtherCoordinator(member(1))
    );
    let asked = proposal(1, base.clone(), joining(4));
    assert_eq!(
        objection(answer(&mut membership, 1, asked, &neighbours)),
        Objection::Unreachable(set(&[4]))
    );
    silent(&mut neighbours, 2);
    let asked = proposal(1, base, Regroup::default());
    assert_eq!(
        objection(answer(&mut membership, 1, asked, &neighbours)),
        Objection::Unreachable(set(&[2]))
    );
    let mut older = value(&[1, 2, 3]);
    older.view = ViewId(0);
    older.generation = SanGeneration(0);
    let asked = proposal(1, older, Regroup::default());
    assert!(matches!(
        objection(answer(&mut membership, 1, asked, &neighbours)),
        Objection::Behind(_)
    ));
}

#[test]
fn one_incarnation_is_not_agreed_to_for_two_starts() {
    let mut membership = acting(3, &[1, 3]);
    let mut neighbours = all_well(3, &[1, 3, 4]);
    let first = proposal(1, value(&[1, 3]), joining(4));
    assert!(matches!(
        answer(&mut membership, 1, first.clone(), &neighbours),
        Some(Control::Agree { .. })
    ));
    let mut second = first;
    second.round.number = 2;
    let other = StartNonce::new(99).expect("not zero");
    second.starts.insert(member(4), other);
    neighbours.get_mut(&node(4)).expect("a peer").start = other;
    assert_eq!(
        objection(answer(&mut membership, 1, second, &neighbours)),
        Objection::IncarnationOffered(member(4))
    );
}

#[test]
fn whom_a_member_agreed_to_drop_is_not_answered_until_the_proposal_is_withdrawn() {
    let mut membership = acting(3, &[1, 2, 3]);
    let neighbours = all_well(3, &[1, 2, 3]);
    let asked = proposal(1, value(&[1, 2, 3]), dropping(&[2]));
    let round = asked.round;
    answer(&mut membership, 1, asked, &neighbours);
    assert!(membership.is_silenced(member(2)));
    membership.handle_control(node(2), Control::Withdraw { round }, &neighbours, at(2));
    assert!(membership.is_silenced(member(2)), "only the coordinator withdraws");
    membership.handle_control(node(1), Control::Withdraw { round }, &neighbours, at(2));
    assert!(!membership.is_silenced(member(2)));
}

/// A view may be committed without the knowledge of who agreed to it, and those in charge of it
/// count its votes. The administrator of two has a majority alone; of three it has not.
#[test]
fn a_permit_needs_the_votes_of_what_was_agreed_to_as_well() {
    let mut membership = acting(1, &[1, 2]);
    membership.handle_register(value(&[1, 2]), at(3), at(3));
    let mut heartbeat = Heartbeat::new(UNIT, at(0));
    for id in [2, 3] {
        heartbeat.handle_start(node(id), start(id));
    }
    let permit = membership.permit(&heartbeat).expect("a member");
    assert_eq!(permit.majority_until, FOR_EVER);
    assert_eq!(permit.until(), at(3 + timer::SUSPECT));
    membership.remember(&proposal(1, value(&[1, 2]), joining(3)));
    let permit = membership.permit(&heartbeat).expect("a member");
    assert_eq!(permit.majority_until, Instant(0));
    assert_eq!(permit.until(), Instant(0));
}
