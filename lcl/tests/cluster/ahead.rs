//! Many locks asked for in one step: `docs/spec/locks.md`, 4.

use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lcl::pin::{Ahead, Want};
use lcl::{BucketName, Mode};
use mx_base::Member;

use crate::node::What;
use crate::world::{World, member, object};

const COUNT: u16 = 256;

fn poll(ahead: &mut Ahead) -> Poll<()> {
    StdPin::new(ahead).poll(&mut Context::from_waker(Waker::noop()))
}

fn objects() -> Vec<BucketName> {
    (0..COUNT).map(object).collect()
}

fn ask(world: &World, at: Member) -> Ahead {
    let node = &world.nodes[&at];
    Ahead::new(objects().into_iter().map(|on| node.entry(on)), Want::read())
}

/// Payloads from `at` and to it.
fn payloads(world: &World, at: Member) -> (u64, u64) {
    let sum = |is: &dyn Fn(&(Member, Member)) -> bool| {
        world.payloads.iter().filter(|(pair, _)| is(pair)).map(|(_, count)| count).sum()
    };
    (sum(&|(from, _)| *from == at), sum(&|(_, to)| *to == at))
}

#[test]
fn many_locks_cost_one_message_to_each_home_and_one_back() {
    let mut world = World::of(4);
    let a = member(1, 1);
    let (sent, received) = payloads(&world, a);
    let mut ahead = ask(&world, a);
    assert_eq!(ahead.len(), usize::from(COUNT));
    assert!(poll(&mut ahead).is_pending());
    world.settle();
    assert!(poll(&mut ahead).is_ready());
    assert_eq!(payloads(&world, a), (sent + 3, received + 3), "three other homes");
    for on in objects() {
        assert_eq!(world.mode(a, on), Mode::PR, "cached");
        assert!(world.nodes[&a].entry(on).is_idle(), "no pin is kept");
    }
    assert!(ask(&world, a).is_empty(), "what is cached is not asked for again");
}

#[test]
fn what_others_hold_is_called_out_in_one_message_to_each_holder_too() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    for on in objects() {
        world.complete(b, What::Write, on);
    }
    let before = payloads(&world, a);
    let mut ahead = ask(&world, a);
    assert!(poll(&mut ahead).is_pending());
    world.settle();
    assert!(poll(&mut ahead).is_ready());
    let (sent, received) = payloads(&world, a);
    // Requests for what is homed at b, and the callouts of what is homed here, in one.
    assert_eq!(sent - before.0, 1);
    // How the surrenders end decides how many come back.
    assert!((1..=u64::from(COUNT)).contains(&(received - before.1)));
    for on in objects() {
        assert_eq!((world.mode(a, on), world.mode(b, on)), (Mode::PR, Mode::PR));
    }
}

#[test]
fn a_pin_of_one_does_not_wait_for_the_others() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let (taken, free) = (object(0), object(1));
    let writer = world.run(b, What::Write, taken);
    let mut ahead = ask(&world, a);
    assert!(poll(&mut ahead).is_pending());
    world.settle();
    assert!(poll(&mut ahead).is_pending(), "one of them is in use");
    // Found and dropped: another node gets it while the first is still waited for.
    world.complete(b, What::Write, free);
    assert_eq!(world.mode(b, free), Mode::EX);
    assert!(poll(&mut ahead).is_pending());
    world.node(b).end_operation(writer);
    world.settle();
    assert!(poll(&mut ahead).is_ready());
    assert_eq!(world.mode(a, taken), Mode::PR);
}

#[test]
fn giving_up_takes_back_what_is_still_waited_for() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let taken = object(0);
    let writer = world.run(b, What::Write, taken);
    let mut ahead = ask(&world, a);
    assert!(poll(&mut ahead).is_pending());
    world.settle();
    drop(ahead);
    world.settle();
    assert!(Arc::clone(&world.nodes[&a].entry(taken)).wanted().is_none());
    world.node(b).end_operation(writer);
    world.settle();
    assert_eq!(world.mode(a, taken), Mode::NL, "nobody waits for it");
}
