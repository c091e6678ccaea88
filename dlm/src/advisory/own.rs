//! The advisory locks of this node's own owners, wherever their homes are.
//!
//! Keeps true between calls:
//!   * what is held here is what owners may rely on, and no more than their homes know;
//!   * a claim is here from the moment that it is asked for until it is answered;
//!   * nothing is listed that is empty.

use std::collections::{BTreeMap, BTreeSet};

use mx_base::{Instant, Member};

use super::pieces::{Access, Piece, Pieces, Span};
use super::{AskedClaim, Claim, ClaimId, Family, How, Owner, ReportedClaim, TooManyClaims, Wait};
use crate::name::{Bucket, ResourceName};

/// See the module.
#[derive(Clone, Hash, Default)]
pub(crate) struct OwnClaims {
    held: BTreeMap<(Bucket, ResourceName), BTreeMap<Owner, Pieces>>,
    asked: BTreeMap<ClaimId, Asked>,
    /// Of those that may be part of a cycle: by whom they wait.
    waits: BTreeSet<(u64, ClaimId)>,
    next: u64,
    pieces: usize,
    /// The greatest stamp that this node has heard of.
    clock: u64,
}

/// A claim that is not answered.
#[derive(Clone, Copy, Hash, Debug)]
pub(crate) struct Asked {
    pub(crate) bucket: Bucket,
    pub(crate) name: ResourceName,
    pub(crate) claim: Claim,
    pub(crate) step: AskedStep,
    pub(crate) is_cancelled: bool,
    /// Nobody waits for it any more: it is given up if it is granted all the same.
    pub(crate) is_abandoned: bool,
    pub(crate) stamp: u64,
    pub(crate) since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum AskedStep {
    /// The home decides.
    Deciding,
    /// What is given up with it is given up here already, and the home is to know.
    Lowering,
}

impl Asked {
    pub(crate) fn detects(&self) -> bool {
        let is_wait = self.claim.how == How::Wait { detect: true };
        is_wait && self.step == AskedStep::Deciding && self.claim.owner.family == Family::Ranges
    }
}

impl OwnClaims {
    /// Ranges that the owners of one node hold at most. A home knows no more of one member.
    pub(crate) const PIECES_MAX: usize = 1 << 18;

    /// Claims of one node that are not answered.
    pub(crate) const ASKED_MAX: usize = 1 << 14;

    /// Is there room for whatever one more claim may lead to?
    pub(crate) fn has_room(&self) -> bool {
        self.asked.len() < OwnClaims::ASKED_MAX
            && self.pieces + 2 * self.asked.len() + 2 <= OwnClaims::PIECES_MAX
    }

    pub(crate) fn insert(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        claim: Claim,
        step: AskedStep,
        now: Instant,
    ) -> ClaimId {
        let id = ClaimId(self.next);
        self.next += 1;
        self.clock = self.clock.saturating_add(1);
        let stamp = self.clock;
        let (is_cancelled, is_abandoned) = (false, false);
        let asked =
            Asked { bucket, name, claim, step, is_cancelled, is_abandoned, stamp, since: now };
        if asked.detects() {
            self.waits.insert((claim.owner.id, id));
        }
        self.asked.insert(id, asked);
        id
    }

    pub(crate) fn check_room(&self) -> Result<(), TooManyClaims> {
        if self.has_room() { Ok(()) } else { Err(TooManyClaims) }
    }

    pub(crate) fn get(&self, id: ClaimId) -> Option<&Asked> {
        self.asked.get(&id)
    }

    /// Marks it as taken back; `None` when there is nothing to take back.
    pub(crate) fn cancel(&mut self, id: ClaimId) -> Option<Asked> {
        let asked = self.asked.get_mut(&id).filter(|asked| !asked.is_cancelled)?;
        asked.is_cancelled = true;
        Some(*asked).filter(|asked| asked.step == AskedStep::Deciding)
    }

    /// All that is asked for is abandoned; returns it.
    pub(crate) fn abandon_all(&mut self) -> Vec<ClaimId> {
        self.asked.values_mut().for_each(|asked| asked.is_abandoned = true);
        self.asked.keys().copied().collect()
    }

    /// It has been granted, and what it gives up is being given up.
    pub(crate) fn lowering(&mut self, id: ClaimId) {
        let Some(asked) = self.asked.get_mut(&id) else { return };
        asked.step = AskedStep::Lowering;
        self.waits.remove(&(asked.claim.owner.id, id));
    }

    pub(crate) fn remove(&mut self, id: ClaimId) -> Option<Asked> {
        let asked = self.asked.remove(&id)?;
        self.waits.remove(&(asked.claim.owner.id, id));
        Some(asked)
    }

    pub(crate) fn hear(&mut self, stamp: u64) {
        self.clock = self.clock.max(stamp);
    }

    /// What `owner` waits for, as far as it may be part of a cycle.
    pub(crate) fn waits_of(&self, me: Member, owner: u64) -> Vec<Wait> {
        let ids = self.waits.range((owner, ClaimId(0))..=(owner, ClaimId(u64::MAX)));
        let waits = ids.filter_map(|(_, id)| {
            let asked = self.asked.get(id).filter(|asked| !asked.is_cancelled)?;
            let Asked { bucket, name, stamp, .. } = *asked;
            Some(Wait { member: me, owner, id: *id, stamp, bucket, name })
        });
        waits.collect()
    }

