//! Devices as the file system sees them: behind the gate of this node.
//!
//! Keeps true (R17): a request is submitted only while the gate is open, and counts as done only if
//! it is open still when the request has ended.

mod arbiter;
mod local;

pub use arbiter::ArbiterDisk;
pub use local::LocalDisk;

use fencing::gate::Refused;
use fencing_agents::payload::Payload;
use mfs::block::BlockNo;
use mfs::env::WriteData;
use mfs::error::DiskError;
use zerocopy::IntoBytes;

/// Blocks of the file system as the engines take them.
pub(crate) struct Gathered(pub(crate) WriteData);

impl Payload for Gathered {
    fn pieces(&self) -> Vec<&[u8]> {
        match &self.0 {
            WriteData::Blocks(blocks) => blocks.iter().map(|block| block.as_bytes()).collect(),
            WriteData::Run(blocks) => vec![blocks.as_bytes()],
        }
    }
}

pub(crate) fn refused(refused: Refused) -> DiskError {
    tracing::debug!(%refused, "request refused at the gate");
    DiskError::Fenced
}

pub(crate) fn failed(
    operation: &'static str,
    at: BlockNo,
    blocks: usize,
    why: impl ToString,
) -> DiskError {
    DiskError::Failed { operation, at, blocks: blocks as u64, reason: why.to_string() }
}

/// A number of blocks as requests have it.
pub(crate) fn blocks(count: u64) -> usize {
    usize::try_from(count).expect("this is a 64-bit machine")
}
