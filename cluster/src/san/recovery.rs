//! The ordered script of recovery, per dead member and file system (Fig. 7C, R14 as amended).
//!
//! Hold, then Fence and beside it Rebuild, then Replay by one recoverer, then Resume. Keeps true:
//! * Replay begins only when the dead member is proven fenced (I5), and so is every member that
//!   died after it, because any of those may have been its recoverer;
//! * a recoverer stays the recoverer until it dies or gives the file system up;
//! * every recovery ends: a replay that fails isolates objects and ends as well, and when nobody
//!   has the file system mounted any more, whoever mounts it next replays. Whoever mounts it beside
//!   others that have left has either just completed that and replays, or starts over before;
//! * no step holds anything for a whole file system, and none waits for another file system.
//!
//! It is not asked whether the dead member is known to have had a file system mounted: the news
//! of it may have died with it. Whoever replays finds nothing to do then.

use std::collections::{BTreeMap, BTreeSet};

use mx_base::{FsId, Instant, Member, ViewId};

use super::ledger::{NOTHING_DONE, Recovery};
use super::{Effect, San};
use crate::output::Step;
use crate::register::{Change, Phase};
use crate::wire::{DeadRecord, Ending, SanEvent};

/// What this node has begun and ended of the script.
#[derive(Debug, Default)]
pub(super) struct Local {
    held: BTreeSet<(Member, FsId)>,
    fencing: BTreeSet<Member>,
    /// Proofs that this node has got itself; each covers the earlier lives of its node.
    proofs: BTreeSet<Member>,
    /// In the present view: what was to be rebuilt, and whether it is.
    rebuilt: BTreeMap<FsId, bool>,
    replaying: BTreeSet<(Member, FsId)>,
    resumed: BTreeSet<(Member, FsId)>,
    scoped: BTreeSet<Member>,
    recovered: BTreeSet<Member>,
}

impl Local {
    pub(super) fn handle_view(&mut self) {
        self.rebuilt.clear();
    }

    pub(super) fn replaying(&self) -> Vec<(Member, FsId)> {
        self.replaying.iter().copied().collect()
    }

    pub(super) fn forget_replays(&mut self, fs: FsId) {
        self.replaying.retain(|(_, of)| *of != fs);
    }

    /// The register lists nobody any more: what was noted of the dead is of no use.
    pub(super) fn handle_closed(&mut self) {
        *self = Local::default();
    }

    fn has_proof(&self, victim: Member) -> bool {
        self.proofs.iter().any(|p| p.node == victim.node && p.incarnation >= victim.incarnation)
    }
}

impl San {
    // Completions of steps

    /// The fence of `dead` and of all earlier lives of its node is proven.
    pub(crate) fn handle_fenced(&mut self, dead: Member, now: Instant) {
        self.local.fencing.remove(&dead);
        self.local.proofs.insert(dead);
        self.ledger.fence(dead, now);
        self.tell(SanEvent::Fenced { dead }, now);
        self.want_phase();
    }

    /// This node's lock tables of `fs` are rebuilt for `view`.
    pub(crate) fn handle_rebuilt(&mut self, view: ViewId, fs: FsId, now: Instant) {
        let is_present = self.current.as_ref().is_some_and(|c| c.value.view == view);
        if !is_present {
            return;
        }
        if let Some(done) = self.local.rebuilt.get_mut(&fs) {
            *done = true;
            self.tell(SanEvent::Rebuilt { fs }, now);
        }
    }

    /// This node has replayed, as far as possible, the journal of `dead`.
    pub(crate) fn handle_replayed(&mut self, dead: Member, fs: FsId, ending: Ending, now: Instant) {
        let Some(me) = self.current.as_ref().map(|current| current.me) else { return };
        if !self.local.replaying.remove(&(dead, fs)) {
            return;
        }
        self.ledger.end_replay(dead, fs, me, ending, now);
        self.tell(SanEvent::Replayed { dead, fs, ending }, now);
    }

    /// What could not be recorded because another change was under way is asked for again.
    pub(crate) fn handle_tick(&mut self) {
        self.want_phase();
    }

