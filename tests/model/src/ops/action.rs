//! One operation on named objects, and what the model answers.

use mx_base::Timestamp;

use super::data::{Data, Value};
use crate::posix::{
    Allocate, Attributes, Caller, Change, Counts, Errno, Existing, Handle, Ino, Kind, Presence,
    Rename, Sought, Special, Tree,
};

/// An operation with its operands. Objects are those of the tree that it was resolved on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    Lookup { dir: Ino, name: Vec<u8> },
    Getattr { ino: Ino },
    Setattr { ino: Ino, change: Change },
    Create { dir: Ino, name: Vec<u8>, mode: u16, existing: Existing, caller: Caller },
    Mknod { dir: Ino, name: Vec<u8>, special: Option<Special>, mode: u16, caller: Caller },
    Mkdir { dir: Ino, name: Vec<u8>, mode: u16, caller: Caller },
    Symlink { dir: Ino, name: Vec<u8>, target: Vec<u8>, caller: Caller },
    Readlink { ino: Ino },
    Link { ino: Ino, dir: Ino, name: Vec<u8> },
    Unlink { dir: Ino, name: Vec<u8> },
    Rmdir { dir: Ino, name: Vec<u8> },
    Rename { from: (Ino, Vec<u8>), to: (Ino, Vec<u8>), how: Rename },
    Open { ino: Ino },
    Release { handle: Handle },
    Read { ino: Ino, offset: u64, len: usize },
    Write { ino: Ino, offset: u64, data: Data },
    Append { ino: Ino, data: Data },
    Allocate { ino: Ino, what: Allocate, offset: u64, len: u64 },
    Seek { ino: Ino, offset: u64, hole: bool },
    CopyRange { from: (Ino, u64), to: (Ino, u64), len: usize },
    Tmpfile { dir: Ino, mode: u16, linkable: bool, caller: Caller },
    Readdir { ino: Ino },
    Statfs,
    Fsync { ino: Ino },
    Fdatasync { ino: Ino },
    GetXattr { ino: Ino, name: Vec<u8> },
    ListXattrs { ino: Ino },
    SetXattr { ino: Ino, name: Vec<u8>, value: Value, presence: Presence },
    RemoveXattr { ino: Ino, name: Vec<u8> },
}

/// What an operation that succeeded answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Done,
    /// The object that was found or made.
    Object(Ino),
    /// The file that was created or found, and a handle on it.
    Opened(Ino, Handle),
    Attributes(Attributes),
    Bytes(Vec<u8>),
    /// How many bytes were taken.
    Written(usize),
    Sought(Sought),
    /// Without `.` and `..`, in order of their bytes.
    Entries(Vec<(Vec<u8>, Ino, Kind)>),
    Counts(Counts),
    /// Names of extended attributes, in order of their bytes.
    Names(Vec<Vec<u8>>),
}

impl Action {
    /// Can it change anything that a later operation sees? Opening counts: it keeps things alive.
    pub fn changes(&self) -> bool {
        match self {
            Action::Lookup { .. }
            | Action::Getattr { .. }
            | Action::Readlink { .. }
            | Action::Read { .. }
            | Action::Seek { .. }
            | Action::Readdir { .. }
            | Action::Statfs
            | Action::Fsync { .. }
            | Action::Fdatasync { .. }
            | Action::GetXattr { .. }
            | Action::ListXattrs { .. } => false,
            Action::Setattr { .. }
            | Action::Create { .. }
            | Action::Mknod { .. }
            | Action::Mkdir { .. }
            | Action::Symlink { .. }
            | Action::Link { .. }
            | Action::Unlink { .. }
            | Action::Rmdir { .. }
            | Action::Rename { .. }
            | Action::Open { .. }
            | Action::Release { .. }
            | Action::Write { .. }
            | Action::Append { .. }
            | Action::Allocate { .. }
            | Action::CopyRange { .. }
            | Action::Tmpfile { .. }
            | Action::SetXattr { .. }
            | Action::RemoveXattr { .. } => true,
        }
    }
}

