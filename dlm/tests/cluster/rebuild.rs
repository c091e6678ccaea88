//! Homes that move: `docs/spec/locks.md` sections 2 and 4, rule by rule.

use dlm::message::Kind;
use dlm::{HandleError, LockId, LockspaceId, Message, Mode, Violation};
use mx_base::{Member, ViewId};

use crate::oracle;
use crate::world::{LOCKSPACE, World, member, resource_at};

use Mode::{CR, EX, PR, PW};

fn get(world: &mut World, owner: Member, at: dlm::BucketName, mode: Mode) -> LockId {
    let lock = world.request(owner, at, mode);
    world.deliver_all();
    lock
}

/// Ends everything about a dead member.
fn bury(world: &mut World, recoverer: Member, dead: Member) {
    world.recover(recoverer, dead, &[]);
    world.cut_caches(dead);
    for to in world.newest().view.members().to_vec() {
        world.tell_caches_gone(to, dead);
    }
    world.deliver_all();
}

/// Nodes 1, 2, 3; the resource is homed on 3.
fn homed_on_3() -> (World, Member, Member, Member, dlm::BucketName) {
    let world = World::of(3);
    let home = member(3, 1);
    let at = resource_at(&world, home);
    (world, member(1, 1), member(2, 1), home, at)
}

#[test]
fn what_survivors_hold_and_wait_for_survives_their_home() {
    let (mut world, a, b, home, at) = homed_on_3();
    let holder = get(&mut world, a, at, EX);
    let waiter = get(&mut world, b, at, PR);
    world.lose(a, home);
    assert_eq!(world.held(a, holder), Some(EX), "usable all the time");
    assert_eq!(world.held(b, waiter), None);
    assert_eq!(world.nodes[&a].locks[&holder].callout, Some(PR), "called out by the heir");
    world.answer(a, holder, true);
    world.deliver_all();
    assert_eq!(world.held(b, waiter), Some(PR), "the dead held nothing beside EX: no recovery");
    oracle::check_usable_modes(&world);
}

#[test]
fn an_heir_grants_nothing_before_everybody_has_reported() {
    let (mut world, a, b, home, at) = homed_on_3();
    let holder = get(&mut world, b, at, PR);
    world.crash(home);
    world.commit(a, vec![a, b], Vec::new());
    let heir = world.nodes[&a].space.home(at.bucket).expect("has a home");
    let (early, lock) = (a, world.request(a, at, EX));
    world.deliver_all();
    assert_eq!(world.held(early, lock), None);
    if heir == a {
        assert_eq!(world.nodes[&a].space.unreported(), [b]);
    }
    world.settle();
    assert_eq!(world.held(early, lock), None, "b holds PR, and the heir knows it now");
    assert_eq!(world.nodes[&b].locks[&holder].callout, Some(EX));
}

#[test]
fn a_joiner_becomes_home_of_an_even_share_and_learns_what_is_held_there() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let locks: Vec<(dlm::BucketName, LockId)> =
        (0..40).map(crate::world::resource).map(|at| (at, get(&mut world, a, at, PR))).collect();
    let joiner = world.give_life(3);
    world.commit(a, vec![a, b, joiner], Vec::new());
    world.settle();
    let moved: Vec<&(dlm::BucketName, LockId)> = locks
        .iter()
        .filter(|(at, _)| world.nodes[&a].space.home(at.bucket) == Some(joiner))
        .collect();
    assert!((5..25).contains(&moved.len()), "{}", moved.len());
    for (at, lock) in moved.clone() {
        let writer = get(&mut world, joiner, *at, EX);
        assert_eq!(world.nodes[&a].locks[lock].callout, Some(EX));
        world.answer(a, *lock, false);
        world.deliver_all();
        assert_eq!(world.held(joiner, writer), Some(EX), "nobody has died");
    }
    oracle::check_quiet(&world);
}