    /// For display, those that ended last come last.
    pub(crate) fn recoveries(&self) -> impl Iterator<Item = &Recovery> {
        self.ledger.courses()
    }

    /// Nothing of the recovery of `dead` is left to do in this file system, or the register lists
    /// it no more.
    pub(crate) fn is_recovered(&self, dead: Member, fs: FsId) -> bool {
        let records = self.ledger.records();
        let record = records.iter().find(|record| record.member == dead);
        record.is_none_or(|record| {
            is_scoped(record) && record.file_systems.get(&fs).is_none_or(|of| of.resumed)
        })
    }

    // The leader's part

    /// Decides what comes next in each recovery. True when something was decided.
    pub(super) fn advance_recoveries(&mut self, now: Instant) -> bool {
        let records = self.ledger.records();
        let mut changed = false;
        for record in &records {
            if !record.scoped {
                self.scope(record, now);
                changed = true;
            }
        }
        let records = self.ledger.records();
        let mut load: BTreeMap<Member, usize> = BTreeMap::new();
        for (_, progress) in records.iter().flat_map(|record| &record.file_systems) {
            if let Some(recoverer) = progress.recoverer.filter(|_| progress.ending.is_none()) {
                *load.entry(recoverer).or_default() += 1;
            }
        }
        for record in &records {
            for fs in record.file_systems.keys() {
                changed |= self.advance(record, *fs, &records, &mut load, now);
            }
        }
        changed
    }

    /// Which file systems may hold something of the dead member: all that a survivor uses or is
    /// about to.
    fn scope(&mut self, record: &DeadRecord, now: Instant) {
        let files: Vec<FsId> = self.table.keys().copied().collect();
        let is_used =
            |fs: &FsId| !self.ready_members(*fs).is_empty() || self.is_mounted_beside(*fs);
        let used: BTreeSet<FsId> = files.into_iter().filter(is_used).collect();
        self.ledger.change(record.member, now, |record| {
            record.scoped = true;
            // Of what nobody uses any more nothing is replayed until somebody mounts it.
            record.file_systems.retain(|fs, progress| {
                used.contains(fs) || progress.attempt > 0 || progress.ending.is_some()
            });
            for fs in used {
                record.file_systems.entry(fs).or_insert(NOTHING_DONE);
            }
        });
    }

    fn advance(
        &mut self,
        record: &DeadRecord,
        fs: FsId,
        records: &[DeadRecord],
        load: &mut BTreeMap<Member, usize>,
        now: Instant,
    ) -> bool {
        let before = record.file_systems[&fs];
        let mut after = before;
        let users = self.ready_members(fs);
        after.rebuilt |= self.all_have_rebuilt(fs);
        let has_recoverer = after.recoverer.is_some_and(|r| users.contains(&r));
        if after.ending.is_none() && !has_recoverer {
            if users.is_empty() {
                let is_left = record.fenced && !self.is_mounted_beside(fs);
                after.ending = is_left.then_some(Ending::Deferred);
            } else if may_begin(record, records) {
                let least = users.iter().min_by_key(|m| (load.get(m).copied().unwrap_or(0), **m));
                after.recoverer = least.copied();
                after.attempt += 1;
                *load.entry(after.recoverer.expect("somebody uses it")).or_default() += 1;
            }
        }
        let over = match after.ending {
            Some(Ending::Deferred) => true,
            Some(Ending::Replayed | Ending::Isolated) => self.all_have_rebuilt(fs),
            None => false,
        };
        after.resumed |= over;
        if after == before {
            return false;
        }
        self.ledger.change(record.member, now, |record| {
            record.file_systems.insert(fs, after);
        });
        true
    }

    fn all_have_rebuilt(&self, fs: FsId) -> bool {
        let Some(current) = &self.current else { return false };
        let rebuilt = self.rebuilt_by.get(&fs);
        current.value.members.iter().all(|m| rebuilt.is_some_and(|by| by.contains(&m.node)))
    }

    // Every member's part

