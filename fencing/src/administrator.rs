//! How the register may change, and who may change it (R6, R7, R11, R14).
//!
//! Keeps true:
//! * a change has effect only on the generation it was made for, and adds one to it;
//! * only a member changes anything, save for a cold start, which makes victims of all members;
//! * whoever loses membership without having left is a victim until it is proven fenced;
//! * FENCED is recorded only with a proof for each victim, and a life begins only after its
//!   node's former one is proven fenced.

use mx_base::rules::{Rule, is_kept};
use mx_base::{Member, NodeId, SanGeneration, ViewId};

use crate::generation::{self, GenerationMoved};
use crate::heartbeat::Quiet;
use crate::key::is_life;
use crate::node_set::NodeSet;
use crate::proof::{FenceProof, Victim};
use crate::reg_val::{Author, Phase, RegVal};

/// A change of the register. Evaluated on the value that a ballot adopts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new set of members: any of joins, clean leaves and victims, in one step.
    Regroup(Regroup),
    /// The administrator's duties go over to a member (Fig. 11).
    TakeAdministration { by: Member, expected: SanGeneration },
    /// Every victim is proven fenced.
    Fenced { by: Member, expected: SanGeneration, proofs: Vec<FenceProof> },
    /// Every victim's journals are replayed.
    Recovered { by: Member, expected: SanGeneration },
    /// The first member of a cluster of which no listed member lives any more.
    ColdStart(ColdStart),
}

/// See [`Change::Regroup`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Regroup {
    /// The member that makes the change.
    pub by: Member,
    pub expected: SanGeneration,
    /// New lives; their incarnations must be newer than any that the register knows.
    pub joins: Vec<Member>,
    /// Members that have flushed, handed over and stopped. May include `by`.
    pub leaves: NodeSet,
    /// Members that are gone without having left. Never includes `by`.
    pub victims: NodeSet,
    /// Who administers afterwards: `by`, or, when `by` is the administrator, any remaining member.
    /// `None` when nobody remains.
    pub administrator: Option<NodeId>,
}

/// See [`Change::ColdStart`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColdStart {
    pub me: Member,
    pub expected: SanGeneration,
    /// Nodes whose heartbeats have been watched and did not move. That nobody answers on the
    /// network either is the caller's to see to.
    pub quiet: Quiet,
}

/// Why a change was not made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    GenerationMoved(#[from] GenerationMoved),
    #[error("{by} is not a member")]
    NotAMember { by: Member },
    #[error("{by} is not the administrator, {administrator} is")]
    NotAdministrator { by: Member, administrator: Member },
    #[error("{node} is not a member and can neither leave nor be expelled")]
    NotThere { node: NodeId },
    #[error("{node} is a member already")]
    MemberExists { node: NodeId },
    #[error("{member} is not a life newer than incarnation {newest} of the same node")]
    IncarnationUsed { member: Member, newest: mx_base::Incarnation },
    #[error("the former life of {node} is not proven fenced")]
    FormerLifeNotFenced { node: NodeId },
    #[error("{node} cannot leave or join and be expelled at once, and cannot expel itself")]
    Contradiction { node: NodeId },
    #[error("the administrator named is none of the members that remain")]
    AdministratorNotThere,
    #[error("no proof that {victim} is fenced")]
    Unproven { victim: Victim },
    #[error("not possible in phase {phase:?}")]
    WrongPhase { phase: Phase },
    #[error("members whose heartbeats may still be moving: {nodes}")]
    NotQuiet { nodes: NodeSet },
    #[error("the change would change nothing")]
    NothingToDo,
    #[error("{node} is beyond the {nodes_max} nodes of this cluster")]
    BeyondNodesMax { node: NodeId, nodes_max: u16 },
}

impl Change {
    /// A node joins and nothing else happens; by the administrator.
    pub fn join(by: Member, expected: SanGeneration, member: Member) -> Change {
        Change::Regroup(Regroup { joins: vec![member], ..Regroup::by_administrator(by, expected) })
    }

    /// Members leave in good order; by the administrator, who stays.
    pub fn leave(by: Member, expected: SanGeneration, leaves: NodeSet) -> Change {
        Change::Regroup(Regroup { leaves, ..Regroup::by_administrator(by, expected) })
    }

    /// Members are gone: they become victims, and `by` administers from now on.
    pub fn expel(by: Member, expected: SanGeneration, victims: NodeSet) -> Change {
        Change::Regroup(Regroup { victims, ..Regroup::by_administrator(by, expected) })
    }

    /// The generation that the change is meant for.
    pub fn expected(&self) -> SanGeneration {
        match self {
            Change::Regroup(regroup) => regroup.expected,
            Change::TakeAdministration { expected, .. }
            | Change::Fenced { expected, .. }
            | Change::Recovered { expected, .. } => *expected,
            Change::ColdStart(start) => start.expected,
        }
    }

    /// The value after the change, made by `author`.
    ///
    /// # Errors
    /// Why the change is not legal on `value`; nothing is changed then.
    pub fn apply(&self, value: &RegVal, author: Author, nodes_max: u16) -> Result<RegVal, Refusal> {
        generation::expect(value, self.expected())?;
        let mut next = value.clone();
        next.generation = SanGeneration(value.generation.0 + 1);
        next.author = Some(author);
        match self {
            Change::Regroup(change) => regroup(&mut next, change, nodes_max)?,
            Change::TakeAdministration { by, .. } => {
                require_member(value, *by)?;
                if value.administrator == Some(*by) {
                    return Err(Refusal::NothingToDo);
                }
                next.administrator = Some(*by);
            }
            Change::Fenced { by, proofs, .. } => {
                require_administrator(value, *by)?;
                require_phase(value, Phase::Fencing)?;
                let covered = |victim: &Victim| proofs.iter().any(|proof| proof.covers(*victim));
                if let Some(victim) = value.victims().into_iter().find(|v| !covered(v)) {
                    return Err(Refusal::Unproven { victim });
                }
                next.phase = Phase::Fenced;
            }
            Change::Recovered { by, .. } => {
                require_administrator(value, *by)?;
                require_phase(value, Phase::Fenced)?;
                next.phase = Phase::Recovered;
            }
            Change::ColdStart(change) => cold_start(&mut next, change, nodes_max)?,
        }
        assert_eq!(next.violation(), None, "{self:?} makes {next:?} of {value:?}");
        Ok(next)
    }
}

