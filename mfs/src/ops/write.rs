//! write: into the cache, under the inode's lock in EX; the disk sees it later, in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Pin, Want};
use mx_base::rules::{Rule, is_kept};

use crate::alloc::claim::{Aside, Use};
use crate::block::{BLOCK_SIZE_U64, as_usize};
use crate::cache::Step;
use crate::error::FsError;
use crate::file::{FILE_SIZE_MAX, FileId, FileType};
use crate::fs::Fs;
use crate::inode::extents::{ExtentTree, Mapping};
use crate::inode::growth::nodes_at_most;
use crate::inode::pages::{Growth, page_of, pieces};
use crate::inode::replaced::UnderWay;
use crate::inode::{Inode, State};
use crate::ondisk::inode::AreaKind;
use crate::ops::open::OpenFile;
use crate::ops::setattr::privileges_at_stake;

/// What has to be there before bytes can be laid into the cache.
#[derive(Debug, Default)]
struct Preparation {
    /// Pages of which only a part is overwritten.
    bring: Vec<u64>,
    /// Pages that have no block yet and none promised.
    promise: Vec<u64>,
    /// Those and pages whose block was never written, as far as the tree does not count on them yet.
    grow: Vec<u64>,
    /// What the extent tree may have to take in with them, and further nodes to be promised for that.
    growth: Growth,
    nodes: u64,
    /// The last page of the file, if its end becomes visible: it is written too.
    tail: Option<u64>,
    /// The first page leaves the inode.
    spill: bool,
}

/// What bytes to be laid are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Written at an offset, or at the end.
    At,
    Append,
    /// Pages that came back from the kernel.
    Laundered,
}

/// What came of an attempt to lay bytes into the cache.
enum Laid {
    /// They are there from here on. Pages of the kernel may show what was there while the other exists.
    At(u64, Option<UnderWay>),
    Needs(Preparation),
}

/// A write that was done: where it began (the end of the file, for an append) and the new size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub offset: u64,
    pub len: u64,
}

