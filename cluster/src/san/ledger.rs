//! What is recorded of the dead: how far each recovery is, and when this node learnt it.
//!
//! Keeps true: records only move forward. Two records of one dead member are merged by taking
//! what is further, so the order in which news arrives does not matter and repeating it does no
//! harm.

use std::collections::{BTreeMap, VecDeque};

use mx_base::{FsId, Instant, Member, SlotId, ViewId};

use crate::register::{Phase, RegisterValue};
use crate::wire::{DeadRecord, Ending, ProgressRecord};

/// Recoveries that have ended and are still shown.
const HISTORY_MAX: usize = 32;

/// The course of one recovery as this node learnt of it, by its own clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovery {
    pub dead: Member,
    /// This node suspected it, or installed the view without it if it never did.
    pub suspected: Instant,
    /// The view without it was installed here.
    pub dropped: Instant,
    pub fenced: Option<Instant>,
    pub file_systems: BTreeMap<FsId, FsRecovery>,
    /// The register says that nothing of it is left.
    pub ended: Option<Instant>,
}

/// The course of one recovery in one file system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FsRecovery {
    pub recoverer: Option<Member>,
    /// Every member had rebuilt its lock tables.
    pub rebuilt: Option<Instant>,
    /// The replay had ended.
    pub replayed: Option<Instant>,
    pub resumed: Option<Instant>,
    pub ending: Option<Ending>,
}

#[derive(Debug)]
struct Entry {
    record: DeadRecord,
    course: Recovery,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: BTreeMap<Member, Entry>,
    history: VecDeque<Recovery>,
}

impl Ledger {
    /// A member is dead: the first record of it.
    pub(super) fn add(
        &mut self,
        dead: Member,
        dropped_in: ViewId,
        slots: BTreeMap<FsId, SlotId>,
        suspected: Instant,
        now: Instant,
    ) {
        let file_systems = slots
            .into_iter()
            .map(|(fs, slot)| (fs, ProgressRecord { slot: Some(slot), ..NOTHING_DONE }))
            .collect();
        let record =
            DeadRecord { member: dead, dropped_in, fenced: false, scoped: false, file_systems };
        self.entry(record, suspected, now);
    }

    fn entry(&mut self, record: DeadRecord, suspected: Instant, now: Instant) {
        let course = Recovery {
            dead: record.member,
            suspected,
            dropped: now,
            fenced: None,
            file_systems: BTreeMap::new(),
            ended: None,
        };
        let dead = record.member;
        let entry = self.entries.entry(dead).or_insert_with(|| Entry {
            record: DeadRecord { fenced: false, file_systems: BTreeMap::new(), ..record.clone() },
            course,
        });
        entry.merge(&record, now);
    }

    /// Takes what another member has recorded.
    pub(super) fn take(&mut self, records: &[DeadRecord], now: Instant) {
        for record in records {
            self.entry(record.clone(), now, now);
        }
    }

    /// Brings the records in line with the register: whoever is not listed any more is recovered,
    /// whoever is listed and not recorded is recorded, and FENCED is a proof for all.
    pub(super) fn align(&mut self, value: &RegisterValue, now: Instant) {
        let over: Vec<Member> =
            self.entries.keys().copied().filter(|dead| !value.is_unrecovered(*dead)).collect();
        for dead in over {
            self.close_one(dead, now);
        }
        for dead in value.unrecovered() {
            if !self.entries.keys().any(|known| known.node == dead.node) {
                self.add(dead, value.view, BTreeMap::new(), now, now);
            }
        }
        if value.phase == Phase::Fenced {
            for entry in self.entries.values_mut() {
                entry.fence(now);
            }
        }
    }

    /// The register says that everything is recovered.
    pub(super) fn close(&mut self, now: Instant) {
        let dead: Vec<Member> = self.entries.keys().copied().collect();
        for dead in dead {
            self.close_one(dead, now);
        }
    }

    fn close_one(&mut self, dead: Member, now: Instant) {
        let Some(mut entry) = self.entries.remove(&dead) else { return };
        entry.course.ended = Some(now);
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(entry.course);
    }

    /// The fence of `dead` and of all earlier lives of its node is proven.
    pub(super) fn fence(&mut self, dead: Member, now: Instant) {
        for (member, entry) in &mut self.entries {
            if member.node == dead.node && member.incarnation <= dead.incarnation {
                entry.fence(now);
            }
        }
    }

    pub(super) fn end_replay(
        &mut self,
        dead: Member,
        fs: FsId,
        by: Member,
        ending: Ending,
        now: Instant,
    ) {
        if let Some(entry) = self.entries.get_mut(&dead)
            && let Some(progress) = entry.record.file_systems.get_mut(&fs)
            && progress.recoverer == Some(by)
        {
            progress.ending = progress.ending.or(Some(ending));
            entry.stamp(now);
        }
    }

    /// A member says that it is replaying: it is the recoverer, whatever was recorded.
    pub(super) fn confirm_recoverer(&mut self, dead: Member, fs: FsId, recoverer: Member) {
        if let Some(entry) = self.entries.get_mut(&dead) {
            let progress = entry.record.file_systems.entry(fs).or_insert(NOTHING_DONE);
            progress.recoverer = Some(recoverer);
        }
    }

