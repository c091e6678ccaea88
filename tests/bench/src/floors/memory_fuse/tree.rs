//! Files and directories in memory.
//!
//! Keeps true: a directory's entries are found by name and by the number under which they are
//! listed, and both agree.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::{Errno, FileAttr, FileType, INodeNo};

/// Bytes that `stat` counts space in.
const SECTOR: u64 = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
}

#[derive(Debug)]
struct Node {
    attributes: FileAttr,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory(Directory),
    File(Vec<u8>),
}

#[derive(Debug, Default)]
struct Directory {
    by_name: HashMap<OsString, u64>,
    by_place: BTreeMap<u64, (OsString, u64, FileType)>,
}

/// One entry of a listing.
pub(super) struct Listed<'a> {
    pub(super) node: u64,
    pub(super) kind: FileType,
    pub(super) name: &'a OsStr,
    /// Where the listing goes on.
    pub(super) next: u64,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let root = INodeNo::ROOT.0;
        let directory = Node {
            attributes: attributes(root, FileType::Directory, 0o755),
            content: Content::Directory(Directory::default()),
        };
        Tree { nodes: HashMap::from([(root, directory)]), next: root + 1 }
    }

    pub(super) fn attributes(&self, node: u64) -> Result<FileAttr, Errno> {
        Ok(self.node(node)?.attributes)
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let place = self.directory(parent)?.by_name.get(name).ok_or(Errno::ENOENT)?;
        let (_, node, _) = &self.directory(parent)?.by_place[place];
        self.attributes(*node)
    }

    pub(super) fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: FileType,
        permissions: u16,
    ) -> Result<FileAttr, Errno> {
        // A number is a node's and its place's in its directory: neither is used again.
        let node = self.next;
        let directory = self.directory_mut(parent)?;
        if directory.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.by_name.insert(name.to_owned(), node);
        directory.by_place.insert(node, (name.to_owned(), node, kind));
        self.touch(parent);
        self.next += 1;
        let attributes = attributes(node, kind, permissions);
        let content = if kind == FileType::Directory {
            Content::Directory(Directory::default())
        } else {
            Content::File(Vec::new())
        };
        self.nodes.insert(node, Node { attributes, content });
        Ok(attributes)
    }

    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let directory = self.directory_mut(parent)?;
        let place = directory.by_name.remove(name).ok_or(Errno::ENOENT)?;
        let removed = directory.by_place.remove(&place).expect("found by its name");
        self.touch(parent);
        self.nodes.remove(&removed.1);
        Ok(())
    }

    pub(super) fn read(&self, node: u64, offset: u64, len: usize) -> Result<&[u8], Errno> {
        let Content::File(bytes) = &self.node(node)?.content else { return Err(Errno::EISDIR) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[start..bytes.len().min(start.saturating_add(len))])
    }

    pub(super) fn write(&mut self, node: u64, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let now = SystemTime::now();
        let found = self.node_mut(node)?;
        let Content::File(bytes) = &mut found.content else { return Err(Errno::EISDIR) };
        let start = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        let end = start + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        found.attributes.size = bytes.len() as u64;
        found.attributes.blocks = found.attributes.size.div_ceil(SECTOR);
        found.attributes.mtime = now;
        found.attributes.ctime = now;
        Ok(())
    }

    /// Entries of a directory behind a place.
    pub(super) fn list(
        &self,
        node: u64,
        after: u64,
    ) -> Result<impl Iterator<Item = Listed<'_>>, Errno> {
        let behind = self.directory(node)?.by_place.range(after + 1..);
        Ok(behind.map(|(place, (name, node, kind))| Listed {
            node: *node,
            kind: *kind,
            name,
            next: *place,
        }))
    }

    fn touch(&mut self, directory: u64) {
        let now = SystemTime::now();
        if let Some(node) = self.nodes.get_mut(&directory) {
            node.attributes.mtime = now;
            node.attributes.ctime = now;
        }
    }

    fn node(&self, node: u64) -> Result<&Node, Errno> {
        self.nodes.get(&node).ok_or(Errno::ESTALE)
    }

    fn node_mut(&mut self, node: u64) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&node).ok_or(Errno::ESTALE)
    }

    fn directory(&self, node: u64) -> Result<&Directory, Errno> {
        match &self.node(node)?.content {
            Content::Directory(directory) => Ok(directory),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }

    fn directory_mut(&mut self, node: u64) -> Result<&mut Directory, Errno> {
        match &mut self.node_mut(node)?.content {
            Content::Directory(directory) => Ok(directory),
            Content::File(_) => Err(Errno::ENOTDIR),
        }
    }
}

fn attributes(node: u64, kind: FileType, permissions: u16) -> FileAttr {
    let now = SystemTime::now();
    FileAttr {
        ino: INodeNo(node),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm: permissions & 0o7777,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}
