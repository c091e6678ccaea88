//! Buckets and the index that leads to them.

use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::area::{self, Area, AreaMut};
use super::hash;
use super::{Directory, DirectoryEditor, Dirent, NamedDirent};
use crate::block::{Block, BlockNo};
use crate::cache::{CachedBlock, Expect, Fault, Step};
use crate::error::{Corruption, CorruptionKind};
use crate::file::{FileId, FileType};
use crate::inode::extents::Grown;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::directory::{
    BucketBlock, INDEX_BITS, INDEX_FANOUT, INDEX_SIZE, IndexBlock, POINTER_TO_INDEX,
};
use crate::ondisk::header::Kind;
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// The deepest a directory's index gets: the hash has no more bits.
pub(crate) const LEVELS_MAX: u32 = hash::HASH_BITS / INDEX_BITS;

/// Where a hash leads.
pub(crate) struct Place {
    /// `None` only while a removed directory is being taken apart.
    pub(crate) bucket: Option<Arc<CachedBlock>>,
    /// Bits that all hashes share that lead here.
    depth: u32,
    hash: u64,
    /// The index that points here, the last of the path; `None` for the root in the inode.
    index: Option<Arc<CachedBlock>>,
    /// Level of that index: 0 for the root.
    level: u32,
}

impl Place {
    /// The first cookie that leads to the next bucket.
    pub(crate) fn next_cookie(&self) -> Option<u64> {
        hash::after_prefix(self.hash, self.depth).map(hash::first_cookie)
    }
}

pub(crate) fn area(block: &Block, number: BlockNo) -> Step<Area<'_>> {
    Area::new(&block.get::<BucketBlock>().area, number)
}

pub(crate) fn area_mut(block: &mut Block, number: BlockNo) -> Step<AreaMut<'_>> {
    AreaMut::new(&mut block.get_mut::<BucketBlock>().area, number)
}

fn contents(block: BlockNo, what: &'static str, found: u64) -> Fault {
    let kind = CorruptionKind::Contents(what);
    Corruption { block, kind, expected: 0, found }.into()
}

fn root_pointer(inode: &InodeBlock, at: usize) -> u64 {
    let bytes = &inode.area[at * 8..at * 8 + 8];
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

impl Directory<'_> {
    /// Walks the index.
    pub(crate) fn locate(
        &self,
        tx: &crate::journal::Transaction,
        generation: u32,
        hash: u64,
    ) -> Step<Place> {
        let root = self.inode.block()?;
        let mut pointer = {
            let seen = tx.see(&root);
            let inode: &InodeBlock = seen.get();
            if inode.core.area != AreaKind::Index as u8 {
                return Err(contents(root.number, "a directory without an index", 0));
            }
            root_pointer(inode, hash::bits_at(hash, 0, INDEX_BITS))
        };
        let mut index = None;
        let mut level = 0;
        while pointer & POINTER_TO_INDEX != 0 {
            level += 1;
            if level > LEVELS_MAX {
                return Err(contents(root.number, "an index deeper than the hash", level.into()));
            }
            let number = BlockNo(pointer & !POINTER_TO_INDEX);
            let block = self.below(tx, number, Kind::DirIndex, generation)?;
            let seen = tx.see(&block);
            let below: &IndexBlock = seen.get();
            if below.level.get() != level {
                return Err(contents(number, "level of an index", below.level.get().into()));
            }
            let bits = bits_of_level(level);
            pointer = below.pointers[hash::bits_at(hash, level * INDEX_BITS, bits)].get();
            drop(seen);
            index = Some(block);
        }
        if pointer == 0 {
            let depth = level * INDEX_BITS + bits_of_level(level);
            return Ok(Place { bucket: None, depth, hash, index, level });
        }
        let number = BlockNo(pointer);
        let bucket = self.below(tx, number, Kind::DirBucket, generation)?;
        let (depth, prefix) = {
            let seen = tx.see(&bucket);
            let b: &BucketBlock = seen.get();
            (b.depth.get(), b.prefix.get())
        };
        let bits_above = level * INDEX_BITS;
        if depth < bits_above || depth > bits_above + bits_of_level(level) {
            return Err(contents(number, "depth of a bucket", depth.into()));
        }
        if prefix != hash::prefix(hash, depth) {
            return Err(contents(number, "prefix of a bucket", prefix));
        }
        Ok(Place { bucket: Some(bucket), depth, hash, index, level })
    }

    fn below(
        &self,
        tx: &crate::journal::Transaction,
        number: BlockNo,
        kind: Kind,
        generation: u32,
    ) -> Step<Arc<CachedBlock>> {
        match tx.staged_block(number) {
            Some(block) => Ok(block),
            None => {
                let owner = self.inode.owner(generation);
                self.inode.set.expect(number, Expect { kind, owner })
            }
        }
    }
}

