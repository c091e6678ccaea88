//! An operation before it meets a tree.

use super::action::Action;
use super::data::{Data, Value};
use crate::posix::{
    Allocate, Caller, Change, Existing, Handle, Ino, Kind, Presence, Rename, Special, Tree,
};

/// Chooses one of the things there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The n-th of them, counted on from the first again when there are fewer.
    Any(u32),
    /// The n-th from the last made; likewise.
    Newest(u32),
}

/// Which objects are chosen from; all where there are none of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Among {
    All,
    Directories,
    /// What is no directory.
    Others,
}

/// Chooses a directory and a name in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A name that exists: of the object, the n-th name.
    Existing { among: Among, object: Pick, name: u32 },
    /// Any name, there or not.
    Named { dir: Pick, name: Vec<u8> },
}

/// Chooses an offset in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    At(u64),
    /// So many bytes before the end (from the start where the file is shorter).
    BeforeEnd(u64),
    AfterEnd(u64),
}

/// An operation whose operands are indices of what exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    Lookup { entry: Entry },
    Getattr { object: Pick },
    Setattr { object: Pick, change: Change },
    Truncate { file: Pick, size: Place },
    Create { dir: Pick, name: Vec<u8>, mode: u16, existing: Existing, caller: Caller },
    Mknod { dir: Pick, name: Vec<u8>, special: Option<Special>, mode: u16, caller: Caller },
    Mkdir { dir: Pick, name: Vec<u8>, mode: u16, caller: Caller },
    Symlink { dir: Pick, name: Vec<u8>, target: Vec<u8>, caller: Caller },
    Readlink { object: Pick },
    Link { among: Among, object: Pick, dir: Pick, name: Vec<u8> },
    Unlink { entry: Entry },
    Rmdir { entry: Entry },
    Rename { from: Entry, to: Entry, how: Rename },
    Open { object: Pick },
    Release { handle: Pick },
    Read { file: Pick, place: Place, len: usize },
    Write { file: Pick, place: Place, data: Data },
    Append { file: Pick, data: Data },
    Allocate { file: Pick, what: Allocate, place: Place, len: usize },
    Seek { file: Pick, place: Place, hole: bool },
    CopyRange { from: (Pick, Place), to: (Pick, Place), len: usize },
    Tmpfile { dir: Pick, mode: u16, linkable: bool, caller: Caller },
    Readdir { dir: Pick },
    Statfs,
    Fsync { object: Pick },
    Fdatasync { file: Pick },
    GetXattr { object: Pick, name: Vec<u8> },
    ListXattrs { object: Pick },
    SetXattr { object: Pick, name: Vec<u8>, value: Value, presence: Presence },
    RemoveXattr { object: Pick, name: Vec<u8> },
}

impl Op {
    /// The same operation with objects of `tree`; `None` where there is nothing to choose from.
    pub fn resolve(&self, tree: &Tree) -> Option<Action> {
        Some(match self.clone() {
            Op::Lookup { entry } => {
                let (dir, name) = entry.resolve(tree)?;
                Action::Lookup { dir, name }
            }
            Op::Getattr { object } => Action::Getattr { ino: any(tree, object)? },
            Op::Setattr { object, change } => Action::Setattr { ino: any(tree, object)?, change },
            Op::Truncate { file, size } => {
                let ino = of_kind(tree, file, Kind::File)?;
                let size = Some(size.resolve(tree, ino));
                Action::Setattr { ino, change: Change { size, ..Change::default() } }
            }
            Op::Create { dir, name, mode, existing, caller } => {
                Action::Create { dir: directory(tree, dir), name, mode, existing, caller }
            }
            Op::Mknod { dir, name, special, mode, caller } => {
                Action::Mknod { dir: directory(tree, dir), name, special, mode, caller }
            }
            Op::Mkdir { dir, name, mode, caller } => {
                Action::Mkdir { dir: directory(tree, dir), name, mode, caller }
            }
            Op::Symlink { dir, name, target, caller } => {
                Action::Symlink { dir: directory(tree, dir), name, target, caller }
            }
            Op::Readlink { object } => Action::Readlink {
                ino: of_kind(tree, object, Kind::Symlink).or_else(|| any(tree, object))?,
            },
            Op::Link { among, object, dir, name } => {
                let ino = among.pick(tree, object, |_| true)?;
                Action::Link { ino, dir: directory(tree, dir), name }
            }
            Op::Unlink { entry } => {
                let (dir, name) = entry.resolve(tree)?;
                Action::Unlink { dir, name }
            }
            Op::Rmdir { entry } => {
                let (dir, name) = entry.resolve(tree)?;
                Action::Rmdir { dir, name }
            }
            Op::Rename { from, to, how } => {
                Action::Rename { from: from.resolve(tree)?, to: to.resolve(tree)?, how }
            }
            Op::Open { object } => Action::Open { ino: any(tree, object)? },
            Op::Release { handle } => Action::Release { handle: open_handle(tree, handle)? },
            Op::Read { file, place, len } => {
                let ino = of_kind(tree, file, Kind::File)?;
                Action::Read { ino, offset: place.resolve(tree, ino), len }
            }
            Op::Write { file, place, data } => {
                let ino = of_kind(tree, file, Kind::File)?;
                Action::Write { ino, offset: place.resolve(tree, ino), data }
            }
            Op::Append { file, data } => {
                Action::Append { ino: of_kind(tree, file, Kind::File)?, data }
            }
            Op::Allocate { file, what, place, len } => {
                let ino = of_kind(tree, file, Kind::File)?;
                let len = u64::try_from(len).expect("a length");
                Action::Allocate { ino, what, offset: place.resolve(tree, ino), len }
            }
            Op::Seek { file, place, hole } => {
                let ino = of_kind(tree, file, Kind::File)?;
                Action::Seek { ino, offset: place.resolve(tree, ino), hole }
            }
            Op::CopyRange { from, to, len } => {
                let [from, to] = [from, to].map(|(file, place)| {
                    let ino = of_kind(tree, file, Kind::File)?;
                    Some((ino, place.resolve(tree, ino)))
                });
                Action::CopyRange { from: from?, to: to?, len }
            }
            Op::Tmpfile { dir, mode, linkable, caller } => {
                Action::Tmpfile { dir: directory(tree, dir), mode, linkable, caller }
            }
            Op::Readdir { dir } => Action::Readdir { ino: directory(tree, dir) },
            Op::Statfs => Action::Statfs,
            Op::Fsync { object } => Action::Fsync { ino: any(tree, object)? },
            Op::GetXattr { object, name } => Action::GetXattr { ino: any(tree, object)?, name },
            Op::ListXattrs { object } => Action::ListXattrs { ino: any(tree, object)? },
            Op::SetXattr { object, name, value, presence } => {
                Action::SetXattr { ino: any(tree, object)?, name, value, presence }
            }
            Op::RemoveXattr { object, name } => {
                Action::RemoveXattr { ino: any(tree, object)?, name }
            }
            Op::Fdatasync { file } => Action::Fdatasync { ino: of_kind(tree, file, Kind::File)? },
        })
    }
}

