//! create, mknod, mkdir, symlink: a new inode and its name, in one transaction.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Pin, Want};
use zerocopy::little_endian::{U32, U64};

use super::lookup::{Entry, Keep, kernel_keeps_attributes};
use super::new_inode::NewInode;
use super::open::{OpenFile, OpenFlags};
use super::{check_name, symlink};
use crate::acl::{Acl, Inherited};
use crate::alloc::claim::Use;
use crate::alloc::{Needs, PinnedGroup};
use crate::cache::{CachedBlock, Step};
use crate::dir::{Directory, DirectoryEditor, area};
use crate::error::FsError;
use crate::file::{FileId, FileType, PERMISSIONS};
use crate::fs::Fs;
use crate::inode::extents::Grown;
use crate::inode::xattrs::Place;
use crate::inode::{Core, Inode};
use crate::journal::Transaction;
use crate::ondisk::header::{Header, Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore};
use crate::xattr::{Name, Xattrs};

/// Set-group-ID: on a directory, new entries take its group.
pub(super) const SET_GID: u32 = 0o2000;
/// Blocks that adding one entry to a directory can need.
pub(crate) const NODES_PER_ENTRY: u64 = 10;
/// The most links a file may have.
pub(crate) const LINKS_MAX: u32 = i32::MAX as u32;

/// What a new file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewKind<'a> {
    Regular,
    Directory,
    /// With its target.
    SymbolicLink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice(u32),
    BlockDevice(u32),
}

/// A file about to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFile<'a> {
    pub kind: NewKind<'a>,
    /// Permission bits, without the umask.
    pub permissions: u32,
    /// Applied where the directory has no default ACL; never to a symbolic link.
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
}

impl NewFile<'_> {
    fn file_type(&self) -> FileType {
        match self.kind {
            NewKind::Regular => FileType::Regular,
            NewKind::Directory => FileType::Directory,
            NewKind::SymbolicLink(_) => FileType::SymbolicLink,
            NewKind::Fifo => FileType::Fifo,
            NewKind::Socket => FileType::Socket,
            NewKind::CharDevice(_) => FileType::CharDevice,
            NewKind::BlockDevice(_) => FileType::BlockDevice,
        }
    }
}

/// A file just made, its lock still held exclusively.
struct Created {
    entry: Entry,
    inode: Arc<Inode>,
}

impl Fs {
    /// Makes a file.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::NotFound`] when the directory was removed,
    /// [`FsError::NoSpace`], [`FsError::NameTooLong`], [`FsError::ReadOnly`].
    pub async fn create(
        &self,
        parent: FileId,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> Result<Entry, FsError> {
        Ok(self.make(parent, name, new).await?.entry)
    }

    /// Makes a regular file and opens it.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub async fn create_and_open(
        &self,
        parent: FileId,
        name: &[u8],
        new: &NewFile<'_>,
        flags: OpenFlags,
    ) -> Result<(Entry, OpenFile), FsError> {
        let Created { entry, inode } = self.make(parent, name, new).await?;
        // Nobody can have a file open that is as new as this: at most an idle lock of an earlier
        // file in this place comes back first.
        let open_pin = inode.open_entry.pin(Want::shared(Mode::CR)).await?;
        let open = OpenFile::new(entry.attributes.file, inode, open_pin, flags);
        Ok((entry, open))
    }

