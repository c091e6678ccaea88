//! One resource as its home knows it: who holds it, who waits, its value block.
//!
//! Keeps true between calls:
//!   * the granted modes are pairwise compatible, and compatible with every remnant that was there
//!     before them;
//!   * a lock is in `granted` or in `waiting`, never in both; one in `converting` is in `granted`;
//!   * unless the bucket is being rebuilt, the head of the queues cannot be granted, and every
//!     lock in its way has been called out for what the head wants.

mod grant;

use std::collections::VecDeque;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member};
use smallvec::SmallVec;

use crate::lock::{Denial, LockRef};
use crate::mode::Mode;
use crate::mode_set::ModeSet;
use crate::name::Bucket;
use crate::rebuild::remnant::Remnant;
use crate::value_block::ValueBlock;

/// Queues and value block of one resource. Most have one holder and nobody who waits, so the rest
/// is on the heap.
#[derive(Clone, Hash)]
pub(crate) struct Resource {
    granted: SmallVec<[HomeLock; 1]>,
    /// `None` while both queues are empty.
    queues: Option<Box<Queues>>,
    /// What the last holder of PW or EX left; `None` when nobody can vouch for it.
    value: Option<Box<ValueBlock>>,
    remnants: Vec<Remnant>,
}

/// A granted lock.
#[derive(Clone, Copy, Hash, Debug)]
pub(crate) struct HomeLock {
    pub(crate) key: LockRef,
    pub(crate) granted: Mode,
    /// The mode it was last called out for, since `granted` last changed.
    pub(crate) called_out: Option<Mode>,
    /// How often this home has granted it a mode.
    grants: u32,
    /// How often its owner has lowered it and this home has taken it in.
    lowers: u32,
    pub(crate) since: Instant,
}

#[derive(Clone, Hash, Default)]
struct Queues {
    converting: VecDeque<Queued>,
    waiting: VecDeque<Queued>,
}

/// A request or conversion that waits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Queued {
    pub(crate) key: LockRef,
    pub(crate) wanted: Mode,
    pub(crate) no_queue: bool,
    pub(crate) since: Instant,
}

/// May this home decide about the resource yet?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Phase {
    /// Not everybody has reported: take in, grant nothing.
    Rebuilding,
    Ready,
}

/// What a home tells the owner of a lock.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Notice {
    pub(crate) bucket: Bucket,
    pub(crate) to: LockRef,
    pub(crate) news: News,
}

#[derive(Clone, Hash, Debug)]
pub(crate) enum News {
    /// `lowers` tells the owner which of its Lowers this grant knows of.
    Granted {
        mode: Mode,
        lowers: u32,
        value: Option<Box<ValueBlock>>,
    },
    Denied(Denial),
    Callout {
        wanted: Mode,
        waiters: u32,
    },
}

/// Where notices go, in order.
pub(crate) struct Notices<'a> {
    pub(crate) now: Instant,
    pub(crate) bucket: Bucket,
    pub(crate) list: &'a mut Vec<Notice>,
}

impl Notices<'_> {
    fn push(&mut self, to: LockRef, news: News) {
        self.list.push(Notice { bucket: self.bucket, to, news });
    }
}

impl Resource {
    /// A resource that nobody is known to hold, on which the dead may stand in the way so.
    pub(crate) fn new(remnants: Vec<Remnant>) -> Resource {
        Resource { granted: SmallVec::new(), queues: None, value: None, remnants }
    }

    /// Nothing is known of it but its name.
    pub(crate) fn is_unused(&self) -> bool {
        self.granted.is_empty() && self.queues.is_none() && self.remnants.is_empty()
    }

    pub(crate) fn granted(&self) -> &[HomeLock] {
        &self.granted
    }

    pub(crate) fn converting(&self) -> impl Iterator<Item = &Queued> {
        self.queues.iter().flat_map(|queues| &queues.converting)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Queued> {
        self.queues.iter().flat_map(|queues| &queues.waiting)
    }

    pub(crate) fn value(&self) -> Option<&ValueBlock> {
        self.value.as_deref()
    }

    pub(crate) fn remnants(&self) -> &[Remnant] {
        &self.remnants
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.queues.is_some()
    }

    /// The one whose turn it is: the first that converts, else the first that waits.
    pub(crate) fn head(&self) -> Option<&Queued> {
        let queues = self.queues.as_ref()?;
        queues.converting.front().or(queues.waiting.front())
    }

    /// Does `mode` go with everything granted, but for the lock `of` itself, and with the dead?
    pub(crate) fn is_grantable(&self, mode: Mode, of: LockRef) -> bool {
        let unchecked =
            |held| !is_kept(Rule::CheckReadersBeforeWriter) && (held, mode) == (Mode::PR, Mode::EX);
        let goes_with = |held: Mode| held.compatible(mode) || unchecked(held);
        self.granted.iter().all(|lock| lock.key == of || goes_with(lock.granted))
            && !self.remnants.iter().any(|remnant| remnant.blocks(mode))
    }

    /// Takes in what a dead member holds or may hold.
    pub(crate) fn add_remnant(&mut self, remnant: Remnant) {
        if remnant.is_limbo() {
            // The dead may have changed what the value block describes.
            self.value.take_if(|_| is_kept(Rule::ForgetValueInLimbo));
        }
        match self.remnants.iter_mut().find(|known| known.dead == remnant.dead) {
            Some(known) => known.modes = known.modes.union(remnant.modes),
            None if remnant.is_over() => {}
            None => self.remnants.push(remnant),
        }
    }

    /// Changes what `dead` holds; tells whether it held anything.
    pub(crate) fn change_remnant(
        &mut self,
        dead: Member,
        change: impl FnOnce(&mut Remnant),
    ) -> bool {
        let Some(at) = self.remnants.iter().position(|remnant| remnant.dead == dead) else {
            return false;
        };
        change(&mut self.remnants[at]);
        if self.remnants[at].is_over() {
            self.remnants.remove(at);
        }
        true
    }

    /// Takes out everything of `owner`; returns the modes it held.
    pub(crate) fn remove_owner(&mut self, owner: Member) -> ModeSet {
        let mut held = ModeSet::EMPTY;
        self.granted.retain(|lock| {
            if lock.key.owner == owner {
                held = held.with(lock.granted);
            }
            lock.key.owner != owner
        });
        if is_kept(Rule::DropQueueOfDead)
            && let Some(queues) = &mut self.queues
        {
            queues.converting.retain(|queued| queued.key.owner != owner);
            queues.waiting.retain(|queued| queued.key.owner != owner);
            self.drop_empty_queues();
        }
        if held.contains(Mode::PW) || held.contains(Mode::EX) {
            self.value.take_if(|_| is_kept(Rule::ForgetValueInLimbo));
        }
        held
    }

    pub(crate) fn concerns(&self, owner: Member) -> bool {
        self.granted.iter().any(|lock| lock.key.owner == owner)
            || self.converting().chain(self.waiting()).any(|queued| queued.key.owner == owner)
    }

    fn drop_empty_queues(&mut self) {
        let is_empty = |queues: &Queues| queues.converting.is_empty() && queues.waiting.is_empty();
        if self.queues.as_deref().is_some_and(is_empty) {
            self.queues = None;
        }
    }
}
