//! Extents: runs of file blocks, kept in a B+tree whose root is in the inode.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADER_SIZE, Header};
use super::inode::AREA_SIZE;
use crate::block::BLOCK_SIZE;

/// A leaf entry: a run of blocks; or, above the leaves, a child and the first block below it.
#[derive(
    Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct ExtentEntry {
    /// First block of the file.
    pub logical: U64,
    /// First block on the device, or the child.
    pub physical: U64,
    /// Blocks in the run; 0 above the leaves.
    pub blocks: U32,
    pub flags: U32,
}

impl ExtentEntry {
    pub const SIZE: usize = 24;
    /// Allocated, never written: reads as zeros (I10).
    pub const UNWRITTEN: u32 = 1;
}
const _: () = assert!(size_of::<ExtentEntry>() == ExtentEntry::SIZE);

/// Entries in the root, inside the inode.
pub const ROOT_ENTRIES_MAX: usize = AREA_SIZE / ExtentEntry::SIZE;
/// Entries in a node.
pub const NODE_ENTRIES_MAX: usize = (BLOCK_SIZE - HEADER_SIZE - 8) / ExtentEntry::SIZE;
const NODE_TAIL: usize = BLOCK_SIZE - HEADER_SIZE - 8 - NODE_ENTRIES_MAX * ExtentEntry::SIZE;

/// A node below the root. Covered by INODE(owner).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct ExtentNodeBlock {
    pub header: Header,
    /// 0 for a leaf.
    pub level: U16,
    pub count: U16,
    pub reserved0: U32,
    pub entries: [ExtentEntry; NODE_ENTRIES_MAX],
    pub reserved1: [u8; NODE_TAIL],
}
