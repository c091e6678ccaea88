//! Who waits for whom: what is told of a wait in the search for cycles (`docs/spec/locks.md`, 10).
//!
//! The search goes along the waits themselves. From the home of a wait it goes to the members of
//! those in its way ([`Message::Trace`](crate::Message::Trace)), from each to the homes of what that
//! owner waits for ([`Message::Follow`](crate::Message::Follow)); where it comes back to whom it
//! began with, the cycle is gone round once more ([`Message::Confirm`](crate::Message::Confirm)),
//! and its youngest wait ends.

use mx_base::Member;

use super::{ClaimId, ClaimRef};
use crate::name::{Bucket, ResourceName};

/// A claim of [`Family::Ranges`](super::Family::Ranges) that waits and may be part of a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Wait {
    pub member: Member,
    pub owner: u64,
    pub id: ClaimId,
    /// Greater than that of every wait that its member had heard of when it began.
    pub stamp: u64,
    pub bucket: Bucket,
    pub name: ResourceName,
}

impl Wait {
    /// Waits in a path at most. Longer cycles are not found.
    pub const PATH_MAX: usize = 32;

    /// In how many directions one search goes at most.
    pub(crate) const BUDGET: u16 = 256;

    pub(crate) fn claim(&self) -> ClaimRef {
        ClaimRef { member: self.member, id: self.id }
    }

    pub(crate) fn is_of(&self, member: Member, owner: u64) -> bool {
        (self.member, self.owner) == (member, owner)
    }

    /// Of a cycle the one with the greatest ends: whoever finds it chooses the same one.
    fn youth(&self) -> (u64, Member, ClaimId) {
        (self.stamp, self.member, self.id)
    }
}

/// Turned so that the one that is to end comes last.
pub(crate) fn victim_last(mut cycle: Vec<Wait>) -> Vec<Wait> {
    let youngest = (0..cycle.len()).max_by_key(|i| cycle[*i].youth());
    let youngest = youngest.expect("a cycle has a wait");
    cycle.rotate_left(youngest + 1);
    cycle
}