#[test]
fn a_value_block_moves_with_a_holder_of_pr_and_is_lost_without() {
    let (mut world, a, b, home, at) = homed_on_3();
    let other = (0..)
        .map(crate::world::resource)
        .find(|r| *r != at && world.nodes[&a].space.home(r.bucket) == Some(home))
        .expect("the home has more");
    for at in [at, other] {
        let writer = get(&mut world, a, at, EX);
        world.lower(a, writer, if at == other { CR } else { PR }, true);
    }
    world.deliver_all();
    world.lose(a, home);
    bury(&mut world, a, home);
    get(&mut world, b, other, PR);
    assert_eq!(world.values_seen, 0, "a holder of CR cannot vouch for it");
    get(&mut world, b, at, PR);
    assert_eq!(world.values_seen, 1);
}

#[test]
fn a_grant_of_the_former_home_counts_until_the_owner_has_reported_and_not_after() {
    for follows_first in [false, true] {
        let (mut world, a, b, home, at) = homed_on_3();
        let lock = world.request(b, at, EX);
        world.deliver(b, home);
        world.crash(home);
        world.commit(a, vec![a, b], Vec::new());
        if follows_first {
            world.follow(b);
        }
        world.deliver(home, b);
        let expected = (!follows_first).then_some(EX);
        assert_eq!(world.held(b, lock), expected, "follows first: {follows_first}");
        world.settle();
        bury(&mut world, a, home);
        assert_eq!(world.held(b, lock), Some(EX));
        oracle::check_quiet(&world);
    }
}

#[test]
fn a_request_that_the_former_home_takes_in_too_late_is_not_lost() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let joiner = world.give_life(3);
    let will_move = {
        let mut trial = World::of(2);
        let joiner = trial.give_life(3);
        trial.commit(a, vec![a, b, joiner], Vec::new());
        let space = &trial.nodes[&a].space;
        (0..)
            .map(crate::world::resource)
            .find(|r| {
                space.home(r.bucket) == Some(joiner)
                    && world.nodes[&a].space.home(r.bucket) == Some(a)
            })
            .expect("some of a's buckets move")
    };
    let lock = world.request(b, will_move, EX);
    world.commit(a, vec![a, b, joiner], Vec::new());
    world.deliver(b, a);
    assert_eq!(world.nodes[&a].space.counters().dropped_old, 1);
    world.settle();
    assert_eq!(world.held(b, lock), Some(EX), "reported to the heir");
    oracle::check_quiet(&world);
}

#[test]
fn what_belongs_to_a_view_not_heard_of_is_kept_for_it() {
    let mut world = World::of(3);
    let (a, b, c) = (member(1, 1), member(2, 1), member(3, 1));
    let joiner = world.give_life(4);
    world.commit(a, vec![a, b, c, joiner], Vec::new());
    world.follow(joiner);
    let at = resource_at(&world, b);
    let lock = world.request(joiner, at, PR);
    world.deliver_all();
    let kept = world.nodes[&b].space.early_count();
    assert!(kept >= 2, "b knows neither the view nor the joiner: {kept}");
    assert_eq!(world.held(joiner, lock), None);
    world.settle();
    assert_eq!(world.held(joiner, lock), Some(PR));
    oracle::check_quiet(&world);
}

#[test]
fn a_further_change_during_a_rebuild_starts_it_over() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let at = resource_at(&world, d);
    let holder = get(&mut world, a, at, EX);
    world.crash(d);
    world.commit(a, vec![a, b, c], Vec::new());
    let heir = world.nodes[&a].space.home(at.bucket).expect("has a home");
    // Nobody else has followed: the heir waits, and dies.
    let (next, last) = if heir == a { (b, c) } else { (a, if heir == b { c } else { b }) };
    let reader = world.request(last, at, PR);
    world.crash(heir);
    if heir == a {
        // Whoever goes on has to follow what was committed.
        world.follow(b);
    }
    world.commit(next, vec![next, last], Vec::new());
    world.settle();
    if heir == a {
        assert_eq!(world.held(last, reader), None, "a held EX, and its outcome is open");
        world.recover(next, a, &[at]);
        world.cut_caches(a);
        for to in [next, last] {
            world.tell_caches_gone(to, a);
        }
        world.recover(next, d, &[]);
        world.deliver_all();
    } else {
        assert_eq!(world.nodes[&a].locks[&holder].callout, Some(PR));
        world.answer(a, holder, true);
        world.deliver_all();
    }
    assert_eq!(world.held(last, reader), Some(PR));
    oracle::check_usable_modes(&world);
}

