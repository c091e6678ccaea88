//! Group commit: transactions into the open segment, segments to the ring.
//!
//! A commit is a change of memory: it encodes the transaction into the segment that is being
//! filled and swaps the new blocks in. One task writes segments, one after the other, each with
//! one forced write; everybody who needs durability waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;
use mx_base::rules::{Rule, is_kept};
use mx_base::{FsId, SlotId};
use parking_lot::Mutex;

use super::record::{encode_record, finish_transaction, transaction_len_max};
use super::ring::{Extents, Room};
use super::segment::Segment;
use super::transaction::{Staged, Transaction};
use super::{Lsn, SegmentNo};
use crate::block::{Block, BlockNo, SharedRun, as_usize};
use crate::cache::CachedBlock;
use crate::env::{Disk, Durability, Usage, WriteData};
use crate::error::{DiskError, FsError};
use crate::ondisk::header::{Header, Writer};
use crate::ondisk::journal::{RecordKind, TRANSACTION_HEAD_SIZE};
use crate::slot::SlotRecord;

/// A segment is closed when it has reached this size: 1 MiB, or less in a small journal.
const SEGMENT_BLOCKS_MAX: u64 = 256;

/// The journal of this mount.
pub(crate) struct Journal {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) fs_id: FsId,
    pub(super) writer: Writer,
    pub(super) life: u32,
    pub(super) extents: Extents,
    pub(super) log: Mutex<Log>,
    /// Dirty blocks by number. Latched after `log`, before a block's state.
    pub(super) dirty: Mutex<BTreeMap<BlockNo, Arc<CachedBlock>>>,
    durable: AtomicU64,
    /// Something became durable, or failed.
    pub(super) progress: Event,
    /// The writer has something to do.
    work: Event,
    /// Room in the ring came back, or nothing will.
    pub(super) room_back: Event,
    /// Somebody waits for room, or the ring is half full.
    pub(super) checkpoint_wanted: Event,
    /// A write in place has ended.
    pub(super) in_place_done: Event,
    segment_blocks_max: u64,
    /// Held by whoever writes the header; false when nobody may any more.
    pub(super) tail_moves: futures_util::lock::Mutex<bool>,
    pub(crate) counters: Counters,
}

/// What tests and `mxctl` count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) forces: AtomicU64,
    pub(crate) transactions: AtomicU64,
    pub(crate) blocks_in_place: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

pub(super) struct Log {
    next_lsn: Lsn,
    open: Filling,
    /// Full segments that wait to be written, before `open`.
    closed: VecDeque<Filling>,
    /// Room for transactions that are being built.
    reserved_blocks: u64,
    pub(super) room: Room,
    /// Everything up to here has to become durable soon.
    wanted: Lsn,
    pub(super) failed: Option<DiskError>,
    stopping: bool,
    /// The mount is being left: no transaction begins any more.
    is_closed: bool,
    pub(super) slot: SlotRecord,
}

#[derive(Default)]
struct Filling {
    payload: Vec<u8>,
    transactions: u32,
    last: Lsn,
}

impl Filling {
    fn blocks(&self) -> u64 {
        if self.payload.is_empty() { 0 } else { Segment::blocks(self.payload.len()) }
    }
}

/// Room in the ring for one transaction; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    journal: Arc<Journal>,
    blocks: u64,
    touched_max: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut log = self.journal.log.lock();
        log.reserved_blocks -= self.blocks;
        drop(log);
        self.journal.room_back.notify(usize::MAX);
    }
}

