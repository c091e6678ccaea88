//! Carries the model's operations out on a file system, as the kernel would, and compares answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfs::error::FsError;
use mfs::file::{FileId, FileType};
use mfs::ops::{
    Allocate, Lookup, NewFile, NewKind, OpenFile, OpenFlags, ReadKind, RenameKind, SeekFor,
    SetAttributes, SetTime, SetXattr,
};
use mfs::{Attributes, Fs};
use model::ops::{Action, Outcome};
use model::posix::{
    self, Caller, Existing, Handle, Ino, Kind, Presence, Rename, Special, TimeChange,
};

/// A file system, and which of its files are which of the model's.
#[derive(Debug)]
pub struct Driver {
    pub fs: Arc<Fs>,
    files: BTreeMap<Ino, FileId>,
    handles: BTreeMap<Handle, (Ino, OpenFile)>,
}

/// The file system did what the model did not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mismatch {
    /// The device is full, which the model does not know; nothing was done.
    Full,
    Differs {
        expected: String,
        found: String,
    },
}

/// What the file system answered: in the model's words as far as they can be compared.
#[derive(Debug)]
enum Answer {
    Done,
    Object(FileId),
    Opened(FileId, OpenFile),
    Attributes(Box<Attributes>),
    Bytes(Vec<u8>),
    Written(usize),
    Sought(Option<u64>),
    Entries(Vec<(Vec<u8>, FileId, FileType)>),
}

impl Driver {
    pub fn new(fs: Arc<Fs>) -> Driver {
        let files = BTreeMap::from([(Ino::ROOT, fs.root())]);
        Driver { fs, files, handles: BTreeMap::new() }
    }

    /// Is the operation one that the kernel answers before it asks the file system?
    pub fn is_for_kernel(action: &Action) -> bool {
        let dots = |name: &[u8]| name == b"." || name == b".." || name.is_empty();
        match action {
            Action::Lookup { name, .. }
            | Action::Create { name, .. }
            | Action::Mknod { name, .. }
            | Action::Mkdir { name, .. }
            | Action::Symlink { name, .. }
            | Action::Link { name, .. }
            | Action::Unlink { name, .. }
            | Action::Rmdir { name, .. } => dots(name),
            Action::Rename { from, to, .. } => dots(&from.1) || dots(&to.1),
            Action::Getattr { .. }
            | Action::Setattr { .. }
            | Action::Readlink { .. }
            | Action::Open { .. }
            | Action::Release { .. }
            | Action::Read { .. }
            | Action::Write { .. }
            | Action::Append { .. }
            | Action::Allocate { .. }
            | Action::Seek { .. }
            | Action::CopyRange { .. }
            | Action::Tmpfile { .. }
            | Action::Readdir { .. }
            | Action::Statfs
            | Action::Fsync { .. }
            | Action::Fdatasync { .. }
            | Action::GetXattr { .. }
            | Action::ListXattrs { .. }
            | Action::SetXattr { .. }
            | Action::RemoveXattr { .. } => false,
        }
    }

    /// Carries an operation out and compares the answer with the model's.
    ///
    /// # Errors
    /// [`Mismatch`]. Which error it is where both fail is left to tests under a real kernel, which
    /// makes most of these checks itself.
    pub async fn act(
        &mut self,
        action: &Action,
        expected: &Result<Outcome, posix::Errno>,
    ) -> Result<(), Mismatch> {
        let answer = self.carry_out(action).await;
        let mismatch =
            |found: String| Err(Mismatch::Differs { expected: format!("{expected:?}"), found });
        match (expected, answer) {
            // ENXIO.
            (Err(_), Err(_) | Ok(Answer::Sought(None))) => Ok(()),
            (Ok(_), Err(FsError::NoSpace)) => Err(Mismatch::Full),
            (Ok(_), Err(error)) => mismatch(format!("{error:?}")),
            (Err(_), Ok(answer)) => mismatch(format!("{answer:?}")),
            (Ok(outcome), Ok(answer)) => {
                let found = format!("{answer:?}");
                if self.agree(action, outcome, answer) { Ok(()) } else { mismatch(found) }
            }
        }
    }

