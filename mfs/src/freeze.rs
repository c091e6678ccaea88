//! Suspending a file system on all nodes, while a copy of the device is made below it.
//!
//! Keeps true: whoever changes something holds FREEZE in PR meanwhile, and gives it up only when
//! everything is in place and its journal is empty. So while somebody has it in EX nobody changes
//! anything, and the device alone says all that was answered. Two things are written all the same:
//! what recovers a node that dies meanwhile, and a page stored to through a mapping when another
//! node wants its file. Neither leaves more behind than a crash would.
//!
//! Never waits for a change that waits for it: FREEZE comes before every lock that a change takes
//! (`docs/spec/locks.md` 9), and what a surrender does needs none.

use std::fmt;
use std::sync::Arc;

use futures_util::future::{Either, select};
use lcl::Mode;
use lcl::pin::{Entry, Pin, Want};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Duration, Timestamp};
use parking_lot::Mutex;

use crate::env::Locks;
use crate::error::FsError;
use crate::fs::Fs;
use crate::layout::Layout;
use crate::locks::Resource;
use crate::ops::NotReplayed;

/// See the module.
pub(crate) struct Freezing {
    entry: Arc<Entry>,
    /// By this mount.
    frozen: Mutex<Option<Frozen>>,
}

struct Frozen {
    since: Timestamp,
    _pin: Pin,
}

/// Why nothing is frozen.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error("this node has frozen it already")]
    Already,
    #[error(
        "not all nodes have come to rest in time: another one has frozen it, or still waits for something"
    )]
    NotInTime,
    #[error(transparent)]
    NotReplayed(#[from] NotReplayed),
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl Freezing {
    pub(crate) fn new(locks: &dyn Locks, layout: &Layout) -> Freezing {
        Freezing { entry: freeze_entry(locks, layout), frozen: Mutex::default() }
    }
}

impl fmt::Debug for Freezing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Freezing").field("is_frozen", &self.frozen.lock().is_some()).finish()
    }
}

pub(crate) fn freeze_entry(locks: &dyn Locks, layout: &Layout) -> Arc<Entry> {
    locks.entry(Resource::Freeze.name(), Resource::Freeze.bucket(layout))
}

impl Fs {
    /// A change of whatever kind begins, and is over when this is dropped. The caller holds nothing
    /// but OPEN, and does not call this again before.
    ///
    /// # Errors
    /// [`FsError::ReadOnly`], [`FsError::CutOff`].
    pub(crate) async fn begin_change(&self) -> Result<Pin, FsError> {
        self.check_writable()?;
        Ok(self.freezing.entry.pin(Want::shared(Mode::PR)).await?)
    }

    /// As [`Fs::begin_change`], for the end of a mount, which may be one that only reads.
    pub(crate) async fn freezing_pin(&self) -> Result<Pin, FsError> {
        Ok(self.freezing.entry.pin(Want::shared(Mode::PR)).await?)
    }

    /// As [`Fs::begin_change`], for a task that whoever changes something may wait for. `None` while
    /// the lock is being given up: what there is to do is done by that.
    pub(crate) async fn begin_change_in_background(&self) -> Option<Pin> {
        let entry = &self.freezing.entry;
        if let Some(pin) = entry.try_pin(Want::shared(Mode::PR)) {
            return Some(pin);
        }
        if entry.mode().covers(Mode::PR) {
            return None;
        }
        entry.pin(Want::shared(Mode::PR)).await.ok()
    }

    /// May something be changed now, that need not be?
    pub(crate) fn try_begin_change(&self) -> Option<Pin> {
        self.freezing.entry.try_pin(Want::shared(Mode::PR))
    }

    /// Suspends the file system on all nodes, for `lasts` at most: from the moment this completes on
    /// every change waits, until [`Fs::thaw`]. Reads go on. A node that dies thaws what it has frozen.
    ///
    /// # Errors
    /// [`FreezeError`]; nothing is suspended then. Others may have had to wait for up to `patience`.
    pub async fn freeze(
        self: &Arc<Self>,
        patience: Duration,
        lasts: Duration,
    ) -> Result<(), FreezeError> {
        self.check_open()?;
        if self.frozen_since().is_some() {
            return Err(FreezeError::Already);
        }
        let runtime = &self.env.runtime;
        let alone = Box::pin(async {
            let pin = self.freezing.entry.pin(Want::write()).await.map_err(FsError::from)?;
            self.come_to_rest().await?;
            self.check_journals().await?;
            Ok::<Pin, FreezeError>(pin)
        });
        let pin = match select(alone, runtime.sleep(patience)).await {
            Either::Left((pin, _)) => pin?,
            Either::Right(((), _)) => return Err(FreezeError::NotInTime),
        };
        let since = self.now();
        *self.freezing.frozen.lock() = Some(Frozen { since, _pin: pin });
        let fs = Arc::downgrade(self);
        let over = runtime.sleep(lasts);
        runtime.spawn(Box::pin(async move {
            over.await;
            if let Some(fs) = fs.upgrade()
                && fs.frozen_since() == Some(since)
            {
                tracing::warn!("nobody has thawed the file system: it is thawed now");
                fs.thaw();
            }
        }));
        Ok(())
    }

    /// Lets changes go on. False when this mount has not frozen it, or not any more.
    pub fn thaw(&self) -> bool {
        let frozen = self.freezing.frozen.lock().take();
        // Others ask for the lock again; whoever waits here goes on at once.
        frozen.is_some()
    }

    /// Since when this mount has it frozen.
    pub fn frozen_since(&self) -> Option<Timestamp> {
        self.freezing.frozen.lock().as_ref().map(|frozen| frozen.since)
    }

    /// May nothing be changed here now, for whatever reason?
    pub fn is_frozen(&self) -> bool {
        self.try_begin_change().is_none()
    }

    /// Nobody changes anything: what was changed before goes to its place, and leaves the journal. A
    /// file that cannot be written keeps nothing else from it: that is known where the file is missed.
    ///
    /// # Errors
    /// When the journal or what it has cannot be written.
    pub(crate) async fn come_to_rest(&self) -> Result<(), FsError> {
        if !is_kept(Rule::RestBeforeFreeze) {
            return Ok(());
        }
        if let Err(error) = self.write_back_all().await {
            self.check_open()?;
            tracing::warn!(%error, "a file could not be written before the freeze");
        }
        self.journal.force(self.journal.last()).await?;
        self.journal.settle_all().await
    }
}
