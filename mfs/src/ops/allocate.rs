//! fallocate: blocks for a range of a file, zeros in a range, holes.
//!
//! Keeps true:
//!   * blocks that are given to a file are marked as never written: what they held is never seen (I10);
//!   * everything that was dirty is durable before the extent tree changes, so no promise made to a
//!     write depends on a tree that is not there any more;
//!   * the edges of a range, parts of blocks, are zeroed as a write of zeros would do it.
//!
//! The kernel drops its own pages of the range when it has the answer (`fs/fuse/file.c`,
//! `fuse_file_fallocate`), and has cleared set-user-id bits before it asked.

use std::sync::Arc;

use lcl::pin::{Pin, Want};

use super::open::OpenFile;
use super::write::How;
use crate::alloc::claim::Use;
use crate::block::BLOCK_SIZE_U64;
use crate::error::FsError;
use crate::file::{FILE_SIZE_MAX, FileId, FileType};
use crate::fs::Fs;
use crate::inode::extents::{ExtentTree, Mapping};
use crate::inode::pages::page_of;
use crate::inode::{Core, Inode};
use crate::ondisk::inode::AreaKind;

/// What is done with a range of a file (`fallocate(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    /// It has blocks; nothing that can be read changes, but for the size (mode 0 and
    /// `FALLOC_FL_KEEP_SIZE`). Blocks behind the end of the file stay until it is truncated.
    Blocks { keep_size: bool },
    /// It has blocks and reads as zeros (`FALLOC_FL_ZERO_RANGE`, and with `FALLOC_FL_KEEP_SIZE`).
    Zeros { keep_size: bool },
    /// It reads as zeros, and blocks that lie in it as a whole are given back
    /// (`FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`).
    Hole,
}

impl Allocate {
    fn keeps_size(self) -> bool {
        match self {
            Allocate::Blocks { keep_size } | Allocate::Zeros { keep_size } => keep_size,
            Allocate::Hole => true,
        }
    }
}

/// A file that is being changed: pinned exclusively, nothing of it dirty.
struct Quiet<'a> {
    fs: &'a Fs,
    inode: &'a Arc<Inode>,
    pin: &'a Pin,
    file: FileId,
}

/// Bytes of a file, from the first up to the one behind the last.
#[derive(Clone, Copy)]
struct Range {
    from: u64,
    to: u64,
}

impl Fs {
    /// Changes which blocks a range of an open file has. Returns the pin to be dropped behind the
    /// answer. mtime and ctime change.
    ///
    /// Space is promised for all of the range before anything is changed. A write to blocks allocated
    /// finds room whoever fills the device meanwhile.
    ///
    /// # Errors
    /// [`FsError::Invalid`] for an empty range or what is no regular file, [`FsError::FileTooLarge`],
    /// [`FsError::NotPermitted`] for what is immutable, or append-only and would lose bytes,
    /// [`FsError::NoSpace`]: the file reads as before then, and may have got some of the blocks.
    pub async fn allocate(
        &self,
        open: &OpenFile,
        what: Allocate,
        offset: u64,
        len: u64,
    ) -> Result<Pin, FsError> {
        self.check_writable()?;
        if !open.flags().write {
            return Err(FsError::Invalid("not open for writing"));
        }
        if len == 0 {
            return Err(FsError::Invalid("an empty range"));
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX);
        let range = Range { from: offset, to: end.ok_or(FsError::FileTooLarge)? };
        // The edges become dirty pages.
        self.wait_for_room().await?;
        let _change = self.begin_change().await?;
        let inode = &open.inode;
        let pin = inode.entry.pin(Want::write()).await?;
        let done = self.allocate_pinned(inode, &pin, open.file(), what, range).await;
        {
            let mut state = inode.state.lock();
            // Promises of nodes that were not needed.
            self.trim_nodes(&mut state);
            self.note_dirty(inode, &state);
        }
        self.outdate_attributes(inode, open.file());
        done?;
        if open.flags().sync {
            self.flush_inode(inode, &pin).await?;
            self.note_dirty(inode, &inode.state.lock());
            self.journal.force(self.journal.last()).await?;
        }
        Ok(pin)
    }

    async fn allocate_pinned(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        what: Allocate,
        range: Range,
    ) -> Result<(), FsError> {
        let file_type =
            self.settle(|| inode.with_file(file, |state| Ok(state.core().file_type()))).await?;
        if file_type != FileType::Regular {
            return Err(FsError::Invalid("only regular files have blocks to be allocated"));
        }
        let check = match what {
            Allocate::Blocks { .. } => Core::check_may_gain,
            Allocate::Zeros { .. } | Allocate::Hole => Core::check_may_lose,
        };
        self.check_flags(inode, check).await?;
        // The kernel has seen to set-id bits; what only a write takes goes here.
        self.drop_privileges(inode, pin, file, false).await?;
        self.flush_inode(inode, pin).await?;
        let quiet = Quiet { fs: self, inode, pin, file };
        match what {
            Allocate::Blocks { .. } => quiet.allocate(range).await?,
            Allocate::Zeros { .. } => quiet.zero(range).await?,
            Allocate::Hole => quiet.punch(range).await?,
        }
        if !what.keeps_size() && range.to > quiet.size() {
            self.extend(inode, file, range.to).await?;
        }
        let mut state = inode.state.lock();
        state.core_mut().touch_mtime(self.now());
        Ok(())
    }
}

