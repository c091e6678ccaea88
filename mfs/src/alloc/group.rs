//! One allocation group as this mount knows it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use lcl::pin::{Entry, Pin};
use mx_base::Instant;
use parking_lot::Mutex;

use super::claim::{self, Use};
use crate::block::{BlockNo, as_usize};
use crate::cache::{BlockSet, CachedBlock, Expect, Step};
use crate::env::MountGroup;
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::journal::{Lsn, Transaction};
use crate::layout::{GroupNo, Layout};
use crate::locks::Resource;
use crate::ondisk::alloc_group::{
    BITS_PER_BLOCK, CHUNKS_PER_BLOCK, ChunkEntry, ChunkTableBlock, GroupHeaderBlock,
};
use crate::ondisk::header::{Kind, Owner};

/// A group; what it caches is valid while its lock is held, the rest for the life of the mount.
pub(crate) struct Group {
    pub(crate) no: GroupNo,
    pub(crate) entry: Arc<Entry>,
    pub(crate) set: Arc<BlockSet>,
    pub(crate) geometry: Geometry,
    /// Whose claims count.
    mounts: Arc<dyn MountGroup>,
    memory: Mutex<Memory>,
}

/// Addresses inside a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) first: BlockNo,
    pub(crate) blocks: u64,
    pub(crate) chunk_blocks: u64,
    pub(crate) chunks: u64,
    header: BlockNo,
    bitmap: BlockNo,
    table: BlockNo,
}

/// What of a group is known without its lock, or remembered between its uses.
#[derive(Debug, Default)]
struct Memory {
    /// Freed runs that rest until their transaction is durable: start to (length, transaction).
    resting: BTreeMap<u64, (u64, Lsn)>,
    /// What this mount has claimed. Only this mount changes its claims.
    data: Claims,
    nodes: Claims,
    /// Where the last search for each purpose ended.
    cursors: BTreeMap<u8, u64>,
    /// Free places that nothing is made in until then: somebody has their lock.
    passed_over: BTreeMap<BlockNo, Instant>,
}

/// Chunks of a group that this mount has claimed for one use.
#[derive(Debug, Default)]
struct Claims {
    chunks: BTreeSet<u64>,
    /// Free blocks in those chunks, as counted into [`super::Space`].
    free: i64,
}

impl Memory {
    fn claims(&mut self, of: Use) -> &mut Claims {
        match of {
            Use::Data => &mut self.data,
            Use::Nodes => &mut self.nodes,
        }
    }
}

/// What a group has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counters {
    pub(crate) free_blocks: u64,
    pub(crate) free_chunks: u64,
}

/// A group whose lock is held exclusively and whose own blocks are cached.
#[derive(Debug)]
pub(crate) struct PinnedGroup {
    pub(crate) group: Arc<Group>,
    pub(crate) pin: Pin,
}

impl Geometry {
    pub(crate) fn of(layout: &Layout, no: GroupNo) -> Geometry {
        Geometry {
            first: layout.group_first(no),
            blocks: layout.group_len(no),
            chunk_blocks: u64::from(layout.chunk_blocks),
            chunks: layout.chunk_count(no),
            header: layout.group_header(no),
            bitmap: layout.bitmap_first(no),
            table: layout.chunk_table_first(no),
        }
    }

    pub(crate) fn chunk_first(&self, chunk: u64) -> BlockNo {
        self.first.plus(chunk * self.chunk_blocks)
    }

    pub(crate) fn chunk_of(&self, block: BlockNo) -> u64 {
        self.index(block) / self.chunk_blocks
    }

    /// Position of a block in its group.
    pub(crate) fn index(&self, block: BlockNo) -> u64 {
        let index = block.0 - self.first.0;
        assert!(index < self.blocks, "block {block} lies in the group");
        index
    }

    /// The block of the bitmap and the bit in it.
    pub(crate) fn bit(&self, index: u64) -> (BlockNo, usize) {
        (self.bitmap.plus(index / BITS_PER_BLOCK), (index % BITS_PER_BLOCK) as usize)
    }

    /// The block of the chunk table and the entry in it.
    pub(crate) fn entry(&self, chunk: u64) -> (BlockNo, usize) {
        let per_block = CHUNKS_PER_BLOCK as u64;
        (self.table.plus(chunk / per_block), as_usize(chunk % per_block))
    }

    pub(crate) fn header(&self) -> BlockNo {
        self.header
    }

