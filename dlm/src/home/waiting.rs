//! How many requests and conversions of each member wait at this home.
//!
//! Keeps true between calls: what is counted here is what is queued in the buckets that are homed
//! here, member by member.

use std::collections::BTreeMap;

use mx_base::Member;

use super::{Home, HomeBucket};

/// Those who have none are not listed.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Waiting(BTreeMap<Member, u32>);

impl Waiting {
    /// How many of one member may wait at one home. A node asks for less than a hundredth of it at
    /// a time; all of a view's 64 members together cost a home at most some hundred MiB.
    ///
    /// What survivors report to the heir of a bucket is taken in beyond it: they were within their
    /// rights at the former home.
    pub(crate) const MAX: u32 = 1 << 14;

    /// May one more of this member wait?
    pub(crate) fn has_room(&self, owner: Member) -> bool {
        self.0.get(&owner).is_none_or(|count| *count < Waiting::MAX)
    }

    /// Something of the member is put into a queue, or is answered in the same step.
    pub(crate) fn begin(&mut self, owner: Member) {
        *self.0.entry(owner).or_default() += 1;
    }

    /// Something of the member is queued no more.
    pub(crate) fn end(&mut self, owner: Member) {
        let Some(count) = self.0.get_mut(&owner) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&owner);
        }
    }

    /// Nothing of the member is queued anywhere any more.
    pub(crate) fn forget(&mut self, owner: Member) {
        self.0.remove(&owner);
    }
}

impl Home {
    /// What is queued, counted anew.
    pub(crate) fn count_waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        self.buckets().for_each(|(_, bucket)| bucket.queued(|owner| waiting.begin(owner)));
        waiting
    }
}

impl HomeBucket {
    /// Tells the owner of each request and conversion that is queued.
    pub(crate) fn queued(&self, mut tell: impl FnMut(Member)) {
        for (_, resource) in self.resources.iter() {
            resource.converting().chain(resource.waiting()).for_each(|q| tell(q.key.owner));
        }
    }
}
