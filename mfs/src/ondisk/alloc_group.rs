//! Allocation groups: header, bitmap, table of typed chunks, and the map of groups in use.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADER_SIZE, Header};
use crate::block::BLOCK_SIZE;

/// Counters of a group, equal to what its bitmap and chunk table add up to.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct GroupHeaderBlock {
    pub header: Header,
    pub group: U64,
    pub blocks: U32,
    /// Blocks whose bit is clear.
    pub free_blocks: U32,
    /// Chunks of kind free.
    pub free_chunks: U32,
    /// Not 0: a recovery could not bring the group up to date, and nothing is allocated or freed in
    /// it any more.
    pub isolated: U32,
    pub reserved1: [u8; 4008],
}

/// Bits in one bitmap block.
pub const BITS_PER_BLOCK: u64 = ((BLOCK_SIZE - HEADER_SIZE) * 8) as u64;

/// One bit a block of the group, set while in use.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct BitmapBlock {
    pub header: Header,
    pub bits: [u8; BLOCK_SIZE - HEADER_SIZE],
}

/// What the blocks of a chunk may be used for. A block that was metadata never becomes data while
/// a journal may hold a record for it (I4): the type of its chunk says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ChunkKind {
    Free = 0,
    Data = 1,
    Inode = 2,
    /// Extent nodes, directory blocks, lists of orphans.
    Tree = 3,
    Journal = 4,
    /// Header, bitmap and table of the group itself.
    Fixed = 5,
}

impl ChunkKind {
    pub const fn from_u8(byte: u8) -> Option<ChunkKind> {
        Some(match byte {
            0 => ChunkKind::Free,
            1 => ChunkKind::Data,
            2 => ChunkKind::Inode,
            3 => ChunkKind::Tree,
            4 => ChunkKind::Journal,
            5 => ChunkKind::Fixed,
            _ => return None,
        })
    }

    /// Blocks of such a chunk carry headers and are journaled one by one.
    pub const fn is_metadata(self) -> bool {
        matches!(self, ChunkKind::Inode | ChunkKind::Tree)
    }
}

/// One chunk of a group.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct ChunkEntry {
    pub kind: u8,
    pub reserved0: u8,
    /// Blocks whose bit is clear.
    pub free: U16,
    /// Grows with every claim as metadata; versions and inode generations start from it.
    pub epoch: U32,
    /// The slot that alone may allocate here; [`ChunkEntry::UNCLAIMED`] if any may.
    pub claim_slot: U16,
    /// The claiming member: a claim of one that is gone is void.
    pub claim_node: U16,
    pub claim_incarnation: U32,
}

impl ChunkEntry {
    pub const UNCLAIMED: u16 = u16::MAX;
    pub const SIZE: usize = 16;

    pub fn chunk_kind(&self) -> Option<ChunkKind> {
        ChunkKind::from_u8(self.kind)
    }
}
const _: () = assert!(size_of::<ChunkEntry>() == ChunkEntry::SIZE);

/// Chunk entries in one block of the table.
pub const CHUNKS_PER_BLOCK: usize = (BLOCK_SIZE - HEADER_SIZE) / ChunkEntry::SIZE;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct ChunkTableBlock {
    pub header: Header,
    pub entries: [ChunkEntry; CHUNKS_PER_BLOCK],
}

/// Groups that one map block speaks for. The first of them, the leader, carries the map.
pub const GROUPS_PER_MAP: u64 = BITS_PER_BLOCK;

/// Which groups have been initialised: one bit a group, from the leader on. A group whose bit is
/// clear has never been used, and nothing of it is on disk; so mkfs is quick on any size.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct GroupMapBlock {
    pub header: Header,
    pub bits: [u8; BLOCK_SIZE - HEADER_SIZE],
}
