//! Which members belong together, and whether this side of a partition goes first (R12).
//!
//! Pure choices from what is known; nothing here sends or decides. A wrong choice costs time,
//! never safety: only one change of a generation can be committed.

use mx_base::{Duration, Instant, Member, NodeId};

use super::{Membership, Neighbour, Neighbours, Standing};
use crate::heartbeat::{votes, votes_in_all};
use crate::nodes::NodeSet;
use crate::register::RegisterValue;
use crate::timer;

impl Membership {
    /// The peer as this member, if it is reached and hears this node.
    pub(super) fn neighbour<'a>(
        &self,
        member: Member,
        neighbours: &'a Neighbours,
        now: Instant,
    ) -> Option<&'a Neighbour> {
        let settled = self.unit.times(timer::EDGE_SETTLED);
        neighbours.get(&member.node).filter(|neighbour| {
            neighbour.reached
                && self.starts.get(&member) == Some(&neighbour.start)
                && neighbour.missing.get(&self.node).is_none_or(|s| now.since(*s) < settled)
        })
    }

    /// Members that this node reaches, itself among them, in order of node id.
    fn reached_members(
        &self,
        base: &RegisterValue,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Vec<Member> {
        let reached = |member: &Member| {
            member.node == self.node || self.neighbour(*member, neighbours, now).is_some()
        };
        base.members.iter().copied().filter(reached).collect()
    }

    /// Who coordinates in the eyes of this node (R10): the lowest member it reaches that acts in a
    /// view and is not about to leave. The answer differs between nodes that reach different
    /// peers; then both may propose, and the register decides.
    pub(super) fn coordinator_among(
        &self,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Option<Member> {
        let Standing::Member { me, .. } = self.standing else { return None };
        let base = self.known.as_ref().expect("a member knows a value of the register");
        let acts = |member: &Member| {
            let report = |n: &Neighbour| n.report.is_none_or(|report| report.flags.member);
            *member == me || self.neighbour(*member, neighbours, now).is_some_and(report)
        };
        let reached = self.reached_members(base, neighbours, now);
        let acting = || reached.iter().copied().filter(acts);
        acting().find(|member| !self.is_leaver(*member, neighbours)).or_else(|| acting().next())
    }

    /// The members that stay when all losses are dropped: those this node reaches and that reach
    /// each other. Of two that do not, the one that misses more goes; then the one that is not the
    /// administrator; then the higher.
    pub(super) fn stayers(
        &self,
        base: &RegisterValue,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Vec<Member> {
        let settled = self.unit.times(timer::EDGE_SETTLED);
        let misses = |a: Member, b: Member| {
            let missing = neighbours.get(&a.node).and_then(|n| n.missing.get(&b.node));
            a.node != self.node && missing.is_some_and(|since| now.since(*since) >= settled)
        };
        let mut stayers = self.reached_members(base, neighbours, now);
        stayers.retain(|member| !self.coordinator.is_absent(*member));
        loop {
            let broken = |a: Member| {
                stayers.iter().filter(|b| **b != a && (misses(a, **b) || misses(**b, a))).count()
            };
            let worst = stayers
                .iter()
                .map(|m| (broken(*m), base.administrator != Some(*m), m.node))
                .filter(|(broken, _, node)| *broken > 0 && *node != self.node)
                .max();
            let Some((_, _, node)) = worst else { return stayers };
            stayers.retain(|member| member.node != node);
        }
    }

    /// How long this side waits before it drops the others (R12): not at all when it is preferred
    /// or nobody else can be alive; else five units for every side that should go before it.
    ///
    /// Preferred is the side with most members, then the one with the administrator, then the one
    /// with the lowest node. A side with more than half of the votes needs no look at the disk. To
    /// the few of many who fell silent, all others may only not be run for a while, and their disk
    /// heartbeats with them, as on one host of virtual machines: that counts as one such side.
    pub(super) fn hesitation(
        &self,
        base: &RegisterValue,
        stayers: &[Member],
        neighbours: &Neighbours,
        now: Instant,
    ) -> Duration {
        let all = &base.members;
        let ours: u32 = stayers.iter().map(|m| votes(all, base.administrator, *m)).sum();
        if ours * 2 > votes_in_all(all) {
            return Duration::ZERO;
        }
        let lost = base.members.iter().copied().filter(|m| !stayers.contains(m));
        let not_ended: Vec<Member> = lost.filter(|m| !self.is_known_gone(*m, neighbours)).collect();
        let mut alive = not_ended.clone();
        alive.retain(|m| self.may_be_alive(*m, now));
        let own = Side::of(base.administrator, stayers);
        let mut rank = u32::from(alive.is_empty() && not_ended.len() > stayers.len());
        while let Some(first) = alive.first().copied() {
            let reach = self.disk.reach(first).unwrap_or_else(|| nodes(&alive));
            let (side, others): (Vec<Member>, Vec<Member>) =
                alive.iter().partition(|m| **m == first || reach.contains(m.node));
            rank += u32::from(Side::of(base.administrator, &side) > own);
            alive = others;
        }
        self.unit.times(timer::NOT_PREFERRED * rank)
    }

    /// Is its process known to have ended?
    fn is_known_gone(&self, member: Member, neighbours: &Neighbours) -> bool {
        let is_other = |n: &Neighbour| n.gone || self.starts.get(&member) != Some(&n.start);
        neighbours.get(&member.node).is_some_and(is_other)
    }

    /// Its disk heartbeat moved lately or cannot be read.
    fn may_be_alive(&self, member: Member, now: Instant) -> bool {
        let silent = self.unit.times(timer::DISK_SILENT);
        if self.disk.watched_for(self.unit, now) < silent {
            return true;
        }
        self.disk.last_sign(member).is_some_and(|sign| now.since(sign) < silent)
    }
}

/// What is compared when sides are: greater goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Side {
    members: usize,
    has_administrator: bool,
    lowest: std::cmp::Reverse<Option<NodeId>>,
}

impl Side {
    fn of(administrator: Option<Member>, members: &[Member]) -> Side {
        Side {
            members: members.len(),
            has_administrator: administrator.is_some_and(|admin| members.contains(&admin)),
            lowest: std::cmp::Reverse(members.iter().map(|member| member.node).min()),
        }
    }
}

fn nodes(members: &[Member]) -> NodeSet {
    members.iter().map(|member| member.node).collect()
}
