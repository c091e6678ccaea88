//! Segments as they lie in the ring: a head, transactions behind it, one checksum over all of it.

use mx_base::FsId;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::SegmentNo;
use crate::block::{BLOCK_SIZE, Block, as_usize};
use crate::ondisk::header::{self, Writer};
use crate::ondisk::journal::{SEGMENT_CRC_AT, SEGMENT_HEAD_SIZE, SEGMENT_MAGIC, SegmentHead};

/// Whose a segment is, and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) fs_id: FsId,
    pub(crate) writer: Writer,
    /// Of the journal.
    pub(crate) life: u32,
    pub(crate) sequence: SegmentNo,
    /// In blocks, counted through all rounds of the ring.
    pub(crate) position: u64,
}

impl Segment {
    /// Blocks that a segment takes with so many bytes of transactions.
    pub(crate) fn blocks(payload_len: usize) -> u64 {
        (SEGMENT_HEAD_SIZE + payload_len).div_ceil(BLOCK_SIZE) as u64
    }

    /// The segment around its transactions.
    #[expect(clippy::cast_possible_truncation, reason = "a segment has a maximum size")]
    pub(crate) fn encode(&self, payload: &[u8], transactions: u32) -> Box<[Block]> {
        let blocks = Segment::blocks(payload.len());
        let mut segment = Block::zeroed_many(as_usize(blocks));
        let bytes = segment.as_mut_bytes();
        let head = SegmentHead {
            magic: U32::new(SEGMENT_MAGIC),
            crc: U32::ZERO,
            fs_id: self.fs_id.0,
            sequence: U64::new(self.sequence.0),
            position: U64::new(self.position),
            incarnation: U32::new(self.writer.incarnation.0),
            slot: U16::new(self.writer.slot.0),
            reserved0: U16::ZERO,
            blocks: U32::new(blocks as u32),
            payload_len: U32::new(payload.len() as u32),
            transactions: U32::new(transactions),
            life: U32::new(self.life),
        };
        bytes[..SEGMENT_HEAD_SIZE].copy_from_slice(head.as_bytes());
        bytes[SEGMENT_HEAD_SIZE..SEGMENT_HEAD_SIZE + payload.len()].copy_from_slice(payload);
        let crc = header::crc32c(bytes);
        bytes[SEGMENT_CRC_AT..SEGMENT_CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        segment
    }
}
