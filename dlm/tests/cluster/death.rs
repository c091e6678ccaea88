//! What the dead held: `docs/spec/locks.md` sections 5 and 6, rule by rule.

use dlm::{BucketName, LockId, Mode};
use mx_base::Member;

use crate::oracle;
use crate::world::{World, member, resource, resource_at, resource_of_none};

use Mode::{CR, EX, PR};

fn get(world: &mut World, owner: Member, at: BucketName, mode: Mode) -> LockId {
    let lock = world.request(owner, at, mode);
    world.deliver_all();
    lock
}

/// Nodes 1, 2, 3; 3 will die.
fn three() -> (World, Member, Member, Member) {
    (World::of(3), member(1, 1), member(2, 1), member(3, 1))
}

fn others_homed_at(world: &World, home: Member, than: BucketName) -> BucketName {
    (0..)
        .map(resource)
        .find(|at| *at != than && world.nodes[&home].space.home(at.bucket) == Some(home))
        .expect("a home has many")
}

fn tell_all_caches_gone(world: &mut World, dead: Member) {
    if !world.dead[&dead].caches_cut {
        world.cut_caches(dead);
    }
    for to in world.newest().view.members().to_vec() {
        world.tell_caches_gone(to, dead);
    }
    world.deliver_all();
}

#[test]
fn ex_of_the_dead_is_limbo_until_its_recovery_and_nothing_else_waits() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    let free = others_homed_at(&world, a, at);
    get(&mut world, d, at, EX);
    world.lose(a, d);
    let (reader, other) = (get(&mut world, b, at, PR), get(&mut world, b, free, EX));
    assert_eq!(world.held(b, reader), None, "limbo");
    assert_eq!(world.held(b, other), Some(EX), "d had nothing to do with it");
    world.fence(d, &[at]);
    world.begin_recovery(b, d);
    world.deliver_all();
    assert_eq!(world.held(b, reader), None, "it has live records");
    assert_eq!(world.dead[&d].redo.as_deref(), Some(&[at][..]));
    world.replay(d, &[at]);
    world.deliver_all();
    assert_eq!(world.held(b, reader), Some(PR), "as soon as it is durable");
    oracle::check_usable_modes(&world);
}

#[test]
fn limbo_without_live_records_is_freed_by_the_scan() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    get(&mut world, d, at, EX);
    world.lose(a, d);
    let reader = get(&mut world, b, at, PR);
    world.fence(d, &[]);
    world.begin_recovery(b, d);
    world.deliver_all();
    assert_eq!(world.held(b, reader), Some(PR));
    assert_eq!(world.dead[&d].redo.as_deref(), Some(&[][..]), "said also when there is nothing");
    assert_eq!(world.nodes[&a].space.counters().limbo_freed, 1);
}

#[test]
fn pr_of_the_dead_keeps_writers_waiting_until_its_caches_are_gone_and_readers_never() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    get(&mut world, d, at, PR);
    world.lose(a, d);
    let reader = get(&mut world, b, at, PR);
    assert_eq!(world.held(b, reader), Some(PR));
    world.convert(b, reader, EX, false);
    world.recover(a, d, &[]);
    assert_eq!(world.held(b, reader), Some(PR), "recovered, but its kernel may still serve it");
    tell_all_caches_gone(&mut world, d);
    assert_eq!(world.held(b, reader), Some(EX));
    oracle::check_quiet(&world);
}

#[test]
fn ex_of_the_dead_leaves_a_ghost_when_it_is_redone_before_its_caches_are_gone() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    get(&mut world, d, at, EX);
    world.lose(a, d);
    world.recover(a, d, &[at]);
    let reader = get(&mut world, b, at, PR);
    assert_eq!(world.held(b, reader), Some(PR), "what d's kernel serves is what is on disk");
    world.convert(b, reader, EX, false);
    world.deliver_all();
    assert_eq!(world.held(b, reader), Some(PR));
    tell_all_caches_gone(&mut world, d);
    assert_eq!(world.held(b, reader), Some(EX));
}

