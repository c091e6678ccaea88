//! The journal's own structures: its header, segments, transactions, records.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::Header;

/// `MXJS`, in the order of the bytes on disk.
pub const SEGMENT_MAGIC: u32 = u32::from_le_bytes(*b"MXJS");

/// Blocks at the start of a journal that hold its two headers.
pub const HEADER_BLOCKS: u64 = 2;

/// Where a replay starts. Two copies, written alternately; the valid one with the higher version
/// counts.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct JournalHeaderBlock {
    pub header: Header,
    /// Sequence number of the first segment that may matter.
    pub tail_sequence: U64,
    /// Where it begins: block of the ring, counted without the headers.
    pub tail_position: U64,
    /// Incarnation whose segments count.
    pub incarnation: U32,
    pub slot: U16,
    pub reserved0: U16,
    /// The mount whose segments count: one node may mount more than once in one incarnation.
    pub life: U32,
    pub reserved1: [u8; 4004],
}

/// The first bytes of a segment; transactions follow, then zeros up to a block's end.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct SegmentHead {
    pub magic: U32,
    /// CRC-32C of all blocks of the segment with this field 0.
    pub crc: U32,
    pub fs_id: [u8; 16],
    pub sequence: U64,
    /// Block of the ring at which it begins.
    pub position: U64,
    pub incarnation: U32,
    pub slot: U16,
    pub reserved0: U16,
    /// Blocks of the segment.
    pub blocks: U32,
    /// Bytes of transactions behind this head.
    pub payload_len: U32,
    pub transactions: U32,
    /// As in the journal's header.
    pub life: U32,
}

pub const SEGMENT_HEAD_SIZE: usize = 64;
const _: () = assert!(size_of::<SegmentHead>() == SEGMENT_HEAD_SIZE);

/// Offset of [`SegmentHead::crc`].
pub const SEGMENT_CRC_AT: usize = 4;

/// The first bytes of a transaction; records follow.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct TransactionHead {
    pub lsn: U64,
    pub records: U32,
    /// Bytes of records behind this head.
    pub len: U32,
}

pub const TRANSACTION_HEAD_SIZE: usize = 16;
const _: () = assert!(size_of::<TransactionHead>() == TRANSACTION_HEAD_SIZE);

/// What the runs of a record change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A whole image: the runs are laid over zeros.
    Image = 0,
    /// The runs are laid over the block in its old version.
    Delta = 1,
}

/// The first bytes of a record; the runs follow: offset u16, length u16, bytes.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct RecordHead {
    pub block: U64,
    pub old_version: U64,
    pub new_version: U64,
    /// Name of the covering lock, padded with zeros.
    pub lock: [u8; 24],
    pub lock_len: u8,
    pub kind: u8,
    pub runs: U16,
    /// Bytes of runs behind this head.
    pub len: U32,
}

pub const RECORD_HEAD_SIZE: usize = 56;
const _: () = assert!(size_of::<RecordHead>() == RECORD_HEAD_SIZE);