/// Bits of the hash that an index of this level takes: eight, or what is left of it.
pub(crate) fn bits_of_level(level: u32) -> u32 {
    INDEX_BITS.min(hash::HASH_BITS - level * INDEX_BITS)
}

impl DirectoryEditor<'_, '_> {
    /// Moves the entries of an inline directory into a first bucket.
    pub(super) fn spread(&mut self) -> Step<Grown> {
        let block = self.dir.inode.block()?;
        let entries = {
            let seen = self.tx.see(&block);
            Area::new(seen.get::<InodeBlock>().body(), block.number)?.after(0)
        };
        let Some(bucket) = self.new_bucket(0, 0, &entries)? else { return Ok(Grown::NoRoom) };
        let inode: &mut InodeBlock =
            self.tx.change(self.pin, &self.dir.inode.set, &block).get_mut();
        inode.core.area = AreaKind::Index as u8;
        inode.body_mut().fill(0);
        for pointer in inode.area[..INDEX_SIZE].chunks_exact_mut(8) {
            pointer.copy_from_slice(&bucket.0.to_le_bytes());
        }
        Ok(Grown::Done)
    }

    pub(super) fn insert_hashed(
        &mut self,
        name: &[u8],
        hash: u64,
        file: FileId,
        file_type: FileType,
    ) -> Step<Grown> {
        let generation = {
            let block = self.dir.inode.block()?;
            let seen = self.tx.see(&block);
            seen.get::<InodeBlock>().core.generation.get()
        };
        loop {
            let place = self.dir.locate(self.tx, generation, hash)?;
            let Some(bucket) = &place.bucket else {
                return Err(contents(self.dir.inode.block_no(), "a pointer to no bucket", hash));
            };
            let data = self.tx.change(self.pin, &self.dir.inode.set, bucket);
            let mut area = area_mut(data, bucket.number)?;
            let Some(cookie) = area.free_cookie(hash) else { return Err(super::too_many_alike()) };
            if area.insert(name, Dirent { file, file_type, cookie }) {
                return Ok(Grown::Done);
            }
            let level_end = place.level * INDEX_BITS + bits_of_level(place.level);
            let grown = if place.depth < level_end {
                self.split(&place, bucket)?
            } else if place.level < LEVELS_MAX {
                self.deepen(&place, bucket)?
            } else {
                return Err(super::too_many_alike());
            };
            if let Grown::NoRoom = grown {
                return Ok(Grown::NoRoom);
            }
        }
    }

