//! The storage itself: direct I/O, one request after the other.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use mfs::block::Block;
use zerocopy::{FromZeros as _, IntoBytes as _};

pub const BLOCK: usize = size_of::<Block>();

/// A file, read and written with `O_DIRECT`.
#[derive(Debug)]
pub struct RawDevice {
    file: File,
}

impl RawDevice {
    /// # Errors
    /// When the file system of the folder has no direct I/O.
    pub fn open(path: &Path) -> Result<RawDevice> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(path);
        let file = file.with_context(|| format!("{}: direct I/O", path.display()))?;
        Ok(RawDevice { file })
    }

    /// # Errors
    /// What the storage says.
    pub fn write(&self, block: usize, data: &[Block]) -> Result<()> {
        self.file.write_all_at(data.as_bytes(), offset(block)).context("the raw device")
    }

    /// # Errors
    /// What the storage says.
    pub fn read(&self, block: usize, data: &mut [Block]) -> Result<()> {
        self.file.read_exact_at(data.as_mut_bytes(), offset(block)).context("the raw device")
    }

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// What the storage says.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_data().context("the raw device")
    }

    /// Writes zeros wherever nothing was ever written.
    ///
    /// # Errors
    /// What the storage says.
    pub fn fill(&self) -> Result<()> {
        const AT_ONCE: u64 = 1 << 20;
        let size = self.file.metadata()?.len();
        let zeros = blocks(1 << 20);
        let mut at = 0;
        while let Some(hole) = seek(&self.file, rustix::fs::SeekFrom::Hole(at))?
            && hole < size
        {
            let end = seek(&self.file, rustix::fs::SeekFrom::Data(hole))?.unwrap_or(size);
            let mut from = hole;
            while from < end {
                let count = AT_ONCE.min(end - from);
                let len = usize::try_from(count).expect("at most a MiB");
                self.file.write_all_at(&zeros.as_bytes()[..len], from)?;
                from += count;
            }
            at = end;
        }
        self.flush()
    }
}

fn seek(file: &File, to: rustix::fs::SeekFrom) -> Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno).context("where a file has holes"),
    }
}

fn offset(block: usize) -> u64 {
    block as u64 * BLOCK as u64
}

/// Memory for so many bytes, aligned as direct I/O needs it.
///
/// # Panics
/// Without memory.
pub fn blocks(bytes: usize) -> Box<[Block]> {
    <[Block]>::new_box_zeroed_with_elems(bytes / BLOCK).expect("there is memory")
}
