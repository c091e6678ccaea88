//! The coordinator's rounds: asking, ordering, withdrawing.

use super::*;

/// Node 1 of three, which has just proposed to drop node 3.
fn proposing() -> (Membership, Neighbours) {
    let mut membership = acting(1, &[1, 2, 3]);
    let mut neighbours = all_well(1, &[1, 2, 3]);
    gone(&mut neighbours, 3);
    membership.evaluate(&neighbours, at(1));
    (membership, neighbours)
}

fn agree(membership: &mut Membership, from: u16, number: u64, neighbours: &Neighbours) {
    let round = RoundId { coordinator: member(1), number };
    let control = Control::Agree { round, storage_ok: true };
    membership.handle_control(node(from), control, neighbours, at(1));
}

#[test]
fn nothing_is_committed_before_everybody_concerned_has_agreed() {
    let (mut membership, neighbours) = proposing();
    assert!(commits(&mut membership).is_empty());
    agree(&mut membership, 2, 1, &neighbours);
    let commits = commits(&mut membership);
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].expected, SanGeneration(1));
    assert_eq!(commits[0].change, Change::Regroup(dropping(&[3])));
    assert_eq!(membership.view().map(|view| view.id), Some(ViewId(1)), "it has no authority yet");
}

#[test]
fn whoever_does_not_answer_in_time_is_left_out_of_the_next_proposal() {
    let mut membership = acting(1, &[1, 2, 3, 4]);
    let mut neighbours = all_well(1, &[1, 2, 3, 4]);
    gone(&mut neighbours, 4);
    membership.evaluate(&neighbours, at(1));
    agree(&mut membership, 2, 1, &neighbours);
    sent(&mut membership);
    // Without 3 this side has no majority unless it administers: of four it does.
    membership.evaluate(&neighbours, at(1 + timer::ROUND));
    let proposed: Vec<NodeSet> = sent(&mut membership)
        .into_iter()
        .filter_map(|(_, control)| {
            let Control::Propose(proposal) = control else { return None };
            Some(proposal.regroup.victims)
        })
        .collect();
    assert_eq!(proposed, [set(&[3, 4])]);
}

#[test]
fn a_round_is_withdrawn_only_when_its_orders_are_known_to_have_failed() {
    let (mut membership, neighbours) = proposing();
    agree(&mut membership, 2, 1, &neighbours);
    let token = commits(&mut membership)[0].token;
    let withdrawn = |membership: &mut Membership| {
        sent(membership).iter().any(|(_, c)| matches!(c, Control::Withdraw { .. }))
    };
    membership.handle_commit_answer(token, CommitAnswer::Unknown, at(2));
    // Node 2 is asked to commit the same change, and fails for certain.
    let order = sent(&mut membership).into_iter().find_map(|(to, control)| {
        let Control::Order { order, .. } = control else { return None };
        Some((to, order))
    });
    let (to, order) = order.expect("another candidate");
    assert_eq!(to, node(2));
    let outcome = OrderOutcome::NotTried;
    let done = Control::OrderDone { order, outcome };
    membership.handle_control(node(2), done, &neighbours, at(2));
    assert!(!withdrawn(&mut membership), "the first order may still be carried out");
    assert!(membership.is_silenced(member(3)));
    let refused = CommitAnswer::Refused(value(&[1, 2, 3]));
    membership.handle_commit_answer(token, refused, at(3));
    assert!(withdrawn(&mut membership));
    assert!(!membership.is_silenced(member(3)));
}

/// Once a round is withdrawn its members answer again whom it would have dropped: when another
/// coordinator has the same change committed, they have been silent only since that.
#[test]
fn when_a_withdrawn_change_is_committed_by_another_nobody_was_silent_before_that() {
    let (mut membership, neighbours) = proposing();
    agree(&mut membership, 2, 1, &neighbours);
    let token = commits(&mut membership)[0].token;
    let refused = CommitAnswer::Refused(value(&[1, 2, 3]));
    membership.handle_commit_answer(token, refused, at(2));
    assert!(!membership.is_silenced(member(3)));
    membership.effects.clear();
    let mut after = value(&[1, 2]);
    after.view = ViewId(2);
    after.generation = SanGeneration(2);
    membership.handle_register(after, at(8), at(8));
    assert_eq!(quiet_from(&mut membership), Some(at(8)));
}

#[test]
fn everybody_is_silent_to_whom_a_committed_change_drops_from_when_all_had_agreed() {
    let (mut membership, neighbours) = proposing();
    agree(&mut membership, 2, 1, &neighbours);
    let token = commits(&mut membership)[0].token;
    membership.effects.clear();
    let mut after = value(&[1, 2]);
    after.view = ViewId(2);
    after.generation = SanGeneration(2);
    membership.handle_commit_answer(token, CommitAnswer::Committed(after), at(3));
    assert_eq!(quiet_from(&mut membership), Some(at(1)));
}

fn quiet_from(membership: &mut Membership) -> Option<Instant> {
    let mut from = None;
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Installed(installation) = effect {
            from = Some(installation.quiet_from);
        }
    }
    from
}

/// A change that others have overtaken is under way no more: the next one is carried out.
#[test]
fn a_change_whose_outcome_nobody_can_tell_does_not_keep_the_next_from_being_made() {
    let (mut membership, neighbours) = proposing();
    agree(&mut membership, 2, 1, &neighbours);
    let token = commits(&mut membership)[0].token;
    membership.handle_commit_answer(token, CommitAnswer::Unknown, at(2));
    assert!(commits(&mut membership).is_empty());
    let mut after = value(&[1, 2]);
    after.view = ViewId(after.view.0 + 1);
    after.generation = SanGeneration(after.generation.0 + 2);
    membership.handle_commit_answer(token, CommitAnswer::Overtaken(after), at(3));
    assert!(!membership.is_committing());
    assert_eq!(membership.view().expect("a member").members(), [member(1), member(2)]);
    let report = |(_, control): &(NodeId, Control)| {
        matches!(control, Control::OrderDone { .. } | Control::Withdraw { .. })
    };
    assert!(!sent(&mut membership).iter().any(report), "it may have been made");
}

/// Recording a phase moves the generation and nothing that the members agreed to.
#[test]
fn an_order_is_tried_again_when_only_a_phase_was_recorded_in_between() {
    let (mut membership, neighbours) = proposing();
    agree(&mut membership, 2, 1, &neighbours);
    let token = commits(&mut membership)[0].token;
    let mut moved = value(&[1, 2, 3]);
    moved.generation = SanGeneration(2);
    membership.handle_commit_answer(token, CommitAnswer::Refused(moved), at(2));
    let commits = commits(&mut membership);
    assert_eq!(commits.len(), 1);
    assert_eq!(commits[0].expected, SanGeneration(2));
}

#[test]
fn an_administrator_that_stays_commits_even_if_it_does_not_coordinate() {
    let mut membership = acting(1, &[1, 2, 3]);
    let mut administered = value(&[1, 2, 3]);
    administered.generation = SanGeneration(2);
    administered.administrator = Some(member(2));
    membership.learn(administered, at(0));
    let mut neighbours = all_well(1, &[1, 2, 3]);
    gone(&mut neighbours, 3);
    membership.evaluate(&neighbours, at(1));
    sent(&mut membership);
    agree(&mut membership, 2, 1, &neighbours);
    let sent = sent(&mut membership);
    assert!(matches!(&sent[..], [(to, Control::Order { .. })] if *to == node(2)), "{sent:?}");
}
