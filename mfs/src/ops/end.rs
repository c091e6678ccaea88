//! The end of a file that others have made longer, shown to the kernel.
//!
//! Before it reads behind the end that it knows, the kernel asks for the attributes; then it goes by
//! what it knows (mm/filemap.c, `filemap_read`; a mapping ends there as well). An answer changes that
//! only if the file was not outdated since the question (fs/fuse/inode.c, `attr_version`), and a
//! surrender in between outdates it: while two nodes take a file from each other every answer would be
//! passed over, and its readers would stay at the old end. A store moves the end whatever came between
//! (`fuse_notify_store`), so where the file is open here it comes before the answer.
//!
//! Keeps true: a read that began after another node's write had returned reaches its end, unless a
//! program of this node has the file open for writing, whose own reads ask every time. An end that has
//! come nearer is not shown so: the kernel offers no way.

use std::sync::Arc;

use futures_channel::oneshot;
use lcl::pin::Pin;
use mx_base::rules::{Rule, is_kept};

use super::read::note_pages;
use crate::block::{BLOCK_SIZE_U64, as_usize};
use crate::error::FsError;
use crate::file::{Attributes, FileType};
use crate::fs::Fs;
use crate::inode::{Inode, State};

/// The last page of a file is being stored in the kernel. That waits for the page if the kernel is
/// reading it, which must not wait for EX then: so nobody here begins to write meanwhile
/// ([`Inode::when_stored`]).
struct Storing(Arc<Inode>);

impl Storing {
    /// `None` when nobody reads by the kernel's cache, or the kernel has been shown as much since the
    /// lock was last given up.
    fn begin(inode: &Arc<Inode>, from: u64, size: u64) -> Option<Storing> {
        let mut state = inode.state.lock();
        if state.opens == 0 || state.may_store() || size <= state.kernel.size {
            return None;
        }
        state.storing += 1;
        note_pages(&mut state, from, BLOCK_SIZE_U64);
        drop(state);
        Some(Storing(Arc::clone(inode)))
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.0.state.lock().storing -= 1;
        self.0.stored.notify(usize::MAX);
    }
}

impl Inode {
    /// Waits until no last page is being stored, and does something before the next one is.
    pub(super) async fn when_stored<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        loop {
            let stored = self.stored.listen();
            {
                let mut state = self.state.lock();
                if state.storing == 0 {
                    return f(&mut state);
                }
            }
            stored.await;
        }
    }
}

impl Fs {
    /// Shows the kernel the end of a file that is pinned, before it gets the attributes. Gives the pin
    /// back when the kernel has it.
    ///
    /// # Errors
    /// [`FsError::CutOff`].
    pub(super) async fn show_end(
        &self,
        inode: &Arc<Inode>,
        attributes: &Attributes,
        pin: Pin,
    ) -> Result<Pin, FsError> {
        let (file, size) = (attributes.file, attributes.size);
        let has_end = attributes.file_type == FileType::Regular && size > 0;
        if !has_end || !is_kept(Rule::ShowEnd) {
            return Ok(pin);
        }
        let from = (size - 1) / BLOCK_SIZE_U64 * BLOCK_SIZE_U64;
        let Some(storing) = Storing::begin(inode, from, size) else { return Ok(pin) };
        // What cannot be read answers EIO where it is read.
        let Ok(bytes) = self.read_pinned(inode, file, from, size - from).await else {
            return Ok(pin);
        };
        if bytes.len() != as_usize(size - from) {
            return Ok(pin);
        }
        // Whoever waits may give up; the store goes on, and the lock stays until it is done.
        let stored = self.env.kernel.store(file, from, bytes);
        let (done, is_done) = oneshot::channel();
        self.env.runtime.spawn(Box::pin(async move {
            stored.await;
            storing.0.state.lock().kernel.size = size;
            drop(storing);
            let _ = done.send(pin);
        }));
        is_done.await.map_err(|_| FsError::CutOff)
    }
}