impl Journal {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        fs_id: FsId,
        (writer, life): (Writer, u32),
        extents: Extents,
        start: (SegmentNo, u64),
        slot: SlotRecord,
    ) -> Arc<Journal> {
        let room = Room::empty(extents.ring_blocks(), start.0, start.1);
        let segment_blocks_max = SEGMENT_BLOCKS_MAX.min(extents.ring_blocks() / 4).max(8);
        Arc::new(Journal {
            disk,
            fs_id,
            writer,
            life,
            extents,
            log: Mutex::new(Log {
                next_lsn: Lsn::NONE.next(),
                open: Filling::default(),
                closed: VecDeque::new(),
                reserved_blocks: 0,
                room,
                wanted: Lsn::NONE,
                failed: None,
                stopping: false,
                is_closed: false,
                slot,
            }),
            dirty: Mutex::default(),
            durable: AtomicU64::new(0),
            progress: Event::new(),
            work: Event::new(),
            room_back: Event::new(),
            checkpoint_wanted: Event::new(),
            in_place_done: Event::new(),
            segment_blocks_max,
            tail_moves: futures_util::lock::Mutex::new(true),
            counters: Counters::default(),
        })
    }

    pub(crate) fn slot(&self) -> SlotId {
        self.writer.slot
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer
    }

    /// Every transaction up to here survives a crash.
    pub(crate) fn durable(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// The last transaction committed.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.log.lock().next_lsn.0 - 1)
    }

    /// What this mount uses, with all transactions committed so far.
    pub(crate) fn usage(&self) -> Usage {
        self.log.lock().slot.usage()
    }

    /// Blocks of the ring, and those of them in use.
    pub(crate) fn room(&self) -> (u64, u64) {
        let log = self.log.lock();
        (log.room.ring_blocks(), log.room.used())
    }

    /// Is more than three quarters of the ring taken?
    pub(super) fn is_short_of_room(&self) -> bool {
        let log = self.log.lock();
        (log.room.used() + log.promised_blocks()) * 4 > log.room.ring_blocks() * 3
    }

    pub(crate) fn orphans(&self) -> Vec<crate::file::FileId> {
        self.log.lock().slot.orphans()
    }

    /// Can another transaction put `count` files on the list of orphans?
    pub(crate) fn has_orphan_places(&self, count: usize) -> bool {
        self.log.lock().slot.free_orphan_places() >= count
    }

    pub(crate) fn with_slot<T>(&self, f: impl FnOnce(&mut SlotRecord) -> T) -> T {
        f(&mut self.log.lock().slot)
    }

    /// Room for a transaction that changes up to `blocks` blocks, waiting for a checkpoint if the
    /// ring is full.
    ///
    /// # Errors
    /// When the journal cannot be written any more.
    pub(crate) async fn reserve(self: &Arc<Self>, blocks: usize) -> Result<Reservation, FsError> {
        // The slot's block and a block of orphans may be part of any transaction.
        let touched_max = blocks + 2;
        let room = Segment::blocks(transaction_len_max(touched_max)) + 1;
        assert!(
            room <= self.segment_blocks_max.max(self.extents.ring_blocks() / 2),
            "a transaction over {blocks} blocks is too large for the journal"
        );
        loop {
            let listener = self.room_back.listen();
            {
                let log = &mut *self.log.lock();
                if let Some(error) = &log.failed {
                    return Err(error.clone().into());
                }
                if log.is_closed {
                    return Err(FsError::CutOff);
                }
                if log.promised_blocks() + room <= log.room.free() {
                    log.reserved_blocks += room;
                    let used = log.room.used() + log.promised_blocks();
                    if used * 2 > log.room.ring_blocks() {
                        self.checkpoint_wanted.notify(1);
                    }
                    let journal = Arc::clone(self);
                    return Ok(Reservation { journal, blocks: room, touched_max });
                }
                self.checkpoint_wanted.notify(1);
            }
            listener.await;
        }
    }

    /// Nobody can begin a transaction.
    pub(crate) fn is_closed(&self) -> bool {
        self.log.lock().is_closed
    }

    /// No transaction begins from now on; completes when those that were being built have been
    /// committed or given up. What is left of work in the background is left to whoever adopts it.
    pub(crate) async fn close(&self) {
        self.log.lock().is_closed = true;
        self.room_back.notify(usize::MAX);
        loop {
            let listener = self.room_back.listen();
            if self.log.lock().reserved_blocks == 0 {
                return;
            }
            listener.await;
        }
    }

    /// Makes the transaction happen, in memory, as a whole. Durable after [`Journal::force`].
    pub(crate) fn commit(&self, mut transaction: Transaction, reservation: Reservation) -> Lsn {
        assert!(transaction.len() + 2 <= reservation.touched_max, "more blocks than reserved for");
        let freed = std::mem::take(&mut transaction.freed);
        let log = &mut *self.log.lock();
        if transaction.is_empty() {
            return Lsn(log.next_lsn.0 - 1);
        }
        log.slot.stage(&mut transaction);
        let lsn = log.next_lsn;
        log.next_lsn = lsn.next();

        let open_len = log.open.payload.len() + transaction_len_max(transaction.len());
        if Segment::blocks(open_len) > self.segment_blocks_max && log.open.transactions > 0 {
            let full = std::mem::take(&mut log.open);
            log.closed.push_back(full);
            self.work.notify(1);
        }
        let segment = log.room.next_segment().plus(log.closed.len() as u64);
        let payload = &mut log.open.payload;
        let head_at = payload.len();
        payload.resize(head_at + TRANSACTION_HEAD_SIZE, 0);
        let records = transaction.staged.len();
        let mut dirty = self.dirty.lock();
        for staged in transaction.staged {
            dirty.insert(staged.cached.number, Arc::clone(&staged.cached));
            log_and_swap(payload, staged, lsn, segment);
        }
        drop(dirty);
        finish_transaction(payload, head_at, lsn, records);
        log.open.transactions += 1;
        log.open.last = lsn;
        for freed in freed {
            freed.pend(lsn);
        }
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        lsn
    }

    /// Completes when the transaction and all before it are durable.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(crate) async fn force(&self, lsn: Lsn) -> Result<(), FsError> {
        loop {
            if self.durable() >= lsn {
                return Ok(());
            }
            let listener = self.progress.listen();
            {
                let log = &mut *self.log.lock();
                if let Some(error) = &log.failed {
                    return Err(error.clone().into());
                }
                if self.durable() >= lsn {
                    return Ok(());
                }
                log.wanted = log.wanted.max(lsn);
            }
            self.work.notify(1);
            listener.await;
        }
    }

    /// The task that writes segments; ends after [`Journal::stop`] once nothing is left.
    ///
    /// # Errors
    /// When one could not be written: the journal has failed.
    pub(crate) async fn run_writer(self: Arc<Self>) -> Result<(), DiskError> {
        loop {
            let listener = self.work.listen();
            let Some((filling, place)) = self.next_to_write() else {
                if self.is_stopping() {
                    return Ok(());
                }
                listener.await;
                continue;
            };
            if let Err(error) = self.write_segment(&filling, place).await {
                tracing::error!(slot = self.writer.slot.0, %error, "journal write failed");
                self.fail(error.clone());
                return Err(error);
            }
            self.durable.store(filling.last.0, Ordering::Release);
            self.progress.notify(usize::MAX);
        }
    }

    /// Ends the writer. Everything that is to survive was forced before.
    pub(crate) fn stop(&self) {
        self.log.lock().stopping = true;
        self.work.notify(usize::MAX);
        self.progress.notify(usize::MAX);
        self.checkpoint_wanted.notify(usize::MAX);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.log.lock().stopping
    }

    /// Completes when the mount is over, if the journal has failed; at once if it has not.
    pub(crate) async fn over_if_failed(&self) {
        loop {
            let listener = self.progress.listen();
            if !self.has_failed() || self.is_stopping() {
                return;
            }
            listener.await;
        }
    }

    /// Nothing can be made durable any more: every force and reservation fails from now on.
    pub(crate) fn fail(&self, error: DiskError) {
        let mut log = self.log.lock();
        log.failed.get_or_insert(error);
        drop(log);
        self.progress.notify(usize::MAX);
        self.room_back.notify(usize::MAX);
        self.in_place_done.notify(usize::MAX);
    }

    /// Can nothing be made durable any more?
    pub(crate) fn has_failed(&self) -> bool {
        self.log.lock().failed.is_some()
    }

    /// The oldest segment, with its place in the ring, if somebody wants it or it is full.
    fn next_to_write(&self) -> Option<(Filling, (SegmentNo, u64))> {
        let log = &mut *self.log.lock();
        if log.failed.is_some() {
            return None;
        }
        let filling = match log.closed.pop_front() {
            Some(closed) => closed,
            None if log.wanted > self.durable() && log.open.transactions > 0 => {
                std::mem::take(&mut log.open)
            }
            None => return None,
        };
        let place = log.room.take(filling.blocks());
        Some((filling, place))
    }

    async fn write_segment(
        &self,
        filling: &Filling,
        (sequence, position): (SegmentNo, u64),
    ) -> Result<(), DiskError> {
        let (fs_id, writer, life) = (self.fs_id, self.writer, self.life);
        let segment = Segment { fs_id, writer, life, sequence, position };
        let segment = SharedRun::from(segment.encode(&filling.payload, filling.transactions));
        let runs = self.extents.ring_runs(position, filling.blocks());

        self.counters.forces.fetch_add(1, Ordering::Relaxed);
        if let [(at, _)] = runs[..] {
            let is_forced = is_kept(Rule::FlushSegments);
            let durability = if is_forced { Durability::Durable } else { Durability::Volatile };
            return self.disk.write(at, WriteData::Run(segment), durability).await;
        }
        // Over the end of an extent: the pieces may land in any order, the checksum of the whole
        // says whether all did.
        let mut from = 0;
        for (at, len) in runs {
            let piece: Box<[Block]> = segment[from..from + as_usize(len)].into();
            self.disk.write(at, WriteData::Run(piece.into()), Durability::Volatile).await?;
            from += as_usize(len);
        }
        self.disk.flush().await
    }
}

