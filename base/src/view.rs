//! A view: who is in the cluster, as committed on the SAN register.

use crate::id::{Member, NodeId};

/// Number of a view; grows with every committed change of membership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ViewId(pub u64);

/// The counter of the register: one more with every committed change (R7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SanGeneration(pub u64);

/// The members of the cluster between two changes. Only a committed view has authority (R11).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct View {
    pub id: ViewId,
    pub generation: SanGeneration,
    members: Vec<Member>,
}

impl View {
    /// Members are kept in order of node id; one entry per node.
    ///
    /// # Panics
    /// When a node is listed twice: a view is made by code of ours, never taken from a peer
    /// unchecked.
    pub fn new(id: ViewId, generation: SanGeneration, mut members: Vec<Member>) -> View {
        members.sort_unstable();
        assert!(
            members.windows(2).all(|pair| pair[0].node != pair[1].node),
            "a view lists a node once: {members:?}"
        );
        View { id, generation, members }
    }

    /// In order of node id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn contains(&self, member: Member) -> bool {
        self.members.binary_search(&member).is_ok()
    }

    /// The life in which `node` is a member, if it is one.
    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members.iter().copied().find(|m| m.node == node)
    }

    /// Members of `self` that are not in `next`: the dead and the leavers.
    pub fn lost_in<'a>(&'a self, next: &'a View) -> impl Iterator<Item = Member> + 'a {
        self.members.iter().copied().filter(|m| !next.contains(*m))
    }
}
