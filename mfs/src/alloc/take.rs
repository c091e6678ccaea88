//! Taking blocks out of a pinned group and giving them back, inside a transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::pin::Pin;

use super::Freed;
use super::bits;
use super::claim::Use;
use super::group::PinnedGroup;
use crate::block::{BlockNo, as_usize};
use crate::cache::{BlockSet, CachedBlock, Step};
use crate::journal::Transaction;
use crate::ondisk::alloc_group::{BITS_PER_BLOCK, BitmapBlock, ChunkEntry, ChunkKind};
use crate::ondisk::header::{Header, Kind};

/// Free metadata blocks that are read together with the one that is needed.
const READ_AHEAD: u64 = 16;

/// Purpose of a group's cursor beside the kinds of chunks.
pub(super) const CURSOR_DATA: u8 = 100;

impl PinnedGroup {
    /// A free block of a metadata chunk of `kind`, marked used; `None` when the group has none.
    pub(crate) fn take_metadata(
        &self,
        tx: &mut Transaction,
        kind: ChunkKind,
    ) -> Step<Option<Arc<CachedBlock>>> {
        let found = self.find_metadata(tx, kind, &BTreeSet::new())?;
        if let Some(block) = &found {
            self.mark_used(tx, self.group.geometry.index(block.number), 1)?;
        }
        Ok(found)
    }

    /// A block in which an inode could be made, none of those `passed_over`.
    pub(crate) fn find_inode(
        &self,
        tx: &Transaction,
        passed_over: &BTreeSet<BlockNo>,
    ) -> Step<Option<Arc<CachedBlock>>> {
        self.find_metadata(tx, ChunkKind::Inode, passed_over)
    }

    /// The block that would be taken next, which is brought in.
    pub(crate) fn next_metadata(&self, tx: &Transaction, kind: ChunkKind) -> Step<()> {
        self.find_metadata(tx, kind, &BTreeSet::new()).map(|_| ())
    }

    /// The block that [`PinnedGroup::find_inode`] has found since the group is pinned, marked used.
    pub(crate) fn take_inode(
        &self,
        tx: &mut Transaction,
        number: BlockNo,
    ) -> Step<Arc<CachedBlock>> {
        let index = self.group.geometry.index(number);
        let block = self.free_block(tx, index, 1)?;
        self.mark_used(tx, index, 1)?;
        Ok(block)
    }

