//! The tree of indexes of a directory, as a check walks it.

use crate::dir::bucket::{LEVELS_MAX, bits_of_level};
use crate::dir::hash;
use crate::ondisk::directory::{INDEX_BITS, IndexBlock};
use crate::ondisk::inode::InodeBlock;

/// An index to look into.
pub(super) struct IndexAt {
    pub(super) pointers: Vec<u64>,
    /// 0 in the inode.
    pub(super) level: u32,
    /// The bits of the hash that lead to it, where they are in the hash.
    pub(super) prefix: u64,
}

impl IndexAt {
    pub(super) fn root(on_disk: &InodeBlock) -> IndexAt {
        IndexAt { pointers: on_disk.root_pointers(), level: 0, prefix: 0 }
    }

    /// The index that the pointer at `place` leads to; `None` where it is of a wrong level.
    pub(super) fn below(&self, place: usize, node: &IndexBlock) -> Option<IndexAt> {
        let level = self.level + 1;
        let fits = node.level.get() == level && level <= LEVELS_MAX;
        let pointers = || node.pointers.iter().map(|pointer| pointer.get()).collect();
        fits.then(|| IndexAt { pointers: pointers(), level, prefix: self.prefix_at(place) })
    }

    /// Bits of the hash that have led here.
    pub(super) fn bits_above(&self) -> u32 {
        self.level * INDEX_BITS
    }

    /// Bits of the hash that the pointers go by.
    pub(super) fn bits(&self) -> u32 {
        bits_of_level(self.level)
    }

    /// The bits of the hash that lead through the pointer at `place`.
    pub(super) fn prefix_at(&self, place: usize) -> u64 {
        self.prefix | (place as u64) << (hash::HASH_BITS - self.bits_above() - self.bits())
    }
}
