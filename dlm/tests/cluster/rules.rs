//! The grant rule, callouts, value blocks: `docs/spec/locks.md` sections 1 and 3, rule by rule.

use dlm::message::Kind;
use dlm::{LockId, Mode};
use mx_base::Member;

use crate::world::{World, member, resource_at};

use Mode::{CR, CW, EX, NL, PR, PW};

fn three() -> (World, Member, Member, Member) {
    (World::of(3), member(1, 1), member(2, 1), member(3, 1))
}

/// Asks and lets everything arrive.
fn get(world: &mut World, owner: Member, at: dlm::BucketName, mode: Mode) -> LockId {
    let lock = world.request(owner, at, mode);
    world.deliver_all();
    lock
}

#[test]
fn exactly_compatible_modes_are_granted_at_once_wherever_the_home_is() {
    for held in Mode::ALL {
        for wanted in Mode::ALL {
            let (mut world, a, b, c) = three();
            for home in [a, b, c] {
                let at = resource_at(&world, home);
                let holder = get(&mut world, a, at, held);
                let asker = world.request_as(b, at, wanted, true);
                world.deliver_all();
                assert_eq!(world.held(a, holder), Some(held));
                let expected = held.compatible(wanted).then_some(wanted);
                assert_eq!(world.held(b, asker), expected, "{held} beside {wanted} at {home}");
            }
        }
    }
}

#[test]
fn a_conversion_is_granted_if_the_new_mode_goes_with_what_others_hold() {
    for held in Mode::ALL {
        for beside in Mode::ALL.into_iter().filter(|m| m.compatible(held)) {
            for wanted in Mode::ALL.into_iter().filter(|m| m.covers(held) && *m != held) {
                let (mut world, a, b, c) = three();
                let at = resource_at(&world, c);
                let lock = get(&mut world, a, at, held);
                get(&mut world, b, at, beside);
                world.convert(a, lock, wanted, true);
                world.deliver_all();
                let expected = if wanted.compatible(beside) { wanted } else { held };
                assert_eq!(world.held(a, lock), Some(expected), "{held} to {wanted}, {beside}");
            }
        }
    }
}

#[test]
fn ex_waits_until_every_pr_holder_has_surrendered() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (one, two) = (get(&mut world, a, at, PR), get(&mut world, b, at, PR));
    let writer = get(&mut world, c, at, EX);
    assert_eq!(world.nodes[&a].locks[&one].callout, Some(EX));
    assert_eq!(world.nodes[&b].locks[&two].callout, Some(EX));
    world.answer(a, one, false);
    world.deliver_all();
    assert_eq!(world.held(c, writer), None);
    world.answer(b, two, false);
    world.deliver_all();
    assert_eq!(world.held(c, writer), Some(EX));
}

#[test]
fn a_reader_does_not_overtake_a_waiting_writer() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let reader = get(&mut world, a, at, PR);
    let writer = get(&mut world, b, at, EX);
    let late = get(&mut world, c, at, PR);
    assert_eq!(world.held(c, late), None, "first in, first out");
    world.unlock(a, reader, false);
    world.deliver_all();
    assert_eq!(world.held(b, writer), Some(EX));
    assert_eq!(world.held(c, late), None);
}

#[test]
fn a_conversion_goes_before_a_new_request() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (upward, other) = (get(&mut world, a, at, CR), get(&mut world, b, at, PR));
    let new = get(&mut world, c, at, PW);
    world.convert(a, upward, PW, false);
    world.unlock(b, other, false);
    world.deliver_all();
    assert_eq!(world.held(a, upward), Some(PW));
    assert_eq!(world.held(c, new), None);
}

#[test]
fn a_conversion_does_not_overtake_another() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (one, two) = (get(&mut world, a, at, PR), get(&mut world, b, at, PR));
    let three = get(&mut world, c, at, CR);
    world.convert(a, one, EX, false);
    world.deliver_all();
    world.convert(c, three, PR, false);
    world.deliver_all();
    assert_eq!(world.held(c, three), Some(CR), "PR goes with what is held, but a is first");
    world.answer(b, two, false);
    world.answer(c, three, false);
    world.deliver_all();
    assert_eq!(world.held(a, one), Some(EX));
}

#[test]
fn while_a_conversion_waits_no_new_request_is_granted_but_nl() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (_reader, upward) = (get(&mut world, a, at, PR), get(&mut world, b, at, PR));
    world.convert(b, upward, EX, false);
    world.deliver_all();
    let (late, null) = (get(&mut world, c, at, CR), get(&mut world, c, at, NL));
    assert_eq!(world.held(c, late), None);
    assert_eq!(world.held(c, null), Some(NL));
}

