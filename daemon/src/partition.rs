//! The membership partition of a device: found through the file system's superblock, which says
//! where it is, and told apart by its own, which says whose it is.

mod arbiter;
mod local;

pub use arbiter::ArbiterPartition;
pub use local::{EnginePartition, LocalAgent};

use fencing::DeviceId;
use fencing::layout::{self, CopyNo};
use fencing::ondisk::superblock::Superblock;
use mfs::block::{Block, BlockNo};
use mfs::env::Disk;
use mfs::error::DiskError;
use mfs::superblock::SuperblockError;

/// What a device says about itself.
#[derive(Clone, Debug)]
pub struct Identity {
    pub fs: mfs::superblock::Superblock,
    pub membership: Superblock,
}

impl Identity {
    /// What nodes and arbiter call the device, whatever its path: the id of its file system.
    pub fn device_id(&self) -> DeviceId {
        DeviceId(self.fs.fs_id.0)
    }
}

/// Why a device is not one of a MatrixFS cluster.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("cannot read the membership partition: {0}")]
    Disk(#[from] DiskError),
    #[error("no superblock of the membership partition can be read: {}; {}", .0[0], .0[1])]
    Membership([fencing::ondisk::DecodeError; 2]),
    #[error(
        "the membership partition belongs to cluster {membership}, the file system to cluster \
         {fs}"
    )]
    Mixed { membership: mx_base::ClusterId, fs: mx_base::ClusterId },
}

/// Reads both superblocks.
///
/// # Errors
/// When one cannot be read or they do not belong together.
pub async fn identify(disk: &dyn Disk) -> Result<Identity, IdentityError> {
    let fs = mfs::superblock::read(disk).await?;
    let mut copies = Vec::new();
    for copy in CopyNo::BOTH {
        let at = fs.layout.membership_start + u64::from(layout::superblock(copy).0);
        let blocks = disk.read(BlockNo(at), 1).await?;
        copies.push(partition_block_of(&blocks[0]));
    }
    let membership =
        Superblock::newest(&copies[0], &copies[1]).map_err(IdentityError::Membership)?;
    if membership.cluster != fs.cluster_id {
        let (membership, fs) = (membership.cluster, fs.cluster_id);
        return Err(IdentityError::Mixed { membership, fs });
    }
    Ok(Identity { fs, membership })
}

/// A block of the membership partition as one of the device.
pub fn block_of(block: &fencing::ondisk::Block) -> Box<Block> {
    let mut copy = Block::zeroed();
    copy.0.copy_from_slice(&block.0);
    copy
}

/// The inverse of [`block_of`].
pub fn partition_block_of(block: &Block) -> Box<fencing::ondisk::Block> {
    let mut copy = fencing::ondisk::Block::zeroed();
    copy.0.copy_from_slice(&block.0);
    copy
}
