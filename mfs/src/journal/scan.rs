//! Reading a journal after its owner's death: one sequential pass from the tail.
//!
//! The scan ends at the first block that does not begin the next segment. Segments are written one
//! after the other, so nothing valid lies behind the last whole one; if something does, the
//! journal is damaged and not merely cut off.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use lcl::ResourceName;
use mx_base::rules::{Rule, is_kept};
use mx_base::{FsId, Incarnation, SlotId};
use zerocopy::{FromBytes, IntoBytes};

use super::record::{DecodeError, LoggedTransaction, decode_payload};
use super::ring::Extents;
use super::{Lsn, SegmentNo};
use crate::block::{BLOCK_SIZE, Block, BlockNo, as_usize};
use crate::env::Disk;
use crate::error::{Corruption, CorruptionKind, DiskError};
use crate::ondisk::header::{self, Kind, Owner};
use crate::ondisk::journal::{
    JournalHeaderBlock, SEGMENT_CRC_AT, SEGMENT_HEAD_SIZE, SEGMENT_MAGIC, SegmentHead,
};

/// Blocks in one read.
const READ_BLOCKS: u64 = 256;

/// Reads under way at once.
const READS_AT_ONCE: u64 = 8;

/// Why a journal cannot be replayed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the journal of {slot}: both headers are damaged: {second}")]
    Headers { slot: SlotId, second: Corruption },
    #[error("the journal of {slot}: segment {segment} at block {at} is damaged, later ones exist")]
    Hole { slot: SlotId, segment: u64, at: BlockNo },
    #[error("the journal of {slot}: segment {segment} is whole but makes no sense: {source}")]
    Decode { slot: SlotId, segment: u64, source: DecodeError },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What a journal holds, and where it could go on.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    pub transactions: Vec<LoggedTransaction>,
    /// The segment after the last one, and its position.
    pub next_segment: SegmentNo,
    pub next_position: u64,
    pub segments: u64,
}

impl Scan {
    /// Locks whose blocks have records here.
    pub fn locks(&self) -> BTreeSet<ResourceName> {
        self.transactions.iter().flat_map(|t| &t.records).map(|r| r.lock).collect()
    }

    /// The newest version of every block that has records here.
    pub fn newest(&self) -> BTreeMap<BlockNo, u64> {
        let mut newest = BTreeMap::new();
        for record in self.transactions.iter().flat_map(|t| &t.records) {
            let version = newest.entry(record.block).or_insert(0);
            *version = record.new_version.max(*version);
        }
        newest
    }
}

/// A journal that is damaged: what comes before that has been read.
#[derive(Debug)]
pub(crate) struct Damage {
    pub(crate) error: ScanError,
    /// Locks with records in whole segments behind it, that nobody may replay without it.
    pub(crate) behind: BTreeSet<ResourceName>,
}

/// Which journal to read.
#[derive(Clone, Debug)]
pub(crate) struct JournalOf {
    pub(crate) fs_id: FsId,
    pub(crate) slot: SlotId,
    pub(crate) extents: Extents,
}

/// Where a journal begins, by its newest whole header.
pub(crate) struct Start {
    pub(crate) sequence: SegmentNo,
    pub(crate) position: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) life: u32,
}

impl JournalOf {
    pub(crate) async fn start(&self, disk: &dyn Disk) -> Result<Start, ScanError> {
        let mut best: Option<(u64, Start)> = None;
        let mut bad = None;
        for number in self.extents.headers() {
            let block = disk.read(number, 1).await?;
            match self.check_header(&block[0], number) {
                Err(corruption) => bad = Some(corruption),
                Ok((version, start)) => {
                    if best.as_ref().is_none_or(|(newest, _)| version > *newest) {
                        best = Some((version, start));
                    }
                }
            }
        }
        match (best, bad) {
            (Some((_, start)), _) => Ok(start),
            (None, Some(second)) => Err(ScanError::Headers { slot: self.slot, second }),
            (None, None) => unreachable!("two headers were read"),
        }
    }