#[test]
fn a_wait_cancelled_while_its_home_dies_ends_cancelled() {
    let (mut world, a, b, home, at) = homed_on_3();
    get(&mut world, a, at, EX);
    let lock = get(&mut world, b, at, PR);
    world.cancel(b, lock);
    world.lose(a, home);
    assert!(!world.nodes[&b].locks.contains_key(&lock));
    for heir in [a, b] {
        let mut resources = world.nodes[&heir].space.resources();
        assert!(resources.all(|state| state.waiting.is_empty()), "not reported");
    }
}

#[test]
fn a_request_that_must_not_wait_is_decided_when_the_rebuild_is_over() {
    let (mut world, a, b, home, at) = homed_on_3();
    let holder = get(&mut world, a, at, PR);
    world.crash(home);
    world.commit(a, vec![a, b], Vec::new());
    world.follow(b);
    let (reader, writer) = (world.request_as(b, at, PR, true), world.request_as(b, at, EX, true));
    world.deliver_all();
    assert_eq!(world.held(b, reader), Some(PR), "a holds PR: the dead did not write");
    assert!(!world.nodes[&b].locks.contains_key(&writer), "denied");
    assert_eq!(world.held(a, holder), Some(PR));
}

#[test]
fn a_leaver_leaves_nothing_behind() {
    let (mut world, a, b, home, at) = homed_on_3();
    let lock = get(&mut world, home, at, EX);
    let waiter = get(&mut world, a, at, EX);
    world.unlock(home, lock, true);
    world.commit(b, vec![a, b], vec![home]);
    world.settle();
    assert_eq!(world.held(a, waiter), Some(EX), "nothing to recover");
    oracle::check_quiet(&world);
}

/// A leaver's last Unlock may be overtaken by the view without it.
#[test]
fn a_leaver_whose_last_word_is_lost_leaves_nothing_behind_either() {
    let mut world = World::of(3);
    let [a, b, leaver] = [1, 2, 3].map(|node| member(node, 1));
    let at = resource_at(&world, a);
    let lock = get(&mut world, leaver, at, EX);
    world.lower(leaver, lock, PR, true);
    world.convert(leaver, lock, EX, false);
    world.deliver_all();
    assert_eq!(world.values_seen, 1);
    let reader = get(&mut world, b, at, PR);
    world.unlock(leaver, lock, true);
    world.commit(a, vec![a, b], vec![leaver]);
    world.settle();
    assert_eq!(world.held(b, reader), Some(PR));
    assert_eq!(world.values_seen, 1, "its value was not seen, and the old one does not count");
    oracle::check_quiet(&world);
}

#[test]
fn a_node_that_missed_views_catches_up_with_what_it_holds() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let at = resource_at(&world, d);
    let holder = get(&mut world, b, at, EX);
    world.crash(d);
    world.commit(a, vec![a, b, c], Vec::new());
    let joiner = world.give_life(4);
    world.commit(a, vec![a, b, c, joiner], Vec::new());
    world.follow(c);
    world.follow(c);
    world.follow(joiner);
    world.deliver_all();
    world.catch_up(b);
    world.settle();
    let reader = get(&mut world, c, at, PR);
    assert_eq!(world.nodes[&b].locks[&holder].callout, Some(PR));
    world.answer(b, holder, true);
    world.deliver_all();
    assert_eq!(world.held(c, reader), Some(PR));
    bury(&mut world, a, d);
    oracle::check_quiet(&world);
}