/// A survivor that rebuilds the bucket knows no more of it than that it may be there.
#[test]
fn where_no_kernel_caches_anything_the_dead_is_gone_with_its_recovery() {
    for (home, mode) in [(0, PR), (0, EX), (2, PR), (2, EX)] {
        let (mut world, a, b, d) = three();
        let home = [a, b, d][home];
        let mut resources = (0..).map(resource_of_none);
        let at = resources.find(|at| world.nodes[&a].space.home(at.bucket) == Some(home));
        let at = at.expect("everybody is home of something");
        get(&mut world, d, at, mode);
        world.lose(a, d);
        let early = world.request(b, at, EX);
        world.deliver_all();
        assert_eq!(world.held(b, early), None, "nobody knows yet whether d is fenced");
        world.recover(a, d, &[at]);
        assert_eq!(world.held(b, early), Some(EX), "{home:?} {mode:?}");
        let late = get(&mut world, b, resource_of_none(u16::MAX), EX);
        assert_eq!(world.held(b, late), Some(EX), "never mentioned before");
    }
}

#[test]
fn limbo_outlasts_the_caches_of_the_dead() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    get(&mut world, d, at, EX);
    world.lose(a, d);
    world.fence(d, &[at]);
    tell_all_caches_gone(&mut world, d);
    let reader = get(&mut world, b, at, PR);
    assert_eq!(world.held(b, reader), None);
    world.recover(a, d, &[at]);
    assert_eq!(world.held(b, reader), Some(PR));
    oracle::check_quiet(&world);
}

#[test]
fn what_the_dead_waited_for_goes_at_once() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    let holder = get(&mut world, a, at, PR);
    get(&mut world, d, at, EX);
    let reader = get(&mut world, b, at, PR);
    assert_eq!(world.held(b, reader), None, "behind the writer");
    world.lose(a, d);
    assert_eq!(world.held(b, reader), Some(PR));
    assert_eq!(world.held(a, holder), Some(PR));
}

#[test]
fn cr_of_the_dead_goes_at_once() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    get(&mut world, d, at, CR);
    world.lose(a, d);
    let writer = get(&mut world, b, at, EX);
    assert_eq!(world.held(b, writer), Some(EX));
}

/// When two die at once, what one waited for must not come to the other's remains.
#[test]
fn the_dead_inherit_nothing_from_each_other() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let at = resource_at(&world, a);
    get(&mut world, c, at, CR);
    get(&mut world, d, at, EX);
    world.crash(c);
    world.crash(d);
    world.commit(a, vec![a, b], Vec::new());
    world.settle();
    let writer = get(&mut world, b, at, EX);
    assert_eq!(world.held(b, writer), Some(EX), "c held CR, d held nothing yet");
}

#[test]
fn in_a_rebuilt_bucket_the_dead_may_have_held_what_goes_with_what_survivors_hold() {
    let (mut world, a, b, d) = three();
    let mut homed_on_d =
        (0..).map(resource).filter(|at| world.nodes[&a].space.home(at.bucket) == Some(d));
    let (ex, pr, cr, unknown) = (
        homed_on_d.next().expect("many"),
        homed_on_d.next().expect("many"),
        homed_on_d.next().expect("many"),
        homed_on_d.next().expect("many"),
    );
    drop(homed_on_d);
    let held_ex = get(&mut world, a, ex, EX);
    let held_pr = get(&mut world, a, pr, PR);
    let held_cr = get(&mut world, a, cr, CR);
    world.lose(a, d);

    world.unlock(a, held_ex, true);
    let writer = get(&mut world, b, ex, EX);
    assert_eq!(world.held(b, writer), Some(EX), "a held EX: the dead held nothing");

    let reader = get(&mut world, b, pr, PR);
    assert_eq!(world.held(b, reader), Some(PR), "a held PR: the dead did not write");
    world.unlock(a, held_pr, false);
    world.convert(b, reader, EX, false);
    world.deliver_all();
    assert_eq!(world.held(b, reader), Some(PR), "but it may have read");

    let (beside, second) = (get(&mut world, b, cr, CR), get(&mut world, b, cr, PR));
    assert_eq!(world.held(b, beside), Some(CR));
    assert_eq!(world.held(b, second), None, "beside CR the dead may have held PW");
    let waiter = get(&mut world, b, unknown, PR);
    assert_eq!(world.held(b, waiter), None, "nothing is known: limbo");

    world.fence(d, &[unknown]);
    world.begin_recovery(a, d);
    world.deliver_all();
    assert_eq!(world.held(b, second), Some(PR), "no live record: freed");
    assert_eq!(world.held(b, waiter), None);
    assert_eq!(world.held(b, reader), Some(PR));
    world.replay(d, &[unknown]);
    world.deliver_all();
    assert_eq!(world.held(b, waiter), Some(PR));
    world.finish_recovery(d);
    tell_all_caches_gone(&mut world, d);
    assert_eq!(world.held(b, reader), Some(EX));
    assert_eq!(world.held(a, held_cr), Some(CR));
    oracle::check_quiet(&world);
}