    fn check_header(&self, block: &Block, number: BlockNo) -> Result<(u64, Start), Corruption> {
        let header = header::check(block, self.fs_id, number)?;
        let wrong =
            |kind, expected, found| Err(Corruption { block: number, kind, expected, found });
        if header.kind() != Some(Kind::JournalHeader) {
            let expected = Kind::JournalHeader as u64;
            return wrong(CorruptionKind::Kind, expected, header.kind.into());
        }
        if header.owner() != Owner::plain(self.slot.0.into()) {
            return wrong(CorruptionKind::Owner, self.slot.0.into(), header.owner().id);
        }
        let journal: &JournalHeaderBlock = block.get();
        // No journal is written for so long.
        let furthest = journal.tail_sequence.get().max(journal.tail_position.get());
        if furthest > u64::MAX / 2 {
            return wrong(CorruptionKind::Contents("tail of a journal"), 0, furthest);
        }
        let start = Start {
            sequence: SegmentNo(journal.tail_sequence.get()),
            position: journal.tail_position.get(),
            incarnation: Incarnation(journal.incarnation.get()),
            life: journal.life.get(),
        };
        Ok((header.version(), start))
    }

    /// All transactions from the tail on.
    pub(crate) async fn scan(&self, disk: &dyn Disk) -> Result<Scan, ScanError> {
        match self.scan_prefix(disk).await? {
            (scan, None) => Ok(scan),
            (_, Some(damage)) => Err(damage.error),
        }
    }

    /// As [`JournalOf::scan`]; of a journal that is damaged what comes before that, and what is the
    /// matter.
    pub(crate) async fn scan_prefix(
        &self,
        disk: &dyn Disk,
    ) -> Result<(Scan, Option<Damage>), ScanError> {
        let start = self.start(disk).await?;
        let ring = self.extents.ring_blocks();
        let mut reader = Reader { of: self, disk, start: start.position, blocks: Vec::new() };
        let mut scan =
            Scan { next_segment: start.sequence, next_position: start.position, ..Scan::default() };
        let mut last = Lsn::NONE;
        let mut nonsense = None;
        while scan.next_position - start.position < ring {
            let left = ring - (scan.next_position - start.position);
            let (sequence, position) = (scan.next_segment, scan.next_position);
            let Some(found) = reader.segment(sequence, position, left, &start).await? else {
                break;
            };
            let decoded = decode_payload(&found.payload, found.transactions)
                .and_then(|transactions| in_order(transactions, &mut last));
            match decoded {
                Ok(transactions) => scan.transactions.extend(transactions),
                Err(source) => {
                    nonsense = Some(source);
                    break;
                }
            }
            scan.next_segment = sequence.plus(1);
            scan.next_position += found.blocks;
            scan.segments += 1;
        }
        let (slot, segment) = (self.slot, scan.next_segment.0);
        let later = reader.later(&scan, start.position + ring, &start).await?;
        let error = match (nonsense, &later) {
            (Some(source), _) => ScanError::Decode { slot, segment, source },
            (None, Some(_)) => {
                let at = self.extents.ring_runs(scan.next_position, 1)[0].0;
                ScanError::Hole { slot, segment, at }
            }
            (None, None) => return Ok((scan, None)),
        };
        Ok((scan, Some(Damage { error, behind: later.unwrap_or_default() })))
    }
}

/// Transactions of a segment, the numbers of which go on from `last`.
fn in_order(
    transactions: Vec<LoggedTransaction>,
    last: &mut Lsn,
) -> Result<Vec<LoggedTransaction>, DecodeError> {
    for transaction in &transactions {
        if transaction.lsn <= *last {
            return Err(DecodeError::Versions { old: last.0, new: transaction.lsn.0 });
        }
        *last = transaction.lsn;
    }
    Ok(transactions)
}

struct Found {
    payload: Vec<u8>,
    transactions: u32,
    blocks: u64,
}

/// The ring from the tail on, read in large pieces and kept for the second look.
struct Reader<'a> {
    of: &'a JournalOf,
    disk: &'a dyn Disk,
    start: u64,
    blocks: Vec<Block>,
}