#[test]
fn a_new_life_of_a_node_has_nothing_of_the_former_and_its_late_messages_do_not_count() {
    let mut world = World::of(3);
    let [a, b, old] = [1, 2, 3].map(|node| member(node, 1));
    let at = resource_at(&world, a);
    world.request(old, at, EX);
    world.crash(old);
    let new = world.give_life(3);
    world.commit(a, vec![a, b, new], Vec::new());
    world.settle();
    assert_eq!(world.nodes[&a].space.counters().dropped_no_member, 1);
    assert_eq!(world.nodes[&new].space.locks_count(), 0);
    let lock = get(&mut world, new, at, EX);
    assert_eq!(world.held(new, lock), Some(EX), "the former had not been granted anything");
}

#[test]
fn what_a_home_or_an_owner_cannot_have_said_is_refused_and_changes_nothing() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let at = resource_at(&world, a);
    let lock = get(&mut world, b, at, PR);
    let bucket = dlm::message::BucketEpoch { bucket: at.bucket, epoch: ViewId(1) };
    let name = at.name;
    let unknown = LockId(99);
    let wrong = |epoch: u64| dlm::message::BucketEpoch { epoch: ViewId(epoch), ..bucket };
    let cases = [
        (Message::Unlock { at: bucket, lock: unknown, name, value: None }, Violation::LockUnknown),
        (
            Message::Request { at: bucket, lock, name, wanted: PR, no_queue: false },
            Violation::LockKnown,
        ),
        (
            Message::Convert { at: bucket, lock, name, wanted: CR, no_queue: false },
            Violation::NotUpwards,
        ),
        (
            Message::Lower { at: bucket, lock, name, to: EX, grants: 1, value: None },
            Violation::NotDownwards,
        ),
        (
            Message::Unlock {
                at: bucket,
                lock,
                name,
                value: Some(Box::new(crate::world::value_block(1))),
            },
            Violation::ValueOfReader,
        ),
        (
            Message::Granted { at: bucket, lock, mode: EX, lowers: 0, value: None },
            Violation::NotFromHome,
        ),
        (Message::Report { epoch: ViewId(1), locks: vec![report(at)] }, Violation::ReportEnded),
    ];
    let now = world.instant();
    for (message, violation) in cases {
        let kind = message.kind();
        let space = &mut world.nodes.get_mut(&a).expect("there").space;
        let before: Vec<_> = space.resources().collect();
        assert_eq!(
            space.handle_message(b, LOCKSPACE, message, now),
            Err(HandleError::Violation { from: b, kind, violation })
        );
        assert_eq!(space.resources().collect::<Vec<_>>(), before);
        space.check_invariants();
    }
    let space = &mut world.nodes.get_mut(&a).expect("there").space;
    let cancel = Message::Cancel { at: wrong(0), lock, name };
    assert_eq!(
        space.handle_message(b, LockspaceId(8), cancel.clone(), now),
        Err(HandleError::OtherLockspace)
    );
    assert_eq!(space.handle_message(b, LOCKSPACE, cancel, now), Ok(()), "old, and dropped");
    let reply = Message::Granted { at: bucket, lock: unknown, mode: PW, lowers: 0, value: None };
    let space = &mut world.nodes.get_mut(&b).expect("there").space;
    assert!(space.handle_message(a, LOCKSPACE, reply, now).is_err());
}

fn report(at: dlm::BucketName) -> dlm::message::ReportedLock {
    dlm::message::ReportedLock {
        bucket: at.bucket,
        name: at.name,
        lock: LockId(5),
        held: Some(PR),
        wanted: None,
        no_queue: false,
        value: None,
    }
}

#[test]
fn a_view_costs_one_report_end_for_each_other_member_and_moves_only_what_it_must() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    for index in 0..60 {
        get(&mut world, a, crate::world::resource(index), PR);
    }
    let before: Vec<u64> =
        [a, b, c].iter().map(|m| world.nodes[m].space.counters().sent(Kind::ReportEnd)).collect();
    world.lose(a, d);
    for (m, before) in [a, b, c].iter().zip(before) {
        assert_eq!(world.nodes[m].space.counters().sent(Kind::ReportEnd) - before, 2);
    }
    let rebuilt: u64 =
        [a, b, c].iter().map(|m| world.nodes[m].space.counters().locks_rebuilt).sum();
    assert!((5..30).contains(&rebuilt), "only the dead node's share: {rebuilt}");
}
