//! The rules of proposals, views, joins and cold starts, one by one.

use mx_base::Duration;

use super::*;
use crate::heartbeat::{FOR_EVER, Flags};
use crate::register::{Phase, Regroup};
use crate::wire::OrderOutcome;

const UNIT: Unit = Unit::DEFAULT;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16) -> Member {
    Member { node: node(id), incarnation: Incarnation(1) }
}

fn start(id: u16) -> StartNonce {
    StartNonce::new(u64::from(id) * 10).expect("not zero")
}

fn at(units: u32) -> Instant {
    Instant(1) + UNIT.times(units)
}

fn set(ids: &[u16]) -> NodeSet {
    ids.iter().copied().map(node).collect()
}

/// View 1, generation 1, administered by its first member.
fn value(ids: &[u16]) -> RegisterValue {
    let members: Vec<Member> = ids.iter().copied().map(member).collect();
    RegisterValue {
        generation: SanGeneration(1),
        view: ViewId(1),
        administrator: members.first().copied(),
        incarnations: members.iter().map(|m| (m.node, m.incarnation)).collect(),
        members,
        ..RegisterValue::initial()
    }
}

/// Node `me` acting in view 1 of `ids`.
fn acting(me: u16, ids: &[u16]) -> Membership {
    let mut membership = Membership::new(node(me), start(me), UNIT, 1, at(0));
    let starts = ids.iter().map(|id| (member(*id), start(*id))).collect();
    membership.install(member(me), value(ids), starts, None, at(0));
    membership.storage_ok = true;
    membership.effects.clear();
    membership
}

fn neighbour(id: u16, reach: &[u16], flags: Flags) -> Neighbour {
    let report = Ping {
        sequence: 1,
        view: ViewId(1),
        generation: SanGeneration(1),
        reach: set(reach),
        flags,
    };
    Neighbour {
        start: start(id),
        reached: true,
        gone: false,
        report: Some(report),
        missing: BTreeMap::new(),
    }
}

const WELL: Flags = Flags { member: true, storage_ok: true, leaving: false };

/// Everybody reaches everybody.
fn all_well(me: u16, ids: &[u16]) -> Neighbours {
    let peers = ids.iter().filter(|id| **id != me);
    peers.map(|id| (node(*id), neighbour(*id, ids, WELL))).collect()
}

fn silent(neighbours: &mut Neighbours, id: u16) {
    neighbours.get_mut(&node(id)).expect("a peer").reached = false;
}

fn gone(neighbours: &mut Neighbours, id: u16) {
    silent(neighbours, id);
    neighbours.get_mut(&node(id)).expect("a peer").gone = true;
}

fn sent(membership: &mut Membership) -> Vec<(NodeId, Control)> {
    let mut sent = Vec::new();
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Send { to, control } = effect {
            sent.push((to, control));
        }
    }
    sent
}

fn commits(membership: &mut Membership) -> Vec<Commit> {
    let mut commits = Vec::new();
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Commit(commit) = effect {
            commits.push(commit);
        }
    }
    commits
}

fn ended(membership: &mut Membership) -> Option<End> {
    let mut end = None;
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Ended(ended) = effect {
            end = Some(ended);
        }
    }
    end
}

fn proposal(by: u16, base: RegisterValue, regroup: Regroup) -> Proposal {
    let after = regroup.members_after(&base);
    Proposal {
        round: RoundId { coordinator: member(by), number: 1 },
        base,
        regroup,
        starts: after.iter().map(|m| (*m, start(m.node.get()))).collect(),
    }
}

fn dropping(ids: &[u16]) -> Regroup {
    Regroup { victims: set(ids), ..Regroup::default() }
}

fn joining(id: u16) -> Regroup {
    Regroup { joins: vec![member(id)], ..Regroup::default() }
}

/// What `membership` answers to a proposal of node `from`.
fn answer(
    membership: &mut Membership,
    from: u16,
    proposal: Proposal,
    neighbours: &Neighbours,
) -> Option<Control> {
    membership.handle_control(node(from), Control::Propose(Box::new(proposal)), neighbours, at(1));
    sent(membership).pop().map(|(_, control)| control)
}

fn objection(control: Option<Control>) -> Objection {
    match control {
        Some(Control::Object { objection, .. }) => objection,
        other => panic!("an objection, not {other:?}"),
    }
}

// Who coordinates, and who stays (R10, R12)

