//! readdir and readdirplus.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mfs::FsError;
use mfs::ops::OpenFile;

use crate::adapter::Shared;
use crate::entries::{fuse_type, generation, unknown};
use crate::errno::errno;

/// Entries fetched at once; what does not fit the kernel's buffer is fetched again.
const ENTRIES_AT_ONCE: usize = 128;
/// With attributes an entry takes more room.
const ENTRIES_PLUS_AT_ONCE: usize = 32;

impl Shared {
    pub(crate) async fn readdir(&self, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut offset = offset;
        let mut kept = Vec::new();
        let filled = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            loop {
                let piece = self.fs.readdir(open.file(), offset, ENTRIES_AT_ONCE).await?;
                let whole = piece.entries.len() == ENTRIES_AT_ONCE;
                for entry in &piece.entries {
                    let node = INodeNo(self.nodes.id(entry.file));
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(node, entry.cookie, fuse_type(entry.file_type), name) {
                        kept.push(piece.keep);
                        return Ok::<(), FsError>(());
                    }
                    offset = entry.cookie;
                }
                kept = vec![piece.keep];
                if !whole {
                    return Ok::<(), FsError>(());
                }
            }
        };
        match filled.await {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn readdir_plus(
        &self,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut offset = offset;
        let mut kept = Vec::new();
        let mut told = Vec::new();
        let filled = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            loop {
                let piece = self.fs.readdir_plus(open.file(), offset, ENTRIES_PLUS_AT_ONCE).await?;
                let whole = piece.entries.len() == ENTRIES_PLUS_AT_ONCE;
                let names = self.names();
                let mut full = false;
                for entry in piece.entries {
                    let node = INodeNo(self.nodes.id(entry.file));
                    if !full {
                        let name = OsStr::from_bytes(&entry.name);
                        let (time, attr, generation) = match &entry.entry {
                            Some(e) => (
                                names.joint_time(&e.keep),
                                names.attr(&e.attributes),
                                generation(&e.attributes),
                            ),
                            None => (Duration::ZERO, unknown(), Generation(0)),
                        };
                        full = reply.add(node, entry.cookie, name, &time, &attr, generation);
                    }
                    if full {
                        // Remembered for an answer that does not hold it.
                        if entry.entry.is_some() {
                            self.nodes.forget(node.0, 1);
                        }
                    } else {
                        offset = entry.cookie;
                        if entry.entry.is_some() {
                            told.push(node.0);
                        }
                        kept.extend(entry.entry.map(|e| e.keep));
                    }
                }
                kept.push(piece.keep);
                if full || !whole {
                    return Ok::<(), FsError>(());
                }
            }
        };
        match filled.await {
            Ok(()) => reply.ok(),
            Err(error) => {
                told.into_iter().for_each(|node| self.nodes.forget(node, 1));
                reply.error(errno(&error));
            }
        }
    }
}