impl Tree {
    /// Carries `action` out at wall time `now`; an error has changed nothing.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn apply(&mut self, action: &Action, now: Timestamp) -> Result<Outcome, Errno> {
        let done = |()| Outcome::Done;
        match action {
            Action::Lookup { dir, name } => self.lookup(*dir, name).map(Outcome::Object),
            Action::Getattr { ino } => self.getattr(*ino).map(Outcome::Attributes),
            Action::Setattr { ino, change } => {
                self.setattr(*ino, change, now).map(Outcome::Attributes)
            }
            Action::Create { dir, name, mode, existing, caller } => self
                .create(*dir, name, *mode, *existing, *caller, now)
                .map(|(ino, handle)| Outcome::Opened(ino, handle)),
            Action::Mknod { dir, name, special, mode, caller } => {
                self.mknod(*dir, name, *special, *mode, *caller, now).map(Outcome::Object)
            }
            Action::Mkdir { dir, name, mode, caller } => {
                self.mkdir(*dir, name, *mode, *caller, now).map(Outcome::Object)
            }
            Action::Symlink { dir, name, target, caller } => {
                self.symlink(*dir, name, target, *caller, now).map(Outcome::Object)
            }
            Action::Readlink { ino } => {
                self.readlink(*ino).map(|target| Outcome::Bytes(target.to_vec()))
            }
            Action::Link { ino, dir, name } => self.link(*ino, *dir, name, now).map(done),
            Action::Unlink { dir, name } => self.unlink(*dir, name, now).map(done),
            Action::Rmdir { dir, name } => self.rmdir(*dir, name, now).map(done),
            Action::Rename { from, to, how } => {
                self.rename((from.0, &from.1), (to.0, &to.1), *how, now).map(done)
            }
            Action::Open { ino } => self.open(*ino).map(|handle| Outcome::Opened(*ino, handle)),
            Action::Release { handle } => self.release(*handle).map(done),
            Action::Read { ino, offset, len } => self.read(*ino, *offset, *len).map(Outcome::Bytes),
            Action::Write { ino, offset, data } => {
                self.write(*ino, *offset, &data.bytes(), now).map(Outcome::Written)
            }
            Action::Append { ino, data } => {
                self.append(*ino, &data.bytes(), now).map(Outcome::Written)
            }
            Action::Allocate { ino, what, offset, len } => {
                self.allocate(*ino, *what, *offset, *len, now).map(done)
            }
            Action::Seek { ino, offset, hole } => {
                self.seek(*ino, *offset, *hole).map(Outcome::Sought)
            }
            Action::CopyRange { from, to, len } => {
                self.copy_range(*from, *to, *len, now).map(Outcome::Written)
            }
            Action::Tmpfile { dir, mode, linkable, caller } => self
                .tmpfile(*dir, *mode, *linkable, *caller, now)
                .map(|(ino, handle)| Outcome::Opened(ino, handle)),
            Action::Readdir { ino } => self.readdir(*ino).map(Outcome::Entries),
            Action::Statfs => Ok(Outcome::Counts(self.statfs())),
            Action::Fsync { ino } | Action::Fdatasync { ino } => {
                self.getattr(*ino).map(|_| Outcome::Done)
            }
            Action::GetXattr { ino, name } => {
                self.get_xattr(*ino, name).map(|value| Outcome::Bytes(value.to_vec()))
            }
            Action::ListXattrs { ino } => self.list_xattrs(*ino).map(Outcome::Names),
            Action::SetXattr { ino, name, value, presence } => {
                self.set_xattr(*ino, name, &value.bytes(), *presence, now).map(done)
            }
            Action::RemoveXattr { ino, name } => self.remove_xattr(*ino, name, now).map(done),
        }
    }
}
