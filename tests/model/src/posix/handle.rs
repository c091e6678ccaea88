//! Open handles: what keeps an object alive after its last name is gone.

use std::fmt;

use super::errno::Errno;
use super::node::{Ino, Kind};
use super::tree::Tree;

/// One open file or directory; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(u64);

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handle {}", self.0)
    }
}

impl Tree {
    /// # Errors
    /// ESTALE, ELOOP for a symbolic link, ENXIO for what the kernel opens without the file system.
    pub fn open(&mut self, ino: Ino) -> Result<Handle, Errno> {
        match self.node(ino)?.kind() {
            Kind::File | Kind::Directory => {}
            Kind::Symlink => return Err(Errno::Loop),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                return Err(Errno::NoDevice);
            }
        }
        let handle = Handle(self.next_handle);
        self.next_handle += 1;
        self.handles.insert(handle, ino);
        Ok(handle)
    }

    /// The last handle on an object without names is its end. Also how the handles of a node that
    /// died are closed.
    ///
    /// # Errors
    /// ESTALE for a handle that is closed.
    pub fn release(&mut self, handle: Handle) -> Result<(), Errno> {
        let ino = self.handles.remove(&handle).ok_or(Errno::Stale)?;
        self.drop_if_unused(ino);
        Ok(())
    }

    /// What a handle is open on; `None` once it is closed.
    pub fn opened(&self, handle: Handle) -> Option<Ino> {
        self.handles.get(&handle).copied()
    }

    /// Every open handle with its object, in the order of opening.
    pub fn handles(&self) -> impl DoubleEndedIterator<Item = (Handle, Ino)> {
        self.handles.iter().map(|(handle, ino)| (*handle, *ino))
    }

    pub(super) fn is_open(&self, ino: Ino) -> bool {
        self.handles.values().any(|open| *open == ino)
    }
}
