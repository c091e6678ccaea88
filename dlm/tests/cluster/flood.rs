//! The bound on what one member may have waiting at a home: `docs/spec/locks.md`, section 2.

use dlm::message::{BucketEpoch, Kind};
use dlm::{BucketName, HandleError, LockId, Lockspace, Message, Mode, Violation};
use mx_base::{Member, ViewId};

use crate::world::{World, member, resource};

use Mode::{EX, PR};

const MAX: usize = Lockspace::WAITING_MAX as usize;
/// Resources that the waiting is spread over: a queue is walked whole now and then.
const RESOURCES: usize = 64;

/// Node 1 holds EX on resources homed at itself; `count` requests of node 2 wait for them.
fn flooded(count: usize) -> (World, Vec<BucketName>, Vec<LockId>) {
    let (mut world, home, asker) = (World::of(3), member(1, 1), member(2, 1));
    let homed = |at: &BucketName| world.nodes[&home].space.home(at.bucket) == Some(home);
    let taken: Vec<BucketName> = (0..).map(resource).filter(homed).take(RESOURCES).collect();
    for at in &taken {
        world.request(home, *at, EX);
    }
    world.deliver_all();
    let locks = (0..count).map(|i| world.request(asker, taken[i % RESOURCES], PR)).collect();
    world.deliver_all();
    (world, taken, locks)
}

fn denials(world: &World, of: Member) -> u64 {
    world.nodes[&of].space.counters().denials
}

#[test]
fn as_many_wait_as_may_and_the_next_one_is_denied_until_one_of_them_has_ended() {
    let (mut world, taken, locks) = flooded(MAX);
    let (home, asker, other) = (member(1, 1), member(2, 1), member(3, 1));
    assert_eq!(denials(&world, asker), 0, "the last that may wait waits");
    let beyond = world.request(asker, taken[0], PR);
    world.deliver_all();
    assert_eq!(denials(&world, asker), 1);
    assert_eq!(world.held(asker, beyond), None);
    assert!(!world.nodes[&asker].locks.contains_key(&beyond), "it is gone");
    world.nodes[&home].space.check_invariants();

    // What does not have to wait is granted, others may wait, and so may the home itself.
    let free = (0..)
        .map(resource)
        .find(|at| world.nodes[&home].space.home(at.bucket) == Some(home) && !taken.contains(at))
        .expect("a home has many");
    let granted = world.request(asker, free, PR);
    world.deliver_all();
    assert_eq!(world.held(asker, granted), Some(PR));
    world.request(other, taken[0], PR);
    world.deliver_all();
    assert_eq!(denials(&world, other), 0);

    // A conversion counts as well.
    world.request(other, free, PR);
    world.deliver_all();
    world.convert(asker, granted, EX, false);
    world.deliver_all();
    assert_eq!(denials(&world, asker), 2);
    assert_eq!(world.held(asker, granted), Some(PR), "held as before");

    // One has ended: there is room for one, not for two.
    world.cancel(asker, locks[0]);
    world.deliver_all();
    assert_eq!(denials(&world, asker), 3, "by its owner");
    world.convert(asker, granted, EX, false);
    world.deliver_all();
    assert_eq!(denials(&world, asker), 3);
    world.request(asker, taken[1], PR);
    world.deliver_all();
    assert_eq!(denials(&world, asker), 4);
    world.nodes[&home].space.check_invariants();
}

#[test]
fn what_a_member_says_of_a_request_that_was_denied_is_a_lie() {
    let (mut world, taken, _) = flooded(MAX);
    let (home, asker) = (member(1, 1), member(2, 1));
    let beyond = world.request(asker, taken[0], PR);
    world.deliver_all();
    let (bucket, name) = (taken[0].bucket, taken[0].name);
    let at = BucketEpoch { bucket, epoch: ViewId(1) };
    let now = world.instant();
    let space = &mut world.nodes.get_mut(&home).expect("there").space;
    let id = space.id();
    let convert = Message::Convert { at, lock: beyond, name, wanted: EX, no_queue: false };
    let (from, violation) = (asker, Violation::LockUnknown);
    assert_eq!(
        space.handle_message(asker, id, convert, now),
        Err(HandleError::Violation { from, kind: Kind::Convert, violation })
    );
    space.check_invariants();
}

#[test]
fn what_waits_is_counted_anew_where_it_is_reported_to() {
    let (mut world, _, _) = flooded(200);
    let (home, asker, other) = (member(1, 1), member(2, 1), member(3, 1));
    world.crash(home);
    world.lose(other, home);
    world.settle();
    for member in [asker, other] {
        world.nodes[&member].space.check_invariants();
    }
    world.crash(asker);
    world.lose(other, asker);
    world.settle();
    world.nodes[&other].space.check_invariants();
}
