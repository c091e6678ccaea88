//! getxattr, setxattr, removexattr, listxattr; ACLs among them, which say what the mode says.
//!
//! Checks no right to an attribute: the kernel does, and it alone knows whose list of names may show
//! those of `trusted`.

use std::sync::Arc;

use lcl::pin::{Pin, Want};

use crate::acl::Acl;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::{Core, Inode};
use crate::ops::lookup::kernel_keeps_attributes;
use crate::xattr::{Name, Namespace, VALUE_MAX, Xattrs};

/// Set-group-ID.
const SET_GID: u32 = 0o2000;

/// How an attribute is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetXattr {
    /// It must not be there (`XATTR_CREATE`). Does not count for ACLs.
    pub create: bool,
    /// It must be there (`XATTR_REPLACE`). Does not count for ACLs.
    pub replace: bool,
    /// With an access ACL, by somebody who is not in the group of the file: set-group-ID goes
    /// (`FUSE_SETXATTR_ACL_KILL_SGID`).
    pub clear_sgid: bool,
}

impl Fs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// [`FsError::NoXattr`] when it is not there; [`FsError::Unsupported`] for a name of no known
    /// namespace, and for an ACL of a symbolic link; [`FsError::OutOfRange`], [`FsError::Invalid`] for
    /// one that is no name; [`FsError::Stale`].
    pub async fn get_xattr(&self, file: FileId, name: &[u8]) -> Result<Vec<u8>, FsError> {
        self.check_open()?;
        let name = Name::parse(name)?;
        let (file_type, xattrs, _pin) = self.read_xattrs(file).await?;
        if name.namespace.is_acl() && file_type == FileType::SymbolicLink {
            return Err(FsError::Unsupported);
        }
        xattrs.get(&name).map(<[u8]>::to_vec).ok_or(FsError::NoXattr)
    }

    /// The names of all attributes, each with a zero byte behind it: at most
    /// [`crate::xattr::LIST_MAX`] bytes.
    ///
    /// # Errors
    /// [`FsError::Stale`].
    pub async fn list_xattrs(&self, file: FileId) -> Result<Vec<u8>, FsError> {
        self.check_open()?;
        let (_, xattrs, _pin) = self.read_xattrs(file).await?;
        Ok(xattrs.list())
    }

    /// Sets an attribute, whole. An access ACL sets the permissions too, and is not kept where they
    /// say all that it does; one without entries removes it.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::NoXattr`] as `how` has it; [`FsError::XattrTooLarge`] beyond
    /// 64 KiB, or 511 entries of an ACL; [`FsError::NoSpace`] when the attributes of the file become
    /// too much together, or the device is full; [`FsError::NotPermitted`] for `user.` on what is
    /// neither file nor directory, and on what is immutable or append-only; [`FsError::Refused`] for a default ACL on what is no directory;
    /// [`FsError::Invalid`] for a malformed ACL; for names as [`Fs::get_xattr`]. Nothing has changed
    /// then.
    pub async fn set_xattr(
        &self,
        file: FileId,
        name: &[u8],
        value: &[u8],
        how: SetXattr,
    ) -> Result<(), FsError> {
        let _change = self.begin_change().await?;
        let name = Name::parse(name)?;
        if !self.xattrs {
            return Err(FsError::Unsupported);
        }
        if value.len() > VALUE_MAX {
            return Err(FsError::XattrTooLarge);
        }
        let (inode, pin) = self.pin_to_change(file, &name).await?;
        if name.namespace.is_acl() {
            let acl = Acl::parse(value)?;
            return self.set_acl(&inode, &pin, file, &name, acl, how.clear_sgid).await;
        }
        let now = self.now();
        self.edit_xattrs(&inode, &pin, file, |xattrs, core| {
            check_presence(xattrs, &name, how)?;
            xattrs.set(&name, value.to_vec())?;
            core.touch_ctime(now);
            Ok(())
        })
        .await
    }

    /// Removes an attribute. Without its ACL a file keeps its mode.
    ///
    /// # Errors
    /// [`FsError::NoXattr`] when it is not there, an ACL excepted; for names as [`Fs::get_xattr`], for
    /// types of files as [`Fs::set_xattr`].
    pub async fn remove_xattr(&self, file: FileId, name: &[u8]) -> Result<(), FsError> {
        let _change = self.begin_change().await?;
        let name = Name::parse(name)?;
        let (inode, pin) = self.pin_to_change(file, &name).await?;
        let has = self
            .settle(|| {
                let may = inode.with_file(file, |state| Ok(state.core().may_have_xattrs()))?;
                let tx = self.transaction();
                Ok(may && inode.xattrs(&tx)?.get(&name).is_some())
            })
            .await?;
        if !has {
            return if name.namespace.is_acl() { Ok(()) } else { Err(FsError::NoXattr) };
        }
        let now = self.now();
        self.edit_xattrs(&inode, &pin, file, |xattrs, core| {
            xattrs.remove(&name);
            core.touch_ctime(now);
            Ok(())
        })
        .await
    }

    async fn set_acl(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        name: &Name,
        acl: Option<Acl>,
        clear_sgid: bool,
    ) -> Result<(), FsError> {
        let now = self.now();
        let file_type =
            self.settle(|| inode.with_file(file, |state| Ok(state.core().file_type()))).await?;
        let is_default = name.namespace == Namespace::DefaultAcl;
        if is_default && acl.is_some() && file_type != FileType::Directory {
            return Err(FsError::Refused("a default ACL is for directories"));
        }
        self.edit_xattrs(inode, pin, file, |xattrs, core| {
            let Some(acl) = &acl else {
                if xattrs.remove(name) {
                    core.touch_ctime(now);
                }
                return Ok(());
            };
            if !is_default {
                let mode = &mut core.attributes.mode;
                let kept = if clear_sgid { !(0o777 | SET_GID) } else { !0o777 };
                mode.set(mode.get() & kept | acl.permissions());
            }
            if !is_default && acl.is_mode() {
                xattrs.remove(name);
            } else {
                xattrs.set(name, acl.encode())?;
            }
            core.touch_ctime(now);
            Ok(())
        })
        .await
    }

    /// All attributes of a file, under its lock. The kernel keeps ACLs that it has been told, until it
    /// is told to forget the attributes.
    async fn read_xattrs(&self, file: FileId) -> Result<(FileType, Xattrs, Pin), FsError> {
        let inode = self.inode(file.inode)?;
        loop {
            let pin = inode.entry.pin(Want::read()).await?;
            let tx = self.transaction();
            let (file_type, xattrs) = self
                .settle(|| {
                    let (file_type, may) = inode.with_file(file, |state| {
                        let core = state.core();
                        Ok((core.file_type(), core.may_have_xattrs()))
                    })?;
                    let xattrs = if may { inode.xattrs(&tx)? } else { Xattrs::default() };
                    Ok((file_type, xattrs))
                })
                .await?;
            // Where a surrender has begun, the kernel may have been told to forget before it learns
            // this.
            if kernel_keeps_attributes(&inode) {
                return Ok((file_type, xattrs, pin));
            }
        }
    }

    /// The inode, pinned for itself, if files of its type may have such an attribute.
    async fn pin_to_change(&self, file: FileId, name: &Name) -> Result<(Arc<Inode>, Pin), FsError> {
        let inode = self.inode(file.inode)?;
        let pin = inode.entry.pin(Want::write()).await?;
        let file_type =
            self.settle(|| inode.with_file(file, |state| Ok(state.core().file_type()))).await?;
        self.check_flags(&inode, Core::check_may_lose).await?;
        match (name.namespace, file_type) {
            (Namespace::Acl | Namespace::DefaultAcl, FileType::SymbolicLink) => {
                Err(FsError::Unsupported)
            }
            (Namespace::User, FileType::Regular | FileType::Directory)
            | (
                Namespace::Trusted | Namespace::Security | Namespace::Acl | Namespace::DefaultAcl,
                _,
            ) => Ok((inode, pin)),
            (Namespace::User, _) => {
                Err(FsError::NotPermitted("user attributes are for files and directories"))
            }
        }
    }
}

fn check_presence(xattrs: &Xattrs, name: &Name, how: SetXattr) -> Result<(), FsError> {
    let is_there = xattrs.get(name).is_some();
    if how.create && is_there {
        return Err(FsError::Exists);
    }
    if how.replace && !is_there {
        return Err(FsError::NoXattr);
    }
    Ok(())
}
