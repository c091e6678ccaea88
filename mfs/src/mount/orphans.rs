//! The list of orphans of this mount: room on it, and what is done with those on it.

use std::sync::Arc;

use crate::alloc::Needs;
use crate::error::FsError;
use crate::file::FileId;
use crate::fs::Fs;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{Kind, Owner};
use lcl::Mode;
use lcl::pin::Want;

impl Fs {
    /// Makes sure that the next transaction can put `count` files on the list.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when the list is full and there is no block for more.
    pub(crate) async fn make_orphan_places(&self, count: usize) -> Result<(), FsError> {
        // Some more, for transactions of others that have looked and not committed yet.
        if self.journal.has_orphan_places(count + 32) {
            return Ok(());
        }
        let group = self.metadata_group(Needs::tree(1)).await?;
        let owner = Owner::plain(self.journal.slot().0.into());
        let (slot_pin, slot_set) = self.journal.with_slot(|slot| (slot.pin(), slot.set()));
        self.transact(6, |tx| {
            let Some(block) = group.take_metadata(tx, ChunkKind::Tree)? else {
                return Err(FsError::NoSpace.into());
            };
            let (pin, set) = (&group.pin, &group.group.set);
            tx.adopt(pin, set, &block, &slot_pin, &slot_set, Kind::Orphans, owner);
            tx.change_slot().orphan_block = Some(block);
            Ok(())
        })
        .await
    }

    /// Deletes an unlinked file when nobody has it open any more; cuts what a truncation left of one
    /// that has a name, whoever has it open. In a task of its own: it may have to wait for the last
    /// close in the cluster.
    pub(crate) fn reap_later(self: &Arc<Self>, file: FileId) {
        let fs = Arc::clone(self);
        self.env.runtime.spawn(Box::pin(async move {
            if let Some(Err(error)) = fs.unless_over(fs.reap_when_closed(file)).await
                && fs.check_open().is_ok()
            {
                tracing::error!(?file, %error, "orphan not deleted");
            }
        }));
    }

    async fn reap_when_closed(&self, file: FileId) -> Result<(), FsError> {
        let inode = self.inode(file.inode)?;
        // Opens would wait behind EX on OPEN until those who have the file open close it.
        let change = self.begin_change().await?;
        if self.cut_if_named(&inode, file).await? {
            return Ok(());
        }
        drop(change);
        let open = inode.open_entry.pin(Want { exclusive: true, ..Want::shared(Mode::EX) }).await?;
        let _change = self.begin_change().await?;
        self.reap(&inode, file, &open).await
    }

    /// As [`Fs::reap_later`], at once if nobody has the file open; otherwise later.
    pub(crate) async fn reap_now_or_later(self: &Arc<Self>, file: FileId) -> Result<(), FsError> {
        let inode = self.inode(file.inode)?;
        let want = Want { exclusive: true, ..Want::shared(Mode::EX) };
        match inode.open_entry.pin(want.no_queue()).await {
            Ok(open) => self.reap(&inode, file, &open).await,
            Err(lcl::pin::PinError::Busy) => {
                self.reap_later(file);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}
