//! unlink and rmdir.

use std::sync::Arc;

use lcl::pin::Want;

use super::check_name;
use super::locking::{At, Pinned};
use crate::cache::Step;
use crate::dir::{Directory, DirectoryEditor, Dirent};
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::journal::Transaction;

impl Fs {
    /// Removes a name of a file that is no directory. The file goes with its last name, when
    /// nobody in the cluster has it open any more.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::IsDirectory`].
    pub async fn unlink(self: &Arc<Self>, parent: FileId, name: &[u8]) -> Result<(), FsError> {
        self.remove(parent, name, false).await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], [`FsError::NotEmpty`].
    pub async fn rmdir(self: &Arc<Self>, parent: FileId, name: &[u8]) -> Result<(), FsError> {
        self.remove(parent, name, true).await
    }

    async fn remove(
        self: &Arc<Self>,
        parent: FileId,
        name: &[u8],
        is_rmdir: bool,
    ) -> Result<(), FsError> {
        let _change = self.begin_change().await?;
        check_name(name)?;
        self.make_orphan_places(1).await?;
        let at = At { dir: parent, name };
        let (pinned, found) = self.pin_places(&[at], &[], Want::write()).await?;
        let Some(entry) = found[0] else { return Err(FsError::NotFound) };
        let is_directory = entry.file_type == FileType::Directory;
        match (is_rmdir, is_directory) {
            (true, false) => return Err(FsError::NotDirectory),
            (false, true) => return Err(FsError::IsDirectory),
            _ => {}
        }
        self.check_may_go(&pinned, parent, entry).await?;
        if is_directory {
            self.check_empty(&pinned, entry).await?;
        }
        let gone = self
            .transact(16, |tx| {
                let inode = pinned.inode(parent.inode);
                let dir = Directory { inode, key: &self.hash_key };
                let pin = pinned.pin(parent.inode);
                DirectoryEditor { dir, pin, group: None, tx }.remove(name)?;
                let gone = self.drop_link(tx, &pinned, entry)?;
                self.directory_changed(tx, &pinned, parent, -1, -i32::from(is_directory))?;
                Ok(gone)
            })
            .await?;
        self.outdate_attributes(pinned.inode(parent.inode), parent);
        drop(pinned);
        if gone {
            self.reap_now_or_later(entry.file).await?;
        }
        Ok(())
    }

    /// A directory that is about to lose its name has to be empty.
    pub(super) async fn check_empty(&self, pinned: &Pinned, entry: Dirent) -> Result<(), FsError> {
        let inode = pinned.inode(entry.file.inode);
        let entries = self
            .settle(|| {
                inode.with_file(entry.file, |state| Ok(state.core().attributes.entries.get()))
            })
            .await?;
        if entries > 0 { Err(FsError::NotEmpty) } else { Ok(()) }
    }

    /// A file loses a name, inside a transaction; true when it was the last one and the file is on
    /// the list of orphans now.
    pub(super) fn drop_link(
        &self,
        tx: &mut Transaction,
        pinned: &Pinned,
        entry: Dirent,
    ) -> Step<bool> {
        let inode = pinned.inode(entry.file.inode);
        let mut gone = false;
        inode.edit_core(tx, pinned.pin(entry.file.inode), |core| {
            if core.file(inode.no) != entry.file || core.links() == 0 {
                // The entry leads to what is not there any more.
                return Err(FsError::Damaged);
            }
            if entry.file_type == FileType::Directory {
                core.attributes.links.set(0);
            } else {
                core.add_links(-1);
            }
            core.touch_ctime(self.now());
            gone = core.links() == 0;
            Ok(())
        })?;
        if gone {
            tx.add_orphan(entry.file);
        }
        Ok(gone)
    }

    /// A directory has got or lost entries, inside a transaction.
    pub(super) fn directory_changed(
        &self,
        tx: &mut Transaction,
        pinned: &Pinned,
        dir: FileId,
        entries: i64,
        links: i32,
    ) -> Step<()> {
        pinned.inode(dir.inode).edit_core(tx, pinned.pin(dir.inode), |core| {
            core.touch_mtime(self.now());
            core.add_entries(entries);
            core.add_links(links);
            Ok(())
        })
    }
}
