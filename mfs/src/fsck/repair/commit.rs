//! Planned blocks to the device, so that a loss of power at any write leaves what a second run repairs.
//!
//! Keeps true:
//!   * what goes where nothing lies that can be read (copies of data, chunks that become metadata, blocks
//!     without a header) is written first and is durable; the device is what it was, but for what it did
//!     not need;
//!   * everything else is logged as images in the journal of a slot that nobody uses. The head of that
//!     slot, written live behind all of them, makes the repair whole with one write: before it, nothing
//!     has happened; behind it, a mount or a check replays all of it;
//!   * only then are blocks written in place, and the slot made clean when they are durable.
//!
//! The journal is one that is large enough, or a new one. Only where there is no room for that is the
//! repair written in pieces, each whole in itself, in an order that leaves whatever is found by what leads
//! to it: new blocks, then what leads to them, then what is free now.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mx_base::{Incarnation, Member, NodeId};

use super::work::Work;
use crate::block::{BLOCK_SIZE, Block, BlockNo, as_usize};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;
use crate::fsck::CheckError;
use crate::fsck::media::{Seen, read_one};
use crate::fsck::overlay::Overlay;
use crate::fsck::repair::RepairError;
use crate::journal::Lsn;
use crate::journal::SegmentNo;
use crate::journal::in_place::JournalHeader;
use crate::journal::record::{encode_record, finish_transaction, transaction_len_max};
use crate::journal::ring::Extents;
use crate::journal::scan::JournalOf;
use crate::journal::segment::Segment;
use crate::locks::covering;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{self, Header, Kind};
use crate::ondisk::journal::{RecordKind, SEGMENT_HEAD_SIZE, TRANSACTION_HEAD_SIZE};
use crate::ondisk::slot::SlotState;
use crate::slot::head::SlotHead;

/// Bytes of transactions in one segment, at most: 1 MiB with its head.
const PAYLOAD_MAX: usize = 255 * BLOCK_SIZE;

/// Writes on their way at once.
const AT_ONCE: usize = 256;

/// Planned blocks, by how they are written.
#[derive(Default)]
struct Planned {
    direct: BTreeMap<BlockNo, Box<Block>>,
    in_place: BTreeMap<BlockNo, Box<Block>>,
}

