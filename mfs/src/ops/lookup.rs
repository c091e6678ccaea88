//! lookup and getattr.

use std::sync::Arc;

use lcl::pin::{Pin, Want};
use mx_base::rules::{Rule, is_kept};

use super::check_name;
use crate::dir::Dirent;
use crate::error::FsError;
use crate::file::{Attributes, FileId, FileType};
use crate::fs::Fs;
use crate::inode::Inode;

/// What the kernel may cache of an answer, and the pins that make it so until it is given.
#[derive(Debug, Default)]
pub struct Keep {
    /// The name, or its absence.
    pub name: bool,
    /// Never by the answer to a change of what the kernel knows already (LINK, SETATTR, CREATE of
    /// what is there): it takes those without looking whether it was told to forget since, and
    /// after the pins are gone (`kernel-cache.md`, fact 4, has only the others).
    pub attributes: bool,
    /// Dropped behind the answer.
    pub pins: Vec<Pin>,
}

/// A file as an answer shows it.
#[derive(Debug)]
pub struct Entry {
    pub attributes: Attributes,
    pub keep: Keep,
}

/// The answer to a lookup.
#[derive(Debug)]
pub enum Lookup {
    Found(Entry),
    Absent(Keep),
}

impl Fs {
    /// The entry `name` of a directory.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::Stale`], [`FsError::NameTooLong`].
    pub async fn lookup(&self, parent: FileId, name: &[u8]) -> Result<Lookup, FsError> {
        self.check_open()?;
        check_name(name)?;
        let dir = self.inode(parent.inode)?;
        loop {
            let dir_pin = dir.entry.pin(Want::read()).await?;
            let Some(found) = self.find(&dir, parent, name).await? else {
                let name = self.kernel_keeps_names(&dir);
                let keep = Keep { name, attributes: false, pins: vec![dir_pin] };
                return Ok(Lookup::Absent(keep));
            };
            let child = self.inode(found.file.inode)?;
            let cached = child.entry.try_pin(Want::read());
            if cached.is_none() {
                self.ask_ahead(parent.inode, found.file.inode);
            }
            let (dir_pin, child_pin) = match cached {
                Some(child_pin) => (dir_pin, child_pin),
                None if comes_after(&found, parent) => {
                    let child_pin = child.entry.pin(Want::read()).await?;
                    (dir_pin, child_pin)
                }
                None => {
                    drop(dir_pin);
                    let child_pin = child.entry.pin(Want::read()).await?;
                    let dir_pin = dir.entry.pin(Want::read()).await?;
                    if self.find(&dir, parent, name).await? != Some(found) {
                        continue;
                    }
                    (dir_pin, child_pin)
                }
            };
            let attributes = self.attributes_of(&child, found.file).await?;
            self.env.kernel.remember(found.file);
            let keep = Keep {
                name: self.kernel_keeps_names(&dir),
                attributes: kernel_keeps_attributes(&child),
                pins: vec![dir_pin, child_pin],
            };
            return Ok(Lookup::Found(Entry { attributes, keep }));
        }
    }

    /// Which file a name means, from the directory alone: whoever holds the file is not asked.
    ///
    /// # Errors
    /// As [`Fs::lookup`].
    pub async fn named(
        &self,
        parent: FileId,
        name: &[u8],
    ) -> Result<Option<(FileId, FileType)>, FsError> {
        self.check_open()?;
        check_name(name)?;
        let dir = self.inode(parent.inode)?;
        let _pin = dir.entry.pin(Want::read()).await?;
        let found = self.find(&dir, parent, name).await?;
        Ok(found.map(|found| (found.file, found.file_type)))
    }

    /// The attributes of a file.
    ///
    /// # Errors
    /// [`FsError::Stale`] when it is gone.
    pub async fn getattr(&self, file: FileId) -> Result<Entry, FsError> {
        self.check_open()?;
        let inode = self.inode(file.inode)?;
        let pin = inode.entry.pin(Want::read()).await?;
        let attributes = self.attributes_of(&inode, file).await?;
        let pin = self.show_end(&inode, &attributes, pin).await?;
        let attributes_kept = kernel_keeps_attributes(&inode);
        let keep = Keep { name: false, attributes: attributes_kept, pins: vec![pin] };
        Ok(Entry { attributes, keep })
    }

    /// The directory that holds a directory, for export by handle and for `..`.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::Stale`].
    pub async fn parent(&self, dir: FileId) -> Result<FileId, FsError> {
        let inode = self.inode(dir.inode)?;
        let _pin = inode.entry.pin(Want::read()).await?;
        self.settle(|| {
            inode.with_file(dir, |state| {
                super::locking::check_directory(state)?;
                Ok(state.core().parent())
            })
        })
        .await
    }

    /// The attributes of an inode that is pinned.
    pub(crate) async fn attributes_of(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
    ) -> Result<Attributes, FsError> {
        let (attributes, seen) = self
            .settle(|| {
                inode.with_file(file, |state| {
                    let mut attributes = state.core().attributes(inode.no);
                    // What is promised will be allocated: du does not change behind a write-back.
                    attributes.blocks += state.pages.promised_len();
                    Ok((attributes, state.replaced.seen()))
                })
            })
            .await?;
        inode.shown(seen).await;
        Ok(attributes)
    }

    /// Attributes of a file that the request under way names have changed, and the kernel does not
    /// take it for a request that changes them: answers from before that its threads have yet to take
    /// in count no more. The caller has the inode pinned for itself, and answers behind this.
    ///
    /// It outdates them by itself behind SETATTR, WRITE, COPY_FILE_RANGE, OPEN with O_TRUNC, FALLOCATE
    /// that may grow the file, and of what UNLINK, RMDIR and RENAME take a name from (fs/fuse/dir.c,
    /// fs/fuse/file.c: `attr_version`); not behind the rest, nor for the directories.
    pub(crate) fn outdate_attributes(&self, inode: &Inode, file: FileId) {
        let was_told = std::mem::take(&mut inode.state.lock().kernel.attributes);
        if was_told && is_kept(Rule::OutdateAnswers) {
            self.env.kernel.outdate_attributes(file);
        }
    }

    /// May the kernel keep what it learns of a directory's names? Noted, so that the surrender of
    /// the directory takes it back. The caller holds a pin on the directory.
    pub(crate) fn kernel_keeps_names(&self, dir: &Inode) -> bool {
        let mut state = dir.state.lock();
        if dir.entry.is_closing() {
            return false;
        }
        state.kernel.names = true;
        true
    }
}

/// As [`Fs::kernel_keeps_names`], for attributes. Those that are not to be kept are noted as well: the
/// kernel goes by their size until it asks again, and takes them in whenever its thread goes on, even
/// when others have changed the file since, unless it was told to forget in between.
pub(crate) fn kernel_keeps_attributes(inode: &Inode) -> bool {
    let mut state = inode.state.lock();
    state.kernel.attributes = true;
    !inode.entry.is_closing()
}

/// Does an entry's inode come behind its directory in the order of locks?
fn comes_after(entry: &Dirent, dir: FileId) -> bool {
    entry.file_type != FileType::Directory || entry.file.inode > dir.inode
}
