//! Applications that claim ranges, and what each of them may rely on: bytes, each with what it is
//! locked for, as POSIX has it for one owner. Known here by what applications asked and were
//! answered alone.

use std::collections::{BTreeMap, BTreeSet};

use dlm::BucketName;
use dlm::advisory::{Access, Claim, ClaimId, Family, How, Owner, Span, Verdict};
use mx_base::Member;

use crate::rng::Rng;
use crate::world::{State, World};

/// Of each member. The first two are of the family that is claimed as a whole.
pub(crate) const OWNERS: usize = 5;
const WHOLE: u64 = 2;
const BYTES: usize = 12;

type Held = [Option<Access>; BYTES];

/// What applications know.
#[derive(Default)]
pub(crate) struct Claimants {
    by_owner: BTreeMap<(Member, u64), Claimant>,
    pub(crate) deadlocks: u64,
    pub(crate) verdicts: Vec<(Member, ClaimId, Verdict)>,
}

#[derive(Default)]
struct Claimant {
    held: BTreeMap<BucketName, Held>,
    asks: Option<Asks>,
}

struct Asks {
    id: Option<ClaimId>,
    at: BucketName,
    span: Span,
    /// `None` to give up.
    access: Option<Access>,
    how: How,
    /// It has been part of a cycle of owners that wait for each other.
    in_cycle: bool,
}

pub(crate) fn owner(id: u64) -> Owner {
    let family = if id < WHOLE { Family::Whole } else { Family::Ranges };
    Owner { family, id }
}

fn bytes(span: Span) -> std::ops::RangeInclusive<usize> {
    let last = BYTES as u64 - 1;
    let byte = |at: u64| usize::try_from(at.min(last)).expect("small");
    byte(span.start())..=byte(span.end())
}

impl Claimants {
    /// It relies on nothing any more.
    pub(crate) fn end(&mut self, member: Member) {
        self.by_owner.retain(|(of, _), _| *of != member);
    }

    fn of(&mut self, member: Member, owner: u64) -> &mut Claimant {
        self.by_owner.entry((member, owner)).or_default()
    }

    pub(crate) fn answered(&mut self, member: Member, id: ClaimId, verdict: Verdict) {
        self.verdicts.push((member, id, verdict));
        let mut all = self.by_owner.iter_mut().filter(|((of, _), _)| *of == member);
        let found = all.find(|(_, one)| one.asks.as_ref().is_some_and(|asks| asks.id == Some(id)));
        let Some((_, one)) = found else { return };
        let Asks { at, span, access, how, in_cycle, .. } = one.asks.take().expect("found by it");
        match verdict {
            Verdict::Granted => {
                assert!(how != How::Test, "a test grants nothing");
                let held = one.held.entry(at).or_insert([None; BYTES]);
                bytes(span).for_each(|byte| held[byte] = access);
            }
            Verdict::Deadlock => {
                assert!(in_cycle, "nobody waited for each other: {member} {at:?} {span:?}");
                assert_eq!(how, How::Wait { detect: true });
                self.deadlocks += 1;
            }
            Verdict::WouldWait => assert_eq!(how, How::Try),
            Verdict::Free | Verdict::Held(_) => assert_eq!(how, How::Test),
            Verdict::Cancelled => {}
            Verdict::TooMany => panic!("far fewer wait than may"),
        }
    }

    /// What an owner relies on now. Whoever asks for less relies on less already.
    fn relied_on(one: &Claimant, at: &BucketName) -> Held {
        let mut held = one.held.get(at).copied().unwrap_or([None; BYTES]);
        if let Some(asks) = one.asks.as_ref().filter(|asks| asks.at == *at && asks.how != How::Test)
        {
            for byte in bytes(asks.span) {
                held[byte] = held[byte].min(asks.access);
            }
        }
        held
    }

    fn are_in_the_way(one: &Held, span: Span, access: Access) -> bool {
        bytes(span).any(|byte| one[byte].is_some_and(|held| !held.goes_with(access)))
    }

    /// Does a claim go with what all others hold?
    pub(crate) fn goes(
        &self,
        member: Member,
        id: u64,
        at: BucketName,
        (from, to): (u64, u64),
        access: Access,
    ) -> bool {
        let family = owner(id).family;
        let span = if family == Family::Whole { Some(Span::ALL) } else { Span::new(from, to) };
        let span = span.expect("in order");
        let others = self.by_owner.iter().filter(|((of, other), _)| {
            (*of, *other) != (member, id) && owner(*other).family == family
        });
        let mut held = others.map(|(_, one)| one.held.get(&at).copied().unwrap_or([None; BYTES]));
        !held.any(|held| Claimants::are_in_the_way(&held, span, access))
    }

