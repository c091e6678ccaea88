//! A planned leave is a hand-over: whoever asks a home that stays notices nothing, whoever asks the
//! heir of the leaver waits for it no longer than its own round trip takes, and what was on its way to
//! the leaver is asked again, which adds half a round trip to that.
//!
//! Every message takes the same time, so that what a request costs is known: nothing at its own
//! home, one round trip elsewhere.

use std::collections::BTreeMap;

use dlm::{Bucket, LockId, Mode};
use mx_base::Member;

use crate::oracle;
use crate::world::{State, World, member, resource};

/// Of a message, one way.
const DELAY: u64 = 10;
const ROUND_TRIP: u64 = 2 * DELAY;
const LEAVES_AT: u64 = 100;

struct Request {
    bucket: Bucket,
    began: u64,
}

struct Traffic {
    world: World,
    owners: Vec<Member>,
    /// Every lock is asked for once, of a resource of its own.
    asked: BTreeMap<(Member, LockId), Request>,
    next: u16,
    /// Bucket, beginning, and how long it took.
    took: Vec<(Bucket, u64, u64)>,
}

impl Traffic {
    /// Delivers what is due, lets go of what was granted, asks for more.
    fn tick(&mut self, now: u64, asks: bool) {
        self.world.now = now;
        while let Some((from, to)) =
            self.world.busy_links(now.saturating_sub(DELAY)).first().copied()
        {
            self.world.deliver(from, to);
        }
        let world = &mut self.world;
        let granted: Vec<(Member, LockId)> = self
            .asked
            .keys()
            .filter(|(owner, lock)| world.held(*owner, *lock).is_some())
            .copied()
            .collect();
        for key in granted {
            let Request { bucket, began } = self.asked.remove(&key).expect("just listed");
            self.took.push((bucket, began, now - began));
            world.unlock(key.0, key.1, false);
        }
        if asks {
            for owner in self.owners.clone() {
                let at = resource(self.next);
                self.next += 1;
                let lock = self.world.request(owner, at, Mode::EX);
                self.asked.insert((owner, lock), Request { bucket: at.bucket, began: now });
            }
        }
    }
}

#[test]
fn no_request_waits_for_a_planned_leave_longer_than_its_own_round_trip_unless_it_was_under_way() {
    let world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let homes: Vec<Option<Member>> =
        Bucket::all().map(|bucket| world.nodes[&a].space.home(bucket)).collect();
    let (asked, took) = (BTreeMap::new(), Vec::new());
    let mut traffic = Traffic { world, owners: vec![a, b, c], asked, next: 0, took };
    for now in 0..200 {
        traffic.tick(now, true);
        if now == LEAVES_AT {
            // Its locks are released; it serves as a home until it hears of the view without it.
            traffic.world.commit(a, vec![a, b, c], vec![d]);
        }
        if now == LEAVES_AT + DELAY {
            traffic.world.node(d).state = State::Stopped;
            traffic.world.follow(b);
            traffic.world.follow(c);
        }
    }
    for now in 200..300 {
        traffic.tick(now, false);
    }
    assert!(traffic.asked.is_empty(), "everything was granted");
    let mut noticed = 0;
    for (bucket, began, took) in &traffic.took {
        let is_handed_over = homes[bucket.index()] == Some(d);
        let spans = began + took >= LEAVES_AT && *began <= LEAVES_AT + 2 * DELAY;
        if is_handed_over && spans {
            noticed += u32::from(*took > ROUND_TRIP);
            let was_under_way = *began < LEAVES_AT;
            let waited = if was_under_way { ROUND_TRIP + DELAY } else { ROUND_TRIP };
            assert!(*took <= ROUND_TRIP + waited, "{bucket:?} at {began}: {took}");
        } else {
            assert!(*took <= ROUND_TRIP, "{bucket:?} at {began}: {took}");
        }
    }
    assert!(noticed > 0, "some were on their way to the home that left");
    oracle::check_quiet(&traffic.world);
}
