//! read.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Pin, Want};

use crate::block::{BLOCK_SIZE, BLOCK_SIZE_U64, Block, as_usize};
use crate::cache::Step;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::extents::{ExtentTree, Mapping};
use crate::inode::pages::{page_of, pieces};
use crate::inode::{Inode, State};
use crate::ondisk::inode::{AreaKind, InodeBlock};
use crate::ops::open::OpenFile;
use zerocopy::IntoBytes;

/// Pages of one file kept for reads beside a writer: 16 MiB.
const PAGES_KEPT: usize = 4096;
/// Reads longer than this do not fill the cache: 256 KiB.
const CACHED_READ_MAX: u64 = 256 << 10;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadKind {
    /// read(2) on an open that can write: comes every time.
    Direct,
    /// A page for the kernel's cache.
    KernelPage,
}

/// Bytes read, and the pin to be dropped behind the answer.
#[derive(Debug)]
pub struct ReadData {
    bytes: Bytes,
    _pin: Pin,
}

#[derive(Debug)]
enum Bytes {
    Copied(Vec<u8>),
    /// As it came from the device, without a copy.
    Run {
        blocks: Box<[Block]>,
        from: usize,
        len: usize,
    },
}

impl ReadData {
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Copied(bytes) => bytes,
            Bytes::Run { blocks, from, len } => &blocks.as_bytes()[*from..*from + *len],
        }
    }
}

/// A page that is asked for while somebody here can store to it ([`State::may_store`]).
struct WaitingForEx<'a>(&'a Inode);

impl WaitingForEx<'_> {
    /// `None` when a page may be had under PR.
    fn begin(inode: &Inode) -> Option<WaitingForEx<'_>> {
        let mut state = inode.state.lock();
        if !state.may_store() {
            return None;
        }
        state.page_reads_waiting += 1;
        drop(state);
        Some(WaitingForEx(inode))
    }
}

impl Drop for WaitingForEx<'_> {
    fn drop(&mut self) {
        self.0.state.lock().page_reads_waiting -= 1;
    }
}

/// One piece of what is read.
enum Piece {
    /// From memory: zeros where `None`.
    Memory(Option<crate::block::SharedBlock>),
    Disk(crate::block::BlockNo),
}

impl Fs {
    /// Up to `len` bytes from `offset` on; fewer at the end of the file.
    ///
    /// # Errors
    /// [`FsError::Stale`], or an error of the device.
    pub async fn read(
        &self,
        open: &OpenFile,
        offset: u64,
        len: u64,
        kind: ReadKind,
    ) -> Result<ReadData, FsError> {
        self.check_open()?;
        let inode = &open.inode;
        let asked = len;
        let (pin, mut len, pieces, changes, seen) = loop {
            let waiting = match kind {
                ReadKind::Direct => None,
                ReadKind::KernelPage => WaitingForEx::begin(inode),
            };
            let want = match (kind, &waiting) {
                (ReadKind::Direct, _) => Want::read(),
                (ReadKind::KernelPage, None) => Want::kernel_page(Mode::PR),
                (ReadKind::KernelPage, Some(_)) => Want::kernel_page(Mode::EX),
            };
            let pin = inode.entry.pin(want).await?;
            let planned = self
                .settle(|| {
                    inode.with_file(open.file(), |state| {
                        if state.core().file_type() == FileType::Directory {
                            return Err(FsError::IsDirectory.into());
                        }
                        if kind == ReadKind::KernelPage {
                            if state.may_store() && want.mode != Mode::EX {
                                // Opened for writing meanwhile: the pages noted until then are
                                // dropped, and this one would be noted behind that.
                                return Ok(None);
                            }
                            // All that was asked for: behind the end the kernel keeps zeros.
                            note_pages(state, offset, asked);
                        }
                        let len = asked.min(state.core().size().saturating_sub(offset));
                        let pieces = self.plan_read(inode, open.file(), state, offset, len)?;
                        Ok(Some((len, pieces, state.pages.changes, state.replaced.seen())))
                    })
                })
                .await?;
            if let Some((len, pieces, changes, seen)) = planned {
                break (pin, len, pieces, changes, seen);
            }
        };
        if pieces.is_empty() {
            len = 0;
        }
        let bytes = self.gather(inode, kind, offset, len, &pieces, changes).await?;
        if kind == ReadKind::Direct {
            // The kernel's own pages are what is waited for.
            inode.shown(seen).await;
        }
        Ok(ReadData { bytes, _pin: pin })
    }

