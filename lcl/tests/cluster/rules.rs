//! The rules of the lock cache, one by one: `docs/spec/locks.md`, 4 and 5.

use lcl::cache::CachedLock;
use lcl::pin::{PinError, Want};
use lcl::{BucketName, Mode};
use mx_base::Member;

use crate::node::What;
use crate::world::{World, member};

use Mode::{CR, EX, NL, PR};

pub(crate) fn two() -> (World, Member, Member) {
    (World::of(2), member(1, 1), member(2, 1))
}

impl World {
    /// Begins an operation and lets everything settle.
    pub(crate) fn run(&mut self, at: Member, what: What, on: BucketName) -> usize {
        let place = self.node(at).begin(what, on, what.want());
        self.settle();
        place
    }

    /// A whole operation.
    pub(crate) fn complete(&mut self, at: Member, what: What, on: BucketName) {
        let place = self.run(at, what, on);
        assert!(self.nodes[&at].is_working(place), "{what:?} at {at} gets its pin");
        self.node(at).end_operation(place);
        self.settle();
    }

    pub(crate) fn mode(&self, at: Member, on: BucketName) -> Mode {
        self.nodes[&at].entry(on).mode()
    }

    fn cached(&self, at: Member, on: BucketName) -> CachedLock {
        self.nodes[&at].cache.find(&on.name).expect("cached")
    }

    fn log(&self, at: Member) -> Vec<String> {
        std::mem::take(&mut self.nodes[&at].objects.state.lock().log)
    }

    /// Lets the machines talk, but no surrender go on.
    pub(crate) fn settle_without_surrenders(&mut self) {
        loop {
            let mut moved = false;
            for member in self.nodes.keys().copied().collect::<Vec<_>>() {
                let now = self.instant();
                moved |= self.node(member).take_event(now);
                self.drain(member);
            }
            for (from, to) in self.busy_links() {
                self.deliver(from, to);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }
}

#[test]
fn a_lock_is_kept_after_use_and_used_again_without_asking_anybody() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    let before = *world.nodes[&a].cache.counters();
    for _ in 0..10 {
        world.complete(a, What::Write, on);
        world.complete(a, What::Read, on);
    }
    assert_eq!(*world.nodes[&a].cache.counters(), before, "the machine was not even called");
    assert_eq!(world.mode(a, on), EX);
}

/// Of all nodes, for anything.
fn sent(world: &World) -> u64 {
    world.nodes.values().map(|node| node.cache.lockspace().counters().sent_total()).sum()
}

#[test]
fn a_grant_costs_a_message_each_way_and_at_the_home_none() {
    let (mut world, a, b) = two();
    let before = sent(&world);
    let on = world.object_at(a);
    world.complete(a, What::Write, on);
    assert_eq!(sent(&world) - before, 0);
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    assert_eq!(sent(&world) - before, 2);
}

#[test]
fn a_turn_of_two_writers_costs_one_message_each_way_or_two_where_another_node_decides() {
    let mut world = World::of(3);
    let [a, b, c] = [1, 2, 3].map(|node| member(node, 1));
    for (home, messages) in [(a, 2), (c, 4)] {
        let on = world.object_at(home);
        world.complete(a, What::Write, on);
        for turn in 0..10 {
            let before = sent(&world);
            world.complete(if turn % 2 == 0 { b } else { a }, What::Write, on);
            assert_eq!(sent(&world) - before, messages, "home {home}, turn {turn}");
        }
    }
}

#[test]
fn of_those_who_always_want_a_lock_again_nobody_is_overtaken_for_ever() {
    let nodes = [1, 2, 3].map(|node| member(node, 1));
    for whats in [[What::Write; 3], [What::Read, What::Write, What::Read]] {
        let mut world = World::of(3);
        let on = world.object_at(nodes[0]);
        let mut places = [0, 1, 2].map(|i| world.run(nodes[i], whats[i], on));
        let mut turns = [0; 3];
        for _ in 0..60 {
            for i in 0..3 {
                if world.nodes[&nodes[i]].is_working(places[i]) {
                    world.node(nodes[i]).end_operation(places[i]);
                    turns[i] += 1;
                    places[i] = world.run(nodes[i], whats[i], on);
                }
                // A millisecond for each operation.
                for place in 0..world.nodes[&nodes[i]].holds.len() {
                    world.end_hold(nodes[i], place);
                    world.settle();
                }
            }
        }
        let [least, most] = [turns.iter().min(), turns.iter().max()];
        assert!(least.map(|least| least * 3) >= most.copied(), "{whats:?}: {turns:?}");
    }
}

#[test]
fn a_writer_gives_up_to_pr_for_a_reader_and_keeps_reading() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    world.complete(b, What::Read, on);
    assert_eq!((world.mode(a, on), world.mode(b, on)), (PR, PR));
    let sent = world.nodes[&a].cache.lockspace().counters().sent_total();
    world.complete(a, What::Read, on);
    assert_eq!(world.nodes[&a].cache.lockspace().counters().sent_total(), sent);
}