impl Log {
    /// Blocks that will go into the ring for what is committed or reserved.
    fn promised_blocks(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(Filling::blocks).sum();
        closed + self.open.blocks() + self.reserved_blocks
    }
}

/// Appends the record of one block and makes the new contents the present ones.
fn log_and_swap(payload: &mut Vec<u8>, staged: Staged, lsn: Lsn, segment: SegmentNo) {
    let Staged { cached, base, data, set, leaves } = staged;
    let mut state = cached.state.lock();
    assert!(state.data.ptr_eq(&base), "two transactions changed block {}", cached.number);
    let kind = if state.image_next { RecordKind::Image } else { RecordKind::Delta };
    let versions = (Header::of(&base).version(), Header::of(&data).version());
    assert!(versions.0 < versions.1, "versions grow (I3)");
    let lock = set.resource().name();
    encode_record(payload, &lock, cached.number, kind, &base, &data, versions);
    state.image_next = false;
    state.data = data.into();
    state.lsn = lsn;
    if state.writing {
        state.chain_next.get_or_insert(segment);
    } else {
        state.chain.get_or_insert(segment);
    }
    drop(state);
    if let Some(left) = leaves {
        left.remove(cached.number);
    }
    set.adopt(&cached);
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("slot", &self.writer.slot)
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}
