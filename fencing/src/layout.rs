//! Where things are in a membership partition. Fixed for this format: every node computes the same.

use std::fmt;

use mx_base::NodeId;

/// Bytes of a block; everything in a partition begins at a multiple of it.
pub const BLOCK_SIZE: usize = 4096;
/// Live bytes at the start of a block: one sector, the unit that a disk writes whole.
pub const RECORD_SIZE: usize = 512;
/// Blocks of a membership partition.
pub const PARTITION_BLOCKS: u32 = 226;
/// Blocks of each of the two configuration images.
pub const CONFIG_IMAGE_BLOCKS: u32 = 16;

/// Bytes of a configuration image.
pub const CONFIG_IMAGE_SIZE: u32 = 64 << 10;
const _: () = assert!(CONFIG_IMAGE_SIZE as usize == CONFIG_IMAGE_BLOCKS as usize * BLOCK_SIZE);

const SUPERBLOCKS: u32 = 2;
const REGISTER_START: u32 = SUPERBLOCKS;
const HEARTBEAT_START: u32 = REGISTER_START + 2 * NodeId::MAX as u32;
const CONFIG_START: u32 = HEARTBEAT_START + NodeId::MAX as u32;
const _: () = assert!(CONFIG_START + 2 * CONFIG_IMAGE_BLOCKS == PARTITION_BLOCKS);

/// Number of a block, counted from the start of its membership partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MpBlock(pub u32);

impl fmt::Debug for MpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mp#{}", self.0)
    }
}

/// Which of the 1 or 3 membership partitions of a cluster, 0 to 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MpIndex(pub u8);

impl fmt::Display for MpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}

impl fmt::Debug for MpIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mp{}", self.0)
    }
}

/// Which of two copies of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CopyNo {
    First,
    Second,
}

impl CopyNo {
    pub const BOTH: [CopyNo; 2] = [CopyNo::First, CopyNo::Second];

    pub const fn index(self) -> usize {
        match self {
            CopyNo::First => 0,
            CopyNo::Second => 1,
        }
    }

    #[must_use]
    pub const fn other(self) -> CopyNo {
        match self {
            CopyNo::First => CopyNo::Second,
            CopyNo::Second => CopyNo::First,
        }
    }
}

/// Which of the two configuration images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ConfigImage {
    A,
    B,
}

pub const fn superblock(copy: CopyNo) -> MpBlock {
    MpBlock(offset(copy))
}

pub const fn register(node: NodeId, copy: CopyNo) -> MpBlock {
    MpBlock(REGISTER_START + 2 * position(node) + offset(copy))
}

/// First block and number of blocks of all register copies of nodes 1 to `nodes_max`.
pub const fn register_run(nodes_max: u16) -> (MpBlock, u32) {
    (MpBlock(REGISTER_START), 2 * nodes_max as u32)
}

pub const fn heartbeat(node: NodeId) -> MpBlock {
    MpBlock(HEARTBEAT_START + position(node))
}

/// First block and number of blocks of the heartbeats of nodes 1 to `nodes_max`.
pub const fn heartbeat_run(nodes_max: u16) -> (MpBlock, u32) {
    (MpBlock(HEARTBEAT_START), nodes_max as u32)
}

/// First block of a configuration image, [`CONFIG_IMAGE_BLOCKS`] long.
pub const fn config_image(image: ConfigImage) -> MpBlock {
    match image {
        ConfigImage::A => MpBlock(CONFIG_START),
        ConfigImage::B => MpBlock(CONFIG_START + CONFIG_IMAGE_BLOCKS),
    }
}

const fn position(node: NodeId) -> u32 {
    node.get() as u32 - 1
}

const fn offset(copy: CopyNo) -> u32 {
    match copy {
        CopyNo::First => 0,
        CopyNo::Second => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regions_are_where_the_specification_says() {
        let first = NodeId::new(1).expect("in range");
        let last = NodeId::new(64).expect("in range");
        assert_eq!(superblock(CopyNo::Second), MpBlock(1));
        assert_eq!(register(first, CopyNo::First), MpBlock(2));
        assert_eq!(register(first, CopyNo::Second), MpBlock(3));
        assert_eq!(register(last, CopyNo::Second), MpBlock(129));
        assert_eq!(heartbeat(first), MpBlock(130));
        assert_eq!(heartbeat(last), MpBlock(193));
        assert_eq!(config_image(ConfigImage::A), MpBlock(194));
        assert_eq!(config_image(ConfigImage::B), MpBlock(210));
        assert_eq!(register_run(64), (MpBlock(2), 128));
        assert_eq!(heartbeat_run(64), (MpBlock(130), 64));
    }
}
