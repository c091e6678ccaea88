//! Repairing a file system that nobody has mounted.
//!
//! In this order: the superblock that most copies agree on; journals replayed, as a mount would; a
//! check; a plan, made in memory over what the device holds; the check again, of what is planned, and
//! further plans while it finds something; the plan written ([`commit`]); the check of the device.
//!
//! What each pass keeps true:
//!   * [`slots`]: nothing is judged before the journals are replayed;
//!   * [`groups`]: which blocks are inodes, and which belong to trees, follows from what they say of
//!     themselves, where the table is lost;
//!   * [`inodes`], [`extents`], [`files`], [`xattrs`], [`directories`]: what is kept of an object is whole and leads to
//!     nothing that another one has; an object of which that cannot be said is isolated;
//!   * [`names`]: what stays has a name; nothing goes but what says itself that it was unlinked;
//!   * at last bitmaps, tables and counters are made of all of that.
//!
//! A plan that a check does not agree with, though nothing is told that could not be done, is not written;
//! nor is one made of a device that gives other answers from one moment to the next.
//!
//! A plan for a file system that is in order changes nothing but what a mount would settle: files
//! without a name on the lists of orphans, and blocks that a crash has left behind the end of one.

mod commit;
mod directories;
mod extents;
mod files;
mod groups;
mod inodes;
mod item;
mod names;
mod slots;
mod work;
mod xattrs;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use mx_base::Timestamp;

use super::overlay::Overlay;
use super::superblocks;
use super::{CheckError, Problem, Progress, Report, check};
use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::error::DiskError;
use crate::file::FileId;
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::ondisk::superblock::{FEATURES_RO_COMPAT_KNOWN, SuperblockBlock};
use crate::superblock::SuperblockError;

use work::Work;

/// Plans made, each over the one before, until a check finds nothing.
const ROUNDS_MAX: usize = 6;

/// Times that everything is read again because a chunk is of another kind than was thought.
const RESTARTS_MAX: usize = 64;

/// Blocks of metadata that a device may refuse to give before it is taken for broken as a whole.
const UNREADABLE_MAX: usize = 64;

/// Why nothing was repaired. Journals may have been replayed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RepairError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(
        "{0} blocks of metadata cannot be read, so the device fails; nothing is repaired on it: \
         copy what can be read to another one"
    )]
    Unreadable(usize),
    #[error("block {0} could not be read and now can be: the device is not steady")]
    Unsteady(BlockNo),
    #[error(
        "formatted with features {bits:#x} that this release does not know: it may look, not repair"
    )]
    Features { bits: u64 },
    #[error("more chunks are of another kind than their tables say than can be told apart")]
    Chunks,
    #[error("the plan would leave {} problems, first {}", .0.len(), .0[0])]
    Plan(Vec<Problem>),
}

impl From<SuperblockError> for RepairError {
    fn from(error: SuperblockError) -> RepairError {
        RepairError::Check(error.into())
    }
}

impl From<DiskError> for RepairError {
    fn from(error: DiskError) -> RepairError {
        RepairError::Check(error.into())
    }
}

/// How to repair.
#[derive(Clone, Copy, Debug)]
pub struct RepairOptions {
    /// Only what needs nobody's judgement: journals replayed, counters set.
    pub preen: bool,
    /// Files that an earlier repair has found damaged beyond repair go, with what they lead to.
    pub remove_isolated: bool,
    /// Birth of what is made anew.
    pub now: Timestamp,
}

/// What was wrong and what was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Repaired {
    /// What a check found once the journals were replayed.
    pub before: Report,
    /// What was done, object by object, in the order in which it was found.
    pub done: Vec<Problem>,
    /// What could not be done.
    pub left: Vec<Problem>,
    /// What a check finds now.
    pub after: Report,
    /// Journals that were replayed on the device.
    pub slots_replayed: u64,
    /// Something was damaged, and not only left over from a crash.
    pub was_damaged: bool,
}

impl Repaired {
    /// Is everything in order now?
    pub fn is_clean(&self) -> bool {
        self.left.is_empty() && self.after.problems.is_empty()
    }

    fn did(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        self.done.push(Problem::new(object, what));
    }

    fn left(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        let problem = Problem::new(object, what);
        if !self.left.contains(&problem) {
            self.left.push(problem);
        }
    }
}

