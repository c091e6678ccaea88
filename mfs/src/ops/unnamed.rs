//! Files without a name (`O_TMPFILE`).
//!
//! Keeps true: from the transaction that makes it until the one that gives it a name, or that frees it,
//! such a file is on this slot's list of orphans, so a crash frees it. Its reaper asks nobody for OPEN
//! before the last close here: once it has a name others may open it.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::Want;

use super::create::{Maker, NewFile, NewKind, SET_GID};
use super::locking::check_directory;
use super::lookup::{Entry, Keep, kernel_keeps_attributes};
use super::new_inode::NewInode;
use super::open::{OpenFile, OpenFlags};
use crate::alloc::Needs;
use crate::error::FsError;
use crate::file::FileId;
use crate::fs::Fs;
use crate::inode::xattrs::Place;
use crate::inode::{Core, Inode};
use crate::ondisk::inode::InodeBlock;

/// A file without a name that nobody has open yet: it goes if that stays so.
struct Unopened {
    fs: Arc<Fs>,
    inode: Arc<Inode>,
    file: FileId,
}

impl Drop for Unopened {
    fn drop(&mut self) {
        self.fs.reap_unnamed_later(Arc::clone(&self.inode), self.file);
    }
}

impl Fs {
    /// Makes a regular file without a name and opens it. `dir` gives it its group, if that is
    /// set-group-ID, and its ACL. It goes with its last close, unless it is `linkable` and
    /// [`Fs::link`] has given it a name.
    ///
    /// # Errors
    /// [`FsError::NotDirectory`], [`FsError::NotFound`] when the directory was removed,
    /// [`FsError::NoSpace`], [`FsError::ReadOnly`], [`FsError::Invalid`] for another kind of file.
    pub async fn create_unnamed(
        self: &Arc<Self>,
        dir: FileId,
        new: &NewFile<'_>,
        flags: OpenFlags,
        linkable: bool,
    ) -> Result<(Entry, OpenFile), FsError> {
        let _change = self.begin_change().await?;
        if new.kind != NewKind::Regular {
            return Err(FsError::Invalid("only regular files are made without a name"));
        }
        self.make_orphan_places(1).await?;
        let parent = self.inode(dir.inode)?;
        let parent_pin = parent.entry.pin(Want::read()).await?;
        let (gid, mode, links) = self
            .settle(|| {
                parent.with_file(dir, |state| {
                    check_directory(state)?;
                    let a = &state.core().attributes;
                    Ok((a.gid.get(), a.mode.get(), a.links.get()))
                })
            })
            .await?;
        if links == 0 {
            return Err(FsError::NotFound);
        }
        self.check_flags(&parent, Core::check_may_gain).await?;
        let mut new = *new;
        if mode & SET_GID != 0 {
            new.gid = gid;
        }
        let xattrs = self.inherited(&parent, dir, &mut new).await?;
        let place = Place::of_new(&xattrs);
        let needs = Needs { inodes: 1, tree: place.blocks() as u64, data: 0 };
        let NewInode { group, inode, pin } = self.new_inode(needs).await?;
        let maker = Maker {
            fs: self,
            parent: dir,
            dir: &parent,
            dir_pin: &parent_pin,
            group: &group,
            inode: &inode,
            pin: &pin,
            target: None,
            xattrs: &xattrs,
            place,
        };
        let file = self
            .transact(32 + 3 * place.blocks(), |tx| {
                let (block, file) = maker.make_inode(tx, &new)?;
                let on_disk: &mut InodeBlock = tx.change(&pin, &inode.set, &block).get_mut();
                on_disk.core.links.set(0);
                let core = Core::of(&on_disk.core);
                tx.set_pending_core(&inode, core);
                tx.add_orphan(file);
                Ok(file)
            })
            .await?;
        let unopened = Unopened { fs: Arc::clone(self), inode: Arc::clone(&inode), file };
        drop((group, parent_pin));
        let attributes = {
            let mut state = inode.state.lock();
            state.linkable = linkable;
            state.core().attributes(inode.no)
        };
        self.env.kernel.remember(file);
        // As in a create: only an idle lock of an earlier file in this place can be in the way.
        let open_pin = inode.open_entry.pin(Want::shared(Mode::CR)).await?;
        let open = OpenFile::new(file, Arc::clone(&inode), open_pin, flags);
        drop(unopened);
        let attributes_kept = kernel_keeps_attributes(&inode);
        let keep = Keep { name: false, attributes: attributes_kept, pins: vec![pin] };
        Ok((Entry { attributes, keep }, open))
    }

    /// Frees a file without a name when nobody here has it open any more; nobody else can. In a task of
    /// its own.
    fn reap_unnamed_later(self: &Arc<Self>, inode: Arc<Inode>, file: FileId) {
        let fs = Arc::clone(self);
        self.env.runtime.spawn(Box::pin(async move {
            let closed = async {
                loop {
                    let listener = inode.closed.listen();
                    if inode.state.lock().opens == 0 {
                        break;
                    }
                    listener.await;
                }
                let _pin = inode.entry.pin(Want::read()).await?;
                fs.settle(|| inode.with_file(file, |state| Ok(state.core().links()))).await
            };
            match fs.unless_over(closed).await {
                Some(Ok(0)) => fs.reap_later(file),
                // It has a name, or is gone.
                Some(Ok(_) | Err(FsError::Stale)) | None => {}
                Some(Err(error)) => {
                    tracing::warn!(?file, %error, "file without a name not freed before a recovery");
                }
            }
        }));
    }
}
