//! The border to the register: what it says, what is to be changed, and how that ended.
//!
//! The register itself lives in crate `fencing`. Here it is a value that grows by one generation
//! with every committed change, and a change that has effect only on the generation it was made
//! for (R11). The rules a change must obey are kept there as well; a refusal is always possible.

use std::collections::BTreeMap;

use mx_base::{Incarnation, Member, NodeId, SanGeneration, View, ViewId};
use serde::{Deserialize, Serialize};

use crate::nodes::NodeSet;
use crate::wire::raw;

/// How far the cluster has come with its victims (R14).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody is to be fenced or recovered.
    Stable,
    /// The victims are being fenced.
    Fencing,
    /// Every victim is proven fenced; what they left is being recovered.
    Fenced,
    /// Everything is recovered. The victims stay listed until the next change.
    Recovered,
}

/// What the register says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegisterValue {
    /// Grows by one with every committed change (R7).
    #[serde(with = "raw")]
    pub generation: SanGeneration,
    /// Grows by one whenever the members change.
    #[serde(with = "raw")]
    pub view: ViewId,
    pub phase: Phase,
    /// A member; there is one whenever there are members (R6).
    #[serde(with = "raw")]
    pub administrator: Option<Member>,
    /// In order of node id, each node once.
    #[serde(with = "raw")]
    pub members: Vec<Member>,
    /// Every life of the node up to this one is to be fenced and recovered, or was last.
    #[serde(with = "raw")]
    pub victims: BTreeMap<NodeId, Incarnation>,
    /// The newest incarnation ever given to each node.
    #[serde(with = "raw")]
    pub incarnations: BTreeMap<NodeId, Incarnation>,
}

impl RegisterValue {
    /// Before the first change.
    pub fn initial() -> RegisterValue {
        RegisterValue {
            generation: SanGeneration(0),
            view: ViewId(0),
            phase: Phase::Stable,
            administrator: None,
            members: Vec::new(),
            victims: BTreeMap::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// The committed view.
    pub fn view(&self) -> View {
        View::new(self.view, self.generation, self.members.clone())
    }

    pub fn contains(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    pub fn member(&self, node: NodeId) -> Option<Member> {
        self.members.iter().copied().find(|member| member.node == node)
    }

    pub fn nodes(&self) -> NodeSet {
        self.members.iter().map(|member| member.node).collect()
    }

    /// The newest incarnation ever given to `node`; 0 for none yet.
    pub fn newest(&self, node: NodeId) -> Incarnation {
        self.incarnations.get(&node).copied().unwrap_or(Incarnation(0))
    }

    /// Is `member` dead and not known to be recovered?
    pub fn is_unrecovered(&self, member: Member) -> bool {
        matches!(self.phase, Phase::Fencing | Phase::Fenced)
            && self.victims.get(&member.node).is_some_and(|up_to| member.incarnation <= *up_to)
    }

    /// May a new life of `node` join? Not before its former ones are proven fenced.
    pub fn may_join(&self, node: NodeId) -> bool {
        self.phase != Phase::Fencing || !self.victims.contains_key(&node)
    }

    /// The newest dead life of each node that is not known to be recovered.
    pub fn unrecovered(&self) -> Vec<Member> {
        match self.phase {
            Phase::Stable | Phase::Recovered => Vec::new(),
            Phase::Fencing | Phase::Fenced => self
                .victims
                .iter()
                .map(|(node, incarnation)| Member { node: *node, incarnation: *incarnation })
                .collect(),
        }
    }

    /// What a value of a peer or a disk must obey before anything relies on it.
    pub(crate) fn is_consistent(&self) -> bool {
        self.members.windows(2).all(|pair| pair[0].node < pair[1].node)
            && self.members.iter().all(|m| m.incarnation.0 != 0)
            && self.members.iter().all(|m| self.newest(m.node) == m.incarnation)
            && self.administrator.is_none_or(|admin| self.contains(admin))
            && self.administrator.is_none() == self.members.is_empty()
    }
}

/// The members change: in one step any of joins, clean leaves and deaths.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Regroup {
    /// New lives, with the incarnations they are to have.
    #[serde(with = "raw")]
    pub joins: Vec<Member>,
    /// Members that have flushed, handed over and stopped.
    #[serde(with = "raw")]
    pub leaves: NodeSet,
    /// Members that are gone without having left. They are to be fenced and recovered.
    #[serde(with = "raw")]
    pub victims: NodeSet,
}

impl Regroup {
    /// The members after the change, in order of node id.
    pub fn members_after(&self, base: &RegisterValue) -> Vec<Member> {
        let gone = self.leaves.union(self.victims);
        let mut members: Vec<Member> =
            base.members.iter().copied().filter(|m| !gone.contains(m.node)).collect();
        members.extend(&self.joins);
        members.sort_unstable();
        members
    }
}

/// A change of the register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Whoever carries it out is the administrator afterwards, unless it leaves with it (Fig. 11).
    Regroup(Regroup),
    /// Every victim is proven fenced; by the administrator.
    Fenced,
    /// Everything the victims left is recovered; by the administrator.
    Recovered,
    /// `me` becomes the only member, all former ones become victims. That no disk heartbeat of
    /// theirs moves is checked once more by whoever carries it out.
    ColdStart { me: Member },
}

/// Names one request to change the register, within one start of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CommitToken(pub u64);

/// A request to change the register.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    pub token: CommitToken,
    /// The change has no effect unless the register is in this generation.
    pub expected: SanGeneration,
    pub change: Change,
}

/// How a [`Commit`] ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitAnswer {
    /// The register now holds this value.
    Committed(RegisterValue),
    /// Nothing was changed and nothing will be; the register holds this value.
    Refused(RegisterValue),
    /// It may still happen. A final answer for the same token follows as soon as it is known.
    Unknown,
    /// It will not happen any more. Whether it has happened before others went on to this value,
    /// nobody can tell.
    Overtaken(RegisterValue),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u16, incarnation: u32) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn victims_count_as_unrecovered_until_the_register_says_recovered() {
        let dead = member(2, 5);
        let mut value = RegisterValue::initial();
        value.victims.insert(dead.node, dead.incarnation);
        value.phase = Phase::Fencing;
        assert!(value.is_unrecovered(dead));
        assert!(value.is_unrecovered(member(2, 4)));
        assert!(!value.is_unrecovered(member(2, 6)));
        assert!(!value.may_join(dead.node));
        value.phase = Phase::Fenced;
        assert!(value.is_unrecovered(dead));
        assert!(value.may_join(dead.node));
        value.phase = Phase::Recovered;
        assert_eq!(value.unrecovered(), []);
    }

    #[test]
    fn a_value_that_lists_a_node_twice_or_an_unknown_administrator_is_not_relied_on() {
        let mut value = RegisterValue::initial();
        assert!(value.is_consistent());
        value.members = vec![member(1, 1), member(2, 1)];
        value.incarnations = value.members.iter().map(|m| (m.node, m.incarnation)).collect();
        assert!(!value.is_consistent());
        value.administrator = Some(member(1, 1));
        assert!(value.is_consistent());
        value.members[1] = member(1, 1);
        assert!(!value.is_consistent());
    }
}
