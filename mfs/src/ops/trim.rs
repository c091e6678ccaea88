//! Telling the device which blocks nobody uses, so that a thin-provisioned one has room for something
//! else.
//!
//! Keeps true:
//!   * a block is discarded only while its group is held in EX, and its bitmap has it free: nobody
//!     takes it meanwhile, and nobody writes to it;
//!   * never a block of a metadata chunk, free ones have headers that count (I4), nor one that rests:
//!     after a crash it would be in use again;
//!   * nothing at all while a journal of a member that is gone has not been replayed, or cannot be:
//!     a bitmap may be older than what it maps then.
//!
//! A group is held for a few requests at a time, and whoever else wants it gets it in between. Groups
//! that were never used are passed over: `mkfs` has discarded them.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::{Either, join_all, select};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Duration, Member, SlotId};

use crate::alloc::{PinnedGroup, bits};
use crate::block::as_usize;
use crate::cache::Step;
use crate::error::{DiskError, FsError};
use crate::fs::Fs;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::{BitmapBlock, ChunkKind};
use crate::ondisk::slot::SlotState;
use crate::slot::head::{HeadError, SlotHead};

/// How long a group is waited for: who lives gives it up sooner, who is dead has it for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Blocks discarded while a group is held, at most: 64 MiB.
const AT_ONCE: u64 = 16_384;

/// Runs discarded while a group is held, at most.
const RUNS_AT_ONCE: usize = 64;

/// What a trim has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trimmed {
    /// Blocks that the device was told of.
    pub blocks: u64,
    /// Groups that could not be had soon, or are damaged.
    pub skipped: u64,
}

