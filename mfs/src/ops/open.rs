//! open and release.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{Either, select};
use lcl::Mode;
use lcl::pin::{Pin, Want};
use mx_base::Duration;

use super::locking::check_directory;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::{Inode, State};

/// How long an open waits before it looks again whether the file is being deleted.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpenFlags {
    pub write: bool,
    /// Every write goes to the end (`O_APPEND`).
    pub append: bool,
    /// Every write is durable when it is answered (`O_SYNC`, `O_DSYNC`).
    pub sync: bool,
    /// Cut to nothing first (`O_TRUNC`).
    pub truncate: bool,
    /// With `truncate`: as [`super::SetAttributes::kill_privileges`].
    pub kill_privileges: bool,
}

/// A file that this mount has open. Keeps the file alive in the cluster until it is released.
pub struct OpenFile {
    file: FileId,
    pub(crate) inode: Arc<Inode>,
    flags: OpenFlags,
    /// CR on OPEN(i).
    _open: Pin,
    /// Failed write-backs that this open file has been told of.
    failures_told: AtomicU64,
}

impl OpenFile {
    pub(crate) fn new(file: FileId, inode: Arc<Inode>, open: Pin, flags: OpenFlags) -> OpenFile {
        let failures = Self::count(&mut inode.state.lock(), flags);
        let failures_told = AtomicU64::new(failures);
        OpenFile { file, inode, flags, _open: open, failures_told }
    }

    /// Failed write-backs so far.
    fn count(state: &mut State, flags: OpenFlags) -> u64 {
        state.opens += 1;
        state.writers += u32::from(flags.write);
        state.failures
    }

    pub fn file(&self) -> FileId {
        self.file
    }

    pub fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// A write-back that failed since the file was opened or this was last asked.
    ///
    /// # Errors
    /// [`FsError::Damaged`], once for every open file.
    pub(crate) fn report_failures(&self) -> Result<(), FsError> {
        let failures = self.inode.state.lock().failures;
        let told = self.failures_told.swap(failures, Ordering::Relaxed);
        if failures > told { Err(FsError::Damaged) } else { Ok(()) }
    }
}

/// All pages that the kernel had are about to be dropped.
struct Dropping<'a>(&'a Inode);

impl Dropping<'_> {
    /// `None` when there are none.
    fn begin(inode: &Inode) -> Option<Dropping<'_>> {
        let mut state = inode.state.lock();
        state.kernel.pages.take()?;
        state.pages_dropped_now += 1;
        drop(state);
        Some(Dropping(inode))
    }
}

impl Drop for Dropping<'_> {
    fn drop(&mut self) {
        self.0.state.lock().pages_dropped_now -= 1;
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut state = self.inode.state.lock();
        state.opens -= 1;
        state.writers -= u32::from(self.flags.write);
        if state.writers == 0 {
            // Readers use the kernel's cache.
            let pages = state.pages.len();
            state.pages.shed_clean(pages);
        }
        let is_last = state.opens == 0;
        drop(state);
        if is_last {
            self.inode.closed.notify(usize::MAX);
        }
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFile({:?} {:?})", self.file, self.flags)
    }
}

