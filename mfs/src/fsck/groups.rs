//! Groups: what they say is in use, against what is.

use std::fmt;
use std::ops::Range;

use super::{Check, CheckError, Claim, ISOLATED};
use crate::alloc::bits;
use crate::alloc::chunk::first_version;
use crate::block::{Block, BlockNo, as_usize};
use crate::fsck::media::read_each;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::{
    BITS_PER_BLOCK, BitmapBlock, CHUNKS_PER_BLOCK, ChunkEntry, ChunkKind, ChunkTableBlock,
    GROUPS_PER_MAP, GroupHeaderBlock, GroupMapBlock,
};
use crate::ondisk::header::{self, Header, Kind, Owner};

/// A group as it describes itself, and what was found to use it.
pub(crate) struct GroupUse {
    first: BlockNo,
    /// What the bitmap says, bit by bit.
    pub(crate) bitmap: Vec<u8>,
    found: Vec<u8>,
    pub(crate) chunks: Vec<ChunkEntry>,
    header: GroupHeaderBlock,
}

impl Check<'_> {
    /// Reads every group that has ever been used.
    pub(super) async fn read_groups(&mut self) -> Result<(), CheckError> {
        let layout = self.sb.layout;
        let leaders = layout.group_count.div_ceil(GROUPS_PER_MAP);
        for leader in 0..leaders {
            let leader = GroupNo(leader * GROUPS_PER_MAP);
            let at = layout.group_map(leader);
            let map = match self.read(at, Kind::GroupMap, Owner::plain(leader.0)).await {
                Ok(map) => map,
                Err(corruption) => {
                    self.problem("map of groups", corruption);
                    continue;
                }
            };
            let map: GroupMapBlock = *map.get();
            let last = (leader.0 + GROUPS_PER_MAP).min(layout.group_count);
            for no in leader.0..last {
                if !bits::get(&map.bits, as_usize(no - leader.0)) {
                    continue;
                }
                self.step("groups", no, layout.group_count);
                self.read_group(GroupNo(no)).await;
                if self.groups.contains_key(&GroupNo(no)) {
                    self.check_free_headers(GroupNo(no), 0..layout.chunk_count(GroupNo(no))).await;
                }
            }
        }
        self.report.groups = self.groups.len() as u64;
        Ok(())
    }

    /// Header, bitmap and table; a group of which one cannot be read is not among the groups.
    pub(super) async fn read_group(&mut self, no: GroupNo) {
        let layout = self.sb.layout;
        let owner = Owner::plain(no.0);
        let name = format!("group {}", no.0);
        let header = match self.read(layout.group_header(no), Kind::GroupHeader, owner).await {
            Ok(block) => *block.get::<GroupHeaderBlock>(),
            Err(corruption) => {
                self.problem(&name, corruption);
                return;
            }
        };
        if header.isolated.get() != 0 {
            self.problem(&name, ISOLATED);
        }
        let blocks = layout.group_len(no);
        let mut bitmap = Vec::new();
        for i in 0..layout.bitmap_blocks(no) {
            match self.read(layout.bitmap_first(no).plus(i), Kind::Bitmap, owner).await {
                Ok(block) => bitmap.extend_from_slice(&block.get::<BitmapBlock>().bits),
                Err(corruption) => {
                    self.problem(&name, corruption);
                    return;
                }
            }
        }
        if let Some(bit) = (blocks..layout.bitmap_blocks(no) * BITS_PER_BLOCK)
            .find(|bit| bits::get(&bitmap, as_usize(*bit)))
        {
            self.problem(&name, format!("bit {bit} behind the end of the group is set"));
        }
        bitmap.truncate(as_usize(blocks.div_ceil(8)));
        let mut chunks = Vec::new();
        for i in 0..layout.chunk_table_blocks(no) {
            match self.read(layout.chunk_table_first(no).plus(i), Kind::ChunkTable, owner).await {
                Ok(block) => chunks.extend_from_slice(&block.get::<ChunkTableBlock>().entries),
                Err(corruption) => {
                    self.problem(&name, corruption);
                    return;
                }
            }
        }
        debug_assert!(chunks.len() >= CHUNKS_PER_BLOCK);
        chunks.truncate(as_usize(layout.chunk_count(no)));
        let found = vec![0; bitmap.len()];
        let first = layout.group_first(no);
        self.groups.insert(no, GroupUse { first, bitmap, found, chunks, header });
        for i in 0..layout.fixed_blocks(no) {
            self.use_block(&name, first.plus(i), ChunkKind::Fixed);
        }
    }

    /// Free blocks of metadata chunks carry headers, with versions of the chunk's epoch (I3, I4).
    pub(super) async fn check_free_headers(&mut self, no: GroupNo, among: Range<u64>) {
        let chunk_blocks = u64::from(self.sb.layout.chunk_blocks);
        let group = &self.groups[&no];
        let chunks: Vec<(u64, ChunkEntry)> = (0..)
            .zip(group.chunks.iter().copied())
            .filter(|(_, c)| c.chunk_kind().is_some_and(ChunkKind::is_metadata))
            .filter(|(chunk, _)| among.contains(chunk))
            .collect();
        for (chunk, entry) in chunks {
            let first = self.groups[&no].first.plus(chunk * chunk_blocks);
            let blocks = read_each(&*self.disk, first, chunk_blocks).await;
            for (i, block) in (0..chunk_blocks).zip(blocks) {
                let at = first.plus(i);
                let bit = as_usize(chunk * chunk_blocks + i);
                let is_free = !bits::get(&self.groups[&no].bitmap, bit);
                let block = block.unwrap_or_else(Block::zeroed);
                let header: Header = match header::check(&block, self.sb.fs_id, at) {
                    Ok(header) => *header,
                    // A block in use is told of where it is used.
                    Err(corruption) if is_free => {
                        self.problem(format!("group {}", no.0), corruption);
                        continue;
                    }
                    Err(_) => continue,
                };
                if is_free && header.kind() != Some(Kind::Free) {
                    let what = format!("free block {at} is of kind {}", header.kind);
                    self.problem(format!("group {}", no.0), what);
                }
                if header.version() < first_version(entry.epoch.get()) {
                    let what = format!("block {at} is older than its chunk");
                    self.problem(format!("group {}", no.0), what);
                }
            }
        }
    }

    /// Places of inodes that are marked used, in these chunks.
    pub(super) fn inode_places(&self, no: GroupNo, among: Range<u64>) -> Vec<BlockNo> {
        let chunk_blocks = u64::from(self.sb.layout.chunk_blocks);
        let group = &self.groups[&no];
        let mut places = Vec::new();
        for (chunk, entry) in (0..).zip(&group.chunks) {
            if entry.chunk_kind() == Some(ChunkKind::Inode) && among.contains(&chunk) {
                let from = chunk * chunk_blocks;
                let used = |bit: &u64| bits::get(&group.bitmap, as_usize(*bit));
                let used = (from..from + chunk_blocks).filter(used);
                places.extend(used.map(|bit| group.first.plus(bit)));
            }
        }
        places
    }

    /// An inode that is damaged beyond repair keeps what is marked used and nobody else has.
    pub(super) fn keep_block(&mut self, at: BlockNo, kind: ChunkKind) {
        let Some(no) = self.sb.layout.group_of(at) else { return };
        let chunk_blocks = u64::from(self.sb.layout.chunk_blocks);
        let Some(group) = self.groups.get_mut(&no) else { return };
        let index = at.0 - group.first.0;
        let bit = as_usize(index);
        let fits = group.chunks[as_usize(index / chunk_blocks)].chunk_kind() == Some(kind);
        if fits && bits::get(&group.bitmap, bit) && !bits::get(&group.found, bit) {
            bits::set(&mut group.found, bit, 1);
            self.report.blocks_used += 1;
        }
    }

    /// As [`Check::use_block`], of several that follow each other in one group.
    pub(super) fn use_blocks(
        &mut self,
        who: impl fmt::Display,
        first: BlockNo,
        blocks: u64,
        kind: ChunkKind,
    ) {
        if let Some(claims) = &mut self.claims {
            self.report.blocks_used += blocks;
            claims.runs.push(Claim { first, blocks, kind });
            return;
        }
        for i in 0..blocks {
            self.use_block(&who, first.plus(i), kind);
        }
    }

    /// Takes note that somebody uses a block; it has to lie in a chunk of that kind, be marked used,
    /// and be used once. False when it is used already.
    pub(super) fn use_block(
        &mut self,
        who: impl fmt::Display,
        at: BlockNo,
        kind: ChunkKind,
    ) -> bool {
        let who = who.to_string();
        let Some(no) = self.sb.layout.group_of(at) else {
            self.problem(who, format!("leads to block {at}, outside all groups"));
            return false;
        };
        if let Some(claims) = &mut self.claims {
            if !claims.metadata.insert(at) {
                self.problem(who, format!("uses block {at}, which is used already"));
                return false;
            }
            self.report.blocks_used += 1;
            claims.runs.push(Claim { first: at, blocks: 1, kind });
            return true;
        }
        let chunk_blocks = u64::from(self.sb.layout.chunk_blocks);
        let Some(group) = self.groups.get_mut(&no) else {
            self.problem(who, format!("leads to block {at}, in a group that is not in use"));
            return false;
        };
        let index = at.0 - group.first.0;
        let bit = as_usize(index);
        let chunk_kind = group.chunks[as_usize(index / chunk_blocks)].chunk_kind();
        let fits = fits(kind, chunk_kind);
        let marked = bits::get(&group.bitmap, bit);
        let twice = bits::get(&group.found, bit);
        if !twice {
            bits::set(&mut group.found, bit, 1);
        }
        if kind != ChunkKind::Fixed {
            self.report.blocks_used += u64::from(!twice);
        }
        if !fits {
            self.problem(&who, format!("uses block {at} as {kind:?}, its chunk is {chunk_kind:?}"));
        }
        if !marked {
            self.problem(&who, format!("uses block {at}, which is marked free"));
        }
        if twice {
            self.problem(&who, format!("uses block {at}, which is used already"));
        }
        !twice
    }

    /// Bitmaps against what was found, tables and headers against bitmaps.
    pub(super) fn compare_groups(&mut self) {
        let mut problems = Vec::new();
        for (no, group) in &self.groups {
            let blocks = as_usize(self.sb.layout.group_len(*no));
            for bit in 0..blocks {
                if bits::get(&group.bitmap, bit) && !bits::get(&group.found, bit) {
                    let at = group.first.plus(bit as u64);
                    let what = format!("block {at} is marked used, nothing uses it");
                    problems.push((format!("group {}", no.0), what));
                }
            }
        }
        for (object, what) in problems {
            self.problem(object, what);
        }
        self.compare_counts();
    }

    /// Tables and headers against bitmaps.
    pub(super) fn compare_counts(&mut self) {
        let chunk_blocks = as_usize(u64::from(self.sb.layout.chunk_blocks));
        let mut problems = Vec::new();
        for (no, group) in &self.groups {
            let mut say = |what: String, is_counter: bool| {
                problems.push((format!("group {}", no.0), what, is_counter));
            };
            let mut free_blocks = 0;
            let mut free_chunks = 0;
            for (chunk, entry) in group.chunks.iter().enumerate() {
                let from = chunk * chunk_blocks;
                let used = bits::count_set(&group.bitmap, from, from + chunk_blocks);
                let free = chunk_blocks - used;
                free_blocks += free;
                if usize::from(entry.free.get()) != free {
                    let counted = entry.free.get();
                    say(format!("chunk {chunk} counts {counted} free blocks, {free} are"), true);
                }
                match entry.chunk_kind() {
                    None => say(format!("chunk {chunk} is of unknown kind {}", entry.kind), false),
                    Some(ChunkKind::Free) => {
                        free_chunks += 1;
                        if used > 0 {
                            say(format!("chunk {chunk} is free with {used} blocks in use"), false);
                        }
                    }
                    Some(_) => {}
                }
            }
            let header = &group.header;
            if header.free_blocks.get() as usize != free_blocks {
                let counted = header.free_blocks.get();
                say(format!("counts {counted} free blocks, {free_blocks} are"), true);
            }
            if header.free_chunks.get() != free_chunks {
                let counted = header.free_chunks.get();
                say(format!("counts {counted} free chunks, {free_chunks} are"), true);
            }
        }
        for (object, what, is_counter) in problems {
            if is_counter {
                self.miscount(object, what);
            } else {
                self.problem(object, what);
            }
        }
    }
}

/// May a chunk of this kind have a block that is used so?
pub(super) fn fits(used_as: ChunkKind, chunk_kind: Option<ChunkKind>) -> bool {
    match used_as {
        // The rest of a chunk that the group's own blocks do not fill holds data.
        ChunkKind::Fixed => matches!(chunk_kind, Some(ChunkKind::Fixed | ChunkKind::Data)),
        ChunkKind::Free
        | ChunkKind::Data
        | ChunkKind::Inode
        | ChunkKind::Tree
        | ChunkKind::Journal => chunk_kind == Some(used_as),
    }
}
