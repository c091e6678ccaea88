//! The journal: one ring per slot, group commit, and the writes in place that follow.
//!
//! Keeps true (I2): a block's record is durable before the block is written in place, and both
//! before its lock drops below EX. A transaction is in one segment or in none that counts; what a
//! node has acknowledged as durable is a prefix of its transactions.
//!
//! * [`record`]: transactions as bytes, and back.
//! * [`ring`]: where segments lie, and how much room there is.
//! * [`transaction`]: an atomic change being put together.
//! * [`commit`]: transactions into the open segment, segments to disk.
//! * [`in_place`]: blocks to their places, and the tail.
//! * [`scan`], [`replay`]: after a death.

pub(crate) mod commit;
pub(crate) mod in_place;
pub mod record;
pub(crate) mod redo_queue;
pub(crate) mod replay;
pub(crate) mod ring;
pub mod scan;
pub(crate) mod segment;
pub(crate) mod transaction;

pub(crate) use commit::{Journal, Reservation};
pub(crate) use transaction::Transaction;

/// Number of a transaction in the life of a mount, from 1; what is durable is always a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before the first transaction.
    pub const NONE: Lsn = Lsn(0);

    pub(crate) fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// Sequence number of a segment in the life of a slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SegmentNo(pub u64);

impl SegmentNo {
    pub(crate) fn plus(self, n: u64) -> SegmentNo {
        SegmentNo(self.0 + n)
    }
}
