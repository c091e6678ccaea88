//! Rules of lives and of how they end:
//! * errors: an operation fails only because the life of its node ends, or as the rule of its object
//!   says;
//! * life: nobody leaves unasked, and no life ends by itself in a run in which nothing goes wrong that
//!   may be taken for a death ([`Plan::justifies_end`]): each that was started is there until it crashes
//!   or is asked to leave. One that has not mounted yet may end when another dies: its mount starts over
//!   (`cluster::san::mount_group`), or whoever let it in has died before it heard of that. What was under way when a life has ended fails within [`GRACE`];
//! * protocol: nobody is told what breaks the protocol;
//! * unmount: who has unmounted keeps nothing from the others.

use cluster::End;
use mfs::FsError;
use mfs::error::DiskError;
use mx_base::Duration;
use mx_node::{Node, Surroundings};

use super::Oracle;
use crate::fleet::Fleet;
use crate::fleet::host::Life;
use crate::fleet::plan::Plan;
use crate::fleet::volume::Volume;

/// How long what was under way may take to fail once a life has ended.
const GRACE: Duration = Duration::from_secs(2);

/// An error that says that this life of the node is over.
fn is_end(error: &FsError) -> bool {
    matches!(error, FsError::CutOff | FsError::Disk(DiskError::Fenced))
}

/// An operation has failed on a life; does that count?
pub(in crate::fleet) fn failed(
    oracle: &Oracle,
    life: &Life,
    counts: bool,
    (name, error): (&str, &FsError),
) {
    if is_end(error) {
        life.expect_end(format!("{name}: {error}"));
    } else if counts {
        oracle.violation("errors", format!("{}: {name} failed: {error}", life.member));
    }
}

/// What is wrong with it that a life has ended like this, if anything is.
fn wrong_with(plan: &Plan, end: End, was_asked: bool, has_mounted: bool) -> Option<&'static str> {
    match end {
        End::Expelled | End::LifeUsed { .. } if !has_mounted && plan.kills() => None,
        End::Left if was_asked => None,
        End::Left => Some("has left unasked"),
        // Of several that start the cluster together one does, and the others start over.
        End::ColdStartRefused => None,
        End::Expelled | End::LifeUsed { .. } | End::MissedViews if plan.justifies_end() => None,
        End::Expelled | End::LifeUsed { .. } | End::MissedViews => {
            Some("has ended, and nothing has happened that is taken for a death")
        }
    }
}

impl Fleet {
    pub(in crate::fleet) fn expect_reason(&self, life: &Life, end: End) {
        if let Some(wrong) = wrong_with(&self.plan, end, life.is_leaving(), life.has_mounted()) {
            self.oracle.violation("life", format!("{} {wrong}: {end}", life.member));
        }
    }

    /// A life has ended so long ago, and still this is under way: may it not be?
    pub(in crate::fleet) fn outlasts(
        &self,
        life: &Life,
        passed: Duration,
        left: &[String],
    ) -> bool {
        if passed > GRACE {
            let what = format!("{} has ended, and still: {left:?}", life.member);
            self.oracle.violation("life", what);
        }
        passed > GRACE
    }

    pub(in crate::fleet) fn count_violations(&self, life: &Life, node: &Node) {
        if node.violations() > 0 {
            let what = format!("{} was told what breaks the protocol", life.member);
            self.oracle.violation("protocol", what);
        }
    }

    pub(in crate::fleet) fn expect_no_locks(&self, life: &Life, node: &Node, volume: &Volume) {
        let dump = node.lock_dump(&Surroundings::default(), None, 10);
        let mut dumps = dump.file_systems.into_iter();
        let of = dumps.find(|locks| locks.fs.id == volume.fs.to_string());
        for lock in of.into_iter().flat_map(|locks| locks.locks) {
            if lock.mode != "NL" {
                let what = format!("{} has unmounted and keeps {lock:?}", life.member);
                self.oracle.violation("unmount", what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::plan::{Fault, Kind};

    #[test]
    fn a_life_that_ends_by_itself_for_nothing_is_found() {
        let calm = Plan::of_kind(0, Kind::Calm);
        let wrong_with =
            |plan: &Plan, end, was_asked| super::wrong_with(plan, end, was_asked, true);
        assert!(wrong_with(&calm, End::Expelled, false).is_some());
        assert!(wrong_with(&calm, End::Left, false).is_some());
        assert!(wrong_with(&calm, End::Left, true).is_none());
        let with = |fault| Plan { faults: vec![(Duration::ZERO, fault)], ..calm.clone() };
        let pause = |ms| with(Fault::Pause { host: 0, length: Duration::from_millis(ms) });
        assert!(wrong_with(&pause(2_500), End::Expelled, false).is_none());
        assert!(wrong_with(&pause(150), End::Expelled, false).is_some());
        let leave = with(Fault::Leave { host: 0, restart: Duration::ZERO });
        assert!(wrong_with(&leave, End::Expelled, false).is_some());
    }

    #[test]
    fn who_is_mounting_when_another_dies_may_start_over() {
        let calm = Plan::of_kind(0, Kind::Calm);
        assert!(wrong_with(&calm, End::Expelled, false, false).is_some());
        let crash = Fault::Crash { host: 0, restart: Duration::ZERO };
        let crash = Plan { faults: vec![(Duration::ZERO, crash)], ..calm };
        assert!(wrong_with(&crash, End::Expelled, false, true).is_some());
        assert!(wrong_with(&crash, End::Expelled, false, false).is_none());
        assert!(wrong_with(&crash, End::MissedViews, false, false).is_some());
    }
}
