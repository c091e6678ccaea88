//! One mounted file system: what all operations share.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;
use futures_util::future::{Either, select};
use lcl::pin::{Entry, Pin, PinError, Want};
use mx_base::{Duration, FsId, SlotId, Timestamp};
use parking_lot::Mutex;

use crate::alloc::claim::Claimant;
use crate::alloc::claim::Use;
use crate::alloc::{Groups, Space};
use crate::cache::{Fault, Step};
use crate::env::{Env, Usage};
use crate::error::{Corruption, FsError};
use crate::file::{FileId, InodeNo};
use crate::freeze::Freezing;
use crate::inode::{Core, Inode, State};
use crate::journal::scan::ScanError;
use crate::journal::{Journal, Lsn, Reservation, Transaction};
use crate::layout::Layout;
use crate::locks::Resource;
use crate::ondisk::inode::InodeBlock;
use crate::ops::ahead::Listings;
use crate::ops::statfs::SlotUsage;
use crate::slot::head::SlotHead;
use crate::superblock::Superblock;
use crate::writeback::DirtyFiles;

/// How a file system is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    pub read_only: bool,
    /// Never update access times; otherwise as `relatime`.
    pub no_atime: bool,
    /// Dirty pages of this mount at which writers wait; 4 KiB each.
    pub dirty_pages_max: usize,
    /// Clean pages kept for files that are open for writing.
    pub clean_pages_max: usize,
    /// How long the journal may hold what is not in place while nobody wants room in it.
    pub checkpoint_interval: Duration,
    /// Runs of blocks that one transaction of a truncation or deletion frees.
    pub runs_cut_at_once: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            read_only: false,
            no_atime: false,
            dirty_pages_max: 64 << (20 - 12),
            clean_pages_max: 128 << (20 - 12),
            checkpoint_interval: Duration::from_secs(5),
            runs_cut_at_once: 32,
        }
    }
}

/// What a node that lives needs to answer, or to give an idle lock up, and some more.
pub(crate) const PATIENCE: Duration = Duration::from_millis(20);

/// A mounted file system on this node.
pub struct Fs {
    pub(crate) env: Env,
    pub(crate) options: Options,
    pub(crate) fs_id: FsId,
    pub(crate) label: String,
    pub(crate) layout: Layout,
    pub(crate) root: FileId,
    /// Key of the hash of names in directories.
    pub(crate) hash_key: [u8; 16],
    /// Inodes may have extended attributes.
    pub(crate) xattrs: bool,
    pub(crate) journal: Arc<Journal>,
    /// The head of this mount's slot, while the slot is live.
    pub(crate) head: Mutex<Option<SlotHead>>,
    pub(crate) inodes: Mutex<BTreeMap<InodeNo, Arc<Inode>>>,
    pub(crate) groups: Groups,
    /// Claims on blocks for data, and what of them is promised.
    pub(crate) space: Space,
    /// Claims on blocks for nodes of extent trees.
    pub(crate) nodes: Space,
    pub(crate) dirty: DirtyFiles,
    pub(crate) slot_usage: SlotUsage,
    pub(crate) listings: Listings,
    pub(crate) freezing: Freezing,
    damage: Mutex<BTreeMap<Resource, String>>,
    /// Reads are noted in access times.
    pub(crate) keeps_atime: AtomicBool,
    /// No operation begins any more.
    pub(crate) closing: AtomicBool,
    /// No transaction begins any more either: work in the background ends where it waits.
    over: Event,
}

impl Fs {
    pub(crate) fn new(
        env: Env,
        options: Options,
        sb: &Superblock,
        journal: Arc<Journal>,
    ) -> Arc<Fs> {
        let freezing = Freezing::new(&*env.locks, &sb.layout);
        Arc::new(Fs {
            env,
            options,
            fs_id: sb.fs_id,
            label: sb.label.clone(),
            layout: sb.layout,
            root: sb.root,
            hash_key: sb.hash_key,
            xattrs: sb.xattrs,
            journal,
            head: Mutex::default(),
            inodes: Mutex::default(),
            groups: Groups::default(),
            space: Space::default(),
            nodes: Space::default(),
            dirty: DirtyFiles::new(options.dirty_pages_max),
            slot_usage: SlotUsage::default(),
            listings: Listings::default(),
            freezing,
            damage: Mutex::default(),
            keeps_atime: AtomicBool::new(!options.read_only && !options.no_atime),
            closing: AtomicBool::new(false),
            over: Event::new(),
        })
    }

