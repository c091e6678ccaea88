//! The home's books about the dead: burying a member, freeing what it left.
//!
//! At a home that knows what the dead member held, its writing modes are limbo and its PR a ghost,
//! on those resources only. In a bucket that is rebuilt without the dead member's report it may
//! have held anything that goes with what the survivors held.

use std::collections::BTreeSet;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member, ViewId};

use super::dead::Dead;
use super::remnant::Remnant;
use crate::home::{Haunted, Home, HomeBucket};
use crate::message::{BucketName, LimboName};
use crate::name::ResourceName;
use crate::resource::{Notice, Notices, Phase};

/// What [`Home::free_all_but`] did.
#[derive(Default)]
pub(crate) struct Freed {
    /// What stays in limbo.
    pub(crate) kept: Vec<LimboName>,
    /// How many known resources left limbo.
    pub(crate) count: u64,
}

/// Whose remnant is being changed.
enum Of {
    Resource {
        name: ResourceName,
        /// Somebody waits for it.
        waited: bool,
    },
    /// All resources of the bucket that are not known.
    AllOthers,
}

/// A member of the view before that is none any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) member: Member,
    pub(crate) fate: Fate,
    /// The view through which it had reported what it holds.
    pub(crate) reported: ViewId,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// In order: it had released all its locks.
    Left,
    Died(Dead),
}

impl Home {
    /// Takes all of `lost` out of every bucket, then grants what they stood in the way of.
    pub(crate) fn lose(
        &mut self,
        lost: &[Lost],
        epochs: &[ViewId],
        now: Instant,
        list: &mut Vec<Notice>,
    ) {
        for (at, bucket) in self.buckets_mut() {
            let mut touched = Vec::new();
            for one in lost {
                let is_known = bucket.phase == Phase::Ready || one.reported >= epochs[at.index()];
                match one.fate {
                    Fate::Died(facts) if facts.is_over() => {
                        bucket.dismiss(one.member, &mut touched);
                    }
                    Fate::Left => bucket.dismiss(one.member, &mut touched),
                    Fate::Died(facts) if is_known => {
                        bucket.bury_known(one.member, facts, &mut touched);
                    }
                    Fate::Died(facts) => bucket.bury_unknown(one.member, facts),
                }
            }
            // Only now: what one of them waited for must not be granted when another goes.
            let mut notices = Notices { now, bucket: at, list };
            bucket.settle(&touched, &mut notices);
        }
    }

    /// Of everything that is limbo for `dead`, keeps what is in `live` and frees the rest.
    pub(crate) fn free_all_but(
        &mut self,
        dead: Member,
        live: &BTreeSet<BucketName>,
        caches_gone: bool,
        now: Instant,
        list: &mut Vec<Notice>,
    ) -> Freed {
        let lingers = self.lingers();
        // The one that is forgotten when the rule is broken.
        let skipped = live.first().filter(|_| !is_kept(Rule::KeepLiveInLimbo));
        for name in live {
            // Mentioned, so that they stay in limbo when the rest of the bucket is freed.
            if let Some(bucket) = self.bucket_mut(name.bucket).filter(|b| b.may_be_limbo(dead)) {
                bucket.mention(name.name);
            }
        }
        let mut freed = Freed::default();
        for (at, bucket) in self.buckets_mut() {
            let mut notices = Notices { now, bucket: at, list };
            bucket.change_remnants(dead, true, &mut notices, |of, remnant| match of {
                Of::Resource { name, waited }
                    if live.contains(&BucketName { bucket: at, name })
                        && skipped != Some(&BucketName { bucket: at, name }) =>
                {
                    if remnant.is_limbo() {
                        freed.kept.push(LimboName { bucket: at, name, waited });
                    }
                }
                Of::Resource { name, .. } => {
                    freed.count += u64::from(remnant.is_limbo());
                    remnant.free(!caches_gone && lingers(&name));
                }
                Of::AllOthers => remnant.free(!caches_gone),
            });
        }
        freed
    }

    /// The records of `dead` for `name` are durable in place. Tells whether it was in limbo.
    pub(crate) fn release(
        &mut self,
        dead: Member,
        name: BucketName,
        caches_gone: bool,
        now: Instant,
        list: &mut Vec<Notice>,
    ) -> bool {
        let cached = !caches_gone && self.lingers()(&name.name);
        let Some(bucket) = self.bucket_mut(name.bucket) else { return false };
        if bucket.may_be_limbo(dead) {
            bucket.mention(name.name);
        }
        let phase = bucket.phase;
        let mut notices = Notices { now, bucket: name.bucket, list };
        let mut was_limbo = false;
        if let Some(resource) = bucket.resources.get_mut(&name.name) {
            resource.change_remnant(dead, |remnant| {
                was_limbo = remnant.is_limbo();
                remnant.free(cached);
            });
            resource.settle(phase, &mut notices);
        }
        bucket.tidy(name.name);
        was_limbo
    }