    /// Parts a bucket by the next bit of the hash.
    fn split(&mut self, place: &Place, bucket: &Arc<CachedBlock>) -> Step<Grown> {
        let entries = {
            let seen = self.tx.see(bucket);
            area(&seen, bucket.number)?.after(0)
        };
        let depth = place.depth + 1;
        let low_prefix = hash::prefix(place.hash, place.depth);
        let high_prefix = low_prefix | 1 << (hash::HASH_BITS - depth);
        let (low, high): (Vec<NamedDirent>, Vec<NamedDirent>) = entries
            .into_iter()
            .partition(|e| hash::prefix(hash::of_cookie(e.entry.cookie), depth) == low_prefix);
        let Some(new) = self.new_bucket(depth, high_prefix, &high)? else {
            return Ok(Grown::NoRoom);
        };
        let data = self.tx.change(self.pin, &self.dir.inode.set, bucket);
        fill_bucket(data, bucket.number, depth, low_prefix, &low)?;
        // The upper half of the pointers that led to the old bucket leads to the new one.
        let bits = bits_of_level(place.level);
        let first = hash::bits_at(high_prefix, place.level * INDEX_BITS, bits);
        let count = 1 << (place.level * INDEX_BITS + bits - depth);
        self.point(place, first, count, new.0)?;
        Ok(Grown::Done)
    }

    /// Puts an index of the next level between a bucket that cannot be parted any more and its
    /// pointer.
    fn deepen(&mut self, place: &Place, bucket: &Arc<CachedBlock>) -> Step<Grown> {
        let level = place.level + 1;
        let Some(data) = self.new_block(Kind::DirIndex)? else { return Ok(Grown::NoRoom) };
        let (number, data) = data;
        let index: &mut IndexBlock = data.get_mut();
        index.level = U32::new(level);
        for pointer in &mut index.pointers[..1 << bits_of_level(level)] {
            *pointer = U64::new(bucket.number.0);
        }
        let bits = bits_of_level(place.level);
        let at = hash::bits_at(place.hash, place.level * INDEX_BITS, bits);
        self.point(place, at, 1, number.0 | POINTER_TO_INDEX)?;
        Ok(Grown::Done)
    }