#[test]
fn the_lowest_member_that_is_reached_and_acts_coordinates() {
    let membership = acting(3, &[1, 2, 3]);
    let mut neighbours = all_well(3, &[1, 2, 3]);
    let coordinator = |neighbours: &Neighbours| {
        membership.coordinator_among(neighbours, at(1)).map(|member| member.node.get())
    };
    assert_eq!(coordinator(&neighbours), Some(1));
    let not_welcomed = Flags { member: false, ..WELL };
    neighbours.insert(node(1), neighbour(1, &[1, 2, 3], not_welcomed));
    assert_eq!(coordinator(&neighbours), Some(2));
    let leaves = Flags { leaving: true, ..WELL };
    neighbours.insert(node(2), neighbour(2, &[1, 2, 3], leaves));
    assert_eq!(coordinator(&neighbours), Some(3));
    silent(&mut neighbours, 1);
    silent(&mut neighbours, 2);
    assert_eq!(coordinator(&neighbours), Some(3));
}

#[test]
fn of_members_that_miss_each_other_for_two_units_those_that_miss_most_go() {
    let membership = acting(1, &[1, 2, 3, 4]);
    let mut neighbours = all_well(1, &[1, 2, 3, 4]);
    let stayers = |neighbours: &Neighbours, now| {
        let stay = membership.stayers(&value(&[1, 2, 3, 4]), neighbours, now);
        stay.iter().map(|member| member.node.get()).collect::<Vec<_>>()
    };
    for (from, to) in [(2, 3), (2, 4)] {
        let missing = &mut neighbours.get_mut(&node(from)).expect("a peer").missing;
        missing.insert(node(to), at(1));
    }
    assert_eq!(stayers(&neighbours, at(2)), [1, 2, 3, 4], "one report is no proof");
    assert_eq!(stayers(&neighbours, at(3)), [1, 3, 4]);
}

#[test]
fn a_majority_goes_at_once_and_others_wait_for_those_that_live_on_the_disk() {
    let mut membership = acting(4, &[1, 2, 3, 4, 5]);
    let base = value(&[1, 2, 3, 4, 5]);
    let mut neighbours = all_well(4, &[1, 2, 3, 4, 5]);
    let hesitation = |m: &Membership, stay: &[u16], n: &Neighbours, now| {
        let stay: Vec<Member> = stay.iter().copied().map(member).collect();
        m.hesitation(&base, &stay, n, now)
    };
    assert_eq!(hesitation(&membership, &[2, 4, 5], &neighbours, at(1)), Duration::ZERO);
    for id in [1, 2, 3] {
        silent(&mut neighbours, id);
    }
    // Nothing is known of the disk: they may be alive, and together.
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(1)), UNIT.times(5));
    let block = |id: u16, sequence, reach: &[u16]| DiskHeartbeat {
        node: node(id),
        incarnation: Incarnation(1),
        sequence,
        reach: set(reach),
    };
    // Three sides: 1 alone, 2 with 3, and this one; 2 with 3 has the lower node.
    for sequence in 0..4 {
        let blocks =
            [block(1, sequence, &[1]), block(2, sequence, &[2, 3]), block(3, sequence, &[2, 3])];
        let now = at(u32::try_from(sequence).expect("small") * 2);
        membership.handle_disk_heartbeats(&blocks, now);
    }
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(7)), UNIT.times(5));
    // A process that is known to have ended is not waited for, whatever its block says.
    for id in [2, 3] {
        gone(&mut neighbours, id);
    }
    assert_eq!(hesitation(&membership, &[4, 5], &neighbours, at(7)), Duration::ZERO);
}

// Agreement

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

// The coordinator's rounds

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

// What the register says

#[test]
fn a_member_that_the_register_does_not_list_is_expelled_or_has_left() {
    let mut without = value(&[1, 3]);
    without.view = ViewId(2);
    without.generation = SanGeneration(2);
    let mut expelled = without.clone();
    expelled.phase = Phase::Fencing;
    expelled.victims = BTreeMap::from([(node(2), Incarnation(1))]);
    let mut membership = acting(2, &[1, 2, 3]);
    membership.handle_leave();
    membership.learn(expelled, at(1));
    assert_eq!(ended(&mut membership), Some(End::Expelled), "it was given up while it left");
    let mut membership = acting(2, &[1, 2, 3]);
    membership.handle_leave();
    membership.learn(without, at(1));
    assert_eq!(ended(&mut membership), Some(End::Left));
    assert!(membership.has_ended());
}

#[test]
fn a_value_two_views_ahead_is_not_acted_in() {
    let mut ahead = value(&[1, 2, 3]);
    ahead.view = ViewId(3);
    ahead.generation = SanGeneration(3);
    let mut membership = acting(2, &[1, 2, 3]);
    membership.learn(ahead, at(1));
    assert_eq!(ended(&mut membership), Some(End::MissedViews));
}

