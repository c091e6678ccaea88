//! The recovery of dead members: the recoverer's part, and the homes' part.

use std::collections::{BTreeMap, BTreeSet};

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member};

use super::{Lockspace, Output};
use crate::message::{BucketName, LimboName, Message};
use crate::name::{Bucket, ResourceName};
use crate::rebuild::dead::Dead;
use crate::rebuild::recovery::{LiveNamesAsked, Recovery, RecoveryError, RecoveryStep, Step};
use crate::violation::Violation;

impl Lockspace {
    // --- the recoverer's part ---

    /// This node recovers `dead`: `names` have live records in its journal. To be called after the
    /// proof that `dead` is fenced, and when no earlier recoverer of it can write any more. Leads
    /// to [`Output::Redo`].
    pub fn begin_recovery(
        &mut self,
        dead: Member,
        names: impl IntoIterator<Item = BucketName>,
        now: Instant,
    ) -> Result<(), RecoveryError> {
        if self.dead.get(&dead).is_none_or(|facts| facts.recovered) {
            return Err(RecoveryError::NotDead(dead));
        }
        if self.recoveries.contains_key(&dead) {
            return Err(RecoveryError::UnderWay(dead));
        }
        self.recoveries.insert(dead, Recovery::new(names));
        self.tell_live_names(dead, now);
        Ok(())
    }

    /// The records of `dead` for `names` are durable in place, or failed for good and the objects
    /// are marked damaged: either way the resources are free again.
    pub fn replayed(
        &mut self,
        dead: Member,
        names: &[BucketName],
        now: Instant,
    ) -> Result<(), RecoveryError> {
        let recovery = self.recoveries.get_mut(&dead).ok_or(RecoveryError::NotUnderWay(dead))?;
        for name in names {
            recovery.left.remove(name);
        }
        let view = self.view.id;
        for (home, names) in self.by_home(names.iter().copied()) {
            if home == self.me {
                self.release(dead, &names, now);
            } else {
                for chunk in names.chunks(Message::NAMES_MAX) {
                    let names = chunk.to_vec();
                    self.send(home, Message::Released { view, dead, names });
                }
            }
        }
        Ok(())
    }

    /// Nothing of `dead` is left to redo: every home drops what is left of it. Leads to
    /// [`Output::Recovered`].
    pub fn finish_recovery(&mut self, dead: Member, now: Instant) -> Result<(), RecoveryError> {
        let recovery = self.recoveries.get_mut(&dead).ok_or(RecoveryError::NotUnderWay(dead))?;
        recovery.step = Step::Announcing { awaited: BTreeSet::new() };
        self.mark_recovered(dead, now);
        self.announce_recovered(dead);
        Ok(())
    }

    /// Another node takes the recovery over.
    pub fn abandon_recovery(&mut self, dead: Member) {
        self.recoveries.remove(&dead);
    }

