//! Checking a file system that nobody has mounted, without writing to it.
//!
//! Journals are replayed into memory, then every invariant of the format is checked: checksums,
//! places and owners of all metadata; bitmaps, chunk table and counters against use; extents
//! without overlap; directory hashes, cookies and prefixes; every inode reachable or an orphan;
//! link counts; the counters of the slots. The walkers here are not those of the file system, so
//! that one proves the other.

mod directories;
mod groups;
mod index;
mod inodes;
mod lenient;
pub(crate) mod media;
pub mod online;
pub mod overlay;
mod repair;
mod slots;
mod superblocks;
mod xattrs;

pub use repair::{RepairError, RepairOptions, Repaired, repair};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use mx_base::SlotId;

use crate::block::{Block, BlockNo};
use crate::env::{Disk, Usage};
use crate::error::{Corruption, CorruptionKind, DiskError};
use crate::file::{FileId, InodeNo};
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{self, Kind, Owner};
use crate::superblock::{Superblock, SuperblockError};

use groups::GroupUse;
use inodes::Found;
use overlay::Overlay;

/// Something that is not as it has to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What it is about: an inode, a group, a slot.
    pub object: String,
    pub what: String,
    /// Only a number that follows from others is wrong.
    pub is_counter: bool,
}

impl Problem {
    fn new(object: impl fmt::Display, what: impl fmt::Display) -> Problem {
        Problem { object: object.to_string(), what: what.to_string(), is_counter: false }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// The superblock that most copies agree on.
pub(crate) async fn choose_superblock(disk: &dyn Disk) -> Result<Superblock, SuperblockError> {
    Ok(superblocks::choose(disk).await?.sb)
}

/// A journal has no fewer blocks.
pub(crate) const JOURNAL_BLOCKS_MIN: u64 = 16;

/// Can a directory have an entry of this name?
pub(crate) fn is_possible_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// What is the matter with an object that is marked, and may have nothing else.
pub const ISOLATED: &str = crate::inode::ISOLATED;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub problems: Vec<Problem>,
    /// Inodes that were damaged beyond repair: every access fails, what they lead to stays reserved.
    pub isolated: Vec<Problem>,
    /// Slots that were live; their journals were replayed in memory.
    pub slots_replayed: u64,
    pub groups: u64,
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    pub orphans: u64,
    pub blocks_used: u64,
}

/// Why a check could not be done at all.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// How far a check is: what it does, steps done, steps in all.
pub type Progress<'a> = &'a mut (dyn FnMut(&str, u64, u64) + Send + Sync);

/// The state of a check.
pub(crate) struct Check<'a> {
    pub(crate) disk: Arc<Overlay>,
    pub(crate) sb: Superblock,
    pub(crate) report: Report,
    pub(crate) groups: BTreeMap<GroupNo, GroupUse>,
    pub(crate) inodes: BTreeMap<InodeNo, Found>,
    /// Files on the slots' lists of orphans.
    pub(crate) orphans: BTreeSet<FileId>,
    /// Blocks of the slots' journals.
    pub(crate) journals: Vec<(SlotId, BlockNo)>,
    /// What the slots say is in use, together.
    pub(crate) usage: Usage,
    /// Where groups are judged later: what is used of them, and the metadata among it.
    claims: Option<Claims>,
    progress: Progress<'a>,
}

/// What somebody uses, in the order in which it was found.
#[derive(Default)]
struct Claims {
    runs: Vec<Claim>,
    metadata: BTreeSet<BlockNo>,
}

/// A run of blocks in one group, and what it is used as.
#[derive(Clone, Copy, Debug)]
struct Claim {
    first: BlockNo,
    blocks: u64,
    kind: ChunkKind,
}

/// Checks the file system on `disk`; writes nothing to it.
///
/// # Errors
/// When there is no file system, or the device fails where nothing can be isolated.
pub async fn check(disk: Arc<dyn Disk>, progress: Progress<'_>) -> Result<Report, CheckError> {
    let superblocks::Chosen { sb, bad, .. } = superblocks::choose(&*disk).await?;
    let mut check = Check::new(Overlay::new(disk), sb, progress);
    for at in bad {
        check.problem(format!("superblock {at}"), "is not what most copies say");
    }
    check.replay_journals().await?;
    check.read_groups().await?;
    check.read_slots().await?;
    check.read_inodes().await?;
    check.keep_damaged().await;
    check.walk_tree();
    check.compare_groups();
    check.compare_usage();
    Ok(check.report)
}

impl<'a> Check<'a> {
    fn new(disk: Overlay, sb: Superblock, progress: Progress<'a>) -> Check<'a> {
        Check {
            disk: Arc::new(disk),
            sb,
            report: Report::default(),
            groups: BTreeMap::new(),
            inodes: BTreeMap::new(),
            orphans: BTreeSet::new(),
            journals: Vec::new(),
            usage: Usage { blocks: crate::mkfs::USED_BLOCKS, inodes: crate::mkfs::USED_INODES },
            claims: None,
            progress,
        }
    }

    pub(crate) fn problem(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        // A ruined device has no end of them.
        if self.report.problems.len() < 10_000 {
            self.report.problems.push(Problem::new(object, what));
        }
    }

    /// As [`Check::problem`], where a number that follows from others is all that is wrong.
    pub(crate) fn miscount(&mut self, object: impl fmt::Display, what: impl fmt::Display) {
        self.problem(object, what);
        if let Some(problem) = self.report.problems.last_mut() {
            problem.is_counter = true;
        }
    }

    pub(crate) fn step(&mut self, what: &str, done: u64, all: u64) {
        (self.progress)(what, done, all);
    }

    /// A metadata block that has to be of a kind and an owner.
    pub(crate) async fn read(
        &self,
        at: BlockNo,
        kind: Kind,
        owner: Owner,
    ) -> Result<Box<Block>, Corruption> {
        let unreadable = |_: DiskError| Corruption {
            block: at,
            kind: CorruptionKind::Contents("the device cannot read it"),
            expected: 0,
            found: 0,
        };
        let block = self.disk.read(at, 1).await.map_err(unreadable)?.into_vec().remove(0);
        let header = header::check(&block, self.sb.fs_id, at)?;
        crate::cache::Expect { kind, owner }.check(at, header)?;
        Ok(Box::new(block))
    }

    /// Slots' counters against what is in use.
    fn compare_usage(&mut self) {
        let blocks = i64::try_from(self.report.blocks_used).unwrap_or(i64::MAX);
        let inodes = i64::try_from(self.report.inodes).unwrap_or(i64::MAX);
        if self.usage.blocks != blocks {
            let counted = self.usage.blocks;
            self.miscount("slots", format!("count {counted} blocks in use, {blocks} are"));
        }
        if self.usage.inodes != inodes {
            let counted = self.usage.inodes;
            self.miscount("slots", format!("count {counted} inodes in use, {inodes} are"));
        }
    }
}
