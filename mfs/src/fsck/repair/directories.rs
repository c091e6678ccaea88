//! Directories: their entries, wherever they are found; and directories made of entries.
//!
//! Keeps true: an entry of a block that is not whole counts only if its cookie is the hash of its name,
//! which no chance makes (55 bits, keyed). A directory the structure of which is as it has to be is
//! changed in its place; any other is made anew in blocks that nothing led to.

use std::collections::BTreeSet;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::groups::Found;
use super::item::{Entry, Item, State};
use super::work::Work;
use crate::block::{Block, BlockNo};
use crate::dir::area::{self, AreaMut};
use crate::dir::bucket::{LEVELS_MAX, bits_of_level};
use crate::dir::{Dirent, hash};
use crate::file::{FileId, FileType, InodeNo};
use crate::fsck::index::IndexAt;
use crate::fsck::is_possible_name;
use crate::fsck::media::Seen;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::directory::{
    BUCKET_AREA_SIZE, BucketBlock, ENTRY_HEAD_SIZE, EntryHead, INDEX_BITS, INDEX_FANOUT,
    INDEX_SIZE, IndexBlock, POINTER_TO_INDEX,
};
use crate::ondisk::header::{HEADER_SIZE, Kind};
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// Where entries begin in a bucket.
const BUCKET_AREA_AT: usize = HEADER_SIZE + 16;

