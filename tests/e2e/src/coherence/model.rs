//! What a small tree is like, and what each system call shows of it: the words of an observation.
//!
//! Keeps true: nothing here asks a file system. Times are told by what became of them since the
//! tree was made, and objects by the name that they had then, so that the same operation gives the
//! same words wherever it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rustix::io::Errno;

/// Every name that an operation makes, changes or takes away; the folder itself is `.`.
pub(super) const NAMES: [&str; 12] = [
    ".",
    "file",
    "other",
    "link",
    "sub",
    "sub/inner",
    "empty",
    "new",
    "new/inner",
    "sub/file",
    "sub/empty",
    "empty/inner",
];

/// What a page of the kernel and a block of the file system have.
pub(super) const PAGE: usize = 4096;

/// As many pages as the longest file has.
pub(super) const PAGES: usize = 4;

/// Where the pieces end that what is read is told by: pages, and what was behind the end at first.
const PIECES: [(usize, usize); 5] = [
    (0, PAGE),
    (PAGE, 2 * PAGE),
    (2 * PAGE, FILE_BYTES),
    (FILE_BYTES, 3 * PAGE),
    (3 * PAGE, PAGES * PAGE),
];

pub(super) const FILE_BYTES: usize = 10_000;
pub(super) const OTHER_BYTES: usize = 5000;
pub(super) const INNER_BYTES: usize = 300;

/// Of what is made; the umask is 0.
pub(super) const FILE_MODE: u32 = 0o640;
pub(super) const DIR_MODE: u32 = 0o750;

pub(super) const KEPT: &str = "user.kept";
pub(super) const ACL: &str = "system.posix_acl_access";

/// The tree.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    objects: Vec<Object>,
    names: BTreeMap<String, usize>,
}

/// A file, a folder or something else.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// The name that it had at first; none when it is new.
    pub(super) origin: Option<&'static str>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) links: u32,
    pub(super) modified: Moment,
    pub(super) changed: Moment,
    pub(super) bytes: Vec<u8>,
    /// Blocks that are no holes.
    pub(super) data: BTreeSet<usize>,
    pub(super) xattrs: BTreeMap<&'static str, &'static str>,
    pub(super) is_immutable: bool,
    pub(super) is_locked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    File,
    Dir,
    Link(&'static str),
    Fifo,
}

impl Kind {
    pub(super) fn letter(self) -> char {
        match self {
            Kind::File => 'f',
            Kind::Dir => 'd',
            Kind::Link(_) => 'l',
            Kind::Fifo => 'p',
        }
    }
}

/// What became of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    Same,
    Later,
    /// As utimensat(2) was told.
    Told,
}

impl Moment {
    pub(super) fn word(self) -> &'static str {
        match self {
            Moment::Same => "same",
            Moment::Later => "later",
            Moment::Told => "told",
        }
    }
}

impl Object {
    fn new(origin: Option<&'static str>, kind: Kind, bytes: Vec<u8>) -> Object {
        let mode = match kind {
            Kind::File | Kind::Fifo => FILE_MODE,
            Kind::Dir => DIR_MODE,
            Kind::Link(_) => 0o777,
        };
        let links = if kind == Kind::Dir { 2 } else { 1 };
        let data = (0..bytes.len().div_ceil(PAGE)).collect();
        Object {
            origin,
            kind,
            mode,
            owner: (0, 0),
            links,
            modified: Moment::Same,
            changed: Moment::Same,
            bytes,
            data,
            xattrs: BTreeMap::new(),
            is_immutable: false,
            is_locked: false,
        }
    }

    /// Data or attributes have changed.
    fn touch(&mut self) {
        self.modified = Moment::Later;
        self.changed = Moment::Later;
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.resize(self.bytes.len().max(end));
        self.bytes[at..end].copy_from_slice(bytes);
        self.data.extend(at / PAGE..end.div_ceil(PAGE));
        self.touch();
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.bytes.resize(len, 0);
        self.data.retain(|block| *block < len.div_ceil(PAGE));
        self.touch();
    }

    /// Zeros; what lies in the range as a whole is a hole.
    pub(super) fn zero(&mut self, from: usize, to: usize) {
        self.bytes[from..to].fill(0);
        self.data.retain(|block| *block < from.div_ceil(PAGE) || *block >= to / PAGE);
        self.touch();
    }

    pub(super) fn size(&self) -> usize {
        match self.kind {
            Kind::File | Kind::Fifo => self.bytes.len(),
            // Every file system has its own.
            Kind::Dir => 0,
            Kind::Link(target) => target.len(),
        }
    }

