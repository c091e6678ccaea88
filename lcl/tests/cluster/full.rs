//! A home at which as much of this node waits as may: `docs/spec/locks.md`, 4.

use lcl::pin::{PinError, Want};
use lcl::{BucketName, Bundle, Denial, Message, Mode};
use mx_base::Member;

use crate::node::{LOCKSPACE, What};
use crate::world::{World, member, object};

use Mode::{EX, NL, PR};

fn homed_at(world: &World, home: Member, count: usize) -> Vec<BucketName> {
    let cache = &world.nodes[&home].cache;
    (0..).map(object).filter(|at| cache.is_home(at.bucket)).take(count).collect()
}

/// The home denies what has just been sent to it, instead of taking it in.
fn deny(world: &mut World, home: Member, of: Member) {
    let link = world.links.get_mut(&(of, home)).expect("something was sent");
    let sent: Vec<Vec<u8>> = link.drain(..).collect();
    let now = world.instant();
    for bytes in sent {
        let (_, messages) = Bundle::decode(&bytes).expect("nodes send what decodes");
        for message in messages {
            let (Message::Request { at, lock, .. } | Message::Convert { at, lock, .. }) = message
            else {
                panic!("only requests were sent: {message:?}");
            };
            let denied = Message::Denied { at, lock, reason: Denial::TooManyWait };
            let cache = &mut world.node(of).cache;
            cache.handle_message(home, LOCKSPACE, denied, now).expect("an answer");
        }
    }
    world.drain(of);
    world.nodes[&of].cache.check_invariants();
}

/// Begins an operation and lets the machine ask, but nothing arrive.
fn begin(world: &mut World, at: Member, what: What, on: BucketName, want: Want) -> usize {
    let place = world.node(at).begin(what, on, want);
    let now = world.instant();
    while world.node(at).take_event(now) {}
    world.drain(at);
    place
}

fn is_quiet(world: &World) -> bool {
    world.busy_links().is_empty()
}

#[test]
fn what_a_full_home_denies_waits_and_is_asked_for_again_one_for_one() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let on = homed_at(&world, b, 4);
    // Two that will be answered, and two that are denied meanwhile.
    let first = [0, 1].map(|i| begin(&mut world, a, What::Read, on[i], Want::read()));
    let kept = world.links.insert((a, b), std::collections::VecDeque::new()).expect("sent");
    let denied = [2, 3].map(|i| begin(&mut world, a, What::Read, on[i], Want::read()));
    deny(&mut world, b, a);
    assert!(is_quiet(&world), "a full home is not asked again at once");
    assert!(denied.iter().all(|place| world.nodes[&a].is_waiting(*place)));
    assert_eq!(world.nodes[&a].cache.counters().deferrals, 2);
    // The answers to the first come one by one, each asking for one more.
    for (answered, bytes) in kept.into_iter().enumerate() {
        world.links.get_mut(&(a, b)).expect("there").push_back(bytes);
        world.deliver(a, b);
        world.deliver(b, a);
        assert_eq!(world.links[&(a, b)].len(), 1, "one more after answer {answered}");
        let asked = world.links.get_mut(&(a, b)).expect("there").pop_front().expect("asked");
        // Later.
        world.links.entry((a, a)).or_default().push_back(asked);
    }
    let asked = world.links.remove(&(a, a)).expect("asked");
    world.links.insert((a, b), asked);
    world.settle();
    for place in first.into_iter().chain(denied) {
        assert!(world.nodes[&a].is_working(place));
    }
    assert!(on.iter().all(|on| world.mode(a, *on) == PR));
}

#[test]
fn who_would_not_wait_is_refused_by_a_full_home() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let on = homed_at(&world, b, 1)[0];
    let place = begin(&mut world, a, What::Read, on, Want::read().no_queue());
    deny(&mut world, b, a);
    world.node(a).poll_operation(place);
    assert_eq!(world.nodes[&a].outcome(place), Some(Err(PinError::Busy)));
    assert!(is_quiet(&world));
    // Nor does one that comes while another one is deferred.
    let patient = begin(&mut world, a, What::Read, on, Want::read());
    deny(&mut world, b, a);
    let hurried = begin(&mut world, a, What::Read, on, Want::read().no_queue());
    world.node(a).poll_operation(hurried);
    assert_eq!(world.nodes[&a].outcome(hurried), Some(Err(PinError::Busy)));
    assert!(world.nodes[&a].is_waiting(patient));
}

#[test]
fn a_conversion_that_a_full_home_denies_keeps_what_is_held_and_gives_it_up_when_called_out() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let on = homed_at(&world, b, 1)[0];
    world.complete(a, What::Read, on);
    let writer = begin(&mut world, a, What::Write, on, Want::write());
    deny(&mut world, b, a);
    assert_eq!(world.mode(a, on), PR);
    assert!(world.nodes[&a].is_waiting(writer));
    world.complete(b, What::Write, on);
    assert_eq!((world.mode(a, on), world.mode(b, on)), (NL, EX));
    world.nodes[&a].cache.check_invariants();
}

#[test]
fn what_was_denied_is_asked_for_again_in_a_new_view() {
    let mut world = World::of(3);
    let (a, b, c) = (member(1, 1), member(2, 1), member(3, 1));
    let on = homed_at(&world, b, 1)[0];
    let place = begin(&mut world, a, What::Read, on, Want::read());
    deny(&mut world, b, a);
    let members = vec![a, b];
    world.commit(a, members, vec![c]);
    world.nodes.remove(&c);
    for member in [a, b] {
        while world.followed[&member] < world.views.len() {
            world.follow(member);
        }
    }
    world.settle();
    assert!(world.nodes[&a].is_working(place));
    assert_eq!(world.mode(a, on), PR);
}

#[test]
fn a_deferred_wait_that_is_given_up_leaves_nothing() {
    let mut world = World::of(2);
    let (a, b) = (member(1, 1), member(2, 1));
    let on = homed_at(&world, b, 1)[0];
    let place = begin(&mut world, a, What::Read, on, Want::read());
    deny(&mut world, b, a);
    drop(world.node(a).operations.remove(place));
    world.settle();
    assert!(world.nodes[&a].cache.find(&on.name).is_none());
    world.nodes[&a].cache.check_invariants();
}
