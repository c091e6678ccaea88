//! What a repair knows and plans: the device with planned changes over it, groups with what is used
//! in them, and where new blocks come from.
//!
//! Keeps true:
//!   * nothing reaches the device before the commit;
//!   * a block is `used` while something that stays leads to it; one that anything ever led to, or that
//!     a bitmap says is in use, is not given out by this repair, so what is written to new places harms
//!     nothing that the device holds now;
//!   * a planned block has a version above the one in place (I3).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use zerocopy::little_endian::U32;

use super::{RepairOptions, Repaired};
use crate::alloc::bits;
use crate::alloc::chunk::first_version;
use crate::block::{Block, BlockNo, as_usize};
use crate::env::Disk;
use crate::fsck::Progress;
use crate::fsck::media::{Seen, read_each, read_one};
use crate::fsck::overlay::Overlay;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::{ChunkEntry, ChunkKind};
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::slot::head::SlotHead;
use crate::superblock::Superblock;

/// Versions from here on are no versions, but bits that have flipped.
const VERSION_PLAUSIBLE: u64 = 1 << 62;

/// A group as it will be.
pub(super) struct Group {
    pub(super) first: BlockNo,
    pub(super) chunks: Vec<Chunk>,
    /// What the bitmap says, and whether it can be believed, for each block of the bitmap.
    pub(super) marked: Vec<u8>,
    pub(super) known: Vec<bool>,
    /// Something that stays leads to it.
    pub(super) used: Vec<u8>,
    /// Not given out by this repair.
    pub(super) spent: Vec<u8>,
}

/// A chunk as it will be.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    pub(super) entry: ChunkEntry,
    /// `None`: what it is used for decides.
    pub(super) kind: Option<ChunkKind>,
}