    /// Ranges held, and claims asked for.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.pieces, self.asked.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.asked.is_empty()
    }

    // --- what is held ---

    pub(crate) fn held(
        &self,
        bucket: Bucket,
        name: &ResourceName,
        owner: Owner,
    ) -> Option<&Pieces> {
        self.held.get(&(bucket, *name))?.get(&owner)
    }

    pub(crate) fn raise(&mut self, bucket: Bucket, name: ResourceName, claim: &Claim) {
        let Claim { owner, via, pid, span, access, .. } = *claim;
        let piece = Piece { span, access, pid, via };
        self.change(bucket, name, owner, |pieces| pieces.raise(piece));
    }

    pub(crate) fn lower(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        owner: Owner,
        span: Span,
        to: Option<Access>,
    ) {
        self.change(bucket, name, owner, |pieces| pieces.lower(span, to));
    }

    fn change(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        owner: Owner,
        change: impl FnOnce(&mut Pieces),
    ) {
        let owners = self.held.entry((bucket, name)).or_default();
        let pieces = owners.entry(owner).or_default();
        let before = pieces.len();
        change(pieces);
        self.pieces = self.pieces + pieces.len() - before;
        if pieces.is_empty() {
            owners.remove(&owner);
        }
        if owners.is_empty() {
            self.held.remove(&(bucket, name));
        }
    }

    /// What was taken through the open file `via`.
    pub(crate) fn of_via(
        &self,
        bucket: Bucket,
        name: &ResourceName,
        via: u64,
    ) -> Vec<(Owner, Span)> {
        let owners = self.owners_of(bucket, name);
        let all = owners.flat_map(|(owner, pieces)| pieces.iter().map(move |piece| (owner, piece)));
        all.filter(|(_, piece)| piece.via == via)
            .map(|(owner, piece)| (owner, piece.span))
            .collect()
    }

    /// What each owner holds of a resource.
    pub(crate) fn owners_of(
        &self,
        bucket: Bucket,
        name: &ResourceName,
    ) -> impl Iterator<Item = (Owner, &Pieces)> {
        let owners = self.held.get(&(bucket, *name)).into_iter().flatten();
        owners.map(|(owner, pieces)| (*owner, pieces))
    }

    /// Everything that is held.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Bucket, ResourceName, Owner, &Pieces)> {
        self.held.iter().flat_map(|((bucket, name), owners)| {
            owners.iter().map(|(owner, pieces)| (*bucket, *name, *owner, pieces))
        })
    }

    // --- what homes are rebuilt from ---

    /// What is held in the bucket.
    pub(crate) fn reports_of(&self, bucket: Bucket) -> Vec<ReportedClaim> {
        let from = (bucket, ResourceName::LEAST);
        let held = self.held.range(from..).take_while(|((at, _), _)| *at == bucket);
        let pieces = held.flat_map(|((_, name), owners)| {
            owners
                .iter()
                .flat_map(|(owner, pieces)| pieces.iter().map(|piece| (*name, *owner, *piece)))
        });
        let report = |(name, owner, piece): (ResourceName, Owner, Piece)| {
            let Piece { span, access, pid, .. } = piece;
            ReportedClaim { bucket, name, owner, pid, span, access, asked: None }
        };
        pieces.map(report).collect()
    }

    /// What is asked for in the buckets that satisfy `moved`.
    pub(crate) fn asked_in(&self, moved: impl Fn(Bucket) -> bool) -> Vec<(ClaimId, Asked)> {
        let of = self.asked.iter().filter(|(_, asked)| moved(asked.bucket));
        of.map(|(id, asked)| (*id, *asked)).collect()
    }

    /// # Panics
    /// When an invariant does not hold, with the invariant in words.
    pub(crate) fn check_invariants(&self) {
        let pieces: usize = self.held.values().flat_map(BTreeMap::values).map(Pieces::len).sum();
        assert_eq!(pieces, self.pieces, "ranges are counted");
        for (at, owners) in &self.held {
            assert!(!owners.is_empty(), "nothing empty is listed: {at:?}");
            assert!(
                owners.values().all(|held| !held.is_empty()),
                "nothing empty is listed: {at:?}"
            );
        }
        let waits = self.asked.iter().filter(|(_, asked)| asked.detects());
        let waits: BTreeSet<(u64, ClaimId)> =
            waits.map(|(id, asked)| (asked.claim.owner.id, *id)).collect();
        assert_eq!(waits, self.waits, "what may be part of a cycle is found by its owner");
    }
}

impl Asked {
    pub(crate) fn report(&self, id: ClaimId) -> ReportedClaim {
        let Asked { bucket, name, claim, stamp, .. } = *self;
        let Claim { owner, pid, span, access, how, .. } = claim;
        let asked = Some(AskedClaim { id, how, stamp });
        ReportedClaim { bucket, name, owner, pid, span, access, asked }
    }
}