    /// What of a file that is pinned lies within one page, for the kernel.
    ///
    /// # Errors
    /// As [`Fs::read`].
    pub(super) async fn read_pinned(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<u8>, FsError> {
        let (pieces, changes) = self
            .settle(|| {
                inode.with_file(file, |state| {
                    let pieces = self.plan_read(inode, file, state, offset, len)?;
                    Ok((pieces, state.pages.changes))
                })
            })
            .await?;
        let kind = ReadKind::KernelPage;
        let bytes = self.gather(inode, kind, offset, len, &pieces, changes).await?;
        Ok(bytes.as_slice().to_vec())
    }

    /// Where each page of the range comes from.
    fn plan_read(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        state: &State,
        offset: u64,
        len: u64,
    ) -> Step<Vec<Piece>> {
        let tree = ExtentTree { inode, generation: file.generation };
        let tx = self.transaction();
        let inline = state.core().area() == AreaKind::Bytes;
        let mut known: Option<Mapping> = None;
        let mut plan = Vec::new();
        for (page, _, _) in pieces(offset, len) {
            if let Some(cached) = state.pages.get(page) {
                plan.push(Piece::Memory(Some(cached.clone())));
                continue;
            }
            if inline {
                let data = if page == 0 { Some(inline_page(inode)?.into()) } else { None };
                plan.push(Piece::Memory(data));
                continue;
            }
            let mapping = match known {
                Some(Mapping::Mapped(e)) if (e.logical..e.end()).contains(&page) => {
                    Mapping::Mapped(e)
                }
                Some(Mapping::Hole(end)) if page < end => Mapping::Hole(end),
                _ => tree.map(&tx, page)?,
            };
            known = Some(mapping);
            plan.push(match mapping {
                Mapping::Mapped(e) if !e.unwritten => {
                    Piece::Disk(e.physical.plus(page - e.logical))
                }
                Mapping::Mapped(_) | Mapping::Hole(_) => Piece::Memory(None),
            });
        }
        Ok(plan)
    }

    async fn gather(
        &self,
        inode: &Arc<Inode>,
        kind: ReadKind,
        offset: u64,
        len: u64,
        plan: &[Piece],
        changes: u64,
    ) -> Result<Bytes, FsError> {
        let runs = disk_runs(plan);
        if let [(0, at, count)] = runs[..]
            && count == plan.len()
        {
            // All of it lies together on the device.
            let blocks = self.env.disk.read(at, count).await?;
            self.keep_pages(inode, kind, page_of(offset), &blocks, changes);
            let from = (offset % BLOCK_SIZE_U64) as usize;
            return Ok(Bytes::Run { blocks, from, len: as_usize(len) });
        }
        let reads = runs.iter().map(|(_, at, count)| self.env.disk.read(*at, *count));
        let read = futures_util::future::join_all(reads).await;
        let mut out = vec![0; as_usize(len)];
        let mut place = 0;
        let places: Vec<(usize, usize, usize)> = pieces(offset, len)
            .map(|(_, inside, take)| {
                let start = place;
                place += take;
                (start, inside, take)
            })
            .collect();
        for (piece, (start, inside, take)) in plan.iter().zip(&places) {
            if let Piece::Memory(Some(block)) = piece {
                out[*start..start + take].copy_from_slice(&block.0[*inside..inside + take]);
            }
        }
        for ((first, _, _), blocks) in runs.iter().zip(read) {
            let blocks = blocks?;
            for (i, block) in blocks.iter().enumerate() {
                let (start, inside, take) = places[first + i];
                out[start..start + take].copy_from_slice(&block.0[inside..inside + take]);
            }
            self.keep_pages(inode, kind, page_of(offset) + *first as u64, &blocks, changes);
        }
        Ok(Bytes::Copied(out))
    }

    /// Keeps pages read beside a writer, unless the file changed while they were on their way.
    fn keep_pages(
        &self,
        inode: &Arc<Inode>,
        kind: ReadKind,
        first: u64,
        blocks: &[Block],
        changes: u64,
    ) {
        if kind != ReadKind::Direct || blocks.len() as u64 * BLOCK_SIZE_U64 > CACHED_READ_MAX {
            return;
        }
        let mut state = inode.state.lock();
        if state.pages.changes != changes {
            return;
        }
        let Some(size) = state.core.as_ref().map(crate::inode::Core::size) else { return };
        for (i, block) in blocks.iter().enumerate() {
            let page = first + i as u64;
            let mut block = Box::new(block.clone());
            zero_behind(&mut block, page, size);
            state.pages.insert_clean(page, block.into());
        }
        if state.pages.len() > PAGES_KEPT {
            state.pages.shed_clean(PAGES_KEPT / 2);
        }
    }

    /// Brings pages of a pinned file into the cache, so that parts of them can be overwritten.
    pub(crate) async fn bring_pages(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        pages: &[u64],
    ) -> Result<(), FsError> {
        for page in pages {
            loop {
                let (piece, changes, size) = self
                    .settle(|| {
                        inode.with_file(file, |state| {
                            let offset = page * BLOCK_SIZE_U64;
                            let piece = self.plan_read(inode, file, state, offset, 1)?.pop();
                            Ok((piece, state.pages.changes, state.core().size()))
                        })
                    })
                    .await?;
                let mut block = match piece {
                    Some(Piece::Disk(at)) => {
                        let read = self.env.disk.read(at, 1).await?;
                        Box::new(read[0].clone())
                    }
                    Some(Piece::Memory(Some(block))) => block.to_boxed(),
                    Some(Piece::Memory(None)) | None => Block::zeroed(),
                };
                let mut state = inode.state.lock();
                if state.pages.contains(*page) {
                    break;
                }
                if state.pages.changes == changes {
                    zero_behind(&mut block, *page, size);
                    state.pages.insert_clean(*page, block.into());
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The contents of a small file as a page.
fn inline_page(inode: &Arc<Inode>) -> Step<Box<Block>> {
    let block = inode.block()?.data();
    let on_disk: &InodeBlock = block.get();
    let mut page = Block::zeroed();
    let body = on_disk.body();
    page.0[..body.len()].copy_from_slice(body);
    Ok(page)
}

/// What lies behind the end of a file is zero, whatever is on the device (I10).
pub(crate) fn zero_behind(block: &mut Block, page: u64, size: u64) {
    let start = page * BLOCK_SIZE_U64;
    let inside = size.saturating_sub(start).min(BLOCK_SIZE_U64) as usize;
    block.0[inside..BLOCK_SIZE].fill(0);
}

/// Takes note of what the kernel caches, for the surrender.
pub(super) fn note_pages(state: &mut State, offset: u64, len: u64) {
    let (from, to) = (offset, offset.saturating_add(len));
    state.page_reads += 1;
    state.kernel.pages = Some(match state.kernel.pages {
        None => (from, to),
        Some((a, b)) => (a.min(from), b.max(to)),
    });
}

/// Pieces that lie together on the device: first piece, block, count.
fn disk_runs(plan: &[Piece]) -> Vec<(usize, crate::block::BlockNo, usize)> {
    let mut runs: Vec<(usize, crate::block::BlockNo, usize)> = Vec::new();
    for (i, piece) in plan.iter().enumerate() {
        let Piece::Disk(at) = piece else { continue };
        match runs.last_mut() {
            Some((first, start, count))
                if *first + *count == i && start.plus(*count as u64) == *at =>
            {
                *count += 1;
            }
            _ => runs.push((i, *at, 1)),
        }
    }
    runs
}