#[test]
fn an_older_value_changes_nothing() {
    let mut membership = acting(2, &[1, 2, 3]);
    let mut old = value(&[1, 3]);
    old.generation = SanGeneration(1);
    membership.learn(old, at(1));
    assert_eq!(ended(&mut membership), None);
    assert_eq!(membership.me(), Some(member(2)));
}

// Joining (Fig. 10)

fn request(membership: &mut Membership, generation: u64, storage_ok: bool, now: Instant) {
    let mut neighbours = all_well(1, &[1, 2, 4]);
    neighbours.insert(node(4), neighbour(4, &[1, 2], Flags::default()));
    let generation = SanGeneration(generation);
    let control = Control::JoinRequest { generation, storage_ok };
    membership.handle_control(node(4), control, &neighbours, now);
}

fn refusal(membership: &mut Membership) -> Option<JoinRefusal> {
    sent(membership).into_iter().find_map(|(_, control)| {
        let Control::JoinRefused(reason) = control else { return None };
        Some(reason)
    })
}

#[test]
fn a_server_that_may_not_join_is_told_why() {
    let mut membership = acting(1, &[1, 2]);
    request(&mut membership, 0, true, at(1));
    let mismatch = JoinRefusal::GenerationMismatch { theirs: 0, ours: 1 };
    assert_eq!(refusal(&mut membership), Some(mismatch));
    request(&mut membership, 1, false, at(1));
    assert_eq!(refusal(&mut membership), Some(JoinRefusal::NotHealthy));
    let mut unfenced = value(&[1, 2]);
    unfenced.generation = SanGeneration(2);
    unfenced.phase = Phase::Fencing;
    unfenced.victims = BTreeMap::from([(node(4), Incarnation(1))]);
    membership.learn(unfenced, at(1));
    sent(&mut membership);
    request(&mut membership, 2, true, at(1));
    assert_eq!(refusal(&mut membership), Some(JoinRefusal::FormerLifeNotFenced));
}

/// S3-155: it has read a partition that the members do not use, and goes on reading it.
#[test]
fn a_generation_ahead_of_the_members_is_refused_when_it_stays_ahead() {
    let mut membership = acting(1, &[1, 2]);
    request(&mut membership, 7, true, at(1));
    assert_eq!(refusal(&mut membership), None, "this node reads the register again first");
    let later = 1 + timer::JOIN_PATIENCE;
    request(&mut membership, 7, true, at(later));
    let mismatch = JoinRefusal::GenerationMismatch { theirs: 7, ours: 1 };
    assert_eq!(refusal(&mut membership), Some(mismatch));
}

#[test]
fn a_joiner_is_proposed_when_everybody_reaches_it() {
    let mut membership = acting(1, &[1, 2]);
    request(&mut membership, 1, true, at(1));
    let mut neighbours = all_well(1, &[1, 2, 4]);
    neighbours.insert(node(4), neighbour(4, &[1], Flags::default()));
    membership.evaluate(&neighbours, at(1));
    assert!(sent(&mut membership).is_empty(), "it does not reach node 2");
    neighbours.insert(node(4), neighbour(4, &[1, 2], Flags::default()));
    membership.evaluate(&neighbours, at(2));
    let proposed = sent(&mut membership);
    assert_eq!(proposed.len(), 2, "to the other member and to the joiner: {proposed:?}");
}

fn starting(me: u16) -> Membership {
    Membership::new(node(me), start(me), UNIT, 1, at(0))
}

/// Units 0 to `until`, every two of which the register and the disk are read.
fn watch(
    membership: &mut Membership,
    value: &RegisterValue,
    blocks: impl Fn(u32) -> Vec<DiskHeartbeat>,
    neighbours: &Neighbours,
    until: u32,
) -> Option<u32> {
    for unit in 0..=until {
        if unit % 2 == 0 {
            membership.handle_register(value.clone(), at(unit), at(unit));
            membership.handle_disk_heartbeats(&blocks(unit), at(unit));
        }
        membership.evaluate(neighbours, at(unit));
        if !commits(membership).is_empty() {
            return Some(unit);
        }
    }
    None
}

#[test]
fn a_cluster_that_lists_nobody_is_started_at_once() {
    let mut membership = starting(2);
    let empty = RegisterValue::initial();
    assert_eq!(watch(&mut membership, &empty, |_| vec![], &Neighbours::new(), 20), Some(0));
}

