//! Joins and cold starts (Figs. 10 and 11).

use super::*;

fn request(membership: &mut Membership, generation: u64, storage_ok: bool, now: Instant) {
    let mut neighbours = all_well(1, &[1, 2, 4]);
    neighbours.insert(node(4), neighbour(4, &[1, 2], Flags::default()));
    let (generation, incarnation) = (SanGeneration(generation), Incarnation(2));
    let control = Control::JoinRequest { generation, storage_ok, incarnation };
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
    Membership::new(member(me), start(me), UNIT, 1, at(0))
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

fn with_newest(incarnation: u32) -> RegisterValue {
    let mut value = value(&[1, 2]);
    value.generation = SanGeneration(2);
    value.incarnations.insert(node(4), Incarnation(incarnation));
    value
}

#[test]
fn a_joiner_is_proposed_in_the_life_it_asks_for_and_in_no_other() {
    let mut membership = acting(1, &[1, 2]);
    request(&mut membership, 1, true, at(1));
    let neighbours = BTreeMap::from([
        (node(2), neighbour(2, &[1, 2, 4], WELL)),
        (node(4), neighbour(4, &[1, 2], Flags::default())),
    ]);
    membership.evaluate(&neighbours, at(1));
    let joins = sent(&mut membership).into_iter().find_map(|(_, control)| {
        let Control::Propose(proposal) = control else { return None };
        Some(proposal.regroup.joins)
    });
    let asked_for = Member { node: node(4), incarnation: Incarnation(2) };
    assert_eq!(joins, Some(vec![asked_for]), "numbers that were skipped stay unused");
}

#[test]
fn a_life_that_is_not_above_the_newest_is_refused() {
    for newest in [2, 3] {
        let mut membership = acting(1, &[1, 2]);
        membership.learn(with_newest(newest), at(1));
        sent(&mut membership);
        request(&mut membership, 2, true, at(1));
        let used = JoinRefusal::LifeUsed { newest: Incarnation(newest) };
        assert_eq!(refusal(&mut membership), Some(used));
        let proposed = sent(&mut membership);
        assert!(proposed.is_empty(), "{proposed:?}");
    }
}

#[test]
fn a_life_that_was_offered_to_another_start_is_refused() {
    let mut membership = acting(1, &[1, 2]);
    membership.burn(Member { node: node(4), incarnation: Incarnation(2) });
    request(&mut membership, 1, true, at(1));
    let used = JoinRefusal::LifeUsed { newest: Incarnation(2) };
    assert_eq!(refusal(&mut membership), Some(used));
}

#[test]
fn a_start_whose_life_was_used_is_over() {
    let used = |newest| Some(End::LifeUsed { newest: Incarnation(newest) });
    for newest in [1, 2] {
        let mut read = starting(4);
        read.handle_register(with_newest(newest), at(0), at(0));
        assert_eq!(ended(&mut read), used(newest));
    }
    let mut told = starting(4);
    let refusal = JoinRefusal::LifeUsed { newest: Incarnation(7) };
    told.handle_control(node(1), Control::JoinRefused(refusal), &all_well(4, &[1, 4]), at(1));
    assert_eq!(ended(&mut told), used(7));
    let mut never = starting(4);
    never.handle_register(with_newest(0), at(0), at(0));
    assert_eq!(ended(&mut never), None);
}

#[test]
fn a_start_does_not_agree_to_another_life_than_its_own() {
    let mut membership = starting(4);
    let other = Member { node: node(4), incarnation: Incarnation(2) };
    let mut asked = proposal(1, value(&[1]), Regroup { joins: vec![other], ..Regroup::default() });
    asked.starts.insert(other, start(4));
    assert_eq!(answer(&mut membership, 1, asked, &all_well(4, &[1, 4])), None);
}

#[test]
fn a_cold_start_that_was_refused_ends_the_start() {
    let mut membership = starting(2);
    membership.handle_register(RegisterValue::initial(), at(0), at(0));
    membership.evaluate(&Neighbours::new(), at(0));
    let token = commits(&mut membership)[0].token;
    membership.handle_commit_answer(token, CommitAnswer::Unknown, at(1));
    assert_eq!(ended(&mut membership), None, "it may still be committed");
    membership.handle_commit_answer(token, CommitAnswer::Refused(value(&[1])), at(2));
    assert_eq!(ended(&mut membership), Some(End::ColdStartRefused));
}

/// Its life is in the register, so it cannot start the cluster with it.
#[test]
fn a_joiner_that_was_let_in_by_members_that_are_gone_is_over() {
    let mut membership = starting(4);
    let asked = proposal(1, value(&[1]), joining(4));
    answer(&mut membership, 1, asked, &all_well(4, &[1, 4]));
    let mut joined = value(&[1, 4]);
    joined.view = ViewId(2);
    joined.generation = SanGeneration(2);
    assert_eq!(watch(&mut membership, &joined, |_| vec![], &Neighbours::new(), 40), None);
    membership.evaluate(&Neighbours::new(), at(41));
    assert_eq!(membership.me(), None);
    assert!(membership.has_ended());
}
