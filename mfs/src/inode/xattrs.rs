//! Where the extended attributes of an inode are: at the end of its area, or in blocks of their own.
//!
//! Keeps true:
//!   * the stream is in one of the two places, or there is none;
//!   * in the area it takes only what the present use leaves, and what is promised to data needs: an
//!     inline file, a directory or the root of an extent tree leaves the area earlier then, and
//!     nothing moves the stream but a change of it;
//!   * blocks beyond what the stream fills are spare. They come before a change that needs them and go
//!     behind one that does not, in transactions of their own; a crash in between leaves them to the
//!     next change, or to the end of the inode.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::pin::Pin;
use zerocopy::little_endian::{U16, U32, U64};

use super::growth::nodes_at_most;
use super::{Core, Inode, State};
use crate::alloc::{Needs, PinnedGroup};
use crate::block::{BlockNo, as_usize};
use crate::cache::{CachedBlock, Expect, Fault, Step};
use crate::dir::area::{self, Area, AreaMut};
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::Kind;
use crate::ondisk::inode::{AREA_SIZE, AreaKind, InodeBlock, InodeCore};
use crate::ondisk::xattr::{XATTR_INLINE_MAX, XATTR_PAYLOAD, XattrBlock};
use crate::xattr::Xattrs;

/// Blocks that one transaction adds, or gives back.
const BLOCKS_PER_TRANSACTION: usize = 8;

/// Where a stream goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// So many bytes at the end of the area; 0 for no stream.
    Inline(usize),
    /// So many blocks.
    Blocks(usize),
}

impl Place {
    /// Where the stream of a new inode goes: there is room in its area.
    pub(crate) fn of_new(xattrs: &Xattrs) -> Place {
        Place::choose(xattrs, |_| true)
    }

    fn choose(xattrs: &Xattrs, fits: impl FnOnce(usize) -> bool) -> Place {
        let len = xattrs.len();
        let inline = len.next_multiple_of(8);
        if inline <= XATTR_INLINE_MAX && fits(inline) {
            Place::Inline(inline)
        } else {
            Place::Blocks(len.div_ceil(XATTR_PAYLOAD))
        }
    }

    pub(crate) fn blocks(self) -> usize {
        match self {
            Place::Inline(_) => 0,
            Place::Blocks(blocks) => blocks,
        }
    }
}

impl Core {
    /// False when there are none; where it is true there may be spare blocks only.
    pub(crate) fn may_have_xattrs(&self) -> bool {
        self.attributes.xattr_inline.get() > 0 || self.attributes.xattr_blocks > 0
    }

    pub(crate) fn has_xattr(&self, kind: u8) -> bool {
        self.attributes.xattr_kinds & kind != 0
    }
}

impl Inode {
    /// The extended attributes, as the transaction leaves them.
    pub(crate) fn xattrs(self: &Arc<Self>, tx: &Transaction) -> Step<Xattrs> {
        let own = self.own_block(tx)?;
        let seen = tx.see(&own);
        let on_disk: &InodeBlock = seen.get();
        let core = &on_disk.core;
        let len = usize::try_from(core.xattr_len.get()).unwrap_or(usize::MAX);
        let stream = if core.xattr_inline.get() > 0 {
            on_disk.area[core.room()..].to_vec()
        } else if len > 0 {
            let mut stream = Vec::new();
            for block in self.xattr_blocks(tx)? {
                stream.extend_from_slice(&tx.see(&block).get::<XattrBlock>().payload);
            }
            if len > stream.len() {
                return Err(wrong(own.number, "extended attributes longer than their blocks"));
            }
            stream.truncate(len);
            stream
        } else {
            Vec::new()
        };
        let xattrs = Xattrs::parse(&stream).map_err(|what| wrong(own.number, what))?;
        if xattrs.kinds() != core.xattr_kinds {
            return Err(wrong(own.number, "kinds of extended attributes"));
        }
        Ok(xattrs)
    }

