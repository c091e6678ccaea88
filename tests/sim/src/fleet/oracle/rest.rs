//! The rule of a freeze: while somebody has the file system frozen, nothing is written but what a
//! recovery writes. Looked at until somebody dies.

use mfs::block::BlockNo;
use mfs::layout::Layout;
use mx_base::Member;

use super::Oracle;

/// See the module.
#[derive(Default)]
pub(super) struct Rest {
    /// By whom, and how many lives were lost before.
    frozen: Option<(Member, usize)>,
    count: u32,
}

impl Rest {
    pub(super) fn frozen(&mut self, oracle: &Oracle, by: Option<Member>) {
        self.count += u32::from(by.is_some());
        self.frozen = by.map(|by| (by, oracle.losses()));
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// What is outside of groups is no part of the file system: membership, heads of slots.
    pub(super) fn check(&self, oracle: &Oracle, layout: &Layout, writer: Member, at: BlockNo) {
        if let Some((by, losses)) = self.frozen
            && oracle.losses() == losses
            && layout.group_of(at).is_some()
        {
            let what = format!("{writer} writes {at}, which {by} has frozen");
            oracle.violation("at rest", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use mfs::layout::DEVICE_BLOCKS_MIN;
    use mx_base::{Incarnation, NodeId};

    use super::*;
    use crate::exec::Executor;
    use crate::fleet::LifeId;

    #[test]
    fn what_is_written_while_it_is_frozen_is_found_until_somebody_dies() {
        let layout = Layout::for_device(DEVICE_BLOCKS_MIN).expect("large enough");
        let member =
            Member { node: NodeId::new(1).expect("in range"), incarnation: Incarnation(1) };
        let at = BlockNo(layout.group_start + 40);
        let found = |by, at, dies| {
            let oracle = Oracle::new(&Executor::new(1));
            let mut rest = Rest::default();
            rest.frozen(&oracle, Some(member));
            rest.frozen(&oracle, by);
            if dies {
                oracle.lost(LifeId(1));
            }
            rest.check(&oracle, &layout, member, at);
            oracle.first_violation().is_some()
        };
        assert!(found(Some(member), at, false));
        assert!(!found(None, at, false), "thawed");
        assert!(!found(Some(member), BlockNo(1), false), "no part of it");
        assert!(!found(Some(member), at, true), "somebody is recovered");
    }
}
