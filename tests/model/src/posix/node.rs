//! One object of the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mx_base::Timestamp;

use super::content::Content;
use super::create::Special;
use super::xattr::Xattrs;

/// Number of an object in the tree that issued it; never used twice. Says nothing about the inode
/// number that the judged file system chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub(crate) u64);

impl Ino {
    pub const ROOT: Ino = Ino(1);

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::File => "a file",
            Kind::Directory => "a directory",
            Kind::Symlink => "a symbolic link",
            Kind::Fifo => "a fifo",
            Kind::Socket => "a socket",
            Kind::CharDevice => "a character device",
            Kind::BlockDevice => "a block device",
        })
    }
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub body: Body,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    /// Every directory and name under which the object is found.
    pub names: BTreeSet<(Ino, Vec<u8>)>,
    pub xattrs: Xattrs,
    /// Made without a name (`O_TMPFILE`), and may still get one.
    pub linkable: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    File(Content),
    Directory(Directory),
    Symlink(Vec<u8>),
    Special(Special),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub entries: BTreeMap<Vec<u8>, Ino>,
    /// How many of the entries are directories.
    pub directories: u32,
    /// No longer in the tree; nothing can be put in.
    pub removed: bool,
}

impl Body {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Body::File(_) => Kind::File,
            Body::Directory(_) => Kind::Directory,
            Body::Symlink(_) => Kind::Symlink,
            Body::Special(Special::Fifo) => Kind::Fifo,
            Body::Special(Special::Socket) => Kind::Socket,
            Body::Special(Special::CharDevice { .. }) => Kind::CharDevice,
            Body::Special(Special::BlockDevice { .. }) => Kind::BlockDevice,
        }
    }
}

impl Node {
    pub(super) fn kind(&self) -> Kind {
        self.body.kind()
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(super) fn nlink(&self) -> u32 {
        match &self.body {
            Body::Directory(directory) if directory.removed => 0,
            Body::Directory(directory) => 2 + directory.directories,
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => {
                u32::try_from(self.names.len()).expect("a test makes fewer than 2^32 links")
            }
        }
    }

    /// The object's attributes changed.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.ctime = Timestamp::advance(self.ctime, now);
    }

    /// The object's content changed: bytes of a file, entries of a directory.
    pub(super) fn modified(&mut self, now: Timestamp) {
        self.mtime = Timestamp::advance(self.mtime, now);
        self.changed(now);
    }
}
