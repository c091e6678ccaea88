//! The home side: the buckets this node decides about.
//!
//! Keeps true between calls:
//!   * a bucket is here exactly while this node is its home under the present view;
//!   * a resource is here while somebody holds it, waits for it, or died with it - and, in a bucket
//!     where some dead member's holdings are unknown, from its first mention until they are known,
//!     because what survivors held of it tells that the dead did not.
//!
//! Sends nothing: what owners have to be told is left in [`Notices`].

mod resources;
mod waiting;

use mx_base::{Instant, Member};

use crate::lock::LockRef;
use crate::message::ReportedLock;
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::rebuild::remnant::{Lingers, Remnant};
use crate::resource::{Notices, Phase, Queued, Resource};
use crate::value_block::ValueBlock;
use crate::violation::Violation;
use resources::Resources;
pub(crate) use waiting::Waiting;

/// A resource that may have remnants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Haunted {
    pub(crate) name: ResourceName,
    /// The recovery of a dead member may change one of them. May be set without need, never missing.
    pub(crate) awaits_recovery: bool,
}

impl Haunted {
    pub(crate) fn new(name: ResourceName) -> Haunted {
        Haunted { name, awaits_recovery: true }
    }
}

/// All buckets homed here.
#[derive(Clone, Hash)]
pub(crate) struct Home {
    buckets: Vec<Option<Box<HomeBucket>>>,
    lingers: Lingers,
    pub(crate) waiting: Waiting,
}

/// The resources of one bucket.
#[derive(Clone, Hash)]
pub(crate) struct HomeBucket {
    pub(crate) phase: Phase,
    pub(crate) resources: Resources,
    /// What the dead may hold on resources that are not in `resources`.
    pub(crate) unknown: Vec<Remnant>,
    /// The resources that have remnants. May have too many names, never too few.
    pub(crate) haunted: Vec<Haunted>,
    pub(crate) lingers: Lingers,
}

impl Home {
    pub(crate) fn new(lingers: Lingers) -> Home {
        let buckets = (0..Bucket::COUNT).map(|_| None).collect();
        Home { buckets, lingers, waiting: Waiting::default() }
    }

    /// This node becomes the home of a bucket in which `unknown` may hold anything.
    pub(crate) fn open(&mut self, bucket: Bucket, unknown: Vec<Remnant>) {
        self.buckets[bucket.index()] = Some(Box::new(HomeBucket {
            phase: Phase::Rebuilding,
            resources: Resources::default(),
            haunted: Vec::new(),
            unknown,
            lingers: self.lingers,
        }));
    }

    /// Another node is the home from now on: nothing known here counts any more.
    pub(crate) fn close(&mut self, bucket: Bucket) {
        if let Some(closed) = self.buckets[bucket.index()].take() {
            closed.queued(|owner| self.waiting.end(owner));
        }
    }

    pub(crate) fn lingers(&self) -> Lingers {
        self.lingers
    }

    pub(crate) fn bucket(&self, bucket: Bucket) -> Option<&HomeBucket> {
        self.buckets[bucket.index()].as_deref()
    }

    pub(crate) fn bucket_mut(&mut self, bucket: Bucket) -> Option<&mut HomeBucket> {
        self.buckets[bucket.index()].as_deref_mut()
    }

    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Bucket, &HomeBucket)> {
        Bucket::all().zip(&self.buckets).filter_map(|(at, bucket)| Some((at, bucket.as_deref()?)))
    }

    pub(crate) fn buckets_mut(&mut self) -> impl Iterator<Item = (Bucket, &mut HomeBucket)> {
        Bucket::all()
            .zip(&mut self.buckets)
            .filter_map(|(at, bucket)| Some((at, bucket.as_deref_mut()?)))
    }

    /// Whether the bucket is homed here has been checked before.
    pub(crate) fn homed(&mut self, bucket: Bucket) -> &mut HomeBucket {
        self.bucket_mut(bucket).expect("a home keeps all its buckets open")
    }
}

impl HomeBucket {
    pub(crate) fn request(
        &mut self,
        name: ResourceName,
        asked: Queued,
        has_room: bool,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let phase = self.phase;
        self.resources.list(&name, asked.key.owner);
        let outcome = self.mention(name).request(asked, phase, has_room, notices);
        if outcome.is_err() || !has_room {
            self.tidy(name);
        }
        outcome
    }

