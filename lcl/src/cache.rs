//! The lock cache of one node: every change of a cached mode goes through this machine.
//!
//! Keeps true between calls:
//!   * a resource has at most one lock of this node, and an entry whose mode is not NL is backed by
//!     it (S3-037, S3-039);
//!   * unless a surrender is under way the entry's mode is the mode that the lock manager says this
//!     node may use; during one the lock manager says at least as much;
//!   * at most one surrender of an entry is under way, and at most one request;
//!   * nothing is asked of the lock manager that no operation asked for (S3-038).
//!
//! Waits for nothing: surrenders and messages are [`Output`]s. Pinning what is cached does not come
//! here at all.

mod cached;
mod claims;
mod counters;
mod deferred;
mod explain;
mod hold;
mod invariants;
mod recover;
mod shrink;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use dlm::advisory::{ClaimId, Verdict};
use dlm::lockspace::EnterError;
use dlm::rebuild::Lingers;
use dlm::rebuild::welcome::Welcome;
use dlm::{
    Ast, Bucket, BucketName, HandleError, LockId, Lockspace, LockspaceId, Message, Mode,
    ResourceName,
};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member, View, ViewId};

use crate::class::{ClassTable, LockClass};
use crate::hot::HotResources;
use crate::pin::{Entry, Table, Want};
use crate::surrender::Surrendered;

use cached::{CachedLocks, Place, Request, Surrender, least_surrender};
pub use counters::Counters;
use deferred::Deferred;
pub use explain::CachedLock;
pub use hold::HOLD;
use hold::Holds;

/// What an entry says of its place holds.
const PLACED: &str = "an entry that has a place is there";

/// The lock cache of one node for one file system, and the only user of its lock manager.
pub struct LockCache {
    lockspace: Lockspace,
    table: Arc<Table>,
    classes: Arc<dyn ClassTable>,
    /// Every entry that has a lock, or for which one is asked.
    cached: CachedLocks,
    /// Those that could not be asked for, because this node has too many locks already.
    starved: BTreeSet<ResourceName>,
    /// Those that could not be asked for, because too much of this node waits at their home.
    deferred: Deferred,
    holds: Holds,
    /// Where the search for idle locks was last.
    hand: Place,
    surrenders_under_way: usize,
    is_cut_off: bool,
    outputs: VecDeque<Output>,
    counters: Counters,
    hot: HotResources,
}

/// What the caller has to carry out, in order.
pub enum Output {
    /// Over the ordered link to this incarnation.
    Send { to: Member, message: Message },
    /// Run [`surrender`](crate::surrender::surrender) as a task of its own and report its outcome
    /// by [`LockCache::handle_surrendered`].
    Surrender { entry: Arc<Entry>, from: Mode, to: Mode, class: Arc<dyn LockClass> },
    /// Call [`LockCache::handle_held`] at this time.
    Hold { entry: Arc<Entry>, until: Instant },
    /// See `dlm::Output`.
    Claimed { claim: ClaimId, verdict: Verdict },
    /// See `dlm::Output`.
    Rebuilt { view: ViewId },
    /// See `dlm::Output`.
    Redo { dead: Member, names: Vec<BucketName> },
    /// See `dlm::Output`.
    Wanted { dead: Member, names: Vec<BucketName> },
    /// See `dlm::Output`.
    Recovered { dead: Member },
}