    /// The blocks for extended attributes in order, spare ones too.
    fn xattr_blocks(self: &Arc<Self>, tx: &Transaction) -> Step<Vec<Arc<CachedBlock>>> {
        let own = self.own_block(tx)?;
        let (count, first, generation) = {
            let seen = tx.see(&own);
            let core = &seen.get::<InodeBlock>().core;
            (core.xattr_blocks, core.xattr_first.get(), core.generation.get())
        };
        let expect = Expect { kind: Kind::Xattr, owner: self.owner(generation) };
        let mut blocks = Vec::with_capacity(usize::from(count));
        let mut next = first;
        for _ in 0..count {
            if next == 0 {
                break;
            }
            let block = match tx.staged_block(BlockNo(next)) {
                Some(block) => block,
                None => self.set.expect(BlockNo(next), expect)?,
            };
            next = tx.see(&block).get::<XattrBlock>().next.get();
            blocks.push(block);
        }
        if next != 0 || blocks.len() != usize::from(count) {
            return Err(wrong(own.number, "number of blocks with extended attributes"));
        }
        Ok(blocks)
    }

    /// Blocks at the end that the stream does not need, as they are without a transaction.
    fn spare_xattr_blocks(self: &Arc<Self>, tx: &Transaction) -> Step<Vec<BlockNo>> {
        let own = self.own_block(tx)?;
        let needed = {
            let seen = tx.see(&own);
            (seen.get::<InodeBlock>().core.xattr_len.get() as usize).div_ceil(XATTR_PAYLOAD)
        };
        let blocks = self.xattr_blocks(tx)?;
        Ok(blocks.iter().skip(needed).map(|block| block.number).collect())
    }

    /// Adds spare blocks out of a group; false when it has not so many.
    pub(crate) fn add_xattr_blocks(
        self: &Arc<Self>,
        tx: &mut Transaction,
        pin: &Pin,
        group: &PinnedGroup,
        count: usize,
    ) -> Step<bool> {
        let own = self.own_block(tx)?;
        let mut last = self.xattr_blocks(tx)?.pop();
        for _ in 0..count {
            let Some(block) = group.take_metadata(tx, ChunkKind::Tree)? else {
                return Ok(false);
            };
            let number = U64::new(block.number.0);
            let on_disk: &mut InodeBlock = tx.change(pin, &self.set, &own).get_mut();
            let core = &mut on_disk.core;
            core.blocks.set(core.blocks.get() + 1);
            core.xattr_blocks += 1;
            if last.is_none() {
                core.xattr_first = number;
            }
            let owner = self.owner(core.generation.get());
            tx.adopt(&group.pin, &group.group.set, &block, pin, &self.set, Kind::Xattr, owner);
            if let Some(last) = &last {
                tx.change(pin, &self.set, last).get_mut::<XattrBlock>().next = number;
            }
            last = Some(block);
        }
        Ok(true)
    }

    /// Stores all extended attributes; the blocks for that are there.
    #[expect(clippy::cast_possible_truncation, reason = "a stream is shorter than 2^17 bytes")]
    pub(crate) fn store_xattrs(
        self: &Arc<Self>,
        tx: &mut Transaction,
        pin: &Pin,
        xattrs: &Xattrs,
        place: Place,
    ) -> Step<()> {
        let stream = xattrs.encode();
        let blocks = self.xattr_blocks(tx)?;
        assert!(place.blocks() <= blocks.len(), "blocks come before what is put into them");
        let (inline, in_blocks): (&[u8], &[u8]) = match place {
            Place::Inline(_) => (&stream, &[]),
            Place::Blocks(_) => (&[], &stream),
        };
        let own = self.own_block(tx)?;
        let entries = {
            let seen = tx.see(&own);
            entries_of(seen.get(), own.number)?
        };
        let on_disk: &mut InodeBlock = tx.change(pin, &self.set, &own).get_mut();
        let before = on_disk.core.room();
        on_disk.core.xattr_inline = U16::new(inline.len().next_multiple_of(8) as u16);
        on_disk.core.xattr_len = U32::new(in_blocks.len() as u32);
        on_disk.core.xattr_kinds = xattrs.kinds();
        let room = on_disk.core.room();
        on_disk.area[before.min(room)..].fill(0);
        on_disk.area[room..room + inline.len()].copy_from_slice(inline);
        if before != room
            && let Some(entries) = entries
        {
            area::clear(on_disk.body_mut());
            let mut area = AreaMut::new(on_disk.body_mut(), own.number)?;
            for entry in entries {
                assert!(area.insert(&entry.name, entry.entry), "room for all was looked for");
            }
        }
        for (piece, block) in in_blocks.chunks(XATTR_PAYLOAD).zip(&blocks) {
            let is_there = {
                let seen = tx.see(block);
                let payload = &seen.get::<XattrBlock>().payload;
                payload[..piece.len()] == *piece && payload[piece.len()..].iter().all(|b| *b == 0)
            };
            if !is_there {
                let block: &mut XattrBlock = tx.change(pin, &self.set, block).get_mut();
                block.payload[..piece.len()].copy_from_slice(piece);
                block.payload[piece.len()..].fill(0);
            }
        }
        Ok(())
    }
}