/// What a survivor held is remembered after it gave it up, as long as it tells about the dead.
#[test]
fn a_resource_that_a_survivor_held_does_not_fall_into_limbo_when_it_is_given_up() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, d);
    let lock = get(&mut world, a, at, EX);
    world.lose(a, d);
    world.unlock(a, lock, true);
    world.deliver_all();
    let writer = get(&mut world, b, at, EX);
    assert_eq!(world.held(b, writer), Some(EX));
}

#[test]
fn only_what_is_in_limbo_is_redone_and_what_is_waited_for_first() {
    let (mut world, a, b, d) = three();
    let at: Vec<BucketName> = (0..)
        .map(resource)
        .filter(|at| world.nodes[&a].space.home(at.bucket) == Some(a))
        .take(4)
        .collect();
    let kept = get(&mut world, b, at[0], PR);
    for one in &at[1..] {
        get(&mut world, d, *one, EX);
    }
    world.lose(a, d);
    let last = at[1..].iter().max().copied().expect("three");
    let waiter = get(&mut world, b, last, PR);
    // The journal still has a record of what d gave up before.
    world.fence(d, &at);
    world.begin_recovery(b, d);
    world.deliver_all();
    let redo = world.dead[&d].redo.clone().expect("answered");
    assert_eq!(redo.len(), 3, "not what b holds");
    assert_eq!(redo[0], last, "somebody waits for it");
    world.replay(d, &[last]);
    world.deliver_all();
    assert_eq!(world.held(b, waiter), Some(PR), "released before the others are redone");
    assert_eq!(world.held(b, kept), Some(PR));
}

#[test]
fn what_somebody_begins_to_wait_for_during_the_redo_is_told_to_the_recoverer() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    let second = others_homed_at(&world, a, at);
    let own = resource_at(&world, b);
    for name in [at, second, own] {
        get(&mut world, d, name, EX);
    }
    world.lose(a, d);
    let early = world.request(b, at, PR);
    world.deliver_all();
    world.fence(d, &[at, second, own]);
    world.begin_recovery(b, d);
    world.deliver_all();
    let redo = world.dead[&d].redo.clone().expect("handed out");
    assert_eq!((redo[0], redo.len()), (at, 3), "somebody waits for it already");
    assert!(world.wanted.is_empty());
    let mut waits = vec![early];
    for name in [second, own, own] {
        waits.push(world.request(b, name, PR));
        world.deliver_all();
    }
    assert_eq!(world.wanted, [second, own], "each once, also at the recoverer's own home");
    world.replay(d, &[second]);
    world.deliver_all();
    assert_eq!(world.held(b, waits[1]), Some(PR), "before the others");
    assert_eq!(world.held(b, waits[2]), None);
}