    /// Marks everybody who is in a cycle now.
    fn mark_cycles(&mut self) {
        let waits: Vec<((Member, u64), BucketName, Span, Access)> = self
            .by_owner
            .iter()
            .filter_map(|(key, one)| {
                let asks = one.asks.as_ref()?;
                let waits = matches!(asks.how, How::Wait { detect: true });
                waits.then_some((*key, asks.at, asks.span, asks.access?))
            })
            .collect();
        let mut edges: BTreeMap<(Member, u64), Vec<(Member, u64)>> = BTreeMap::new();
        for (key, at, span, access) in &waits {
            let others = self
                .by_owner
                .iter()
                .filter(|(other, _)| *other != key && owner(other.1).family == Family::Ranges);
            let in_the_way = others.filter(|(_, one)| {
                let held = one.held.get(at).copied().unwrap_or([None; BYTES]);
                Claimants::are_in_the_way(&held, *span, *access)
            });
            edges.insert(*key, in_the_way.map(|(other, _)| *other).collect());
        }
        for (key, ..) in waits {
            let mut seen = BTreeSet::new();
            let mut next = edges[&key].clone();
            while let Some(other) = next.pop() {
                if seen.insert(other) {
                    next.extend(edges.get(&other).into_iter().flatten());
                }
            }
            if seen.contains(&key) {
                let asks = self.of(key.0, key.1).asks.as_mut();
                asks.expect("it waits").in_cycle = true;
            }
        }
    }
}

impl World {
    /// An application asks; not while it waits for an answer.
    pub(crate) fn claim(
        &mut self,
        member: Member,
        id: u64,
        at: BucketName,
        (from, to): (u64, u64),
        access: Access,
        how: How,
    ) -> Option<ClaimId> {
        let (now, key) = (self.instant(), owner(id));
        let span = match key.family {
            Family::Whole => Span::ALL,
            Family::Ranges => Span::new(from, to).expect("in order"),
        };
        let how = match (how, key.family) {
            (How::Wait { .. }, Family::Whole) => How::Wait { detect: false },
            _ => how,
        };
        let one = self.claimants.of(member, id);
        assert!(one.asks.is_none(), "an application asks for one thing at a time");
        if key.family == Family::Whole && how != How::Test {
            // Not one step: unless it is held so already, it is gone for the time being.
            let held = one.held.entry(at).or_insert([None; BYTES]);
            if held[0] != Some(access) {
                *held = [None; BYTES];
            }
        }
        let access_asked = Some(access);
        one.asks = Some(Asks { id: None, at, span, access: access_asked, how, in_cycle: false });
        self.claimants.mark_cycles();
        let claim = Claim { owner: key, via: id, pid: 7, span, access, how };
        let claimed = self.node(member).space.claim(at.name, at.bucket, claim, now).expect("room");
        let one = self.claimants.of(member, id);
        one.asks.as_mut().expect("just asked").id = Some(claimed);
        self.drain(member);
        Some(claimed)
    }

    pub(crate) fn unclaim(&mut self, member: Member, id: u64, at: BucketName, span: Span) {
        let (now, key) = (self.instant(), owner(id));
        let span = if key.family == Family::Whole { Span::ALL } else { span };
        let one = self.claimants.of(member, id);
        assert!(one.asks.is_none(), "an application asks for one thing at a time");
        let how = How::Try;
        one.asks = Some(Asks { id: None, at, span, access: None, how, in_cycle: false });
        let unclaimed =
            self.node(member).space.unclaim(at.name, at.bucket, key, span, now).expect("room");
        let one = self.claimants.of(member, id);
        match unclaimed {
            Some(claim) => one.asks.as_mut().expect("just asked").id = Some(claim),
            None => {
                one.asks = None;
                let held = one.held.get(&at).copied().unwrap_or([None; BYTES]);
                assert!(bytes(span).all(|byte| held[byte].is_none()), "there was something");
            }
        }
        self.drain(member);
    }

    pub(crate) fn take_claim_back(&mut self, member: Member, id: u64) {
        let asks = self.claimants.of(member, id).asks.as_ref();
        if let Some(claim) = asks.and_then(|asks| asks.id) {
            self.node(member).space.take_claim_back(claim);
            self.drain(member);
        }
    }

