//! What a walk over a tree finds, and where two such findings differ first.
//!
//! The judged file system is walked by whoever runs it (through its own operations, or through a
//! mount) into a [`Snapshot`]; the model's comes from [`Tree::snapshot`]. Compared is what a user
//! can see from the root: unlinked but open objects are not.

use std::collections::BTreeMap;
use std::fmt;

use mx_base::Timestamp;

use super::attributes::Attributes;
use super::content::Content;
use super::node::{Body, Ino, Kind};
use super::tree::Tree;
use super::xattr::Xattrs;

/// One object as found under one name.
#[derive(Clone, Debug)]
pub struct Found {
    /// The same under two names if, and only if, they are one object; comparable within one
    /// snapshot only.
    pub identity: u64,
    pub attributes: Attributes,
    /// Of a file.
    pub content: Option<Content>,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
    pub xattrs: Xattrs,
}

/// Everything that is found from the root, by path; the root itself is `/`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub found: BTreeMap<Vec<u8>, Found>,
}

/// How much has to agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Compare {
    /// Names, kinds, modes, owners, link counts, devices, targets and extended attributes, but not what is in files.
    WithoutContents,
    /// Sizes and bytes of files as well.
    WithoutTimes,
    /// mtime and ctime as well.
    WithTimes,
}

/// The first difference in order of paths, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub path: Vec<u8>,
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.escape_ascii(), self.what)
    }
}

/// `None` when `found` is what was expected.
pub fn diff(expected: &Snapshot, found: &Snapshot, compare: Compare) -> Option<Difference> {
    let mut paths: Vec<&Vec<u8>> = expected.found.keys().chain(found.found.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    // First name of each object on one side, with the object of that name on the other side.
    let mut first_found: BTreeMap<u64, (&Vec<u8>, u64)> = BTreeMap::new();
    let mut first_expected: BTreeMap<u64, (&Vec<u8>, u64)> = BTreeMap::new();
    for path in paths {
        let what = match (expected.found.get(path), found.found.get(path)) {
            (Some(a), None) => Some(format!("{} is missing", a.attributes.kind)),
            (None, Some(b)) => Some(format!("{} that should not be there", b.attributes.kind)),
            (Some(a), Some(b)) => {
                let (_, same) = first_expected.entry(a.identity).or_insert((path, b.identity));
                let parted = (*same != b.identity).then(|| first_expected[&a.identity].0);
                let (_, same) = first_found.entry(b.identity).or_insert((path, a.identity));
                let joined = (*same != a.identity).then(|| first_found[&b.identity].0);
                let links = match (parted, joined) {
                    (Some(other), _) => {
                        Some(format!("should be the same object as {}", other.escape_ascii()))
                    }
                    (None, Some(other)) => {
                        Some(format!("should not be the same object as {}", other.escape_ascii()))
                    }
                    (None, None) => None,
                };
                links.or_else(|| differs(a, b, compare))
            }
            (None, None) => unreachable!("every path comes from one of the two"),
        };
        if let Some(what) = what {
            return Some(Difference { path: path.clone(), what });
        }
    }
    None
}

fn differs(expected: &Found, found: &Found, compare: Compare) -> Option<String> {
    let (a, b) = (&expected.attributes, &found.attributes);
    let octal = |mode: u16| format!("{mode:04o}");
    let time = |time: Timestamp| format!("{time:?}");
    value("is", a.kind, b.kind)
        .or_else(|| value("mode", octal(a.mode), octal(b.mode)))
        .or_else(|| value("owner", a.uid, b.uid))
        .or_else(|| value("group", a.gid, b.gid))
        .or_else(|| value("link count", a.nlink, b.nlink))
        .or_else(|| value("device", format!("{:?}", a.device), format!("{:?}", b.device)))
        .or_else(|| target(expected.target.as_ref()?, found.target.as_ref()?))
        .or_else(|| xattrs(&expected.xattrs, &found.xattrs))
        .or_else(|| match compare {
            Compare::WithoutContents => None,
            Compare::WithoutTimes | Compare::WithTimes => contents(expected, found),
        })
        .or_else(|| match compare {
            Compare::WithoutContents | Compare::WithoutTimes => None,
            Compare::WithTimes => value("mtime", time(a.mtime), time(b.mtime))
                .or_else(|| value("ctime", time(a.ctime), time(b.ctime))),
        })
}

fn contents(expected: &Found, found: &Found) -> Option<String> {
    let (a, b) = (&expected.attributes, &found.attributes);
    if a.kind == Kind::Directory {
        return None;
    }
    value("size", a.size, b.size)
        .or_else(|| bytes(expected.content.as_ref()?, found.content.as_ref()?))
}

fn value<T: PartialEq + fmt::Display>(name: &str, expected: T, found: T) -> Option<String> {
    (expected != found).then(|| format!("{name} {found}, expected {expected}"))
}

fn bytes(expected: &Content, found: &Content) -> Option<String> {
    let (at, a, b) = expected.first_difference(found)?;
    let byte = |byte: Option<u8>| byte.map_or("nothing".to_owned(), |b| format!("{b:#04x}"));
    Some(format!("byte {at} is {}, expected {}", byte(b), byte(a)))
}

fn xattrs(expected: &Xattrs, found: &Xattrs) -> Option<String> {
    let mut names = expected.keys().chain(found.keys());
    let name = names.find(|name| expected.get(*name) != found.get(*name))?;
    let shown = |value: Option<&Vec<u8>>| match value {
        None => "absent".to_owned(),
        Some(value) if value.len() > 64 => format!("{} bytes", value.len()),
        Some(value) => format!("{}", value.escape_ascii()),
    };
    let (expected, found) = (shown(expected.get(name)), shown(found.get(name)));
    Some(format!("attribute {} is {found}, expected {expected}", name.escape_ascii()))
}

fn target(expected: &[u8], found: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| format!("{}", bytes.escape_ascii());
    value("points to", text(expected), text(found))
}

impl Snapshot {
    pub(super) fn of(tree: &Tree) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut waiting = vec![(b"/".to_vec(), Ino::ROOT)];
        while let Some((path, ino)) = waiting.pop() {
            let node = tree.must(ino);
            if let Body::Directory(directory) = &node.body {
                let prefix: &[u8] = if ino == Ino::ROOT { b"" } else { &path };
                let below = |(name, ino): (&Vec<u8>, &Ino)| ([prefix, b"/", name].concat(), *ino);
                waiting.extend(directory.entries.iter().map(below));
            }
            let (content, target) = match &node.body {
                Body::File(content) => (Some(content.clone()), None),
                Body::Symlink(target) => (None, Some(target.clone())),
                Body::Directory(_) | Body::Special(_) => (None, None),
            };
            let attributes = tree.getattr(ino).expect("an object that a walk finds lives");
            let found = Found {
                identity: ino.get(),
                attributes,
                content,
                target,
                xattrs: node.xattrs.clone(),
            };
            snapshot.found.insert(path, found);
        }
        snapshot
    }
}
