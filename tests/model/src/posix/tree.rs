//! The tree itself: finding objects, listing directories, counting.

use std::collections::BTreeMap;
use std::sync::Arc;

use mx_base::Timestamp;

use super::errno::Errno;
use super::handle::Handle;
use super::node::{Body, Directory, Ino, Kind, Node};
use super::{NAME_MAX, diff};

/// The whole state of a file system, one version of it.
#[derive(Clone, Debug)]
pub struct Tree {
    pub(super) nodes: BTreeMap<Ino, Arc<Node>>,
    pub(super) next_ino: u64,
    pub(super) handles: BTreeMap<Handle, Ino>,
    pub(super) next_handle: u64,
}

/// What `statfs` can be checked against. Blocks are not predicted: how a file system lays out
/// metadata and small files is its own affair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Objects of all kinds, the root and unlinked but open ones included.
    pub objects: u64,
    /// Of these, without a name.
    pub orphans: u64,
    /// 4 KiB pages of files that hold written bytes.
    pub pages: u64,
}

/// What the last component of a path can be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Dot,
    DotDot,
    Name,
}

impl Tree {
    /// An empty root: mode 0755, owned by user and group 0.
    pub fn new(now: Timestamp) -> Tree {
        let root = Node {
            body: Body::Directory(Directory::default()),
            mode: 0o755,
            uid: 0,
            gid: 0,
            atime: now,
            mtime: now,
            ctime: now,
            names: [].into(),
            xattrs: [].into(),
            linkable: false,
        };
        Tree {
            nodes: [(Ino::ROOT, Arc::new(root))].into(),
            next_ino: Ino::ROOT.0 + 1,
            handles: BTreeMap::new(),
            next_handle: 1,
        }
    }

    /// The object that `name` in `dir` is; `.` and `..` are found as well.
    ///
    /// # Errors
    /// ENOTDIR, ENAMETOOLONG, ENOENT.
    pub fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Ino, Errno> {
        let directory = self.directory(dir)?;
        match last(name)? {
            Last::Dot => Ok(dir),
            Last::DotDot => Ok(self.parent(dir)),
            Last::Name => {
                check_length(name)?;
                directory.entries.get(name).copied().ok_or(Errno::NoEntry)
            }
        }
    }

    /// Entries without `.` and `..`, in order of their bytes.
    ///
    /// # Errors
    /// ENOTDIR; ENOENT for a directory that was removed and is still open.
    pub fn readdir(&self, dir: Ino) -> Result<Vec<(Vec<u8>, Ino, Kind)>, Errno> {
        let directory = self.directory(dir)?;
        if directory.removed {
            return Err(Errno::NoEntry);
        }
        let entry = |(name, ino): (&Vec<u8>, &Ino)| (name.clone(), *ino, self.must(*ino).kind());
        Ok(directory.entries.iter().map(entry).collect())
    }

    pub fn statfs(&self) -> Counts {
        let orphans = self.nodes.keys().filter(|ino| self.is_orphan(**ino)).count();
        let pages = self.nodes.values().map(|node| match &node.body {
            Body::File(content) => content.pages(),
            Body::Directory(_) | Body::Symlink(_) | Body::Special(_) => 0,
        });
        let count = |n: usize| u64::try_from(n).expect("what fits in memory fits in 64 bits");
        Counts {
            objects: count(self.nodes.len()),
            orphans: count(orphans),
            pages: count(pages.sum()),
        }
    }

    pub fn exists(&self, ino: Ino) -> bool {
        self.nodes.contains_key(&ino)
    }

    /// `None` when the object does not exist.
    pub fn kind(&self, ino: Ino) -> Option<Kind> {
        self.nodes.get(&ino).map(|node| node.kind())
    }

    /// Every object, unlinked but open ones included, in the order in which they were made.
    pub fn inos(&self) -> impl DoubleEndedIterator<Item = Ino> {
        self.nodes.keys().copied()
    }

    /// Every name of an object: the directory and the name in it. None for the root and orphans.
    pub fn names(&self, ino: Ino) -> impl ExactSizeIterator<Item = (Ino, &[u8])> {
        static NONE: std::collections::BTreeSet<(Ino, Vec<u8>)> = std::collections::BTreeSet::new();
        let names = self.nodes.get(&ino).map_or(&NONE, |node| &node.names);
        names.iter().map(|(dir, name)| (*dir, name.as_slice()))
    }