impl Regroup {
    /// Changes nothing yet; `by` administers afterwards.
    pub fn by_administrator(by: Member, expected: SanGeneration) -> Regroup {
        Regroup {
            by,
            expected,
            joins: Vec::new(),
            leaves: NodeSet::EMPTY,
            victims: NodeSet::EMPTY,
            administrator: Some(by.node),
        }
    }
}

fn regroup(next: &mut RegVal, change: &Regroup, nodes_max: u16) -> Result<(), Refusal> {
    let by = change.by;
    require_member(next, by)?;
    let gone = change.leaves.union(change.victims);
    if let Some(node) = gone.minus(next.members).iter().next() {
        return Err(Refusal::NotThere { node });
    }
    let torn = change.leaves.intersection(change.victims);
    let torn = torn.union(change.victims.intersection(NodeSet::of(by.node)));
    if let Some(node) = torn.iter().next() {
        return Err(Refusal::Contradiction { node });
    }
    let stays = next.members.minus(gone);
    let mut joins = NodeSet::EMPTY;
    for member in &change.joins {
        if joins.union(change.victims).contains(member.node) {
            return Err(Refusal::Contradiction { node: member.node });
        }
        if stays.contains(member.node) {
            return Err(Refusal::MemberExists { node: member.node });
        }
        require_new_life(next, *member, nodes_max)?;
        joins = joins.with(member.node);
    }
    let former = next.administrator;
    if gone.union(joins).is_empty() && former.map(|a| a.node) == change.administrator {
        return Err(Refusal::NothingToDo);
    }
    expel(next, change.victims);
    next.members = stays;
    for member in &change.joins {
        admit(next, *member);
    }
    if !gone.union(joins).is_empty() {
        next.view = ViewId(next.view.0 + 1);
    }
    next.administrator = match change.administrator {
        Some(node) => Some(
            next.members()
                .into_iter()
                .find(|member| member.node == node)
                .ok_or(Refusal::AdministratorNotThere)?,
        ),
        None if next.members.is_empty() => None,
        None => return Err(Refusal::AdministratorNotThere),
    };
    match former {
        // Whoever makes a change without being administrator takes the duties over with it, unless
        // nobody stays to have them.
        Some(former)
            if former != by && next.administrator != Some(by) && !next.members.is_empty() =>
        {
            Err(Refusal::NotAdministrator { by, administrator: former })
        }
        Some(_) | None => Ok(()),
    }
}

fn cold_start(next: &mut RegVal, change: &ColdStart, nodes_max: u16) -> Result<(), Refusal> {
    let nodes = next.members.minus(change.quiet.nodes());
    if !nodes.is_empty() {
        return Err(Refusal::NotQuiet { nodes });
    }
    let me = change.me;
    // The former life of this very node may be among the victims: it is fenced with the others,
    // before anything of it is recovered.
    require_incarnation(next, me, nodes_max)?;
    expel(next, next.members);
    next.members = NodeSet::EMPTY;
    admit(next, me);
    next.administrator = Some(me);
    next.view = ViewId(next.view.0 + 1);
    Ok(())
}

/// Adds victims, and forgets those that have been recovered.
fn expel(next: &mut RegVal, victims: NodeSet) {
    let unrecovered = next.unrecovered();
    next.phase = if !victims.is_empty() {
        Phase::Fencing
    } else if unrecovered.is_empty() {
        Phase::Stable
    } else {
        next.phase
    };
    let pending = if is_kept(Rule::KeepVictims) { unrecovered } else { NodeSet::EMPTY };
    next.victims = pending.union(victims);
}

fn admit(next: &mut RegVal, member: Member) {
    next.incarnations.give(member);
    next.members = next.members.with(member.node);
}

fn require_member(value: &RegVal, by: Member) -> Result<(), Refusal> {
    if value.contains(by) { Ok(()) } else { Err(Refusal::NotAMember { by }) }
}

fn require_administrator(value: &RegVal, by: Member) -> Result<(), Refusal> {
    require_member(value, by)?;
    match value.administrator {
        Some(administrator) if administrator != by => {
            Err(Refusal::NotAdministrator { by, administrator })
        }
        Some(_) | None => Ok(()),
    }
}

fn require_phase(value: &RegVal, phase: Phase) -> Result<(), Refusal> {
    if value.phase == phase { Ok(()) } else { Err(Refusal::WrongPhase { phase: value.phase }) }
}

fn require_new_life(value: &RegVal, member: Member, nodes_max: u16) -> Result<(), Refusal> {
    if value.unfenced().contains(member.node) {
        return Err(Refusal::FormerLifeNotFenced { node: member.node });
    }
    require_incarnation(value, member, nodes_max)
}

fn require_incarnation(value: &RegVal, member: Member, nodes_max: u16) -> Result<(), Refusal> {
    if member.node.get() > nodes_max {
        return Err(Refusal::BeyondNodesMax { node: member.node, nodes_max });
    }
    let newest = value.newest_incarnation(member.node);
    if member.incarnation <= newest || !is_life(member.incarnation) {
        return Err(Refusal::IncarnationUsed { member, newest });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