impl Fs {
    /// Writes all of `bytes` at `offset`, or at the end for an append. Answered before it is
    /// durable, unless the file is open with `sync`.
    ///
    /// # Errors
    /// [`FsError::NoSpace`], [`FsError::FileTooLarge`]; nothing is written then.
    pub async fn write(
        &self,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Written, FsError> {
        self.write_as(open, offset, bytes, false).await
    }

    /// As [`Fs::write`], by somebody who may not keep the set-id bits of the file: they go first, as
    /// `security.capability` does with every write.
    ///
    /// # Errors
    /// As [`Fs::write`]; what went before that stays gone.
    pub async fn write_unprivileged(
        &self,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<Written, FsError> {
        self.write_as(open, offset, bytes, true).await
    }

    async fn write_as(
        &self,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
        kill_privileges: bool,
    ) -> Result<Written, FsError> {
        self.check_writable()?;
        if bytes.is_empty() {
            return Ok(Written { offset, len: 0 });
        }
        let append = open.flags().append;
        let end = if append { u64::MAX } else { offset.saturating_add(bytes.len() as u64) };
        if !append && end > FILE_SIZE_MAX {
            return Err(FsError::FileTooLarge);
        }
        self.wait_for_room().await?;
        let _change = self.begin_change().await?;
        let inode = &open.inode;
        let pin = self.pin_to_write(inode, open.file(), end, kill_privileges).await?;
        let how = if append { How::Append } else { How::At };
        let (written, under_way) =
            self.write_pinned(inode, &pin, open.file(), offset, bytes, how).await?;
        if let Some(under_way) = under_way {
            let range = under_way.range.clone();
            self.env.kernel.forget_pages(open.file(), Some(range)).await;
            under_way.dropped();
        }
        if open.flags().sync {
            self.flush_inode(inode, &pin).await?;
            self.note_dirty(inode, &inode.state.lock());
            self.journal.force(self.journal.last()).await?;
        }
        Ok(written)
    }

    /// A page that the kernel launders from a shared mapping. `pin` is of purpose kernel page.
    ///
    /// # Errors
    /// As [`Fs::write`].
    pub async fn write_laundered(
        &self,
        open: &OpenFile,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), FsError> {
        self.check_writable()?;
        let inode = &open.inode;
        let pin: Pin = inode.entry.pin(Want::kernel_page(Mode::EX)).await?;
        let size =
            self.settle(|| inode.with_file(open.file(), |state| Ok(state.core().size()))).await?;
        // A mapping reaches to the end of its last page; the file does not.
        let len = as_usize((bytes.len() as u64).min(size.saturating_sub(offset)));
        if len > 0 {
            let bytes = &bytes[..len];
            self.write_pinned(inode, &pin, open.file(), offset, bytes, How::Laundered).await?;
        }
        Ok(())
    }

    /// EX beside other writers of this node; nothing is mapped behind the end of the file if `end`
    /// lies there, and the file has no privileges that a write takes.
    async fn pin_to_write(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        end: u64,
        set_ids: bool,
    ) -> Result<Pin, FsError> {
        loop {
            let pin = inode.entry.pin(Want::shared(Mode::EX)).await?;
            let at_stake = |state: &mut State| {
                state.core().check_may_gain()?;
                Ok(privileges_at_stake(state.core(), set_ids))
            };
            if !self.settle(|| inode.with_file(file, at_stake)).await?
                && !self.has_leftovers(inode, file, end).await?
            {
                return Ok(pin);
            }
            drop(pin);
            let alone = inode.entry.pin(Want::write()).await?;
            self.drop_privileges(inode, &alone, file, set_ids).await?;
            self.cut_leftovers(inode, file, &alone, end).await?;
        }
    }

    /// Lays bytes into the cache. While what is returned beside exists, pages of the kernel may show
    /// what was there before.
    pub(crate) async fn write_pinned(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        offset: u64,
        bytes: &[u8],
        how: How,
    ) -> Result<(Written, Option<UnderWay>), FsError> {
        let len = bytes.len() as u64;
        if len == 0 {
            return Ok((Written { offset, len }, None));
        }
        let mut promised = Promised::nothing(self);
        loop {
            // Found with the state latched, done with it unlatched, looked at again: another write
            // of this node may have come between.
            let mut lay = |state: &mut State| {
                let at = if how == How::Append { state.core().size() } else { offset };
                let end = at.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX);
                let end = end.ok_or(FsError::FileTooLarge)?;
                let mut need = self.prepare(inode, file, state, at, len)?;
                let replaced = match how {
                    How::Laundered => state.replaced.pages(at, len),
                    How::At | How::Append => Vec::new(),
                };
                for page in &replaced {
                    if !state.pages.contains(*page) && !need.bring.contains(page) {
                        need.bring.push(*page);
                    }
                }
                if !need.bring.is_empty() || !promised.cover(&need) {
                    return Ok(Laid::Needs(need));
                }
                promised.use_up(&need);
                if !replaced.is_empty() {
                    let merged = state.replaced.merged(at, bytes, &state.pages);
                    self.lay(inode, state, at, &merged, &need);
                    return Ok(Laid::At(at, None));
                }
                let under_way = match how {
                    How::Laundered => None,
                    How::At | How::Append => state.replace(inode, at..end),
                };
                self.lay(inode, state, at, bytes, &need);
                Ok(Laid::At(at, under_way))
            };
            let need = match self.settle(|| inode.with_file(file, &mut lay)).await? {
                Laid::At(offset, under_way) => return Ok((Written { offset, len }, under_way)),
                Laid::Needs(need) => need,
            };
            match promised.make_up(&need).await {
                // Its blocks are there, only the tree has no room to tell written ones from others.
                Err(FsError::NoSpace) if need.promise.is_empty() => {
                    self.fill_unwritten(inode, pin, file, &need.grow).await?;
                }
                made_up => made_up?,
            }
            self.bring_pages(inode, file, &need.bring).await?;
        }
    }

    /// What a write of `len` bytes at `at` needs first.
    fn prepare(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        state: &State,
        at: u64,
        len: u64,
    ) -> Step<Preparation> {
        let core = state.core();
        if core.file_type() != FileType::Regular {
            return Err(FsError::Invalid("not a regular file").into());
        }
        let size = core.size();
        let new_size = size.max(at + len);
        let mut need = Preparation::default();
        let mut touched = BTreeSet::new();
        for (page, inside, take) in pieces(at, len) {
            touched.insert(page);
            let start = page * BLOCK_SIZE_U64;
            // Bytes of the page that are in the file and not overwritten.
            let keeps_front = inside > 0 && start < size;
            let keeps_back = start + ((inside + take) as u64) < size;
            if (keeps_front || keeps_back) && !state.pages.contains(page) {
                need.bring.push(page);
            }
        }
        let inline = core.area() == AreaKind::Bytes;
        need.spill = inline && new_size > core.inline_bytes_max();
        if need.spill && size > 0 && touched.insert(0) && !state.pages.contains(0) {
            need.bring.push(0);
        }
        if !inline && new_size > size && !size.is_multiple_of(BLOCK_SIZE_U64) {
            // The rest of the last page becomes part of the file: on the device it may hold what a
            // truncation left there (I10).
            let last = page_of(size);
            // A block never written is not seen, and is written as a whole.
            let seen = is_written(self.map(inode, file, last)?);
            if seen && is_kept(Rule::ZeroTail) && touched.insert(last) {
                need.tail = Some(last);
                if !state.pages.contains(last) {
                    need.bring.push(last);
                }
            }
        }
        if inline && !need.spill {
            return Ok(need);
        }
        for page in touched {
            if state.pages.is_promised(page) {
                continue;
            }
            let mapping =
                if inline { Mapping::Hole(u64::MAX) } else { self.map(inode, file, page)? };
            match mapping {
                Mapping::Hole(_) => {
                    need.promise.push(page);
                    need.grow.push(page);
                }
                Mapping::Mapped(extent) if extent.unwritten && !state.pages.grows(page) => {
                    need.grow.push(page);
                }
                Mapping::Mapped(_) => {}
            }
        }
        if !need.grow.is_empty() {
            need.growth = state.pages.grown_by(&need.grow);
            need.nodes = nodes_at_most(core, need.growth).saturating_sub(state.nodes_promised);
        }
        Ok(need)
    }

    fn map(&self, inode: &Arc<Inode>, file: FileId, page: u64) -> Step<Mapping> {
        let tree = ExtentTree { inode, generation: file.generation };
        tree.map(&self.transaction(), page)
    }

    /// Lays the bytes into the cache; everything is there.
    fn lay(&self, inode: &Inode, state: &mut State, at: u64, bytes: &[u8], need: &Preparation) {
        let mut rest = bytes;
        for (page, inside, take) in pieces(at, bytes.len() as u64) {
            let (now, later) = rest.split_at(take);
            state.pages.write(page, inside, now);
            rest = later;
        }
        if need.spill && state.pages.contains(0) {
            state.pages.mark_dirty(0);
        }
        let size = state.core().size().max(at + bytes.len() as u64);
        self.settle_need(inode, state, size, need);
    }

    /// Makes a file longer without writing: the new part reads as zeros. `pin` is exclusive.
    pub(crate) async fn extend(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        size: u64,
    ) -> Result<(), FsError> {
        let mut promised = Promised::nothing(self);
        loop {
            let need = self
                .settle(|| {
                    inode.with_file(file, |state| {
                        let old = state.core().size();
                        // As a write of nothing at the new end.
                        let need = self.prepare(inode, file, state, size, 0)?;
                        if need.bring.is_empty() && promised.cover(&need) {
                            promised.use_up(&need);
                            self.lay_size(inode, state, old, size, &need);
                            return Ok(None);
                        }
                        Ok(Some(need))
                    })
                })
                .await?;
            let Some(need) = need else { return Ok(()) };
            promised.make_up(&need).await?;
            self.bring_pages(inode, file, &need.bring).await?;
        }
    }

    fn lay_size(&self, inode: &Inode, state: &mut State, old: u64, size: u64, need: &Preparation) {
        assert!(size >= old, "a file is extended");
        if need.spill && state.pages.contains(0) {
            state.pages.mark_dirty(0);
        }
        self.settle_need(inode, state, size, need);
    }

    /// The pages around what was laid, the promises, the new size.
    fn settle_need(&self, inode: &Inode, state: &mut State, size: u64, need: &Preparation) {
        if let Some(tail) = need.tail {
            state.pages.mark_dirty(tail);
        }
        if !need.grow.is_empty() {
            state.pages.set_growth(need.growth, &need.grow);
            state.nodes_promised += need.nodes;
        }
        for page in &need.promise {
            state.pages.set_promised(*page);
        }
        let core = state.core_mut();
        core.attributes.size.set(size);
        core.touch_mtime(self.now());
        self.note_dirty(inode, state);
    }
}

fn is_written(mapping: Mapping) -> bool {
    matches!(mapping, Mapping::Mapped(extent) if !extent.unwritten)
}

/// Blocks promised for pages that do not carry the promise yet; settled when given up.
struct Promised<'a> {
    fs: &'a Fs,
    data: Aside<'a>,
    nodes: Aside<'a>,
}

impl Promised<'_> {
    fn nothing(fs: &Fs) -> Promised<'_> {
        Promised { fs, data: Aside::nothing(&fs.space), nodes: Aside::nothing(&fs.nodes) }
    }

    fn cover(&self, need: &Preparation) -> bool {
        need.promise.len() as u64 <= self.data.blocks && need.nodes <= self.nodes.blocks
    }

    /// The pages and the inode carry them from now on.
    fn use_up(&mut self, need: &Preparation) {
        self.data.blocks -= need.promise.len() as u64;
        self.nodes.blocks -= need.nodes;
    }

    /// Gets what is missing.
    async fn make_up(&mut self, need: &Preparation) -> Result<(), FsError> {
        let want = need.promise.len() as u64;
        for (of, want, have) in
            [(Use::Data, want, &mut self.data), (Use::Nodes, need.nodes, &mut self.nodes)]
        {
            let short = want.saturating_sub(have.blocks);
            if short > 0 {
                self.fs.promise_space(of, short).await?;
                have.blocks += short;
            }
        }
        Ok(())
    }
}
