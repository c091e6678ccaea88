//! The one unit of time from which every timer of this crate is derived.
//!
//! `docs/spec/recovery.md` holds the same table; the defaults of `U` are 100 ms, at least 50 ms.

use mx_base::Duration;

/// The base unit U.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unit(Duration);

impl Unit {
    /// Below this, ordinary scheduling delays look like deaths.
    pub const SHORTEST: Duration = Duration::from_millis(50);
    pub const DEFAULT: Unit = Unit(Duration::from_millis(100));

    /// `None` below [`Unit::SHORTEST`].
    pub fn new(unit: Duration) -> Option<Unit> {
        (unit >= Unit::SHORTEST).then_some(Unit(unit))
    }

    pub fn get(self) -> Duration {
        self.0
    }

    pub(crate) fn times(self, multiple: u32) -> Duration {
        self.0 * multiple
    }

    pub(crate) fn half(self) -> Duration {
        self.0 / 2
    }
}

/// One ping to every peer in each.
pub(crate) const HEARTBEAT: u32 = 1;
/// Silence after which a peer is suspected; also how long one acknowledged ping permits (R13).
pub(crate) const SUSPECT: u32 = 5;
/// How long a peer whose connection broke has for a new one before it is suspected.
pub(crate) const RECONNECT: u32 = 1;
/// A node that was not run for this long gives its peers as long before it judges them, SUSPECT at most.
pub(crate) const STALLED: u32 = 2;
/// How long the members have to answer a proposal.
pub(crate) const ROUND: u32 = 3;
/// How long a committer has for a change of the register before another one is asked.
pub(crate) const COMMIT: u32 = 5;
/// How long a report that two others do not reach each other must last before it counts.
pub(crate) const EDGE_SETTLED: u32 = 2;
/// A listed disk heartbeat that did not move for this long says nothing for its node (R12).
pub(crate) const DISK_SILENT: u32 = 5;
/// Delay of each side that is not the preferred one, times its rank (R12).
pub(crate) const NOT_PREFERRED: u32 = 5;
/// No member answers and no disk heartbeat moves for this long: a cold start is allowed.
pub(crate) const COLD_WATCH: u32 = 8;
/// How long a heartbeat that was written keeps a cold start from ending what its writer has cached:
/// the watch, and the time after which those who are lost have no permit (R13), less two for
/// clocks that run at different rates.
pub(crate) const PULSE: u32 = COLD_WATCH + CACHES_LOST - 2;
/// Units after the last renewal of its permit in which a lost member has dropped its caches.
pub(crate) const CACHES_LOST: u32 = 7;
/// A joiner asks again.
pub(crate) const ASK_AGAIN: u32 = 2;
/// A connection without a finished handshake is closed.
pub(crate) const HANDSHAKE: u32 = 10;
/// An attempt to connect without an answer counts as failed.
pub(crate) const DIAL_ANSWER: u32 = 5;
/// Pause between attempts to reach a peer.
pub(crate) const DIAL_AGAIN: u32 = 1;
/// How often the membership looks at what it waits for, in half units.
pub(crate) const RECONSIDER_HALVES: u32 = 1;
/// A request to join that was not repeated for this long is forgotten, and one that could not be
/// met for this long is answered with the reason.
pub(crate) const JOIN_PATIENCE: u32 = 10;
/// How long a coordinator pauses after a change of the register failed.
pub(crate) const AFTER_FAILURE: u32 = 2;
/// How long a candidate that failed is asked only after all others (Fig. 11).
pub(crate) const FAILED_LATELY: u32 = 20;
