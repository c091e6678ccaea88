//! Rule: exactly one side of any partition goes on (I9). A view is one set of members, whoever
//! acts in it, and views follow each other: two sides that went on would act in different ones of
//! the same number.
//!
//! Looked at whenever a node acts in another view than before.

use std::collections::BTreeMap;

use mx_base::Member;
use parking_lot::Mutex;

use super::Oracle;
use crate::fleet::host::Living;

/// Members of every view that anybody acted in.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Views(Mutex<BTreeMap<u64, Vec<Member>>>);

impl Views {
    pub(in crate::fleet) fn check(&self, oracle: &Oracle, Living { life, node }: &Living) {
        if let Some(view) = node.view() {
            self.acts_in(oracle, life.member, view.id.0, view.members());
        }
    }

    fn acts_in(&self, oracle: &Oracle, member: Member, id: u64, members: &[Member]) {
        let mut known = self.0.lock();
        let first = known.entry(id).or_insert_with(|| members.to_vec());
        if *first != members {
            let what = format!("{member} acts in view {id} of {members:?}, not {first:?}");
            oracle.violation("one view", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;
    use crate::exec::Executor;

    #[test]
    fn two_that_act_in_different_views_of_one_number_are_found() {
        let member = |node| Member {
            node: NodeId::new(node).expect("in range"),
            incarnation: Incarnation(1),
        };
        let [a, b] = [1, 2].map(member);
        let (views, oracle) = (Views::default(), Oracle::new(&Executor::new(1)));
        views.acts_in(&oracle, a, 7, &[a, b]);
        views.acts_in(&oracle, b, 7, &[a, b]);
        assert_eq!(oracle.first_violation(), None);
        views.acts_in(&oracle, b, 7, &[b]);
        assert_eq!(oracle.first_violation().map(|found| found.oracle), Some("one view"));
    }
}