impl Reader<'_> {
    /// Ring blocks up to `end` (a position) are in memory afterwards.
    async fn read_to(&mut self, end: u64) -> Result<(), DiskError> {
        let ring = self.of.extents.ring_blocks();
        while self.start + (self.blocks.len() as u64) < end {
            let at = self.start + self.blocks.len() as u64;
            // All of the ring is looked at in the end.
            let len = (READ_BLOCKS * READS_AT_ONCE).min(ring - self.blocks.len() as u64);
            let pieces = self.of.extents.ring_runs(at, len).into_iter().flat_map(|(first, len)| {
                let starts = (0..len).step_by(as_usize(READ_BLOCKS));
                starts.map(move |at| (first.plus(at), READ_BLOCKS.min(len - at)))
            });
            let reads = pieces.map(|(first, len)| self.disk.read(first, as_usize(len)));
            for piece in join_all(reads.collect::<Vec<_>>()).await {
                self.blocks.extend(piece?.into_vec());
            }
        }
        Ok(())
    }

    fn at(&self, position: u64) -> &[Block] {
        &self.blocks[as_usize(position - self.start)..]
    }

    /// The segment with this number at this position, if it is there and whole.
    async fn segment(
        &mut self,
        sequence: SegmentNo,
        position: u64,
        room: u64,
        start: &Start,
    ) -> Result<Option<Found>, DiskError> {
        self.read_to(position + 1).await?;
        let Some(head) = self.head(position, start) else { return Ok(None) };
        let (blocks, payload_len) = (u64::from(head.blocks.get()), head.payload_len.get() as usize);
        let transactions = head.transactions.get();
        if head.sequence.get() != sequence.0 || blocks == 0 || blocks > room {
            return Ok(None);
        }
        self.read_to(position + blocks).await?;
        let blocks_here = &self.at(position)[..as_usize(blocks)];
        let bytes = blocks_here.as_bytes();
        let stored = head_of(&blocks_here[0]).crc.get();
        let is_whole = header::crc32c_with_hole(bytes, SEGMENT_CRC_AT) == stored;
        if !is_whole && is_kept(Rule::CheckSegments)
            || SEGMENT_HEAD_SIZE + payload_len > bytes.len()
        {
            return Ok(None);
        }
        let payload = bytes[SEGMENT_HEAD_SIZE..SEGMENT_HEAD_SIZE + payload_len].to_vec();
        Ok(Some(Found { payload, transactions, blocks }))
    }

    /// A head that belongs to this journal and this life of it.
    fn head(&self, position: u64, start: &Start) -> Option<SegmentHead> {
        let head = head_of(&self.at(position)[0]);
        let matches = head.magic.get() == SEGMENT_MAGIC
            && head.fs_id == self.of.fs_id.0
            && head.slot.get() == self.of.slot.0
            && (head.incarnation.get() == start.incarnation.0 && head.life.get() == start.life
                || !is_kept(Rule::CheckLifeOfSegments))
            && head.position.get() == position;
        matches.then_some(*head)
    }

    /// Locks with records in whole segments behind the end of the scan. If there are such segments, it
    /// was not the end.
    async fn later(
        &mut self,
        scan: &Scan,
        end: u64,
        start: &Start,
    ) -> Result<Option<BTreeSet<ResourceName>>, DiskError> {
        self.read_to(end).await?;
        let mut locks = None;
        for position in scan.next_position..end {
            let Some(head) = self.head(position, start) else { continue };
            let sequence = SegmentNo(head.sequence.get());
            // A torn last segment may show its own head; only a later one tells of a hole.
            if sequence <= scan.next_segment {
                continue;
            }
            if let Some(found) = self.segment(sequence, position, end - position, start).await? {
                let transactions = decode_payload(&found.payload, found.transactions);
                let records = transactions.into_iter().flatten().flat_map(|t| t.records);
                let locks: &mut BTreeSet<_> = locks.get_or_insert_default();
                locks.extend(records.map(|record| record.lock));
            }
        }
        Ok(locks)
    }
}

fn head_of(block: &Block) -> &SegmentHead {
    match SegmentHead::ref_from_prefix(&block.0[..BLOCK_SIZE]) {
        Ok((head, _)) => head,
        Err(_) => unreachable!("a block is larger than a segment's head"),
    }
}