    /// What stat(2) tells, but for the time it was made.
    pub(super) fn stat(&self) -> String {
        let times = match self.origin {
            Some(_) => [self.modified, self.changed].map(Moment::word),
            None => ["new"; 2],
        };
        stat_words(&Stat {
            origin: self.origin,
            letter: self.kind.letter(),
            mode: self.mode,
            links: self.links,
            owner: self.owner,
            size: self.size() as u64,
            times,
        })
    }

    pub(super) fn pieces(&self) -> Vec<String> {
        pieces(&self.bytes).to_vec()
    }

    /// As a mapping has it: the last page is whole.
    pub(super) fn mapped_page(&self, page: usize) -> String {
        let (from, to) = (page * PAGE, (page + 1) * PAGE);
        if from >= self.bytes.len() {
            return "SIGBUS".to_owned();
        }
        let mut bytes = self.bytes[from..to.min(self.bytes.len())].to_vec();
        bytes.resize(PAGE, 0);
        runs(&bytes)
    }

    /// lseek(2) for data, or for a hole.
    pub(super) fn seek(&self, from: usize, data: bool) -> String {
        let size = self.bytes.len();
        if from >= size {
            return error(Errno::NXIO);
        }
        let found = (from / PAGE..size.div_ceil(PAGE)).find(|b| self.data.contains(b) == data);
        match found {
            Some(block) => (block * PAGE).max(from).to_string(),
            None if data => error(Errno::NXIO),
            None => size.to_string(),
        }
    }
}

/// What stat(2) tells of something.
#[derive(Debug)]
pub(super) struct Stat {
    pub(super) origin: Option<&'static str>,
    pub(super) letter: char,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) owner: (u32, u32),
    pub(super) size: u64,
    /// Of modification and change.
    pub(super) times: [&'static str; 2],
}

pub(super) fn stat_words(stat: &Stat) -> String {
    let Stat { origin, letter, mode, links, owner: (user, group), size, times } = stat;
    let origin = origin.unwrap_or("new");
    let [modified, changed] = times;
    format!(
        "was {origin}, {letter}{mode:o}, {links} links, {user}:{group}, {size} bytes, \
         mtime {modified}, ctime {changed}"
    )
}

pub(super) fn error(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

/// What was read from the start of a file, a word for each piece; nothing behind its end.
pub(super) fn pieces(bytes: &[u8]) -> [String; PIECES.len()] {
    let end = bytes.len();
    PIECES.map(|(from, to)| runs(&bytes[from.min(end)..to.min(end)]))
}

/// The same where nothing could be read.
pub(super) fn no_pieces(why: &str) -> [String; PIECES.len()] {
    PIECES.map(|_| why.to_owned())
}

/// `4096 of 61, 3 of 00`.
pub(super) fn runs(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        // Text never fails to be written to text.
        let _ = write!(text, "{} of {:02x}, ", run.len(), run[0]);
    }
    text.truncate(text.trim_end_matches(", ").len());
    text
}

impl Tree {
    /// As `world::make` makes it.
    pub(super) fn new() -> Tree {
        let objects = vec![
            Object::new(Some("."), Kind::Dir, Vec::new()),
            Object::new(Some("file"), Kind::File, vec![b'f'; FILE_BYTES]),
            Object::new(Some("other"), Kind::File, vec![b'o'; OTHER_BYTES]),
            Object::new(Some("link"), Kind::Link("file"), Vec::new()),
            Object::new(Some("sub"), Kind::Dir, Vec::new()),
            Object::new(Some("sub/inner"), Kind::File, vec![b'i'; INNER_BYTES]),
            Object::new(Some("empty"), Kind::Dir, Vec::new()),
        ];
        let origin = |(number, object): (usize, &Object)| {
            object.origin.map(|origin| (origin.to_owned(), number))
        };
        let names = objects.iter().enumerate().filter_map(origin).collect();
        let mut tree = Tree { objects, names };
        tree.was("file").xattrs.insert(KEPT, "old");
        tree.was(".").links = 4;
        tree
    }

    /// The names of this one, and what became of what they name.
    pub(super) fn with_objects_of(&self, later: &Tree) -> Tree {
        Tree { objects: later.objects.clone(), names: self.names.clone() }
    }

    /// What had a name at first.
    pub(super) fn was(&mut self, origin: &str) -> &mut Object {
        let found = self.objects.iter_mut().find(|object| object.origin == Some(origin));
        found.expect("one of the first names")
    }