    pub fn fs_id(&self) -> FsId {
        self.fs_id
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// The root directory.
    pub fn root(&self) -> FileId {
        self.root
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where this mount has its journal.
    pub fn slot(&self) -> SlotId {
        self.journal.slot()
    }

    /// What this mount has taken from the file system, less what it gave back.
    pub fn usage(&self) -> Usage {
        self.journal.usage()
    }

    /// The mount is being left, or was cut off.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// What it was mounted with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Objects that are isolated, and why.
    pub fn damage(&self) -> Vec<(Resource, String)> {
        self.damage.lock().iter().map(|(r, why)| (*r, why.clone())).collect()
    }

    pub(crate) fn claimant(&self) -> Claimant {
        Claimant { slot: self.journal.slot(), member: self.env.group.me() }
    }

    /// The claims of one use, and what of them is promised.
    pub(crate) fn account(&self, of: Use) -> &Space {
        match of {
            Use::Data => &self.space,
            Use::Nodes => &self.nodes,
        }
    }

    pub(crate) fn transaction(&self) -> Transaction {
        Transaction::new(self.fs_id)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.env.runtime.wall_time()
    }

    /// Makes a transaction happen; see [`Journal::commit`].
    pub(crate) fn commit(&self, mut tx: Transaction, reservation: Reservation) -> Lsn {
        for (group, of, blocks) in tx.take_claims() {
            self.account(of).change(blocks);
            group.claims_changed(of, blocks);
        }
        let cores = tx.take_cores();
        let lsn = self.journal.commit(tx, reservation);
        for (inode, core) in cores {
            let mut state = inode.state.lock();
            state.core = Some(core);
            inode.follow_block(&mut state);
            self.note_dirty(&inode, &state);
        }
        lsn
    }

    /// The outcome of a step for which everything was brought in before.
    ///
    /// # Panics
    /// When a block is missing all the same.
    pub(crate) fn settle_now<T>(&self, step: Step<T>) -> Result<T, FsError> {
        match step {
            Ok(value) => Ok(value),
            Err(Fault::Fail(error)) => Err(error),
            Err(Fault::Missing(missing)) => unreachable!("{missing:?} was brought in before"),
        }
    }

    /// One transaction of up to `blocks` blocks, on one inode whose state is latched while it is
    /// built and committed (so it does not use [`Inode::edit_core`]). The step is run again from its start when a block has to be brought
    /// in, so it changes the state only behind everything that can miss.
    pub(crate) async fn change<T>(
        &self,
        inode: &Arc<Inode>,
        blocks: usize,
        mut step: impl FnMut(&mut State, &mut Transaction) -> Step<T>,
    ) -> Result<T, FsError> {
        let reservation = self.journal.reserve(blocks).await?;
        loop {
            let missing = {
                let mut state = inode.state.lock();
                let mut tx = self.transaction();
                match inode.bring_core(&mut state).and_then(|()| step(&mut state, &mut tx)) {
                    Ok(value) => {
                        self.commit(tx, reservation);
                        inode.follow_block(&mut state);
                        return Ok(value);
                    }
                    Err(Fault::Fail(error)) => return Err(error),
                    Err(Fault::Missing(missing)) => missing,
                }
            };
            self.load(&missing).await?;
        }
    }

    /// One transaction on objects that are pinned exclusively.
    pub(crate) async fn transact<T>(
        &self,
        blocks: usize,
        mut step: impl FnMut(&mut Transaction) -> Step<T>,
    ) -> Result<T, FsError> {
        let reservation = self.journal.reserve(blocks).await?;
        loop {
            let mut tx = self.transaction();
            match step(&mut tx) {
                Ok(value) => {
                    self.commit(tx, reservation);
                    return Ok(value);
                }
                Err(Fault::Fail(error)) => return Err(error),
                Err(Fault::Missing(missing)) => self.load(&missing).await?,
            }
        }
    }

    /// An object contradicts itself: it is isolated and listed.
    pub(crate) fn report_damage(&self, resource: Resource, corruption: &Corruption) {
        self.damage.lock().entry(resource).or_insert_with(|| {
            tracing::error!(?resource, %corruption, "damaged object isolated");
            corruption.to_string()
        });
    }

    /// Changes of an object could not be made durable: it is isolated and listed.
    pub(crate) fn report_lost(&self, resource: Resource, why: &FsError) {
        tracing::error!(?resource, error = %why, "changes lost, object isolated");
        self.damage.lock().insert(resource, why.to_string());
    }

    /// A dead node's journal is damaged: what it had is not whole, and its slot is left as it is.
    pub(crate) fn report_journal(&self, slot: SlotId, error: &ScanError) {
        tracing::error!(slot = slot.0, %error, "journal of a dead node not replayed in whole");
        let why = format!("{error}: its last changes are lost in part, and groups isolated");
        self.damage.lock().insert(Resource::Slot(slot), why);
    }

    /// Work in the background, until the mount is over. What it waits for then may be in limbo until
    /// somebody replays, and this mount does not any more; it left the file on the list of orphans.
    pub(crate) async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = self.over.listen();
        if self.journal.is_closed() {
            return None;
        }
        match select(pin!(work), over).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(((), _)) => None,
        }
    }

    /// The journal is closed: no work is between the beginning of a transaction and its commit.
    pub(crate) fn end_background(&self) {
        assert!(self.journal.is_closed(), "what is in a transaction is not dropped");
        self.over.notify(usize::MAX);
    }

    /// A pin for whoever holds what others need; `None` when it takes longer than nodes that live do: a
    /// dead one has the lock, or is its home.
    pub(crate) async fn pin_soon(
        &self,
        entry: &Arc<Entry>,
        want: Want,
    ) -> Result<Option<Pin>, PinError> {
        if let Some(pin) = entry.try_pin(want) {
            return Ok(Some(pin));
        }
        match select(entry.pin(want), self.env.runtime.sleep(PATIENCE)).await {
            Either::Left((pin, _)) => pin.map(Some),
            Either::Right(((), _)) => Ok(None),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), FsError> {
        if self.options.read_only { Err(FsError::ReadOnly) } else { self.check_open() }
    }

    pub(crate) fn check_open(&self) -> Result<(), FsError> {
        if self.closing.load(Ordering::Acquire) { Err(FsError::CutOff) } else { Ok(()) }
    }
}

impl Inode {
    /// Brings the attributes in, into a state that is latched.
    pub(crate) fn bring_core(self: &Arc<Self>, state: &mut State) -> Step<()> {
        if state.damaged {
            return Err(FsError::Damaged.into());
        }
        if state.core.is_none() {
            let block = self.block()?.data();
            state.core = Some(Core::of(&block.get::<InodeBlock>().core));
        }
        Ok(())
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("fs_id", &self.fs_id)
            .field("slot", &self.journal.slot())
            .finish_non_exhaustive()
    }
}