    async fn make(
        &self,
        parent: FileId,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> Result<Created, FsError> {
        let _change = self.begin_change().await?;
        check_name(name)?;
        let spilled = symlink::check_target(new.kind)?;
        if spilled {
            self.promise_space(Use::Data, 1).await?;
        }
        let made = self.make_promised(parent, name, new, spilled).await;
        if spilled {
            self.space.settle(1);
        }
        made
    }

    async fn make_promised(
        &self,
        parent: FileId,
        name: &[u8],
        new: &NewFile<'_>,
        spilled: bool,
    ) -> Result<Created, FsError> {
        let dir = self.inode(parent.inode)?;
        let dir_pin = dir.entry.pin(Want::write()).await?;
        if self.find(&dir, parent, name).await?.is_some() {
            return Err(FsError::Exists);
        }
        let (dir_gid, dir_mode, dir_links) = {
            let state = dir.state.lock();
            let a = &state.core().attributes;
            (a.gid.get(), a.mode.get(), a.links.get())
        };
        if dir_links == 0 {
            return Err(FsError::NotFound);
        }
        self.check_flags(&dir, Core::check_may_gain).await?;
        if new.kind == NewKind::Directory && dir_links >= LINKS_MAX {
            return Err(FsError::TooManyLinks);
        }
        let mut new = *new;
        if dir_mode & SET_GID != 0 {
            new.gid = dir_gid;
            if new.kind == NewKind::Directory {
                new.permissions |= SET_GID;
            }
        }
        let xattrs = self.inherited(&dir, parent, &mut new).await?;
        let place = Place::of_new(&xattrs);
        let xattr_blocks = place.blocks() as u64;
        let mut provided = 0;
        loop {
            // One group for all: which others might be needed could not be known in order.
            let tree = provided + xattr_blocks;
            let needs = Needs { inodes: 1, tree, data: u64::from(spilled) };
            let NewInode { group, inode, pin } = self.new_inode(needs).await?;
            let target =
                if spilled { Some(self.write_target(&group, new.kind).await?) } else { None };
            let maker = Maker {
                fs: self,
                parent,
                dir: &dir,
                dir_pin: &dir_pin,
                group: &group,
                inode: &inode,
                pin: &pin,
                target: target.as_ref(),
                xattrs: &xattrs,
                place,
            };
            let blocks = 32 + 3 * place.blocks();
            let made = self.transact(blocks, |tx| maker.make(tx, name, &new)).await?;
            if !made {
                // The directory grows, and the group has no block for that.
                assert_eq!(provided, 0, "room for the directory was provided");
                provided = NODES_PER_ENTRY;
                continue;
            }
            self.outdate_attributes(&dir, parent);
            let attributes = inode.state.lock().core().attributes(inode.no);
            self.env.kernel.remember(attributes.file);
            let keep = Keep {
                name: self.kernel_keeps_names(&dir),
                attributes: kernel_keeps_attributes(&inode),
                pins: vec![dir_pin, pin],
            };
            return Ok(Created { entry: Entry { attributes, keep }, inode });
        }
    }

    /// What a new file gets from the default ACL of its directory, and its permissions with that, or
    /// with the umask where there is none. The directory is pinned.
    pub(super) async fn inherited(
        &self,
        dir: &Arc<Inode>,
        parent: FileId,
        new: &mut NewFile<'_>,
    ) -> Result<Xattrs, FsError> {
        let mut xattrs = Xattrs::default();
        if matches!(new.kind, NewKind::SymbolicLink(_)) {
            return Ok(xattrs);
        }
        let default = self.settle(|| default_acl_of(dir, parent, &self.transaction())).await?;
        let Some(default) = default else {
            new.permissions &= !(new.umask & 0o777);
            return Ok(xattrs);
        };
        let Inherited { permissions, acl } = default.inherit(new.permissions);
        new.permissions = permissions;
        if let Some(acl) = acl {
            xattrs.set(&Name::ACL, acl.encode())?;
        }
        if new.kind == NewKind::Directory {
            xattrs.set(&Name::DEFAULT_ACL, default.encode())?;
        }
        Ok(xattrs)
    }
}

fn default_acl_of(dir: &Arc<Inode>, parent: FileId, tx: &Transaction) -> Step<Option<Acl>> {
    let has =
        dir.with_file(parent, |state| Ok(state.core().has_xattr(InodeCore::HAS_DEFAULT_ACL)))?;
    if has { Ok(dir.xattrs(tx)?.acl(&Name::DEFAULT_ACL)) } else { Ok(None) }
}

/// Everything that making a file works on.
pub(super) struct Maker<'a> {
    pub(super) fs: &'a Fs,
    pub(super) parent: FileId,
    pub(super) dir: &'a Arc<Inode>,
    pub(super) dir_pin: &'a Pin,
    pub(super) group: &'a PinnedGroup,
    pub(super) inode: &'a Arc<Inode>,
    pub(super) pin: &'a Pin,
    pub(super) target: Option<&'a symlink::WrittenTarget>,
    pub(super) xattrs: &'a Xattrs,
    pub(super) place: Place,
}

