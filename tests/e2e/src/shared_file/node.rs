//! The file as one node has it open.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::mapping::Mapping;

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    length: usize,
    pub(super) file: File,
    pub(super) append: File,
    /// With O_DIRECT; `None` where it is not asked for.
    pub(super) direct: Option<File>,
    /// Kept over all operations, as a data base keeps it.
    pub(super) mapping: Mapping,
}

impl Node {
    /// Opens a file that is there; it will have up to `length` bytes.
    pub(super) fn open(path: &Path, length: usize, direct: bool) -> io::Result<Node> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let append = OpenOptions::new().append(true).open(path)?;
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let with_direct =
            || OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let direct = if direct { Some(with_direct()?) } else { None };
        let mapping = Mapping::new(&file, length)?;
        Ok(Node { path: path.to_owned(), length, file, append, direct, mapping })
    }

    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let reopened = Node::open(&self.path, self.length, self.direct.is_some())?;
        *self = reopened;
        Ok(())
    }
}