    pub(crate) fn convert(
        &mut self,
        name: ResourceName,
        asked: Queued,
        has_room: bool,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let phase = self.phase;
        self.known(name)?.convert(asked, phase, has_room, notices)
    }

    pub(crate) fn lower(
        &mut self,
        name: ResourceName,
        key: LockRef,
        to: Mode,
        grants: u32,
        value: Option<Box<ValueBlock>>,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let phase = self.phase;
        self.known(name)?.lower(key, to, grants, value, phase, notices)
    }

    pub(crate) fn unlock(
        &mut self,
        name: ResourceName,
        key: LockRef,
        value: Option<Box<ValueBlock>>,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let phase = self.phase;
        self.known(name)?.unlock(key, value, phase, notices)?;
        self.tidy(name);
        Ok(())
    }

    pub(crate) fn cancel(&mut self, name: ResourceName, key: LockRef, notices: &mut Notices<'_>) {
        let phase = self.phase;
        // Granted or denied meanwhile, and even unlocked by others: the outcome is on the way.
        if let Some(resource) = self.resources.get_mut(&name) {
            resource.cancel(key, phase, notices);
            self.tidy(name);
        }
    }

    /// Takes in a lock that its owner reports.
    pub(crate) fn report(
        &mut self,
        lock: ReportedLock,
        key: LockRef,
        notices: &Notices<'_>,
    ) -> Result<(), Violation> {
        if self.phase == Phase::Ready {
            return Err(Violation::ReportEnded);
        }
        let ReportedLock { name, held, wanted, no_queue, value, .. } = lock;
        match (held, wanted) {
            (None, None) => return Err(Violation::NothingAsked),
            (Some(held), Some(wanted)) if held.covers(wanted) || !wanted.covers(held) => {
                return Err(Violation::NotUpwards);
            }
            (None | Some(_), _) => {}
        }
        let since: Instant = notices.now;
        let waits = wanted.map(|wanted| Queued { key, wanted, no_queue, since });
        self.resources.list(&name, key.owner);
        let outcome = self.mention(name).report(key, held, waits, value, notices);
        if outcome.is_err() {
            self.tidy(name);
        }
        outcome
    }

    /// Everybody has reported.
    pub(crate) fn complete(&mut self, notices: &mut Notices<'_>) {
        self.phase = Phase::Ready;
        for (_, resource) in self.resources.iter_mut() {
            resource.complete(notices);
        }
        self.sweep();
    }

    /// The resource, also when it was not known so far.
    pub(crate) fn mention(&mut self, name: ResourceName) -> &mut Resource {
        let (unknown, haunted, lingers) = (&self.unknown, &mut self.haunted, self.lingers);
        self.resources.get_or_insert_with(&name, || {
            let lingers = !unknown.is_empty() && lingers(&name);
            let remnants: Vec<Remnant> =
                unknown.iter().filter_map(|remnant| remnant.on(lingers)).collect();
            if !remnants.is_empty() {
                haunted.push(Haunted::new(name));
            }
            Resource::new(remnants)
        })
    }

    /// The dead on whose account the resource is in limbo, if a first one waits for it now.
    pub(crate) fn begun_to_wait_for(&self, name: ResourceName) -> impl Iterator<Item = Member> {
        let resource = self.resources.get(&name);
        let resource = resource.filter(|r| r.converting().chain(r.waiting()).count() == 1);
        let remnants = resource.into_iter().flat_map(Resource::remnants);
        remnants.filter(|remnant| remnant.is_limbo()).map(|remnant| remnant.dead)
    }

    /// Some resource may have a remnant.
    pub(crate) fn is_haunted(&self) -> bool {
        !self.unknown.is_empty() || !self.haunted.is_empty()
    }

    /// Forgets a resource that has become unused.
    pub(crate) fn tidy(&mut self, name: ResourceName) {
        if self.unknown.is_empty() && self.resources.get(&name).is_some_and(Resource::is_unused) {
            self.resources.remove(&name);
        }
    }

    /// Forgets all resources that have become unused.
    pub(crate) fn sweep(&mut self) {
        if self.unknown.is_empty() {
            self.resources.retain(|resource| !resource.is_unused());
        }
    }

    fn known(&mut self, name: ResourceName) -> Result<&mut Resource, Violation> {
        self.resources.get_mut(&name).ok_or(Violation::LockUnknown)
    }
}
