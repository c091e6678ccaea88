//! Directories: entries inline, or in buckets below an index over the bits of their hash.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADER_SIZE, Header};
use crate::block::BLOCK_SIZE;

/// The longest name, in bytes (POSIX `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// The fixed part of an entry; the name follows, and padding up to `record_len`.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct EntryHead {
    /// Position in the directory: 55 bits of hash, 8 bits that tell equal hashes apart. Unique in
    /// the directory, kept for the life of the entry, the cookie of readdir.
    pub cookie: U64,
    /// 0 in a free record.
    pub inode: U64,
    pub generation: U32,
    /// Bytes from here to the next record, a multiple of 8.
    pub record_len: U16,
    pub name_len: u8,
    /// `st_mode >> 12`, the file type.
    pub file_type: u8,
}

pub const ENTRY_HEAD_SIZE: usize = 24;
const _: () = assert!(size_of::<EntryHead>() == ENTRY_HEAD_SIZE);

/// Bits of the hash that one level of the index takes.
pub const INDEX_BITS: u32 = 8;
pub const INDEX_FANOUT: usize = 1 << INDEX_BITS;
/// Bytes of an index: 256 pointers. Also the part of the inode's area that the root takes.
pub const INDEX_SIZE: usize = INDEX_FANOUT * 8;

/// A pointer of the index with this bit leads to a further index, without it to a bucket.
pub const POINTER_TO_INDEX: u64 = 1 << 63;

/// An index below the root. Covered by INODE(owner).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct IndexBlock {
    pub header: Header,
    /// 1 for the children of the root.
    pub level: U32,
    pub reserved0: U32,
    /// Neighbours that lead to the same bucket share it: its depth says how many.
    pub pointers: [U64; INDEX_FANOUT],
    pub reserved1: [u8; BLOCK_SIZE - HEADER_SIZE - 8 - INDEX_SIZE],
}

/// Bytes for entries in a bucket.
pub const BUCKET_AREA_SIZE: usize = BLOCK_SIZE - HEADER_SIZE - 16;

/// Entries whose hashes begin with the same bits. Covered by INODE(owner).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct BucketBlock {
    pub header: Header,
    /// The first `depth` bits of every cookie in here, in the top bits of 63.
    pub prefix: U64,
    pub depth: U32,
    pub reserved0: U32,
    pub area: [u8; BUCKET_AREA_SIZE],
}
