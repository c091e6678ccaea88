//! What a lock cache counts, for `mxctl` and for tests that assert counts instead of times.

/// Since the lock cache was made; each grows only. Pins of cached locks are not counted: they pass
/// nothing that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Waits for a mode that was not cached.
    pub misses: u64,
    /// New locks asked for.
    pub requests: u64,
    /// Stronger modes asked for on locks held.
    pub conversions: u64,
    pub grants: u64,
    /// Grants that came while the lock was being surrendered, and counted after it.
    pub grants_while_surrendering: u64,
    /// Requests without queueing that would have had to wait.
    pub refusals: u64,
    /// Requests that a home denied because too many of this node waited there.
    pub deferrals: u64,
    /// Requests taken back because nobody waited any more.
    pub cancels: u64,
    /// What other nodes asked this one to give up.
    pub callouts: u64,
    /// How often a lock was kept for a moment, because operations of this node use it all the time.
    pub holds: u64,
    /// Surrenders that have ended, for whatever reason.
    pub surrenders: u64,
    /// Those of them that were begun to make room.
    pub shrunk: u64,
    /// Those of them that could not make everything durable.
    pub damaged: u64,
}
