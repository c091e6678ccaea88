//! Advisory locks: `docs/spec/locks.md` section 10, rule by rule.

use dlm::BucketName;
use dlm::advisory::explain::ClaimsState;
use dlm::advisory::{Access, ClaimId, How, Span, Verdict};
use mx_base::Member;

use crate::claimants::owner;
use crate::rng::Rng;
use crate::world::{World, member, resource, resource_at};

use Access::{Read, Write};

const WAIT: How = How::Wait { detect: true };
/// Two owners of ranges, and one of a whole.
const ONE: u64 = 2;
const TWO: u64 = 3;
const FILE: u64 = 0;

impl World {
    /// As an application that is answered before anything else happens.
    fn ask(
        &mut self,
        member: Member,
        owner: u64,
        at: BucketName,
        span: (u64, u64),
        access: Access,
        how: How,
    ) -> Option<Verdict> {
        let id = self.claim(member, owner, at, span, access, how)?;
        self.deliver_all();
        self.verdict(member, id)
    }

    fn verdict(&self, member: Member, id: ClaimId) -> Option<Verdict> {
        let all = self.claimants.verdicts.iter();
        let mut of = all.filter(|(of, claim, _)| (*of, *claim) == (member, id));
        let verdict = of.next().map(|(.., verdict)| *verdict);
        assert!(of.next().is_none(), "a claim is answered once");
        verdict
    }

    fn known(&self, member: Member, at: BucketName, limit: usize) -> ClaimsState {
        self.nodes[&member].space.claims_of(at.name, at.bucket, limit)
    }

    fn give_up(&mut self, member: Member, owner: u64, at: BucketName, span: (u64, u64)) {
        self.unclaim(member, owner, at, Span::new(span.0, span.1).expect("in order"));
        self.deliver_all();
        self.check_claims();
    }
}

fn three() -> (World, Member, Member, Member) {
    (World::of(3), member(1, 1), member(2, 1), member(3, 1))
}

#[test]
fn what_does_not_go_together_is_refused_or_waits_wherever_the_home_is() {
    let (mut world, a, b, c) = three();
    for home in [a, b, c] {
        let at = resource_at(&world, home);
        assert_eq!(world.ask(a, ONE, at, (0, 9), Write, WAIT), Some(Verdict::Granted));
        assert_eq!(world.ask(b, ONE, at, (5, 5), Read, How::Try), Some(Verdict::WouldWait));
        assert_eq!(world.ask(b, ONE, at, (10, 11), Read, How::Try), Some(Verdict::Granted));
        let Some(Verdict::Held(conflict)) = world.ask(c, TWO, at, (4, 11), Write, How::Test) else {
            panic!("a is in the way");
        };
        assert_eq!((conflict.holder, conflict.access), (a, Write));
        assert_eq!((conflict.span.start(), conflict.span.end()), (0, 9));
        assert_eq!(world.ask(a, TWO, at, (10, 10), Read, How::Test), Some(Verdict::Free));
        let waits = world.claim(c, ONE, at, (0, 3), Read, WAIT).expect("asked");
        world.deliver_all();
        assert_eq!(world.verdict(c, waits), None);
        world.give_up(a, ONE, at, (0, 3));
        assert_eq!(world.verdict(c, waits), Some(Verdict::Granted));
        // What belongs to one family says nothing to the other.
        assert_eq!(world.ask(b, FILE, at, (0, 0), Write, How::Try), Some(Verdict::Granted));
        for (node, owner) in [(a, ONE), (b, ONE), (c, ONE), (b, FILE)] {
            world.give_up(node, owner, at, (0, u64::MAX));
        }
    }
}

#[test]
fn a_claim_at_a_home_of_ones_own_costs_no_message() {
    let (mut world, a, ..) = three();
    let at = resource_at(&world, a);
    let sent = world.nodes[&a].space.counters().sent_total();
    assert_eq!(world.ask(a, ONE, at, (0, 9), Write, WAIT), Some(Verdict::Granted));
    world.give_up(a, ONE, at, (0, 9));
    assert_eq!(world.nodes[&a].space.counters().sent_total(), sent);
}

#[test]
fn an_upgrade_is_one_step_and_a_refused_one_changes_nothing() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    assert_eq!(world.ask(a, ONE, at, (0, 9), Read, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (5, 5), Read, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(a, ONE, at, (0, 9), Write, How::Try), Some(Verdict::WouldWait));
    assert_eq!(world.ask(b, TWO, at, (0, 0), Write, How::Try), Some(Verdict::WouldWait));
    let upgrade = world.claim(a, ONE, at, (0, 9), Write, WAIT).expect("asked");
    world.deliver_all();
    world.give_up(b, ONE, at, (0, 9));
    assert_eq!(world.verdict(a, upgrade), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (9, 9), Read, How::Try), Some(Verdict::WouldWait));
    // Down again, in the middle and a bit beyond.
    assert_eq!(world.ask(a, ONE, at, (5, 11), Read, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (9, 11), Read, How::Try), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (4, 4), Read, How::Try), Some(Verdict::WouldWait));
    world.check_claims();
}

