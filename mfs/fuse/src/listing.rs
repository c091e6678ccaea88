//! readdir and readdirplus.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileHandle, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mfs::ops::OpenFile;

use crate::adapter::Shared;
use crate::entries::{fuse_type, generation, unknown};
use crate::errno::errno;

/// Entries fetched for one answer. Fewer than fit the kernel's buffer do no harm: it asks again. One
/// piece an answer, because its locks are held until the answer is given, and whoever holds one
/// must not wait for the next.
const ENTRIES_AT_ONCE: usize = 512;
/// With attributes an entry takes more room, and a lock.
const ENTRIES_PLUS_AT_ONCE: usize = 64;

impl Shared {
    pub(crate) async fn readdir(&self, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            self.fs.readdir(open.file(), offset, ENTRIES_AT_ONCE).await
        };
        match listed.await {
            Ok(listing) => {
                for entry in &listing.entries {
                    let node = INodeNo(self.nodes.id(entry.file));
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(node, entry.cookie, fuse_type(entry.file_type), name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn readdir_plus(
        &self,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            self.fs.readdir_plus(open.file(), offset, ENTRIES_PLUS_AT_ONCE).await
        };
        let listing = match listed.await {
            Ok(listing) => listing,
            Err(error) => return reply.error(errno(&error)),
        };
        let names = self.names();
        let mut full = false;
        for entry in &listing.entries {
            let node = INodeNo(self.nodes.id(entry.file));
            let mut is_counted = entry.entry.is_some();
            if !full {
                let name = OsStr::from_bytes(&entry.name);
                let (time, attr, generation) = match &entry.entry {
                    Some(e) => (
                        names.joint_time(&e.keep),
                        names.attr(&e.attributes),
                        generation(&e.attributes),
                    ),
                    None => {
                        is_counted = counts_unknown(&entry.name);
                        if is_counted {
                            self.nodes.remember_listed(entry.file);
                        }
                        (Duration::ZERO, unknown(node, entry.file_type), Generation(0))
                    }
                };
                full = reply.add(node, entry.cookie, name, &time, &attr, generation);
            }
            // Remembered for an answer that does not hold it.
            if full && is_counted {
                self.nodes.forget(node.0, 1);
            }
        }
        reply.ok();
    }
}

/// Does the kernel count a node that it is given without attributes, and forget it at once? It does
/// not look at those of `.` and `..`.
fn counts_unknown(name: &[u8]) -> bool {
    name != b"." && name != b".."
}