    pub(super) fn change(
        &mut self,
        dead: Member,
        now: Instant,
        change: impl FnOnce(&mut DeadRecord),
    ) {
        if let Some(entry) = self.entries.get_mut(&dead) {
            change(&mut entry.record);
            entry.stamp(now);
        }
    }

    /// In order of member.
    pub(super) fn records(&self) -> Vec<DeadRecord> {
        self.entries.values().map(|entry| entry.record.clone()).collect()
    }

    /// Those that ended last come last.
    pub(super) fn courses(&self) -> impl Iterator<Item = &Recovery> {
        self.history.iter().chain(self.entries.values().map(|entry| &entry.course))
    }
}

pub(super) const NOTHING_DONE: ProgressRecord = ProgressRecord {
    slot: None,
    recoverer: None,
    attempt: 0,
    rebuilt: false,
    ending: None,
    resumed: false,
};

impl Entry {
    fn merge(&mut self, other: &DeadRecord, now: Instant) {
        assert_eq!(self.record.member, other.member, "records of one dead member are merged");
        self.record.dropped_in = self.record.dropped_in.min(other.dropped_in);
        self.record.fenced |= other.fenced;
        self.record.scoped |= other.scoped;
        for (fs, theirs) in &other.file_systems {
            let ours = self.record.file_systems.entry(*fs).or_insert(NOTHING_DONE);
            if theirs.attempt > ours.attempt {
                ours.attempt = theirs.attempt;
                ours.recoverer = theirs.recoverer;
            }
            ours.slot = ours.slot.or(theirs.slot);
            ours.rebuilt |= theirs.rebuilt;
            ours.ending = ours.ending.or(theirs.ending);
            ours.resumed |= theirs.resumed;
        }
        self.stamp(now);
    }

    fn fence(&mut self, now: Instant) {
        self.record.fenced = true;
        self.stamp(now);
    }

    /// Writes down when each thing was first known here.
    fn stamp(&mut self, now: Instant) {
        let note = |at: &mut Option<Instant>, known: bool| {
            if known && at.is_none() {
                *at = Some(now);
            }
        };
        note(&mut self.course.fenced, self.record.fenced);
        for (fs, progress) in &self.record.file_systems {
            let course = self.course.file_systems.entry(*fs).or_default();
            course.recoverer = progress.recoverer;
            course.ending = progress.ending;
            note(&mut course.rebuilt, progress.rebuilt);
            note(&mut course.replayed, progress.ending.is_some());
            note(&mut course.resumed, progress.resumed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mx_base::{Incarnation, NodeId};

    const FS: FsId = FsId([1; 16]);

    fn member(node: u16) -> Member {
        Member { node: NodeId::new(node).expect("in range"), incarnation: Incarnation(1) }
    }

    fn record(fenced: bool, progress: ProgressRecord) -> DeadRecord {
        DeadRecord {
            member: member(3),
            dropped_in: ViewId(4),
            fenced,
            scoped: true,
            file_systems: BTreeMap::from([(FS, progress)]),
        }
    }

    #[test]
    fn merging_takes_what_is_further_in_either_order() {
        let early =
            record(true, ProgressRecord { recoverer: Some(member(1)), attempt: 1, ..NOTHING_DONE });
        let late = record(
            false,
            ProgressRecord {
                recoverer: Some(member(2)),
                attempt: 2,
                ending: Some(Ending::Isolated),
                ..NOTHING_DONE
            },
        );
        let merged = |records: [&DeadRecord; 2]| {
            let mut ledger = Ledger::default();
            for record in records {
                ledger.take(std::slice::from_ref(record), Instant(5));
            }
            ledger.records()
        };
        let result = merged([&early, &late]);
        assert_eq!(result, merged([&late, &early]));
        assert!(result[0].fenced);
        assert_eq!(result[0].file_systems[&FS].recoverer, Some(member(2)));
        assert_eq!(result[0].file_systems[&FS].ending, Some(Ending::Isolated));
    }

    #[test]
    fn the_course_keeps_when_each_phase_was_first_known_here() {
        let mut ledger = Ledger::default();
        ledger.add(member(3), ViewId(4), BTreeMap::new(), Instant(1), Instant(2));
        ledger.fence(member(3), Instant(3));
        ledger.fence(member(3), Instant(9));
        ledger.close(Instant(10));
        let course = ledger.courses().next().expect("one recovery").clone();
        assert_eq!((course.suspected, course.dropped), (Instant(1), Instant(2)));
        assert_eq!((course.fenced, course.ended), (Some(Instant(3)), Some(Instant(10))));
    }

    #[test]
    fn the_word_of_a_former_recoverer_does_not_end_the_replay_of_another() {
        let mut ledger = Ledger::default();
        let progress = ProgressRecord { recoverer: Some(member(2)), attempt: 2, ..NOTHING_DONE };
        ledger.take(&[record(true, progress)], Instant(1));
        ledger.end_replay(member(3), FS, member(1), Ending::Replayed, Instant(2));
        assert_eq!(ledger.records()[0].file_systems[&FS].ending, None);
        ledger.end_replay(member(3), FS, member(2), Ending::Replayed, Instant(3));
        assert_eq!(ledger.records()[0].file_systems[&FS].ending, Some(Ending::Replayed));
    }
}
