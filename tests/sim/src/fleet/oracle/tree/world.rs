//! One way in which a small tree may be behind a part of a history: the model's tree, which of its
//! objects is which of the file system, and what of lives that are lost it lacks.
//!
//! Objects without a name stay in it to the end of the window, so that descriptors are served. Whoever
//! comes to one by its number, or to one that is not there, may be told so, or find it as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use mfs::file::FileId;
use model::posix::{Caller, Errno, Ino, Kind, Rename, Tree};
use mx_base::Timestamp;

use super::{Answer, Call, Op, Synced};
use crate::fleet::LifeId;

/// Times are not compared.
const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };
/// More than any file here has.
const ALL: usize = 4096;

/// What the file system calls an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Label {
    File(FileId),
    /// Made by this operation, whose answer nobody got; nobody has seen the object yet.
    Unseen(usize),
}

/// What a world does not have although it was done.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(super) struct Lacks {
    /// By life: its first change that is not there; none behind it is.
    cut: BTreeMap<LifeId, usize>,
    /// Writes that are not there, whatever came behind them, and the files they were to.
    writes: BTreeMap<usize, (LifeId, FileId)>,
}

impl Lacks {
    /// What of it is there no more once only these lives are lost.
    pub(super) fn of(&self, lost: &BTreeSet<LifeId>) -> Lacks {
        let cut = self.cut.iter().filter(|(life, _)| lost.contains(life));
        let writes = self.writes.iter().filter(|(_, (life, _))| lost.contains(life));
        Lacks {
            cut: cut.map(|(k, v)| (*k, *v)).collect(),
            writes: writes.map(|(k, v)| (*k, *v)).collect(),
        }
    }

