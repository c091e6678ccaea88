//! Nobody else has the device, from before a repair to its end.
//!
//! Keeps true: a repair does not begin while a heartbeat on the device moves, and what it plans does not
//! come to count when one has moved since. What it writes so that it counts, it writes durably, block by
//! block: before each of those writes the heartbeats are looked at.

use std::fmt;
use std::sync::Arc;

use fencing::layout;
use mfs::block::{Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mx_base::{BoxFuture, NodeId};
use zerocopy::IntoBytes;

use crate::partition::Identity;

/// A device that is written to only while heartbeats on it are what they were.
pub(super) struct Alone {
    below: Arc<dyn Disk>,
    first: BlockNo,
    count: usize,
    heartbeats: Arc<Box<[Block]>>,
}

impl Alone {
    /// # Errors
    /// When the heartbeats cannot be read.
    pub(super) async fn new(below: Arc<dyn Disk>, identity: &Identity) -> Result<Alone, DiskError> {
        let (first, count) = layout::heartbeat_run(NodeId::MAX);
        let first = BlockNo(identity.fs.layout.membership_start + u64::from(first.0));
        let count = count as usize;
        let heartbeats = Arc::new(below.read(first, count).await?);
        Ok(Alone { below, first, count, heartbeats })
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alone").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Disk for Alone {
    fn blocks(&self) -> u64 {
        self.below.blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        self.below.read(at, count)
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        if durability != Durability::Durable {
            return self.below.write(at, data, durability);
        }
        let below = Arc::clone(&self.below);
        let before = Arc::clone(&self.heartbeats);
        let (first, count) = (self.first, self.count);
        Box::pin(async move {
            let now = below.read(first, count).await?;
            if now.as_bytes() != before.as_bytes() {
                let why = "a node of the cluster has begun to use the device";
                return Err(crate::disk::failed("write", at, data.len(), why));
            }
            below.write(at, data, durability).await
        })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        self.below.flush()
    }
}
