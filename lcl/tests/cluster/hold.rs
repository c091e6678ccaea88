//! What others want is kept for a moment where it is used all the time: `docs/spec/locks.md`, 4.

use lcl::{BucketName, Mode};
use mx_base::{Duration, Member};

use crate::node::What;
use crate::rules::two;
use crate::world::World;

use Mode::{EX, NL, PR};

impl World {
    fn begin(&mut self, at: Member, what: What, on: BucketName) -> usize {
        self.node(at).begin(what, on, what.want())
    }

    fn end(&mut self, at: Member, place: usize) {
        self.node(at).end_operation(place);
        self.settle();
    }

    fn is_working(&self, at: Member, place: usize) -> bool {
        self.nodes[&at].is_working(place)
    }
}

/// Both want to write: `a` has the lock, has just ended an operation, and waited when it gave the
/// lock up last. The second is `b`'s operation that waits.
fn contended() -> (World, Member, Member, BucketName, usize) {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    let first = world.begin(b, What::Write, on);
    world.settle_without_surrenders();
    assert_eq!(world.nodes[&a].surrenders.len(), 1);
    let again = world.begin(a, What::Write, on);
    world.settle();
    assert!(world.is_working(b, first), "nobody waited at a when b asked");
    world.end(b, first);
    assert!(world.is_working(a, again), "nobody waited at b when a asked");
    let waits = world.begin(b, What::Write, on);
    world.settle();
    world.end(a, again);
    (world, a, b, on, waits)
}

#[test]
fn a_lock_that_is_used_all_the_time_is_kept_for_a_moment_and_then_given_up() {
    let (mut world, a, b, on, waits) = contended();
    let began = world.now;
    let mut operations = 0;
    while world.mode(a, on) == EX {
        let messages = world.payloads.clone();
        for _ in 0..5 {
            world.complete(a, What::Write, on);
            operations += 1;
        }
        assert_eq!(world.payloads, messages, "no operation costs a message");
        assert!(!world.is_working(b, waits));
        world.nodes[&a].cache.check_invariants();
        world.end_hold(a, 0);
        world.settle();
    }
    assert!(world.is_working(b, waits));
    assert_eq!(u128::from(world.now - began), Duration::from_millis(4).as_nanos());
    assert_eq!(operations, 20);
    assert!(world.nodes[&a].holds.is_empty());
}

#[test]
fn a_lock_that_is_not_used_any_more_is_given_up_at_once() {
    let (mut world, a, b, on, waits) = contended();
    assert_eq!(world.mode(a, on), EX);
    // What was used before others asked does not count.
    world.end_hold(a, 0);
    world.settle();
    assert_eq!(world.mode(a, on), NL);
    assert!(world.is_working(b, waits));
    assert_eq!(u128::from(world.now), Duration::from_millis(1).as_nanos());
}

#[test]
fn who_takes_turns_does_not_wait_for_a_hold() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    for _ in 0..5 {
        world.complete(a, What::Write, on);
        world.complete(b, What::Write, on);
        world.complete(b, What::Read, on);
    }
    for member in [a, b] {
        assert_eq!(world.nodes[&member].cache.counters().holds, 0);
    }
}

#[test]
fn an_operation_that_needs_more_than_is_held_ends_a_hold() {
    let (mut world, a, b, on, waits) = contended();
    world.end_hold(a, 0);
    world.settle();
    // b reads from now on, and wants it again whenever it gives it up.
    world.end(b, waits);
    let mut reads = world.begin(b, What::Read, on);
    let held = loop {
        world.settle();
        let write = world.begin(a, What::Write, on);
        world.settle_without_surrenders();
        if !world.nodes[&b].holds.is_empty() {
            break write;
        }
        let again = world.begin(b, What::Read, on);
        if world.is_working(b, reads) {
            world.end(b, reads);
        }
        world.settle();
        if world.is_working(a, write) {
            world.end(a, write);
        }
        reads = again;
    };
    assert_eq!(world.mode(b, on), PR);
    assert!(!world.is_working(a, held));
    if world.is_working(b, reads) {
        world.end(b, reads);
    }
    assert!(!world.is_working(a, held), "it is held");
    let write = world.begin(b, What::Write, on);
    world.settle();
    assert!(world.is_working(a, held), "what b has is of no use to it");
    world.end(a, held);
    assert!(world.is_working(b, write));
}