    fn has_writes_of(&self, life: LifeId) -> bool {
        self.writes.values().any(|(of, _)| *of == life)
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct World {
    tree: Tree,
    labels: BTreeMap<Ino, Label>,
    pub(super) lacks: Lacks,
}

/// What the model's tree answers.
enum Found {
    Done,
    Made(Ino),
    Name(Option<Ino>),
    Names(Vec<(Vec<u8>, Ino)>),
    Attributes { is_directory: bool, links: u32, size: u64 },
    Bytes(Vec<u8>),
}

impl World {
    /// An empty tree.
    pub(super) fn new(root: FileId) -> World {
        let labels = BTreeMap::from([(Ino::ROOT, Label::File(root))]);
        World { tree: Tree::new(NOW), labels, lacks: Lacks::default() }
    }

    /// What a new window begins with: nothing is in doubt, and nobody has anything open.
    pub(super) fn settled(mut self) -> World {
        let orphans: Vec<_> =
            self.tree.handles().filter(|(_, ino)| self.tree.names(*ino).len() == 0).collect();
        for (handle, ino) in orphans {
            self.tree.release(handle).expect("it is open");
            self.labels.remove(&ino);
        }
        self.lacks = Lacks::default();
        self
    }

    /// Objects with a name, the root among them.
    pub(super) fn objects(&self) -> usize {
        let named = self.labels.keys().filter(|ino| self.tree.names(**ino).len() > 0);
        1 + named.count()
    }

    /// The world behind an operation, and whether it is another one; `None` when the answer cannot
    /// have been given in this one.
    pub(super) fn behind(&self, number: usize, op: &Op) -> Option<(World, bool)> {
        let is_cut = self.lacks.cut.contains_key(&op.life);
        if let Call::Sync(what) = op.call {
            let is_lost = |(life, of): &(LifeId, FileId)| {
                *life == op.life
                    && match what {
                        Synced::Names => false,
                        Synced::File(file) => *of == file,
                        Synced::Everything => true,
                    }
            };
            let is_kept = !is_cut && !self.lacks.writes.values().any(is_lost);
            return is_kept.then(|| (self.clone(), false));
        }
        // A life sees what it has done itself as long as it lives.
        if is_cut || !op.call.is_change() && self.lacks.has_writes_of(op.life) {
            return Some((self.clone(), false));
        }
        let mut after = self.clone();
        let changed = after.apply(number, op)?;
        Some((after, changed))
    }

    /// The world in which the operation, of a life that will be lost, does not survive it.
    pub(super) fn without(&self, number: usize, op: &Op) -> Option<World> {
        if self.lacks.cut.contains_key(&op.life) {
            return None;
        }
        let mut without = self.clone();
        if let Call::Write { file, .. } = op.call {
            without.lacks.writes.insert(number, (op.life, file));
        } else {
            without.lacks.cut.insert(op.life, number);
        }
        Some(without)
    }

    /// The same for worlds that nothing tells apart.
    pub(super) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lacks.hash(&mut hasher);
        let by_label: BTreeMap<Label, Ino> = self.labels.iter().map(|(i, l)| (*l, *i)).collect();
        for (label, ino) in by_label {
            label.hash(&mut hasher);
            self.tree.names(ino).len().hash(&mut hasher);
            match self.tree.kind(ino) {
                Some(Kind::Directory) => {
                    for (name, child, _) in self.tree.readdir(ino).unwrap_or_default() {
                        (name, self.labels.get(&child)).hash(&mut hasher);
                    }
                }
                _ => self.tree.read(ino, 0, ALL).unwrap_or_default().hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    fn ino(&self, file: FileId) -> Option<Ino> {
        let label = Label::File(file);
        self.labels.iter().find(|(_, l)| **l == label).map(|(ino, _)| *ino)
    }

    fn is_gone(&self, file: FileId) -> bool {
        let ino = self.ino(file);
        ino.is_none_or(|ino| ino != Ino::ROOT && self.tree.names(ino).len() == 0)
    }

    /// True when it changed anything, also what is known of an object.
    fn apply(&mut self, number: usize, op: &Op) -> Option<bool> {
        let is_refused = matches!(op.answer, Some(Answer::Failed(Errno::Stale | Errno::NoEntry)));
        if is_refused && op.call.files().iter().any(|file| self.is_gone(*file)) {
            return Some(false);
        }
        let found = self.run(&op.call)?;
        let Some(answer) = &op.answer else {
            // Nobody was told; what it would not have done it has not done.
            if let Found::Made(ino) = found.ok()? {
                self.labels.insert(ino, Label::Unseen(number));
            }
            return Some(true);
        };
        match (answer, found) {
            (Answer::Failed(told), Err(errno)) => {
                // Which of several reasons a rename fails for depends on who looks first.
                let is_rename = matches!(op.call, Call::Rename { .. });
                (*told == errno || is_rename).then_some(false)
            }
            (Answer::Done, Ok(Found::Done)) => Some(op.has_effect()),
            (Answer::File(file), Ok(Found::Made(ino))) => {
                self.labels.insert(ino, Label::Unseen(number));
                self.is_same(ino, *file)
            }
            (Answer::File(file), Ok(Found::Name(Some(ino)))) => self.is_same(ino, *file),
            (Answer::Absent, Ok(Found::Name(None))) => Some(false),
            (Answer::Names(told), Ok(Found::Names(names))) => {
                let mut learned = false;
                if told.len() != names.len() {
                    return None;
                }
                for ((name, file), (expected, ino)) in told.iter().zip(names) {
                    if *name != expected {
                        return None;
                    }
                    learned |= self.is_same(ino, *file)?;
                }
                Some(learned)
            }
            (
                Answer::Attributes { is_directory: d, links: l, size: s },
                Ok(Found::Attributes { is_directory, links, size }),
            ) => {
                (*d == is_directory && *l == links && (is_directory || *s == size)).then_some(false)
            }
            (Answer::Bytes(told), Ok(Found::Bytes(bytes))) => (*told == bytes).then_some(false),
            _ => None,
        }
    }

    /// Is the object this file? True when that is news.
    fn is_same(&mut self, ino: Ino, file: FileId) -> Option<bool> {
        match self.labels[&ino] {
            Label::File(known) => (known == file).then_some(false),
            Label::Unseen(_) if self.ino(file).is_some() => None,
            Label::Unseen(_) => {
                self.labels.insert(ino, Label::File(file));
                Some(true)
            }
        }
    }

    /// `None` when it names what is not there.
    fn run(&mut self, call: &Call) -> Option<Result<Found, Errno>> {
        let of = |file: &FileId| self.ino(*file);
        let caller = Caller::default();
        Some(match call {
            Call::Lookup { dir, name } => match self.tree.lookup(of(dir)?, name) {
                Ok(ino) => Ok(Found::Name(Some(ino))),
                Err(Errno::NoEntry) => Ok(Found::Name(None)),
                Err(errno) => Err(errno),
            },
            Call::List { dir } => match self.tree.readdir(of(dir)?) {
                Ok(names) => {
                    Ok(Found::Names(names.into_iter().map(|(name, ino, _)| (name, ino)).collect()))
                }
                // It was removed.
                Err(Errno::NoEntry) => Ok(Found::Names(Vec::new())),
                Err(errno) => Err(errno),
            },
            Call::Stat { file } => self.tree.getattr(of(file)?).map(|found| Found::Attributes {
                is_directory: found.kind == Kind::Directory,
                links: found.nlink,
                size: found.size,
            }),
            Call::Read { file } => self.tree.read(of(file)?, 0, ALL).map(Found::Bytes),
            Call::Make { dir, name, is_directory } => {
                let dir = of(dir)?;
                let made = match is_directory {
                    true => self.tree.mkdir(dir, name, 0o755, caller, NOW),
                    false => self.tree.mknod(dir, name, None, 0o644, caller, NOW),
                };
                made.map(|ino| {
                    // Kept to the end of the window.
                    self.tree.open(ino).expect("a file or a directory");
                    Found::Made(ino)
                })
            }
            Call::Link { file, dir, name } => {
                let (ino, dir) = (of(file)?, of(dir)?);
                self.tree.link(ino, dir, name, NOW).map(|()| Found::Done)
            }
            Call::Unlink { dir, name } => {
                let dir = of(dir)?;
                self.tree.unlink(dir, name, NOW).map(|()| Found::Done)
            }
            Call::Rmdir { dir, name } => {
                let dir = of(dir)?;
                self.tree.rmdir(dir, name, NOW).map(|()| Found::Done)
            }
            Call::Rename { from, to, how } => {
                let (from_dir, to_dir) = (of(&from.0)?, of(&to.0)?);
                let how: Rename = *how;
                let done = self.tree.rename((from_dir, &from.1), (to_dir, &to.1), how, NOW);
                done.map(|()| Found::Done)
            }
            Call::Open { file, truncate } => {
                let ino = of(file)?;
                match (self.tree.kind(ino), truncate) {
                    (Some(Kind::Directory), _) => Err(Errno::IsDirectory),
                    (_, true) => self.tree.truncate(ino, 0, NOW).map(|()| Found::Done),
                    (_, false) => Ok(Found::Done),
                }
            }
            Call::Write { file, value } => {
                let ino = of(file)?;
                self.tree.write(ino, 0, &value.to_le_bytes(), NOW).map(|_| Found::Done)
            }
            Call::Sync { .. } => Ok(Found::Done),
        })
    }
}
