//! setattr: mode, owner, times, size.

use std::sync::Arc;

use lcl::pin::{Pin, Want};
use mx_base::Timestamp;

use super::lookup::{Entry, Keep};
use crate::block::{BLOCK_SIZE_U64, as_usize};
use crate::error::FsError;
use crate::file::{FILE_SIZE_MAX, FileId, FileType, PERMISSIONS};
use crate::fs::Fs;
use crate::inode::pages::page_of;
use crate::inode::{Core, Inode};
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore};
use crate::xattr::Name;

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
    /// Of what is no directory: set-user-ID goes, and set-group-ID where the group may execute.
    /// `security.capability` goes with every change of owner, group or size.
    pub kill_privileges: bool,
}

impl SetAttributes {
    /// What flags may forbid it. The kernel sets times to now wherever a file may be written.
    fn check(&self) -> fn(&Core) -> Result<(), FsError> {
        let SetAttributes { permissions, uid, gid, size, atime, mtime, kill_privileges: _ } = self;
        let owned = [permissions, uid, gid].iter().any(|change| change.is_some());
        let is_set = |time: &Option<SetTime>| matches!(time, Some(SetTime::To(_)));
        if owned || size.is_some() || is_set(atime) || is_set(mtime) {
            Core::check_may_lose
        } else {
            Core::check_may_gain
        }
    }
}

impl Fs {
    /// Changes attributes and returns them; the kernel does not keep them ([`Keep::attributes`]).
    ///
    /// # Errors
    /// [`FsError::Stale`]; for a size also [`FsError::IsDirectory`], [`FsError::FileTooLarge`],
    /// [`FsError::NoSpace`].
    pub async fn setattr(&self, file: FileId, set: &SetAttributes) -> Result<Entry, FsError> {
        let _change = self.begin_change().await?;
        let inode = self.inode(file.inode)?;
        let pin = inode.entry.pin(Want::write()).await?;
        self.check_flags(&inode, set.check()).await?;
        if let Some(size) = set.size {
            self.resize(&inode, &pin, file, size).await?;
        }
        let others = SetAttributes { size: None, ..*set };
        let was_cut = set.size.is_some() && self.has_capability(&inode, file).await?;
        if others != SetAttributes::default() || was_cut {
            self.set_others(&inode, &pin, file, &others, set.size.is_some()).await?;
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
        resized: bool,
    ) -> Result<(), FsError> {
        let (file_type, kinds) = self
            .settle(|| {
                inode.with_file(file, |state| {
                    let core = state.core();
                    Ok((core.file_type(), core.attributes.xattr_kinds))
                })
            })
            .await?;
        if set.permissions.is_some() && file_type == FileType::SymbolicLink {
            // As the kernel has it (fs/attr.c, notify_change): links have no mode of their own.
            return Err(FsError::Unsupported);
        }
        let now = self.now();
        let changes_acl = set.permissions.is_some() && kinds & InodeCore::HAS_ACL != 0;
        let changes_owner = set.uid.is_some() || set.gid.is_some();
        let drops_capability = kinds & InodeCore::HAS_CAPABILITY != 0
            && file_type != FileType::Directory
            && (resized || changes_owner || set.kill_privileges);
        if changes_acl || drops_capability {
            return self
                .edit_xattrs(inode, pin, file, |xattrs, core| {
                    lay_over(core, set, now);
                    if drops_capability {
                        xattrs.remove(&Name::capability());
                    }
                    if changes_acl && let Some(mut acl) = xattrs.acl(&Name::ACL) {
                        acl.set_permissions(core.attributes.mode.get());
                        xattrs.set(&Name::ACL, acl.encode())?;
                    }
                    Ok(())
                })
                .await;
        }
        self.change(inode, 1, |state, tx| {
            inode.block()?;
            let core = state.core_mut();
            lay_over(core, set, now);
            inode.stage_core(tx, pin, core)
        })
        .await?;
        self.note_dirty(inode, &inode.state.lock());
        Ok(())
    }

    async fn has_capability(&self, inode: &Arc<Inode>, file: FileId) -> Result<bool, FsError> {
        self.settle(|| inode.with_file(file, |s| Ok(s.core().has_xattr(InodeCore::HAS_CAPABILITY))))
            .await
    }

    /// Before a file is written to: what [`privileges_at_stake`] finds goes. `pin` holds the inode
    /// exclusively.
    pub(crate) async fn drop_privileges(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        set_ids: bool,
    ) -> Result<(), FsError> {
        let at_stake = self
            .settle(|| {
                inode.with_file(file, |state| Ok(privileges_at_stake(state.core(), set_ids)))
            })
            .await?;
        if !at_stake {
            return Ok(());
        }
        let set = SetAttributes { kill_privileges: set_ids, ..SetAttributes::default() };
        self.set_others(inode, pin, file, &set, true).await
    }

    /// Cuts an open file to `size`.
    pub(crate) async fn truncate(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        size: u64,
        kill_privileges: bool,
    ) -> Result<(), FsError> {
        let pin = inode.entry.pin(Want::write()).await?;
        self.resize(inode, &pin, file, size).await?;
        self.drop_privileges(inode, &pin, file, kill_privileges).await
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
                let kept = as_usize(state.core().durable_size.min(size)).min(on_disk.core.room());
                if let Some(page) = page {
                    on_disk.area[..kept].copy_from_slice(&page.0[..kept]);
                }
                on_disk.body_mut()[kept..].fill(0);
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

/// Set-user-ID, and set-group-ID and the group's right to execute, without which it means something
/// else.
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// The mode without what whoever changes a file of another must not leave to it.
fn without_privileges(mode: u32) -> u32 {
    let set_gid = if mode & GROUP_EXECUTES != 0 { SET_GID } else { 0 };
    mode & !(SET_UID | set_gid)
}

/// Does a change of its contents take something from the file? `security.capability` always goes, the
/// set-id bits where the writer may not keep them.
pub(crate) fn privileges_at_stake(core: &Core, set_ids: bool) -> bool {
    let mode = core.attributes.mode.get();
    core.file_type() != FileType::Directory
        && (core.has_xattr(InodeCore::HAS_CAPABILITY)
            || set_ids && without_privileges(mode) != mode)
}

/// Changes plain attributes, all but the size.
fn lay_over(core: &mut Core, set: &SetAttributes, now: Timestamp) {
    let is_directory = core.file_type() == FileType::Directory;
    let a = &mut core.attributes;
    if set.kill_privileges && !is_directory {
        a.mode.set(without_privileges(a.mode.get()));
    }
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
}