    pub(crate) fn claim_at_random(
        &mut self,
        member: Member,
        id: u64,
        at: BucketName,
        rng: &mut Rng,
    ) {
        if self.claimants.of(member, id).asks.is_some() {
            if rng.one_in(12) {
                self.take_claim_back(member, id);
            }
            return;
        }
        let (a, b) = (rng.below(BYTES) as u64, rng.below(BYTES) as u64);
        // The last byte stands for all behind it.
        let to = if a.max(b) == BYTES as u64 - 1 { u64::MAX } else { a.max(b) };
        let span = Span::new(a.min(b), to).expect("in order");
        let access = if rng.one_in(2) { Access::Read } else { Access::Write };
        match rng.below(10) {
            0..=4 => {
                let how = How::Wait { detect: true };
                self.claim(member, id, at, (span.start(), span.end()), access, how);
            }
            5 => {
                self.claim(member, id, at, (span.start(), span.end()), access, How::Try);
            }
            6 => {
                self.claim(member, id, at, (span.start(), span.end()), access, How::Test);
            }
            7 => self.unclaim(member, id, at, Span::ALL),
            8 => {
                let now = self.instant();
                let space = &mut self.node(member).space;
                // As at the end of an open file: nobody waits for it.
                space.release_via(at.name, at.bucket, id, now);
                self.claimants.of(member, id).held.remove(&at);
                self.drain(member);
            }
            _ => self.unclaim(member, id, at, span),
        }
    }

    /// Who waits goes on waiting, unless nobody looks whether that ends; everybody else gives
    /// everything up.
    pub(crate) fn give_up_or_wait(&mut self, member: Member, id: u64) {
        let one = self.claimants.of(member, id);
        if one.asks.is_some() {
            if owner(id).family == Family::Whole {
                self.take_claim_back(member, id);
            }
            return;
        }
        for at in std::mem::take(&mut one.held).into_keys() {
            let now = self.instant();
            let space = &mut self.node(member).space;
            space.unclaim(at.name, at.bucket, owner(id), Span::ALL, now).expect("room");
            self.drain(member);
        }
    }

    /// As at the end of a mount.
    pub(crate) fn release_claims(&mut self, member: Member) {
        let now = self.instant();
        self.claimants.end(member);
        self.node(member).space.release_all_claims(now);
        self.drain(member);
    }

    /// What owners rely on goes together, and is what their lock managers take them to hold.
    pub(crate) fn check_claims(&mut self) {
        self.claimants.mark_cycles();
        let all: Vec<_> = self.claimants.by_owner.iter().collect();
        let places: BTreeSet<BucketName> =
            all.iter().flat_map(|(_, one)| one.held.keys().copied()).collect();
        for at in places {
            for (i, (key, one)) in all.iter().enumerate() {
                let held = Claimants::relied_on(one, &at);
                for (other, beside) in &all[i + 1..] {
                    if owner(key.1).family != owner(other.1).family {
                        continue;
                    }
                    let beside = Claimants::relied_on(beside, &at);
                    let both = held.iter().zip(&beside);
                    let goes = |(a, b): (&Option<Access>, &Option<Access>)| {
                        a.is_none_or(|a| b.is_none_or(|b| a.goes_with(b)))
                    };
                    assert!(
                        both.into_iter().all(goes),
                        "{key:?} has {held:?} of {at:?}, {other:?} has {beside:?}"
                    );
                }
            }
        }
        for ((member, id), one) in &self.claimants.by_owner {
            let node = &self.nodes[member];
            if node.state == State::Stopped || node.followed == 0 || one.asks.is_some() {
                continue;
            }
            let mut known: BTreeMap<BucketName, Held> = BTreeMap::new();
            for piece in node.space.own_claims().filter(|piece| piece.owner == owner(*id)) {
                let at = BucketName { bucket: piece.bucket, name: piece.name };
                let held = known.entry(at).or_insert([None; BYTES]);
                bytes(piece.span).for_each(|byte| held[byte] = Some(piece.access));
            }
            for at in one.held.keys().chain(known.keys()) {
                let nothing = [None; BYTES];
                let (is, thinks) = (known.get(at), one.held.get(at));
                let (is, thinks) = (is.unwrap_or(&nothing), thinks.unwrap_or(&nothing));
                assert_eq!(is, thinks, "{member} {id} at {at:?}");
            }
        }
    }
}
