//! What ends: waits that are taken back, locks given up for want of memory, the whole node.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lcl::class::{Damaged, LockClass};
use lcl::pin::{Entry, PinError, Table, Want};
use lcl::surrender::surrender;
use lcl::{BucketName, LockCache, Mode, Surrendered, ValueBlock};
use mx_base::BoxFuture;

use crate::node::{Shell, What};
use crate::rules::two;
use crate::world::{World, member};

#[test]
fn want_of_memory_begins_no_more_surrenders_than_are_needed_and_few_at_once() {
    let (mut world, a, _) = two();
    let objects: Vec<BucketName> = (0..200).map(crate::world::object).collect();
    for on in &objects {
        world.complete(a, What::Read, *on);
    }
    let cache = &mut world.node(a).cache;
    assert_eq!(cache.shrink(190), 10);
    assert_eq!(cache.shrink(190), 10, "those that are under way suffice");
    assert_eq!(cache.shrink(0), LockCache::SHRINK_AT_ONCE);
    assert_eq!(cache.shrink(0), LockCache::SHRINK_AT_ONCE);
    assert_eq!(cache.counters().shrunk, LockCache::SHRINK_AT_ONCE as u64);
    world.drain(a);
    world.settle();
    let left = objects.len() - LockCache::SHRINK_AT_ONCE;
    assert_eq!(world.nodes[&a].cache.cached_count(), left);
}

#[test]
fn who_would_not_wait_fails_when_a_lock_given_up_for_memory_is_asked_for() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    world.node(a).objects.state.lock().slowness = 1;
    let now = world.instant();
    while world.node(a).cache.shrink(0) == 0 {}
    world.drain(a);
    assert!(!world.node(a).poll_surrender(0, now), "in its first pass");
    let place = world.node(a).begin(What::Read, on, Want::read().no_queue());
    assert!(world.nodes[&a].is_waiting(place), "its own surrender is no other node");
    let writer = world.node(b).begin(What::Write, on, Want::write());
    world.settle_without_surrenders();
    world.node(a).poll_operation(place);
    assert_eq!(world.nodes[&a].outcome(place), Some(Err(PinError::Busy)));
    world.settle();
    assert!(world.nodes[&b].is_working(writer));
}

#[test]
fn a_wait_is_taken_back_once_and_only_when_nobody_has_it_any_more() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let holder = world.run(b, What::Write, on);
    for _ in 0..3 {
        world.run(a, What::Write, on);
    }
    drop(world.node(a).operations.swap_remove(0));
    world.settle();
    assert_eq!(world.nodes[&a].cache.counters().cancels, 0, "two wait still");
    world.node(a).operations.clear();
    let now = world.instant();
    while world.node(a).take_event(now) {}
    assert_eq!(world.nodes[&a].cache.counters().cancels, 1);
    world.drain(a);
    world.settle();
    world.node(b).end_operation(holder);
    world.settle();
    assert_eq!(world.mode(a, on), Mode::NL);
    assert_eq!(world.nodes[&a].cache.cached_count(), 0);
}

#[test]
fn nothing_is_left_of_a_conversion_that_gave_up_what_it_held_and_then_the_wait() {
    let mut world = World::of(3);
    let [a, b, home] = [1, 2, 3].map(|node| member(node, 1));
    let on = world.object_at(home);
    let reading = world.run(home, What::Read, on);
    world.complete(a, What::Read, on);
    world.complete(b, What::Read, on);
    let first = world.run(b, What::Write, on);
    let second = world.run(a, What::Write, on);
    assert_eq!(world.mode(a, on), Mode::NL, "it made room for the first and waits on");
    drop(world.node(a).operations.swap_remove(second));
    world.settle();
    assert_eq!(world.nodes[&a].cache.cached_count(), 0);
    world.node(home).end_operation(reading);
    world.settle();
    assert!(world.nodes[&b].is_working(first));
}