/// Before that it would take for limbo what a survivor holds, and the recoverer would write to it.
#[test]
fn a_home_answers_what_is_in_limbo_only_when_it_knows_what_survivors_hold() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let mut trial = World::of(4);
    trial.commit(a, vec![a, b], Vec::new());
    let at = (0..)
        .map(resource)
        .find(|at| {
            world.nodes[&a].space.home(at.bucket) == Some(c)
                && trial.nodes[&a].space.home(at.bucket) == Some(a)
        })
        .expect("a inherits some of c's buckets");
    let reader = get(&mut world, b, at, PR);
    world.crash(c);
    world.crash(d);
    world.commit(a, vec![a, b], Vec::new());
    world.fence(d, &[at]);
    world.begin_recovery(a, d);
    world.deliver_all();
    world.settle();
    assert_eq!(world.held(b, reader), Some(PR));
    assert_eq!(world.dead[&d].redo.as_deref(), Some(&[][..]), "b holds it: d had given it up");
}

#[test]
fn a_change_of_view_during_a_recovery_frees_and_loses_nothing() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let on = |world: &World, home: Member| -> Vec<BucketName> {
        (0..)
            .map(resource)
            .filter(|at| world.nodes[&a].space.home(at.bucket) == Some(home))
            .take(3)
            .collect()
    };
    let (on_b, on_c) = (on(&world, b), on(&world, c));
    for at in on_b.iter().chain(&on_c) {
        get(&mut world, d, *at, EX);
    }
    world.lose(a, d);
    let live: Vec<BucketName> = on_b[..2].iter().chain(&on_c[..2]).copied().collect();
    world.fence(d, &live);
    world.begin_recovery(a, d);
    world.deliver_all();
    let redo = world.dead[&d].redo.clone().expect("answered");
    assert_eq!(redo.len(), 4);
    world.replay(d, &redo[..1]);
    // c dies in the middle: what it decided about is rebuilt, still in limbo for d.
    world.lose(a, c);
    for at in on_b.iter().chain(&on_c) {
        oracle::check_usable_modes(&world);
        let is_done = !redo[1..].contains(at);
        let lock = get(&mut world, b, *at, PR);
        let is_of_c = on_c.contains(at);
        if is_done && !is_of_c {
            assert_eq!(world.held(b, lock), Some(PR), "{at:?}");
        } else {
            assert_eq!(world.held(b, lock), None, "{at:?}");
        }
    }
    assert!(world.dead[&d].redo.as_ref().is_some_and(|redo| redo.len() == 3), "goes on");
    let left = world.dead[&d].redo.clone().expect("going on");
    world.replay(d, &left);
    world.finish_recovery(d);
    world.deliver_all();
    world.recover(b, c, &[]);
    tell_all_caches_gone(&mut world, d);
    tell_all_caches_gone(&mut world, c);
    assert!(world.nodes[&b].locks.values().all(|lock| lock.held == Some(PR)));
    oracle::check_quiet(&world);
}

#[test]
fn another_recoverer_starts_over_when_the_first_dies() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    let at = resource_at(&world, a);
    let second = others_homed_at(&world, a, at);
    get(&mut world, d, at, EX);
    get(&mut world, d, second, EX);
    world.lose(a, d);
    world.fence(d, &[at, second]);
    world.begin_recovery(c, d);
    world.deliver_all();
    world.replay(d, &[at]);
    world.deliver_all();
    world.lose(a, c);
    world.fence(c, &[]);
    world.begin_recovery(b, d);
    world.deliver_all();
    assert_eq!(world.dead[&d].redo.as_deref(), Some(&[second][..]), "the rest");
    world.replay(d, &[second]);
    world.finish_recovery(d);
    world.deliver_all();
    world.begin_recovery(b, c);
    world.deliver_all();
    world.finish_recovery(c);
    tell_all_caches_gone(&mut world, d);
    tell_all_caches_gone(&mut world, c);
    oracle::check_quiet(&world);
}

#[test]
fn a_recovery_ends_only_when_every_member_knows() {
    let (mut world, a, b, d) = three();
    world.lose(a, d);
    world.fence(d, &[]);
    world.begin_recovery(a, d);
    world.deliver_all();
    world.finish_recovery(d);
    assert!(!world.dead[&d].is_recovered);
    world.deliver(a, b);
    assert!(!world.dead[&d].is_recovered, "the answer is on the way");
    world.deliver(b, a);
    assert!(world.dead[&d].is_recovered);
}