#[test]
fn a_conversion_of_the_whole_gives_the_old_lock_up_first() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    for node in [a, b] {
        assert_eq!(world.ask(node, FILE, at, (0, 0), Read, WAIT), Some(Verdict::Granted));
    }
    assert_eq!(world.ask(a, FILE, at, (0, 0), Write, How::Try), Some(Verdict::WouldWait));
    assert_eq!(world.ask(b, FILE, at, (0, 0), Write, How::Try), Some(Verdict::Granted));
    world.check_claims();
}

#[test]
fn a_wait_that_is_taken_back_is_not_held_and_what_was_held_before_still_is() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    assert_eq!(world.ask(a, ONE, at, (0, 9), Read, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (0, 3), Read, WAIT), Some(Verdict::Granted));
    let wait = world.claim(b, ONE, at, (0, 9), Write, WAIT).expect("asked");
    world.deliver_all();
    world.take_claim_back(b, ONE);
    world.deliver_all();
    assert_eq!(world.verdict(b, wait), Some(Verdict::Cancelled));
    world.give_up(a, ONE, at, (0, 9));
    assert_eq!(world.ask(c, ONE, at, (4, 9), Write, How::Try), Some(Verdict::Granted));
    assert_eq!(world.ask(c, ONE, at, (3, 3), Write, How::Try), Some(Verdict::WouldWait));
    // Taken back while the grant is on the way: the grant came first, and counts.
    let late = world.claim(b, TWO, at, (10, 11), Write, WAIT).expect("asked");
    world.deliver(b, c);
    world.take_claim_back(b, TWO);
    world.deliver_all();
    assert_eq!(world.verdict(b, late), Some(Verdict::Granted));
    world.check_claims();
}

/// The waits of `count` owners, each for the next one's range, the last one closing the circle.
fn circle(world: &mut World, nodes: &[Member], homes: &[Member]) -> Vec<(Member, ClaimId)> {
    let count = nodes.len();
    let places: Vec<BucketName> = homes.iter().map(|home| resource_at(world, *home)).collect();
    let span = |i: usize| (i as u64, i as u64);
    for (i, node) in nodes.iter().enumerate() {
        let granted = world.ask(*node, ONE + i as u64 % 3, places[i], span(i), Write, WAIT);
        assert_eq!(granted, Some(Verdict::Granted));
    }
    let mut waits = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let next = (i + 1) % count;
        let owner = ONE + i as u64 % 3;
        let id = world.claim(*node, owner, places[next], span(next), Write, WAIT);
        waits.push((*node, id.expect("asked")));
    }
    waits
}

#[test]
fn whoever_closes_a_circle_of_waits_is_told_and_nobody_else() {
    let (_, a, b, c) = three();
    for homes in [[a, a, a], [a, b, c], [c, a, b], [b, b, c]] {
        for nodes in [[a, b, c], [a, a, a], [b, a, b]] {
            let mut world = World::of(3);
            let places: Vec<BucketName> =
                homes.iter().map(|home| resource_at(&world, *home)).collect();
            let span = |i: usize| (i as u64, i as u64);
            for (i, node) in nodes.iter().enumerate() {
                world.ask(*node, ONE + i as u64, places[i], span(i), Write, WAIT);
            }
            let mut last = None;
            for (i, node) in nodes.iter().enumerate() {
                let next = (i + 1) % 3;
                let id = world.claim(*node, ONE + i as u64, places[next], span(next), Write, WAIT);
                world.deliver_all();
                last = id.map(|id| (*node, id));
            }
            let (node, id) = last.expect("three asked");
            assert_eq!(world.verdict(node, id), Some(Verdict::Deadlock), "{homes:?} {nodes:?}");
            assert_eq!(world.claimants.deadlocks, 1, "{homes:?} {nodes:?}");
        }
    }
}

#[test]
fn of_a_circle_that_closes_in_several_places_at_once_exactly_one_wait_ends() {
    let (_, a, b, c) = three();
    for nodes in [vec![a, b], vec![a, b, c], vec![c, b, a]] {
        let mut world = World::of(3);
        let homes: Vec<Member> = nodes.iter().rev().copied().collect();
        let waits = circle(&mut world, &nodes, &homes);
        world.deliver_all();
        let ended: Vec<Verdict> =
            waits.iter().filter_map(|(node, id)| world.verdict(*node, *id)).collect();
        assert_eq!(ended, [Verdict::Deadlock], "{nodes:?}");
    }
}

