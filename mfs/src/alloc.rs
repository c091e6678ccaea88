//! Allocation: groups, typed chunks, claims, reservations.
//!
//! Keeps true:
//!   * a bit of a bitmap, the free counts of its chunk and of its group change together, in the
//!     transaction that makes the block used or free;
//!   * a freed block is used again only when the freeing transaction is durable; I/O of this node to
//!     it has ended by then, because it happens under pins that the freeing operation waited for;
//!   * data and the nodes that map it come from chunks that this mount has claimed, so that space
//!     promised to a write stays promised when the group's lock goes to another node ([`claim`]);
//!   * nobody is told that there is no room before the others have given back what they have claimed
//!     and promised to nobody ([`give_back`]);
//!   * a block becomes metadata only in a chunk whose blocks all have headers on disk (I4).

pub(crate) mod bits;
pub(crate) mod chunk;
pub(crate) mod claim;
pub(crate) mod give_back;
pub(crate) mod group;
pub(crate) mod pick;
pub(crate) mod take;

use std::sync::Arc;

use mx_base::rules::{Rule, is_kept};

pub(crate) use claim::Space;
pub(crate) use group::{Group, PinnedGroup};
pub(crate) use pick::{Groups, Needs};

use crate::block::BlockNo;
use crate::journal::Lsn;

/// Blocks that a transaction frees.
#[derive(Debug)]
pub(crate) struct Freed {
    pub(crate) group: Arc<Group>,
    pub(crate) first: BlockNo,
    pub(crate) count: u64,
}

impl Freed {
    /// The transaction is committed as `lsn`: the blocks rest until that is durable.
    pub(crate) fn pend(self, lsn: Lsn) {
        if is_kept(Rule::RestFreedBlocks) {
            self.group.rest(self.first, self.count, lsn);
        }
    }
}
