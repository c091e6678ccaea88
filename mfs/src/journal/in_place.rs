//! Blocks to their places, and the tail of the journal behind them.
//!
//! Keeps true (I2): a block is written in place only with contents whose records are durable. The
//! tail moves only over records whose blocks are durable in place: a recoverer starts at the tail
//! and would otherwise miss the only copy. Takes no cluster lock and waits for none: whoever waits
//! for room may hold pins.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::select;
use mx_base::rules::{Rule, is_kept};
use mx_base::{Duration, FsId};
use zerocopy::little_endian::{U16, U32, U64};

use super::commit::Journal;
use super::ring::Extents;
use super::{Lsn, SegmentNo};
use crate::block::{Block, SharedBlock};
use crate::cache::CachedBlock;
use crate::env::{Disk, Durability, Runtime, WriteData};
use crate::error::{DiskError, FsError};
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::ondisk::journal::JournalHeaderBlock;
use crate::runs::Runs;

struct Writing {
    cached: Arc<CachedBlock>,
    data: SharedBlock,
}

impl Journal {
    /// Returns when none of `blocks` is dirty any more: all their changes are durable in place.
    /// For a surrender: nobody changes them meanwhile.
    ///
    /// # Errors
    /// When the journal or a block could not be written; some blocks are dirty still.
    pub(crate) async fn settle_in_place(&self, blocks: &[Arc<CachedBlock>]) -> Result<(), FsError> {
        while self.write_in_place(blocks).await? {}
        Ok(())
    }

    /// One round: forces the log as far as the blocks need it, writes each that nobody else is
    /// writing, and flushes. Returns whether some are dirty still.
    async fn write_in_place(&self, blocks: &[Arc<CachedBlock>]) -> Result<bool, FsError> {
        let in_place_done = self.in_place_done.listen();
        let newest = blocks.iter().filter(|b| b.is_dirty()).map(|b| b.state.lock().lsn).max();
        let Some(newest) = newest else { return Ok(false) };
        let durable = if is_kept(Rule::LogBeforePlace) {
            self.force(newest).await?;
            self.durable()
        } else {
            newest
        };
        let mut writing: Vec<Writing> =
            blocks.iter().filter_map(|cached| begin(cached, durable)).collect();
        if writing.is_empty() {
            // Somebody else is writing what is left.
            if blocks.iter().any(|b| b.state.lock().writing) {
                in_place_done.await;
                if let Some(error) = &self.log.lock().failed {
                    return Err(error.clone().into());
                }
            }
            return Ok(blocks.iter().any(|b| b.is_dirty()));
        }
        writing.sort_by_key(|w| w.cached.number);
        let result = self.write_runs(&writing).await;
        {
            let mut dirty = self.dirty.lock();
            for w in &writing {
                if finish(&w.cached, result.is_ok()) {
                    dirty.remove(&w.cached.number);
                }
            }
        }
        self.in_place_done.notify(usize::MAX);
        result?;
        self.counters.blocks_in_place.fetch_add(writing.len() as u64, Ordering::Relaxed);
        Ok(blocks.iter().any(|b| b.is_dirty()))
    }

    /// Seals and writes blocks, durably.
    async fn write_runs(&self, writing: &[Writing]) -> Result<(), DiskError> {
        let mut runs = Runs::default();
        for w in writing {
            let mut sealed = w.data.to_boxed();
            header::seal(&mut sealed, self.writer);
            runs.push(w.cached.number, sealed.into());
        }
        runs.write(&*self.disk).await
    }

