//! What the file system needs from the world, and all that it sees of it.
//!
//! The daemon implements these over io_uring, the lock cache, FUSE and the cluster; the simulator
//! implements them over a seed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use lcl::advisory::{Claim, ClaimId, Owner, Span, Verdict};
use lcl::pin::{Entry, PinError};
use lcl::{Bucket, ResourceName};
use mx_base::{BoxFuture, Duration, Instant, Member, SlotId, Timestamp};

use crate::block::{Block, BlockNo, SharedBlock, SharedRun};
use crate::error::DiskError;
use crate::file::FileId;

/// When a write has to survive a loss of power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// After the next [`Disk::flush`] that begins after the write has completed.
    Volatile,
    /// When it completes.
    Durable,
}

/// What is written: blocks from several places, or one piece of memory.
#[derive(Clone, Debug)]
pub enum WriteData {
    Blocks(Vec<SharedBlock>),
    Run(SharedRun),
}

impl WriteData {
    pub fn len(&self) -> usize {
        match self {
            WriteData::Blocks(blocks) => blocks.len(),
            WriteData::Run(blocks) => blocks.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks in order.
    pub fn iter(&self) -> impl Iterator<Item = &Block> {
        let (blocks, run): (&[SharedBlock], &[Block]) = match self {
            WriteData::Blocks(blocks) => (blocks, &[]),
            WriteData::Run(run) => (&[], run),
        };
        blocks.iter().map(|b| &**b).chain(run)
    }
}

/// The shared block device, behind the gate of this node.
///
/// The caller never has two writes to one block under way at once.
pub trait Disk: Send + Sync {
    /// Blocks of the device.
    fn blocks(&self) -> u64;

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>>;

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>>;

    /// Makes every completed write durable.
    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>>;

    /// Tells the device that nobody needs these blocks: what is in them is undefined until they are
    /// written again. False, and nothing done, where the device has no use for that.
    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        let (_, _) = (at, count);
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// The cluster's locks, as cached on this node.
pub trait Locks: Send + Sync {
    /// The entry of a resource; the file system keeps it with the object that it covers.
    fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry>;

    /// The object that the entry covers is not in use here any more, and others may want it without
    /// queueing for it: the lock is given up, unless somebody uses it all the same.
    fn idle(&self, entry: &Arc<Entry>);

    /// Nodes that an allocation should prefer this group's lock for: is its home this node?
    fn is_home(&self, bucket: Bucket) -> bool;

    /// Announces the resources that a dead member's journal has live records for; completes with
    /// those that are in limbo on its account, and so are to be replayed, those that somebody waits
    /// for first. The others were freed.
    fn limbo_of(
        &self,
        dead: Member,
        live: Vec<ResourceName>,
    ) -> BoxFuture<'static, Result<Vec<ResourceName>, PinError>>;

    /// Of those, what somebody has begun to wait for since the last call.
    fn wanted_of(&self, dead: Member) -> Vec<ResourceName>;

    /// These resources of a dead member are in place on disk, or isolated: they leave limbo.
    fn replayed(&self, dead: Member, names: Vec<ResourceName>);

    /// Everything of a dead member has been replayed.
    fn recovered(&self, dead: Member);
}

/// The locks of applications: flock and fcntl. They forbid nothing to any operation.
pub trait FileLocks: Send + Sync {
    /// Asks for a lock on a range, or tests one. The file stays open meanwhile.
    fn claim(&self, file: FileId, claim: Claim) -> Asked;

    /// Gives up what `owner` holds of the span; at once when that is nothing.
    fn unclaim(&self, file: FileId, owner: Owner, span: Span) -> Asked;

    /// An open file is closed: what was taken through it is given up.
    fn release_via(&self, file: FileId, via: u64);

    /// Takes back what waits. Its outcome comes all the same.
    fn take_back(&self, claim: ClaimId);

    /// Is it this node in its present life?
    fn is_here(&self, member: Member) -> bool;
}

/// A lock that is asked for.
pub struct Asked {
    /// To take it back with; `None` when the outcome is there.
    pub id: Option<ClaimId>,
    pub outcome: BoxFuture<'static, Result<Verdict, LockError>>,
}

/// Why a lock was not even asked for, or nobody knows what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LockError {
    #[error("this node has as many locks of applications as it may have")]
    TooMany,
    #[error("this node is no member of the cluster any more")]
    Ended,
}

/// The caches that the kernel keeps for this mount.
pub trait KernelCache: Send + Sync {
    /// The kernel is about to learn of this object, by the answer to a lookup or a creation, and
    /// will count it as known until it forgets it. Called before the answer is computed out of a
    /// lock that is held.
    fn remember(&self, file: FileId);

    /// As [`KernelCache::remember`], for an entry of a listing with attributes. The kernel learns
    /// entries one by one, and may wait for a lookup under way in between; so what has to forget a
    /// file must not wait for the listing to arrive. May the attributes be kept? Only of what the
    /// kernel knows already: telling it to forget makes it pass over an older answer then.
    fn remember_listed(&self, file: FileId) -> bool {
        self.remember(file);
        true
    }

    /// Drops what the kernel knows of an object's attributes and, of a directory, its listing. Never
    /// blocks on requests of this mount. Completes when the kernel has done so or does not know
    /// the object.
    fn forget_attributes(&self, file: FileId, is_directory: bool) -> BoxFuture<'static, ()>;

    /// Makes the kernel ask for the attributes of an object again, and pass over answers from before
    /// that are on their way to it. The object is named by a request that is not answered yet, so the
    /// kernel knows it, and this never blocks.
    fn outdate_attributes(&self, file: FileId);

    /// Makes every name of the mount be looked up again. Never blocks.
    fn forget_names(&self) -> BoxFuture<'static, ()>;

    /// Drops pages of a file, after the dirty ones came back as writes; `None` for all. Waits for
    /// pages that the kernel is reading from us.
    fn forget_pages(&self, file: FileId, bytes: Option<Range<u64>>) -> BoxFuture<'static, ()>;

    /// Puts the last bytes of a file, of one page, into the kernel's pages: whatever it has been told
    /// before, and passes over, the file is at least as long for it as these reach. Waits for that
    /// page if the kernel is reading it from us.
    fn store(&self, file: FileId, offset: u64, bytes: Vec<u8>) -> BoxFuture<'static, ()>;
}

/// The other mounts of the file system.
pub trait MountGroup: Send + Sync {
    /// This node in its present life.
    fn me(&self) -> Member;

    /// Is `member` in the cluster's present view?
    fn is_member(&self, member: Member) -> bool;

    /// Blocks and inodes that the other live mounts use, from their last announcements, for slots
    /// whose counters are not on disk yet.
    fn announced_usage(&self) -> Vec<(SlotId, Usage)>;

    /// How far the journals of the other live mounts have come; `None` while one has not said.
    fn journal_positions(&self) -> Option<Vec<(SlotId, JournalPosition)>>;

    /// From now on a mount of this life writes to its slot: when it is given up before it is
    /// complete, others have to replay what it left.
    fn slot_begun(&self);

    /// Nothing of this mount becomes durable any more: this life of the node has to end, so that
    /// others replay what it has made durable. It gives up no lock whose changes that would need.
    fn journal_failed(&self);
}

/// What a slot's transactions have taken from the file system, less what they gave back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub blocks: i64,
    pub inodes: i64,
}

/// Segments a journal has begun, and the first that still matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalPosition {
    pub head: u64,
    pub tail: u64,
}

/// Time, and tasks of the file system's own.
pub trait Runtime: Send + Sync {
    fn now(&self) -> Instant;
    fn wall_time(&self) -> Timestamp;
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Everything above, for one mount.
#[derive(Clone)]
pub struct Env {
    pub disk: Arc<dyn Disk>,
    pub locks: Arc<dyn Locks>,
    pub kernel: Arc<dyn KernelCache>,
    pub group: Arc<dyn MountGroup>,
    pub runtime: Arc<dyn Runtime>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env(..)")
    }
}

impl fmt::Debug for dyn FileLocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileLocks(..)")
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("id", &self.id).finish_non_exhaustive()
    }
}
