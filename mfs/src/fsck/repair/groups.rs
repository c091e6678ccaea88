//! Groups: what their own blocks say as far as that can be believed, what their metadata chunks hold;
//! and at the end their blocks written as everything that stays needs them.
//!
//! Keeps true: bitmaps, tables and counters follow from what inodes, trees, lists and slots lead to,
//! and from nothing else. A chunk is metadata where its table says so, or, where the table is lost or
//! something whole leads into it, where most of its blocks have headers (I4: all of them have).

use std::collections::BTreeMap;

use zerocopy::little_endian::{U16, U32, U64};

use super::work::{Chunk, Work};
use crate::alloc::bits;
use crate::alloc::chunk::first_version;
use crate::block::{Block, BlockNo, as_usize};
use crate::file::FileId;
use crate::fsck::ISOLATED;
use crate::fsck::media::Seen;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::{
    BITS_PER_BLOCK, BitmapBlock, CHUNKS_PER_BLOCK, ChunkEntry, ChunkKind, ChunkTableBlock,
    GROUPS_PER_MAP, GroupHeaderBlock, GroupMapBlock,
};
use crate::ondisk::header::{Header, Kind, Owner};

/// What metadata chunks hold, by what the blocks say of themselves.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Blocks of inode chunks that are inodes, whole ones.
    pub(super) inodes: Vec<BlockNo>,
    /// Blocks of inode chunks that were in use and are not whole.
    pub(super) damaged: Vec<BlockNo>,
    /// Buckets of directories, whole or not.
    pub(super) buckets: BTreeMap<FileId, Vec<BlockNo>>,
}