impl Fs {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`FsError::Stale`] when it was deleted; [`FsError::IsDirectory`]; [`FsError::ReadOnly`];
    /// [`FsError::NotPermitted`] for writing what is immutable or append-only.
    pub async fn open(&self, file: FileId, flags: OpenFlags) -> Result<OpenFile, FsError> {
        if flags.write || flags.truncate {
            self.check_writable()?;
        } else {
            self.check_open()?;
        }
        let inode = self.inode(file.inode)?;
        let open_pin = self.pin_open(&inode, file).await?;
        // Under OPEN the file cannot be freed; whether it was before is seen now.
        {
            let _pin = inode.entry.pin(Want::read()).await?;
            self.check_may_open(&inode, file, flags).await?;
        }
        let open = if flags.write {
            self.open_writable(&inode, file, open_pin, flags).await?
        } else {
            OpenFile::new(file, Arc::clone(&inode), open_pin, flags)
        };
        if flags.truncate {
            let _change = self.begin_change().await?;
            self.truncate(&inode, file, 0, flags.kill_privileges).await?;
        }
        Ok(open)
    }

    /// Opens a directory: it stays alive while it is open, as a file does.
    ///
    /// # Errors
    /// [`FsError::Stale`] when it was deleted; [`FsError::NotDirectory`].
    pub async fn open_directory(&self, file: FileId) -> Result<OpenFile, FsError> {
        self.check_open()?;
        let inode = self.inode(file.inode)?;
        let open_pin = self.pin_open(&inode, file).await?;
        {
            let _pin = inode.entry.pin(Want::read()).await?;
            self.settle(|| inode.with_file(file, |state| Ok(check_directory(state)?))).await?;
        }
        Ok(OpenFile::new(file, inode, open_pin, OpenFlags::default()))
    }

    /// CR on OPEN(i), unless the file waits for its deletion: that may take until somebody else
    /// closes it, and an open does not wait so long for nothing.
    async fn pin_open(&self, inode: &Arc<Inode>, file: FileId) -> Result<Pin, FsError> {
        let want = Want::shared(Mode::CR);
        // A file that is open here cannot be deleted, whoever waits for that.
        let cached = inode.open_entry.try_pin(want).or_else(|| inode.open_entry.try_join(Mode::CR));
        if let Some(pin) = cached {
            return Ok(pin);
        }
        // In the queue all the time: only what waits there calls another node out that has kept
        // EX without need, from an earlier file in this place.
        let mut waiting = inode.open_entry.pin(want);
        loop {
            match select(waiting, self.env.runtime.sleep(LOOK_AGAIN)).await {
                Either::Left((pin, _)) => return Ok(pin?),
                Either::Right(((), still)) => waiting = still,
            }
            // OPEN may be pinned by now; INODE comes later in the order of locks.
            let _pin = inode.entry.pin(Want::read()).await?;
            let links =
                self.settle(|| inode.with_file(file, |state| Ok(state.core().links()))).await?;
            if links == 0 {
                return Err(FsError::Stale);
            }
        }
    }

    /// Is the file alive, and do its flags allow that?
    async fn check_may_open(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        flags: OpenFlags,
    ) -> Result<(), FsError> {
        self.settle(|| {
            inode.with_file(file, |state| match state.core().file_type() {
                FileType::Directory => Err(FsError::IsDirectory.into()),
                FileType::Regular
                | FileType::SymbolicLink
                | FileType::BlockDevice
                | FileType::CharDevice
                | FileType::Fifo
                | FileType::Socket => Ok(state.core().check_may_open(flags)?),
            })
        })
        .await
    }

    /// Pages that the kernel cached while nobody could write are dropped before the first open
    /// that can: from then on pages exist under EX only (`kernel-cache.md`, section 2).
    ///
    /// Dropping waits for pages that the kernel has locked and is reading; they must not wait for
    /// EX then. So this node has EX, by a pin, before they begin to want it; and where there is
    /// nothing to drop, a pin sees to it that no surrender is dropping pages now.
    async fn open_writable(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        open_pin: Pin,
        flags: OpenFlags,
    ) -> Result<OpenFile, FsError> {
        {
            let _pin = inode.entry.pin(Want::read()).await?;
            let mut state = inode.state.lock();
            if state.kernel.pages.is_none() {
                let failures_told = AtomicU64::new(OpenFile::count(&mut state, flags));
                let inode = Arc::clone(inode);
                return Ok(OpenFile { file, inode, flags, _open: open_pin, failures_told });
            }
        }
        let _pin = inode.entry.pin(Want::shared(Mode::EX)).await?;
        let failures = inode.when_stored(|state| OpenFile::count(state, flags)).await;
        let failures_told = AtomicU64::new(failures);
        let open =
            OpenFile { file, inode: Arc::clone(inode), flags, _open: open_pin, failures_told };
        if let Some(dropping) = Dropping::begin(inode) {
            self.env.kernel.forget_pages(file, None).await;
            drop(dropping);
        }
        Ok(open)
    }
}
