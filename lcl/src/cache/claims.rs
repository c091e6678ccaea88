//! What a node passes through to its lock manager for applications' advisory locks.

use dlm::advisory::{Claim, ClaimId, Owner, Span, TooManyClaims};
use dlm::{Bucket, ResourceName};
use mx_base::Instant;

use super::LockCache;

impl LockCache {
    /// See [`dlm::Lockspace::claim`]; `None` when this node is cut off.
    pub fn claim(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        claim: Claim,
        now: Instant,
    ) -> Option<Result<ClaimId, TooManyClaims>> {
        self.unless_cut_off(now, |lockspace| lockspace.claim(name, bucket, claim, now))
    }

    /// See [`dlm::Lockspace::unclaim`]; `None` when this node is cut off.
    pub fn unclaim(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        owner: Owner,
        span: Span,
        now: Instant,
    ) -> Option<Result<Option<ClaimId>, TooManyClaims>> {
        self.unless_cut_off(now, |lockspace| lockspace.unclaim(name, bucket, owner, span, now))
    }

    /// See [`dlm::Lockspace::release_via`].
    pub fn release_via(&mut self, name: ResourceName, bucket: Bucket, via: u64, now: Instant) {
        self.unless_cut_off(now, |lockspace| lockspace.release_via(name, bucket, via, now));
    }

    /// See [`dlm::Lockspace::release_all_claims`].
    pub fn release_all_claims(&mut self, now: Instant) {
        self.unless_cut_off(now, |lockspace| lockspace.release_all_claims(now));
    }

    /// See [`dlm::Lockspace::take_claim_back`].
    pub fn take_claim_back(&mut self, claim: ClaimId, now: Instant) {
        self.unless_cut_off(now, |lockspace| lockspace.take_claim_back(claim));
    }

    fn unless_cut_off<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut dlm::Lockspace) -> T,
    ) -> Option<T> {
        if self.is_cut_off {
            return None;
        }
        let outcome = act(&mut self.lockspace);
        self.pump(now);
        Some(outcome)
    }
}
