//! Reading and changing attributes.

use mx_base::Timestamp;

use super::FILE_SIZE_MAX;
use super::create::Special;
use super::errno::Errno;
use super::node::{Body, Ino, Kind};
use super::tree::Tree;

/// What stat(2) tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub kind: Kind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    /// Bytes; of a symbolic link the length of its target. 0 for directories: what a directory's
    /// size means is up to the file system.
    pub size: u64,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

/// What setattr changes; everything that is `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Permission bits, 0 to 0o7777.
    pub mode: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeChange>,
    pub mtime: Option<TimeChange>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeChange {
    Now,
    At(Timestamp),
}

impl Tree {
    /// # Errors
    /// ESTALE.
    pub fn getattr(&self, ino: Ino) -> Result<Attributes, Errno> {
        let node = self.node(ino)?;
        let size = match &node.body {
            Body::File(content) => content.size(),
            Body::Symlink(target) => {
                u64::try_from(target.len()).expect("a target has at most 4095 bytes")
            }
            Body::Directory(_) | Body::Special(_) => 0,
        };
        let device = match node.body {
            Body::Special(
                Special::CharDevice { major, minor } | Special::BlockDevice { major, minor },
            ) => Some((major, minor)),
            Body::File(_) | Body::Directory(_) | Body::Symlink(_) | Body::Special(_) => None,
        };
        Ok(Attributes {
            kind: node.kind(),
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            nlink: node.nlink(),
            size,
            device,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        })
    }

    /// Changes all that `change` names, or nothing. A size always counts as a modification.
    ///
    /// # Errors
    /// ESTALE; EOPNOTSUPP for the mode of a symbolic link; for the size EISDIR, EINVAL where there
    /// is no content, EFBIG.
    pub fn setattr(
        &mut self,
        ino: Ino,
        change: &Change,
        now: Timestamp,
    ) -> Result<Attributes, Errno> {
        let node = self.node_mut(ino)?;
        if change.mode.is_some() && matches!(node.body, Body::Symlink(_)) {
            return Err(Errno::NotSupported);
        }
        if let Some(size) = change.size {
            match &mut node.body {
                Body::Directory(_) => return Err(Errno::IsDirectory),
                Body::Symlink(_) | Body::Special(_) => return Err(Errno::Invalid),
                Body::File(_) if size > FILE_SIZE_MAX => return Err(Errno::FileTooBig),
                Body::File(content) => content.resize(size),
            }
            node.modified(now);
        }
        if change.size.is_some() || change.uid.is_some() || change.gid.is_some() {
            node.drop_capability();
        }
        if let Some(mode) = change.mode {
            node.mode = mode & 0o7777;
            node.mode_set();
        }
        node.uid = change.uid.unwrap_or(node.uid);
        node.gid = change.gid.unwrap_or(node.gid);
        match change.atime {
            Some(TimeChange::Now) => node.atime = Timestamp::advance(node.atime, now),
            Some(TimeChange::At(at)) => node.atime = at,
            None => {}
        }
        match change.mtime {
            Some(TimeChange::Now) if change.size.is_some() => {}
            Some(TimeChange::Now) => node.mtime = Timestamp::advance(node.mtime, now),
            Some(TimeChange::At(at)) => node.mtime = at,
            None => {}
        }
        if *change != Change::default() && change.size.is_none() {
            node.changed(now);
        }
        self.getattr(ino)
    }
}