impl Work<'_> {
    /// Entries of a directory that can be believed itself. `extra` are the buckets that say they are
    /// its own. False: a chunk is of another kind than was thought, begin again.
    pub(super) async fn read_directory(
        &mut self,
        item: &mut Item,
        on_disk: &InodeBlock,
        extra: &[BlockNo],
    ) -> bool {
        let at = BlockNo(item.file.inode.0);
        if on_disk.core.area == AreaKind::Entries as u8 {
            let (entries, is_sound) = self.entries_of(on_disk.body(), at, true);
            item.entries = entries;
            item.rebuild = !is_sound;
        } else {
            let mut todo = vec![IndexAt::root(on_disk)];
            while let Some(index) = todo.pop() {
                match self.read_index(item, &index).await {
                    Some(below) => todo.extend(below),
                    None => return false,
                }
            }
        }
        let mut cookies = BTreeSet::new();
        let mut names = BTreeSet::new();
        let is_sound = item.entries.iter().all(|e| {
            cookies.insert(e.cookie)
                && names.insert(&e.name)
                && hash::of_cookie(e.cookie) == hash::of(&self.sb.hash_key, &e.name)
        });
        item.rebuild |= !is_sound;
        if item.rebuild {
            self.add_lost_buckets(item, extra).await;
            let entries = item.entries.len();
            self.did(item.name(), format!("is not in order; made anew of {entries} entries"));
        } else if item.entries_said != item.entries.len() as u64 {
            let (said, entries) = (item.entries_said, item.entries.len());
            self.did(item.name(), format!("counted {said} entries, has {entries}; put right"));
        }
        true
    }

    /// Buckets that nothing whole leads to; of those that are not whole, entries that prove themselves.
    async fn add_lost_buckets(&mut self, item: &mut Item, extra: &[BlockNo]) {
        for at in extra {
            if self.is_used(*at) {
                continue;
            }
            let (bytes, is_whole) = match self.look(*at).await {
                Seen::Whole(block) | Seen::Mended(block, _) => (block, true),
                Seen::Damaged(block) => (block, false),
                Seen::Foreign | Seen::Garbage(_) | Seen::Nothing | Seen::Unreadable => continue,
            };
            let (entries, _) = self.entries_of(&bytes.0[BUCKET_AREA_AT..], *at, is_whole);
            item.entries.extend(entries);
            self.claim(*at, ChunkKind::Tree);
            item.dir_blocks.push(*at);
        }
    }

    /// Buckets of one index; returns the indexes below, or nothing when all is to be read again.
    async fn read_index(&mut self, item: &mut Item, index: &IndexAt) -> Option<Vec<IndexAt>> {
        let (bits_above, bits) = (index.bits_above(), index.bits());
        let mut below = Vec::new();
        let mut at = 0;
        while at < 1 << bits {
            let pointer = index.pointers[at];
            if pointer == 0 {
                // Only one that is being taken apart has none.
                item.rebuild |= item.links > 0;
                at += 1;
                continue;
            }
            let number = BlockNo(pointer & !POINTER_TO_INDEX);
            let is_index = pointer & POINTER_TO_INDEX != 0;
            let kind = if is_index { Kind::DirIndex } else { Kind::DirBucket };
            let block = self.find(number, kind, item.owner()).await;
            let Some(block) = block.filter(|_| !self.is_used(number)) else {
                item.rebuild = true;
                at += 1;
                continue;
            };
            if !self.fits(number, ChunkKind::Tree) {
                if self.suspect(number, ChunkKind::Tree).await {
                    return None;
                }
                item.rebuild = true;
                at += 1;
                continue;
            }
            self.claim(number, ChunkKind::Tree);
            item.dir_blocks.push(number);
            if is_index {
                match index.below(at, block.get()) {
                    Some(next) => below.push(next),
                    None => item.rebuild = true,
                }
                at += 1;
                continue;
            }
            let bucket: &BucketBlock = block.get();
            let (entries, is_sound) = self.entries_of(&bucket.area, number, true);
            let depth = bucket.depth.get();
            let shift = (bits_above + bits).checked_sub(depth).filter(|_| depth >= bits_above);
            let run = shift.map_or(1, |shift| 1_usize << shift);
            let end = (at + run).min(INDEX_FANOUT);
            let is_in_place = shift.is_some()
                && at.is_multiple_of(run)
                && index.pointers[at..end].iter().all(|p| *p == pointer)
                && bucket.prefix.get() == hash::prefix(index.prefix_at(at), depth)
                && entries
                    .iter()
                    .all(|e| hash::prefix(hash::of_cookie(e.cookie), depth) == bucket.prefix.get());
            item.rebuild |= !is_sound || !is_in_place;
            item.entries.extend(entries);
            at = if is_in_place { at + run } else { at + 1 };
            // The others that lead to it say nothing new.
            while at < 1 << bits && index.pointers[at] == pointer {
                at += 1;
            }
        }
        Some(below)
    }

    /// Entries in an area, and whether they lie in it as they should. From where they do not, and in a
    /// block that is not whole, those count that prove themselves.
    fn entries_of(&self, bytes: &[u8], block: BlockNo, is_whole: bool) -> (Vec<Entry>, bool) {
        let mut entries = Vec::new();
        let mut at = 0;
        let mut is_sound = is_whole;
        while at + ENTRY_HEAD_SIZE <= bytes.len() {
            let (head, rest) = EntryHead::ref_from_prefix(&bytes[at..]).expect("long enough");
            let len = usize::from(head.record_len.get());
            let fits = len >= ENTRY_HEAD_SIZE && len.is_multiple_of(8) && at + len <= bytes.len();
            let name = rest.get(..usize::from(head.name_len)).unwrap_or(&[]);
            let is_free = head.inode.get() == 0;
            let file_type = FileType::from_u8(head.file_type);
            let is_named = !is_free && !name.is_empty() && file_type.is_some();
            let is_entry = is_named && area::record_len(name.len()) <= len;
            if is_sound && !(fits && (is_free || is_entry)) {
                is_sound = false;
            }
            let proves_itself =
                hash::of_cookie(head.cookie.get()) == hash::of(&self.sb.hash_key, name);
            let counts = if is_sound { is_entry } else { is_named && proves_itself };
            if counts && let Some(file_type) = file_type {
                entries.push(Entry {
                    name: name.to_vec(),
                    file: FileId {
                        inode: InodeNo(head.inode.get()),
                        generation: head.generation.get(),
                    },
                    file_type,
                    cookie: head.cookie.get(),
                    at: block,
                    is_kept: true,
                    retyped: false,
                });
            }
            at += match (is_sound, counts) {
                (true, _) => len,
                (false, true) => area::record_len(name.len()),
                (false, false) => 8,
            };
        }
        (entries, is_sound && at == bytes.len())
    }

    /// A directory in the place of one that cannot be believed, of all entries that are found.
    pub(super) async fn remake_directory(
        &mut self,
        file: FileId,
        seen: &Seen,
        found: &Found,
        why: &str,
    ) -> Item {
        let mut item = Item::new(file, FileType::Directory, State::Made);
        item.rebuild = true;
        if let Seen::Whole(block)
        | Seen::Mended(block, _)
        | Seen::Damaged(block)
        | Seen::Garbage(block) = seen
        {
            let at = BlockNo(file.inode.0);
            let (entries, _) = self.entries_of(&block.get::<InodeBlock>().area, at, false);
            item.entries = entries;
        }
        let extra = found.buckets.get(&file).map_or(&[][..], Vec::as_slice);
        self.add_lost_buckets(&mut item, extra).await;
        let mut names = BTreeSet::new();
        item.entries.retain(|entry| names.insert(entry.name.clone()));
        let count = item.entries.len();
        let what = format!("{why}; made anew of {count} entries that were found, owned by root");
        self.did(item.name(), what);
        item
    }

    /// The entries that stay, in the inode or in blocks.
    pub(super) async fn write_directory(&mut self, item: &mut Item, on_disk: &mut InodeBlock) {
        let kept = item.entries.iter().filter(|entry| entry.is_kept).count();
        on_disk.core.entries = U64::new(kept as u64);
        if item.rebuild {
            self.rebuild_directory(item, on_disk).await;
            return;
        }
        let changed: Vec<&Entry> =
            item.entries.iter().filter(|entry| !entry.is_kept || entry.retyped).collect();
        let own = BlockNo(item.file.inode.0);
        let places: BTreeSet<BlockNo> = changed.iter().map(|entry| entry.at).collect();
        for place in places {
            let here = changed.iter().filter(|entry| entry.at == place).copied();
            if place == own {
                edit(on_disk.body_mut(), place, here);
            } else if let Some(mut block) = self.find(place, Kind::DirBucket, item.owner()).await {
                edit(&mut block.get_mut::<BucketBlock>().area, place, here);
                self.put(place, Kind::DirBucket, item.owner(), block).await;
            }
        }
    }

    async fn rebuild_directory(&mut self, item: &mut Item, on_disk: &mut InodeBlock) {
        let mut entries: Vec<Entry> =
            item.entries.iter().filter(|entry| entry.is_kept).cloned().collect();
        self.renew_cookies(&mut entries);
        let len: usize = entries.iter().map(|entry| area::record_len(entry.name.len())).sum();
        if len <= on_disk.body().len() {
            on_disk.core.area = AreaKind::Entries as u8;
            fill(on_disk.body_mut(), &entries);
        } else {
            let mut plan = Plan { blocks: Vec::new(), full: false };
            let mut pointers = [0; INDEX_FANOUT];
            self.plan_index(&mut plan, &entries, (0, 0, 0), &mut pointers);
            if plan.full {
                plan.blocks.iter().for_each(|(at, _, _)| self.release(*at));
                self.report.left(item.name(), "no room to make it anew");
                return;
            }
            on_disk.core.area = AreaKind::Index as u8;
            on_disk.body_mut().fill(0);
            for (place, pointer) in on_disk.area[..INDEX_SIZE].chunks_exact_mut(8).zip(pointers) {
                place.copy_from_slice(&pointer.to_le_bytes());
            }
            item.blocks += plan.blocks.len() as u64;
            for (at, kind, block) in plan.blocks {
                self.put(at, kind, item.owner(), block).await;
            }
        }
        let old = std::mem::take(&mut item.dir_blocks);
        if item.state == State::Good {
            item.blocks -= old.len() as u64;
        }
        old.into_iter().for_each(|at| self.release(at));
    }

    /// Each entry has the hash of its name, and a cookie of its own; those that have stay as they are.
    fn renew_cookies(&self, entries: &mut [Entry]) {
        let mut cookies = BTreeSet::new();
        let mut without = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let is_right =
                hash::of_cookie(entry.cookie) == hash::of(&self.sb.hash_key, &entry.name);
            if !is_right || !cookies.insert(entry.cookie) {
                without.push(i);
            }
        }
        for i in without {
            let first = hash::first_cookie(hash::of(&self.sb.hash_key, &entries[i].name));
            let free = (first..first + (1 << hash::ORDINAL_BITS)).find(|c| !cookies.contains(c));
            entries[i].cookie = free.unwrap_or(first);
            cookies.insert(entries[i].cookie);
        }
        entries.sort_by_key(|entry| entry.cookie);
    }

    /// Buckets and indexes for entries that share the first bits of their hashes: `level` of the index
    /// that leads to them, `depth` bits, and those bits.
    fn plan_index(
        &mut self,
        plan: &mut Plan,
        entries: &[Entry],
        (level, depth, prefix): (u32, u32, u64),
        pointers: &mut [u64; INDEX_FANOUT],
    ) {
        let bits = bits_of_level(level);
        let level_end = level * INDEX_BITS + bits;
        let first = hash::bits_at(prefix, level * INDEX_BITS, bits);
        let len: usize = entries.iter().map(|entry| area::record_len(entry.name.len())).sum();
        if len <= BUCKET_AREA_SIZE {
            let Some(at) = self.take(ChunkKind::Tree) else {
                plan.full = true;
                return;
            };
            let mut block = Block::zeroed();
            let bucket: &mut BucketBlock = block.get_mut();
            bucket.depth = U32::new(depth);
            bucket.prefix = U64::new(prefix);
            fill(&mut bucket.area, entries);
            pointers[first..first + (1 << (level_end - depth))].fill(at.0);
            plan.blocks.push((at, Kind::DirBucket, block));
        } else if depth < level_end {
            let middle = prefix | 1 << (hash::HASH_BITS - depth - 1);
            let split = entries.partition_point(|e| hash::of_cookie(e.cookie) < middle);
            let (low, high) = entries.split_at(split);
            self.plan_index(plan, low, (level, depth + 1, prefix), pointers);
            self.plan_index(plan, high, (level, depth + 1, middle), pointers);
        } else if level < LEVELS_MAX {
            let Some(at) = self.take(ChunkKind::Tree) else {
                plan.full = true;
                return;
            };
            let mut below = [0; INDEX_FANOUT];
            self.plan_index(plan, entries, (level + 1, depth, prefix), &mut below);
            let mut block = Block::zeroed();
            let index: &mut IndexBlock = block.get_mut();
            index.level = U32::new(level + 1);
            index.pointers = below.map(U64::new);
            pointers[first] = at.0 | POINTER_TO_INDEX;
            plan.blocks.push((at, Kind::DirIndex, block));
        } else {
            // 256 long names with one hash: nobody finds them, and no directory holds them.
            plan.full = true;
        }
    }

    /// Names that no directory may have.
    pub(super) fn drop_impossible_names(&mut self, item: &mut Item) {
        let (name, mut dropped) = (item.name(), Vec::new());
        for entry in &mut item.entries {
            if !is_possible_name(&entry.name) {
                entry.is_kept = false;
                dropped.push(String::from_utf8_lossy(&entry.name).into_owned());
            }
        }
        for shown in dropped {
            self.did(&name, format!("entry {shown:?} has an impossible name; removed"));
        }
    }
}

/// Blocks of a directory being made.
struct Plan {
    blocks: Vec<(BlockNo, Kind, Box<Block>)>,
    full: bool,
}

fn fill(bytes: &mut [u8], entries: &[Entry]) {
    area::clear(bytes);
    let mut area = AreaMut::new(bytes, BlockNo(0)).expect("it was cleared");
    for entry in entries {
        let Entry { file, file_type, cookie, .. } = *entry;
        let is_in = area.insert(&entry.name, Dirent { file, file_type, cookie });
        assert!(is_in, "what was measured fits");
    }
}

/// Changes entries where they are.
fn edit<'a>(bytes: &mut [u8], block: BlockNo, entries: impl Iterator<Item = &'a Entry>) {
    let Ok(mut area) = AreaMut::new(bytes, block) else { return };
    for entry in entries {
        let hash = hash::of_cookie(entry.cookie);
        if entry.is_kept {
            area.replace(hash, &entry.name, entry.file, entry.file_type);
        } else {
            area.remove(hash, &entry.name);
        }
    }
}
