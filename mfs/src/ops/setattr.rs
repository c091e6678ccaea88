//! setattr: mode, owner, times, size.

use std::sync::Arc;

use lcl::pin::{Pin, Want};
use mx_base::Timestamp;

use super::lookup::{Entry, Keep};
use crate::block::{BLOCK_SIZE_U64, as_usize};
use crate::error::FsError;
use crate::file::{FILE_SIZE_MAX, FileId, FileType, PERMISSIONS};
use crate::fs::Fs;
use crate::inode::Inode;
use crate::inode::pages::page_of;
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    Now,
    To(Timestamp),
}

/// What to change; `None` leaves an attribute alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits.
    pub permissions: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

impl Fs {
    /// Changes attributes and returns them; the kernel does not keep them ([`Keep::attributes`]).
    ///
    /// # Errors
    /// [`FsError::Stale`]; for a size also [`FsError::IsDirectory`], [`FsError::FileTooLarge`],
    /// [`FsError::NoSpace`].
    pub async fn setattr(&self, file: FileId, set: &SetAttributes) -> Result<Entry, FsError> {
        self.check_writable()?;
        let inode = self.inode(file.inode)?;
        let pin = inode.entry.pin(Want::write()).await?;
        if let Some(size) = set.size {
            self.resize(&inode, &pin, file, size).await?;
        }
        let others = SetAttributes { size: None, ..*set };
        if others != SetAttributes::default() {
            self.set_others(&inode, &pin, file, &others).await?;
        }
        let attributes = self.attributes_of(&inode, file).await?;
        Ok(Entry { attributes, keep: Keep { pins: vec![pin], ..Keep::default() } })
    }

    async fn set_others(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        set: &SetAttributes,
    ) -> Result<(), FsError> {
        let file_type =
            self.settle(|| inode.with_file(file, |state| Ok(state.core().file_type()))).await?;
        if set.permissions.is_some() && file_type == FileType::SymbolicLink {
            // As the kernel has it (fs/attr.c, notify_change): links have no mode of their own.
            return Err(FsError::Unsupported);
        }
        let now = self.now();
        self.change(inode, 1, |state, tx| {
            inode.block()?;
            let core = state.core_mut();
            let a = &mut core.attributes;
            if let Some(permissions) = set.permissions {
                let kept = a.mode.get() & !PERMISSIONS;
                a.mode.set(kept | (permissions & PERMISSIONS));
            }
            if let Some(uid) = set.uid {
                a.uid.set(uid);
            }
            if let Some(gid) = set.gid {
                a.gid.set(gid);
            }
            for (time, field) in [(set.atime, &mut a.atime), (set.mtime, &mut a.mtime)] {
                match time {
                    Some(SetTime::Now) => *field = now.into(),
                    Some(SetTime::To(time)) => *field = time.into(),
                    None => {}
                }
            }
            core.touch_ctime(now);
            inode.stage_core(tx, pin, core)
        })
        .await?;
        self.note_dirty(inode, &inode.state.lock());
        Ok(())
    }

    /// Cuts an open file to `size`.
    pub(crate) async fn truncate(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        size: u64,
    ) -> Result<(), FsError> {
        let pin = inode.entry.pin(Want::write()).await?;
        self.resize(inode, &pin, file, size).await
    }

    async fn resize(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        size: u64,
    ) -> Result<(), FsError> {
        if size > FILE_SIZE_MAX {
            return Err(FsError::FileTooLarge);
        }
        let old = self
            .settle(|| {
                inode.with_file(file, |state| match state.core().file_type() {
                    FileType::Regular => Ok(state.core().size()),
                    FileType::Directory => Err(FsError::IsDirectory.into()),
                    FileType::SymbolicLink
                    | FileType::BlockDevice
                    | FileType::CharDevice
                    | FileType::Fifo
                    | FileType::Socket => {
                        Err(FsError::Invalid("only regular files have a size").into())
                    }
                })
            })
            .await?;
        if size > old {
            self.cut_leftovers(inode, file, pin, size).await?;
            return self.extend(inode, file, size).await;
        }
        self.shrink(inode, pin, size).await
    }

    async fn shrink(&self, inode: &Arc<Inode>, pin: &Pin, size: u64) -> Result<(), FsError> {
        self.settle(|| inode.block().map(|_| ())).await?;
        let now = self.now();
        self.cut_blocks(inode, pin, size, false, |state, tx| {
            let own = inode.block()?;
            let inside = (size % BLOCK_SIZE_U64) as usize;
            let first_gone = size.div_ceil(BLOCK_SIZE_U64);
            if state.core().area() == AreaKind::Bytes {
                // The dirty page is the truth; without one, the bytes in the inode are.
                let page = state.pages.get(0).map(|p| p.to_boxed());
                let on_disk: &mut InodeBlock = tx.change(pin, &inode.set, &own).get_mut();
                let kept = as_usize(state.core().durable_size.min(size)).min(on_disk.area.len());
                if let Some(page) = page {
                    on_disk.area[..kept].copy_from_slice(&page.0[..kept]);
                }
                on_disk.area[kept..].fill(0);
            }
            let promised = state.pages.truncate(first_gone);
            self.space.settle(promised);
            if inside > 0 {
                state.pages.zero_tail(page_of(size), inside);
            }
            let core = state.core_mut();
            core.attributes.size.set(size);
            core.durable_size = core.durable_size.min(size);
            core.touch_mtime(now);
            inode.stage_core(tx, pin, core)
        })
        .await?;
        self.note_dirty(inode, &inode.state.lock());
        Ok(())
    }
}
