//! Who is who in the eyes of the links: which start is which member of the committed view, and
//! which lives of each node the register has left behind.

use std::collections::BTreeMap;

use mx_base::{Incarnation, Member, NodeId};

use crate::handshake::{Hello, Refusal, StartNonce};
use crate::register::RegisterValue;

#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    /// The members of the installed view; empty while this node is none itself.
    starts: BTreeMap<Member, StartNonce>,
    /// The newest life of each node, and whether it is a member.
    newest: BTreeMap<NodeId, (Incarnation, bool)>,
}

impl Roster {
    pub(crate) fn new(
        known: Option<&RegisterValue>,
        starts: BTreeMap<Member, StartNonce>,
    ) -> Roster {
        let newest = known
            .iter()
            .flat_map(|value| {
                let life = |(node, incarnation): (&NodeId, &Incarnation)| {
                    let is_member = value.member(*node).is_some();
                    (*node, (*incarnation, is_member))
                };
                value.incarnations.iter().map(life)
            })
            .collect();
        Roster { starts, newest }
    }

    /// The member that this start of `peer` is.
    pub(crate) fn member_of(&self, peer: NodeId, start: StartNonce) -> Option<Member> {
        let mut members = self.starts.iter().filter(|(member, _)| member.node == peer);
        members.find(|(_, known)| **known == start).map(|(member, _)| *member)
    }

    pub(crate) fn start_of(&self, member: Member) -> Option<StartNonce> {
        self.starts.get(&member).copied()
    }

    pub(crate) fn is_start(&self, start: StartNonce) -> bool {
        self.starts.values().any(|known| *known == start)
    }

    pub(crate) fn newest(&self, node: NodeId) -> Incarnation {
        self.newest.get(&node).map_or(Incarnation(0), |(incarnation, _)| *incarnation)
    }

    /// A life that is newer than all we know of may be a member of a view that we have not heard
    /// of yet, so it is let in; what it sends waits.
    pub(crate) fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        let Some(incarnation) = hello.incarnation else { return Ok(()) };
        let Some((newest, is_member)) = self.newest.get(&hello.node).copied() else {
            return Ok(());
        };
        if incarnation < newest {
            return Err(Refusal::StaleIncarnation { newest });
        }
        if incarnation == newest && !is_member {
            return Err(Refusal::NotAMember);
        }
        let member = Member { node: hello.node, incarnation };
        match self.start_of(member) {
            Some(start) if start != hello.start => Err(Refusal::StaleIncarnation { newest }),
            Some(_) | None => Ok(()),
        }
    }
}
