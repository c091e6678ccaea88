//! What a member reports to the heirs of buckets that moved.

use std::collections::BTreeMap;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Member, ViewId};

use crate::homes::Homes;
use crate::lock::{Denial, LockId};
use crate::message::ReportedLock;
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::requester::OwnLocks;

/// The reports by heir, and what needs no report any more.
pub(crate) struct Reports {
    /// One report speaks of buckets of one epoch: a heir that is a view behind this node has to
    /// take in what belongs to the view it knows before what this node does under it next.
    pub(crate) by_heir: BTreeMap<(Member, ViewId), Vec<ReportedLock>>,
    /// Waits that their owner had cancelled: the former home's answer, whatever it was, does not
    /// count any more.
    pub(crate) cancelled: Vec<(LockId, ResourceName, Denial)>,
}

/// Collects what this node holds and waits for in the `moved` buckets, the strongest modes first.
/// From here on nothing counts that the former homes say about them.
pub(crate) fn collect(own: &mut OwnLocks, moved: &[Bucket], homes: &Homes) -> Reports {
    let mut by_heir: BTreeMap<_, Vec<ReportedLock>> = BTreeMap::new();
    let mut cancelled = Vec::new();
    for bucket in moved {
        let heir = homes.home(*bucket).expect("a view has members, so every bucket has a home");
        let ids: Vec<LockId> = own.in_bucket(*bucket).map(|(id, _)| id).collect();
        for id in ids {
            let lock = own.get_mut(id).expect("just listed");
            lock.grants = 0;
            lock.lowers = 0;
            if lock.asked.is_some_and(|asked| asked.is_cancelled) {
                lock.asked = None;
                cancelled.push((id, lock.name, Denial::Cancelled));
            }
            if lock.asked.is_none() && lock.held.is_none() {
                own.remove(id);
                continue;
            }
            if lock.held.is_none() && !is_kept(Rule::ReportWhatIsWaitedFor) {
                continue;
            }
            let asked_for = lock.asked.filter(|_| !is_kept(Rule::ReportWhatIsHeld));
            let held = asked_for.map(|asked| asked.wanted).or(lock.held);
            by_heir.entry((heir, homes.epoch(*bucket))).or_default().push(ReportedLock {
                bucket: *bucket,
                name: lock.name,
                lock: id,
                held,
                wanted: lock.asked.map(|asked| asked.wanted).filter(|wanted| held != Some(*wanted)),
                no_queue: lock.asked.is_some_and(|asked| asked.no_queue),
                value: lock.value.clone(),
            });
        }
    }
    for locks in by_heir.values_mut() {
        locks.sort_by_key(|lock| exclusion(lock.held));
    }
    Reports { by_heir, cancelled }
}

/// Higher levels of exclusion are reported first.
fn exclusion(held: Option<Mode>) -> u8 {
    match held {
        Some(Mode::EX | Mode::PW) => 0,
        Some(Mode::CW) => 1,
        Some(Mode::PR) => 2,
        Some(Mode::CR | Mode::NL) => 3,
        None => 4,
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, Instant, NodeId, SanGeneration, View};

    use super::*;
    use crate::requester::Asked;

    #[test]
    fn the_strongest_modes_are_reported_first_whatever_their_buckets() {
        let me = Member { node: NodeId::new(1).expect("in range"), incarnation: Incarnation(1) };
        let homes = Homes::new().next(&View::new(ViewId(1), SanGeneration(1), vec![me]));
        let (nl, cr, cw, pr, pw, ex) = (Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX);
        let held = [None, Some(nl), Some(pr), Some(ex), Some(cr), Some(cw), Some(pw)];
        let buckets: Vec<Bucket> = (1..8).filter_map(Bucket::new).collect();
        let mut own = OwnLocks::new();
        for (bucket, held) in buckets.iter().zip(held) {
            let asked = Asked { wanted: ex, no_queue: false, is_cancelled: false };
            let name = ResourceName::new(b"any").expect("short");
            let id = own.insert(name, *bucket, asked, Instant(0)).expect("room");
            own.get_mut(id).expect("just made").held = held;
        }
        let reports = collect(&mut own, &buckets, &homes);
        assert_eq!(reports.by_heir.len(), 1, "one heir, one epoch");
        let reported: Vec<_> = reports.by_heir.values().flatten().map(|lock| lock.held).collect();
        let sorted = [Some(ex), Some(pw), Some(cw), Some(pr), Some(nl), Some(cr), None];
        assert_eq!(reported, sorted);
    }
}