#[test]
fn a_circle_is_found_although_the_home_of_a_wait_dies_while_it_is_searched_for() {
    let mut world = World::of(4);
    let (a, b, c, d) = (member(1, 1), member(2, 1), member(3, 1), member(4, 1));
    let waits = circle(&mut world, &[a, b], &[d, c]);
    // What is asked arrives, nothing of the search does.
    for owner in [a, b] {
        for home in [c, d] {
            world.deliver(owner, home);
        }
    }
    world.lose(a, d);
    assert_eq!(world.claimants.deadlocks, 0, "d may have known of more");
    world.recover(b, d, &[]);
    let ended: Vec<Verdict> =
        waits.iter().filter_map(|(node, id)| world.verdict(*node, *id)).collect();
    assert_eq!(ended, [Verdict::Deadlock]);
}

#[test]
fn what_survivors_hold_and_wait_for_survives_their_home() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, d);
    assert_eq!(world.ask(a, ONE, at, (0, 4), Write, WAIT), Some(Verdict::Granted));
    let wait = world.claim(b, ONE, at, (4, 9), Write, WAIT).expect("asked");
    world.deliver_all();
    world.lose(a, d);
    let free = world.claim(b, TWO, at, (11, 11), Read, How::Try).expect("asked");
    world.deliver_all();
    assert_eq!(world.verdict(b, free), None, "d may have held anything, and is not fenced");
    world.recover(a, d, &[]);
    assert_eq!(world.verdict(b, free), Some(Verdict::Granted));
    assert_eq!(world.verdict(b, wait), None);
    world.give_up(a, ONE, at, (0, 4));
    assert_eq!(world.verdict(b, wait), Some(Verdict::Granted));
}

#[test]
fn what_the_dead_held_is_held_until_they_are_fenced() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, a);
    assert_eq!(world.ask(d, ONE, at, (0, 4), Write, WAIT), Some(Verdict::Granted));
    let wait = world.claim(b, ONE, at, (4, 9), Write, WAIT).expect("asked");
    world.deliver_all();
    world.lose(a, d);
    assert_eq!(world.verdict(b, wait), None);
    assert_eq!(world.ask(b, TWO, at, (5, 5), Read, How::Try), Some(Verdict::Granted));
    world.fence(d, &[at]);
    world.begin_recovery(b, d);
    world.deliver_all();
    assert_eq!(world.verdict(b, wait), None, "5 is held");
    world.give_up(b, TWO, at, (0, 9));
    assert_eq!(world.verdict(b, wait), Some(Verdict::Granted), "the data is guarded elsewhere");
}

#[test]
fn who_leaves_or_takes_over_changes_nothing_for_the_others() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    assert_eq!(world.ask(a, ONE, at, (0, 4), Read, WAIT), Some(Verdict::Granted));
    let wait = world.claim(b, ONE, at, (0, 0), Write, WAIT).expect("asked");
    world.deliver_all();
    world.commit(a, vec![a, b], vec![c]);
    world.settle();
    assert_eq!(world.verdict(b, wait), None);
    let joiner = world.give_life(4);
    world.commit(a, vec![a, b, joiner], Vec::new());
    world.settle();
    assert_eq!(world.ask(joiner, ONE, at, (1, 4), Write, How::Try), Some(Verdict::WouldWait));
    world.give_up(a, ONE, at, (0, 4));
    assert_eq!(world.verdict(b, wait), Some(Verdict::Granted));
}

#[test]
fn whoever_is_gone_from_a_mount_holds_and_waits_for_nothing() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    assert_eq!(world.ask(a, ONE, at, (0, 4), Write, WAIT), Some(Verdict::Granted));
    world.claim(a, TWO, at, (0, 0), Write, WAIT);
    assert_eq!(world.ask(a, FILE, at, (0, 0), Write, WAIT), Some(Verdict::Granted));
    world.release_claims(a);
    world.deliver_all();
    assert_eq!(world.nodes[&a].space.claims_count(), (0, 0));
    assert_eq!(world.ask(b, ONE, at, (0, 9), Write, How::Try), Some(Verdict::Granted));
    assert_eq!(world.ask(b, FILE, at, (0, 0), Write, How::Try), Some(Verdict::Granted));
}

/// On one server every answer is known beforehand.
#[test]
fn on_one_node_every_answer_is_that_of_the_model() {
    for seed in 0..20 {
        let mut world = World::of(1);
        let (a, mut rng) = (member(1, 1), Rng::new(seed));
        let at = resource(1);
        for turn in 0..1_000 {
            let owner = rng.below(crate::claimants::OWNERS) as u64;
            let (x, y) = (rng.below(12) as u64, rng.below(12) as u64);
            let span = (x.min(y), x.max(y));
            let access = if rng.one_in(2) { Read } else { Write };
            let free = world.claimants.goes(a, owner, at, span, access);
            match rng.below(4) {
                0 => world.give_up(a, owner, at, span),
                1 => {
                    let verdict = world.ask(a, owner, at, span, access, How::Test);
                    assert_eq!(verdict == Some(Verdict::Free), free, "seed {seed}");
                }
                _ => {
                    let verdict = world.ask(a, owner, at, span, access, How::Try);
                    assert_eq!(verdict == Some(Verdict::Granted), free, "seed {seed}");
                }
            }
            world.check_claims();
            if turn % 100 == 0 {
                world.nodes[&a].space.check_invariants();
            }
        }
    }
}

