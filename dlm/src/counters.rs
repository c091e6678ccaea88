//! What a lock manager counts, for `mxctl` and for tests that assert counts instead of times.

use std::hash::{Hash, Hasher};

use crate::message::Kind;

/// Since the lock manager was made; each grows only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By [`Kind::index`].
    sent: [u64; Kind::ALL.len()],
    /// Grants to this node's own locks by this node as home: no message.
    pub grants_local: u64,
    /// Grants to this node's own locks by other homes.
    pub grants_remote: u64,
    /// Denials of this node's own requests, cancelled ones included.
    pub denials: u64,
    /// Callouts for this node's own locks that were not stale.
    pub callouts: u64,
    /// Views followed.
    pub views: u64,
    /// Locks and queued requests taken in as the heir of a bucket.
    pub locks_rebuilt: u64,
    /// Buckets taken over from another home, or from none.
    pub buckets_rebuilt: u64,
    /// Resources freed from limbo because the dead member's journal has nothing live for them, or
    /// because all of it was recovered.
    pub limbo_freed: u64,
    /// Resources freed from limbo because their records were redone.
    pub limbo_redone: u64,
    /// Messages dropped because the sender is no member any more.
    pub dropped_no_member: u64,
    /// Messages dropped because the bucket or the exchange has moved on.
    pub dropped_old: u64,
    /// Messages kept for a view this node had not heard of.
    pub kept_early: u64,
}

/// Nothing, because nothing that happens depends on a count: lock managers that differ by these alone
/// are the same for whoever visits every state.
impl Hash for Counters {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Counters {
    /// Messages of a kind sent to other nodes.
    pub fn sent(&self, kind: Kind) -> u64 {
        self.sent[kind.index()]
    }

    /// Messages sent to other nodes.
    pub fn sent_total(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Messages sent to other nodes to rebuild buckets and to recover the dead: none of them is about a
    /// request.
    pub fn sent_for_recovery(&self) -> u64 {
        const KINDS: [Kind; 8] = [
            Kind::Report,
            Kind::ReportEnd,
            Kind::LiveNames,
            Kind::InLimbo,
            Kind::Released,
            Kind::Recovered,
            Kind::RecoveredSeen,
            Kind::ClaimReport,
        ];
        KINDS.into_iter().map(|kind| self.sent(kind)).sum()
    }

    pub(crate) fn count_sent(&mut self, kind: Kind) {
        self.sent[kind.index()] += 1;
    }
}