#[test]
fn two_readers_that_both_want_to_write_do_not_deadlock() {
    let (mut world, a, b, _) = three();
    let at = resource_at(&world, member(3, 1));
    let (one, two) = (get(&mut world, a, at, PR), get(&mut world, b, at, PR));
    world.convert(a, one, EX, false);
    world.deliver_all();
    world.convert(b, two, EX, false);
    world.deliver_all();
    assert_eq!(world.nodes[&b].locks[&two].callout, Some(EX), "the first in the queue asks");
    assert_eq!(world.nodes[&a].locks[&one].callout, None);
    world.answer(b, two, false);
    world.deliver_all();
    assert_eq!(world.held(a, one), Some(EX));
    assert_eq!(world.held(b, two), Some(NL), "gave up to NL and kept its place");
    world.answer(a, one, true);
    world.deliver_all();
    assert_eq!(world.held(b, two), Some(EX));
}

#[test]
fn a_holder_is_called_out_once_for_what_the_first_waiter_wants() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let callouts = |world: &World| world.nodes[&b].space.counters().callouts;
    let holder = get(&mut world, b, at, EX);
    let reader = get(&mut world, a, at, PR);
    let writer = get(&mut world, c, at, EX);
    assert_eq!(world.nodes[&b].locks[&holder].callout, Some(PR), "not what is wanted behind it");
    assert_eq!(callouts(&world), 1);
    world.answer(b, holder, true);
    world.deliver_all();
    assert_eq!(world.held(b, holder), Some(PR), "the least that satisfies");
    assert_eq!(world.held(a, reader), Some(PR));
    assert_eq!(world.nodes[&b].locks[&holder].callout, Some(EX), "now for the next in the queue");
    assert_eq!(callouts(&world), 2);
    world.answer(b, holder, true);
    world.answer(a, reader, true);
    world.deliver_all();
    assert_eq!(world.held(c, writer), Some(EX));
}

#[test]
fn a_holder_that_makes_too_little_room_is_called_out_again() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let holder = get(&mut world, b, at, EX);
    get(&mut world, c, at, EX);
    world.lower(b, holder, PR, true);
    world.deliver_all();
    assert_eq!(world.nodes[&b].space.counters().callouts, 2);
}

#[test]
fn a_callout_that_finds_the_lock_given_up_is_not_passed_on() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let lowered = get(&mut world, b, at, EX);
    let _reader = world.request(c, at, PR);
    world.deliver(c, a);
    world.lower(b, lowered, CR, true);
    world.deliver_all();
    assert_eq!(world.nodes[&b].space.counters().callouts, 0);
    let unlocked = get(&mut world, b, at, PR);
    let _writer = world.request(c, at, EX);
    world.deliver(c, a);
    world.unlock(b, unlocked, false);
    world.deliver_all();
    assert_eq!(world.nodes[&b].space.counters().callouts, 1, "for the CR that is left");
}

#[test]
fn a_request_that_would_wait_and_must_not_is_denied_and_disturbs_nobody() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let holder = get(&mut world, b, at, PR);
    let asker = world.request_as(c, at, EX, true);
    world.deliver_all();
    assert!(!world.nodes[&c].locks.contains_key(&asker), "denied");
    assert_eq!(world.nodes[&b].locks[&holder].callout, None);
    let reader = get(&mut world, c, at, PR);
    world.convert(c, reader, EX, true);
    world.deliver_all();
    assert_eq!(world.held(c, reader), Some(PR), "a denied conversion leaves what was held");
    assert_eq!(world.nodes[&c].space.counters().denials, 2);
}

#[test]
fn a_cancelled_wait_ends_and_lets_others_pass() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let holder = get(&mut world, a, at, PR);
    let writer = get(&mut world, b, at, EX);
    let reader = get(&mut world, c, at, PR);
    world.cancel(b, writer);
    world.deliver_all();
    assert!(!world.nodes[&b].locks.contains_key(&writer));
    assert_eq!(world.held(c, reader), Some(PR), "the writer in its way has gone");
    world.convert(a, holder, EX, false);
    world.cancel(a, holder);
    world.deliver_all();
    assert_eq!(world.held(a, holder), Some(PR));
    assert_eq!(world.nodes[&a].locks[&holder].asked, None);
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    let (mut world, a, b, _) = three();
    let at = resource_at(&world, a);
    let lock = world.request(b, at, EX);
    world.deliver(b, a);
    world.cancel(b, lock);
    world.deliver_all();
    assert_eq!(world.held(b, lock), Some(EX));
    world.convert_again(b, lock);
}

impl World {
    /// Proof that a lock is usable: down and up again.
    fn convert_again(&mut self, owner: Member, lock: LockId) {
        self.lower(owner, lock, PR, true);
        self.convert(owner, lock, EX, false);
        self.deliver_all();
        assert_eq!(self.held(owner, lock), Some(EX));
    }
}

/// The lowering was sent when the grant was on the way: the owner finds itself with EX, so the
/// home must not take it for NL.
#[test]
fn a_grant_that_crosses_a_lowering_supersedes_it() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (one, two) = (get(&mut world, b, at, PR), get(&mut world, c, at, PR));
    world.convert(b, one, EX, false);
    world.deliver_all();
    world.unlock(c, two, false);
    world.deliver(c, a);
    world.lower(b, one, NL, false);
    let writer = world.request(c, at, EX);
    world.deliver_all();
    assert_eq!(world.held(b, one), Some(EX), "the grant that was on the way");
    assert_eq!(world.held(c, writer), None, "and the home knows it");
    world.answer(b, one, true);
    world.deliver_all();
    assert_eq!(world.held(c, writer), Some(EX));
}

