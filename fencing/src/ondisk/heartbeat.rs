//! Blocks 130 to 193: a sign of life of each node, written by that node alone.

use mx_base::{Incarnation, NodeId, SanGeneration, ViewId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Block, DecodeError, Place, Record, open, seal};
use crate::layout;
use crate::node_set::NodeSet;

/// What a node says of itself on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatRecord {
    pub node: NodeId,
    /// 0 while the node is still asking to join.
    pub incarnation: Incarnation,
    /// Drawn at random by every start of the daemon: two starts of one node are told apart.
    pub nonce: u64,
    /// Grows by one with every write of this start.
    pub sequence: u64,
    /// Newest generation that the node knows to be committed.
    pub generation_seen: SanGeneration,
    pub view: ViewId,
    /// Nodes it has heard over the network within the suspicion time.
    pub reach: NodeSet,
    /// Shared devices that it can use, by their number in the configuration.
    pub devices_usable: u64,
    pub flags: HeartbeatFlags,
}

/// What the node is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HeartbeatFlags {
    /// It leaves the cluster in good order.
    pub leaving: bool,
    /// It has stopped writing to shared storage.
    pub quiesced: bool,
    /// It asks to be fenced, because it cannot stop by itself.
    pub wants_fence: bool,
}

const LEAVING: u32 = 1;
const QUIESCED: u32 = 2;
const WANTS_FENCE: u32 = 4;

impl HeartbeatFlags {
    fn to_bits(self) -> u32 {
        let bit = |set, bit| if set { bit } else { 0 };
        bit(self.leaving, LEAVING)
            | bit(self.quiesced, QUIESCED)
            | bit(self.wants_fence, WANTS_FENCE)
    }

    /// Bits of later versions are not an error: they say nothing that matters for safety.
    fn from_bits(bits: u32) -> HeartbeatFlags {
        HeartbeatFlags {
            leaving: bits & LEAVING != 0,
            quiesced: bits & QUIESCED != 0,
            wants_fence: bits & WANTS_FENCE != 0,
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HeartbeatRaw {
    header: [u8; 32],
    sequence: U64,
    node: U16,
    reserved: [u8; 2],
    incarnation: U32,
    nonce: U64,
    generation_seen: U64,
    view: U64,
    reach: U64,
    devices_usable: U64,
    flags: U32,
    unused: [u8; 416],
    checksum: U32,
}

impl Record for HeartbeatRaw {
    const MAGIC: [u8; 8] = *b"MXMPBEAT";
}

impl HeartbeatRecord {
    /// What mkfs writes for a node.
    pub fn unused(node: NodeId) -> HeartbeatRecord {
        HeartbeatRecord {
            node,
            incarnation: Incarnation(0),
            nonce: 0,
            sequence: 0,
            generation_seen: SanGeneration(0),
            view: ViewId(0),
            reach: NodeSet::EMPTY,
            devices_usable: 0,
            flags: HeartbeatFlags::default(),
        }
    }

    pub fn encode(&self, place: Place) -> Box<Block> {
        let record = HeartbeatRaw {
            header: [0; 32],
            sequence: self.sequence.into(),
            node: self.node.get().into(),
            reserved: [0; 2],
            incarnation: self.incarnation.0.into(),
            nonce: self.nonce.into(),
            generation_seen: self.generation_seen.0.into(),
            view: self.view.0.into(),
            reach: self.reach.bits().into(),
            devices_usable: self.devices_usable.into(),
            flags: self.flags.to_bits().into(),
            unused: [0; 416],
            checksum: U32::ZERO,
        };
        seal(record, place)
    }

    /// # Errors
    /// When the block is not the heartbeat of `node` in its place.
    pub fn decode(
        block: &Block,
        node: NodeId,
        place: Place,
    ) -> Result<HeartbeatRecord, DecodeError> {
        let (raw, _) =
            open::<HeartbeatRaw>(block, Some(place.cluster), Some(place.partition), place.block)?;
        if raw.node.get() != node.get() {
            return Err(DecodeError::Contents("the heartbeat of another node"));
        }
        Ok(HeartbeatRecord {
            node,
            incarnation: Incarnation(raw.incarnation.get()),
            nonce: raw.nonce.get(),
            sequence: raw.sequence.get(),
            generation_seen: SanGeneration(raw.generation_seen.get()),
            view: ViewId(raw.view.get()),
            reach: NodeSet::from_bits(raw.reach.get()),
            devices_usable: raw.devices_usable.get(),
            flags: HeartbeatFlags::from_bits(raw.flags.get()),
        })
    }
}

/// Place of a node's heartbeat.
pub fn place(cluster: mx_base::ClusterId, partition: layout::MpIndex, node: NodeId) -> Place {
    Place { cluster, partition, block: layout::heartbeat(node) }
}