impl Fs {
    /// Changes extended attributes and plain ones together; `edit` is run on copies, several times,
    /// and what it refuses changes nothing. `pin` holds the inode exclusively.
    ///
    /// # Errors
    /// What `edit` refuses; [`FsError::NoSpace`] when there is no room for the stream.
    pub(crate) async fn edit_xattrs<T>(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        file: FileId,
        edit: impl Fn(&mut Xattrs, &mut Core) -> Result<T, FsError>,
    ) -> Result<T, FsError> {
        loop {
            let need = self
                .settle(|| {
                    inode.with_file(file, |state| {
                        let tx = self.transaction();
                        let mut xattrs = inode.xattrs(&tx)?;
                        edit(&mut xattrs, &mut state.core().clone())?;
                        Ok(place_of(inode, state, &tx, &xattrs)?.blocks())
                    })
                })
                .await?;
            if let Err(error) = self.get_xattr_blocks(inode, pin, need).await {
                self.drop_spare_xattr_blocks(inode, pin).await;
                return Err(error);
            }
            let changed = self.change(inode, 2 + need, |state, tx| {
                let mut core = state.core().clone();
                let mut xattrs = inode.xattrs(tx)?;
                let done = edit(&mut xattrs, &mut core)?;
                let place = place_of(inode, state, tx, &xattrs)?;
                if place.blocks() > need {
                    return Ok(None);
                }
                inode.store_xattrs(tx, pin, &xattrs, place)?;
                inode.stage_core(tx, pin, &mut core)?;
                state.core = Some(core);
                Ok(Some(done))
            });
            if let Some(done) = changed.await? {
                self.drop_spare_xattr_blocks(inode, pin).await;
                self.note_dirty(inode, &inode.state.lock());
                self.outdate_attributes(inode, file);
                return Ok(done);
            }
        }
    }

    /// Sees to it that the inode has blocks for a stream, spare ones until it is there.
    async fn get_xattr_blocks(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        need: usize,
    ) -> Result<(), FsError> {
        loop {
            let have = self
                .settle(|| inode.with_core(|state| Ok(state.core().attributes.xattr_blocks)))
                .await?;
            let count = need.saturating_sub(usize::from(have)).min(BLOCKS_PER_TRANSACTION);
            if count == 0 {
                return Ok(());
            }
            let group = self.metadata_group(Needs::tree(count as u64)).await?;
            // The inode, the block before; a bitmap and a table for each, and the group's header.
            self.change(inode, 3 + 3 * count, |_, tx| {
                if inode.add_xattr_blocks(tx, pin, &group, count)? {
                    Ok(())
                } else {
                    Err(FsError::NoSpace.into())
                }
            })
            .await?;
        }
    }

    /// Gives spare blocks back. Where that fails they stay spare: what they were for is done, or was
    /// refused for another reason.
    async fn drop_spare_xattr_blocks(&self, inode: &Arc<Inode>, pin: &Pin) {
        if let Err(error) = self.free_spare_xattr_blocks(inode, pin).await {
            tracing::warn!(inode = inode.no.0, %error, "spare blocks of extended attributes stay");
        }
    }

