//! What a node passes through to its lock manager for the recovery of dead members.

use dlm::BucketName;
use dlm::rebuild::RecoveryError;
use mx_base::{Instant, Member};

use super::LockCache;

impl LockCache {
    /// See [`dlm::Lockspace::begin_recovery`].
    pub fn begin_recovery(
        &mut self,
        dead: Member,
        names: impl IntoIterator<Item = BucketName>,
        now: Instant,
    ) -> Result<(), RecoveryError> {
        let outcome = self.lockspace.begin_recovery(dead, names, now);
        self.pump(now);
        outcome
    }

    /// See [`dlm::Lockspace::replayed`].
    pub fn replayed(
        &mut self,
        dead: Member,
        names: &[BucketName],
        now: Instant,
    ) -> Result<(), RecoveryError> {
        let outcome = self.lockspace.replayed(dead, names, now);
        self.pump(now);
        outcome
    }

    /// See [`dlm::Lockspace::finish_recovery`].
    pub fn finish_recovery(&mut self, dead: Member, now: Instant) -> Result<(), RecoveryError> {
        let outcome = self.lockspace.finish_recovery(dead, now);
        self.pump(now);
        outcome
    }

    /// See [`dlm::Lockspace::abandon_recovery`].
    pub fn abandon_recovery(&mut self, dead: Member) {
        self.lockspace.abandon_recovery(dead);
    }

    /// See [`dlm::Lockspace::mark_recovered`].
    pub fn mark_recovered(&mut self, dead: Member, now: Instant) {
        self.lockspace.mark_recovered(dead, now);
        self.pump(now);
    }

    /// See [`dlm::Lockspace::caches_gone`].
    pub fn caches_gone(&mut self, dead: Member, now: Instant) {
        self.lockspace.caches_gone(dead, now);
        self.pump(now);
    }
}