    /// A path from the root, such as `/a/b`; `None` for what has no name or does not exist.
    pub fn path(&self, ino: Ino) -> Option<Vec<u8>> {
        if ino == Ino::ROOT {
            return Some(b"/".to_vec());
        }
        let (dir, name) = self.nodes.get(&ino)?.names.first()?;
        let mut path = self.path(*dir)?;
        if *dir != Ino::ROOT {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Some(path)
    }

    /// The object at a path from the root, symbolic links not followed.
    ///
    /// # Errors
    /// As [`Tree::lookup`] of each component.
    pub fn resolve(&self, path: &[u8]) -> Result<Ino, Errno> {
        let mut components = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        components.try_fold(Ino::ROOT, |dir, name| self.lookup(dir, name))
    }

    /// How many directories lie between the root and the object; 0 for the root and for orphans.
    pub fn depth(&self, ino: Ino) -> usize {
        let parent = |ino: &Ino| self.must(*ino).names.first().map(|(dir, _)| *dir);
        std::iter::successors(Some(ino), parent).count() - 1
    }

    /// What a walk from the root finds.
    pub fn snapshot(&self) -> diff::Snapshot {
        diff::Snapshot::of(self)
    }

    pub(super) fn is_orphan(&self, ino: Ino) -> bool {
        ino != Ino::ROOT && self.must(ino).names.is_empty()
    }

    /// The directory above; a directory that was removed is its own.
    pub(super) fn parent(&self, dir: Ino) -> Ino {
        self.must(dir).names.first().map_or(dir, |(parent, _)| *parent)
    }

    /// Is `dir` the directory `other`, or above it?
    pub(super) fn is_above_or_same(&self, dir: Ino, other: Ino) -> bool {
        let parent = |ino: &Ino| (*ino != Ino::ROOT).then(|| self.parent(*ino));
        std::iter::successors(Some(other), parent)
            .take(self.nodes.len())
            .any(|ancestor| ancestor == dir)
    }

    pub(super) fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).map(|node| &**node).ok_or(Errno::Stale)
    }

    pub(super) fn node_mut(&mut self, ino: Ino) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&ino).map(Arc::make_mut).ok_or(Errno::Stale)
    }

    pub(super) fn directory(&self, ino: Ino) -> Result<&Directory, Errno> {
        match &self.node(ino)?.body {
            Body::Directory(directory) => Ok(directory),
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => Err(Errno::NotDirectory),
        }
    }

    /// An object that is known to exist.
    pub(super) fn must(&self, ino: Ino) -> &Node {
        self.nodes.get(&ino).expect("an entry or a handle names an object that lives")
    }

    pub(super) fn must_mut(&mut self, ino: Ino) -> &mut Node {
        let node = self.nodes.get_mut(&ino).expect("an entry names an object that lives");
        Arc::make_mut(node)
    }

    /// Puts an object into a directory under a free name; times are left to the operation.
    pub(super) fn attach(&mut self, dir: Ino, name: &[u8], ino: Ino) {
        let is_directory = self.must(ino).is_directory();
        self.must_mut(ino).names.insert((dir, name.to_vec()));
        let directory = self.must_directory_mut(dir);
        directory.directories += u32::from(is_directory);
        let before = directory.entries.insert(name.to_vec(), ino);
        assert_eq!(before, None, "the name was free");
    }

    /// Takes an entry out of its directory; what it named stays, times are left to the operation.
    pub(super) fn detach(&mut self, dir: Ino, name: &[u8]) {
        let entries = &mut self.must_directory_mut(dir).entries;
        let ino = entries.remove(name).expect("the entry was looked up before");
        let node = self.must_mut(ino);
        node.names.remove(&(dir, name.to_vec()));
        if node.is_directory() {
            self.must_directory_mut(dir).directories -= 1;
        }
    }

    pub(super) fn must_directory_mut(&mut self, ino: Ino) -> &mut Directory {
        match &mut self.must_mut(ino).body {
            Body::Directory(directory) => directory,
            Body::File(_) | Body::Symlink(_) | Body::Special(_) => {
                unreachable!("the caller has checked that it is a directory")
            }
        }
    }
}

/// # Errors
/// ENOENT for the empty name; EINVAL for what no path component can be.
pub(super) fn last(name: &[u8]) -> Result<Last, Errno> {
    match name {
        b"" => Err(Errno::NoEntry),
        b"." => Ok(Last::Dot),
        b".." => Ok(Last::DotDot),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Errno::Invalid),
        _ => Ok(Last::Name),
    }
}

pub(super) fn check_length(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_MAX { Err(Errno::NameTooLong) } else { Ok(()) }
}