    async fn free_spare_xattr_blocks(&self, inode: &Arc<Inode>, pin: &Pin) -> Result<(), FsError> {
        loop {
            if inode.state.lock().core.as_ref().is_some_and(|c| c.attributes.xattr_blocks == 0) {
                return Ok(());
            }
            let spare = self.settle(|| inode.spare_xattr_blocks(&self.transaction())).await?;
            let from = spare.len().saturating_sub(BLOCKS_PER_TRANSACTION);
            let Some(spare) = spare.get(from..).filter(|spare| !spare.is_empty()) else {
                return Ok(());
            };
            let groups = spare.iter().map(|block| self.group_of_block(*block));
            let groups = self.pin_groups(groups.collect::<Result<BTreeSet<_>, _>>()?).await?;
            self.change(inode, 2 + 4 * spare.len(), |_, tx| {
                let mut blocks = inode.xattr_blocks(tx)?;
                let kept = blocks.len() - spare.len();
                for block in blocks.split_off(kept) {
                    let group = &groups[&self.group_of_block(block.number)?];
                    group.release(tx, pin, &inode.set, &block)?;
                }
                if let Some(last) = blocks.last() {
                    tx.change(pin, &inode.set, last).get_mut::<XattrBlock>().next = U64::ZERO;
                }
                let own = inode.block()?;
                let core = &mut tx.change(pin, &inode.set, &own).get_mut::<InodeBlock>().core;
                let count = core.blocks.get().checked_sub(spare.len() as u64);
                core.blocks.set(count.ok_or_else(|| wrong(own.number, "count of blocks"))?);
                core.xattr_blocks = u8::try_from(kept).expect("fewer than there were");
                if kept == 0 {
                    core.xattr_first = U64::ZERO;
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Frees the blocks for extended attributes of an inode that is about to be freed itself.
    pub(crate) async fn free_xattr_blocks(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
    ) -> Result<(), FsError> {
        let has_blocks =
            self.settle(|| inode.with_core(|s| Ok(s.core().attributes.xattr_blocks > 0))).await?;
        if !has_blocks {
            return Ok(());
        }
        self.change(inode, 1, |_, tx| {
            let own = inode.block()?;
            let core = &mut tx.change(pin, &inode.set, &own).get_mut::<InodeBlock>().core;
            if core.xattr_inline.get() == 0 {
                core.xattr_kinds = 0;
            }
            core.xattr_len = U32::ZERO;
            Ok(())
        })
        .await?;
        self.free_spare_xattr_blocks(inode, pin).await
    }
}

fn place_of(inode: &Arc<Inode>, state: &State, tx: &Transaction, xattrs: &Xattrs) -> Step<Place> {
    let own = inode.own_block(tx)?;
    let seen = tx.see(&own);
    let entries = entries_of(seen.get(), own.number)?;
    let entries_len = entries.map(|entries| {
        let records = entries.iter().map(|entry| area::record_len(entry.name.len()));
        records.sum()
    });
    Ok(Place::choose(xattrs, |inline| has_room(state, entries_len, inline)))
}

/// Has the area room for so many bytes at its end, beside what it holds and what is promised?
fn has_room(state: &State, entries_len: Option<usize>, inline: usize) -> bool {
    let core = state.core();
    let attributes = &core.attributes;
    let used = match core.area() {
        AreaKind::Empty => 0,
        // A file that outgrows its inode has promises for that; until it does, what is on disk stays.
        AreaKind::Bytes
            if core.file_type() == FileType::Regular && core.size() > attributes.room() as u64 =>
        {
            as_usize(core.durable_size)
        }
        AreaKind::Bytes => as_usize(core.size()),
        AreaKind::Extents => {
            usize::from(attributes.root_count.get()) * crate::ondisk::extent::ExtentEntry::SIZE
        }
        AreaKind::Entries => entries_len.expect("a small directory has entries in its area"),
        AreaKind::Index => crate::ondisk::directory::INDEX_SIZE,
    };
    if used + inline > AREA_SIZE {
        return false;
    }
    if inline <= usize::from(attributes.xattr_inline.get()) {
        return true;
    }
    // A smaller root may need nodes that nobody was promised.
    let mut after = core.clone();
    after.attributes.xattr_inline = U16::new(u16::try_from(inline).expect("inside the area"));
    nodes_at_most(&after, state.pages.growth()) <= state.nodes_promised
}

/// The entries of a directory that has them in its inode.
fn entries_of(on_disk: &InodeBlock, number: BlockNo) -> Step<Option<Vec<crate::dir::NamedDirent>>> {
    if on_disk.core.area != AreaKind::Entries as u8 {
        return Ok(None);
    }
    Ok(Some(Area::new(on_disk.body(), number)?.after(0)))
}

/// Is what a block says of its extended attributes possible, as far as it can be told from the value
/// block of the inode's lock?
pub(super) fn check_xattrs(core: &InodeCore) -> Result<(), &'static str> {
    let inline = usize::from(core.xattr_inline.get());
    if inline > XATTR_INLINE_MAX || !inline.is_multiple_of(8) {
        return Err("inline extended attributes of impossible length");
    }
    if usize::from(core.xattr_blocks) > crate::ondisk::xattr::XATTR_BLOCKS_MAX {
        return Err("too many blocks with extended attributes");
    }
    Ok(())
}

fn wrong(block: BlockNo, what: &'static str) -> Fault {
    Corruption { block, kind: CorruptionKind::Contents(what), expected: 0, found: 0 }.into()
}
