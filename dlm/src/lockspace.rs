//! The lock manager of one node for one file system: the machine that ties the requester side, the
//! home side and the rebuild together.
//!
//! Keeps true between calls:
//!   * every bucket has one home, the same on every node that has followed the same views;
//!   * what happens to a lock is decided by its home alone, and a message counts only under the
//!     epoch of its bucket (I6);
//!   * outputs are in the order in which they must be carried out: on the way to one node they must
//!     not overtake each other.
//!
//! Reads no clock, sends nothing itself: messages, completions and callouts are [`Output`]s.

mod claims;
mod cycles;
mod recover;
mod request;
mod take_in;
mod view;

pub use view::EnterError;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mx_base::{Incarnation, Instant, Member, NodeId, View, ViewId};

use crate::advisory::{Advisory, ClaimId, Verdict};
use crate::counters::Counters;
use crate::early::Early;
use crate::home::{Home, HomeBucket, Waiting};
use crate::homes::Homes;
use crate::lock::{Ast, Denial, LockId};
use crate::message::{BucketEpoch, BucketName, LockspaceId, Message};
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::rebuild::dead::DeadTable;
use crate::rebuild::recovery::{LiveNamesAsked, Recoveries};
use crate::rebuild::remnant::Lingers;
use crate::requester::OwnLocks;
use crate::resource::{News, Notice, Notices, Queued};
use crate::violation::Violation;

/// The lock manager of one node for one file system.
#[derive(Clone, Hash)]
pub struct Lockspace {
    pub(crate) id: LockspaceId,
    pub(crate) me: Member,
    /// The committed view this node acts under; view 0 has no members.
    pub(crate) view: View,
    pub(crate) homes: Homes,
    pub(crate) own: OwnLocks,
    pub(crate) home: Home,
    pub(crate) advisory: Advisory,
    /// Buckets homed here in which not everybody has reported.
    pub(crate) rebuilding: BTreeSet<Bucket>,
    /// [`Output::Rebuilt`] has been given for the present view.
    is_rebuilt: bool,
    /// The view through which each member has reported.
    pub(crate) reported: BTreeMap<Member, ViewId>,
    pub(crate) dead: DeadTable,
    /// The latest life of each node that a view has shown.
    newest: BTreeMap<NodeId, Incarnation>,
    pub(crate) recoveries: Recoveries,
    /// By dead member: the names that its recoverer has told this home.
    live_names: BTreeMap<Member, LiveNamesAsked>,
    /// By dead member: the recoverer that this home has answered under the present view.
    redoing: BTreeMap<Member, Member>,
    pub(crate) early: Early,
    notices: Vec<Notice>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

/// What the caller has to carry out, in order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Over the ordered link to this incarnation. When it is no member any more the message may be
    /// dropped.
    Send { to: Member, message: Message },
    /// A request or conversion of this node has ended.
    Ast { lock: LockId, name: ResourceName, ast: Ast },
    /// Somebody waits for `wanted`, which the mode held forbids; `waiters` wait in all.
    Callout { lock: LockId, name: ResourceName, wanted: Mode, waiters: u32 },
    /// A claim of this node has ended.
    Claimed { claim: ClaimId, verdict: Verdict },
    /// Every bucket homed here under `view` has been rebuilt. Given once for a view, unless
    /// another view comes first.
    Rebuilt { view: ViewId },
    /// Redo the records of `dead` for these names, in this order, and report each by
    /// [`Lockspace::replayed`]. Given once for a recovery, also when there is nothing to redo.
    Redo { dead: Member, names: Vec<BucketName> },
    /// Somebody has begun to wait for these names, which are in limbo still: they come first among
    /// what is left to redo.
    Wanted { dead: Member, names: Vec<BucketName> },
    /// Every member knows that nothing of `dead` is left: the recovery may be recorded as done.
    Recovered { dead: Member },
}

impl Lockspace {
    /// How many requests and conversions of one member may wait at one home: the next one that
    /// would have to is denied ([`Denial::TooManyWait`]).
    pub const WAITING_MAX: u32 = Waiting::MAX;