#[test]
fn a_node_that_is_cut_off_sends_and_begins_nothing_more() {
    let (mut world, a, b) = two();
    let [asked, missed, called_out, surrendering] = [1, 2, 3, 4].map(|i| nth_at(&world, b, i));
    world.complete(a, What::Write, called_out);
    world.complete(a, What::Write, surrendering);
    // A surrender is under way, a callout on the way, a request about to be sent.
    world.node(b).begin(What::Write, surrendering, Want::write());
    world.settle_without_surrenders();
    assert_eq!(world.nodes[&a].surrenders.len(), 1);
    world.node(b).begin(What::Write, called_out, Want::write());
    let now = world.instant();
    while world.node(b).take_event(now) {}
    world.drain(b);
    world.node(a).begin(What::Write, asked, Want::write());
    assert!(world.node(a).take_event(now));
    world.node(a).begin(What::Read, missed, Want::read());

    world.node(a).cache.cut_off();
    let known = world.nodes[&a].cache.cached_count();
    assert!(world.node(a).cache.poll_output().is_none(), "what was to be sent is not");
    assert!(world.node(a).take_event(now), "a thread had told of its miss before");
    assert_eq!(world.nodes[&a].cache.cached_count(), known);
    while !world.nodes[&a].surrenders.is_empty() {
        world.node(a).poll_surrender(0, now);
    }
    assert!(world.node(a).cache.poll_output().is_none(), "nothing is given up any more");
    for (from, to) in world.busy_links() {
        world.deliver(from, to);
    }
    assert!(world.node(a).cache.poll_output().is_none(), "no callout is answered");
    assert!(world.nodes[&a].surrenders.is_empty());
    assert_eq!(world.node(a).cache.shrink(0), 0);
}

#[test]
fn what_others_say_of_a_recovery_that_is_over_frees_what_the_dead_held() {
    let (mut world, a, b) = two();
    let on = world.object_at(a);
    world.complete(b, What::Open, on);
    let holder = world.node(b).begin(What::Open, on, Want::shared(Mode::EX));
    world.settle();
    assert!(world.nodes[&b].is_working(holder));
    world.crash(b, || false);
    world.commit(a, vec![a], Vec::new());
    world.follow_all();
    let place = world.run(a, What::Open, on);
    assert!(world.nodes[&a].is_waiting(place), "EX of the dead is limbo");
    let now = world.instant();
    world.node(a).cache.mark_recovered(b, now);
    world.drain(a);
    world.settle();
    world.node(a).poll_operation(place);
    assert!(world.nodes[&a].is_working(place), "what is left is a ghost, and CR goes with it");
}

/// Flushes nothing, and would leave a value all the same.
struct Failing;

impl LockClass for Failing {
    fn revoke<'a>(&'a self, _: &'a Arc<Entry>, _: Mode, _: u32) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn flush<'a>(&'a self, _: &'a Arc<Entry>, _: Mode) -> BoxFuture<'a, Result<(), Damaged>> {
        Box::pin(std::future::ready(Err(Damaged)))
    }

    fn purge(&self, _: &Arc<Entry>, _: Mode) -> Option<ValueBlock> {
        ValueBlock::new(b"of what is not on disk")
    }

    fn refresh(&self, _: &Arc<Entry>, _: Mode, _: Option<&ValueBlock>) {}
}

#[test]
fn nobody_vouches_for_what_could_not_be_made_durable() {
    let table = Table::new(std::sync::Weak::<Shell>::new());
    let on = crate::world::object(1);
    let entry = table.entry(on.name, on.bucket);
    entry.raise(Mode::EX);
    entry.begin_close();
    let mut surrender = pin!(surrender(entry, Mode::NL, Arc::new(Failing)));
    let outcome = surrender.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(outcome, Poll::Ready(Surrendered { value: None, damaged: true }));
}

/// The `index`-th object whose home is `home`.
fn nth_at(world: &crate::world::World, home: mx_base::Member, index: usize) -> BucketName {
    let cache = &world.nodes[&home].cache;
    let mut at_home = (0..).map(crate::world::object).filter(|on| cache.is_home(on.bucket));
    at_home.nth(index).expect("there are many objects")
}
