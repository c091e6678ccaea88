//! The structures on disk, byte by byte (`docs/spec/ondisk.md`).
//!
//! Little-endian, no implicit padding, sizes asserted at compile time, golden bytes in the tests.
//! Everything here is layout and the checks that a single block allows; what blocks mean together
//! is known elsewhere.

pub mod alloc_group;
pub mod directory;
pub mod extent;
pub mod header;
pub mod inode;
pub mod journal;
pub mod slot;
pub mod superblock;
pub mod xattr;

pub use header::{Header, Kind};

use crate::block::BLOCK_SIZE;

/// A structure that fills a block.
macro_rules! fills_a_block {
    ($name:ty) => {
        const _: () = assert!(size_of::<$name>() == BLOCK_SIZE);
    };
}
fills_a_block!(superblock::SuperblockBlock);
fills_a_block!(alloc_group::GroupHeaderBlock);
fills_a_block!(alloc_group::BitmapBlock);
fills_a_block!(alloc_group::ChunkTableBlock);
fills_a_block!(alloc_group::GroupMapBlock);
fills_a_block!(slot::SlotHeadBlock);
fills_a_block!(slot::SlotBodyBlock);
fills_a_block!(slot::OrphanBlock);
fills_a_block!(inode::InodeBlock);
fills_a_block!(extent::ExtentNodeBlock);
fills_a_block!(directory::IndexBlock);
fills_a_block!(directory::BucketBlock);
fills_a_block!(journal::JournalHeaderBlock);
fills_a_block!(xattr::XattrBlock);

#[cfg(test)]
mod tests;