    /// The same, to look at.
    pub(super) fn origin(&self, origin: &str) -> &Object {
        let found = self.objects.iter().find(|object| object.origin == Some(origin));
        found.expect("one of the first names")
    }

    fn touch_parent(&mut self, name: &str) -> usize {
        let parent = name.rsplit_once('/').map_or(".", |(parent, _)| parent);
        let parent = self.names[parent];
        self.objects[parent].touch();
        parent
    }

    /// Something new gets a name.
    pub(super) fn make(&mut self, name: &str, kind: Kind, bytes: Vec<u8>) {
        let parent = self.touch_parent(name);
        self.objects[parent].links += u32::from(kind == Kind::Dir);
        self.names.insert(name.to_owned(), self.objects.len());
        self.objects.push(Object::new(None, kind, bytes));
    }

    pub(super) fn link(&mut self, from: &str, to: &str) {
        self.touch_parent(to);
        let object = self.names[from];
        self.objects[object].links += 1;
        self.objects[object].changed = Moment::Later;
        self.names.insert(to.to_owned(), object);
    }

    /// unlink or rmdir.
    pub(super) fn remove(&mut self, name: &str) {
        let parent = self.touch_parent(name);
        let object = self.names.remove(name).expect("it is there");
        self.lose(object, parent);
    }

    /// An object loses a name in a folder.
    fn lose(&mut self, object: usize, parent: usize) {
        let is_dir = self.objects[object].kind == Kind::Dir;
        self.objects[parent].links -= u32::from(is_dir);
        let object = &mut self.objects[object];
        object.links = if is_dir { 0 } else { object.links - 1 };
        object.changed = Moment::Later;
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        let (left, entered) = (self.touch_parent(from), self.touch_parent(to));
        if let Some(replaced) = self.names.remove(to) {
            self.lose(replaced, entered);
        }
        let object = self.names[from];
        self.objects[object].changed = Moment::Later;
        let is_dir = u32::from(self.objects[object].kind == Kind::Dir);
        self.objects[left].links -= is_dir;
        self.objects[entered].links += is_dir;
        for (name, object) in std::mem::take(&mut self.names) {
            let below = name.strip_prefix(from).filter(|r| r.is_empty() || r.starts_with('/'));
            let name = below.map_or_else(|| name.clone(), |rest| format!("{to}{rest}"));
            self.names.insert(name, object);
        }
    }

    pub(super) fn exchange(&mut self, one: &str, another: &str) {
        for (name, object) in [(one, self.names[another]), (another, self.names[one])] {
            self.touch_parent(name);
            self.objects[object].changed = Moment::Later;
            self.names.insert(name.to_owned(), object);
        }
    }

    /// What is at the end of a path; a symbolic link there is followed, or not.
    ///
    /// # Errors
    /// ENOENT and ENOTDIR.
    pub(super) fn at(&self, name: &str, follow: bool) -> Result<&Object, Errno> {
        if let Some((parent, _)) = name.rsplit_once('/')
            && self.at(parent, true)?.kind != Kind::Dir
        {
            return Err(Errno::NOTDIR);
        }
        let object = self.names.get(name).map(|object| &self.objects[*object]);
        match object.ok_or(Errno::NOENT)? {
            Object { kind: Kind::Link(target), .. } if follow => self.at(target, true),
            object => Ok(object),
        }
    }

    /// The names in a folder, in order, each with the letter of its kind; none when it has no name
    /// itself any more.
    pub(super) fn list(&self, dir: &Object) -> String {
        let is_dir = |object: usize| std::ptr::eq(&raw const self.objects[object], dir);
        let path = self.names.iter().find(|(_, object)| is_dir(**object));
        let Some((path, _)) = path else { return String::new() };
        let inside = |name: &str| match name.rsplit_once('/') {
            Some((parent, last)) => (parent == path).then(|| last.to_owned()),
            None => (path == "." && name != ".").then(|| name.to_owned()),
        };
        let entry = |(name, object): (&String, &usize)| {
            inside(name).map(|last| format!("{last}:{}", self.objects[*object].kind.letter()))
        };
        self.names.iter().filter_map(entry).collect::<Vec<_>>().join(" ")
    }

    /// The path of what had a name at first.
    pub(super) fn path(&self, origin: &str) -> String {
        let is_it = |object: usize| self.objects[object].origin == Some(origin);
        let path = self.names.iter().find(|(_, object)| is_it(**object));
        path.map_or_else(|| "none".to_owned(), |(path, _)| path.clone())
    }
}
