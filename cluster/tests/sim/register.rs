//! A register that obeys the rules of crate `fencing`: a change has effect on the generation it
//! was made for and on no other.

use std::collections::BTreeMap;

use cluster::{Change, NodeSet, Phase, RegisterValue};
use mx_base::{Incarnation, Member, NodeId, SanGeneration, ViewId};

pub(crate) struct Register {
    pub(crate) value: RegisterValue,
    /// All values that were ever committed, by view.
    pub(crate) members_of: BTreeMap<ViewId, Vec<Member>>,
}

pub(crate) enum Verdict {
    Committed,
    GenerationMoved,
}

impl Register {
    pub(crate) fn new() -> Register {
        Register { value: RegisterValue::initial(), members_of: BTreeMap::new() }
    }

    /// Applies the change of `by`, whose node id is `node`.
    ///
    /// # Panics
    /// When the change is against the rules of the register although the generation is right: the
    /// machines must never ask for that.
    pub(crate) fn change(
        &mut self,
        node: NodeId,
        expected: SanGeneration,
        change: &Change,
    ) -> Verdict {
        if self.value.generation != expected {
            return Verdict::GenerationMoved;
        }
        let mut next = self.value.clone();
        next.generation = SanGeneration(next.generation.0 + 1);
        match change {
            Change::Regroup(regroup) => {
                let by = self.value.member(node).expect("only a member changes the members");
                let gone = regroup.leaves.union(regroup.victims);
                let nodes = self.value.nodes();
                assert!(gone.minus(nodes).is_empty(), "only members go: {regroup:?}");
                assert!(regroup.leaves.intersection(regroup.victims).is_empty());
                assert!(!regroup.victims.contains(by.node), "nobody expels itself");
                let joins: NodeSet = regroup.joins.iter().map(|m| m.node).collect();
                assert!(joins.intersection(nodes).is_empty(), "members do not join");
                assert!(!gone.union(joins).is_empty(), "a change changes something");
                for join in &regroup.joins {
                    let unfenced = next.phase == Phase::Fencing;
                    let listed = next.victims.contains_key(&join.node);
                    assert!(!(unfenced && listed), "{join}: its former life is not fenced");
                    assert!(join.incarnation > next.newest(join.node), "{join} lived before");
                }
                expel(&mut next, regroup.victims);
                next.members.retain(|m| !gone.contains(m.node));
                for join in &regroup.joins {
                    next.incarnations.insert(join.node, join.incarnation);
                    next.members.push(*join);
                }
                next.members.sort_unstable();
                next.view = ViewId(next.view.0 + 1);
                next.administrator = if next.members.is_empty() {
                    None
                } else {
                    assert!(next.members.contains(&by), "{by} administers what it is no part of");
                    Some(by)
                };
            }
            Change::Fenced => {
                assert_eq!(self.value.administrator.map(|a| a.node), Some(node));
                assert_eq!(next.phase, Phase::Fencing);
                next.phase = Phase::Fenced;
            }
            Change::Recovered => {
                assert_eq!(self.value.administrator.map(|a| a.node), Some(node));
                assert_eq!(next.phase, Phase::Fenced);
                next.phase = Phase::Recovered;
            }
            Change::ColdStart { me } => {
                assert!(me.incarnation > next.newest(me.node), "{me} lived before");
                let all = next.nodes();
                expel(&mut next, all);
                next.members = vec![*me];
                next.incarnations.insert(me.node, me.incarnation);
                next.view = ViewId(next.view.0 + 1);
                next.administrator = Some(*me);
            }
        }
        self.members_of.insert(next.view, next.members.clone());
        self.value = next;
        Verdict::Committed
    }
}

fn expel(next: &mut RegisterValue, victims: NodeSet) {
    let unrecovered = match next.phase {
        Phase::Fencing | Phase::Fenced => std::mem::take(&mut next.victims),
        Phase::Stable | Phase::Recovered => BTreeMap::new(),
    };
    next.phase = if !victims.is_empty() {
        Phase::Fencing
    } else if unrecovered.is_empty() {
        Phase::Stable
    } else {
        next.phase
    };
    // As the real one, which keeps one bit for each node and the newest incarnation.
    let lives: Vec<(NodeId, Incarnation)> =
        victims.iter().map(|node| (node, next.newest(node))).collect();
    next.victims = unrecovered;
    next.victims.extend(lives);
}