impl Work<'_> {
    /// Groups that have ever been used.
    pub(super) async fn read_groups(&mut self) {
        let layout = self.sb.layout;
        self.begin_anew();
        let mut map = Vec::new();
        for no in layout.groups() {
            if layout.map_leader(no) == no {
                let at = layout.group_map(no);
                let block = self.find(at, Kind::GroupMap, Owner::plain(no.0)).await;
                map = block.map_or(Vec::new(), |b| b.get::<GroupMapBlock>().bits.to_vec());
            }
            let bit = as_usize(no.0 % GROUPS_PER_MAP);
            let marked = (!map.is_empty()).then(|| bits::get(&map, bit));
            // Leaders are in use since mkfs.
            let is_leader = layout.map_leader(no) == no;
            if is_leader || marked == Some(true) || self.was_used(no, marked.is_some()).await {
                self.step("groups", no.0, layout.group_count);
                self.read_group(no).await;
            }
        }
    }

    /// Has a group that no map speaks for been used? One whose image was written, and nothing more, may
    /// be left by a crash.
    async fn was_used(&mut self, no: GroupNo, map_is_whole: bool) -> bool {
        let layout = self.sb.layout;
        let owner = Owner::plain(no.0);
        let header = self.find(layout.group_header(no), Kind::GroupHeader, owner).await;
        let unused = layout.group_len(no) - layout.fixed_blocks(no);
        match header {
            Some(header) => {
                let free = header.get::<GroupHeaderBlock>().free_blocks.get();
                u64::from(free) != unused
            }
            None if map_is_whole => false,
            None => {
                let bitmap = self.find(layout.bitmap_first(no), Kind::Bitmap, owner).await;
                bitmap.is_some()
                    || self
                        .find(layout.chunk_table_first(no), Kind::ChunkTable, owner)
                        .await
                        .is_some()
            }
        }
    }

    async fn read_group(&mut self, no: GroupNo) {
        let layout = self.sb.layout;
        let owner = Owner::plain(no.0);
        self.add_group(no);
        let bytes = as_usize(layout.group_len(no).div_ceil(8));
        let (mut marked, mut known) = (Vec::new(), Vec::new());
        for i in 0..layout.bitmap_blocks(no) {
            let block = self.find(layout.bitmap_first(no).plus(i), Kind::Bitmap, owner).await;
            known.push(block.is_some());
            match block {
                Some(block) => marked.extend_from_slice(&block.get::<BitmapBlock>().bits),
                None => marked.extend([0; as_usize(BITS_PER_BLOCK) / 8]),
            }
        }
        marked.truncate(bytes);
        let mut chunks: Vec<Option<ChunkEntry>> = Vec::new();
        for i in 0..layout.chunk_table_blocks(no) {
            let at = layout.chunk_table_first(no).plus(i);
            match self.find(at, Kind::ChunkTable, owner).await {
                Some(block) => {
                    chunks.extend(block.get::<ChunkTableBlock>().entries.map(Some));
                }
                None => chunks.extend([None; CHUNKS_PER_BLOCK]),
            }
        }
        let count = as_usize(layout.chunk_count(no));
        let own = as_usize(layout.fixed_blocks(no)).div_ceil(self.chunk_blocks());
        let group = self.groups.get_mut(&no).expect("it was added");
        (group.marked, group.known) = (marked, known);
        for (i, entry) in chunks.into_iter().take(count).enumerate() {
            let chunk = &mut group.chunks[i];
            if let Some(entry) = entry {
                chunk.entry = entry;
            }
            // Those of the group's own blocks are what they are.
            if i >= own {
                let kind = entry.and_then(|entry| entry.chunk_kind());
                chunk.kind = kind.filter(|kind| *kind != ChunkKind::Fixed);
            }
        }
        for i in own..count {
            let first = layout.group_first(no).plus((i * self.chunk_blocks()) as u64);
            if let Some(kind) = self.kinds.get(&first) {
                let group = self.groups.get_mut(&no).expect("it was added");
                group.chunks[i].kind = Some(*kind);
            }
        }
    }

    /// Looks through all chunks that are metadata, or of which nothing is known.
    pub(super) async fn scan_chunks(&mut self) -> Found {
        let mut found = Found::default();
        let all = self.groups.len() as u64;
        let groups: Vec<GroupNo> = self.groups.keys().copied().collect();
        for (done, no) in (0..).zip(groups) {
            self.step("chunks", done, all);
            for i in 0..self.groups[&no].chunks.len() {
                let mut chunk = self.groups[&no].chunks[i];
                // A journal that no slot has is none.
                if chunk.kind == Some(ChunkKind::Journal) && !self.is_any_used(no, i) {
                    chunk.kind = None;
                }
                if chunk.kind.is_none_or(ChunkKind::is_metadata) {
                    self.scan_chunk(no, i, chunk, &mut found).await;
                }
            }
        }
        found
    }

    fn is_any_used(&self, no: GroupNo, chunk: usize) -> bool {
        let chunk_blocks = self.chunk_blocks();
        let used = &self.groups[&no].used;
        bits::count_set(used, chunk * chunk_blocks, (chunk + 1) * chunk_blocks) > 0
    }

    async fn scan_chunk(&mut self, no: GroupNo, i: usize, chunk: Chunk, found: &mut Found) {
        let chunk_blocks = self.chunk_blocks();
        let first = self.groups[&no].first.plus((i * chunk_blocks) as u64);
        let blocks = self.look_at(first, chunk_blocks as u64).await;
        let Contents { kind, epoch, headers } = Contents::of(&blocks);
        let unreadable = blocks.iter().any(|seen| matches!(seen, Seen::Unreadable));
        let kind = match chunk.kind {
            // The table's word counts, unless the blocks say something else.
            Some(said) if headers > 0 || unreadable => kind.or(Some(said)),
            // Nothing in it was ever metadata, as far as can be seen.
            Some(_) => None,
            None if headers * 2 > chunk_blocks => kind.or(Some(ChunkKind::Tree)),
            None => None,
        };
        let group = self.groups.get_mut(&no).expect("of the list");
        group.chunks[i].kind = kind;
        let Some(kind) = kind else { return };
        let entry = &mut group.chunks[i].entry;
        if let Some(epoch) = epoch
            && (chunk.kind.is_none() || epoch < entry.epoch.get())
        {
            entry.epoch = U32::new(epoch);
        }
        for (block, at) in blocks.iter().zip(first.0..) {
            let at = BlockNo(at);
            self.note(at, block);
            let header = block.of_its_place().map(Header::of);
            if kind == ChunkKind::Inode {
                if let Some(header) = header.filter(|h| h.kind() == Some(Kind::Free)) {
                    self.free_generations.insert(at, header.owner_generation.get());
                }
                match block {
                    Seen::Whole(_) | Seen::Mended(..) => {
                        if header.and_then(Header::kind) == Some(Kind::Inode) {
                            found.inodes.push(at);
                        }
                    }
                    Seen::Damaged(_) | Seen::Garbage(_) | Seen::Unreadable => {
                        let was_free = header.and_then(Header::kind) == Some(Kind::Free);
                        if !was_free && self.is_marked(at) != Some(false) {
                            found.damaged.push(at);
                        }
                    }
                    Seen::Foreign | Seen::Nothing => {}
                }
            } else if let Some(header) = header.filter(|h| h.kind() == Some(Kind::DirBucket)) {
                let owner = header.owner();
                let file =
                    FileId { inode: crate::file::InodeNo(owner.id), generation: owner.generation };
                found.buckets.entry(file).or_default().push(at);
            }
        }
    }

    /// Something whole leads to a block of metadata in a chunk of another kind: is the table wrong? Then
    /// everything is read once more.
    pub(super) async fn suspect(&mut self, at: BlockNo, wanted: ChunkKind) -> bool {
        let Some((no, bit)) = self.group_and_bit(at) else { return false };
        let chunk_blocks = self.chunk_blocks();
        let i = bit / chunk_blocks;
        let first = self.groups[&no].first.plus((i * chunk_blocks) as u64);
        let own = as_usize(self.sb.layout.fixed_blocks(no)).div_ceil(chunk_blocks);
        if i < own || self.kinds.contains_key(&first) {
            return false;
        }
        let blocks = self.look_at(first, chunk_blocks as u64).await;
        let contents = Contents::of(&blocks);
        if contents.headers * 2 <= chunk_blocks || contents.kind != Some(wanted) {
            return false;
        }
        self.kinds.insert(first, wanted);
        true
    }

    /// Blocks that are marked used and that nothing leads to, in chunks that are not metadata: are they
    /// of a metadata chunk whose entry in the table is wrong?
    pub(super) async fn suspect_unused(&mut self) -> bool {
        let chunk_blocks = self.chunk_blocks();
        let mut suspects = Vec::new();
        for group in self.groups.values() {
            for (i, chunk) in group.chunks.iter().enumerate() {
                if matches!(chunk.kind, Some(ChunkKind::Inode | ChunkKind::Tree | ChunkKind::Fixed))
                {
                    continue;
                }
                let mut places = i * chunk_blocks..(i + 1) * chunk_blocks;
                let left = places
                    .find(|bit| bits::get(&group.marked, *bit) && !bits::get(&group.used, *bit));
                suspects.extend(left.map(|bit| group.first.plus(bit as u64)));
            }
        }
        let mut any = false;
        for at in suspects {
            let seen = self.look_at(at, 1).await;
            let kind = seen.first().and_then(Seen::header).and_then(Header::kind);
            let wanted = match kind {
                Some(Kind::Inode) => Some(ChunkKind::Inode),
                Some(kind) if is_of_tree(kind) => Some(ChunkKind::Tree),
                _ => None,
            };
            if let Some(wanted) = wanted {
                any |= self.suspect(at, wanted).await;
            }
        }
        any
    }

    /// Groups' own blocks, and headers of free blocks, as everything that stays needs them.
    pub(super) async fn write_groups(&mut self) {
        let groups: Vec<GroupNo> = self.groups.keys().copied().collect();
        let all = groups.len() as u64;
        for (done, no) in (0..).zip(groups) {
            self.step("writing", done, all);
            self.write_free_headers(no).await;
            self.write_group(no).await;
        }
        let layout = self.sb.layout;
        for leader in layout.groups().step_by(as_usize(GROUPS_PER_MAP)) {
            let mut block = Block::zeroed();
            let map: &mut GroupMapBlock = block.get_mut();
            for no in self.groups.range(leader..GroupNo(leader.0 + GROUPS_PER_MAP)) {
                bits::set(&mut map.bits, as_usize(no.0.0 - leader.0), 1);
            }
            let at = layout.group_map(leader);
            let owner = Owner::plain(leader.0);
            if self.put_changed(at, Kind::GroupMap, owner, block).await {
                self.did("map of groups", "made anew");
            }
        }
    }

    async fn write_free_headers(&mut self, no: GroupNo) {
        let chunk_blocks = self.chunk_blocks();
        let mut headless = 0;
        for i in 0..self.groups[&no].chunks.len() {
            let group = &self.groups[&no];
            let chunk = group.chunks[i];
            if !chunk.kind.is_some_and(ChunkKind::is_metadata) {
                continue;
            }
            let unused: Vec<bool> = (i * chunk_blocks..(i + 1) * chunk_blocks)
                .map(|bit| !bits::get(&group.used, bit))
                .collect();
            let first = group.first.plus((i * chunk_blocks) as u64);
            let epoch = chunk.entry.epoch.get();
            let blocks = self.look_at(first, chunk_blocks as u64).await;
            for (j, seen) in blocks.iter().enumerate().filter(|(j, _)| unused[*j]) {
                let at = first.plus(j as u64);
                let header = seen.header().copied();
                let is_free = header.is_some_and(|h| {
                    h.kind() == Some(Kind::Free)
                        && h.owner().id == no.0
                        && h.version() >= first_version(epoch)
                });
                if is_free {
                    continue;
                }
                let bit = i * chunk_blocks + j;
                if !bits::get(&self.groups[&no].spent, bit) {
                    headless += 1;
                }
                // The next inode here takes one more.
                let known = seen.of_its_place().map(|block| Header::of(block).owner_generation);
                let generation = known.map_or(epoch, |generation| generation.get().max(epoch));
                let owner = Owner { id: no.0, generation };
                self.put(at, Kind::Free, owner, Block::zeroed()).await;
                // Before its chunk is metadata, nothing has to be there.
                if header.is_none() && self.is_marked(at) == Some(false) {
                    self.fresh.insert(at);
                }
            }
        }
        if headless > 0 {
            self.did(format!("group {}", no.0), format!("{headless} free blocks made anew"));
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a group has at most 2^22 blocks")]
    async fn write_group(&mut self, no: GroupNo) {
        let layout = self.sb.layout;
        let chunk_blocks = self.chunk_blocks();
        let owner = Owner::plain(no.0);
        let name = format!("group {}", no.0);
        let group = self.groups.get_mut(&no).expect("of the list");
        let (mut free_blocks, mut free_chunks) = (0, 0);
        let mut entries = Vec::new();
        for (i, chunk) in group.chunks.iter_mut().enumerate() {
            let used = bits::count_set(&group.used, i * chunk_blocks, (i + 1) * chunk_blocks);
            let said = chunk.entry;
            let mut kind = chunk.kind.unwrap_or(ChunkKind::Free);
            let free = (chunk_blocks - used) as u16;
            if kind == ChunkKind::Data && used == 0 && said.free.get() != free
                || kind == ChunkKind::Journal && used == 0
            {
                kind = ChunkKind::Free;
            }
            let entry = &mut chunk.entry;
            if entry.kind != kind as u8 {
                entry.set_claimant(None);
            }
            entry.kind = kind as u8;
            entry.free = U16::new(free);
            free_blocks += usize::from(free);
            free_chunks += u32::from(kind == ChunkKind::Free);
            entries.push(*entry);
        }
        let used = group.used.clone();
        let mut changed = Vec::new();
        let per_block = as_usize(BITS_PER_BLOCK) / 8;
        for (i, bytes) in (0..).zip(used.chunks(per_block)) {
            let mut block = Block::zeroed();
            block.get_mut::<BitmapBlock>().bits[..bytes.len()].copy_from_slice(bytes);
            if self.put_changed(layout.bitmap_first(no).plus(i), Kind::Bitmap, owner, block).await {
                changed.push("bitmap");
            }
        }
        for (i, entries) in (0..).zip(entries.chunks(CHUNKS_PER_BLOCK)) {
            let at = layout.chunk_table_first(no).plus(i);
            let old = self.find(at, Kind::ChunkTable, owner).await;
            // What is behind the last chunk stays.
            let mut block = old.unwrap_or_else(|| unused_table(chunk_blocks as u16));
            block.get_mut::<ChunkTableBlock>().entries[..entries.len()].copy_from_slice(entries);
            if self.put_changed(at, Kind::ChunkTable, owner, block).await {
                changed.push("chunk table");
            }
        }
        let at = layout.group_header(no);
        let was_isolated = self
            .find(at, Kind::GroupHeader, owner)
            .await
            .is_some_and(|block| block.get::<GroupHeaderBlock>().isolated.get() != 0);
        let mut block = Block::zeroed();
        let header: &mut GroupHeaderBlock = block.get_mut();
        header.group = U64::new(no.0);
        header.blocks = U32::new(layout.group_len(no) as u32);
        header.free_blocks = U32::new(free_blocks as u32);
        header.free_chunks = U32::new(free_chunks);
        if self.put_changed(at, Kind::GroupHeader, owner, block).await {
            changed.push("counters");
        }
        if was_isolated {
            self.did(&name, format!("{ISOLATED}; made anew, given free"));
        }
        changed.dedup();
        if !changed.is_empty() {
            self.did(&name, format!("{} made anew of what is in use", changed.join(", ")));
        }
    }
}

fn unused_table(chunk_blocks: u16) -> Box<Block> {
    let mut block = Block::zeroed();
    for entry in &mut block.get_mut::<ChunkTableBlock>().entries {
        entry.free = U16::new(chunk_blocks);
        entry.set_claimant(None);
    }
    block
}

/// Kinds of blocks that tree chunks hold.
fn is_of_tree(kind: Kind) -> bool {
    match kind {
        Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr | Kind::Orphans => true,
        Kind::Superblock
        | Kind::GroupHeader
        | Kind::Bitmap
        | Kind::ChunkTable
        | Kind::GroupMap
        | Kind::SlotHead
        | Kind::Free
        | Kind::Inode
        | Kind::JournalHeader
        | Kind::SlotBody => false,
    }
}

/// What the blocks of a chunk say of it.
struct Contents {
    /// By most of those in use.
    kind: Option<ChunkKind>,
    /// The oldest life that a block of it is in.
    epoch: Option<u32>,
    /// Blocks with headers of metadata.
    headers: usize,
}

impl Contents {
    fn of(blocks: &[Seen]) -> Contents {
        let headers: Vec<&Header> = blocks.iter().filter_map(Seen::header).collect();
        let damaged = blocks.iter().filter(|seen| matches!(seen, Seen::Damaged(_))).count();
        let count =
            |of: fn(Kind) -> bool| headers.iter().filter(|h| h.kind().is_some_and(of)).count();
        let (inodes, tree) = (count(|kind| kind == Kind::Inode), count(is_of_tree));
        let kind = match (inodes, tree) {
            (0, 0) => None,
            (inodes, tree) if inodes >= tree => Some(ChunkKind::Inode),
            _ => Some(ChunkKind::Tree),
        };
        let of_metadata = |h: &&&Header| {
            h.kind()
                .is_some_and(|kind| kind == Kind::Inode || kind == Kind::Free || is_of_tree(kind))
        };
        let metadata: Vec<&&Header> = headers.iter().filter(of_metadata).collect();
        let epoch = metadata.iter().map(|h| (h.version() >> 32) as u32).min();
        Contents { kind, epoch, headers: metadata.len() + damaged }
    }
}