    /// The group's own blocks that every allocation may need: header, bitmap, table.
    fn own(&self, layout: &Layout, no: GroupNo) -> (BlockNo, usize) {
        let blocks = 1 + layout.bitmap_blocks(no) + layout.chunk_table_blocks(no);
        (self.header, as_usize(blocks))
    }
}

impl Group {
    pub(crate) fn new(
        no: GroupNo,
        layout: &Layout,
        entry: Arc<Entry>,
        mounts: Arc<dyn MountGroup>,
    ) -> Arc<Group> {
        Arc::new(Group {
            no,
            entry,
            set: BlockSet::new(Resource::Group(no)),
            geometry: Geometry::of(layout, no),
            mounts,
            memory: Mutex::default(),
        })
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::plain(self.no.0)
    }

    /// A step that needs all of the group's own blocks.
    pub(crate) fn loaded(&self, layout: &Layout) -> Step<()> {
        let (first, count) = self.geometry.own(layout, self.no);
        for i in 0..count as u64 {
            // All are read at once when one is missing.
            self.set.run(first.plus(i), first, count)?;
        }
        let header = self.header_block()?.data();
        if header.get::<GroupHeaderBlock>().isolated.get() != 0 {
            return Err(FsError::Damaged.into());
        }
        Ok(())
    }

    fn own_block(&self, number: BlockNo, kind: Kind) -> Step<Arc<CachedBlock>> {
        self.set.expect(number, Expect { kind, owner: self.owner() })
    }

    pub(crate) fn header_block(&self) -> Step<Arc<CachedBlock>> {
        self.own_block(self.geometry.header(), Kind::GroupHeader)
    }

    pub(crate) fn bitmap_block(&self, number: BlockNo) -> Step<Arc<CachedBlock>> {
        self.own_block(number, Kind::Bitmap)
    }

    pub(crate) fn table_block(&self, number: BlockNo) -> Step<Arc<CachedBlock>> {
        self.own_block(number, Kind::ChunkTable)
    }

    /// A chunk's entry as the transaction sees it.
    pub(crate) fn chunk(&self, tx: &Transaction, chunk: u64) -> Step<ChunkEntry> {
        let (number, at) = self.geometry.entry(chunk);
        let table = self.table_block(number)?;
        Ok(tx.see(&table).get::<ChunkTableBlock>().entries[at])
    }

    pub(crate) fn set_chunk(
        &self,
        tx: &mut Transaction,
        pin: &Pin,
        chunk: u64,
        entry: ChunkEntry,
    ) -> Step<()> {
        let (number, at) = self.geometry.entry(chunk);
        let table = self.table_block(number)?;
        tx.change(pin, &self.set, &table).get_mut::<ChunkTableBlock>().entries[at] = entry;
        Ok(())
    }

    pub(crate) fn counters(&self, tx: &Transaction) -> Step<Counters> {
        let header = self.header_block()?;
        let seen = tx.see(&header);
        let header: &GroupHeaderBlock = seen.get();
        Ok(Counters {
            free_blocks: header.free_blocks.get().into(),
            free_chunks: header.free_chunks.get().into(),
        })
    }

    pub(crate) fn add_free(
        &self,
        tx: &mut Transaction,
        pin: &Pin,
        blocks: i64,
        chunks: i64,
    ) -> Step<()> {
        let block = self.header_block()?;
        let header: &mut GroupHeaderBlock = tx.change(pin, &self.set, &block).get_mut();
        let add = |count: u32, change: i64| {
            u32::try_from(i64::from(count) + change).map_err(|_| {
                self.contradiction(
                    count.into(),
                    "its counts of what is free are not those of its tables",
                )
            })
        };
        header.free_blocks.set(add(header.free_blocks.get(), blocks)?);
        header.free_chunks.set(add(header.free_chunks.get(), chunks)?);
        Ok(())
    }

    /// What the group says here and there does not go together.
    pub(crate) fn contradiction(&self, found: u64, what: &'static str) -> FsError {
        let kind = CorruptionKind::Contents(what);
        FsError::Corrupt(Corruption { block: self.geometry.header(), kind, expected: 0, found })
    }

    // --- what is remembered ---

    /// These blocks were freed by `lsn`.
    pub(super) fn rest(&self, first: BlockNo, count: u64, lsn: Lsn) {
        self.memory.lock().resting.insert(self.geometry.index(first), (count, lsn));
    }