impl LockCache {
    /// Nothing is cached, and no view is known: operations wait until [`LockCache::enter`].
    /// `lingers` tells under which names a class lets the kernel cache.
    pub fn new(
        id: LockspaceId,
        me: Member,
        table: Arc<Table>,
        classes: Arc<dyn ClassTable>,
        lingers: Lingers,
    ) -> LockCache {
        LockCache {
            lockspace: Lockspace::new(id, me, lingers),
            table,
            classes,
            cached: CachedLocks::default(),
            starved: BTreeSet::new(),
            deferred: Deferred::default(),
            holds: Holds::default(),
            hand: 0,
            surrenders_under_way: 0,
            is_cut_off: false,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            hot: HotResources::default(),
        }
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// For reading: views, homes, what the lock manager knows.
    pub fn lockspace(&self) -> &Lockspace {
        &self.lockspace
    }

    /// Is this node the home of the bucket, so that locks of it cost no message?
    pub fn is_home(&self, bucket: Bucket) -> bool {
        self.lockspace.home(bucket) == Some(self.lockspace.me())
    }

    /// How many locks this node has, requested ones included.
    pub fn cached_count(&self) -> usize {
        self.cached.len()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests, callouts and surrenders by resource, of those that have most.
    pub fn hot(&self) -> &HotResources {
        &self.hot
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // --- operations ---

    /// An operation waits for a mode that `entry` does not have
    /// ([`Requester::missed`](crate::pin::Requester::missed)).
    pub fn handle_missed(&mut self, entry: &Arc<Entry>, want: Want, now: Instant) {
        if self.is_cut_off {
            return;
        }
        self.counters.misses += 1;
        let place = self.cached.insert(entry);
        let cached = self.cached.get(place).expect("just inserted");
        assert!(Arc::ptr_eq(&cached.entry, entry), "a resource has one entry: {entry:?}");
        if let Request::Asked { no_queue: false, .. } | Request::Deferred = cached.request
            && want.no_queue
        {
            // Somebody waits for other nodes already: whoever would not wait need not ask.
            entry.refuse(Mode::NL);
        }
        self.advance(place, now);
        self.pump(now);
    }

    /// An operation does not wait any more
    /// ([`Requester::abandoned`](crate::pin::Requester::abandoned)).
    pub fn handle_abandoned(&mut self, entry: &Arc<Entry>, now: Instant) {
        if self.is_cut_off {
            return;
        }
        let Some(place) = entry.place() else { return };
        let cached = self.cached.get_mut(place).expect(PLACED);
        if cached.request == Request::Deferred && cached.entry.wanted().is_none() {
            cached.request = Request::None;
        }
        if let Request::Asked { is_cancelled, .. } = &mut cached.request
            && !*is_cancelled
            && entry.wanted().is_none()
        {
            *is_cancelled = true;
            let lock = cached.lock.expect("what is asked for has a lock");
            self.counters.cancels += 1;
            self.lockspace.cancel(lock, now);
        }
        self.advance(place, now);
        self.pump(now);
    }

    /// The surrender that was put out for `entry` has ended.
    pub fn handle_surrendered(
        &mut self,
        entry: &Arc<Entry>,
        surrendered: Surrendered,
        now: Instant,
    ) {
        self.surrenders_under_way -= 1;
        if self.is_cut_off {
            return;
        }
        self.counters.surrenders += 1;
        self.counters.damaged += u64::from(surrendered.damaged);
        let place = entry.place().expect("a lock stays until surrendered");
        let cached = self.cached.get_mut(place).expect(PLACED);
        let Surrender { from, to } = cached.surrender.take().expect("a surrender ends once");
        let lock = cached.lock.expect("what is surrendered is backed by a lock");
        // Only a holder of PW or EX leaves a value.
        let value = surrendered.value.filter(|_| from.covers(Mode::PW));
        self.holds.surrendered(entry);
        match std::mem::take(&mut cached.request) {
            Request::Granted { mode, value } => {
                // The lock manager holds `mode` for this node since the grant came: nothing to
                // lower. Its value is from before whatever this node wrote under `from`.
                let value = value.filter(|_| !from.writes());
                let class = self.classes.class(&entry.name());
                class.refresh(entry, mode, value.as_deref());
                entry.reopen(to);
                entry.raise(mode);
                self.holds.granted(&entry.name(), now);
            }
            request @ (Request::None | Request::Deferred) if to == Mode::NL => {
                cached.request = request;
                entry.reopen(to);
                cached.lock = None;
                self.lockspace.unlock(lock, value, now);
            }
            request @ (Request::None | Request::Deferred | Request::Asked { .. }) => {
                cached.request = request;
                entry.reopen(if is_kept(Rule::LowerBeforeTelling) { to } else { from });
                self.lockspace.lower(lock, to, value, now);
            }
        }
        self.advance(place, now);
        self.feed_starved(now);
        self.pump(now);
    }

    // --- the cluster ---

    /// See [`Lockspace::enter`]. A node that is not in `view` is cut off.
    pub fn enter(&mut self, view: View, welcome: &Welcome, now: Instant) -> Result<(), EnterError> {
        if !self.may_follow(&view) {
            return Ok(());
        }
        let outcome = self.lockspace.enter(view, welcome, now);
        self.pump(now);
        self.feed_all_deferred(now);
        self.pump(now);
        outcome
    }

    /// See [`Lockspace::handle_view`]. A node that is not in `view` is cut off.
    pub fn handle_view(
        &mut self,
        view: View,
        left: &[Member],
        now: Instant,
    ) -> Result<(), HandleError> {
        if !self.may_follow(&view) {
            return Ok(());
        }
        let outcome = self.lockspace.handle_view(view, left, now);
        self.pump(now);
        self.feed_all_deferred(now);
        self.pump(now);
        outcome
    }

    /// What a member tells those who join in the present view.
    pub fn welcome(&self) -> Welcome {
        self.lockspace.welcome()
    }

    /// See [`Lockspace::handle_message`].
    pub fn handle_message(
        &mut self,
        from: Member,
        lockspace: LockspaceId,
        message: Message,
        now: Instant,
    ) -> Result<(), HandleError> {
        if self.is_cut_off {
            return Ok(());
        }
        let outcome = self.lockspace.handle_message(from, lockspace, message, now);
        self.pump(now);
        outcome
    }

    /// This node is no member any more: no lock of it is valid, everybody who waits or comes later
    /// fails, and nothing more is sent. Final.
    pub fn cut_off(&mut self) {
        self.is_cut_off = true;
        self.table.cut_off();
        self.outputs.clear();
    }

    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    fn may_follow(&mut self, view: &View) -> bool {
        if !view.contains(self.lockspace.me()) {
            self.cut_off();
        }
        !self.is_cut_off
    }

    // --- inside ---

    /// Takes in what the lock manager has to say, in order.
    fn pump(&mut self, now: Instant) {
        while let Some(output) = self.lockspace.poll_output() {
            match output {
                dlm::Output::Send { to, message } => {
                    self.outputs.push_back(Output::Send { to, message });
                }
                dlm::Output::Ast { lock, name, ast } => self.answered(name, lock, ast, now),
                dlm::Output::Callout { lock, name, wanted, .. } => {
                    self.called_out(name, lock, wanted, now);
                }
                dlm::Output::Claimed { claim, verdict } => {
                    self.outputs.push_back(Output::Claimed { claim, verdict });
                }
                dlm::Output::Rebuilt { view } => self.outputs.push_back(Output::Rebuilt { view }),
                dlm::Output::Redo { dead, names } => {
                    self.outputs.push_back(Output::Redo { dead, names });
                }
                dlm::Output::Wanted { dead, names } => {
                    self.outputs.push_back(Output::Wanted { dead, names });
                }
                dlm::Output::Recovered { dead } => {
                    self.outputs.push_back(Output::Recovered { dead });
                }
            }
        }
    }

    fn answered(&mut self, name: ResourceName, lock: LockId, ast: Ast, now: Instant) {
        let place = CachedLocks::find(&self.table, &name).expect("what was asked for is kept");
        let cached = self.cached.get_mut(place).expect(PLACED);
        assert_eq!(cached.lock, Some(lock), "a resource has one lock: {name:?}");
        let Request::Asked { wanted, .. } = std::mem::take(&mut cached.request) else {
            panic!("an answer is for what was asked: {name:?}");
        };
        let home = self.lockspace.home(cached.entry.bucket());
        match ast {
            Ast::Denied(dlm::Denial::TooManyWait) => {
                if self.lockspace.held(lock).is_none() {
                    cached.lock = None;
                }
                // Who would not wait is not kept waiting for the others.
                let is_refused = cached.entry.wanted().is_some_and(|want| want.no_queue);
                if is_refused {
                    self.counters.refusals += 1;
                    cached.entry.refuse(Mode::NL);
                }
                if cached.entry.wanted().is_some() {
                    self.defer(place);
                }
                self.advance(place, now);
                return;
            }
            Ast::Granted { mode, value } => {
                self.counters.grants += 1;
                // A callout from before the grant was for the mode from before; if the new one is
                // in somebody's way the home says so after it.
                cached.called_out = None;
                if cached.surrender.is_some() {
                    self.counters.grants_while_surrendering += 1;
                    cached.request = Request::Granted { mode, value };
                } else {
                    self.classes.class(&name).refresh(&cached.entry, mode, value.as_deref());
                    cached.entry.raise(mode);
                    self.holds.granted(&name, now);
                }
            }
            Ast::Denied(reason) => {
                if self.lockspace.held(lock).is_none() {
                    cached.lock = None;
                }
                if reason == dlm::Denial::WouldWait {
                    self.counters.refusals += 1;
                    cached.entry.refuse(wanted);
                }
            }
        }
        self.advance(place, now);
        self.feed_deferred(home, now);
        self.feed_starved(now);
    }

    fn called_out(&mut self, name: ResourceName, lock: LockId, wanted: Mode, now: Instant) {
        self.counters.callouts += 1;
        self.hot.count(name, |heat| heat.callouts += 1);
        let place = CachedLocks::find(&self.table, &name).expect("a held lock is kept");
        let cached = self.cached.get_mut(place).expect(PLACED);
        assert_eq!(cached.lock, Some(lock), "a resource has one lock: {name:?}");
        let both = cached.called_out.map_or(wanted, |before| before.join(wanted));
        cached.called_out = Some(both);
        if let Some(Surrender { to, .. }) = cached.surrender {
            // It may have begun for want of memory only.
            cached.entry.call_out(to);
        }
        self.advance(place, now);
    }

    /// Takes the next step for one entry: answer a callout, ask for what is wanted, or forget it.
    fn advance(&mut self, place: Place, now: Instant) {
        let Some(cached) = self.cached.get_mut(place) else { return };
        if cached.surrender.is_some() {
            return;
        }
        let held = cached.entry.mode();
        if let Some(wanted) = cached.called_out {
            let to = least_surrender(held, wanted);
            if to != held && self.holds(place, now) {
                return;
            }
            let cached = self.cached.get_mut(place).expect(PLACED);
            cached.called_out = None;
            if to != held {
                let entry = Arc::clone(&cached.entry);
                self.begin_surrender(place, to);
                entry.call_out(to);
                return;
            }
        }
        let cached = self.cached.get_mut(place).expect(PLACED);
        if cached.request != Request::None {
            return;
        }
        if held == Mode::NL
            && let Some(lock) = cached.lock.take()
        {
            // Its conversion was given up. A new request goes behind those who wait already.
            self.lockspace.unlock(lock, None, now);
        }
        match cached.entry.wanted() {
            Some(want) => self.ask(place, want, now),
            None if cached.lock.is_none() => {
                let name = cached.entry.name();
                self.cached.remove(place);
                self.holds.forget(&name);
                self.table.forget(&name);
            }
            None => {}
        }
    }

    fn ask(&mut self, place: Place, want: Want, now: Instant) {
        let cached = self.cached.get_mut(place).expect("somebody wants it");
        let name = cached.entry.name();
        let Want { mode: wanted, no_queue, .. } = want;
        match cached.lock {
            Some(lock) => {
                self.counters.conversions += 1;
                self.lockspace.convert(lock, wanted, no_queue, now);
            }
            None => {
                let bucket = cached.entry.bucket();
                match self.lockspace.request(name, bucket, wanted, no_queue, now) {
                    Ok(lock) => cached.lock = Some(lock),
                    Err(dlm::TooManyLocks) => {
                        self.starved.insert(name);
                        self.make_room();
                        return;
                    }
                }
                self.counters.requests += 1;
            }
        }
        cached.request = Request::Asked { wanted, no_queue, is_cancelled: false };
        self.hot.count(name, |heat| heat.requests += 1);
    }

    fn begin_surrender(&mut self, place: Place, to: Mode) {
        let cached = self.cached.get_mut(place).expect("a held lock is kept");
        let name = cached.entry.name();
        let from = cached.entry.mode();
        cached.entry.begin_close();
        cached.surrender = Some(Surrender { from, to });
        self.surrenders_under_way += 1;
        self.hot.count(name, |heat| heat.surrenders += 1);
        let (entry, class) = (Arc::clone(&cached.entry), self.classes.class(&name));
        self.outputs.push_back(Output::Surrender { entry, from, to, class });
    }

    /// Asks for what had to wait until this node has fewer locks.
    fn feed_starved(&mut self, now: Instant) {
        while let Some(name) = self.starved.pop_first() {
            if let Some(place) = CachedLocks::find(&self.table, &name) {
                self.advance(place, now);
            }
            if self.starved.contains(&name) {
                break;
            }
        }
    }
}

impl std::fmt::Debug for LockCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LockCache")
            .field("lockspace", &self.lockspace)
            .field("cached", &self.cached.len())
            .field("surrenders_under_way", &self.surrenders_under_way)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Output::Send { to, message } => write!(f, "Send to {to} {message:?}"),
            Output::Surrender { entry, from, to, .. } => {
                write!(f, "Surrender {entry:?} from {from} to {to}")
            }
            Output::Hold { entry, until } => write!(f, "Hold {entry:?} until {until:?}"),
            Output::Claimed { claim, verdict } => write!(f, "Claimed {claim:?}: {verdict:?}"),
            Output::Rebuilt { view } => write!(f, "Rebuilt {view:?}"),
            Output::Redo { dead, names } => write!(f, "Redo of {dead} {names:?}"),
            Output::Wanted { dead, names } => write!(f, "Wanted of {dead} {names:?}"),
            Output::Recovered { dead } => write!(f, "Recovered {dead}"),
        }
    }
}
