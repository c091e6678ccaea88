//! The end of a file: its blocks, its entries' blocks if it is a directory, at last its inode.
//!
//! Space is freed by link count and by OPEN, never by waiting for the kernel to forget. Every step
//! is a transaction that leaves the file on the list of orphans until the last, so whoever adopts
//! the list goes on where a crash stopped it.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::pin::{Pin, Want};

use super::Inode;
use crate::cache::Step;
use crate::dir::{Directory, DirectoryEditor};
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::ondisk::inode::InodeBlock;

/// Directory blocks freed by one transaction.
const BLOCKS_PER_TRANSACTION: usize = 24;

impl Fs {
    /// Cuts what a truncation left behind the end of a file that has a name, if it is on the list of
    /// orphans. False when it has none, and waits for its deletion.
    pub(crate) async fn cut_if_named(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
    ) -> Result<bool, FsError> {
        let pin = inode.entry.pin(Want::write()).await?;
        let found = self
            .settle(|| {
                inode.with_file(file, |state| Ok((state.core().links(), state.core().size())))
            })
            .await;
        match found {
            Ok((0, _)) => return Ok(false),
            // Otherwise it is done already, or it had no name, and has got one.
            Ok((_, size)) if self.journal.orphans().contains(&file) => {
                // Behind the end as it is here: of what was written since, data may be durable before
                // the size that covers it is.
                self.cut_blocks(inode, &pin, size, true, |_, _| Ok(())).await?;
            }
            Ok(_) => {}
            // Done already, before the list could be shortened.
            Err(FsError::Stale) => self.strike_out(file).await?,
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Deletes an unlinked file. `open` holds OPEN(i) exclusively: nobody in the cluster has it open.
    pub(crate) async fn reap(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        open: &Pin,
    ) -> Result<(), FsError> {
        assert!(open.is_exclusive() && open.entry().name() == inode.open_entry.name());
        let pin = inode.entry.pin(Want::write()).await?;
        let found = self
            .settle(|| {
                inode.with_file(file, |state| {
                    let core = state.core();
                    Ok((core.links(), core.file_type()))
                })
            })
            .await;
        let (links, file_type) = match found {
            Ok(found) => found,
            // Done already, before the list could be shortened.
            Err(FsError::Stale) => return self.strike_out(file).await,
            Err(error) => return Err(error),
        };
        if links > 0 {
            // It has got a name since it was looked at.
            return Ok(());
        }
        {
            let mut state = inode.state.lock();
            let promised = state.pages.clear();
            self.space.settle(promised);
            self.trim_nodes(&mut state);
            let core = state.core_mut();
            core.attributes.size.set(core.durable_size);
            self.note_dirty(inode, &state);
        }
        if file_type == FileType::Directory {
            self.dismantle(inode, &pin, file).await?;
        } else {
            self.cut_blocks(inode, &pin, 0, false, |_, _| Ok(())).await?;
        }
        self.free_xattr_blocks(inode, &pin).await?;
        self.free_inode(inode, &pin, file).await
    }

    /// Takes a file off the list of orphans, if it is on it.
    async fn strike_out(&self, file: FileId) -> Result<(), FsError> {
        if !self.journal.orphans().contains(&file) {
            return Ok(());
        }
        self.transact(0, |tx| {
            tx.remove_orphan(file);
            Ok(())
        })
        .await
    }

    /// Frees the index and the buckets of a removed directory.
    async fn dismantle(&self, inode: &Arc<Inode>, pin: &Pin, file: FileId) -> Result<(), FsError> {
        let take_apart = |tx: &mut Transaction, max: usize| {
            let dir = Directory { inode, key: &self.hash_key };
            let mut editor = DirectoryEditor { dir, pin, group: None, tx };
            editor.dismantle(file.generation, max)
        };
        loop {
            let groups: BTreeSet<_> = self
                .settle(|| {
                    let gone = take_apart(&mut self.transaction(), BLOCKS_PER_TRANSACTION)?;
                    let groups = gone.blocks.iter().map(|b| self.group_of_block(b.number));
                    Ok(groups.collect::<Result<_, _>>()?)
                })
                .await?;
            if groups.is_empty() {
                return Ok(());
            }
            let groups = self.pin_groups(groups).await?;
            let blocks = 3 * BLOCKS_PER_TRANSACTION + 4 * groups.len();
            self.transact(blocks, |tx| {
                let gone = take_apart(tx, BLOCKS_PER_TRANSACTION)?;
                for block in &gone.blocks {
                    let group = &groups[&self.group_of_block(block.number)?];
                    group.release(tx, pin, &inode.set, block)?;
                }
                let own = inode.block()?;
                let core = &mut tx.change(pin, &inode.set, &own).get_mut::<InodeBlock>().core;
                core.blocks.set(core.blocks.get().saturating_sub(gone.blocks.len() as u64));
                Ok(())
            })
            .await?;
        }
    }

    async fn free_inode(&self, inode: &Arc<Inode>, pin: &Pin, file: FileId) -> Result<(), FsError> {
        let group = self.pin_group(self.group_of_block(inode.block_no())?).await?;
        let listed = self.journal.orphans().contains(&file);
        self.transact(8, |tx| {
            let block = inode.block()?;
            group.release(tx, pin, &inode.set, &block)?;
            tx.use_inodes(-1);
            if listed {
                tx.remove_orphan(file);
            }
            Ok(()) as Step<()>
        })
        .await?;
        // Whatever comes next in this place is read, or made, anew.
        let mut state = inode.state.lock();
        state.core = None;
        state.failures = 0;
        state.linkable = false;
        self.note_dirty(inode, &state);
        Ok(())
    }
}
