//! Opening a shared device as its only writer on this machine.
//!
//! Keeps true: whoever has the device from here holds an exclusive `flock` on the open file that
//! issues its I/O. The kernel gives the lock up only when the last request that uses that open
//! file has ended, also when the process is killed. So a successor that has the lock knows that
//! nothing of its predecessor is still under way (R5).

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use tracing::{info, warn};

use fencing::layout::BLOCK_SIZE;

/// How often a lock that is held by somebody else is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// An open device with the lock on it.
#[derive(Debug)]
pub struct Device {
    file: File,
    path: PathBuf,
    blocks: u64,
    direct: bool,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: cannot be opened: {source}", path = .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{path}: neither a regular file nor a block device", path = .path.display())]
    Kind { path: PathBuf },
    #[error("{path}: smaller than one block of 4 KiB", path = .path.display())]
    Empty { path: PathBuf },
    #[error(
        "{path}: in use by another program, or requests of a former one have not ended within \
         {waited:?}", path = .path.display()
    )]
    InUse { path: PathBuf, waited: Duration },
    #[error("{path}: cannot be locked: {source}", path = .path.display())]
    Lock { path: PathBuf, source: io::Error },
}

impl Device {
    /// Opens `path` for reading and writing past the page cache, and waits at most `patience` for
    /// its lock.
    ///
    /// Where the file system refuses direct I/O the page cache is used; durable writes are durable
    /// all the same.
    ///
    /// # Errors
    /// When the device cannot be opened, or somebody else has it.
    pub fn open(path: &Path, patience: Duration) -> Result<Device, OpenError> {
        let mut waiting = Waiting::new(path, patience);
        let in_use = || OpenError::InUse { path: path.to_owned(), waited: patience };
        let failed = |source| OpenError::Open { path: path.to_owned(), source };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind { path: path.to_owned() });
        }
        // A block device is claimed as well, so that nobody mounts or formats it meanwhile.
        let claim = if kind.is_block_device() { OFlags::EXCL } else { OFlags::empty() };
        let (mut file, direct) = loop {
            match open_file(path, claim) {
                Ok(opened) => break opened,
                // A block device that another program has claimed.
                Err(error) if errno(&error) == Some(Errno::BUSY) => {
                    waiting.pause().ok_or_else(in_use)?;
                }
                Err(source) => return Err(failed(source)),
            }
        };
        match lock(&file, &mut waiting) {
            Ok(true) => {}
            Ok(false) => return Err(in_use()),
            Err(errno) => {
                let source = errno.into();
                return Err(OpenError::Lock { path: path.to_owned(), source });
            }
        }
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        let blocks = size / BLOCK_SIZE as u64;
        if blocks == 0 {
            return Err(OpenError::Empty { path: path.to_owned() });
        }
        if !direct {
            warn!(device = %path.display(), "direct I/O is refused here, the page cache is used");
        }
        Ok(Device { file, path: path.to_owned(), blocks, direct })
    }

    /// Whole blocks of 4 KiB.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Does I/O pass the page cache by?
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Are these blocks all on the device?
    pub fn holds(&self, block: u64, count: u64) -> bool {
        block.checked_add(count).is_some_and(|end| end <= self.blocks)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waiting for a former user, who may be dead and still have requests under way.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    path: &'a Path,
    deadline: Instant,
    told: bool,
}

impl Waiting<'_> {
    pub(crate) fn new(path: &Path, patience: Duration) -> Waiting<'_> {
        Waiting { path, deadline: Instant::now() + patience, told: false }
    }

    /// A while later; `None` when patience has run out.
    pub(crate) fn pause(&mut self) -> Option<()> {
        if Instant::now() >= self.deadline {
            return None;
        }
        if !self.told {
            info!(path = %self.path.display(), "in use: waiting for the requests of a former user to end");
            self.told = true;
        }
        std::thread::sleep(LOCK_RETRY);
        Some(())
    }
}

/// Takes the lock on an open file; false when somebody else has it for too long.
pub(crate) fn lock(file: &File, waiting: &mut Waiting<'_>) -> Result<bool, Errno> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                if waiting.pause().is_none() {
                    return Ok(false);
                }
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The file, and whether it is open for direct I/O.
fn open_file(path: &Path, claim: OFlags) -> io::Result<(File, bool)> {
    let open = |flags: OFlags| {
        let flags = i32::try_from(flags.bits()).expect("flags of open(2) fit");
        OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
    };
    match open(claim | OFlags::DIRECT) {
        Err(error) if errno(&error) == Some(Errno::INVAL) => Ok((open(claim)?, false)),
        Err(error) => Err(error),
        Ok(file) => Ok((file, true)),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}