#[test]
fn a_cold_start_waits_until_no_listed_heartbeat_has_moved_for_eight_units() {
    let block = |sequence| {
        let reach = NodeSet::EMPTY;
        DiskHeartbeat { node: node(1), incarnation: Incarnation(1), sequence, reach }
    };
    let still = |_| vec![block(5)];
    let moves_until_6 = |unit: u32| vec![block(u64::from(unit.min(6)))];
    let moves = |unit: u32| vec![block(u64::from(unit))];
    let of_another_life =
        |unit: u32| vec![DiskHeartbeat { incarnation: Incarnation(9), ..block(u64::from(unit)) }];
    let when = |blocks: &dyn Fn(u32) -> Vec<DiskHeartbeat>| {
        watch(&mut starting(2), &value(&[1]), blocks, &Neighbours::new(), 40)
    };
    assert_eq!(when(&still), Some(8));
    assert_eq!(when(&moves_until_6), Some(14));
    assert_eq!(when(&moves), None);
    assert_eq!(when(&of_another_life), Some(8));
}

#[test]
fn nobody_starts_a_cluster_while_a_member_answers_or_the_disk_cannot_be_read() {
    let neighbours = BTreeMap::from([(node(3), neighbour(3, &[2, 3], WELL))]);
    let alone = watch(&mut starting(2), &value(&[1]), |_| vec![], &neighbours, 40);
    assert_eq!(alone, None);
    let mut membership = starting(2);
    membership.handle_register(value(&[1]), at(0), at(0));
    for unit in 0..40 {
        membership.evaluate(&Neighbours::new(), at(unit));
        assert!(commits(&mut membership).is_empty());
    }
}

#[test]
fn of_several_that_start_together_the_lowest_goes_first() {
    let joiner = |id| (node(id), neighbour(id, &[1, 2], Flags::default()));
    let with_lower = BTreeMap::from([joiner(1)]);
    let with_higher = BTreeMap::from([joiner(3)]);
    let when =
        |neighbours: &Neighbours| watch(&mut starting(2), &value(&[4]), |_| vec![], neighbours, 40);
    assert_eq!(when(&with_higher), Some(8));
    assert_eq!(when(&with_lower), Some(8 + timer::NOT_PREFERRED));
}

#[test]
fn a_joiner_that_was_let_in_and_put_out_before_it_was_welcomed_is_used_up() {
    let mut membership = starting(4);
    let neighbours = all_well(4, &[1, 4]);
    let asked = proposal(1, value(&[1]), joining(4));
    assert!(matches!(answer(&mut membership, 1, asked, &neighbours), Some(Control::Agree { .. })));
    let mut out = value(&[1]);
    out.view = ViewId(3);
    out.generation = SanGeneration(3);
    out.incarnations.insert(node(4), Incarnation(1));
    membership.learn(out, at(2));
    assert_eq!(ended(&mut membership), Some(End::Expelled));
}

#[test]
fn a_joiner_acts_only_when_it_is_welcomed() {
    let mut membership = starting(4);
    let neighbours = all_well(4, &[1, 4]);
    answer(&mut membership, 1, proposal(1, value(&[1]), joining(4)), &neighbours);
    let mut joined = value(&[1, 4]);
    joined.view = ViewId(2);
    joined.generation = SanGeneration(2);
    membership.learn(joined.clone(), at(2));
    assert_eq!(membership.me(), None);
    let starts: BTreeMap<Member, StartNonce> =
        [1, 4].into_iter().map(|id| (member(id), start(id))).collect();
    let state = Box::new(SanState {
        view: ViewId(2),
        sequence: 0,
        mounts: BTreeMap::new(),
        lockspace_high: 0,
        dead: Vec::new(),
    });
    let blob = |bytes: &[u8]| Control::JoinState {
        view: ViewId(2),
        layer: 1,
        id: 0,
        bytes: bytes.to_vec(),
    };
    for control in [blob(b"in "), blob(b"pieces")] {
        membership.handle_control(node(1), control, &neighbours, at(3));
    }
    let welcome = Control::Welcome { value: Box::new(joined), starts, state };
    membership.handle_control(node(1), welcome, &neighbours, at(3));
    assert_eq!(membership.me(), Some(member(4)));
    let installed = std::iter::from_fn(|| membership.poll_effect()).find_map(|effect| {
        if let Effect::Installed(installation) = effect { installation.admission } else { None }
    });
    let (_, blobs) = installed.expect("admitted");
    assert_eq!(blobs[0].bytes, b"in pieces");
}

/// The final word on a cold start of this start comes late; in between it was read as committed.
#[test]
fn a_cold_start_read_before_it_is_answered_is_still_acted_on() {
    let mut membership = starting(2);
    let empty = RegisterValue::initial();
    membership.handle_register(empty, at(0), at(0));
    membership.evaluate(&Neighbours::new(), at(0));
    let token = commits(&mut membership)[0].token;
    let committed = value(&[2]);
    membership.handle_register(committed.clone(), at(1), at(1));
    assert_eq!(membership.me(), None);
    membership.handle_commit_answer(token, CommitAnswer::Committed(committed), at(2));
    assert_eq!(membership.me(), Some(member(2)));
}
