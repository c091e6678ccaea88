//! Dirty files of this mount: how many pages, since when, and the task that writes them.
//!
//! Keeps true: dirty pages stay below the bound, up to one write per waiting writer; a writer that
//! waits holds no pin, so a surrender never waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use event_listener::Event;
use futures_util::future::select;
use lcl::Mode;
use lcl::pin::Want;
use mx_base::{Duration, Instant};
use parking_lot::Mutex;

use crate::error::FsError;
use crate::file::InodeNo;
use crate::fs::Fs;
use crate::inode::{Inode, State};

/// Between two looks of the task, and how old dirty data gets before it is written.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is dirty on this mount.
pub(crate) struct DirtyFiles {
    pages_max: usize,
    files: Mutex<Files>,
    /// Pages became clean.
    room: Event,
    /// A writer waits.
    wanted: Event,
}

#[derive(Debug, Default)]
struct Files {
    by_inode: BTreeMap<InodeNo, Dirty>,
    pages: usize,
}

#[derive(Debug, Clone, Copy)]
struct Dirty {
    pages: usize,
    since: Instant,
}

impl DirtyFiles {
    pub(crate) fn new(pages_max: usize) -> DirtyFiles {
        DirtyFiles {
            pages_max: pages_max.max(64),
            files: Mutex::default(),
            room: Event::new(),
            wanted: Event::new(),
        }
    }

    /// Takes note of what is dirty in a file; called with its state latched after every change.
    pub(crate) fn note(&self, inode: InodeNo, state: &State, now: Instant) {
        let pages = state.pages.dirty_len();
        let is_dirty = pages > 0 || state.core.as_ref().is_some_and(|core| core.dirty);
        let files = &mut *self.files.lock();
        let before = files.by_inode.get(&inode).copied();
        files.pages = files.pages + pages - before.map_or(0, |d| d.pages);
        if is_dirty {
            let since = before.map_or(now, |d| d.since);
            files.by_inode.insert(inode, Dirty { pages, since });
        } else {
            files.by_inode.remove(&inode);
        }
        if files.pages < self.pages_max {
            self.room.notify(usize::MAX);
        }
        if files.pages * 2 > self.pages_max {
            self.wanted.notify(1);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.lock().by_inode.is_empty()
    }

    pub(crate) fn pages(&self) -> usize {
        self.files.lock().pages
    }

    /// All dirty files, or those dirty since `before`; the oldest first.
    fn since(&self, before: Option<Instant>) -> Vec<InodeNo> {
        let files = self.files.lock();
        let mut dirty: Vec<(Instant, InodeNo)> = files
            .by_inode
            .iter()
            .filter(|(_, d)| before.is_none_or(|before| d.since <= before))
            .map(|(inode, d)| (d.since, *inode))
            .collect();
        dirty.sort_unstable();
        dirty.into_iter().map(|(_, inode)| inode).collect()
    }
}

impl Fs {
    /// Waits until this mount has room for more dirty pages. The caller holds no pin.
    pub(crate) async fn wait_for_room(&self) -> Result<(), FsError> {
        loop {
            let listener = self.dirty.room.listen();
            if self.dirty.pages() < self.dirty.pages_max {
                return Ok(());
            }
            self.check_open()?;
            self.dirty.wanted.notify(1);
            listener.await;
        }
    }

    /// Nobody writes any more: whoever waits for room goes, and so does the task.
    pub(crate) fn dirty_stopped(&self) {
        self.dirty.room.notify(usize::MAX);
        self.dirty.wanted.notify(usize::MAX);
    }

    pub(crate) fn note_dirty(&self, inode: &Inode, state: &State) {
        self.dirty.note(inode.no, state, self.env.runtime.now());
    }

    /// The task that writes dirty files: old ones now and then, all when room is short; those that
    /// could not be written not before the interval has passed, however short it is.
    pub(crate) async fn run_write_back(self: Arc<Self>) {
        let mut wanted = self.dirty.wanted.listen();
        let mut failed: BTreeMap<InodeNo, Instant> = BTreeMap::new();
        loop {
            select(wanted, self.env.runtime.sleep(INTERVAL)).await;
            if self.check_open().is_err() {
                return;
            }
            let now = self.env.runtime.now();
            failed.retain(|_, last| now.since(*last) < INTERVAL);
            // What is wanted from here on, this round may not bring.
            wanted = self.dirty.wanted.listen();
            let short = self.dirty.pages() * 2 > self.dirty.pages_max;
            let before = (!short).then(|| now - INTERVAL);
            for no in self.dirty.since(before) {
                if failed.contains_key(&no) {
                    continue;
                }
                let Some(_change) = self.begin_change_in_background().await else { break };
                if !self.write_back(no).await {
                    failed.insert(no, self.env.runtime.now());
                }
            }
        }
    }

    /// Writes what is dirty in files whose locks are there: no lock is waited for.
    pub(crate) async fn write_back_idle(&self) {
        for no in self.dirty.since(None) {
            self.write_back(no).await;
        }
    }

    /// Writes one file, unless its lock is on its way to another node: the surrender does it then.
    /// False when it could not be written.
    async fn write_back(&self, no: InodeNo) -> bool {
        let Some(inode) = self.known_inode(no) else { return true };
        let Some(pin) = inode.entry.try_pin(Want::shared(Mode::EX)) else { return true };
        let flushed = self.flush_inode(&inode, &pin).await;
        if let Err(error) = &flushed {
            tracing::warn!(inode = no.0, %error, "write-back failed");
        }
        self.note_dirty(&inode, &inode.state.lock());
        flushed.is_ok()
    }

    /// Writes everything that is dirty now.
    ///
    /// # Errors
    /// The first failure; the other files are written all the same.
    pub(crate) async fn write_back_all(&self) -> Result<(), FsError> {
        let mut result = Ok(());
        for no in self.dirty.since(None) {
            let Some(inode) = self.known_inode(no) else { continue };
            // Only what this node holds in EX can be dirty; a lock that is being given up is
            // flushed by its surrender.
            let pin = inode.entry.pin(Want::shared(Mode::EX)).await?;
            let flushed = self.flush_inode(&inode, &pin).await;
            self.note_dirty(&inode, &inode.state.lock());
            result = result.and(flushed);
        }
        result
    }
}

impl fmt::Debug for DirtyFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyFiles").field("pages", &self.pages()).finish_non_exhaustive()
    }
}