impl Work<'_> {
    async fn planned(&self) -> Planned {
        let mut planned = Planned::default();
        for (at, block) in self.disk.changed() {
            let old = read_one(&**self.disk.below(), at).await;
            if old.as_ref().is_some_and(|old| old.0 == block.0) {
                continue;
            }
            let version = Header::of(&block).version();
            let is_newer = match Seen::of(old.clone(), self.sb.fs_id, at) {
                Seen::Whole(old) => Header::of(&old).version() < version,
                // Torn, for a replay: by a write of the version that its header says.
                Seen::Mended(..) | Seen::Damaged(_) => old
                    .as_deref()
                    .and_then(|old| header::of_damaged(old, self.sb.fs_id, at))
                    .is_some_and(|old| old.version() < version),
                Seen::Foreign | Seen::Garbage(_) | Seen::Nothing | Seen::Unreadable => false,
            };
            let has_lock = covering(Header::of(&block), &self.sb.layout).is_ok();
            let is_metadata = self.chunk_of(at).and_then(|chunk| chunk.kind);
            let is_metadata = is_metadata.is_some_and(ChunkKind::is_metadata);
            if is_newer && has_lock && (is_metadata || !self.fresh.contains(&at)) {
                planned.in_place.insert(at, block);
            } else {
                planned.direct.insert(at, block);
            }
        }
        planned
    }

    /// Sees to it that there is a journal for what is planned. True: it is a new one, and groups have
    /// to say so.
    pub(super) async fn choose_journal(&mut self) -> Result<bool, CheckError> {
        self.journal = None;
        let planned = self.planned().await;
        if planned.in_place.is_empty() {
            return Ok(false);
        }
        // A new journal changes some more.
        let need: usize = planned.in_place.values().map(|block| record_len(block)).sum::<usize>()
            + 8 * transaction_len_max(1);
        let need = (need.div_ceil(PAYLOAD_MAX - transaction_len_max(1)) + need.div_ceil(BLOCK_SIZE))
            as u64
            + crate::ondisk::journal::HEADER_BLOCKS;
        let disk = Arc::clone(&self.disk);
        let (fs_id, layout) = (self.sb.fs_id, self.sb.layout);
        let mut best: Option<SlotHead> = None;
        let mut unused: Option<SlotHead> = None;
        for (slot, head) in SlotHead::read_all(&*disk, fs_id, &layout).await? {
            let Ok(head) = head else { continue };
            let of = JournalOf { fs_id, slot, extents: head.extents.clone() };
            match head.state {
                SlotState::Free if unused.is_none() => unused = Some(head),
                SlotState::Clean if head.extents.blocks() > 2 && of.start(&*disk).await.is_ok() => {
                    let is_larger = best
                        .as_ref()
                        .is_none_or(|best| head.extents.blocks() > best.extents.blocks());
                    if is_larger {
                        best = Some(head);
                    }
                }
                SlotState::Free | SlotState::Clean | SlotState::Live => {}
            }
        }
        let is_enough = best.as_ref().is_some_and(|best| best.extents.blocks() >= need);
        if !is_enough && let Some(mut head) = unused {
            let wanted = need.max(layout.journal_blocks.into());
            let run = self.take_run(wanted).or_else(|| self.take_run(need));
            if let Some(run) = run {
                head.extents = Extents::new(vec![run]);
                head.member =
                    NodeId::new(1).map(|node| Member { node, incarnation: Incarnation(0) });
                self.journal = Some(head);
                return Ok(true);
            }
        }
        self.journal = best;
        Ok(false)
    }

    /// The plan as a check is to see it: with the journal that it is written through.
    pub(super) async fn as_planned(&self) -> Result<Arc<dyn Disk>, DiskError> {
        let planned = Overlay::new(Arc::clone(&self.disk) as Arc<dyn Disk>);
        if let Some(mut head) = self.journal.clone() {
            let (fs_id, writer, extents) = (self.sb.fs_id, head.writer(), head.extents.clone());
            let (sequence, position) = (SegmentNo(1), 0);
            let header = JournalHeader { fs_id, writer, extents: &extents, sequence, position };
            header.write(&planned, None).await?;
            head.state = SlotState::Clean;
            head.write(&planned, fs_id, &self.sb.layout, writer).await?;
        }
        Ok(Arc::new(planned))
    }

    /// Writes everything that is planned.
    pub(super) async fn commit(&mut self) -> Result<(), RepairError> {
        let disk = Arc::clone(self.disk.below());
        // What was taken for lost must not come back.
        for at in &self.unreadable {
            if read_one(&*disk, *at).await.is_some() {
                return Err(RepairError::Unsteady(*at));
            }
        }
        let Planned { direct, in_place } = self.planned().await;
        let all = (direct.len() + in_place.len()) as u64;
        self.step("writing", 0, all);
        self.write(&disk, direct).await?;
        if in_place.is_empty() {
            return Ok(());
        }
        let Some(mut head) = self.journal.take() else {
            self.did("journal", "there was no room for one: a loss of power would have hurt");
            return Ok(self.write(&disk, in_place).await?);
        };
        let mut left: Vec<(BlockNo, Box<Block>)> = in_place.into_iter().collect();
        left.sort_by_key(|(at, block)| match Header::of(block).kind() {
            _ if self.fresh.contains(at) => 0,
            Some(
                Kind::Inode | Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr,
            ) => 1,
            Some(Kind::Free) => 3,
            _ => 2,
        });
        let mut left = VecDeque::from(left);
        while !left.is_empty() {
            let piece = self.log(&disk, &mut head, &mut left).await?;
            self.write(&disk, piece).await?;
            head.state = SlotState::Clean;
            let writer = head.writer();
            head.write(&*disk, self.sb.fs_id, &self.sb.layout, writer).await?;
            self.step("writing", all - left.len() as u64, all);
        }
        Ok(())
    }

    /// Logs as many blocks as the journal holds, and makes its slot live; returns them.
    async fn log(
        &self,
        disk: &Arc<dyn Disk>,
        head: &mut SlotHead,
        left: &mut VecDeque<(BlockNo, Box<Block>)>,
    ) -> Result<BTreeMap<BlockNo, Box<Block>>, DiskError> {
        let (fs_id, extents, writer) = (self.sb.fs_id, head.extents.clone(), head.writer());
        let of = JournalOf { fs_id, slot: head.slot, extents: extents.clone() };
        let (mut sequence, mut position) = match of.start(&**disk).await {
            Ok(start) => (start.sequence, start.position),
            Err(_) => (SegmentNo(1), 0),
        };
        let header = JournalHeader { fs_id, writer, extents: &extents, sequence, position };
        let life = header.write(&**disk, None).await?;
        let mut room = extents.ring_blocks();
        let mut lsn = Lsn::NONE;
        let mut piece = BTreeMap::new();
        loop {
            let max =
                PAYLOAD_MAX.min(as_usize(room) * BLOCK_SIZE).saturating_sub(SEGMENT_HEAD_SIZE);
            let mut payload = vec![0; TRANSACTION_HEAD_SIZE];
            let mut records = 0;
            while let Some((_, block)) = left.front()
                && payload.len() + transaction_len_max(1).min(record_len(block)) <= max
            {
                let (at, block) = left.pop_front().expect("looked at");
                let lock = covering(Header::of(&block), &self.sb.layout).expect("looked at");
                let version = Header::of(&block).version();
                let (zeros, versions) = (Block::zeroed(), (version - 1, version));
                let kind = RecordKind::Image;
                encode_record(&mut payload, &lock.name(), at, kind, &zeros, &block, versions);
                piece.insert(at, block);
                records += 1;
            }
            if records == 0 {
                break;
            }
            lsn = lsn.next();
            finish_transaction(&mut payload, 0, lsn, records);
            let segment = Segment { fs_id, writer, life, sequence, position }.encode(&payload, 1);
            let blocks = segment.len() as u64;
            let mut from = 0;
            for (at, len) in extents.ring_runs(position, blocks) {
                let run: Box<[Block]> = segment[from..from + as_usize(len)].into();
                disk.write(at, WriteData::Run(run.into()), Durability::Volatile).await?;
                from += as_usize(len);
            }
            room -= blocks;
            position += blocks;
            sequence = sequence.plus(1);
        }
        assert!(!piece.is_empty(), "a journal holds at least one block");
        disk.flush().await?;
        head.state = SlotState::Live;
        head.write(&**disk, fs_id, &self.sb.layout, writer).await?;
        Ok(piece)
    }

    /// Writes blocks durably; one that cannot be written is told and left, unless something else is to
    /// lead to it.
    async fn write(
        &mut self,
        disk: &Arc<dyn Disk>,
        blocks: BTreeMap<BlockNo, Box<Block>>,
    ) -> Result<(), CheckError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut blocks = blocks.into_iter();
        loop {
            let batch: Vec<_> = blocks.by_ref().take(AT_ONCE).collect();
            if batch.is_empty() {
                break;
            }
            let writes = batch.into_iter().map(|(at, block)| {
                let data = WriteData::Blocks(vec![block.into()]);
                let write = disk.write(at, data, Durability::Volatile);
                async move { (at, write.await) }
            });
            for (at, written) in futures_util::future::join_all(writes).await {
                match written {
                    Ok(()) => {}
                    Err(error @ DiskError::Failed { .. }) if !self.fresh.contains(&at) => {
                        self.report.left(format!("block {at}"), error);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        disk.flush().await?;
        Ok(())
    }
}

/// About what an image takes in the log: no less than it does.
fn record_len(block: &Block) -> usize {
    // Runs of zeros of more than a head of a run are left out.
    let mut len = transaction_len_max(1) - BLOCK_SIZE;
    let mut at = 0;
    while at < BLOCK_SIZE {
        let piece = &block.0[at..at + 64];
        if piece.iter().any(|byte| *byte != 0) {
            len += 64 + 4;
        }
        at += 64;
    }
    len
}