/// Who holds what, and who waits since when for whom.
type Told = (Vec<(Member, u64, u64)>, Vec<(Member, u64, u64, Vec<(Member, u64)>)>);

fn told(state: &ClaimsState) -> Told {
    let held = state.held.iter().map(|one| (one.member, one.owner.id, one.span.start()));
    let waiting = state.waiting.iter().map(|waiter| {
        let waits_for = waiter.waits_for.iter().map(|(member, owner)| (*member, owner.id));
        let (member, id) = (waiter.wanted.member, waiter.wanted.owner.id);
        (member, id, waiter.since.0, waits_for.collect())
    });
    (held.collect(), waiting.collect())
}

#[test]
fn a_home_tells_of_everybody_and_another_node_of_its_own_owners() {
    let (mut world, a, b, c) = three();
    let at = resource_at(&world, c);
    assert_eq!(world.ask(a, ONE, at, (0, 1), Write, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(a, TWO, at, (4, 5), Write, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(b, ONE, at, (8, 8), Read, WAIT), Some(Verdict::Granted));
    assert_eq!(world.ask(b, FILE, at, (0, 0), Write, WAIT), Some(Verdict::Granted));
    world.now = 700;
    world.claim(b, ONE, at, (5, 9), Read, WAIT).expect("asked");
    world.now = 800;
    world.deliver_all();
    world.claim(b, TWO, at, (8, 8), Write, WAIT).expect("asked");
    world.deliver_all();
    let home = world.known(c, at, 9);
    assert!(home.is_all && home.unreported.is_empty() && home.unfenced.is_empty(), "{home:?}");
    // What is in the way comes first. The home does not know when others asked.
    let held = vec![(a, TWO, 4), (b, ONE, 8), (a, ONE, 0), (b, FILE, 0)];
    let waiting = vec![(b, ONE, 800, vec![(a, TWO)]), (b, TWO, 800, vec![(b, ONE)])];
    assert_eq!(told(&home), (held.clone(), waiting.clone()));
    assert_eq!(home.waiting[0].wanted.owner, owner(ONE));
    let first = world.known(c, at, 1);
    assert_eq!(told(&first), (held[..1].to_vec(), waiting[..1].to_vec()));
    assert_eq!((first.held_total, first.waiting_total), (4, 2));
    let there = world.known(b, at, 9);
    assert!(!there.is_all, "others may hold what it does not know");
    let held = vec![(b, ONE, 8), (b, FILE, 0)];
    let waiting = vec![(b, ONE, 700, Vec::new()), (b, TWO, 800, vec![(b, ONE)])];
    assert_eq!(told(&there), (held, waiting));
    assert_eq!(told(&world.known(a, at, 9)), (vec![(a, ONE, 0), (a, TWO, 4)], Vec::new()));
    let elsewhere = resource_at(&world, a);
    assert_eq!(told(&world.known(a, elsewhere, 9)), (Vec::new(), Vec::new()));
}

#[test]
fn a_home_tells_what_keeps_it_from_deciding_and_since_when_its_own_owners_wait() {
    let (mut world, a, b, d) = three();
    let at = resource_at(&world, d);
    for (node, owner) in [(a, ONE), (b, ONE)] {
        world.now = 100;
        assert_eq!(world.ask(node, owner, at, (0, 4), Read, WAIT), Some(Verdict::Granted));
    }
    world.now = 200;
    for node in [a, b] {
        world.claim(node, TWO, at, (0, 0), Write, WAIT).expect("asked");
        world.deliver_all();
    }
    world.now = 300;
    world.lose(a, d);
    let heir = world.nodes[&a].space.home(at.bucket).expect("a view");
    let before = world.known(heir, at, 9);
    assert!(before.is_all && before.unreported.is_empty(), "{before:?}");
    assert_eq!(before.unfenced, [d]);
    let since = |state: &ClaimsState, member: Member| {
        let mut waiting = state.waiting.iter();
        waiting.find(|waiter| waiter.wanted.member == member).map(|waiter| waiter.since.0)
    };
    let other = if heir == a { b } else { a };
    assert_eq!((since(&before, heir), since(&before, other)), (Some(200), Some(300)));
    world.recover(heir, d, &[]);
    assert!(world.known(heir, at, 9).unfenced.is_empty(), "it is fenced");
}