    /// Sets `count` pointers of the index that a place was found through.
    fn point(&mut self, place: &Place, first: usize, count: usize, to: u64) -> Step<()> {
        assert!(first + count <= INDEX_FANOUT, "pointers lie in their index");
        let set = &self.dir.inode.set;
        match &place.index {
            Some(index) => {
                let index: &mut IndexBlock = self.tx.change(self.pin, set, index).get_mut();
                index.pointers[first..first + count].fill(U64::new(to));
            }
            None => {
                let block = self.dir.inode.block()?;
                let inode: &mut InodeBlock = self.tx.change(self.pin, set, &block).get_mut();
                for pointer in inode.area[first * 8..(first + count) * 8].chunks_exact_mut(8) {
                    pointer.copy_from_slice(&to.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    fn new_bucket(
        &mut self,
        depth: u32,
        prefix: u64,
        entries: &[NamedDirent],
    ) -> Step<Option<BlockNo>> {
        let Some((number, data)) = self.new_block(Kind::DirBucket)? else { return Ok(None) };
        fill_bucket(data, number, depth, prefix, entries)?;
        Ok(Some(number))
    }

    fn new_block(&mut self, kind: Kind) -> Step<Option<(BlockNo, &mut Block)>> {
        let Some(group) = self.group else { return Ok(None) };
        let Some(block) = group.take_metadata(self.tx, ChunkKind::Tree)? else { return Ok(None) };
        let inode = self.dir.inode;
        let own = inode.block()?;
        let core = &mut self.tx.change(self.pin, &inode.set, &own).get_mut::<InodeBlock>().core;
        core.blocks.set(core.blocks.get() + 1);
        let owner = inode.owner(core.generation.get());
        let (group_pin, group_set) = (&group.pin, &group.group.set);
        let data = self.tx.adopt(group_pin, group_set, &block, self.pin, &inode.set, kind, owner);
        Ok(Some((block.number, data)))
    }
}

fn fill_bucket(
    data: &mut Block,
    number: BlockNo,
    depth: u32,
    prefix: u64,
    entries: &[NamedDirent],
) -> Step<()> {
    let bucket: &mut BucketBlock = data.get_mut();
    bucket.depth = U32::new(depth);
    bucket.prefix = U64::new(prefix);
    area::clear(&mut bucket.area);
    let mut area = AreaMut::new(&mut bucket.area, number)?;
    for entry in entries {
        assert!(area.insert(&entry.name, entry.entry), "what fitted one area fits another");
    }
    Ok(())
}

/// Blocks of a directory's index and buckets, those below first, `max` at most. For taking a
/// removed directory apart: the pointers to them are cleared in the same transaction.
pub(crate) struct Dismantled {
    pub(crate) blocks: Vec<Arc<CachedBlock>>,
    pub(crate) done: bool,
}

impl DirectoryEditor<'_, '_> {
    /// Clears pointers, the last first, and returns the blocks that nothing leads to any more.
    pub(crate) fn dismantle(&mut self, generation: u32, max: usize) -> Step<Dismantled> {
        let mut gone = Dismantled { blocks: Vec::new(), done: false };
        let root = self.dir.inode.block()?;
        while gone.blocks.len() < max {
            let last = {
                let seen = self.tx.see(&root);
                let inode: &InodeBlock = seen.get();
                if inode.core.area != AreaKind::Index as u8 {
                    None
                } else {
                    (0..INDEX_FANOUT).rev().map(|i| (i, root_pointer(inode, i))).find(|p| p.1 != 0)
                }
            };
            let Some((at, pointer)) = last else {
                gone.done = true;
                break;
            };
            self.dismantle_below(generation, None, 0, at, pointer, &mut gone)?;
        }
        Ok(gone)
    }

    /// Takes one bucket, or one empty index, off below a pointer.
    fn dismantle_below(
        &mut self,
        generation: u32,
        parent: Option<&Arc<CachedBlock>>,
        level: u32,
        at: usize,
        pointer: u64,
        gone: &mut Dismantled,
    ) -> Step<()> {
        if pointer & POINTER_TO_INDEX != 0 && level < LEVELS_MAX {
            let number = BlockNo(pointer & !POINTER_TO_INDEX);
            let index = self.dir.below(self.tx, number, Kind::DirIndex, generation)?;
            let last = {
                let seen = self.tx.see(&index);
                let pointers = &seen.get::<IndexBlock>().pointers;
                pointers.iter().enumerate().rev().map(|(i, p)| (i, p.get())).find(|p| p.1 != 0)
            };
            match last {
                Some((at, pointer)) => {
                    return self.dismantle_below(
                        generation,
                        Some(&index),
                        level + 1,
                        at,
                        pointer,
                        gone,
                    );
                }
                None => gone.blocks.push(index),
            }
        } else {
            let bucket = self.dir.below(self.tx, BlockNo(pointer), Kind::DirBucket, generation)?;
            gone.blocks.push(bucket);
        }
        self.clear_pointers(parent, at, pointer)
    }

    /// Clears the run of equal pointers that ends at `at`.
    fn clear_pointers(
        &mut self,
        parent: Option<&Arc<CachedBlock>>,
        at: usize,
        pointer: u64,
    ) -> Step<()> {
        let set = &self.dir.inode.set;
        match parent {
            Some(index) => {
                let index: &mut IndexBlock = self.tx.change(self.pin, set, index).get_mut();
                for p in index.pointers[..=at].iter_mut().rev().take_while(|p| p.get() == pointer) {
                    *p = U64::ZERO;
                }
            }
            None => {
                let block = self.dir.inode.block()?;
                let inode: &mut InodeBlock = self.tx.change(self.pin, set, &block).get_mut();
                let pointers = <[U64]>::mut_from_bytes(inode.area[..INDEX_SIZE].as_mut_bytes())
                    .expect("whole pointers");
                for p in pointers[..=at].iter_mut().rev().take_while(|p| p.get() == pointer) {
                    *p = U64::ZERO;
                }
            }
        }
        Ok(())
    }
}
