//! Blocks that a file has and that were never written: they read as zeros (I10), and writing to them
//! never fails for want of space.
//!
//! Keeps true: a block is marked written only when all of it is durable in it, data or zeros.

use std::sync::Arc;

use lcl::pin::Pin;

use super::Inode;
use super::extents::{Extent, ExtentTree, Mapping};
use super::flush::Turn;
use crate::alloc::claim::{Aside, Use};
use crate::block::{Block, BlockNo, as_usize};
use crate::env::{Durability, WriteData};
use crate::error::FsError;
use crate::file::FileId;
use crate::fs::Fs;

/// Runs that one transaction maps or marks.
const RUNS_PER_TRANSACTION: usize = 16;
/// Blocks of zeros written with one request: 1 MiB.
const ZEROS_AT_ONCE: usize = 256;

impl Fs {
    /// Gives every page from `from` up to `to` that has no block one, never written. Nothing of the
    /// inode is dirty, and `pin` holds it exclusively.
    ///
    /// # Errors
    /// [`FsError::NoSpace`]: nothing has changed, unless it was nodes of the tree that were missing;
    /// then the file has some of the blocks, and keeps them.
    pub(crate) async fn map_holes(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        (from, to): (u64, u64),
    ) -> Result<(), FsError> {
        let tree = ExtentTree { inode, generation: file.generation };
        let mut missing = self.holes(&tree, from, to).await?;
        let blocks: u64 = missing.iter().map(|(_, len)| len).sum();
        if blocks > self.layout.usable_blocks() {
            return Err(FsError::NoSpace);
        }
        let mut promised = Aside::nothing(&self.space);
        if blocks > 0 {
            self.promise_space(Use::Data, blocks).await?;
            promised.blocks = blocks;
        }
        while !missing.is_empty() {
            // A hole may lie in two leaves, and takes an entry in each.
            self.promise_nodes(inode, 2 * RUNS_PER_TRANSACTION as u64).await?;
            let done = self.map_some(&tree, pin, &mut missing).await?;
            let done: u64 = done.iter().map(|(_, len)| len).sum();
            promised.blocks -= done;
            self.space.settle(done);
        }
        Ok(())
    }

    /// Runs of pages that are not mapped: first page, length.
    async fn holes(
        &self,
        tree: &ExtentTree<'_>,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, u64)>, FsError> {
        let tx = self.transaction();
        let mut runs = Vec::new();
        let mut at = from;
        while at < to {
            at = match self.settle(|| tree.map(&tx, at)).await? {
                Mapping::Mapped(extent) => extent.end(),
                Mapping::Hole(end) => {
                    let end = end.min(to);
                    runs.push((at, end - at));
                    end
                }
            };
        }
        // A hole that ends where a node of the tree begins may go on behind it.
        runs.dedup_by(|next, run| {
            let follows = run.0 + run.1 == next.0;
            run.1 += if follows { next.1 } else { 0 };
            follows
        });
        Ok(runs)
    }

    /// Marks what is mapped from page `from` up to `to` as never written: it reads as zeros. What is
    /// cached of it goes. Nothing of the inode is dirty, and `pin` holds it exclusively.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when nodes of the tree are missing; nothing has changed then.
    pub(crate) async fn mark_unwritten(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        (from, to): (u64, u64),
    ) -> Result<(), FsError> {
        let tree = ExtentTree { inode, generation: file.generation };
        // Only at both ends an extent becomes two.
        self.promise_nodes(inode, 2).await?;
        let mut at = from;
        while at < to {
            let mut runs: Vec<(u64, u64)> = Vec::new();
            let tx = self.transaction();
            while at < to && runs.len() < RUNS_PER_TRANSACTION {
                at = match self.settle(|| tree.map(&tx, at)).await? {
                    Mapping::Hole(end) => end,
                    Mapping::Mapped(extent) => {
                        if !extent.unwritten {
                            runs.push((at, extent.end().min(to)));
                        }
                        extent.end()
                    }
                };
            }
            let end = at.min(to);
            {
                let mut state = inode.state.lock();
                let promised = state.pages.drop_range(from, end);
                self.space.settle(promised);
            }
            if !runs.is_empty() {
                self.mark_some(&tree, pin, &runs, true).await?;
            }
        }
        Ok(())
    }

    /// Fills the extents that hold these pages with zeros, where they were never written, and marks all
    /// of them written: that takes no node of the tree. Pages of them that are dirty stay so. `pin`
    /// holds the inode in EX.
    ///
    /// # Errors
    /// When the device or the journal fails.
    pub(crate) async fn fill_unwritten(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        pages: &[u64],
    ) -> Result<(), FsError> {
        // Nothing is on its way to these blocks while zeros are.
        let _turn = Turn::wait(inode).await;
        let tree = ExtentTree { inode, generation: file.generation };
        for page in pages {
            let mapping = self.settle(|| tree.map(&self.transaction(), *page)).await?;
            let Mapping::Mapped(extent) = mapping else { continue };
            if extent.unwritten {
                tracing::debug!(
                    inode = inode.no.0,
                    ?extent,
                    "no room for the tree, filled with zeros"
                );
                self.write_zeros(&extent).await?;
                self.mark_some(&tree, pin, &[(extent.logical, extent.end())], false).await?;
            }
        }
        Ok(())
    }

    async fn write_zeros(&self, extent: &Extent) -> Result<(), FsError> {
        let mut at = extent.physical;
        let end = extent.physical.plus(extent.blocks);
        while at < end {
            let count = as_usize(end.0 - at.0).min(ZEROS_AT_ONCE);
            let zeros = WriteData::Run(Block::zeroed_many(count).into());
            self.env.disk.write(at, zeros, Durability::Volatile).await?;
            at = BlockNo(at.0 + count as u64);
        }
        Ok(self.env.disk.flush().await?)
    }
}
