//! lseek for data and for holes.
//!
//! A hole is what has no block, or one never written, and no dirty page; data is never told to be one.
//! The first block of a file that lives in its inode is data as a whole. What a mapping of this node has stored is asked for
//! before: until then the kernel alone has it. (It asks mappings of other nodes itself: whoever looks
//! takes the lock from them.)

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::Want;

use super::open::OpenFile;
use crate::block::BLOCK_SIZE_U64;
use crate::cache::Step;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::extents::{ExtentTree, Mapping};
use crate::inode::pages::page_of;
use crate::inode::{Inode, State};
use crate::ondisk::inode::AreaKind;

/// What is looked for (`lseek(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekFor {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`; there is one at the end of every file.
    Hole,
}

impl Fs {
    /// The first byte of data, or of a hole, from `offset` on; `None` (ENXIO) behind the end, and where
    /// no data follows.
    ///
    /// # Errors
    /// [`FsError::Stale`], [`FsError::Invalid`] for what is no regular file.
    pub async fn seek(
        &self,
        open: &OpenFile,
        offset: u64,
        what: SeekFor,
    ) -> Result<Option<u64>, FsError> {
        self.check_open()?;
        let inode = &open.inode;
        let may_be_stored = || {
            let state = inode.state.lock();
            (state.writers > 0).then_some(state.kernel.pages).flatten()
        };
        // Under EX, so that whoever wants these pages at the moment gets them.
        let want = if may_be_stored().is_some() { Want::shared(Mode::EX) } else { Want::read() };
        let _pin = inode.entry.pin(want).await?;
        if want == Want::shared(Mode::EX)
            && let Some((from, to)) = may_be_stored()
        {
            self.env.kernel.forget_pages(open.file(), Some(from..to)).await;
        }
        self.settle(|| {
            inode.with_file(open.file(), |state| {
                if state.core().file_type() != FileType::Regular {
                    return Err(FsError::Invalid("not a regular file").into());
                }
                self.seek_in(inode, open.file(), state, offset, what)
            })
        })
        .await
    }

    fn seek_in(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        state: &State,
        offset: u64,
        what: SeekFor,
    ) -> Step<Option<u64>> {
        let size = state.core().size();
        if offset >= size {
            return Ok(None);
        }
        let tree = ExtentTree { inode, generation: file.generation };
        let tx = self.transaction();
        // One that has outgrown its inode is still there until it is flushed.
        let is_inline = state.core().area() == AreaKind::Bytes;
        let mut page = page_of(offset);
        while page * BLOCK_SIZE_U64 < size {
            let (is_written, end) = match (is_inline, page) {
                (true, 0) => (true, 1),
                (true, _) => (false, u64::MAX),
                (false, _) => match tree.map(&tx, page)? {
                    Mapping::Mapped(extent) => (!extent.unwritten, extent.end()),
                    Mapping::Hole(end) => (false, end),
                },
            };
            let (is_data, next) = match state.pages.next_dirty(page) {
                _ if is_written => (true, end),
                Some(dirty) if dirty == page => (true, page + 1),
                Some(dirty) => (false, end.min(dirty)),
                None => (false, end),
            };
            if is_data == (what == SeekFor::Data) {
                return Ok(Some(offset.max(page * BLOCK_SIZE_U64)));
            }
            page = next.min(size.div_ceil(BLOCK_SIZE_U64));
        }
        Ok((what == SeekFor::Hole).then_some(size))
    }
}