    fn find_metadata(
        &self,
        tx: &Transaction,
        kind: ChunkKind,
        passed_over: &BTreeSet<BlockNo>,
    ) -> Step<Option<Arc<CachedBlock>>> {
        assert!(kind.is_metadata());
        let chunks = self.group.geometry.chunks;
        let from = self.group.cursor(kind as u8);
        for i in 0..chunks {
            let chunk = (from + i) % chunks;
            let entry = self.group.chunk(tx, chunk)?;
            if entry.kind != kind as u8 || entry.free.get() == 0 || self.group.is_taken(&entry) {
                continue;
            }
            if let Some(block) = self.first_free(tx, chunk, passed_over)? {
                self.group.set_cursor(kind as u8, chunk);
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// A block for a node of an extent tree, out of this mount's claims, marked used; `None` when
    /// the claims in this group have none left.
    pub(crate) fn take_node(&self, tx: &mut Transaction) -> Step<Option<Arc<CachedBlock>>> {
        for chunk in self.group.claimed(Use::Nodes) {
            if self.group.chunk(tx, chunk)?.free.get() == 0 {
                continue;
            }
            let Some(block) = self.first_free(tx, chunk, &BTreeSet::new())? else { continue };
            self.mark_used(tx, self.group.geometry.index(block.number), 1)?;
            tx.claims_change(&self.group, Use::Nodes, -1);
            return Ok(Some(block));
        }
        Ok(None)
    }

    /// The first free block of a metadata chunk that has some; `None` when all are passed over.
    fn first_free(
        &self,
        tx: &Transaction,
        chunk: u64,
        passed_over: &BTreeSet<BlockNo>,
    ) -> Step<Option<Arc<CachedBlock>>> {
        let group = &self.group;
        let geometry = &group.geometry;
        let first = chunk * geometry.chunk_blocks;
        let (bitmap, bit) = geometry.bit(first);
        let bitmap = group.bitmap_block(bitmap)?;
        let bitmap = tx.see(&bitmap);
        let bits = &bitmap.get::<BitmapBlock>().bits;
        let end = bit + as_usize(geometry.chunk_blocks);
        let mut from = bit;
        while let Some(at) = bits::first_clear(bits, from, end) {
            let index = first + (at - bit) as u64;
            if !passed_over.contains(&geometry.first.plus(index)) {
                let ahead = READ_AHEAD.min(first + geometry.chunk_blocks - index);
                return self.free_block(tx, index, ahead).map(Some);
            }
            from = at + 1;
        }
        if from == bit {
            return Err(self.group.contradiction(chunk, "free blocks counted, none found").into());
        }
        Ok(None)
    }

    /// A block that is free by its bit, read with those behind it.
    fn free_block(&self, tx: &Transaction, index: u64, ahead: u64) -> Step<Arc<CachedBlock>> {
        let number = self.group.geometry.first.plus(index);
        let block = self.group.set.run(number, number, as_usize(ahead))?;
        if Header::of(&tx.see(&block)).kind() != Some(Kind::Free) {
            let chunk = self.group.geometry.chunk_of(number);
            return Err(self.group.contradiction(chunk, "a free block is in use").into());
        }
        Ok(block)
    }

    /// Up to `want` blocks in a row for data, out of this mount's claims, marked used; `None` when
    /// the claims in this group have nothing left. `near` is where the file's last block is.
    pub(crate) fn take_data(
        &self,
        tx: &mut Transaction,
        want: u64,
        near: Option<BlockNo>,
    ) -> Step<Option<(BlockNo, u64)>> {
        let group = &self.group;
        let geometry = &group.geometry;
        if let Some(near) = near {
            // Straight on, so that a file that grows stays in one piece.
            let index = near.0.wrapping_sub(geometry.first.0).wrapping_add(1);
            if index < geometry.blocks {
                let len = self.data_run(tx, index, want)?;
                if len > 0 {
                    return self.took_data(tx, index, len).map(Some);
                }
            }
        }
        for chunk in group.claimed_from(group.cursor(CURSOR_DATA)) {
            let mut index = chunk * geometry.chunk_blocks;
            let end = index + geometry.chunk_blocks;
            while let Some(free) = self.first_rested(tx, index, end)? {
                let len = self.data_run(tx, free, want)?;
                if len > 0 {
                    group.set_cursor(CURSOR_DATA, chunk);
                    return self.took_data(tx, free, len).map(Some);
                }
                index = free + 1;
            }
        }
        Ok(None)
    }

    /// Gives data blocks back.
    pub(crate) fn give_back(&self, tx: &mut Transaction, first: BlockNo, count: u64) -> Step<()> {
        let geometry = &self.group.geometry;
        let mut index = geometry.index(first);
        let end = index + count;
        while index < end {
            let chunk_end = (index / geometry.chunk_blocks + 1) * geometry.chunk_blocks;
            let len = end.min(chunk_end) - index;
            self.mark_free(tx, index, len, ChunkKind::Data)?;
            if self.group.is_claimed(Use::Data, index / geometry.chunk_blocks) {
                tx.claims_change(
                    &self.group,
                    Use::Data,
                    i64::try_from(len).expect("a chunk is small"),
                );
            }
            index += len;
        }
        tx.use_blocks(-i64::try_from(count).expect("a device has fewer blocks"));
        tx.freed(Freed { group: Arc::clone(&self.group), first, count });
        Ok(())
    }

    /// Gives a metadata block of somebody back: its bit, and its header as kind free.
    pub(crate) fn release(
        &self,
        tx: &mut Transaction,
        owner_pin: &Pin,
        owner: &Arc<BlockSet>,
        block: &Arc<CachedBlock>,
    ) -> Step<()> {
        let group = &self.group;
        let index = group.geometry.index(block.number);
        let chunk = group.chunk(tx, group.geometry.chunk_of(block.number))?;
        match chunk.chunk_kind() {
            Some(kind) if kind.is_metadata() => self.mark_free(tx, index, 1, kind)?,
            _ => return Err(self.group.contradiction(index, "metadata outside its chunks").into()),
        }
        if group.is_claimed(Use::Nodes, index / group.geometry.chunk_blocks) {
            tx.claims_change(group, Use::Nodes, 1);
        }
        tx.use_blocks(-1);
        tx.release(owner_pin, owner, block, &self.pin, &group.set, group.owner());
        Ok(())
    }

    /// Free blocks in the group's chunks of `kind` that nobody has claimed, counted up to `enough`.
    pub(crate) fn free_metadata(
        &self,
        tx: &Transaction,
        kind: ChunkKind,
        enough: u64,
    ) -> Step<u64> {
        let chunks = self.group.geometry.chunks;
        let from = self.group.cursor(kind as u8);
        let mut free = 0;
        for i in 0..chunks {
            let entry = self.group.chunk(tx, (from + i) % chunks)?;
            if entry.kind == kind as u8 && !self.group.is_taken(&entry) {
                free += u64::from(entry.free.get());
                if free >= enough {
                    break;
                }
            }
        }
        Ok(free)
    }

    /// The first block in `from..to` that is free and rested.
    fn first_rested(&self, tx: &Transaction, from: u64, to: u64) -> Step<Option<u64>> {
        let group = &self.group;
        let mut index = from;
        while index < to {
            let (number, bit) = group.geometry.bit(index);
            let bitmap = group.bitmap_block(number)?;
            let end = bit + as_usize(to - index);
            let Some(at) = bits::first_clear(&tx.see(&bitmap).get::<BitmapBlock>().bits, bit, end)
            else {
                return Ok(None);
            };
            index += (at - bit) as u64;
            match group.rest_end(index) {
                None => return Ok(Some(index)),
                Some(end) => index = end,
            }
        }
        Ok(None)
    }

    /// How many blocks from `index` on, `want` at most, are free, rested and in claimed chunks.
    fn data_run(&self, tx: &Transaction, index: u64, want: u64) -> Step<u64> {
        let group = &self.group;
        let geometry = &group.geometry;
        let mut end = index;
        // Up to the end of a bitmap block: runs across it are rare and merge as extents anyway.
        let bitmap_end = (index / BITS_PER_BLOCK + 1) * BITS_PER_BLOCK;
        let limit = (index + want).min(bitmap_end).min(geometry.blocks);
        while end < limit && group.is_claimed(Use::Data, end / geometry.chunk_blocks) {
            let chunk_end = (end / geometry.chunk_blocks + 1) * geometry.chunk_blocks;
            end = chunk_end.min(limit);
        }
        if end == index {
            return Ok(0);
        }
        let (number, bit) = geometry.bit(index);
        let bitmap = group.bitmap_block(number)?;
        let seen = tx.see(&bitmap);
        let clear =
            bits::clear_run(&seen.get::<BitmapBlock>().bits, bit, bit + as_usize(end - index));
        if clear == 0 {
            return Ok(0);
        }
        Ok(group.rested_run(index, clear as u64))
    }

    fn took_data(&self, tx: &mut Transaction, index: u64, len: u64) -> Step<(BlockNo, u64)> {
        let chunk_blocks = self.group.geometry.chunk_blocks;
        let (mut at, end) = (index, index + len);
        while at < end {
            let part = end.min((at / chunk_blocks + 1) * chunk_blocks) - at;
            self.mark_used(tx, at, part)?;
            at += part;
        }
        tx.claims_change(&self.group, Use::Data, -i64::try_from(len).expect("a run is short"));
        Ok((self.group.geometry.first.plus(index), len))
    }

    /// Marks blocks of one chunk used, in bitmap, table and header.
    #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 256 blocks")]
    pub(crate) fn mark_used(&self, tx: &mut Transaction, index: u64, len: u64) -> Step<()> {
        let group = &self.group;
        let (number, bit) = group.geometry.bit(index);
        let bitmap = group.bitmap_block(number)?;
        let bitmap: &mut BitmapBlock = tx.change(&self.pin, &group.set, &bitmap).get_mut();
        bits::set(&mut bitmap.bits, bit, as_usize(len));
        let chunk = index / group.geometry.chunk_blocks;
        let mut entry = group.chunk(tx, chunk)?;
        let Some(free) = entry.free.get().checked_sub(len as u16) else {
            return Err(self
                .group
                .contradiction(chunk, "more blocks are free than counted")
                .into());
        };
        entry.free.set(free);
        group.set_chunk(tx, &self.pin, chunk, entry)?;
        let len = i64::try_from(len).expect("a chunk is small");
        group.add_free(tx, &self.pin, -len, 0)?;
        tx.use_blocks(len);
        Ok(())
    }

    /// Marks blocks of one chunk free, in bitmap, table and header. A data chunk that nobody has
    /// claimed becomes a free chunk when its last block goes.
    #[expect(clippy::cast_possible_truncation, reason = "a chunk has at most 256 blocks")]
    fn mark_free(&self, tx: &mut Transaction, index: u64, len: u64, kind: ChunkKind) -> Step<()> {
        let group = &self.group;
        let chunk = index / group.geometry.chunk_blocks;
        let mut entry = group.chunk(tx, chunk)?;
        if entry.kind != kind as u8 {
            return Err(self
                .group
                .contradiction(chunk, "a block is freed in a chunk of another kind")
                .into());
        }
        let (number, bit) = group.geometry.bit(index);
        let bitmap = group.bitmap_block(number)?;
        let cleared = {
            let bitmap: &mut BitmapBlock = tx.change(&self.pin, &group.set, &bitmap).get_mut();
            bits::clear(&mut bitmap.bits, bit, as_usize(len))
        };
        if !cleared {
            return Err(self.group.contradiction(chunk, "a block is freed twice").into());
        }
        let free = u64::from(entry.free.get()) + len;
        if free > group.geometry.chunk_blocks {
            return Err(self
                .group
                .contradiction(chunk, "fewer blocks are free than counted")
                .into());
        }
        entry.free.set(free as u16);
        let whole = free == group.geometry.chunk_blocks;
        let becomes_free =
            whole && kind == ChunkKind::Data && entry.claim_slot.get() == ChunkEntry::UNCLAIMED;
        if becomes_free {
            entry.kind = ChunkKind::Free as u8;
        }
        group.set_chunk(tx, &self.pin, chunk, entry)?;
        let len = i64::try_from(len).expect("a chunk is small");
        group.add_free(tx, &self.pin, len, i64::from(becomes_free))
    }
}