#[test]
fn what_changed_is_flushed_before_a_write_lock_goes_and_what_was_read_is_dropped() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let name = on.name;
    world.complete(a, What::Write, on);
    world.complete(a, What::Page, on);
    assert!(world.nodes[&a].objects.state.lock().kernel.contains_key(&name));
    world.log(a);
    world.complete(b, What::Read, on);
    let log = world.log(a);
    let expected = ["revoke", "flush", "purge"].map(|what| format!("{what} {name:?} EX to PR"));
    assert_eq!(log, expected, "the pages stay: PR covers them");
    assert_eq!(world.disk.lock().version(&name), 1, "durable before b reads");
    world.complete(b, What::Write, on);
    let expected = ["revoke", "flush", "purge"].map(|what| format!("{what} {name:?} PR to NL"));
    assert_eq!(world.log(a), expected);
    assert!(!world.nodes[&a].objects.state.lock().kernel.contains_key(&name));
    assert_eq!(world.mode(a, on), NL);
}

#[test]
fn the_next_holder_is_refreshed_before_its_first_pin() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    world.complete(b, What::Read, on);
    let name = on.name;
    assert_eq!(world.log(b), [format!("refresh {name:?} PR value true")]);
    world.complete(b, What::Write, on);
    world.log(a);
    world.complete(a, What::Write, on);
    assert_eq!(world.log(a), [format!("refresh {name:?} EX value true")], "of a lock given up");
}

#[test]
fn a_surrender_waits_for_the_operation_that_has_the_lock() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let writer = world.run(a, What::Write, on);
    let reader = world.run(b, What::Read, on);
    assert!(world.nodes[&a].entry(on).is_closing());
    assert!(world.nodes[&b].is_waiting(reader));
    world.node(a).end_operation(writer);
    world.settle();
    assert!(world.nodes[&b].is_working(reader));
}

#[test]
fn a_grant_serves_who_waited_before_a_callout_takes_it_away() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(b, What::Write, on);
    let writer = world.node(a).begin(What::Write, on, Want::write());
    // Both the grant and the next callout are there before a's operation runs.
    let other = loop {
        let now = world.instant();
        world.node(a).take_event(now);
        world.drain(a);
        world.deliver(a, b);
        let node = world.node(b);
        while !node.surrenders.is_empty() {
            node.poll_surrender(0, now);
        }
        world.drain(b);
        if world.mode(b, on) == NL {
            break world.node(b).begin(What::Write, on, Want::write());
        }
    };
    world.settle_without_surrenders();
    let cached = world.cached(a, on);
    assert_eq!((cached.mode, cached.surrendering_to), (EX, Some(NL)));
    world.node(a).poll_operation(writer);
    assert!(world.nodes[&a].is_working(writer), "it was granted for this one");
    world.settle();
    assert!(world.nodes[&b].is_waiting(other));
    world.node(a).end_operation(writer);
    world.settle();
    assert!(world.nodes[&b].is_working(other));
}

/// Both hold PR and want EX: one gives up to NL and keeps its place in the queue.
#[test]
fn two_readers_that_both_want_to_write_are_served_one_after_the_other() {
    let mut world = World::of(3);
    let [a, b, home] = [1, 2, 3].map(|node| member(node, 1));
    let on = world.object_at(home);
    world.complete(a, What::Read, on);
    world.complete(b, What::Read, on);
    let one = world.node(a).begin(What::Write, on, Want::write());
    let two = world.node(b).begin(What::Write, on, Want::write());
    world.settle();
    let (first, second) =
        if world.nodes[&a].is_working(one) { ((a, one), (b, two)) } else { ((b, two), (a, one)) };
    assert!(world.nodes[&first.0].is_working(first.1));
    assert!(world.nodes[&second.0].is_waiting(second.1));
    assert_eq!(world.cached(second.0, on).asked, Some(EX), "kept its place");
    world.node(first.0).end_operation(first.1);
    world.settle();
    assert!(world.nodes[&second.0].is_working(second.1));
    assert_eq!(world.nodes[&second.0].cache.counters().conversions, 1);
}

