//! Flags of files (`chattr(1)`), and what they forbid (EPERM).
//!
//! As Linux has it: an immutable object is not written, cut, linked, renamed or removed, none of its
//! attributes changes, and an immutable directory keeps its entries; of one that is append-only nothing
//! is lost. Who may set them is the kernel's to say (`CAP_LINUX_IMMUTABLE`). What a mapping has stored
//! before is written all the same.

use std::sync::Arc;

use lcl::pin::{Pin, Want};
use zerocopy::little_endian::U32;

use super::locking::Pinned;
use super::open::OpenFlags;
use crate::dir::Dirent;
use crate::error::FsError;
use crate::file::{FileFlags, FileId, FileType};
use crate::fs::Fs;
use crate::inode::{Core, Inode};
use crate::ondisk::inode::InodeCore;

impl FileFlags {
    const BITS: u32 = InodeCore::IMMUTABLE | InodeCore::APPEND_ONLY | InodeCore::NO_ATIME;

    pub(crate) fn of(core: &InodeCore) -> FileFlags {
        let has = |bit| core.flags.get() & bit != 0;
        FileFlags {
            immutable: has(InodeCore::IMMUTABLE),
            append_only: has(InodeCore::APPEND_ONLY),
            no_atime: has(InodeCore::NO_ATIME),
        }
    }

    fn put(self, flags: U32) -> U32 {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        let bits = bit(self.immutable, InodeCore::IMMUTABLE)
            | bit(self.append_only, InodeCore::APPEND_ONLY)
            | bit(self.no_atime, InodeCore::NO_ATIME);
        U32::new(flags.get() & !FileFlags::BITS | bits)
    }
}

impl Core {
    pub(crate) fn flags(&self) -> FileFlags {
        FileFlags::of(&self.attributes)
    }

    /// May anything come to it: bytes, entries?
    pub(crate) fn check_may_gain(&self) -> Result<(), FsError> {
        if self.flags().immutable { Err(FsError::NotPermitted("immutable")) } else { Ok(()) }
    }

    /// May anything of it go or change: bytes, entries, names, attributes?
    pub(crate) fn check_may_lose(&self) -> Result<(), FsError> {
        self.check_may_gain()?;
        if self.flags().append_only { Err(FsError::NotPermitted("append-only")) } else { Ok(()) }
    }

    /// May it be opened so?
    pub(crate) fn check_may_open(&self, flags: OpenFlags) -> Result<(), FsError> {
        match flags {
            OpenFlags { truncate: true, .. } => self.check_may_lose(),
            OpenFlags { write: true, append: true, .. } => self.check_may_gain(),
            OpenFlags { write: true, .. } => self.check_may_lose(),
            _ => Ok(()),
        }
    }
}

impl Fs {
    /// Sets all flags of a file or directory.
    ///
    /// # Errors
    /// [`FsError::Stale`], [`FsError::ReadOnly`], [`FsError::Unsupported`] for what is neither.
    pub async fn set_flags(&self, file: FileId, flags: FileFlags) -> Result<(), FsError> {
        let _change = self.begin_change().await?;
        let inode = self.inode(file.inode)?;
        let pin: Pin = inode.entry.pin(Want::write()).await?;
        let file_type =
            self.settle(|| inode.with_file(file, |state| Ok(state.core().file_type()))).await?;
        if !matches!(file_type, FileType::Regular | FileType::Directory) {
            return Err(FsError::Unsupported);
        }
        let now = self.now();
        self.change(&inode, 1, |state, tx| {
            inode.block()?;
            let core = state.core_mut();
            core.attributes.flags = flags.put(core.attributes.flags);
            core.touch_ctime(now);
            inode.stage_core(tx, &pin, core)
        })
        .await?;
        self.note_dirty(&inode, &inode.state.lock());
        self.outdate_attributes(&inode, file);
        Ok(())
    }

    /// The flags of a file.
    ///
    /// # Errors
    /// As [`Fs::getattr`].
    pub async fn flags(&self, file: FileId) -> Result<FileFlags, FsError> {
        Ok(self.getattr(file).await?.attributes.flags)
    }

    /// Holds what flags forbid against a pinned inode.
    pub(super) async fn check_flags(
        &self,
        inode: &Arc<Inode>,
        check: fn(&Core) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        self.settle(|| inode.with_core(|state| Ok(check(state.core())?))).await
    }

    /// May an entry of a pinned directory go, or lead elsewhere?
    pub(super) async fn check_may_go(
        &self,
        pinned: &Pinned,
        dir: FileId,
        entry: Dirent,
    ) -> Result<(), FsError> {
        self.check_flags(pinned.inode(dir.inode), Core::check_may_lose).await?;
        self.check_flags(pinned.inode(entry.file.inode), Core::check_may_lose).await
    }
}
