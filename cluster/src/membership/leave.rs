//! A planned leave: the member has flushed, handed over and marked its slots clean before; it goes
//! on as home of its share of the locks until the view without it is committed.

use mx_base::Member;

use super::{Membership, Neighbours, Standing};
use crate::nodes::NodeSet;
use crate::output::End;
use crate::register::RegisterValue;

impl Membership {
    /// From here on this node tells everybody that it may be let go. If it dies before the view
    /// without it is committed, it is a victim like any other.
    pub(crate) fn handle_leave(&mut self) {
        match self.standing {
            Standing::Joining(_) => self.end(End::Left),
            Standing::Member { .. } => self.leaving = true,
            Standing::Ended => {}
        }
    }

    /// Members that can be let go in good order.
    pub(super) fn leavers(&self, base: &RegisterValue, neighbours: &Neighbours) -> NodeSet {
        let leaves = |member: &&Member| self.is_leaver(**member, neighbours);
        base.members.iter().filter(leaves).map(|member| member.node).collect()
    }

    pub(super) fn is_leaver(&self, member: Member, neighbours: &Neighbours) -> bool {
        if member.node == self.node {
            return self.leaving;
        }
        neighbours
            .get(&member.node)
            .filter(|neighbour| self.starts.get(&member) == Some(&neighbour.start))
            .and_then(|neighbour| neighbour.report)
            .is_some_and(|report| report.flags.leaving)
    }
}