#[test]
fn a_grant_that_comes_while_the_lock_is_surrendered_counts_after_it() {
    let mut world = World::of(3);
    let [a, b, home] = [1, 2, 3].map(|node| member(node, 1));
    let on = world.object_at(home);
    world.complete(a, What::Read, on);
    world.complete(b, What::Read, on);
    let first = world.node(a).begin(What::Write, on, Want::write());
    let second = world.node(b).begin(What::Write, on, Want::write());
    world.settle_without_surrenders();
    let (waiter, other, wait, place) = if world.cached(b, on).surrendering_to.is_some() {
        (b, a, first, second)
    } else {
        (a, b, second, first)
    };
    // Whoever was first gives its wait up: the one that is surrendering is granted now.
    drop(world.node(other).operations.swap_remove(wait));
    world.settle_without_surrenders();
    let now = world.instant();
    world.node(other).cache.shrink(0);
    world.node(other).cache.shrink(0);
    world.drain(other);
    while !world.nodes[&other].surrenders.is_empty() {
        world.node(other).poll_surrender(0, now);
    }
    world.drain(other);
    world.settle_without_surrenders();
    assert_eq!(world.nodes[&waiter].cache.counters().grants_while_surrendering, 1);
    assert_eq!(world.mode(waiter, on), PR, "not before the surrender is over");
    world.nodes[&waiter].cache.check_invariants();
    world.settle();
    assert!(world.nodes[&waiter].is_working(place));
    assert_eq!(world.mode(waiter, on), EX);
    let last = world.log(waiter).pop().expect("much happened");
    assert!(last.starts_with("refresh"), "{last}");
}

#[test]
fn a_stronger_callout_during_a_surrender_is_answered_by_another() {
    let mut world = World::of(3);
    let [a, b, home] = [1, 2, 3].map(|node| member(node, 1));
    let on = world.object_at(home);
    let pinned = world.run(a, What::Write, on);
    let reader = world.node(b).begin(What::Read, on, Want::read());
    world.settle();
    assert_eq!(world.cached(a, on).surrendering_to, Some(PR));
    let writer = world.node(home).begin(What::Write, on, Want::write());
    world.settle();
    world.node(a).end_operation(pinned);
    world.settle();
    assert!(world.nodes[&b].is_working(reader));
    assert_eq!(world.mode(a, on), NL, "the writer behind the reader has called out, too");
    world.node(b).end_operation(reader);
    world.settle();
    assert!(world.nodes[&home].is_working(writer));
}

#[test]
fn who_would_not_wait_is_refused_and_the_holder_keeps_its_lock() {
    let (mut world, a, b) = two();
    let on = world.object_at(a);
    world.complete(b, What::Write, on);
    let place = world.node(a).begin(What::Write, on, Want::write().no_queue());
    world.settle();
    assert_eq!(world.nodes[&a].outcome(place), Some(Err(PinError::Busy)));
    assert_eq!(world.mode(b, on), EX);
    assert_eq!(world.nodes[&a].cache.counters().refusals, 1);
    let patient = world.run(a, What::Write, on);
    assert!(world.nodes[&a].is_working(patient), "who waits gets it");
}

#[test]
fn who_would_not_wait_for_more_than_it_has_is_refused_and_the_others_keep_theirs() {
    let (mut world, a, b) = two();
    let on = world.object_at(a);
    world.complete(a, What::Read, on);
    world.complete(b, What::Read, on);
    let place = world.node(b).begin(What::Write, on, Want::write().no_queue());
    world.settle();
    assert_eq!(world.nodes[&b].outcome(place), Some(Err(PinError::Busy)));
    assert_eq!([a, b].map(|member| world.mode(member, on)), [PR, PR]);
}

#[test]
fn who_would_not_wait_does_not_wait_behind_one_who_does() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let holder = world.run(b, What::Write, on);
    let patient = world.run(a, What::Write, on);
    let impatient = world.node(a).begin(What::Write, on, Want::write().no_queue());
    world.settle();
    assert_eq!(world.nodes[&a].outcome(impatient), Some(Err(PinError::Busy)));
    world.node(b).end_operation(holder);
    world.settle();
    assert!(world.nodes[&a].is_working(patient));
}

