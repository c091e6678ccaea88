//! What mkfs writes: a partition on which nobody has promised anything.

use mx_base::NodeId;

use super::Block;
use super::heartbeat::{self, HeartbeatRecord};
use super::register::{self, RegisterRecord};
use super::superblock::Superblock;
use crate::layout::{self, CopyNo, MpBlock, PARTITION_BLOCKS};

/// All blocks of a new partition, in order and without a gap. The superblock copies come last, so
/// that a format that was interrupted leaves nothing that looks like a partition.
///
/// Every register and heartbeat block is written for all 64 nodes: one that is not readable is
/// damage, never "not used yet".
pub fn format(superblock: Superblock) -> impl Iterator<Item = (MpBlock, Box<Block>)> {
    let first = layout::superblock(CopyNo::Second).0 + 1;
    let Superblock { cluster, index, .. } = superblock;
    let registers = nodes().flat_map(move |node| {
        CopyNo::BOTH.map(|copy| {
            let place = register::place(cluster, index, node, copy);
            (place.block, RegisterRecord::unused(node).encode(place))
        })
    });
    let heartbeats = nodes().map(move |node| {
        let place = heartbeat::place(cluster, index, node);
        (place.block, HeartbeatRecord::unused(node).encode(place))
    });
    let configs = (layout::config_image(layout::ConfigImage::A).0..PARTITION_BLOCKS)
        .map(|block| (MpBlock(block), Block::zeroed()));
    let superblocks = CopyNo::BOTH
        .into_iter()
        .map(move |copy| (layout::superblock(copy), superblock.encode(copy)));
    debug_assert_eq!(first, layout::register(NodeId::new(1).expect("in range"), CopyNo::First).0);
    registers.chain(heartbeats).chain(configs).chain(superblocks)
}

fn nodes() -> impl Iterator<Item = NodeId> {
    (1..=NodeId::MAX).filter_map(NodeId::new)
}