    fn agree(&mut self, action: &Action, outcome: &Outcome, answer: Answer) -> bool {
        match (outcome, answer) {
            (Outcome::Done, Answer::Done) => {
                if let Action::Release { handle } = action {
                    self.handles.remove(handle);
                }
                true
            }
            (Outcome::Object(ino), Answer::Object(file)) => self.same(*ino, file),
            (Outcome::Opened(ino, handle), Answer::Opened(file, open)) => {
                self.handles.insert(*handle, (*ino, open));
                self.same(*ino, file)
            }
            (Outcome::Attributes(expected), Answer::Attributes(found)) => {
                attributes_agree(expected, &found)
            }
            (Outcome::Bytes(expected), Answer::Bytes(found)) => *expected == found,
            (Outcome::Written(expected), Answer::Written(found)) => *expected == found,
            (Outcome::Sought(sought), Answer::Sought(found)) => sought.admits(found),
            (Outcome::Entries(expected), Answer::Entries(mut found)) => {
                found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|((name, ino, kind), f)| {
                        *name == f.0 && kind_of(f.2) == *kind && self.same(*ino, f.1)
                    })
            }
            (Outcome::Counts(_), Answer::Done) => true,
            (Outcome::Names(expected), Answer::Bytes(found)) => {
                let mut found: Vec<&[u8]> = found.split_inclusive(|byte| *byte == 0).collect();
                found.sort_unstable();
                let expected = expected.iter().map(|name| [name, &[0][..]].concat());
                expected.eq(found.iter().map(|name| name.to_vec()))
            }
            _ => false,
        }
    }

    /// Notes which file is which, and says whether that is what was noted before.
    fn same(&mut self, ino: Ino, file: FileId) -> bool {
        *self.files.entry(ino).or_insert(file) == file
    }

    fn file(&self, ino: Ino) -> Result<FileId, FsError> {
        self.files.get(&ino).copied().ok_or(FsError::Stale)
    }

    async fn carry_out(&mut self, action: &Action) -> Result<Answer, FsError> {
        let fs = Arc::clone(&self.fs);
        match action {
            Action::Lookup { dir, name } => match fs.lookup(self.file(*dir)?, name).await? {
                Lookup::Found(entry) => Ok(Answer::Object(entry.attributes.file)),
                Lookup::Absent(_) => Err(FsError::NotFound),
            },
            Action::Getattr { ino } => {
                let entry = fs.getattr(self.file(*ino)?).await?;
                Ok(Answer::Attributes(Box::new(entry.attributes)))
            }
            Action::Setattr { ino, change } => {
                let time = |t: TimeChange| match t {
                    TimeChange::Now => SetTime::Now,
                    TimeChange::At(time) => SetTime::To(time),
                };
                let set = SetAttributes {
                    permissions: change.mode.map(u32::from),
                    uid: change.uid,
                    gid: change.gid,
                    size: change.size,
                    atime: change.atime.map(time),
                    mtime: change.mtime.map(time),
                    kill_privileges: false,
                };
                let entry = fs.setattr(self.file(*ino)?, &set).await?;
                Ok(Answer::Attributes(Box::new(entry.attributes)))
            }
            Action::Create { dir, name, mode, existing, caller } => {
                self.create(*dir, name, *mode, *existing, *caller).await
            }
            Action::Mknod { dir, name, special, mode, caller } => {
                let kind = special.map_or(NewKind::Regular, special_kind);
                self.make(*dir, name, kind, *mode, *caller).await
            }
            Action::Mkdir { dir, name, mode, caller } => {
                self.make(*dir, name, NewKind::Directory, *mode, *caller).await
            }
            Action::Symlink { dir, name, target, caller } => {
                self.make(*dir, name, NewKind::SymbolicLink(target), 0o777, *caller).await
            }
            Action::Readlink { ino } => Ok(Answer::Bytes(fs.readlink(self.file(*ino)?).await?)),
            Action::Link { ino, dir, name } => {
                fs.link(self.file(*ino)?, self.file(*dir)?, name).await?;
                Ok(Answer::Done)
            }
            Action::Unlink { dir, name } => {
                fs.unlink(self.file(*dir)?, name).await.map(|()| Answer::Done)
            }
            Action::Rmdir { dir, name } => {
                fs.rmdir(self.file(*dir)?, name).await.map(|()| Answer::Done)
            }
            Action::Rename { from, to, how } => {
                let kind = match how {
                    Rename::Replace => RenameKind::Replace,
                    Rename::NoReplace => RenameKind::NoReplace,
                    Rename::Exchange => RenameKind::Exchange,
                };
                let from = (self.file(from.0)?, &from.1[..]);
                let to = (self.file(to.0)?, &to.1[..]);
                fs.rename(from, to, kind).await.map(|()| Answer::Done)
            }
            Action::Open { ino } => self.open(*ino).await,
            Action::Release { handle } => {
                self.handles.get(handle).map(|_| Answer::Done).ok_or(FsError::Stale)
            }
            Action::Read { ino, offset, len } => self.read(*ino, *offset, *len).await,
            Action::Write { ino, offset, data } => {
                self.write(*ino, Some(*offset), &data.bytes()).await
            }
            Action::Append { ino, data } => self.write(*ino, None, &data.bytes()).await,
            Action::Allocate { ino, what, offset, len } => {
                let what = match *what {
                    posix::Allocate::Blocks { keep_size } => Allocate::Blocks { keep_size },
                    posix::Allocate::Zeros { keep_size } => Allocate::Zeros { keep_size },
                    posix::Allocate::Hole => Allocate::Hole,
                };
                let open = self.opened(*ino).await?;
                fs.allocate(open.get(), what, *offset, *len).await.map(|_| Answer::Done)
            }
            Action::Seek { ino, offset, hole } => {
                let what = if *hole { SeekFor::Hole } else { SeekFor::Data };
                let open = self.opened(*ino).await?;
                fs.seek(open.get(), *offset, what).await.map(Answer::Sought)
            }
            Action::CopyRange { from, to, len } => {
                let (source, target) = (self.opened(from.0).await?, self.opened(to.0).await?);
                let (source, target) = ((source.get(), from.1), (target.get(), to.1));
                let copied = fs.copy_range(source, target, *len as u64).await?;
                Ok(Answer::Written(usize::try_from(copied).expect("no longer than asked")))
            }
            Action::Tmpfile { dir, mode, linkable, caller } => {
                let new = new_file(NewKind::Regular, *mode, *caller);
                let flags = OpenFlags { write: true, ..OpenFlags::default() };
                let dir = self.file(*dir)?;
                let (entry, open) = fs.create_unnamed(dir, &new, flags, *linkable).await?;
                Ok(Answer::Opened(entry.attributes.file, open))
            }
            Action::Readdir { ino } => self.readdir(*ino).await,
            Action::Statfs => fs.statfs().await.map(|_| Answer::Done),
            Action::Fsync { ino } | Action::Fdatasync { ino } => self.fsync(*ino).await,
            Action::GetXattr { ino, name } => {
                Ok(Answer::Bytes(fs.get_xattr(self.file(*ino)?, name).await?))
            }
            Action::ListXattrs { ino } => {
                Ok(Answer::Bytes(fs.list_xattrs(self.file(*ino)?).await?))
            }
            Action::SetXattr { ino, name, value, presence } => {
                let how = SetXattr {
                    create: *presence == Presence::Absent,
                    replace: *presence == Presence::Present,
                    clear_sgid: false,
                };
                let file = self.file(*ino)?;
                fs.set_xattr(file, name, &value.bytes(), how).await.map(|()| Answer::Done)
            }
            Action::RemoveXattr { ino, name } => {
                fs.remove_xattr(self.file(*ino)?, name).await.map(|()| Answer::Done)
            }
        }
    }

    async fn make(
        &self,
        dir: Ino,
        name: &[u8],
        kind: NewKind<'_>,
        mode: u16,
        caller: Caller,
    ) -> Result<Answer, FsError> {
        let new = new_file(kind, mode, caller);
        let entry = self.fs.create(self.file(dir)?, name, &new).await?;
        Ok(Answer::Object(entry.attributes.file))
    }

    /// open(O_CREAT), as the kernel does it: look up, then create or open.
    async fn create(
        &self,
        dir: Ino,
        name: &[u8],
        mode: u16,
        existing: Existing,
        caller: Caller,
    ) -> Result<Answer, FsError> {
        let dir = self.file(dir)?;
        if let Lookup::Found(entry) = self.fs.lookup(dir, name).await? {
            let file = entry.attributes.file;
            let file_type = entry.attributes.file_type;
            drop(entry);
            if existing == Existing::Refuse {
                return Err(FsError::Exists);
            }
            if file_type != FileType::Regular {
                return Err(FsError::Invalid("not a regular file"));
            }
            let truncate = existing == Existing::Truncate;
            let flags = OpenFlags { write: true, truncate, ..OpenFlags::default() };
            return Ok(Answer::Opened(file, self.fs.open(file, flags).await?));
        }
        let new = new_file(NewKind::Regular, mode, caller);
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let (entry, open) = self.fs.create_and_open(dir, name, &new, flags).await?;
        Ok(Answer::Opened(entry.attributes.file, open))
    }

    async fn open(&self, ino: Ino) -> Result<Answer, FsError> {
        let file = self.file(ino)?;
        let file_type = self.fs.getattr(file).await?.attributes.file_type;
        match file_type {
            FileType::Regular => {
                let flags = OpenFlags { write: true, ..OpenFlags::default() };
                Ok(Answer::Opened(file, self.fs.open(file, flags).await?))
            }
            FileType::Directory => {
                let open = self.fs.open_directory(file).await?;
                Ok(Answer::Opened(file, open))
            }
            FileType::SymbolicLink
            | FileType::BlockDevice
            | FileType::CharDevice
            | FileType::Fifo
            | FileType::Socket => Err(FsError::Unsupported),
        }
    }

    /// An open file for `ino`: one that is open already (the file may have no name any more), or a
    /// new one.
    async fn opened(&self, ino: Ino) -> Result<Opened<'_>, FsError> {
        let open = self.handles.values().find(|(of, _)| *of == ino);
        if let Some((_, open)) = open {
            return Ok(Opened::Before(open));
        }
        let Answer::Opened(_, open) = self.open(ino).await? else {
            return Err(FsError::IsDirectory);
        };
        Ok(Opened::Now(open))
    }

    async fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Answer, FsError> {
        let open = self.opened(ino).await?;
        let open = open.get();
        let data = self.fs.read(open, offset, len as u64, ReadKind::Direct).await?;
        Ok(Answer::Bytes(data.as_slice().to_vec()))
    }

    async fn write(&self, ino: Ino, offset: Option<u64>, bytes: &[u8]) -> Result<Answer, FsError> {
        let file = self.file(ino)?;
        let open = self.opened(ino).await?;
        let open = open.get();
        let offset = match offset {
            Some(offset) => offset,
            None => self.fs.getattr(file).await?.attributes.size,
        };
        let written = self.fs.write(open, offset, bytes).await?;
        Ok(Answer::Written(usize::try_from(written.len).expect("no longer than asked")))
    }

    async fn readdir(&self, ino: Ino) -> Result<Answer, FsError> {
        let dir = self.file(ino)?;
        let mut entries = Vec::new();
        let mut cookie = 0;
        loop {
            let piece = self.fs.readdir(dir, cookie, 7).await?;
            let Some(last) = piece.entries.last() else { break };
            cookie = last.cookie;
            entries.extend(
                piece
                    .entries
                    .into_iter()
                    .filter(|e| e.name != b"." && e.name != b"..")
                    .map(|e| (e.name, e.file, e.file_type)),
            );
        }
        Ok(Answer::Entries(entries))
    }

    async fn fsync(&self, ino: Ino) -> Result<Answer, FsError> {
        let file = self.file(ino)?;
        let file_type = self.fs.getattr(file).await?.attributes.file_type;
        if file_type != FileType::Regular {
            return self.fs.fsync_directory().await.map(|()| Answer::Done);
        }
        let open = self.opened(ino).await?;
        let open = open.get();
        self.fs.fsync(open).await.map(|()| Answer::Done)
    }
}

