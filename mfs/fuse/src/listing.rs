//! readdir and readdirplus.

use std::sync::Arc;

use mfs::ops::OpenFile;
use zerocopy::IntoBytes;

use crate::adapter::Shared;
use crate::entries::{file_type, unknown};
use crate::errno::errno;
use crate::protocol::layout::{Dirent, EntryOut};
use crate::transport::Reply;

/// Entries fetched for one answer. Fewer than fit the kernel's buffer do no harm: it asks again. One
/// piece an answer, because its locks are held until the answer is given, and whoever holds one
/// must not wait for the next.
const ENTRIES_AT_ONCE: usize = 512;
/// With attributes an entry takes more room, and a lock.
const ENTRIES_PLUS_AT_ONCE: usize = 64;

impl Shared {
    pub(crate) async fn readdir(&self, handle: u64, offset: u64, size: u32, reply: Reply) {
        let listed = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            self.fs.readdir(open.file(), offset, ENTRIES_AT_ONCE).await
        };
        match listed.await {
            Ok(listing) => {
                let mut answer = Answer::new(size);
                for entry in &listing.entries {
                    let node = self.nodes.id(entry.file);
                    let dirent =
                        dirent(node, entry.cookie, file_type(entry.file_type), &entry.name);
                    if !answer.add(None, dirent, &entry.name) {
                        break;
                    }
                }
                reply.bytes(&answer.bytes);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn readdir_plus(&self, handle: u64, offset: u64, size: u32, reply: Reply) {
        let listed = async {
            let open: Arc<OpenFile> = self.handle(handle)?;
            self.fs.readdir_plus(open.file(), offset, ENTRIES_PLUS_AT_ONCE).await
        };
        let listing = match listed.await {
            Ok(listing) => listing,
            Err(error) => return reply.error(errno(&error)),
        };
        let names = self.names();
        let mut answer = Answer::new(size);
        let mut full = false;
        for entry in &listing.entries {
            let node = self.nodes.id(entry.file);
            let mut is_counted = entry.entry.is_some();
            if !full {
                let out = match &entry.entry {
                    Some(e) => names.entry(e),
                    None => {
                        is_counted = counts_unknown(&entry.name);
                        if is_counted {
                            self.nodes.remember_listed(entry.file);
                        }
                        unknown(node, entry.file_type)
                    }
                };
                let dirent = dirent(node, entry.cookie, file_type(entry.file_type), &entry.name);
                full = !answer.add(Some(&out), dirent, &entry.name);
            }
            // Remembered for an answer that does not hold it.
            if full && is_counted {
                self.nodes.forget(node, 1);
            }
        }
        reply.bytes(&answer.bytes);
    }
}

fn dirent(node: u64, cookie: u64, file_type: u32, name: &[u8]) -> Dirent {
    let name_len = u32::try_from(name.len()).expect("names have at most 255 bytes");
    // `d_type` is the type of `st_mode` without the permissions.
    Dirent { node, offset: cookie, name_len, file_type: file_type >> 12 }
}

/// Entries one behind the other, padded to 8 bytes.
struct Answer {
    bytes: Vec<u8>,
    max: usize,
}

impl Answer {
    fn new(size: u32) -> Answer {
        let max = usize::try_from(size).expect("32 bits");
        Answer { bytes: Vec::with_capacity(max.min(16 << 10)), max }
    }

    /// False when it does not fit any more.
    fn add(&mut self, entry: Option<&EntryOut>, dirent: Dirent, name: &[u8]) -> bool {
        let attributes = entry.map_or(&[][..], IntoBytes::as_bytes);
        let len = (attributes.len() + size_of::<Dirent>() + name.len()).next_multiple_of(8);
        if self.bytes.len() + len > self.max {
            return false;
        }
        let end = self.bytes.len() + len;
        self.bytes.extend_from_slice(attributes);
        self.bytes.extend_from_slice(dirent.as_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(end, 0);
        true
    }
}

/// Does the kernel count a node that it is given without attributes, and forget it at once? It does
/// not look at those of `.` and `..`.
fn counts_unknown(name: &[u8]) -> bool {
    name != b"." && name != b".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_what_does_not_fit_is_left_out() {
        let mut answer = Answer::new(64);
        let add = |answer: &mut Answer, name: &[u8]| {
            answer.add(None, dirent(7, 300, libc::S_IFREG, name), name)
        };
        assert!(add(&mut answer, b"abc"));
        assert_eq!((answer.bytes.len(), &answer.bytes[24..27]), (32, &b"abc"[..]));
        assert!(add(&mut answer, b"12345678"));
        assert!(!add(&mut answer, b"x"));
        assert_eq!(answer.bytes.len(), 64);
    }
}
