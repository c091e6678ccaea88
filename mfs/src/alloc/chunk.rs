//! Turning free chunks into metadata chunks.
//!
//! Keeps I4 and I3: every block of the chunk has a valid header of kind free on disk, with a
//! version above everything the block carried in earlier lives, before the chunk counts as
//! metadata. The epoch that gives those versions also gives the generations of inodes.

use std::sync::Arc;

use mx_base::FsId;
use mx_base::rules::{Rule, is_kept};

use super::claim::{Aside, Use, signed};
use super::group::PinnedGroup;
use crate::block::{Block, BlockNo, as_usize};
use crate::cache::{CachedBlock, Step};
use crate::env::{Durability, WriteData};
use crate::error::FsError;
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::ondisk::alloc_group::{ChunkEntry, ChunkKind};
use crate::ondisk::header::{self, Header, Kind, Owner};

/// Blocks turned into metadata at once, at most: one larger write instead of many small ones.
const CLAIM_BLOCKS: u64 = 256;
/// And this part of a group at most, where groups are small: one that became inodes as a whole would
/// have no room for what belongs beside them, on a device with nothing in it.
const GROUP_SHARE: u64 = 8;

/// The version of a block that has just become part of a metadata chunk.
pub(crate) fn first_version(epoch: u32) -> u64 {
    u64::from(epoch) << 32
}

impl Fs {
    /// Makes chunks of `kind` out of free ones; false when the group has none. With `claim` it is
    /// one, claimed for nodes.
    ///
    /// # Errors
    /// When the disk or the journal fails.
    pub(crate) async fn claim_metadata(
        &self,
        group: &PinnedGroup,
        kind: ChunkKind,
        claim: bool,
    ) -> Result<bool, FsError> {
        let chunk_blocks = group.group.geometry.chunk_blocks;
        let share = group.group.geometry.chunks / GROUP_SHARE;
        let chunks = (CLAIM_BLOCKS / chunk_blocks).min(share).max(1);
        let chunks = if claim { 1 } else { as_usize(chunks) };
        let mut found = self.settle(|| free_chunks(group, chunks)).await?;
        let mut own_claim = Aside::nothing(&self.space);
        let is_own = found.is_empty();
        if is_own {
            // At last a chunk that this mount has claimed for data and does not need.
            let spare = self.settle(|| spare_claim(group)).await?;
            let Some(spare) = spare.filter(|_| own_claim.try_more(chunk_blocks)) else {
                return Ok(false);
            };
            found.push(spare);
        }
        let mut fresh = Vec::new();
        for (chunk, entry) in &found {
            let first = group.group.geometry.chunk_first(*chunk);
            let epoch = entry.epoch.get() + 1;
            fresh.extend(self.write_free_headers(group, first, chunk_blocks, epoch).await?);
        }
        self.env.disk.flush().await?;

        let reservation = self.journal.reserve(2 + found.len()).await?;
        let mut tx = self.transaction();
        for (chunk, mut entry) in found.iter().copied() {
            if entry.kind == ChunkKind::Free as u8 {
                self.settle_now(group.group.add_free(&mut tx, &group.pin, 0, -1))?;
            }
            entry.kind = kind as u8;
            entry.epoch.set(entry.epoch.get() + 1);
            entry.set_claimant(claim.then(|| self.claimant()));
            self.settle_now(group.group.set_chunk(&mut tx, &group.pin, chunk, entry))?;
        }
        self.commit(tx, reservation);
        for (chunk, _) in &found {
            if is_own {
                self.discount_claim(&group.group, Use::Data, *chunk, signed(chunk_blocks));
            }
            if claim {
                self.count_claim(&group.group, Use::Nodes, *chunk, signed(chunk_blocks));
            }
        }
        drop(own_claim);
        for block in fresh {
            group.group.set.adopt(&block);
        }
        Ok(true)
    }

    async fn write_free_headers(
        &self,
        group: &PinnedGroup,
        first: BlockNo,
        count: u64,
        epoch: u32,
    ) -> Result<Vec<Arc<CachedBlock>>, FsError> {
        let owner = Owner { id: group.group.no.0, generation: epoch };
        let mut blocks = Vec::new();
        for i in 0..count {
            let mut block = Block::zeroed();
            let number = first.plus(i);
            *Header::of_mut(&mut block) =
                Header::new(self.fs_id, Kind::Free, number, owner, first_version(epoch));
            header::seal(&mut block, self.journal.writer());
            blocks.push(block.into());
        }
        let cached: Vec<Arc<CachedBlock>> = (0..count)
            .zip(&blocks)
            .map(|(i, block): (u64, &crate::block::SharedBlock)| {
                CachedBlock::new(first.plus(i), block.clone())
            })
            .collect();
        let data = WriteData::Blocks(blocks);
        if is_kept(Rule::WriteFreeHeaders) {
            self.env.disk.write(first, data, Durability::Volatile).await?;
        }
        Ok(cached)
    }
}

/// A chunk that this mount has claimed and nothing of which is in use or rests.
fn spare_claim(group: &PinnedGroup) -> Step<Option<(u64, ChunkEntry)>> {
    let geometry = &group.group.geometry;
    let tx = Transaction::new(FsId::default());
    for chunk in group.group.claimed(Use::Data) {
        let entry = group.group.chunk(&tx, chunk)?;
        let first = chunk * geometry.chunk_blocks;
        if u64::from(entry.free.get()) == geometry.chunk_blocks
            && group.group.rested_run(first, geometry.chunk_blocks) == geometry.chunk_blocks
        {
            return Ok(Some((chunk, entry)));
        }
    }
    Ok(None)
}

/// Up to `count` free chunks none of whose blocks rests.
fn free_chunks(group: &PinnedGroup, count: usize) -> crate::cache::Step<Vec<(u64, ChunkEntry)>> {
    let geometry = &group.group.geometry;
    let tx = Transaction::new(FsId::default());
    let mut found = Vec::new();
    for chunk in 0..geometry.chunks {
        let entry = group.group.chunk(&tx, chunk)?;
        let first = chunk * geometry.chunk_blocks;
        if group.group.is_whole(&entry)
            && entry.epoch.get() < u32::MAX
            && group.group.rested_run(first, geometry.chunk_blocks) == geometry.chunk_blocks
        {
            found.push((chunk, entry));
            if found.len() == count {
                break;
            }
        }
    }
    Ok(found)
}