    /// A lock manager that has not entered any view: requests wait until it has. What a dead
    /// member held of a name that `lingers` forbids writing until its caches are gone.
    pub fn new(id: LockspaceId, me: Member, lingers: Lingers) -> Lockspace {
        Lockspace {
            id,
            me,
            view: View::default(),
            homes: Homes::new(),
            own: OwnLocks::new(),
            home: Home::new(lingers),
            advisory: Advisory::default(),
            rebuilding: BTreeSet::new(),
            is_rebuilt: true,
            reported: BTreeMap::new(),
            dead: DeadTable::new(),
            newest: BTreeMap::new(),
            recoveries: Recoveries::new(),
            live_names: BTreeMap::new(),
            redoing: BTreeMap::new(),
            early: Early::default(),
            notices: Vec::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    pub fn id(&self) -> LockspaceId {
        self.id
    }

    pub fn me(&self) -> Member {
        self.me
    }

    /// The view this node acts under; without members before the first.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Who decides about the bucket; `None` before the first view.
    pub fn home(&self, bucket: Bucket) -> Option<Member> {
        self.homes.home(bucket)
    }

    /// The next thing to carry out.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many locks this node has, requested ones included.
    pub fn locks_count(&self) -> usize {
        self.own.len()
    }

    /// The mode this node may use; `None` when the lock is unknown or was never granted.
    pub fn held(&self, lock: LockId) -> Option<Mode> {
        self.own.get(lock)?.held
    }

    fn at(&self, bucket: Bucket) -> BucketEpoch {
        BucketEpoch { bucket, epoch: self.homes.epoch(bucket) }
    }

    fn send(&mut self, to: Member, message: Message) {
        tracing::trace!(%to, kind = ?message.kind(), "send");
        self.counters.count_sent(message.kind());
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Lets a bucket that is homed here act, and passes on what it has to tell.
    fn at_home(
        &mut self,
        bucket: Bucket,
        now: Instant,
        act: impl FnOnce(&mut HomeBucket, &mut Notices<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut list = std::mem::take(&mut self.notices);
        let outcome = act(self.home.homed(bucket), &mut Notices { now, bucket, list: &mut list });
        self.pass_on(&mut list, now);
        self.notices = list;
        outcome
    }

    /// Lets the home take in a request or conversion, which waits if it has to and may.
    fn ask_home(
        &mut self,
        bucket: Bucket,
        name: ResourceName,
        asked: Queued,
        kind: Asking,
        now: Instant,
    ) -> Result<(), Violation> {
        let owner = asked.key.owner;
        let has_room = self.home.waiting.has_room(owner);
        // Ends with the answer, which may come at once.
        self.home.waiting.begin(owner);
        let outcome = self.at_home(bucket, now, |home, notices| match kind {
            Asking::Request => home.request(name, asked, has_room, notices),
            Asking::Convert => home.convert(name, asked, has_room, notices),
        });
        match outcome {
            Ok(()) => self.tell_wanted(bucket, name),
            Err(_) => self.home.waiting.end(owner),
        }
        outcome
    }

    /// Lets the home side act as a whole, and passes on what it has to tell.
    fn all_at_home<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Home, &mut Vec<Notice>) -> T,
    ) -> T {
        let mut list = std::mem::take(&mut self.notices);
        let outcome = act(&mut self.home, &mut list);
        self.pass_on(&mut list, now);
        self.notices = list;
        outcome
    }

    /// To owners on other nodes by message, to this node's own locks directly.
    fn pass_on(&mut self, list: &mut Vec<Notice>, now: Instant) {
        for Notice { bucket, to, news } in list.drain(..) {
            if !matches!(news, News::Callout { .. }) {
                self.home.waiting.end(to.owner);
            }
            if to.owner != self.me {
                let (at, lock) = (self.at(bucket), to.id);
                let message = match news {
                    News::Granted { mode, lowers, value } => {
                        Message::Granted { at, lock, mode, lowers, value }
                    }
                    News::Denied(reason) => Message::Denied { at, lock, reason },
                    News::Callout { wanted, waiters } => {
                        Message::Callout { at, lock, wanted, waiters }
                    }
                };
                self.send(to.owner, message);
                continue;
            }
            let outcome = match news {
                News::Granted { mode, lowers, value } => {
                    self.counters.grants_local += 1;
                    self.granted(to.id, mode, lowers, value, now)
                }
                News::Denied(reason) => self.denied(to.id, reason, now),
                News::Callout { wanted, waiters } => {
                    self.called_out(to.id, wanted, waiters);
                    Ok(())
                }
            };
            outcome.expect("a home tells its own node only what fits");
        }
    }

    // --- what a home says about a lock of this node ---

    fn granted(
        &mut self,
        id: LockId,
        mode: Mode,
        lowers: u32,
        value: Option<Box<crate::ValueBlock>>,
        now: Instant,
    ) -> Result<(), Violation> {
        let lock = self.own.get_mut(id).ok_or(Violation::LockUnknown)?;
        if lock.asked.is_none_or(|asked| asked.wanted != mode) {
            return Err(Violation::NothingAsked);
        }
        // A grant that does not know of the last Lower carries the value from before it.
        let value = value.filter(|_| lock.lowers == lowers);
        lock.asked = None;
        lock.held = Some(mode);
        lock.grants = lock.grants.wrapping_add(1);
        lock.value = if mode.covers(Mode::PR) { value.clone() } else { None };
        lock.since = now;
        let name = lock.name;
        self.outputs.push_back(Output::Ast { lock: id, name, ast: Ast::Granted { mode, value } });
        Ok(())
    }

    fn denied(&mut self, id: LockId, reason: Denial, now: Instant) -> Result<(), Violation> {
        let lock = self.own.get_mut(id).ok_or(Violation::LockUnknown)?;
        lock.asked.take().ok_or(Violation::NothingAsked)?;
        lock.since = now;
        let name = lock.name;
        if lock.held.is_none() {
            self.own.remove(id);
        }
        self.counters.denials += 1;
        self.outputs.push_back(Output::Ast { lock: id, name, ast: Ast::Denied(reason) });
        Ok(())
    }

    fn called_out(&mut self, id: LockId, wanted: Mode, waiters: u32) {
        // Unlocked or lowered while the callout was on the way: nothing is left to give up.
        let Some(lock) = self.own.get(id) else { return };
        let in_the_way = lock.held.is_some_and(|held| !held.compatible(wanted));
        if in_the_way {
            self.counters.callouts += 1;
            let name = lock.name;
            self.outputs.push_back(Output::Callout { lock: id, name, wanted, waiters });
        }
    }
}

/// What is asked of a home.
#[derive(Clone, Copy)]
enum Asking {
    Request,
    Convert,
}

impl std::fmt::Debug for Lockspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lockspace")
            .field("me", &self.me)
            .field("view", &self.view.id)
            .field("locks", &self.own.len())
            .field("rebuilding", &self.rebuilding.len())
            .finish_non_exhaustive()
    }
}