/// Why nothing is trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    #[error("the device cannot discard")]
    NotSupported,
    #[error(transparent)]
    NotReplayed(#[from] NotReplayed),
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// Why the journal of somebody who is gone may still matter.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    #[error("the journal of {member} in {slot} has not been replayed: try again when it has")]
    Member { slot: SlotId, member: Member },
    #[error("{slot} cannot be read, and may have a journal to be replayed: {source}")]
    Slot { slot: SlotId, source: HeadError },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What is known of a group.
enum Found {
    Held(PinnedGroup),
    Unused,
    Skipped,
}

impl Fs {
    /// Tells the device of all runs of at least `minimum` blocks that are free in these groups; of
    /// those beyond the last, nothing. What was freed since the last [`Fs::sync`] may rest still.
    ///
    /// # Errors
    /// [`TrimError`]. What was discarded before stays so.
    pub async fn trim(
        self: &Arc<Self>,
        groups: Range<u64>,
        minimum: u64,
    ) -> Result<Trimmed, TrimError> {
        self.check_writable()?;
        self.check_journals().await?;
        let mut trimmed = Trimmed::default();
        for no in groups.start..groups.end.min(self.layout.group_count) {
            let _change = self.begin_change().await?;
            self.trim_group(GroupNo(no), minimum.max(1), &mut trimmed).await?;
        }
        Ok(trimmed)
    }

    /// Are all journals empty but those of members that live?
    pub(crate) async fn check_journals(&self) -> Result<(), NotReplayed> {
        let heads = SlotHead::read_all(&*self.env.disk, self.fs_id, &self.layout).await;
        for (slot, head) in heads? {
            let head = head.map_err(|source| NotReplayed::Slot { slot, source })?;
            if let (SlotState::Live, Some(member)) = (head.state, head.member)
                && !self.env.group.is_member(member)
            {
                return Err(NotReplayed::Member { slot, member });
            }
        }
        Ok(())
    }

    async fn trim_group(
        &self,
        no: GroupNo,
        minimum: u64,
        trimmed: &mut Trimmed,
    ) -> Result<(), TrimError> {
        let mut from = 0;
        loop {
            let group = match self.group_to_trim(no).await? {
                Found::Held(group) => group,
                Found::Unused => return Ok(()),
                Found::Skipped => {
                    trimmed.skipped += 1;
                    return Ok(());
                }
            };
            let runs = match self.settle(|| group.free_runs(from, minimum)).await {
                Err(FsError::Damaged | FsError::Corrupt(_)) => {
                    trimmed.skipped += 1;
                    return Ok(());
                }
                runs => runs?,
            };
            let Some(last) = runs.last() else { return Ok(()) };
            from = last.end;
            let first = group.group.geometry.first;
            let discard = |run: &Range<u64>| {
                self.env.disk.discard(first.plus(run.start), run.end - run.start)
            };
            let discards: Vec<_> = runs.iter().map(discard).collect();
            // Whoever waits may give up; the group is held until the last of them has ended.
            let (done, is_done) = oneshot::channel();
            self.env.runtime.spawn(Box::pin(async move {
                let held = is_kept(Rule::TrimInHeldGroups).then_some(group);
                let ended = join_all(discards).await;
                drop(held);
                let _ = done.send(ended);
            }));
            let ended = is_done.await.map_err(|_| FsError::CutOff)?;
            for (run, discarded) in runs.iter().zip(ended) {
                match discarded.map_err(FsError::from)? {
                    true => trimmed.blocks += run.end - run.start,
                    false => return Err(TrimError::NotSupported),
                }
            }
        }
    }

    async fn group_to_trim(&self, no: GroupNo) -> Result<Found, FsError> {
        let found = async {
            if !self.is_initialised(no).await? {
                return Ok(Found::Unused);
            }
            Ok(Found::Held(self.pin_group(no).await?))
        };
        let found = match select(pin!(found), self.env.runtime.sleep(PATIENCE)).await {
            Either::Left((found, _)) => found,
            Either::Right(((), _)) => return Ok(Found::Skipped),
        };
        match found {
            Err(FsError::Damaged | FsError::Corrupt(_)) => Ok(Found::Skipped),
            Err(error @ FsError::Disk(DiskError::Failed { .. })) if !self.journal.has_failed() => {
                tracing::warn!(group = no.0, %error, "not trimmed");
                Ok(Found::Skipped)
            }
            found => found,
        }
    }
}

impl PinnedGroup {
    /// The next free runs from `from` on, of at least `minimum` blocks each, that nothing forbids to
    /// discard; as many as may be discarded while the group is held.
    fn free_runs(&self, from: u64, minimum: u64) -> Step<Vec<Range<u64>>> {
        let group = &self.group;
        let geometry = &group.geometry;
        let tx = crate::journal::Transaction::new(mx_base::FsId::default());
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut total = 0;
        // The run that may go on in the next chunk.
        let mut open: Option<Range<u64>> = None;
        for chunk in from / geometry.chunk_blocks..geometry.chunks {
            let entry = group.chunk(&tx, chunk)?;
            let start = (chunk * geometry.chunk_blocks).max(from);
            let end = ((chunk + 1) * geometry.chunk_blocks).min(geometry.blocks);
            let is_data = matches!(entry.chunk_kind(), Some(ChunkKind::Free | ChunkKind::Data))
                || !is_kept(Rule::TrimDataOnly);
            let mut at = if is_data && entry.free.get() > 0 { start } else { end };
            while at < end {
                let (number, bit) = geometry.bit(at);
                let bitmap = group.bitmap_block(number)?;
                let seen = tx.see(&bitmap);
                let bits = &seen.get::<BitmapBlock>().bits;
                let len = bits::clear_run(bits, bit, bit + as_usize(end - at)) as u64;
                let may_rest = len > 0 && is_kept(Rule::TrimRested);
                let len = if may_rest { group.rested_run(at, len) } else { len };
                if len == 0 {
                    at += 1;
                    continue;
                }
                match &mut open {
                    Some(run) if run.end == at => run.end = at + len,
                    _ => {
                        let ended = open.replace(at..at + len);
                        keep(ended, minimum, &mut runs, &mut total);
                    }
                }
                at += len;
                if total + open.as_ref().map_or(0, |run| run.end - run.start) >= AT_ONCE
                    || runs.len() >= RUNS_AT_ONCE
                {
                    keep(open.take(), minimum, &mut runs, &mut total);
                    if !runs.is_empty() {
                        return Ok(runs);
                    }
                }
            }
        }
        keep(open, minimum, &mut runs, &mut total);
        Ok(runs)
    }
}

fn keep(run: Option<Range<u64>>, minimum: u64, runs: &mut Vec<Range<u64>>, total: &mut u64) {
    if let Some(run) = run.filter(|run| run.end - run.start >= minimum) {
        *total += run.end - run.start;
        runs.push(run);
    }
}