impl Pick {
    fn of<T>(self, things: impl Iterator<Item = T>) -> Option<T> {
        let mut things: Vec<T> = things.collect();
        let (Pick::Any(n) | Pick::Newest(n)) = self;
        let index = usize::try_from(n).expect("32 bits fit").checked_rem(things.len())?;
        Some(things.swap_remove(match self {
            Pick::Any(_) => index,
            Pick::Newest(_) => things.len() - 1 - index,
        }))
    }
}

impl Entry {
    fn resolve(self, tree: &Tree) -> Option<(Ino, Vec<u8>)> {
        match self {
            Entry::Existing { among, object, name } => {
                let named = |ino: &Ino| tree.names(*ino).len() > 0;
                let ino = among.pick(tree, object, named)?;
                let (dir, name) = Pick::Any(name).of(tree.names(ino))?;
                Some((dir, name.to_vec()))
            }
            Entry::Named { dir, name } => Some((directory(tree, dir), name)),
        }
    }
}

impl Among {
    fn pick(self, tree: &Tree, pick: Pick, suits: impl Fn(&Ino) -> bool) -> Option<Ino> {
        let is_directory = |ino: &Ino| tree.kind(*ino) == Some(Kind::Directory);
        let wanted = tree.inos().filter(|ino| match self {
            Among::All => true,
            Among::Directories => is_directory(ino),
            Among::Others => !is_directory(ino),
        });
        pick.of(wanted.filter(&suits)).or_else(|| pick.of(tree.inos().filter(&suits)))
    }
}

impl Place {
    fn resolve(self, tree: &Tree, file: Ino) -> u64 {
        let size = tree.getattr(file).map_or(0, |attributes| attributes.size);
        match self {
            Place::At(offset) => offset,
            Place::BeforeEnd(bytes) => size.saturating_sub(bytes),
            Place::AfterEnd(bytes) => size.saturating_add(bytes),
        }
    }
}

fn any(tree: &Tree, pick: Pick) -> Option<Ino> {
    pick.of(tree.inos())
}

fn of_kind(tree: &Tree, pick: Pick, kind: Kind) -> Option<Ino> {
    pick.of(tree.inos().filter(|ino| tree.kind(*ino) == Some(kind)))
}

/// A directory in the tree; there is always the root.
fn directory(tree: &Tree, pick: Pick) -> Ino {
    let has_place = |ino: &Ino| *ino == Ino::ROOT || tree.names(*ino).len() > 0;
    let is_directory = |ino: &Ino| tree.kind(*ino) == Some(Kind::Directory);
    pick.of(tree.inos().filter(|ino| has_place(ino) && is_directory(ino))).unwrap_or(Ino::ROOT)
}

fn open_handle(tree: &Tree, pick: Pick) -> Option<Handle> {
    pick.of(tree.handles().map(|(handle, _)| handle))
}
