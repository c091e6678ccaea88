//! What is found from the root of a file system, for comparing with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mfs::error::FsError;
use mfs::file::{FileId, FileType};
use mfs::ops::{OpenFlags, ReadKind};
use mfs::{Attributes, Fs};
use model::posix::{self, Content, Found, Snapshot, Xattrs};

use crate::driver::{device_parts, kind_of};

/// The first bytes of every file that are looked at; of what lies behind, only certain pages are.
const FRONT: u64 = 1 << 20;

/// Walks the tree. `pages` are the pages (4 KiB) of sparse files, by offset, that may hold
/// something behind their first MiB.
///
/// # Errors
/// When anything cannot be read.
pub async fn walk(fs: &Arc<Fs>, pages: &BTreeSet<u64>) -> Result<Snapshot, FsError> {
    let mut snapshot = Snapshot::default();
    let mut todo = vec![(b"/".to_vec(), fs.root())];
    while let Some((path, file)) = todo.pop() {
        let attributes = fs.getattr(file).await?.attributes;
        let mut found = Found {
            identity: file.inode.0,
            attributes: model_attributes(&attributes),
            content: None,
            target: None,
            xattrs: xattrs(fs, file).await?,
        };
        match attributes.file_type {
            FileType::Directory => {
                for (name, child) in entries(fs, file).await? {
                    let mut below = if path == b"/" { Vec::new() } else { path.clone() };
                    below.push(b'/');
                    below.extend_from_slice(&name);
                    todo.push((below, child));
                }
            }
            FileType::Regular => {
                found.content = Some(content(fs, file, attributes.size, pages).await?);
            }
            FileType::SymbolicLink => found.target = Some(fs.readlink(file).await?),
            FileType::BlockDevice | FileType::CharDevice | FileType::Fifo | FileType::Socket => {}
        }
        snapshot.found.insert(path, found);
    }
    Ok(snapshot)
}

async fn xattrs(fs: &Arc<Fs>, file: FileId) -> Result<Xattrs, FsError> {
    let mut found = Xattrs::new();
    let list = fs.list_xattrs(file).await?;
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        found.insert(name.to_vec(), fs.get_xattr(file, name).await?);
    }
    Ok(found)
}

async fn entries(fs: &Arc<Fs>, dir: FileId) -> Result<BTreeMap<Vec<u8>, FileId>, FsError> {
    let mut found = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let piece = fs.readdir(dir, cookie, 64).await?;
        let Some(last) = piece.entries.last() else { return Ok(found) };
        cookie = last.cookie;
        for entry in piece.entries {
            if entry.name != b"." && entry.name != b".." {
                found.insert(entry.name, entry.file);
            }
        }
    }
}

async fn content(
    fs: &Arc<Fs>,
    file: FileId,
    size: u64,
    pages: &BTreeSet<u64>,
) -> Result<Content, FsError> {
    let open = fs.open(file, OpenFlags::default()).await?;
    let mut content = Content::default();
    content.resize(size);
    let behind = pages.range(FRONT..).map(|at| (*at, 4096));
    for (place, len) in [(0, FRONT)].into_iter().chain(behind) {
        let data = fs.read(&open, place, len, ReadKind::Direct).await?;
        let bytes = data.as_slice();
        // Zeros equal holes; leaving them out keeps the comparison quick.
        for (i, page) in bytes.chunks(4096).enumerate() {
            if page.iter().any(|b| *b != 0) {
                content.write(place + i as u64 * 4096, page);
            }
        }
    }
    Ok(content)
}

fn model_attributes(a: &Attributes) -> posix::Attributes {
    let is_device = matches!(a.file_type, FileType::CharDevice | FileType::BlockDevice);
    posix::Attributes {
        kind: kind_of(a.file_type),
        mode: u16::try_from(a.permissions).expect("twelve bits"),
        uid: a.uid,
        gid: a.gid,
        nlink: a.links,
        size: if a.file_type == FileType::Directory { 0 } else { a.size },
        device: is_device.then(|| device_parts(a.rdev)),
        atime: a.atime,
        mtime: a.mtime,
        ctime: a.ctime,
    }
}