/// Repairs the file system on `disk`, which nobody else uses.
///
/// # Errors
/// When there is no file system, the device fails where nothing can be isolated, or the plan is not to be
/// trusted. What was done by then is whole; a second run goes on.
pub async fn repair(
    disk: Arc<dyn Disk>,
    options: RepairOptions,
    progress: Progress<'_>,
) -> Result<Repaired, RepairError> {
    let chosen = superblocks::choose(&*disk).await?;
    let features: &SuperblockBlock = chosen.block.get();
    let unknown = features.features_ro_compat.get() & !FEATURES_RO_COMPAT_KNOWN;
    let bits = unknown | features.features_compat.get();
    if bits != 0 {
        return Err(RepairError::Features { bits });
    }
    // What a dead node wrote, and what is not written again, may be in the device's cache only.
    disk.flush().await?;
    let overlay = Arc::new(Overlay::new(Arc::clone(&disk)));
    let mut work = Work::new(overlay, chosen.sb.clone(), options, progress);
    if !options.preen {
        slots::mend_heads(&mut work).await?;
    }
    work.report.slots_replayed = slots::replay(&mut work, !options.preen).await?;
    let before = check(Arc::clone(&disk), &mut *work.progress).await?;
    work.report.was_damaged |= !before.problems.is_empty();
    let leaves_it = before.problems.is_empty() || before.problems.iter().any(|p| !p.is_counter);
    work.report.before = before.clone();
    if options.preen && leaves_it {
        work.report.after = before;
        return Ok(work.report);
    }
    work.mend_superblocks(&chosen.bad, &chosen.block);
    let replayed = work.report.done.len();
    let mut problems = Vec::new();
    for _ in 0..ROUNDS_MAX {
        work.plan().await?;
        work.finish_plan().await?;
        if work.unreadable.len() > UNREADABLE_MAX {
            return Err(RepairError::Unreadable(work.unreadable.len()));
        }
        let planned = work.as_planned().await?;
        problems = check(planned, &mut *work.progress).await?.problems;
        if problems.is_empty() {
            break;
        }
        for (no, group) in &work.groups {
            work.spent.insert(*no, group.spent.clone());
        }
    }
    if !problems.is_empty() && work.report.left.is_empty() {
        return Err(RepairError::Plan(problems));
    }
    work.tell_what_was_put_right(replayed);
    work.commit().await?;
    work.report.after = check(disk, &mut *work.progress).await?;
    Ok(work.report)
}

impl Work<'_> {
    fn mend_superblocks(&mut self, bad: &[BlockNo], good: &Block) {
        for at in bad {
            let mut copy = Box::new(good.clone());
            let version = Header::of(good).version();
            *Header::of_mut(&mut copy) =
                Header::new(self.sb.fs_id, Kind::Superblock, *at, Owner::plain(0), version);
            header::seal(&mut copy, Writer::MKFS);
            self.disk.put(*at, copy);
            self.did(format!("superblock {at}"), "made anew of the copies that agree");
        }
    }

    /// One plan over what the device and the plans before say.
    async fn plan(&mut self) -> Result<(), RepairError> {
        let told = self.report.done.len();
        for _ in 0..RESTARTS_MAX {
            self.report.done.truncate(told);
            self.read_groups().await;
            self.claim_journals().await?;
            let orphans = self.read_orphans().await;
            let mut found = self.scan_chunks().await;
            let Some(mut items) = self.read_inodes(&mut found, &orphans).await else { continue };
            if self.suspect_targets(&items).await || self.suspect_unused().await {
                continue;
            }
            self.part_shared(&mut items).await;
            self.settle(&mut items, &orphans).await;
            return Ok(());
        }
        Err(RepairError::Chunks)
    }

    async fn settle(&mut self, items: &mut item::Items, orphans: &BTreeSet<FileId>) {
        let names = self.settle_names(items, orphans).await;
        let root = self.sb.root;
        for item in items.values_mut() {
            let links = names.links.get(&item.file.inode).copied().unwrap_or(0);
            let parent = names.parents.get(&item.file.inode).copied().unwrap_or(root);
            self.write_inode(item, links, parent).await;
        }
        self.inodes = items.len() as u64;
    }

    /// Groups and slots, when everything that they follow from is settled.
    async fn finish_plan(&mut self) -> Result<(), CheckError> {
        let told = self.report.done.len();
        self.write_groups().await;
        self.write_slots(self.inodes).await;
        if self.choose_journal().await? {
            self.report.done.truncate(told);
            self.write_groups().await;
            self.write_slots(self.inodes).await;
        }
        Ok(())
    }

    fn tell_what_was_put_right(&mut self, at: usize) {
        let bits: Vec<Problem> = self
            .mended
            .iter()
            .map(|(at, bit)| {
                Problem::new(format!("block {at}"), format!("bit {bit} had flipped, put right"))
            })
            .collect();
        let kinds = self.kinds.iter().map(|(at, kind)| {
            let what = format!("is of kind {kind:?}, which the table did not say; put right");
            Problem::new(format!("chunk at block {at}"), what)
        });
        let all: Vec<Problem> = bits.into_iter().chain(kinds).collect();
        self.report.done.splice(at..at, all);
        let mut told = BTreeSet::new();
        self.report.done.retain(|done| told.insert((done.object.clone(), done.what.clone())));
    }
}
