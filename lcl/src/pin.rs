//! The hot path: pinning a cluster lock that this node holds.
//!
//! An [`Entry`] is one cluster lock as this node caches it, in one atomic word: the mode held, the
//! pins that rely on it, and whether it is being surrendered. A pin is at once the proof that the
//! cluster lock is held in the mode asked for and the latch that keeps operations of this node
//! apart (shared or exclusive), so that a cached operation takes one lock and not two.
//!
//! Keeps true between calls:
//!   * while a pin exists the held mode covers the mode it was pinned for;
//!   * an exclusive pin is the only pin;
//!   * while *closing*, no pin is given to an operation; pages the kernel asks for are still
//!     served under the held mode (`docs/spec/locks.md`, surrender);
//!   * when *closed*, no pin is given, and none exists but those that rely on no more than what
//!     will be left ([`LockClass::leaves_pins`](crate::LockClass::leaves_pins)).
//!
//! Does no I/O and sends nothing: a mode that is not held is asked for through [`Requester`].

mod ahead;
mod entry;
mod future;
mod table;
mod word;

pub use ahead::Ahead;
pub use entry::Entry;
pub use future::{Pin, PinFuture};
pub use table::Table;

use dlm::Mode;

/// What a pin is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// An operation of a user or of this node: not admitted once a surrender has begun.
    Operation,
    /// A page that the kernel reads or launders: admitted until the surrender has dropped every
    /// page, because the kernel's invalidation waits for it (`kernel-cache.md`, section 3). Always
    /// shared.
    KernelPage,
    /// The flush that is part of a surrender: see [`Entry::surrender_pin`].
    Surrender,
}

/// What is asked of a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    pub mode: Mode,
    /// The only pin on this node while it lasts.
    pub exclusive: bool,
    pub purpose: Purpose,
    /// Fail with [`PinError::Busy`] instead of waiting for other nodes, or for pins of this one.
    pub no_queue: bool,
}

impl Want {
    /// Read beside other readers of this node and, under PR, of others.
    pub const fn read() -> Want {
        Want::shared(Mode::PR)
    }

    /// Change as the only one in the cluster and on this node.
    pub const fn write() -> Want {
        Want { exclusive: true, ..Want::shared(Mode::EX) }
    }

    /// Beside other pins of this node, with the cluster lock in `mode`.
    pub const fn shared(mode: Mode) -> Want {
        Want { mode, exclusive: false, purpose: Purpose::Operation, no_queue: false }
    }

    /// For a page that the kernel asks for or gives back.
    pub const fn kernel_page(mode: Mode) -> Want {
        Want { purpose: Purpose::KernelPage, ..Want::shared(mode) }
    }

    #[must_use]
    pub const fn no_queue(self) -> Want {
        Want { no_queue: true, ..self }
    }
}

/// Why a pin was not given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PinError {
    /// Asked for without queueing, and somebody holds the lock in a conflicting mode, or waits for
    /// it already.
    #[error("the lock is held by somebody else")]
    Busy,
    /// This node has left the cluster or was cut off from it; no lock of it is valid any more.
    #[error("this node holds no locks any more")]
    CutOff,
}

/// Who obtains a mode that is not held: the lock cache's machine, through whatever runs it.
pub trait Requester: Send + Sync {
    /// An operation waits on `entry` for a mode that the held one does not cover. Called without
    /// any lock of the entry held; may be called again for a wait that is known already.
    fn missed(&self, entry: &std::sync::Arc<Entry>, want: Want);

    /// As `missed`, for many entries in one step, so that what has to be said to one home shares a
    /// message.
    fn missed_together(&self, missed: &[(std::sync::Arc<Entry>, Want)]) {
        missed.iter().for_each(|(entry, want)| self.missed(entry, *want));
    }

    /// Somebody who waited for a mode that is not held does not wait any more. Called as `missed`
    /// is; whoever does not care does nothing.
    fn abandoned(&self, entry: &std::sync::Arc<Entry>) {
        let _ = entry;
    }

    /// A wait begins, for other nodes or for pins of this one; for whoever watches. Called when it
    /// is polled, so on behalf of whom it waits. Tickets differ among the waits of an entry.
    fn waits(&self, entry: &std::sync::Arc<Entry>, ticket: u64, want: Want) {
        let _ = (entry, ticket, want);
    }

    /// That wait is over, however it ended.
    fn waited(&self, entry: &std::sync::Arc<Entry>, ticket: u64) {
        let _ = (entry, ticket);
    }
}
