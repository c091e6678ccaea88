//! Who holds what, who waits for whom: the state as an administrator asks for it.
//!
//! Plain values, made on request; changes nothing.

use std::fmt;

use mx_base::{Duration, Instant, Member, ViewId};

use crate::lock::LockId;
use crate::lockspace::Lockspace;
use crate::mode::Mode;
use crate::mode_set::ModeSet;
use crate::name::{Bucket, ResourceName};
use crate::requester::OwnLock;
use crate::resource::{Phase, Queued, Resource};

/// One resource as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub name: ResourceName,
    pub bucket: Bucket,
    /// `None` before the first view.
    pub home: Option<Member>,
    pub epoch: ViewId,
    /// What this node has of it.
    pub own: Vec<OwnLockState>,
    /// What the home knows; `None` when this node is not the home, or nobody has to do with it.
    pub at_home: Option<ResourceState>,
}

/// One resource as its home knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceState {
    pub name: ResourceName,
    pub bucket: Bucket,
    /// The members whose reports the home waits for before it grants anything.
    pub unreported: Vec<Member>,
    pub granted: Vec<HolderState>,
    pub converting: Vec<WaiterState>,
    pub waiting: Vec<WaiterState>,
    pub remnants: Vec<RemnantState>,
    pub value_is_valid: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HolderState {
    pub owner: Member,
    pub lock: LockId,
    pub mode: Mode,
    /// What it was asked to make room for, and has not yet.
    pub called_out: Option<Mode>,
    pub since: Instant,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaiterState {
    pub owner: Member,
    pub lock: LockId,
    pub wanted: Mode,
    pub since: Instant,
}

/// What a dead member left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemnantState {
    pub dead: Member,
    /// What it holds or may hold.
    pub modes: ModeSet,
    /// Waits for the replay of its journal; if not, for its caches to be gone.
    pub is_limbo: bool,
}

/// One lock of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnLockState {
    pub lock: LockId,
    pub name: ResourceName,
    pub bucket: Bucket,
    /// `None` when it was never granted.
    pub held: Option<Mode>,
    /// What is outstanding.
    pub wanted: Option<Mode>,
    pub since: Instant,
}

impl Lockspace {
    /// Everything this node knows about one resource.
    pub fn explain(&self, name: ResourceName, bucket: Bucket) -> Explanation {
        let resource = self.home.bucket(bucket).and_then(|b| b.resources.get(&name));
        Explanation {
            name,
            bucket,
            home: self.homes.home(bucket),
            epoch: self.homes.epoch(bucket),
            own: self.own_locks_in(bucket).filter(|own| own.name == name).collect(),
            at_home: resource.map(|resource| self.resource_state(name, bucket, resource)),
        }
    }

    /// Every resource homed here, by bucket.
    pub fn resources(&self) -> impl Iterator<Item = ResourceState> + '_ {
        self.home.buckets().flat_map(move |(at, bucket)| {
            bucket
                .resources
                .iter()
                .map(move |(name, resource)| self.resource_state(*name, at, resource))
        })
    }

    /// Every lock of this node, in no order that means anything.
    pub fn own_locks(&self) -> impl Iterator<Item = OwnLockState> + '_ {
        self.own.iter().map(own_lock_state)
    }

    /// The members whose reports the rebuild waits for; empty when nothing is being rebuilt.
    pub fn unreported(&self) -> Vec<Member> {
        let newest = self.rebuilding.iter().map(|bucket| self.homes.epoch(*bucket)).max();
        let Some(newest) = newest else { return Vec::new() };
        self.unreported_since(newest)
    }

    /// How many messages are kept for views this node has not heard of.
    pub fn early_count(&self) -> usize {
        self.early.len()
    }

    pub(crate) fn unreported_since(&self, epoch: ViewId) -> Vec<Member> {
        let through = |member: &Member| self.reported.get(member).copied().unwrap_or_default();
        self.view.members().iter().copied().filter(|member| through(member) < epoch).collect()
    }

    fn own_locks_in(&self, bucket: Bucket) -> impl Iterator<Item = OwnLockState> + '_ {
        self.own.in_bucket(bucket).map(own_lock_state)
    }

    fn resource_state(
        &self,
        name: ResourceName,
        bucket: Bucket,
        resource: &Resource,
    ) -> ResourceState {
        let phase = self.home.bucket(bucket).map(|bucket| bucket.phase);
        let unreported = match phase {
            Some(Phase::Rebuilding) => self.unreported_since(self.homes.epoch(bucket)),
            Some(Phase::Ready) | None => Vec::new(),
        };
        let waiter = |queued: &Queued| WaiterState {
            owner: queued.key.owner,
            lock: queued.key.id,
            wanted: queued.wanted,
            since: queued.since,
        };
        ResourceState {
            name,
            bucket,
            unreported,
            granted: resource
                .granted()
                .iter()
                .map(|lock| HolderState {
                    owner: lock.key().owner,
                    lock: lock.key().id,
                    mode: lock.granted,
                    called_out: lock.called_out,
                    since: lock.since,
                })
                .collect(),
            converting: resource.converting().map(waiter).collect(),
            waiting: resource.waiting().map(waiter).collect(),
            remnants: resource
                .remnants()
                .iter()
                .map(|remnant| RemnantState {
                    dead: remnant.dead,
                    modes: remnant.modes,
                    is_limbo: remnant.is_limbo(),
                })
                .collect(),
            value_is_valid: resource.value().is_some(),
        }
    }
}

fn own_lock_state((lock, own): (LockId, &OwnLock)) -> OwnLockState {
    OwnLockState {
        lock,
        name: own.name,
        bucket: own.bucket,
        held: own.held,
        wanted: own.asked.map(|asked| asked.wanted),
        since: own.since,
    }
}

impl ResourceState {
    /// In words, one line for each holder, waiter and remnant.
    pub fn describe(&self, now: Instant) -> impl fmt::Display + '_ {
        Described { state: self, now }
    }
}

struct Described<'a> {
    state: &'a ResourceState,
    now: Instant,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Described { state, now } = self;
        let ms = |since: Instant| -> u128 {
            let passed: Duration = now.since(since);
            passed.as_millis()
        };
        write!(f, "{:?} {:?}", state.name, state.bucket)?;
        f.write_str(if state.value_is_valid { " value" } else { " no value" })?;
        if !state.unreported.is_empty() {
            write!(f, "\n  rebuilding: no report yet from {:?}", state.unreported)?;
        }
        for holder in &state.granted {
            let HolderState { owner, lock, mode, called_out, since } = holder;
            write!(f, "\n  granted {mode} to {owner} {lock} for {} ms", ms(*since))?;
            if let Some(wanted) = called_out {
                write!(f, ", called out for {wanted}")?;
            }
        }
        for (queue, waiters) in [("converting", &state.converting), ("waiting", &state.waiting)] {
            for WaiterState { owner, lock, wanted, since } in waiters {
                write!(f, "\n  {queue} to {wanted}: {owner} {lock} for {} ms", ms(*since))?;
            }
        }
        for RemnantState { dead, modes, is_limbo } in &state.remnants {
            let until = if *is_limbo { "its journal is replayed" } else { "its caches are gone" };
            write!(f, "\n  dead {dead} may hold {modes:?} until {until}")?;
        }
        Ok(())
    }
}
