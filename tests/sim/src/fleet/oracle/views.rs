//! Rule: exactly one side of any partition goes on (I9). A view is one set of members, whoever
//! acts in it, and views follow each other: two sides that went on would act in different ones of
//! the same number.

use std::collections::BTreeMap;

use mx_base::Member;
use parking_lot::Mutex;

use super::Oracle;
use crate::fleet::host::Living;

/// Members of every view that anybody acted in.
#[derive(Debug, Default)]
pub(in crate::fleet) struct Views(Mutex<BTreeMap<u64, Vec<Member>>>);

impl Views {
    pub(in crate::fleet) fn check(&self, oracle: &Oracle, living: &[Living]) {
        let mut known = self.0.lock();
        for Living { life, node } in living {
            let Some(view) = node.view() else { continue };
            let members = view.members().to_vec();
            let first = known.entry(view.id.0).or_insert_with(|| members.clone());
            if *first != members {
                let id = view.id.0;
                let what =
                    format!("{} acts in view {id} of {members:?}, not {first:?}", life.member);
                oracle.violation("one view", what);
            }
        }
    }
}
