//! Blocks 0 and 1: what the partition is and which cluster it belongs to.

use mx_base::{ClusterId, Duration, NodeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, DecodeError, Place, Record, open, seal};
use crate::layout::{self, CopyNo, MpIndex};

/// The identity of one membership partition, and of the set it is part of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superblock {
    pub cluster: ClusterId,
    /// Drawn at random by mkfs, for this partition alone.
    pub partition_id: [u8; 16],
    pub index: MpIndex,
    /// Partitions of the cluster: 1 or 3.
    pub count: u8,
    /// Grows with every change of the set of partitions; partitions of different epochs do not
    /// belong together.
    pub set_epoch: u64,
    /// Node ids 1 to `nodes_max` may join.
    pub nodes_max: u16,
    /// The unit U of all time-outs, in whole milliseconds, 10 to 60,000.
    pub unit: Duration,
    /// The copy with the higher sequence is the newer one.
    pub sequence: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SuperblockRecord {
    header: [u8; 32],
    sequence: U64,
    partition_id: [u8; 16],
    set_epoch: U64,
    count: u8,
    reserved: u8,
    nodes_max: U16,
    unit_ms: U32,
    unused: [u8; 436],
    checksum: U32,
}

impl Record for SuperblockRecord {
    const MAGIC: [u8; 8] = *b"MXMPSUPR";
}

impl Superblock {
    /// Both copies, for [`layout::superblock`] blocks.
    ///
    /// # Panics
    /// For values out of the ranges given at the fields.
    pub fn encode(&self, copy: CopyNo) -> Box<Block> {
        assert_eq!(self.violation(), None, "a superblock that could not be read back");
        let record = SuperblockRecord {
            header: [0; 32],
            sequence: self.sequence.into(),
            partition_id: self.partition_id,
            set_epoch: self.set_epoch.into(),
            count: self.count,
            reserved: 0,
            nodes_max: self.nodes_max.into(),
            unit_ms: u32::try_from(self.unit.as_millis()).expect("in range").into(),
            unused: [0; 436],
            checksum: U32::ZERO,
        };
        let block = layout::superblock(copy);
        seal(record, Place { cluster: self.cluster, partition: self.index, block })
    }

    /// # Errors
    /// When the block is no superblock of this format in its place.
    pub fn decode(block: &Block, copy: CopyNo) -> Result<Superblock, DecodeError> {
        let (record, header) =
            open::<SuperblockRecord>(block, None, None, layout::superblock(copy))?;
        let superblock = Superblock {
            cluster: ClusterId(header.cluster),
            partition_id: record.partition_id,
            index: MpIndex(header.partition),
            count: record.count,
            set_epoch: record.set_epoch.get(),
            nodes_max: record.nodes_max.get(),
            unit: Duration::from_millis(record.unit_ms.get().into()),
            sequence: record.sequence.get(),
        };
        match superblock.violation() {
            Some(what) => Err(DecodeError::Contents(what)),
            None => Ok(superblock),
        }
    }

    /// The newer of the two copies that can be read; both errors when neither can.
    ///
    /// # Errors
    /// When neither block is a superblock of this format.
    pub fn newest(first: &Block, second: &Block) -> Result<Superblock, [DecodeError; 2]> {
        let first = Superblock::decode(first, CopyNo::First);
        let second = Superblock::decode(second, CopyNo::Second);
        match (first, second) {
            (Ok(first), Ok(second)) if first.sequence >= second.sequence => Ok(first),
            (_, Ok(second)) => Ok(second),
            (Ok(first), Err(_)) => Ok(first),
            (Err(first), Err(second)) => Err([first, second]),
        }
    }

    fn violation(&self) -> Option<&'static str> {
        if !matches!(self.count, 1 | 3) {
            return Some("neither 1 nor 3 membership partitions");
        }
        if self.index.0 >= self.count {
            return Some("an index beyond the number of partitions");
        }
        if self.nodes_max == 0 || self.nodes_max > NodeId::MAX {
            return Some("number of nodes out of range");
        }
        let whole_ms = self.unit.subsec_nanos().is_multiple_of(1_000_000);
        if !whole_ms || !(10..=60_000).contains(&self.unit.as_millis()) {
            return Some("time unit out of range");
        }
        None
    }
}
