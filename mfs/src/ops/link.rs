//! link.
//!
//! A file that was made without a name gets its first one like any other, and leaves the list of
//! orphans in the same transaction.

use lcl::pin::Want;

use super::check_name;
use super::create::{LINKS_MAX, NODES_PER_ENTRY};
use super::locking::At;
use super::lookup::{Entry, Keep};
use crate::alloc::Needs;
use crate::dir::{Directory, DirectoryEditor};
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::Core;
use crate::inode::extents::Grown;

impl Fs {
    /// Gives a file another name. The kernel does not keep its attributes ([`Keep::attributes`]).
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::NotPermitted`] for a directory, [`FsError::TooManyLinks`],
    /// [`FsError::NotFound`] when the file or the directory was removed, and for a file made to get no name.
    pub async fn link(&self, file: FileId, parent: FileId, name: &[u8]) -> Result<Entry, FsError> {
        let _change = self.begin_change().await?;
        check_name(name)?;
        let at = At { dir: parent, name };
        let mut tree = 0;
        loop {
            let (pinned, found) =
                self.pin_places(&[at], &[(file, FileType::Regular)], Want::write()).await?;
            if found[0].is_some() {
                return Err(FsError::Exists);
            }
            let inode = pinned.inode(file.inode);
            let (dir, dir_pin) = (pinned.inode(parent.inode), pinned.pin(parent.inode));
            let (file_type, is_unnamed) = self
                .settle(|| {
                    inode.with_file(file, |state| {
                        let core = state.core();
                        match (core.file_type(), core.links()) {
                            (FileType::Directory, _) => {
                                Err(FsError::NotPermitted("a directory has one name").into())
                            }
                            (_, 0) if !state.linkable => Err(FsError::NotFound.into()),
                            (_, LINKS_MAX..) => Err(FsError::TooManyLinks.into()),
                            (file_type, links) => Ok((file_type, links == 0)),
                        }
                    })
                })
                .await?;
            self.check_flags(inode, Core::check_may_lose).await?;
            self.check_flags(dir, Core::check_may_gain).await?;
            self.check_linked(dir, parent).await?;
            let group = match tree {
                0 => None,
                tree => Some(self.metadata_group(Needs::tree(tree)).await?),
            };
            let grown = self
                .transact(24, |tx| {
                    let directory = Directory { inode: dir, key: &self.hash_key };
                    let group = group.as_ref();
                    let mut editor = DirectoryEditor { dir: directory, pin: dir_pin, group, tx };
                    if let Grown::NoRoom = editor.insert(name, file, file_type)? {
                        tx.abandon();
                        return Ok(Grown::NoRoom);
                    }
                    inode.edit_core(tx, pinned.pin(file.inode), |core| {
                        core.add_links(1);
                        core.touch_ctime(self.now());
                        Ok(())
                    })?;
                    self.directory_changed(tx, &pinned, parent, 1, 0)?;
                    if is_unnamed {
                        tx.remove_orphan(file);
                    }
                    Ok(Grown::Done)
                })
                .await?;
            if let Grown::NoRoom = grown {
                tree = NODES_PER_ENTRY;
                continue;
            }
            inode.state.lock().linkable = false;
            self.outdate_attributes(dir, parent);
            let attributes = self.attributes_of(inode, file).await?;
            self.env.kernel.remember(file);
            let name = self.kernel_keeps_names(dir);
            let keep = Keep { name, attributes: false, pins: pinned.into_pins() };
            return Ok(Entry { attributes, keep });
        }
    }

    /// A directory that takes a new entry must have a name itself.
    pub(super) async fn check_linked(
        &self,
        dir: &std::sync::Arc<crate::inode::Inode>,
        file: FileId,
    ) -> Result<(), FsError> {
        let links = self.settle(|| dir.with_file(file, |state| Ok(state.core().links()))).await?;
        if links == 0 { Err(FsError::NotFound) } else { Ok(()) }
    }
}