impl Quiet<'_> {
    fn size(&self) -> u64 {
        self.inode.state.lock().core().size()
    }

    fn is_inline(&self) -> bool {
        self.inode.state.lock().core().area() == AreaKind::Bytes
    }

    async fn allocate(&self, range: Range) -> Result<(), FsError> {
        if self.is_inline() {
            if range.to <= self.inode.state.lock().core().inline_bytes_max() {
                // The inode has that room already.
                return Ok(());
            }
            self.leave_inode().await?;
        }
        // What a crash has left behind the end would count as allocated here, and be seen later.
        self.fs.cut_leftovers(self.inode, self.file, self.pin, u64::MAX).await?;
        let pages = (page_of(range.from), range.to.div_ceil(BLOCK_SIZE_U64));
        self.fs.map_holes(self.inode, self.pin, self.file, pages).await
    }

    async fn zero(&self, range: Range) -> Result<(), FsError> {
        self.allocate(range).await?;
        if self.is_inline() {
            return self.write_zeros(range.from, range.to).await;
        }
        let whole = self.whole_pages(range);
        if whole.0 < whole.1 {
            self.fs.mark_unwritten(self.inode, self.pin, self.file, whole).await?;
        }
        self.zero_edges(range, whole).await
    }

    async fn punch(&self, range: Range) -> Result<(), FsError> {
        if self.is_inline() {
            return self.write_zeros(range.from, range.to).await;
        }
        let whole = self.whole_pages(range);
        if whole.0 < whole.1 {
            self.fs.punch_blocks(self.inode, self.pin, whole).await?;
        }
        self.zero_edges(range, whole).await
    }

    /// Pages of which nothing that is in the file lies outside the range.
    fn whole_pages(&self, range: Range) -> (u64, u64) {
        let first = range.from.div_ceil(BLOCK_SIZE_U64);
        let last = match range.to >= self.size() {
            // Behind the end there is nothing.
            true => self.size().div_ceil(BLOCK_SIZE_U64).max(page_of(range.to)),
            false => page_of(range.to),
        };
        (first, last)
    }

    async fn zero_edges(&self, range: Range, (first, last): (u64, u64)) -> Result<(), FsError> {
        if first >= last {
            // At most two pages, and none as a whole.
            let border = (first * BLOCK_SIZE_U64).clamp(range.from, range.to);
            self.zero_edge(range.from, border).await?;
            return self.zero_edge(border, range.to).await;
        }
        self.zero_edge(range.from, first * BLOCK_SIZE_U64).await?;
        self.zero_edge(last * BLOCK_SIZE_U64, range.to).await
    }

    /// Zeros in a part of one page. One without a block, or with one never written, has them.
    async fn zero_edge(&self, from: u64, to: u64) -> Result<(), FsError> {
        if from >= to {
            return Ok(());
        }
        let tree = ExtentTree { inode: self.inode, generation: self.file.generation };
        let tx = self.fs.transaction();
        let mapping = self.fs.settle(|| tree.map(&tx, page_of(from))).await?;
        match mapping {
            Mapping::Mapped(extent) if !extent.unwritten => self.write_zeros(from, to).await,
            Mapping::Mapped(_) | Mapping::Hole(_) => Ok(()),
        }
    }

    /// Zeros over what of a short range is in the file.
    async fn write_zeros(&self, from: u64, to: u64) -> Result<(), FsError> {
        let to = to.min(self.size());
        if from >= to {
            return Ok(());
        }
        assert!(to - from <= BLOCK_SIZE_U64, "parts of a page, or of an inode");
        let zeros = vec![0; crate::block::as_usize(to - from)];
        let (inode, pin, file) = (self.inode, self.pin, self.file);
        self.fs.write_pinned(inode, pin, file, from, &zeros, How::At).await.map(|_| ())
    }

    /// The contents leave the inode for a block of their own.
    async fn leave_inode(&self) -> Result<(), FsError> {
        let (fs, inode, pin) = (self.fs, self.inode, self.pin);
        if self.size() == 0 {
            return fs.spill_empty(inode, pin, u64::MAX).await;
        }
        fs.bring_pages(inode, self.file, &[0]).await?;
        let page = inode.state.lock().pages.get(0).expect("just brought in, and pinned").clone();
        fs.promise_space(Use::Data, 1).await?;
        let spilled = fs.spill_page(inode, pin, page).await;
        fs.space.settle(1);
        spilled
    }
}
