//! fsync, fdatasync, sync.

use lcl::Mode;
use lcl::pin::Want;
use mx_base::rules::{Rule, is_kept};

use super::open::OpenFile;
use crate::error::FsError;
use crate::fs::Fs;

impl Fs {
    /// Makes a file durable: its data, its attributes, and every operation of this mount that was
    /// answered before (I7).
    ///
    /// # Errors
    /// When something could not be written; also once, in every open file, when a write-back in
    /// the background failed.
    pub async fn fsync(&self, open: &OpenFile) -> Result<(), FsError> {
        self.check_open()?;
        let inode = &open.inode;
        let is_dirty = {
            let state = inode.state.lock();
            !state.pages.is_clean() || state.core.as_ref().is_some_and(|core| core.dirty)
        };
        if is_dirty {
            let _change = self.begin_change().await?;
            let pin = inode.entry.pin(Want::shared(Mode::EX)).await?;
            let flushed = self.flush_inode(inode, &pin).await;
            self.note_dirty(inode, &inode.state.lock());
            if let Err(error) = flushed {
                // Told now, and not again.
                let _ = open.report_failures();
                return Err(error);
            }
        }
        if is_kept(Rule::AwaitLogWrite) {
            self.journal.force(self.journal.last()).await?;
        }
        open.report_failures()
    }

    /// Makes every operation that was answered before durable, without the data of files: for
    /// directories.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub async fn fsync_directory(&self) -> Result<(), FsError> {
        self.check_open()?;
        self.journal.force(self.journal.last()).await
    }

    /// Everything of this mount becomes durable.
    ///
    /// # Errors
    /// The first failure.
    pub async fn sync(&self) -> Result<(), FsError> {
        let mut written = Ok(());
        if !self.dirty.is_empty() {
            let _change = self.begin_change().await?;
            written = self.write_back_all().await;
        }
        self.journal.force(self.journal.last()).await?;
        written
    }

    /// What close(2) returns: a write-back that failed in the background.
    ///
    /// # Errors
    /// [`FsError::Damaged`], once for every open file.
    pub fn flush(&self, open: &OpenFile) -> Result<(), FsError> {
        open.report_failures()
    }
}