#[test]
fn a_wait_given_up_is_taken_back_from_the_cluster() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let holder = world.run(b, What::Write, on);
    let wait = world.run(a, What::Write, on);
    drop(world.node(a).operations.swap_remove(wait));
    world.settle();
    assert_eq!(world.nodes[&a].cache.counters().cancels, 1);
    assert_eq!(world.nodes[&a].cache.cached_count(), 0, "nothing is left of it");
    assert!(world.nodes[&a].cache.table().find(&on.name).is_none());
    world.node(b).end_operation(holder);
    world.settle();
    assert_eq!(world.mode(a, on), NL);
}

#[test]
fn whoever_waits_when_a_wait_is_taken_back_is_asked_for_again() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let holder = world.run(b, What::Write, on);
    let wait = world.run(a, What::Write, on);
    drop(world.node(a).operations.swap_remove(wait));
    let now = world.instant();
    assert!(world.node(a).take_event(now));
    world.drain(a);
    // The cancel is on the way.
    let reader = world.run(a, What::Read, on);
    world.node(b).end_operation(holder);
    world.settle();
    assert!(world.nodes[&a].is_working(reader));
}

#[test]
fn a_flush_that_fails_damages_the_object_and_never_holds_the_cluster_up() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    world.disk.lock().failing.insert(on.name);
    world.log(b);
    world.complete(b, What::Read, on);
    assert_eq!(world.nodes[&a].cache.counters().damaged, 1);
    let name = on.name;
    assert_eq!(world.log(b), [format!("refresh {name:?} PR value false")], "nobody vouches");
}

#[test]
fn a_page_that_reaches_the_kernel_during_a_surrender_is_revoked_again() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Read, on);
    world.node(a).objects.state.lock().slowness = 1;
    let writer = world.node(b).begin(What::Write, on, Want::write());
    world.settle_without_surrenders();
    let now = world.instant();
    assert!(!world.node(a).poll_surrender(0, now), "in its first pass");
    let page = world.node(a).begin(What::Page, on, What::Page.want());
    assert!(world.nodes[&a].is_working(page), "the kernel's invalidation waits for it");
    world.node(a).end_operation(page);
    world.settle();
    assert!(world.nodes[&b].is_working(writer));
    world.check();
    let passes = world.log(a).iter().filter(|line| line.starts_with("revoke")).count();
    assert!(passes >= 2, "{passes}");
}

#[test]
fn an_idle_lock_is_given_up_for_want_of_memory_and_one_in_use_is_not() {
    let (mut world, a, b) = two();
    let objects: Vec<BucketName> = (0..8).map(crate::world::object).collect();
    for on in &objects {
        world.complete(a, What::Write, *on);
    }
    let used = world.run(a, What::Read, objects[3]);
    while world.node(a).cache.shrink(0) > 0 {
        world.drain(a);
        world.settle();
    }
    let left: Vec<_> = world.nodes[&a].cache.cached().map(|cached| cached.name).collect();
    assert_eq!(left, [objects[3].name]);
    assert_eq!(world.nodes[&a].cache.counters().shrunk, 7);
    for on in &objects {
        assert!(*on == objects[3] || world.disk.lock().version(&on.name) == 1, "flushed");
    }
    world.node(a).end_operation(used);
    world.complete(b, What::Write, objects[0]);
}

#[test]
fn what_was_used_lately_is_spared_once() {
    let (mut world, a, _) = two();
    let objects: Vec<BucketName> = (0..4).map(crate::world::object).collect();
    for on in &objects {
        world.complete(a, What::Read, *on);
    }
    let entry = world.nodes[&a].entry(objects[2]);
    entry.take_accessed();
    drop(entry);
    world.node(a).cache.shrink(3);
    world.drain(a);
    world.settle();
    assert!(world.nodes[&a].cache.find(&objects[2].name).is_none(), "the unused one goes first");
    assert_eq!(world.nodes[&a].cache.cached_count(), 3);
}

#[test]
fn a_lock_that_is_not_needed_any_more_is_given_up_unless_somebody_uses_it() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let used = world.node(a).begin(What::Write, on, Want::write());
    world.settle();
    let entry = world.nodes[&a].entry(on);
    world.node(a).cache.handle_idle(&entry);
    world.drain(a);
    assert!(world.nodes[&a].surrenders.is_empty(), "an operation relies on it");
    world.node(a).end_operation(used);
    world.node(a).cache.handle_idle(&entry);
    world.node(a).cache.handle_idle(&entry);
    world.drain(a);
    drop(entry);
    world.settle();
    assert_eq!(world.nodes[&a].cache.cached_count(), 0);
    // Nobody has to be asked for it: who does not queue gets it.
    world.complete(b, What::Write, on);
    assert_eq!(world.nodes[&a].cache.counters().callouts, 0);
}