    /// The administrator fences whom the register lists, again if need be: the proofs of a former
    /// administrator died with it.
    pub(super) fn fence_if_administrator(&mut self) {
        let Some(current) = &self.current else { return };
        if current.value.administrator != Some(current.me) || current.value.phase != Phase::Fencing
        {
            return;
        }
        for dead in current.value.unrecovered() {
            if !self.local.has_proof(dead) && self.local.fencing.insert(dead) {
                self.effects.push_back(Effect::Step(Step::Fence { dead }));
            }
        }
    }

    /// Begins whatever this node has to do and has not begun.
    pub(super) fn start_local_steps(&mut self) {
        let Some(current) = &self.current else { return };
        let (me, view) = (current.me, current.value.view);
        for record in self.ledger.records() {
            let dead = record.member;
            // Before the leader has spoken, what this node knows to be in use is a good guess.
            let mut files: BTreeSet<FsId> = record.file_systems.keys().copied().collect();
            if !record.scoped {
                files.extend(self.table.keys().filter(|fs| !self.ready_members(**fs).is_empty()));
            }
            for fs in files {
                let progress = record.file_systems.get(&fs).copied().unwrap_or(NOTHING_DONE);
                if !progress.resumed {
                    self.hold_and_rebuild(dead, fs, view);
                }
                // What it has just given up it does not replay; the leader will hear of it.
                let uses = self.own.get(&fs).is_some_and(|state| state.is_ready());
                let mine = progress.recoverer == Some(me) && progress.ending.is_none();
                if mine && uses && self.local.replaying.insert((dead, fs)) {
                    assert!(record.fenced, "nothing of {dead} is replayed before it is fenced");
                    let slot = progress.slot;
                    self.effects.push_back(Effect::Step(Step::Replay { dead, fs, slot }));
                }
                if let Some(ending) = progress.ending.filter(|_| progress.resumed)
                    && self.local.resumed.insert((dead, fs))
                {
                    self.effects.push_back(Effect::Step(Step::Resume { dead, fs, ending }));
                }
            }
            if is_scoped(&record) && self.local.scoped.insert(dead) {
                self.effects.push_back(Effect::Scoped { dead });
            }
            if is_complete(&record) && self.local.recovered.insert(dead) {
                self.effects.push_back(Effect::Recovered { dead });
            }
        }
    }

    fn hold_and_rebuild(&mut self, dead: Member, fs: FsId, view: ViewId) {
        if self.local.held.insert((dead, fs)) {
            self.effects.push_back(Effect::Step(Step::Hold { dead, fs }));
        }
        if let std::collections::btree_map::Entry::Vacant(entry) = self.local.rebuilt.entry(fs) {
            entry.insert(false);
            self.effects.push_back(Effect::Step(Step::Rebuild { view, fs }));
        }
    }

    /// The administrator has what it takes to record FENCED or RECOVERED.
    pub(super) fn want_phase(&mut self) {
        let Some(current) = &self.current else { return };
        if current.value.administrator != Some(current.me) {
            return;
        }
        let victims = current.value.unrecovered();
        let wanted = match current.value.phase {
            Phase::Fencing if victims.iter().all(|victim| self.local.has_proof(*victim)) => {
                Change::Fenced
            }
            Phase::Fenced if self.ledger.records().iter().all(is_complete) => Change::Recovered,
            Phase::Fencing | Phase::Fenced | Phase::Stable | Phase::Recovered => return,
        };
        self.effects.push_back(Effect::WantPhase(wanted));
    }
}

/// May a recoverer of this dead member be named? Whoever died after it may have been one that
/// nobody alive knows of, so it must be proven to write no more.
fn may_begin(record: &DeadRecord, records: &[DeadRecord]) -> bool {
    let later = |other: &&DeadRecord| other.dropped_in > record.dropped_in;
    record.fenced && records.iter().filter(later).all(|other| other.fenced)
}

/// Of a file system that is not among its own nothing is replayed before somebody mounts it.
fn is_scoped(record: &DeadRecord) -> bool {
    record.fenced && record.scoped
}

fn is_complete(record: &DeadRecord) -> bool {
    is_scoped(record) && record.file_systems.values().all(|p| p.resumed)
}