fn new_file(kind: NewKind<'_>, mode: u16, caller: Caller) -> NewFile<'_> {
    let Caller { uid, gid, umask } = caller;
    NewFile { kind, permissions: mode.into(), umask: umask.into(), uid, gid }
}

/// A file that was open already, or is now.
#[derive(Debug)]
enum Opened<'a> {
    Before(&'a OpenFile),
    Now(OpenFile),
}

impl Opened<'_> {
    fn get(&self) -> &OpenFile {
        match self {
            Opened::Before(open) => open,
            Opened::Now(open) => open,
        }
    }
}

fn special_kind(special: Special) -> NewKind<'static> {
    match special {
        Special::Fifo => NewKind::Fifo,
        Special::Socket => NewKind::Socket,
        Special::CharDevice { major, minor } => NewKind::CharDevice(device(major, minor)),
        Special::BlockDevice { major, minor } => NewKind::BlockDevice(device(major, minor)),
    }
}

/// The kernel's 32-bit encoding of a device number.
pub fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of [`device`].
pub fn device_parts(rdev: u32) -> (u32, u32) {
    ((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & !0xff))
}

pub fn kind_of(file_type: FileType) -> Kind {
    match file_type {
        FileType::Fifo => Kind::Fifo,
        FileType::CharDevice => Kind::CharDevice,
        FileType::Directory => Kind::Directory,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Regular => Kind::File,
        FileType::SymbolicLink => Kind::Symlink,
        FileType::Socket => Kind::Socket,
    }
}

/// Everything but times, which depend on when something ran.
fn attributes_agree(expected: &posix::Attributes, found: &Attributes) -> bool {
    let is_device = matches!(found.file_type, FileType::CharDevice | FileType::BlockDevice);
    let size = if found.file_type == FileType::Directory { 0 } else { found.size };
    expected.kind == kind_of(found.file_type)
        && u32::from(expected.mode) == found.permissions
        && (expected.uid, expected.gid) == (found.uid, found.gid)
        && expected.nlink == found.links
        && expected.size == size
        && expected.device == is_device.then(|| device_parts(found.rdev))
}
