//! One resource as its home knows it: who holds it, who waits, its value block.
//!
//! Keeps true between calls:
//!   * the granted modes are pairwise compatible, and compatible with every remnant that was there
//!     before them;
//!   * a lock is in `granted` or in `waiting`, never in both; one in `converting` is in `granted`;
//!   * unless the bucket is being rebuilt, the head of the queues cannot be granted, and every
//!     lock in its way has been called out for what the head wants.

mod grant;
mod granted;

use std::collections::VecDeque;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Incarnation, Instant, Member, NodeId};

use crate::lock::{Denial, LockId, LockRef};
use crate::mode::Mode;
use crate::mode_set::ModeSet;
use crate::name::Bucket;
use crate::rebuild::remnant::Remnant;
use crate::value_block::ValueBlock;
use granted::Granted;

/// Queues and value block of one resource. Most have one holder and nobody who waits, so the rest
/// is on the heap.
#[derive(Clone, Hash)]
pub(crate) struct Resource {
    granted: Granted,
    /// `None` while there is nothing of it.
    rare: Option<Box<Rare>>,
}

/// What few resources have.
#[derive(Clone, Hash, Default)]
struct Rare {
    /// `None` while both queues are empty.
    queues: Option<Queues>,
    /// What the last holder of PW or EX left; `None` when nobody can vouch for it.
    value: Option<Box<ValueBlock>>,
    remnants: Vec<Remnant>,
}

/// A granted lock. There is one for each lock that anybody holds, so its key is in pieces.
#[derive(Clone, Copy, Hash, Debug)]
pub(crate) struct HomeLock {
    id: LockId,
    pub(crate) since: Instant,
    incarnation: Incarnation,
    node: NodeId,
    pub(crate) granted: Mode,
    /// The mode it was last called out for, since `granted` last changed.
    pub(crate) called_out: Option<Mode>,
    /// How often this home has granted it a mode.
    grants: u32,
    /// How often its owner has lowered it and this home has taken it in.
    lowers: u32,
}

const _: () = assert!(size_of::<HomeLock>() == 32 && size_of::<Resource>() == 40);

impl HomeLock {
    fn new(key: LockRef, granted: Mode, grants: u32, since: Instant) -> HomeLock {
        let LockRef { owner: Member { node, incarnation }, id } = key;
        HomeLock { id, since, incarnation, node, granted, called_out: None, grants, lowers: 0 }
    }

    pub(crate) fn key(&self) -> LockRef {
        let owner = Member { node: self.node, incarnation: self.incarnation };
        LockRef { owner, id: self.id }
    }
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
        let rare = Rare { remnants, ..Rare::default() };
        let rare = (!rare.is_empty()).then(|| Box::new(rare));
        Resource { granted: Granted::default(), rare }
    }

    /// Nothing is known of it but its name.
    pub(crate) fn is_unused(&self) -> bool {
        let is_idle = |rare: &Rare| rare.queues.is_none() && rare.remnants.is_empty();
        self.granted.is_empty() && self.rare.as_deref().is_none_or(is_idle)
    }

    pub(crate) fn granted(&self) -> &[HomeLock] {
        &self.granted
    }

    pub(crate) fn converting(&self) -> impl Iterator<Item = &Queued> {
        self.queues().into_iter().flat_map(|queues| &queues.converting)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Queued> {
        self.queues().into_iter().flat_map(|queues| &queues.waiting)
    }

    pub(crate) fn value(&self) -> Option<&ValueBlock> {
        self.rare.as_deref()?.value.as_deref()
    }

    pub(crate) fn remnants(&self) -> &[Remnant] {
        self.rare.as_deref().map_or(&[], |rare| &rare.remnants)
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        self.queues().is_some()
    }

    /// The one whose turn it is: the first that converts, else the first that waits.
    pub(crate) fn head(&self) -> Option<&Queued> {
        let queues = self.queues()?;
        queues.converting.front().or(queues.waiting.front())
    }

    /// Does `mode` go with everything granted, but for the lock `of` itself, and with the dead?
    pub(crate) fn is_grantable(&self, mode: Mode, of: LockRef) -> bool {
        let unchecked =
            |held| !is_kept(Rule::CheckReadersBeforeWriter) && (held, mode) == (Mode::PR, Mode::EX);
        let goes_with = |held: Mode| held.compatible(mode) || unchecked(held);
        self.granted.iter().all(|lock| lock.key() == of || goes_with(lock.granted))
            && !self.remnants().iter().any(|remnant| remnant.blocks(mode))
    }

    /// Takes in what a dead member holds or may hold.
    pub(crate) fn add_remnant(&mut self, remnant: Remnant) {
        let rare = self.rare.get_or_insert_default();
        if remnant.is_limbo() {
            // The dead may have changed what the value block describes.
            rare.value.take_if(|_| is_kept(Rule::ForgetValueInLimbo));
        }
        match rare.remnants.iter_mut().find(|known| known.dead == remnant.dead) {
            Some(known) => known.modes = known.modes.union(remnant.modes),
            None if remnant.is_over() => {}
            None => rare.remnants.push(remnant),
        }
        self.drop_empty();
    }

    /// Changes what `dead` holds; tells whether it held anything.
    pub(crate) fn change_remnant(
        &mut self,
        dead: Member,
        change: impl FnOnce(&mut Remnant),
    ) -> bool {
        let Some(rare) = &mut self.rare else { return false };
        let Some(at) = rare.remnants.iter().position(|remnant| remnant.dead == dead) else {
            return false;
        };
        change(&mut rare.remnants[at]);
        if rare.remnants[at].is_over() {
            rare.remnants.remove(at);
        }
        self.drop_empty();
        true
    }

    /// Takes out everything of `owner`; returns the modes it held.
    pub(crate) fn remove_owner(&mut self, owner: Member) -> ModeSet {
        let mut held = ModeSet::EMPTY;
        self.granted.retain(|lock| {
            let is_its = lock.key().owner == owner;
            if is_its {
                held = held.with(lock.granted);
            }
            !is_its
        });
        if is_kept(Rule::DropQueueOfDead)
            && let Some(queues) = self.queues_mut()
        {
            queues.converting.retain(|queued| queued.key.owner != owner);
            queues.waiting.retain(|queued| queued.key.owner != owner);
        }
        if (held.contains(Mode::PW) || held.contains(Mode::EX))
            && let Some(rare) = &mut self.rare
        {
            rare.value.take_if(|_| is_kept(Rule::ForgetValueInLimbo));
        }
        self.drop_empty();
        held
    }

    pub(crate) fn concerns(&self, owner: Member) -> bool {
        self.granted.iter().any(|lock| lock.key().owner == owner)
            || self.converting().chain(self.waiting()).any(|queued| queued.key.owner == owner)
    }

    fn queues(&self) -> Option<&Queues> {
        self.rare.as_deref()?.queues.as_ref()
    }

    fn queues_mut(&mut self) -> Option<&mut Queues> {
        self.rare.as_deref_mut()?.queues.as_mut()
    }

    /// For whoever puts something into one of them.
    fn new_queues(&mut self) -> &mut Queues {
        self.rare.get_or_insert_default().queues.get_or_insert_default()
    }

    fn set_value(&mut self, value: Option<Box<ValueBlock>>) {
        if value.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().value = value;
            self.drop_empty();
        }
    }

    /// Gives back what says nothing.
    fn drop_empty(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        rare.queues.take_if(|queues| queues.converting.is_empty() && queues.waiting.is_empty());
        if rare.is_empty() {
            self.rare = None;
        }
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.queues.is_none() && self.value.is_none() && self.remnants.is_empty()
    }
}
