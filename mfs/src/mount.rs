//! Mounting and leaving.
//!
//! A mount holds SB in PR for its life, so that whoever gets SB in EX is alone with the device; and
//! its slot in EX. The slot becomes live on disk before the first operation, and clean after the
//! last one is in place.

mod first_journal;
pub(crate) mod orphans;
pub mod recover;
pub(crate) mod slots;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lcl::pin::{PinError, Want};
use lcl::{LockClass, Mode};
use mx_base::SlotId;
use mx_base::rules::{Rule, is_kept};

use crate::alloc::give_back::space_entry;
use crate::env::Env;
use crate::error::{DiskError, FsError};
use crate::freeze::freeze_entry;
use crate::fs::{Fs, Options};
use crate::journal::scan::ScanError;
use crate::locks::{Classes, Resource};
use crate::ondisk::slot::SlotState;
use crate::slot::head::HeadError;
use crate::superblock::{self, SuperblockError};

/// Why a file system was not mounted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MountError {
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    #[error("all {0} slots are in use")]
    NoSlot(u16),
    #[error("no room for a journal of this mount on the device")]
    NoRoomForJournal,
    /// Nobody may use the file system before somebody has decided to go on without what is lost.
    #[error("{0}; `fsck.matrixfs -y` goes on without what is damaged")]
    DamagedJournal(ScanError),
    /// As above.
    #[error("{slot}: {source}; `fsck.matrixfs -y` goes on without what only its journal has")]
    SlotHead { slot: SlotId, source: HeadError },
    #[error("{slot}: {source}")]
    Slot { slot: SlotId, source: FsError },
    #[error("blocks under {0} locks cannot be written")]
    NotReplayed(usize),
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<DiskError> for MountError {
    fn from(error: DiskError) -> MountError {
        MountError::Fs(error.into())
    }
}

impl From<ScanError> for MountError {
    fn from(error: ScanError) -> MountError {
        match error {
            ScanError::Disk(error) => error.into(),
            damaged @ (ScanError::Headers { .. }
            | ScanError::Hole { .. }
            | ScanError::Decode { .. }) => MountError::DamagedJournal(damaged),
        }
    }
}

impl From<PinError> for MountError {
    fn from(error: PinError) -> MountError {
        MountError::Fs(error.into())
    }
}

/// A mounted file system, and what must be kept until it is left.
#[derive(Debug)]
pub struct Mounted {
    pub fs: Arc<Fs>,
}

/// Mounts the file system on `env.disk`. `register` gets the callouts of the locks before the first
/// lock is taken.
///
/// `first` vouches that nobody else has it mounted or mounts it, and that no dead member writes any
/// more: journals that dead mounts left are replayed before anything else.
///
/// # Errors
/// [`MountError`]; nothing is left behind but a slot that the next mount takes.
pub async fn mount(
    env: Env,
    options: Options,
    first: bool,
    register: impl FnOnce(Arc<dyn LockClass>),
) -> Result<Mounted, MountError> {
    let sb = superblock::read(&*env.disk).await?;
    let classes = Arc::new(Classes::default());
    register(Arc::clone(&classes) as Arc<dyn LockClass>);
    let options = Options { read_only: options.read_only || sb.read_only, ..options };

    if first {
        // No lock is asked for: the superblock's would stay in EX, pinned by this mount, and keep
        // the others out.
        recover::recover_unowned(&env, &sb).await?;
    }
    let entry =
        env.locks.entry(Resource::Superblock.name(), Resource::Superblock.bucket(&sb.layout));
    let reading = entry.pin(Want::read()).await?;
    // While it is frozen nobody comes; behind this it stays cached.
    let change = freeze_entry(&*env.locks, &sb.layout).pin(Want::shared(Mode::PR)).await?;
    if !options.read_only {
        // It stays cached: whoever works later does not wait for its home, which may have died.
        drop(space_entry(&*env.locks, &sb.layout).pin(Want::shared(Mode::PR)).await?);
    }
    let slot = slots::take(&env, &sb).await?;
    let fs = slots::begin(env, options, &sb, slot, &classes).await?;
    fs.start();
    drop((reading, change));
    Ok(Mounted { fs })
}

impl Fs {
    /// Starts the tasks of the mount.
    fn start(self: &Arc<Self>) {
        let runtime = &self.env.runtime;
        runtime.spawn(Box::pin(Arc::clone(self).run_write_back()));
        let interval = self.options.checkpoint_interval;
        let checkpoints = Arc::clone(&self.journal).run_checkpoints(Arc::clone(runtime), interval);
        let group = Arc::clone(&self.env.group);
        runtime.spawn(Box::pin(async move {
            if checkpoints.await.is_err() {
                group.journal_failed();
            }
        }));
        for file in self.journal.orphans() {
            self.reap_later(file);
        }
    }
}

impl Mounted {
    /// Leaves in order: everything durable in place, claims given up, the slot clean. The locks are
    /// free to go afterwards.
    ///
    /// # Errors
    /// When something could not be written; the slot stays live then and is replayed by others.
    pub async fn leave(self) -> Result<(), FsError> {
        let fs = &self.fs;
        fs.give_back().await?;
        let change = fs.freezing_pin().await?;
        fs.closing.store(true, Ordering::Release);
        fs.dirty_stopped();
        // A deletion in the background may be between two transactions: the next one would be
        // committed behind the slot that says it is clean.
        fs.journal.close().await;
        fs.end_background();
        fs.journal.force(fs.journal.last()).await?;
        if is_kept(Rule::DrainBeforeClean) {
            fs.journal.drain_in_place().await?;
        }
        fs.leave_slot().await?;
        fs.journal.stop();
        drop(change);
        Ok(())
    }

    /// Stops without leaving anything behind but what is durable: this node was cut off. Nothing
    /// more is written.
    pub fn cut_off(self) {
        self.fs.closing.store(true, Ordering::Release);
        self.fs.journal.fail(DiskError::Fenced);
        self.fs.dirty_stopped();
        self.fs.journal.stop();
    }
}

impl Fs {
    /// Everything is in place: nothing in the journal matters any more.
    async fn leave_slot(&self) -> Result<(), FsError> {
        let head = self.head.lock().take();
        let mut head = head.expect("a mount leaves its slot once");
        head.state = SlotState::Clean;
        let writer = self.journal.writer();
        head.write(&*self.env.disk, self.fs_id, &self.layout, writer).await?;
        Ok(())
    }

    /// Writes everything back and gives up what was claimed ahead. Waits for locks, also for those
    /// that are in limbo; behind it [`Mounted::leave`] waits for none, if nobody works meanwhile.
    ///
    /// # Errors
    /// When something could not be written.
    pub async fn give_back(&self) -> Result<(), FsError> {
        self.thaw();
        let _change = self.freezing_pin().await?;
        self.write_back_all().await?;
        self.give_up_claims().await
    }
}