impl Maker<'_> {
    /// The inode, without its name.
    pub(super) fn make_inode(
        &self,
        tx: &mut Transaction,
        new: &NewFile<'_>,
    ) -> Step<(Arc<CachedBlock>, FileId)> {
        let block = self.group.take_inode(tx, self.inode.block_no())?;
        let generation = Header::of(&tx.see(&block)).owner().generation + 1;
        let owner = Owner { id: self.inode.no.0, generation };
        let (group_pin, group_set) = (&self.group.pin, &self.group.group.set);
        let data =
            tx.adopt(group_pin, group_set, &block, self.pin, &self.inode.set, Kind::Inode, owner);
        let on_disk: &mut InodeBlock = data.get_mut();
        self.fill(on_disk, new, generation);
        if let Some(target) = self.target {
            target.take(tx, self.group, self.inode, self.pin, generation)?;
        }
        if self.place != Place::Inline(0) {
            let count = self.place.blocks();
            if !self.inode.add_xattr_blocks(tx, self.pin, self.group, count)? {
                return Err(FsError::NoSpace.into());
            }
            self.inode.store_xattrs(tx, self.pin, self.xattrs, self.place)?;
        }
        tx.use_inodes(1);
        Ok((block, FileId { inode: self.inode.no, generation }))
    }

    /// False when the group has no block for the directory to grow.
    fn make(&self, tx: &mut Transaction, name: &[u8], new: &NewFile<'_>) -> Step<bool> {
        let (block, file) = self.make_inode(tx, new)?;
        let dir = Directory { inode: self.dir, key: &self.fs.hash_key };
        let mut editor = DirectoryEditor { dir, pin: self.dir_pin, group: Some(self.group), tx };
        if let Grown::NoRoom = editor.insert(name, file, new.file_type())? {
            tx.abandon();
            return Ok(false);
        }

        self.dir.edit_core(tx, self.dir_pin, |core| {
            core.touch_mtime(self.fs.now());
            core.add_entries(1);
            core.add_links(i32::from(new.kind == NewKind::Directory));
            Ok(())
        })?;
        let core = Core::of(&tx.see(&block).get::<InodeBlock>().core);
        tx.set_pending_core(self.inode, core);
        Ok(true)
    }

    fn fill(&self, on_disk: &mut InodeBlock, new: &NewFile<'_>, generation: u32) {
        let file_type = new.file_type();
        let core = &mut on_disk.core;
        core.mode = U32::new(file_type.mode_bits() | (new.permissions & PERMISSIONS));
        core.uid = U32::new(new.uid);
        core.gid = U32::new(new.gid);
        core.links = U32::new(1);
        let now = self.fs.now().into();
        (core.atime, core.mtime, core.ctime, core.btime) = (now, now, now, now);
        core.generation = U32::new(generation);
        let area = match new.kind {
            NewKind::Regular => AreaKind::Bytes,
            NewKind::Directory => {
                core.links = U32::new(2);
                core.parent = U64::new(self.parent.inode.0);
                core.parent_generation = U32::new(self.parent.generation);
                area::clear(&mut on_disk.area);
                AreaKind::Entries
            }
            NewKind::SymbolicLink(target) => {
                core.size = U64::new(target.len() as u64);
                if self.target.is_none() {
                    on_disk.area[..target.len()].copy_from_slice(target);
                }
                AreaKind::Bytes
            }
            NewKind::CharDevice(rdev) | NewKind::BlockDevice(rdev) => {
                core.rdev = U32::new(rdev);
                AreaKind::Empty
            }
            NewKind::Fifo | NewKind::Socket => AreaKind::Empty,
        };
        on_disk.core.area = area as u8;
    }
}