    /// Forgets rests that are over.
    pub(crate) fn wake(&self, durable: Lsn) {
        self.memory.lock().resting.retain(|_, (_, lsn)| *lsn > durable);
    }

    /// Of `len` blocks from `index` on, how many from the front do not rest?
    pub(crate) fn rested_run(&self, index: u64, len: u64) -> u64 {
        let memory = self.memory.lock();
        if let Some((start, (count, _))) = memory.resting.range(..=index).next_back()
            && start + count > index
        {
            return 0;
        }
        let next = memory.resting.range(index..index + len).next();
        next.map_or(len, |(start, _)| start - index)
    }

    /// The end of the rest that covers `index`, if one does.
    pub(super) fn rest_end(&self, index: u64) -> Option<u64> {
        let memory = self.memory.lock();
        let (start, (count, _)) = memory.resting.range(..=index).next_back()?;
        (start + count > index).then_some(start + count)
    }

    pub(super) fn cursor(&self, purpose: u8) -> u64 {
        self.memory.lock().cursors.get(&purpose).copied().unwrap_or(0)
    }

    pub(super) fn set_cursor(&self, purpose: u8, at: u64) {
        self.memory.lock().cursors.insert(purpose, at);
    }

    /// Nothing is made in the free block before `until`.
    pub(crate) fn pass_over(&self, block: BlockNo, until: Instant) {
        self.memory.lock().passed_over.insert(block, until);
    }

    /// Free blocks in which nothing is to be made now.
    pub(crate) fn passed_over(&self, now: Instant) -> BTreeSet<BlockNo> {
        let passed_over = &mut self.memory.lock().passed_over;
        passed_over.retain(|_, until| *until > now);
        passed_over.keys().copied().collect()
    }

    /// Has a mount that lives claimed the chunk, this one included?
    pub(super) fn is_taken(&self, entry: &ChunkEntry) -> bool {
        claim::is_taken(entry, &*self.mounts)
    }

    /// Is the chunk free as a whole, for whatever use?
    pub(crate) fn is_whole(&self, entry: &ChunkEntry) -> bool {
        claim::is_whole(entry, self.geometry.chunk_blocks, &*self.mounts)
    }

    /// This mount has won a chunk with so many free blocks.
    pub(super) fn claim(&self, of: Use, chunk: u64, free: i64) {
        let memory = &mut *self.memory.lock();
        memory.claims(of).chunks.insert(chunk);
        memory.claims(of).free += free;
    }

    /// This mount has given one claim up.
    pub(super) fn unclaim(&self, of: Use, chunk: u64, free: i64) {
        let memory = &mut *self.memory.lock();
        memory.claims(of).chunks.remove(&chunk);
        memory.claims(of).free -= free;
    }

    pub(crate) fn claims_changed(&self, of: Use, blocks: i64) {
        self.memory.lock().claims(of).free += blocks;
    }

    /// Free blocks in this mount's claims here, as they were counted last.
    pub(crate) fn claimed_free(&self, of: Use) -> u64 {
        u64::try_from(self.memory.lock().claims(of).free).unwrap_or(0)
    }

    /// Counts the free blocks in the claims anew: other nodes may have freed some. Returns the
    /// difference.
    pub(super) fn recount_claims(&self, of: Use) -> Step<i64> {
        let claimed = self.claimed(of);
        let tx = Transaction::new(mx_base::FsId::default());
        let mut free = 0;
        for chunk in claimed {
            free += i64::from(self.chunk(&tx, chunk)?.free.get());
        }
        let memory = &mut *self.memory.lock();
        Ok(free - std::mem::replace(&mut memory.claims(of).free, free))
    }

    pub(super) fn is_claimed(&self, of: Use, chunk: u64) -> bool {
        self.memory.lock().claims(of).chunks.contains(&chunk)
    }

    pub(crate) fn claimed(&self, of: Use) -> Vec<u64> {
        self.memory.lock().claims(of).chunks.iter().copied().collect()
    }

    /// Chunks claimed for data from `from` on, then those before it.
    pub(super) fn claimed_from(&self, from: u64) -> Vec<u64> {
        let memory = self.memory.lock();
        let later = memory.data.chunks.range(from..).copied();
        let earlier = memory.data.chunks.range(..from).copied();
        later.chain(earlier).collect()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.no.0)
    }
}