#[test]
fn a_callout_for_a_lock_that_is_given_up_already_finds_nothing_to_do() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    world.complete(a, What::Write, on);
    let reader = world.node(b).begin(What::Read, on, Want::read());
    let now = world.instant();
    world.node(b).take_event(now);
    world.drain(b);
    // The callout is on the way; meanwhile a gives the lock up by itself and forgets it.
    world.node(a).cache.shrink(0);
    world.node(a).cache.shrink(0);
    world.drain(a);
    while !world.nodes[&a].surrenders.is_empty() {
        world.node(a).poll_surrender(0, now);
    }
    world.drain(a);
    assert_eq!(world.nodes[&a].cache.cached_count(), 0);
    world.settle();
    assert!(world.nodes[&b].is_working(reader));
    assert_eq!(world.nodes[&a].cache.counters().callouts, 0);
}

#[test]
fn a_node_that_was_dropped_holds_nothing_and_everybody_who_waits_fails() {
    let (mut world, a, b) = two();
    let on = world.object_at(b);
    let holder = world.run(b, What::Write, on);
    let waiter = world.run(a, What::Write, on);
    let working = world.run(a, What::Open, world.object_at(a));
    world.node(a).cache.cut_off();
    let node = world.node(a);
    node.poll_operation(waiter);
    assert_eq!(node.outcome(waiter), Some(Err(PinError::CutOff)));
    assert!(node.is_working(working), "what runs is stopped by the gate, not here");
    let late = node.begin(What::Read, on, Want::read());
    assert_eq!(node.outcome(late), Some(Err(PinError::CutOff)));
    node.end_operation(working);
    world.node(b).end_operation(holder);
    world.settle();
}

#[test]
fn a_view_without_this_node_cuts_it_off() {
    let (mut world, a, b) = two();
    let mut trial = World::of(2);
    trial.commit(b, vec![b], Vec::new());
    let view = trial.newest().view.clone();
    let now = world.instant();
    world.node(a).cache.handle_view(view, &[], now).expect("nothing to refuse");
    assert!(world.nodes[&a].cache.is_cut_off());
}

#[test]
fn a_change_of_view_in_the_middle_of_a_surrender_loses_nothing() {
    let mut world = World::of(3);
    let [a, b, home] = [1, 2, 3].map(|node| member(node, 1));
    let on = world.object_at(home);
    let writer = world.run(a, What::Write, on);
    let reader = world.run(b, What::Read, on);
    assert_eq!(world.cached(a, on).surrendering_to, Some(PR));
    // The home dies while a surrenders for b.
    world.crash(home, || false);
    world.commit(a, vec![a, b], Vec::new());
    world.follow_all();
    assert_eq!(world.mode(a, on), EX);
    world.node(a).end_operation(writer);
    world.settle();
    assert!(world.nodes[&b].is_working(reader), "the heir knows who waits");
    assert_eq!((world.mode(a, on), world.mode(b, on)), (PR, PR));
    world.recover(a, home);
}

#[test]
fn what_a_dead_node_wrote_is_read_after_its_replay() {
    let (mut world, a, b) = two();
    let on = world.object_at(a);
    world.complete(b, What::Write, on);
    world.crash(b, || true);
    world.commit(a, vec![a], Vec::new());
    world.follow_all();
    let reader = world.run(a, What::Read, on);
    assert!(world.nodes[&a].is_waiting(reader), "b's changes are not in place");
    world.recover(a, b);
    assert!(world.nodes[&a].is_working(reader));
    assert_eq!(world.disk.lock().version(&on.name), 1);
}

#[test]
fn an_open_file_keeps_its_cr_until_the_last_close() {
    let (mut world, a, b) = two();
    let on = world.object_at(a);
    let open = world.run(b, What::Open, on);
    let unlinker = world.run(a, What::Write, on);
    assert!(world.nodes[&a].is_waiting(unlinker));
    let again = world.node(b).begin(What::Open, on, Want::shared(CR).no_queue());
    assert_eq!(world.nodes[&b].outcome(again), Some(Err(PinError::Busy)), "stale");
    world.node(b).end_operation(open);
    world.settle();
    assert!(world.nodes[&a].is_working(unlinker));
}
