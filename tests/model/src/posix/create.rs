//! Making objects: create, mknod, mkdir, symlink, link.

use std::sync::Arc;

use mx_base::Timestamp;

use super::TARGET_MAX;
use super::errno::Errno;
use super::handle::Handle;
use super::node::{Body, Directory, Ino, Kind, Node};
use super::tree::{Last, Tree, check_length, last};

/// Who makes an object, which becomes theirs, and what they do not want it to permit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Counts where the directory has no default ACL.
    pub umask: u16,
}

/// What open(O_CREAT) does with a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    Open,
    /// O_TRUNC
    Truncate,
    /// O_EXCL
    Refuse,
}

/// What mknod makes besides regular files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

impl Tree {
    /// open(O_CREAT): the file and a handle on it.
    ///
    /// # Errors
    /// ENOTDIR, ENAMETOOLONG, ENOENT (the directory was removed); for what exists EEXIST where it
    /// is refused, else EISDIR, ELOOP for a symbolic link, ENXIO for special files.
    pub fn create(
        &mut self,
        dir: Ino,
        name: &[u8],
        mode: u16,
        existing: Existing,
        caller: Caller,
        now: Timestamp,
    ) -> Result<(Ino, Handle), Errno> {
        let found = match self.lookup(dir, name) {
            Ok(ino) => ino,
            Err(Errno::NoEntry) if self.check_free(dir, name).is_ok() => {
                let body = Body::File(super::Content::default());
                let ino = self.make_named(dir, name, body, mode, caller, now);
                return Ok((ino, self.open(ino)?));
            }
            Err(errno) => return Err(errno),
        };
        if existing == Existing::Refuse {
            return Err(Errno::Exists);
        }
        match self.must(found).kind() {
            Kind::File => {}
            Kind::Directory => return Err(Errno::IsDirectory),
            Kind::Symlink => return Err(Errno::Loop),
            Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
                return Err(Errno::NoDevice);
            }
        }
        if existing == Existing::Truncate {
            self.truncate(found, 0, now)?;
        }
        Ok((found, self.open(found)?))
    }

    /// A regular file where `special` is `None`.
    ///
    /// # Errors
    /// ENOTDIR, EEXIST (also for `.` and `..`), ENAMETOOLONG, ENOENT (the directory was removed).
    pub fn mknod(
        &mut self,
        dir: Ino,
        name: &[u8],
        special: Option<Special>,
        mode: u16,
        caller: Caller,
        now: Timestamp,
    ) -> Result<Ino, Errno> {
        self.check_free(dir, name)?;
        let body = special.map_or(Body::File(super::Content::default()), Body::Special);
        Ok(self.make_named(dir, name, body, mode, caller, now))
    }

    /// Of `mode` the bits 0o1777 count; a directory in a set-group-id one is set-group-id too.
    ///
    /// # Errors
    /// As [`Tree::mknod`].
    pub fn mkdir(
        &mut self,
        dir: Ino,
        name: &[u8],
        mode: u16,
        caller: Caller,
        now: Timestamp,
    ) -> Result<Ino, Errno> {
        self.check_free(dir, name)?;
        let inherited = self.must(dir).mode & 0o2000;
        let body = Body::Directory(Directory::default());
        Ok(self.make_named(dir, name, body, (mode & 0o1777) | inherited, caller, now))
    }

    /// The mode of a symbolic link is 0777.
    ///
    /// # Errors
    /// ENOENT for an empty target, ENAMETOOLONG for one beyond [`TARGET_MAX`]; then as
    /// [`Tree::mknod`].
    pub fn symlink(
        &mut self,
        dir: Ino,
        name: &[u8],
        target: &[u8],
        caller: Caller,
        now: Timestamp,
    ) -> Result<Ino, Errno> {
        if target.is_empty() {
            return Err(Errno::NoEntry);
        }
        if target.len() > TARGET_MAX {
            return Err(Errno::NameTooLong);
        }
        self.check_free(dir, name)?;
        Ok(self.make_named(dir, name, Body::Symlink(target.to_vec()), 0o777, caller, now))
    }

    /// # Errors
    /// ESTALE; EINVAL for what is no symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<&[u8], Errno> {
        match &self.node(ino)?.body {
            Body::Symlink(target) => Ok(target),
            Body::File(_) | Body::Directory(_) | Body::Special(_) => Err(Errno::Invalid),
        }
    }

    /// One more name for an object.
    ///
    /// # Errors
    /// ESTALE; as [`Tree::mknod`]; then EPERM for a directory and ENOENT for an object whose last
    /// name is gone, which no link brings back, or that was made to get none.
    pub fn link(&mut self, ino: Ino, dir: Ino, name: &[u8], now: Timestamp) -> Result<(), Errno> {
        self.node(ino)?;
        self.check_free(dir, name)?;
        if self.must(ino).is_directory() {
            return Err(Errno::NotPermitted);
        }
        if self.is_orphan(ino) && !self.must(ino).linkable {
            return Err(Errno::NoEntry);
        }
        self.attach(dir, name, ino);
        self.must_mut(ino).linkable = false;
        self.must_mut(dir).modified(now);
        self.must_mut(ino).changed(now);
        Ok(())
    }

    /// May a new entry `name` be made in `dir`? As `filename_create` and `may_create` of Linux.
    pub(super) fn check_free(&self, dir: Ino, name: &[u8]) -> Result<(), Errno> {
        let directory = self.directory(dir)?;
        if last(name)? != Last::Name {
            return Err(Errno::Exists);
        }
        check_length(name)?;
        if directory.entries.contains_key(name) {
            return Err(Errno::Exists);
        }
        if directory.removed { Err(Errno::NoEntry) } else { Ok(()) }
    }

    /// A regular file without a name, opened; the directory gives it its group, no more (`O_TMPFILE`).
    ///
    /// # Errors
    /// ENOTDIR, ENOENT (the directory was removed).
    pub fn tmpfile(
        &mut self,
        dir: Ino,
        mode: u16,
        linkable: bool,
        caller: Caller,
        now: Timestamp,
    ) -> Result<(Ino, Handle), Errno> {
        if self.directory(dir)?.removed {
            return Err(Errno::NoEntry);
        }
        let body = Body::File(super::Content::default());
        let ino = self.make(dir, body, mode, caller, now);
        self.must_mut(ino).linkable = linkable;
        Ok((ino, self.open(ino)?))
    }

    fn make_named(
        &mut self,
        dir: Ino,
        name: &[u8],
        body: Body,
        mode: u16,
        caller: Caller,
        now: Timestamp,
    ) -> Ino {
        let ino = self.make(dir, body, mode, caller, now);
        self.attach(dir, name, ino);
        self.must_mut(dir).modified(now);
        ino
    }

    fn make(&mut self, dir: Ino, body: Body, mode: u16, caller: Caller, now: Timestamp) -> Ino {
        let parent = self.must(dir);
        let gid = if parent.mode & 0o2000 == 0 { caller.gid } else { parent.gid };
        let ino = Ino(self.next_ino);
        let (mode, xattrs) = parent.inherited(body.kind(), mode, caller.umask);
        self.next_ino += 1;
        let node = Node {
            body,
            mode: mode & 0o7777,
            uid: caller.uid,
            gid,
            atime: now,
            mtime: now,
            ctime: now,
            names: [].into(),
            xattrs,
            linkable: false,
        };
        self.nodes.insert(ino, Arc::new(node));
        ino
    }
}