/// Its predecessor was done and died before everybody had heard so: a recoverer that has heard it
/// tells the others, who would hear it from nobody else.
#[test]
fn a_recoverer_whose_predecessor_was_done_tells_everybody_so() {
    let mut world = World::of(4);
    let [a, b, c, d] = [1, 2, 3, 4].map(|node| member(node, 1));
    world.lose(a, d);
    world.fence(d, &[]);
    world.begin_recovery(a, d);
    world.deliver_all();
    world.finish_recovery(d);
    world.begin_recovery(c, d);
    world.deliver(a, c);
    world.sever(a, b, 0);
    world.lose(c, a);
    world.recover(c, a, &[]);
    assert!(world.dead[&d].is_recovered);
    let known = |member| world.nodes[&member].space.dead().find(|(dead, _)| *dead == d);
    assert!(known(b).is_some_and(|(_, facts)| facts.recovered), "{:?}", known(b));
}

/// The welcome was made before word of the recovery's end came, and the recoverer did not know of
/// the joiner when it told everybody: it must not be done before it has told the joiner, too.
#[test]
fn a_joiner_learns_of_a_recovery_that_ended_while_it_joined() {
    let (mut world, a, b, d) = three();
    world.lose(a, d);
    world.fence(d, &[]);
    world.begin_recovery(b, d);
    world.deliver_all();
    let joiner = world.give_life(4);
    world.commit(a, vec![a, b, joiner], Vec::new());
    world.finish_recovery(d);
    for _ in 0..3 {
        world.deliver(b, a);
        world.deliver(a, b);
    }
    assert!(!world.dead[&d].is_recovered, "a has seen it, but under a view that b does not know");
    world.follow(joiner);
    assert!(world.nodes[&joiner].space.dead().any(|(_, facts)| !facts.recovered));
    world.settle();
    assert!(world.nodes[&joiner].space.dead().all(|(_, facts)| facts.recovered));
    let at = resource_at(&world, joiner);
    tell_all_caches_gone(&mut world, d);
    let lock = get(&mut world, a, at, EX);
    assert_eq!(world.held(a, lock), Some(EX));
    oracle::check_quiet(&world);
}

#[test]
fn a_cluster_that_starts_after_a_crash_has_everything_in_limbo_until_the_replay() {
    let dead = member(9, 4);
    let mut world = World::cold(2, &[dead]);
    let (a, b) = (member(1, 1), member(2, 1));
    let (one, two) = (resource(1), resource(2));
    let (first, second) = (get(&mut world, a, one, PR), get(&mut world, b, two, PR));
    assert_eq!((world.held(a, first), world.held(b, second)), (None, None));
    let now = world.instant();
    let space = &mut world.nodes.get_mut(&a).expect("there").space;
    space.begin_recovery(dead, [one], now).expect("it is dead");
    assert!(space.begin_recovery(dead, [one], now).is_err(), "under way");
    assert!(space.begin_recovery(b, [one], now).is_err(), "alive");
    world.dead.insert(dead, crate::world::DeadMember::recovered_by(a, &[one]));
    world.drain(a);
    world.deliver_all();
    assert_eq!(world.held(b, second), Some(PR), "no live record");
    assert_eq!(world.held(a, first), None);
    assert_eq!(world.dead[&dead].redo.as_deref(), Some(&[one][..]));
    world.replay(dead, &[one]);
    world.deliver_all();
    assert_eq!(world.held(a, first), Some(PR));
}

#[test]
fn nobody_vouches_for_a_value_that_a_dead_writer_may_have_changed() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    let writer = get(&mut world, b, at, EX);
    world.lower(b, writer, CR, true);
    world.deliver_all();
    let other = get(&mut world, d, at, Mode::PW);
    assert_eq!(world.held(d, other), Some(Mode::PW));
    assert_eq!(world.values_seen, 1);
    world.lose(a, d);
    world.recover(a, d, &[at]);
    world.convert(b, writer, PR, false);
    world.deliver_all();
    assert_eq!(world.held(b, writer), Some(PR));
    assert_eq!(world.values_seen, 1, "granted without a value");
}