    /// The task that keeps room in the ring: writes dirty blocks in place and moves the tail, when
    /// it is wanted and now and then.
    ///
    /// # Errors
    /// When something could not be written and room is short: whoever waited for it, with locks that
    /// others want, would wait for ever. The journal has failed then.
    pub(crate) async fn run_checkpoints(
        self: Arc<Self>,
        runtime: Arc<dyn Runtime>,
        interval: Duration,
    ) -> Result<(), FsError> {
        let mut wanted = self.checkpoint_wanted.listen();
        loop {
            let idle = runtime.sleep(interval);
            select(wanted, idle).await;
            if self.is_stopping() || self.has_failed() {
                return Ok(());
            }
            // What is wanted from here on, this round may not bring.
            wanted = self.checkpoint_wanted.listen();
            if let Err(error) = self.checkpoint().await {
                tracing::error!(slot = self.slot().0, %error, "checkpoint failed");
                if let FsError::Disk(reason) = &error
                    && self.is_short_of_room()
                {
                    self.fail(reason.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Writes all blocks that are dirty now in place and moves the tail as far as that allows.
    ///
    /// # Errors
    /// When a block or the header could not be written; the tail stays.
    pub(crate) async fn checkpoint(&self) -> Result<(), FsError> {
        let blocks: Vec<Arc<CachedBlock>> = self.dirty.lock().values().cloned().collect();
        self.write_in_place(&blocks).await?;
        self.move_tail().await
    }

    /// Writes everything in place and moves the tail to the head: nothing in the ring matters any more,
    /// if nothing is committed meanwhile.
    ///
    /// # Errors
    /// As [`Journal::checkpoint`].
    pub(crate) async fn settle_all(&self) -> Result<(), FsError> {
        while !self.dirty.lock().is_empty() {
            let blocks: Vec<Arc<CachedBlock>> = self.dirty.lock().values().cloned().collect();
            self.settle_in_place(&blocks).await?;
        }
        self.move_tail().await
    }

    /// As [`Journal::settle_all`], for the last time: for leaving.
    ///
    /// # Errors
    /// As [`Journal::checkpoint`].
    pub(crate) async fn drain_in_place(&self) -> Result<(), FsError> {
        self.settle_all().await?;
        *self.tail_moves.lock().await = false;
        Ok(())
    }

    /// Writes the header that lets a replay start at the first segment still needed. One at a time:
    /// while one copy is being written the other one has to be whole. Never after the journal was
    /// drained: the slot may be somebody else's by then.
    async fn move_tail(&self) -> Result<(), FsError> {
        let moves = self.tail_moves.lock().await;
        if !*moves {
            return Ok(());
        }
        let (sequence, position) = {
            let log = self.log.lock();
            let dirty = self.dirty.lock();
            let needed = dirty.values().filter_map(|b| b.state.lock().chain).min();
            // What is committed but not written yet is behind the head anyway.
            let needed = needed.unwrap_or(SegmentNo(u64::MAX));
            let start = log.room.start_of(needed);
            if start.0 == log.room.tail_segment() && log.room.used() == 0 {
                return Ok(());
            }
            start
        };
        self.write_header(sequence, position).await?;
        self.log.lock().room.advance_tail(sequence, position);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.room_back.notify(usize::MAX);
        Ok(())
    }

    async fn write_header(&self, sequence: SegmentNo, position: u64) -> Result<(), DiskError> {
        let header = JournalHeader {
            fs_id: self.fs_id,
            writer: self.writer,
            extents: &self.extents,
            sequence,
            position,
        };
        header.write(&*self.disk, Some(self.life)).await?;
        Ok(())
    }
}

/// The header of a journal, about to be written.
pub(crate) struct JournalHeader<'a> {
    pub(crate) fs_id: FsId,
    pub(crate) writer: Writer,
    pub(crate) extents: &'a Extents,
    /// Where a replay starts.
    pub(crate) sequence: SegmentNo,
    pub(crate) position: u64,
}

impl JournalHeader<'_> {
    /// Writes the older of the two copies, durably: the newer one survives a torn write. Without a
    /// `life` a new one begins; returns it.
    ///
    /// # Errors
    /// When the device fails.
    #[expect(clippy::cast_possible_truncation, reason = "the header is not written 2^32 times")]
    pub(crate) async fn write(&self, disk: &dyn Disk, life: Option<u32>) -> Result<u32, DiskError> {
        let copies = self.extents.headers();
        let mut versions = [0; 2];
        for (copy, version) in copies.into_iter().zip(&mut versions) {
            let block = disk.read(copy, 1).await?;
            if let Ok(header) = header::check(&block[0], self.fs_id, copy)
                && header.kind() == Some(Kind::JournalHeader)
            {
                *version = header.version();
            }
        }
        let older = usize::from(versions[0] > versions[1]);
        let version = versions[0].max(versions[1]) + 1;
        // Versions of headers only grow, so they number the lives.
        let life = life.unwrap_or(version as u32);
        let mut block = Block::zeroed();
        let journal: &mut JournalHeaderBlock = block.get_mut();
        let owner = Owner::plain(u64::from(self.writer.slot.0));
        journal.header =
            Header::new(self.fs_id, Kind::JournalHeader, copies[older], owner, version);
        journal.tail_sequence = U64::new(self.sequence.0);
        journal.tail_position = U64::new(self.position);
        journal.incarnation = U32::new(self.writer.incarnation.0);
        journal.slot = U16::new(self.writer.slot.0);
        journal.life = U32::new(life);
        header::seal(&mut block, self.writer);
        let data = WriteData::Blocks(vec![block.into()]);
        disk.write(copies[older], data, Durability::Durable).await?;
        Ok(life)
    }
}

/// Takes the block for writing, if it is dirty, durable in the log and not being written.
fn begin(cached: &Arc<CachedBlock>, durable: Lsn) -> Option<Writing> {
    let mut state = cached.state.lock();
    if state.chain.is_none() || state.writing || state.lsn > durable {
        return None;
    }
    state.writing = true;
    // From here on the copy in place may be torn; the next record must not build on it.
    state.image_next |= is_kept(Rule::ImageAfterPlace);
    Some(Writing { cached: Arc::clone(cached), data: state.data.clone() })
}

/// The write has ended. Returns whether the block is clean now.
fn finish(cached: &CachedBlock, written: bool) -> bool {
    let mut state = cached.state.lock();
    state.writing = false;
    let since = state.chain_next.take().filter(|_| is_kept(Rule::NoticeChangesMeanwhile));
    if written {
        state.chain = since;
    }
    state.chain.is_none()
}
