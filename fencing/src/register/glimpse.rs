//! Reading the committed value without a ballot, where nobody is changing it.
//!
//! Two passes over the records of one partition, the second begun after the first has ended. What
//! the first shows accepted in the highest ballot, in every readable copy of its writer's record,
//! is committed when the second shows no higher promise: whoever promises a higher ballot later
//! reads the records after that, finds this value accepted and adopts it.

use mx_base::ClusterId;

use super::scan::Scan;
use crate::ballot::Ballot;
use crate::layout::MpIndex;
use crate::ondisk::Block;
use crate::reg_val::RegVal;

/// The committed value, of a register on one partition; `None` when a change is under way, or a
/// record cannot be read, and a ballot has to tell.
///
/// `first` and `second` are the blocks of [`crate::layout::register_run`], each read from the
/// device itself, the second after the first.
pub fn glimpse(
    cluster: ClusterId,
    nodes_max: u16,
    first: &[Block],
    second: &[Block],
) -> Option<RegVal> {
    let scan = |blocks: &[Block]| {
        let mut scan = Scan::new(nodes_max);
        scan.handle(Some(blocks), cluster, MpIndex(0)).ok()?;
        Some(scan)
    };
    let (before, after) = (scan(first)?, scan(second)?);
    let (seen, now) = (before.picture().ok()?, after.picture().ok()?);
    let highest = seen.highest();
    if now.promised() > highest.accepted || now.highest().accepted != highest.accepted {
        return None;
    }
    if highest.accepted == Ballot::ZERO {
        return Some(RegVal::initial());
    }
    let copies = before.copies(highest.node);
    let settled = copies.iter().filter_map(|seen| seen.record());
    settled
        .into_iter()
        .all(|record| record.accepted == highest.accepted && record.value == highest.value)
        .then(|| highest.value.clone())
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;
    use crate::layout::CopyNo;
    use crate::ondisk::register::{RegisterRecord, place};

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn node(id: u16) -> NodeId {
        NodeId::new(id).expect("in range")
    }

    /// By node: promise and accepted round of each copy.
    fn run(copies: [[(u64, u64); 2]; 2]) -> Vec<Block> {
        let mut blocks = Vec::new();
        for (id, copies) in (1..).zip(copies) {
            for (copy, (promised, accepted)) in CopyNo::BOTH.into_iter().zip(copies) {
                let ballot = |round| match round {
                    0 => Ballot::ZERO,
                    round => Ballot::new(round, 1, node(1)),
                };
                let record = RegisterRecord {
                    node: node(id),
                    incarnation: Incarnation(1),
                    sequence: promised.max(1),
                    promised: ballot(promised),
                    accepted: ballot(accepted),
                    value: RegVal::initial(),
                };
                let place = place(CLUSTER, MpIndex(0), node(id), copy);
                blocks.push(*record.encode(place));
            }
        }
        blocks
    }

    #[test]
    fn what_nobody_is_about_to_change_is_committed() {
        let quiet = run([[(5, 5), (5, 5)], [(4, 0), (4, 0)]]);
        assert_eq!(glimpse(CLUSTER, 2, &quiet, &quiet), Some(RegVal::initial()));
        let unused = run([[(0, 0), (0, 0)], [(0, 0), (0, 0)]]);
        assert_eq!(glimpse(CLUSTER, 2, &unused, &unused), Some(RegVal::initial()));
    }

    #[test]
    fn a_promise_that_is_higher_or_a_copy_that_lags_needs_a_ballot() {
        let quiet = run([[(5, 5), (5, 5)], [(4, 0), (4, 0)]]);
        let promised = run([[(5, 5), (5, 5)], [(6, 0), (4, 0)]]);
        let accepted = run([[(5, 5), (5, 5)], [(6, 6), (6, 6)]]);
        let lagging = run([[(5, 5), (5, 4)], [(4, 0), (4, 0)]]);
        for (first, second) in
            [(&quiet, &promised), (&quiet, &accepted), (&promised, &promised), (&lagging, &quiet)]
        {
            assert_eq!(glimpse(CLUSTER, 2, first, second), None);
        }
    }

    #[test]
    fn a_damaged_record_needs_a_ballot() {
        let quiet = run([[(5, 5), (5, 5)], [(4, 0), (4, 0)]]);
        let mut damaged = quiet.clone();
        damaged[2].0[40] ^= 1;
        damaged[3].0[40] ^= 1;
        assert_eq!(glimpse(CLUSTER, 2, &quiet, &damaged), None);
    }
}