#[test]
fn the_next_holder_gets_what_the_last_writer_left() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let writer = get(&mut world, b, at, EX);
    world.lower(b, writer, PR, true);
    world.deliver_all();
    assert_eq!(world.values_seen, 0);
    get(&mut world, c, at, PR);
    assert_eq!(world.values_seen, 1, "and the oracle has compared it");
    world.convert(b, writer, EX, false);
    world.deliver_all();
    world.answer(c, *world.nodes[&c].locks.keys().next().expect("has one"), false);
    world.deliver_all();
    assert_eq!(world.held(b, writer), Some(EX));
    assert_eq!(world.values_seen, 2);
    world.lower(b, writer, PR, false);
    get(&mut world, c, at, PR);
    assert_eq!(world.values_seen, 2, "who leaves nothing invalidates what was there");
}

#[test]
fn a_value_left_by_a_lowering_that_crosses_the_grant_is_not_given_back_stale() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let writer = get(&mut world, b, at, EX);
    world.lower(b, writer, PW, true);
    let reader = get(&mut world, c, at, CR);
    world.convert(b, writer, EX, false);
    world.deliver_all();
    world.unlock(c, reader, false);
    world.deliver(c, a);
    world.lower(b, writer, CR, true);
    world.deliver_all();
    assert_eq!(world.held(b, writer), Some(EX));
    assert_eq!(world.values_seen, 0, "the home's value was from before what b wrote last");
}

#[test]
fn what_nobody_has_to_do_with_is_forgotten() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let lock = get(&mut world, b, at, EX);
    let waiter = get(&mut world, c, at, CW);
    world.cancel(c, waiter);
    world.deliver_all();
    world.unlock(b, lock, true);
    world.deliver_all();
    assert_eq!(world.nodes[&a].space.resources().count(), 0);
    get(&mut world, b, at, PR);
    assert_eq!(world.values_seen, 0, "with its value block");
}

#[test]
fn an_uncontended_lock_homed_here_costs_no_message() {
    let (mut world, a, ..) = three();
    let at = resource_at(&world, a);
    let before = world.nodes[&a].space.counters().sent_total();
    let lock = world.request(a, at, PR);
    assert_eq!(world.held(a, lock), Some(PR), "at once");
    world.convert(a, lock, EX, false);
    world.lower(a, lock, CR, true);
    world.unlock(a, lock, false);
    let counters = world.nodes[&a].space.counters();
    assert_eq!(counters.sent_total(), before);
    assert_eq!(counters.grants_local, 2);
}

#[test]
fn a_remote_grant_costs_one_message_each_way_and_a_lowering_one() {
    let (mut world, a, b, _) = three();
    let at = resource_at(&world, a);
    let lock = get(&mut world, b, at, EX);
    world.lower(b, lock, PR, true);
    world.unlock(b, lock, false);
    world.deliver_all();
    let sent = |world: &World, of: Member, kind| world.nodes[&of].space.counters().sent(kind);
    assert_eq!(sent(&world, b, Kind::Request), 1);
    assert_eq!(sent(&world, a, Kind::Granted), 1);
    assert_eq!(sent(&world, b, Kind::Lower), 1);
    assert_eq!(sent(&world, b, Kind::Unlock), 1);
    assert_eq!(world.nodes[&b].space.counters().grants_remote, 1);
}

#[test]
fn an_administrator_sees_who_holds_and_who_waits() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    get(&mut world, b, at, PR);
    world.now += 7_000_000;
    get(&mut world, c, at, EX);
    world.now += 5_000_000;
    let explained = world.nodes[&a].space.explain(at.name, at.bucket);
    assert_eq!(explained.home, Some(a));
    let text = explained.at_home.expect("homed there").describe(world.instant()).to_string();
    let name = at.name;
    assert_eq!(
        text,
        format!(
            "{name:?} {:?} no value\n  granted PR to n2.1 l0 for 12 ms, called out for EX\n  \
             waiting to EX: n3.1 l0 for 5 ms",
            at.bucket
        )
    );
    let explained = world.nodes[&c].space.explain(at.name, at.bucket);
    assert_eq!(explained.at_home, None);
    assert_eq!(explained.own[0].wanted, Some(EX));
}

#[test]
fn a_mode_that_is_compatible_with_a_writer_is_granted_beside_it() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, a);
    let (one, two) = (get(&mut world, b, at, CW), get(&mut world, c, at, CW));
    let three = get(&mut world, a, at, CR);
    assert_eq!(world.held(b, one), Some(CW));
    assert_eq!(world.held(c, two), Some(CW));
    assert_eq!(world.held(a, three), Some(CR));
}
