//! Extended attributes: a stream of entries at the end of an inode's area, or in blocks of their own.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{HEADER_SIZE, Header};
use crate::block::BLOCK_SIZE;

/// The fixed part of an entry; name and value follow, and the next entry behind them.
#[derive(
    Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct XattrHead {
    /// What the name begins with; 0 where the entries end.
    pub namespace: u8,
    /// Bytes of the name behind its prefix.
    pub name_len: u8,
    pub reserved0: U16,
    /// Bytes of the value.
    pub value_len: U32,
}

pub const XATTR_HEAD_SIZE: usize = 8;
const _: () = assert!(size_of::<XattrHead>() == XATTR_HEAD_SIZE);

/// The most that entries may take of an inode's area: what is left holds the root of a large
/// directory's index, and 117 extents.
pub const XATTR_INLINE_MAX: usize = 1024;
/// Blocks that the entries of one inode may take.
pub const XATTR_BLOCKS_MAX: usize = 32;
/// Bytes of the stream in each of them.
pub const XATTR_PAYLOAD: usize = BLOCK_SIZE - HEADER_SIZE - 8;

/// A piece of the stream. Covered by INODE(owner).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct XattrBlock {
    pub header: Header,
    /// The next piece; 0 in the last block.
    pub next: U64,
    pub payload: [u8; XATTR_PAYLOAD],
}