pub(super) struct Work<'a> {
    pub(super) disk: Arc<Overlay>,
    pub(super) sb: Superblock,
    pub(super) report: Repaired,
    pub(super) options: RepairOptions,
    pub(super) progress: Progress<'a>,
    pub(super) groups: BTreeMap<GroupNo, Group>,
    /// Planned blocks in places that nothing on the device leads to.
    pub(super) fresh: BTreeSet<BlockNo>,
    /// Of earlier rounds: not given out again.
    pub(super) spent: BTreeMap<GroupNo, Vec<u8>>,
    /// Chunks whose kind in the table is wrong, by their first blocks.
    pub(super) kinds: BTreeMap<BlockNo, ChunkKind>,
    /// The generations that free blocks of inode chunks say.
    pub(super) free_generations: BTreeMap<BlockNo, u32>,
    /// Bits put right already.
    pub(super) mended: BTreeMap<BlockNo, usize>,
    /// Places of metadata that the device does not give.
    pub(super) unreadable: BTreeSet<BlockNo>,
    /// Where the last block for a use was found: there is none in front of it.
    hints: BTreeMap<u8, (GroupNo, usize)>,
    /// The slot whose journal the repair is written through.
    pub(super) journal: Option<SlotHead>,
    /// Inodes that stay.
    pub(super) inodes: u64,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        disk: Arc<Overlay>,
        sb: Superblock,
        options: RepairOptions,
        progress: Progress<'a>,
    ) -> Work<'a> {
        Work {
            disk,
            sb,
            report: Repaired::default(),
            options,
            progress,
            groups: BTreeMap::new(),
            fresh: BTreeSet::new(),
            spent: BTreeMap::new(),
            kinds: BTreeMap::new(),
            free_generations: BTreeMap::new(),
            mended: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            hints: BTreeMap::new(),
            journal: None,
            inodes: 0,
        }
    }

    pub(super) fn step(&mut self, what: &str, done: u64, all: u64) {
        (self.progress)(what, done, all);
    }

    /// Forgets everything about groups.
    pub(super) fn begin_anew(&mut self) {
        self.groups.clear();
        self.hints.clear();
    }

    /// Says what was wrong with an object and what was done.
    pub(super) fn did(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        self.report.did(object, what);
    }

    /// What is in a place of a metadata block. A flipped bit is put right on the way.
    pub(super) async fn look(&mut self, at: BlockNo) -> Seen {
        let block = read_one(&*self.disk, at).await;
        let seen = Seen::of(block, self.sb.fs_id, at);
        self.note(at, &seen);
        seen
    }

    /// As [`Work::look`], for neighbours of which it is not known yet that they are metadata: nothing is
    /// put right before [`Work::note`].
    pub(super) async fn look_at(&mut self, first: BlockNo, count: u64) -> Vec<Seen> {
        let blocks = read_each(&*self.disk, first, count).await;
        let seen = |(i, block)| Seen::of(block, self.sb.fs_id, first.plus(i));
        (0..).zip(blocks).map(seen).collect()
    }

    /// What was seen is in a place of metadata.
    pub(super) fn note(&mut self, at: BlockNo, seen: &Seen) {
        match seen {
            Seen::Mended(block, bit) => {
                self.disk.put(at, block.clone());
                self.mended.insert(at, *bit);
            }
            Seen::Unreadable if at.0 < self.disk.blocks() => {
                self.unreadable.insert(at);
            }
            Seen::Whole(_)
            | Seen::Damaged(_)
            | Seen::Foreign
            | Seen::Garbage(_)
            | Seen::Nothing
            | Seen::Unreadable => {}
        }
    }

    /// A whole block of a kind and an owner.
    pub(super) async fn find(
        &mut self,
        at: BlockNo,
        kind: Kind,
        owner: Owner,
    ) -> Option<Box<Block>> {
        let seen = self.look(at).await;
        let header = seen.header()?;
        let fits = header.kind() == Some(kind) && header.owner() == owner;
        seen.whole().filter(|_| fits).map(|block| Box::new(block.clone()))
    }

    /// Plans a metadata block: all of it but the header is as it will be.
    pub(super) async fn put(
        &mut self,
        at: BlockNo,
        kind: Kind,
        owner: Owner,
        mut block: Box<Block>,
    ) {
        let version = self.next_version(at).await;
        *Header::of_mut(&mut block) = Header::new(self.sb.fs_id, kind, at, owner, version);
        header::seal(&mut block, Writer::MKFS);
        self.disk.put(at, block);
    }

    /// As [`Work::put`], unless that is what is there. True when it is not.
    pub(super) async fn put_changed(
        &mut self,
        at: BlockNo,
        kind: Kind,
        owner: Owner,
        block: Box<Block>,
    ) -> bool {
        let is_there = self
            .find(at, kind, owner)
            .await
            .is_some_and(|old| old.0[header::HEADER_SIZE..] == block.0[header::HEADER_SIZE..]);
        if !is_there {
            self.put(at, kind, owner, block).await;
        }
        !is_there
    }

    /// A version above that of what is in place, and above what may have been there.
    async fn next_version(&mut self, at: BlockNo) -> u64 {
        let block = read_one(&*self.disk, at).await;
        let seen = Seen::of(block, self.sb.fs_id, at);
        let version = seen.of_its_place().map(|block| Header::of(block).version());
        let version = version.filter(|version| *version < VERSION_PLAUSIBLE);
        let epoch = self.chunk_of(at).map_or(0, |chunk| chunk.entry.epoch.get());
        let unknown = first_version(epoch) + (1 << 31);
        version.map_or(unknown, |version| version.max(first_version(epoch)) + 1)
    }

    pub(super) fn group_and_bit(&self, at: BlockNo) -> Option<(GroupNo, usize)> {
        let no = self.sb.layout.group_of(at)?;
        let group = self.groups.get(&no)?;
        Some((no, as_usize(at.0 - group.first.0)))
    }

    pub(super) fn chunk_of(&self, at: BlockNo) -> Option<&Chunk> {
        let (no, bit) = self.group_and_bit(at)?;
        self.groups[&no].chunks.get(bit / self.chunk_blocks())
    }

    pub(super) fn chunk_blocks(&self) -> usize {
        self.sb.layout.chunk_blocks as usize
    }

    pub(super) fn is_used(&self, at: BlockNo) -> bool {
        self.group_and_bit(at).is_none_or(|(no, bit)| bits::get(&self.groups[&no].used, bit))
    }

    /// Does the bitmap say that it is in use? `None` where the bitmap cannot be believed.
    pub(super) fn is_marked(&self, at: BlockNo) -> Option<bool> {
        let (no, bit) = self.group_and_bit(at)?;
        self.groups[&no].is_marked(bit)
    }

    /// May a block be used for this?
    pub(super) fn fits(&self, at: BlockNo, kind: ChunkKind) -> bool {
        let Some(chunk) = self.chunk_of(at) else { return false };
        match (chunk.kind, kind) {
            (None, _) => true,
            (Some(ChunkKind::Free), ChunkKind::Data | ChunkKind::Journal) => true,
            (Some(is), wanted) => is == wanted,
        }
    }

    /// Takes note that something leads to a block; it is free and fits.
    pub(super) fn claim(&mut self, at: BlockNo, kind: ChunkKind) {
        let chunk_blocks = self.chunk_blocks();
        let Some((no, bit)) = self.group_and_bit(at) else { return };
        let group = self.groups.get_mut(&no).expect("found");
        group.used[bit / 8] |= 1 << (bit % 8);
        group.spent[bit / 8] |= 1 << (bit % 8);
        let chunk = &mut group.chunks[bit / chunk_blocks];
        if matches!(chunk.kind, None | Some(ChunkKind::Free)) {
            chunk.kind = Some(kind);
        }
    }

    /// Nothing leads to a block any more.
    pub(super) fn release(&mut self, at: BlockNo) {
        let Some((no, bit)) = self.group_and_bit(at) else { return };
        let group = self.groups.get_mut(&no).expect("found");
        group.used[bit / 8] &= !(1 << (bit % 8));
    }

    /// A block that nothing has led to, for a new use; `None` when there is none. What bitmaps say is
    /// in use comes last.
    pub(super) fn take(&mut self, kind: ChunkKind) -> Option<BlockNo> {
        for trusts in [true, false] {
            let hint = self.hints.get(&(kind as u8)).copied().filter(|_| trusts);
            let (first, chunk) = hint.unwrap_or((GroupNo(0), 0));
            let initialised: Vec<GroupNo> = self.groups.range(first..).map(|(no, _)| *no).collect();
            for no in initialised {
                let from = if no == first { chunk } else { 0 };
                if let Some(at) = self.take_in(no, kind, trusts, from) {
                    return Some(at);
                }
            }
            let unused = self.sb.layout.groups().find(|no| !self.groups.contains_key(no));
            if let Some(no) = unused {
                self.add_group(no);
                if let Some(at) = self.take_in(no, kind, trusts, 0) {
                    return Some(at);
                }
            }
        }
        None
    }

    fn take_in(
        &mut self,
        no: GroupNo,
        kind: ChunkKind,
        trusts: bool,
        from: usize,
    ) -> Option<BlockNo> {
        let chunk_blocks = self.chunk_blocks();
        let group = self.groups.get_mut(&no).expect("of the list");
        let mut found = None;
        for (i, chunk) in group.chunks.iter().enumerate().skip(from) {
            let mut places = i * chunk_blocks..(i + 1) * chunk_blocks;
            if chunk.kind == Some(kind) {
                found = places.find(|bit| group.is_unspent(*bit, trusts));
            } else if matches!(chunk.kind, None | Some(ChunkKind::Free))
                && places.clone().all(|bit| group.is_unspent(bit, trusts))
            {
                found = places.next();
            }
            if found.is_some() {
                break;
            }
        }
        let bit = found?;
        let chunk = &mut group.chunks[bit / chunk_blocks];
        if chunk.kind != Some(kind) {
            chunk.kind = Some(kind);
            if kind.is_metadata() {
                chunk.entry.epoch = U32::new(chunk.entry.epoch.get().saturating_add(1));
            }
        }
        let at = group.first.plus(bit as u64);
        if trusts {
            self.hints.insert(kind as u8, (no, bit / chunk_blocks));
        }
        self.claim(at, kind);
        self.fresh.insert(at);
        Some(at)
    }

    /// Whole chunks in a row that nothing uses, in one group, for a journal: `blocks` of them.
    pub(super) fn take_run(&mut self, blocks: u64) -> Option<(BlockNo, u64)> {
        let chunk_blocks = self.chunk_blocks();
        let wanted = as_usize(blocks).div_ceil(chunk_blocks);
        let mut order: Vec<GroupNo> = self.groups.keys().copied().collect();
        order.extend(self.sb.layout.groups().find(|no| !self.groups.contains_key(no)));
        for no in order {
            if !self.groups.contains_key(&no) {
                self.add_group(no);
            }
            let group = &self.groups[&no];
            let mut run = 0;
            for (i, chunk) in group.chunks.iter().enumerate() {
                let mut places = i * chunk_blocks..(i + 1) * chunk_blocks;
                let is_free = matches!(chunk.kind, None | Some(ChunkKind::Free))
                    && places.all(|bit| group.is_unspent(bit, true));
                run = if is_free { run + 1 } else { 0 };
                if run == wanted {
                    let first = group.first.plus(((i + 1 - wanted) * chunk_blocks) as u64);
                    let len = (wanted * chunk_blocks) as u64;
                    for i in 0..len {
                        self.claim(first.plus(i), ChunkKind::Journal);
                    }
                    return Some((first, len));
                }
            }
        }
        None
    }

    /// A group as it is before its first use.
    pub(super) fn add_group(&mut self, no: GroupNo) {
        let layout = self.sb.layout;
        let mut entry = ChunkEntry {
            kind: ChunkKind::Free as u8,
            reserved0: 0,
            free: 0.into(),
            epoch: U32::ZERO,
            claim_slot: 0.into(),
            claim_node: 0.into(),
            claim_incarnation: U32::ZERO,
        };
        entry.set_claimant(None);
        let chunk = Chunk { entry, kind: Some(ChunkKind::Free) };
        let bytes = as_usize(layout.group_len(no).div_ceil(8));
        let spent = self.spent.get(&no).cloned().unwrap_or_else(|| vec![0; bytes]);
        let group = Group {
            first: layout.group_first(no),
            chunks: vec![chunk; as_usize(layout.chunk_count(no))],
            marked: vec![0; bytes],
            known: vec![true; as_usize(layout.bitmap_blocks(no))],
            used: vec![0; bytes],
            spent,
        };
        self.groups.insert(no, group);
        self.claim_fixed(no);
    }

    /// The blocks at the start of a group that its own structures take.
    pub(super) fn claim_fixed(&mut self, no: GroupNo) {
        let first = self.sb.layout.group_first(no);
        let fixed = self.sb.layout.fixed_blocks(no);
        let chunk_blocks = self.chunk_blocks();
        for i in 0..fixed {
            self.claim(first.plus(i), ChunkKind::Fixed);
        }
        let group = self.groups.get_mut(&no).expect("it was added");
        let (full, rest) = (as_usize(fixed) / chunk_blocks, as_usize(fixed) % chunk_blocks);
        for chunk in &mut group.chunks[..full] {
            chunk.kind = Some(ChunkKind::Fixed);
        }
        if rest > 0 {
            group.chunks[full].kind = Some(ChunkKind::Data);
        }
    }
}

impl Group {
    /// Has this repair not given it out? With `trusts`, what the bitmap says is in use counts, too.
    fn is_unspent(&self, bit: usize, trusts: bool) -> bool {
        let marked = trusts && self.is_marked(bit) == Some(true);
        !bits::get(&self.spent, bit) && !marked
    }

    pub(super) fn is_marked(&self, bit: usize) -> Option<bool> {
        let per_block = as_usize(crate::ondisk::alloc_group::BITS_PER_BLOCK);
        self.known.get(bit / per_block).filter(|known| **known)?;
        Some(bits::get(&self.marked, bit))
    }
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("disk", &self.disk).finish_non_exhaustive()
    }
}