    /// Nothing that `dead` cached for reading is in use any more.
    pub(crate) fn end_ghosts(&mut self, dead: Member, now: Instant, list: &mut Vec<Notice>) {
        for (at, bucket) in self.buckets_mut() {
            let mut notices = Notices { now, bucket: at, list };
            bucket.change_remnants(dead, false, &mut notices, |_, remnant| remnant.end_ghost());
        }
    }
}

impl HomeBucket {
    /// May resources that are not known here be in limbo for `dead`?
    fn may_be_limbo(&self, dead: Member) -> bool {
        self.unknown.iter().any(|remnant| remnant.dead == dead && remnant.is_limbo())
    }

    /// The member had released all its locks, though word of that may have been lost with its
    /// links.
    fn dismiss(&mut self, member: Member, touched: &mut Vec<ResourceName>) {
        for name in self.resources.take_all_of(member) {
            let resource = self.mention(name);
            resource.remove_owner(member);
            if resource.is_waited_for() || resource.is_unused() {
                touched.push(name);
            }
        }
    }

    /// What the member held is known: that remains, and what it waited for goes at once.
    fn bury_known(&mut self, member: Member, facts: Dead, touched: &mut Vec<ResourceName>) {
        for name in self.resources.take_all_of(member) {
            let lingers = (self.lingers)(&name);
            let resource = self.mention(name);
            let held = resource.remove_owner(member);
            let remnant = Remnant::known(member, held, facts, lingers);
            if !remnant.is_limbo() || is_kept(Rule::KeepExOfDead) {
                resource.add_remnant(remnant);
            }
            if resource.is_waited_for() || resource.is_unused() {
                touched.push(name);
            }
            if !resource.remnants().is_empty() {
                self.haunted.push(Haunted::new(name));
            }
        }
    }

    /// The member died before it had reported: what the survivors have reported so far is all that
    /// is known of it. Nothing has been granted in this bucket since its home changed.
    fn bury_unknown(&mut self, member: Member, facts: Dead) {
        assert!(self.phase == Phase::Rebuilding, "a ready bucket knows what everybody holds");
        let unknown = Remnant::unknown(member, facts);
        for (name, resource) in self.resources.iter_mut() {
            resource.remove_owner(member);
            let Some(mut remnant) = unknown.on((self.lingers)(name)) else { continue };
            for lock in resource.granted() {
                remnant.narrow(lock.granted);
            }
            resource.add_remnant(remnant);
            self.haunted.push(Haunted::new(*name));
        }
        self.resources.take_all_of(member);
        self.unknown.push(unknown);
    }

    /// Changes the remnants of `dead`, or those of them that its recovery changes.
    fn change_remnants(
        &mut self,
        dead: Member,
        by_recovery: bool,
        notices: &mut Notices<'_>,
        mut change: impl FnMut(Of, &mut Remnant),
    ) {
        let had_unknown = !self.unknown.is_empty();
        for remnant in self.unknown.iter_mut().filter(|remnant| remnant.dead == dead) {
            change(Of::AllOthers, remnant);
        }
        self.unknown.retain(|remnant| !remnant.is_over());
        let mut haunted = std::mem::take(&mut self.haunted);
        haunted.sort_unstable();
        haunted.dedup_by_key(|haunted| haunted.name);
        haunted.retain_mut(|Haunted { name, awaits_recovery }| {
            if by_recovery && !*awaits_recovery {
                return true;
            }
            let Some(resource) = self.resources.get_mut(name) else { return false };
            let of = Of::Resource { name: *name, waited: resource.is_waited_for() };
            if resource.change_remnant(dead, |remnant| change(of, remnant)) {
                resource.settle(self.phase, notices);
            }
            let stays = !resource.remnants().is_empty();
            // The ghost of what a kernel caches outlasts every recovery.
            *awaits_recovery = !(self.lingers)(name)
                || resource.remnants().iter().any(|remnant| remnant.is_limbo());
            if resource.is_unused() {
                self.tidy(*name);
            }
            stays
        });
        self.haunted = haunted;
        if had_unknown {
            // What was kept because it was known that the dead did not hold it.
            self.sweep();
        }
    }

    /// Grants what can be granted now of these, and forgets what has become unused.
    fn settle(&mut self, touched: &[ResourceName], notices: &mut Notices<'_>) {
        let phase = self.phase;
        for name in touched {
            if let Some(resource) = self.resources.get_mut(name) {
                resource.settle(phase, notices);
            }
            self.tidy(*name);
        }
    }
}