    /// How far the recoveries of this node are.
    pub fn recoveries(&self) -> impl Iterator<Item = (Member, RecoveryStep)> + '_ {
        self.recoveries.iter().map(|(dead, recovery)| (*dead, recovery.summary()))
    }

    /// Starts the exchange over in a new view: homes have changed, and what was said under the old
    /// view does not count.
    pub(super) fn tell_again(&mut self, now: Instant) {
        let under_way: Vec<Member> = self.recoveries.keys().copied().collect();
        for dead in under_way {
            match &mut self.recoveries.get_mut(&dead).expect("just listed").step {
                Step::Asking { .. } | Step::Redoing if !is_kept(Rule::TellLiveNamesAgain) => {}
                Step::Asking { .. } | Step::Redoing => self.tell_live_names(dead, now),
                Step::Announcing { .. } => self.announce_recovered(dead),
            }
        }
    }

    fn tell_live_names(&mut self, dead: Member, now: Instant) {
        let members: BTreeSet<Member> = self.view.members().iter().copied().collect();
        let recovery = self.recoveries.get_mut(&dead).expect("the recovery is under way");
        if let Step::Asking { awaited, in_limbo } = &mut recovery.step {
            awaited.clone_from(&members);
            in_limbo.clear();
        }
        let left: Vec<BucketName> = recovery.left.iter().copied().collect();
        let mut by_home = self.by_home(left.into_iter());
        let view = self.view.id;
        // This node last: its own answer may complete the round.
        for home in self.others() {
            let names = by_home.remove(&home).unwrap_or_default();
            for (names, last) in chunks(&names) {
                self.send(home, Message::LiveNames { view, dead, names, last });
            }
        }
        let names = by_home.remove(&self.me).unwrap_or_default();
        self.live_names_told(self.me, dead, names, true, now)
            .expect("a node answers its own recovery");
    }

    fn announce_recovered(&mut self, dead: Member) {
        let others = self.others();
        if let Some(recovery) = self.recoveries.get_mut(&dead) {
            recovery.step = Step::Announcing { awaited: others.iter().copied().collect() };
        }
        let view = self.view.id;
        for other in others {
            self.send(other, Message::Recovered { view, dead });
        }
        self.end_announcement(dead);
    }

    pub(super) fn recovered_seen(&mut self, from: Member, dead: Member) {
        if let Some(recovery) = self.recoveries.get_mut(&dead)
            && let Step::Announcing { awaited } = &mut recovery.step
        {
            awaited.remove(&from);
            self.end_announcement(dead);
        }
    }

    fn end_announcement(&mut self, dead: Member) {
        let is_over = self.recoveries.get(&dead).is_some_and(
            |recovery| matches!(&recovery.step, Step::Announcing { awaited } if awaited.is_empty()),
        );
        if is_over {
            self.recoveries.remove(&dead);
            self.outputs.push_back(Output::Recovered { dead });
        }
    }

    /// A home has answered which of the names are in limbo.
    pub(super) fn limbo_answered(
        &mut self,
        from: Member,
        dead: Member,
        names: Vec<LimboName>,
        last: bool,
    ) -> Result<(), Violation> {
        // Handed over to another recoverer meanwhile: it asks anew.
        let Some(recovery) = self.recoveries.get_mut(&dead) else { return Ok(()) };
        let wanted = recovery.wanted(&names);
        if !wanted.is_empty() {
            self.outputs.push_back(Output::Wanted { dead, names: wanted });
            return Ok(());
        }
        if let Some(names) = recovery.answered(from, names, last) {
            self.outputs.push_back(Output::Redo { dead, names });
        }
        Ok(())
    }

    fn by_home(
        &self,
        names: impl Iterator<Item = BucketName>,
    ) -> BTreeMap<Member, Vec<BucketName>> {
        let mut by_home: BTreeMap<Member, Vec<BucketName>> = BTreeMap::new();
        for name in names {
            let home = self.homes.home(name.bucket).expect("a member has entered a view");
            by_home.entry(home).or_default().push(name);
        }
        by_home
    }

    // --- the homes' part ---

    /// Nothing that `dead` cached for reading is in use any more. To be called on every node, after
    /// the view without it; before, or for a member that did not die, it does nothing.
    pub fn caches_gone(&mut self, dead: Member, now: Instant) {
        let Some(facts) = self.dead.get_mut(&dead) else { return };
        facts.caches_gone = true;
        self.all_at_home(now, |home, list| home.end_ghosts(dead, now, list));
        self.forget_if_over(dead);
    }

    /// The dead of whom something is left.
    pub fn dead(&self) -> impl Iterator<Item = (Member, Dead)> + '_ {
        self.dead.iter().map(|(dead, facts)| (*dead, *facts))
    }

    /// Nothing of `dead` is left to redo, as its recoverer, another member or the register says.
    pub fn mark_recovered(&mut self, dead: Member, now: Instant) {
        let Some(facts) = self.dead.get_mut(&dead).filter(|facts| !facts.recovered) else { return };
        facts.recovered = true;
        let caches_gone = facts.caches_gone;
        self.live_names.remove(&dead);
        self.redoing.remove(&dead);
        let freed = self.all_at_home(now, |home, list| {
            home.free_all_but(dead, &BTreeSet::new(), caches_gone, now, list)
        });
        self.let_claims_go(dead);
        self.counters.limbo_freed += freed.count;
        self.forget_if_over(dead);
        // Somebody else has finished what this node was about to do, and may have died before
        // everybody has heard so.
        if let Some(recovery) = self.recoveries.get(&dead)
            && !matches!(recovery.step, Step::Announcing { .. })
        {
            self.announce_recovered(dead);
        }
    }

    fn forget_if_over(&mut self, dead: Member) {
        if self.dead.get(&dead).is_some_and(|facts| facts.is_over()) {
            self.dead.remove(&dead);
        }
    }

    /// A recoverer tells which names have live records, in one or more messages.
    pub(super) fn live_names_told(
        &mut self,
        from: Member,
        dead: Member,
        names: Vec<BucketName>,
        last: bool,
        now: Instant,
    ) -> Result<(), Violation> {
        if names.iter().any(|name| self.homes.home(name.bucket) != Some(self.me)) {
            return Err(Violation::NotHome);
        }
        let asked = self.live_names.entry(dead).or_insert_with(|| LiveNamesAsked {
            recoverer: from,
            names: BTreeSet::new(),
            is_complete: false,
        });
        if asked.recoverer != from || asked.is_complete {
            // A successor under the same view: it starts over.
            asked.recoverer = from;
            asked.names.clear();
        }
        asked.names.extend(names);
        asked.is_complete = last;
        self.answer_live_names(now);
        Ok(())
    }

    /// Frees what no journal has live records for, and answers what is in limbo. Waits until this
    /// home has rebuilt all its buckets: before, it does not know what survivors hold.
    pub(super) fn answer_live_names(&mut self, now: Instant) {
        if !self.rebuilding.is_empty() {
            return;
        }
        let complete: Vec<Member> = self
            .live_names
            .iter()
            .filter(|(_, asked)| asked.is_complete)
            .map(|(d, _)| *d)
            .collect();
        for dead in complete {
            let asked = self.live_names.remove(&dead).expect("just listed");
            self.redoing.insert(dead, asked.recoverer);
            let caches_gone = self.dead.get(&dead).is_none_or(|facts| facts.caches_gone);
            let freed = self.all_at_home(now, |home, list| {
                home.free_all_but(dead, &asked.names, caches_gone, now, list)
            });
            self.let_claims_go(dead);
            self.counters.limbo_freed += freed.count;
            let names = freed.kept;
            if asked.recoverer == self.me {
                self.limbo_answered(self.me, dead, names, true)
                    .expect("a node takes its own answer");
            } else {
                let view = self.view.id;
                for (names, last) in chunks(&names) {
                    self.send(asked.recoverer, Message::InLimbo { view, dead, names, last });
                }
            }
        }
    }

    /// Somebody may have begun to wait for `name`. When it is in limbo, and its home has told the
    /// recoverer already what is, that one learns that this is wanted, too. Never the last word of an
    /// answer: the recoverer may be asking anew.
    pub(super) fn tell_wanted(&mut self, bucket: Bucket, name: ResourceName) {
        let Some(home) = self.home.bucket(bucket).filter(|home| home.is_haunted()) else { return };
        let told =
            home.begun_to_wait_for(name).filter_map(|dead| self.redoing.get_key_value(&dead));
        let told: Vec<(Member, Member)> =
            told.map(|(dead, recoverer)| (*dead, *recoverer)).collect();
        for (dead, recoverer) in told {
            let names = vec![LimboName { bucket, name, waited: true }];
            if recoverer == self.me {
                self.limbo_answered(self.me, dead, names, false)
                    .expect("a node takes its own answer");
            } else {
                let view = self.view.id;
                self.send(recoverer, Message::InLimbo { view, dead, names, last: false });
            }
        }
    }

    /// The recoverer has made the records of these names durable in place.
    pub(super) fn release(&mut self, dead: Member, names: &[BucketName], now: Instant) {
        let caches_gone = self.dead.get(&dead).is_none_or(|facts| facts.caches_gone);
        for name in names {
            let was_limbo = self
                .all_at_home(now, |home, list| home.release(dead, *name, caches_gone, now, list));
            self.counters.limbo_redone += u64::from(was_limbo);
        }
    }
}

/// The names in messages that fit, the last one marked; one message also when there are none.
fn chunks<T: Clone>(names: &[T]) -> Vec<(Vec<T>, bool)> {
    if names.is_empty() {
        return vec![(Vec::new(), true)];
    }
    let last = names.len().div_ceil(Message::NAMES_MAX) - 1;
    names
        .chunks(Message::NAMES_MAX)
        .enumerate()
        .map(|(i, chunk)| (chunk.to_vec(), i == last))
        .collect()
}
