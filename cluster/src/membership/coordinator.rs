//! The coordinator's rounds: propose, collect agreement, have it committed (R10, R11, Fig. 11).
//!
//! Keeps true:
//! * one round at a time; a change is ordered only when everybody concerned has agreed to exactly
//!   this one;
//! * a round that is given up is withdrawn, but not before every order given in it is known to
//!   have failed: until then it may still be committed;
//! * losses go first, then leaves, then joins, so that nothing delays dropping the dead.
//!
//! Any number of nodes may hold themselves for the coordinator: safety is the register's.

use std::collections::{BTreeMap, BTreeSet};

use mx_base::{Instant, Member, NodeId, ViewId};

use super::{Effect, Membership, Neighbours, Standing};
use crate::nodes::NodeSet;
use crate::register::{RegisterValue, Regroup};
use crate::timer;
use crate::wire::{Control, Objection, OrderOutcome, Proposal, RoundId};

/// Rounds whose commit is unknown. Beyond it nothing more is proposed until one is settled.
const OPEN_ROUNDS_MAX: usize = 16;

#[derive(Debug, Default)]
enum Round {
    #[default]
    Idle,
    Asking {
        proposal: Box<Proposal>,
        asked: NodeSet,
        agreed: NodeSet,
        /// Those that reach the membership partition.
        storage: NodeSet,
        deadline: Instant,
    },
    Ordered {
        proposal: Box<Proposal>,
        storage: NodeSet,
        order: u64,
        candidate: Member,
        deadline: Instant,
    },
    Pausing {
        until: Instant,
    },
}

/// A round that was given up while an order may still be carried out.
#[derive(Debug, Default)]
struct OpenRound {
    asked: NodeSet,
    orders: BTreeSet<u64>,
    given_up: bool,
}

#[derive(Debug, Default)]
pub(super) struct Coordinator {
    rounds: u64,
    orders: u64,
    round: Round,
    open: BTreeMap<u64, OpenRound>,
    /// Members that did not answer a proposal in time; until they answer anything again.
    absent: BTreeSet<Member>,
    failed_lately: BTreeMap<Member, Instant>,
    /// Since when members are to be dropped.
    loss_since: Option<Instant>,
    settled: Option<Settled>,
}

/// When everybody had agreed to the change that was ordered last, unless its round was withdrawn:
/// since then whoever agreed is silent to whom it drops.
#[derive(Debug)]
struct Settled {
    round: u64,
    /// The view and the members it makes.
    view: ViewId,
    members: Vec<Member>,
    at: Instant,
}

/// What the coordinator would change now.
struct Plan {
    regroup: Regroup,
    /// Why it waits, if it does.
    not_before: Instant,
}

impl Coordinator {
    pub(super) fn is_absent(&self, member: Member) -> bool {
        self.absent.contains(&member)
    }

    /// When everybody had agreed to the change that made `value`, if this node coordinated it.
    pub(super) fn agreed_at(&self, value: &RegisterValue) -> Option<Instant> {
        let settled = self.settled.as_ref()?;
        (settled.view == value.view && settled.members == value.members).then_some(settled.at)
    }

    /// Every round was about the view before.
    pub(super) fn handle_installed(&mut self) {
        self.round = Round::Idle;
        self.open.clear();
        self.absent.clear();
        self.loss_since = None;
        self.settled = None;
    }

    pub(super) fn extend_deadline(&mut self, until: Instant) {
        if let Round::Asking { deadline, .. } | Round::Ordered { deadline, .. } = &mut self.round {
            *deadline = until.max(*deadline);
        }
    }

    pub(super) fn activity(&self) -> &'static str {
        match self.round {
            Round::Idle if self.loss_since.is_some() => "waiting to drop members",
            Round::Idle => "idle",
            Round::Asking { .. } => "asking the members",
            Round::Ordered { .. } => "committing",
            Round::Pausing { .. } => "pausing after a failure",
        }
    }
}

impl Membership {
    pub(super) fn coordinate(&mut self, neighbours: &Neighbours, now: Instant) {
        let Standing::Member { me, .. } = self.standing else { return };
        if self.coordinator_among(neighbours, now) != Some(me) {
            if matches!(self.coordinator.round, Round::Asking { .. }) {
                self.give_up();
            }
            return;
        }
        let plan = self.plan(neighbours, now);
        self.progress(plan.as_ref(), neighbours, now);
        let is_idle = matches!(self.coordinator.round, Round::Idle);
        if !is_idle || self.coordinator.open.len() >= OPEN_ROUNDS_MAX {
            return;
        }
        // Once more: those that missed the last round are left out.
        if let Some(plan) = self.plan(neighbours, now).filter(|plan| now >= plan.not_before) {
            self.propose(me, plan.regroup, now);
        }
    }

    /// Ends what is overdue or has been overtaken.
    fn progress(&mut self, plan: Option<&Plan>, neighbours: &Neighbours, now: Instant) {
        match &self.coordinator.round {
            Round::Idle => {}
            Round::Pausing { until } => {
                if now >= *until {
                    self.coordinator.round = Round::Idle;
                }
            }
            Round::Asking { proposal, asked, agreed, deadline, .. } => {
                let missed = asked.minus(*agreed);
                let overdue = now >= *deadline && !missed.is_empty();
                if overdue {
                    for member in &proposal.base.members {
                        if missed.contains(member.node) {
                            self.coordinator.absent.insert(*member);
                        }
                    }
                    self.requests.retain(|node, _| !missed.contains(*node));
                }
                if overdue || plan.is_none_or(|plan| plan.regroup != proposal.regroup) {
                    self.give_up();
                }
            }
            Round::Ordered { candidate, deadline, .. } => {
                let candidate = *candidate;
                let dead = candidate.node != self.node
                    && self.neighbour(candidate, neighbours, now).is_none();
                if dead || now >= *deadline {
                    self.fail_candidate(candidate, now);
                    self.give_up();
                    let pause = if dead { 0 } else { timer::AFTER_FAILURE };
                    self.pause(self.unit.times(pause), now);
                }
            }
        }
    }

    // What to change

    fn plan(&mut self, neighbours: &Neighbours, now: Instant) -> Option<Plan> {
        let base = self.known.clone().expect("a member knows a value of the register");
        let stayers = self.stayers(&base, neighbours, now);
        let lost = base.members.iter().filter(|m| !stayers.contains(m));
        let victims: NodeSet = lost.map(|m| m.node).collect();
        if !victims.is_empty() {
            let since = *self.coordinator.loss_since.get_or_insert(now);
            let not_before = since + self.hesitation(&base, &stayers, neighbours, now);
            return Some(Plan { regroup: Regroup { victims, ..Regroup::default() }, not_before });
        }
        self.coordinator.loss_since = None;
        let leaves = self.leavers(&base, neighbours);
        if !leaves.is_empty() {
            let regroup = Regroup { leaves, ..Regroup::default() };
            return Some(Plan { regroup, not_before: now });
        }
        let joins = self.joiners(&base, neighbours);
        (!joins.is_empty())
            .then(|| Plan { regroup: Regroup { joins, ..Regroup::default() }, not_before: now })
    }

    // Asking

    fn propose(&mut self, me: Member, regroup: Regroup, now: Instant) {
        let base = self.known.clone().expect("a member knows a value of the register");
        let after = regroup.members_after(&base);
        let mut concerned: NodeSet = after.iter().map(|m| m.node).collect();
        concerned = concerned.union(regroup.leaves);
        concerned.remove(me.node);
        self.coordinator.rounds += 1;
        let round = RoundId { coordinator: me, number: self.coordinator.rounds };
        let starts = after.iter().filter_map(|member| {
            let joins = || self.requests.get(&member.node).map(|request| request.start);
            let start = self.starts.get(member).copied().or_else(joins)?;
            Some((*member, start))
        });
        let starts = starts.collect();
        let proposal = Box::new(Proposal { round, base, regroup, starts });
        assert_eq!(proposal.starts.len(), after.len(), "every member after the change is known");
        tracing::debug!(?proposal, "proposing");
        self.remember(&proposal);
        for node in concerned.iter() {
            self.send(node, Control::Propose(proposal.clone()));
        }
        let mut storage = NodeSet::EMPTY;
        if self.storage_ok {
            storage.insert(me.node);
        }
        let open = OpenRound { asked: concerned, ..OpenRound::default() };
        self.coordinator.open.insert(round.number, open);
        self.coordinator.round = Round::Asking {
            proposal,
            asked: concerned,
            agreed: NodeSet::EMPTY,
            storage,
            deadline: now + self.unit.times(timer::ROUND),
        };
        self.order_if_agreed(now);
    }

    pub(super) fn handle_agree(
        &mut self,
        from: NodeId,
        round: RoundId,
        has_storage: bool,
        now: Instant,
    ) {
        self.coordinator.absent.retain(|member| member.node != from);
        let Round::Asking { proposal, asked, agreed, storage, .. } = &mut self.coordinator.round
        else {
            return;
        };
        if proposal.round != round || !asked.contains(from) {
            return;
        }
        agreed.insert(from);
        if has_storage {
            storage.insert(from);
        }
        self.order_if_agreed(now);
    }

    pub(super) fn handle_objection(
        &mut self,
        from: NodeId,
        round: RoundId,
        objection: Objection,
        now: Instant,
    ) {
        self.coordinator.absent.retain(|member| member.node != from);
        let current = match &self.coordinator.round {
            Round::Asking { proposal, .. } => proposal.round == round,
            Round::Idle | Round::Ordered { .. } | Round::Pausing { .. } => false,
        };
        if !current {
            return;
        }
        tracing::debug!(%from, ?objection, "proposal objected to");
        self.give_up();
        let pause = self.unit.half() + self.random.pause(self.unit.half());
        self.pause(pause, now);
        match objection {
            Objection::Unreachable(nodes) => self.requests.retain(|n, _| !nodes.contains(*n)),
            Objection::IncarnationOffered(member) => self.burn(member),
            Objection::Behind(_) | Objection::OtherCoordinator(_) | Objection::Busy => {}
        }
    }

    // Ordering

    fn order_if_agreed(&mut self, now: Instant) {
        let Round::Asking { proposal, asked, agreed, storage, .. } = &self.coordinator.round else {
            return;
        };
        if asked != agreed {
            return;
        }
        let (proposal, storage) = (proposal.clone(), *storage);
        self.coordinator.settled = Some(Settled {
            round: proposal.round.number,
            view: ViewId(proposal.base.view.0 + 1),
            members: proposal.regroup.members_after(&proposal.base),
            at: now,
        });
        self.order(proposal, storage, now);
    }

    /// Has the change committed by the member most likely to succeed (Fig. 11).
    fn order(&mut self, proposal: Box<Proposal>, storage: NodeSet, now: Instant) {
        let Some(candidate) = self.candidate(&proposal, storage, now) else {
            self.give_up_round(proposal.round.number);
            self.pause(self.unit.times(timer::AFTER_FAILURE), now);
            return;
        };
        self.coordinator.orders += 1;
        let order = self.coordinator.orders;
        let number = proposal.round.number;
        let open = self.coordinator.open.get_mut(&number).expect("a round in progress is open");
        open.orders.insert(order);
        let base_view = proposal.base.view;
        let regroup = proposal.regroup.clone();
        let deadline = now + self.unit.times(timer::COMMIT);
        self.coordinator.round = Round::Ordered { proposal, storage, order, candidate, deadline };
        if candidate.node == self.node {
            self.handle_order(self.node, order, base_view, regroup, now);
        } else {
            self.send(candidate.node, Control::Order { order, base_view, regroup });
        }
    }

    /// The administrator if it stays; else the lowest member that stays. Only those that reach the
    /// membership partition, and those that failed lately after all others. Of an empty cluster,
    /// the coordinator itself.
    fn candidate(&self, proposal: &Proposal, storage: NodeSet, now: Instant) -> Option<Member> {
        let base = &proposal.base;
        let after = proposal.regroup.members_after(base);
        let coordinator = proposal.round.coordinator;
        let mut able: Vec<Member> = if after.is_empty() {
            vec![coordinator]
        } else {
            base.members.iter().copied().filter(|member| after.contains(member)).collect()
        };
        able.retain(|member| storage.contains(member.node));
        able.into_iter().min_by_key(|member| {
            let failed = self.coordinator.failed_lately.get(member).is_some_and(|at| now < *at);
            (failed, base.administrator != Some(*member), member.node)
        })
    }

    fn fail_candidate(&mut self, candidate: Member, now: Instant) {
        let until = now + self.unit.times(timer::FAILED_LATELY);
        self.coordinator.failed_lately.retain(|_, until| now < *until);
        self.coordinator.failed_lately.insert(candidate, until);
    }

    pub(super) fn handle_order_done(
        &mut self,
        from: NodeId,
        order: u64,
        outcome: OrderOutcome,
        now: Instant,
    ) {
        let current = match &self.coordinator.round {
            Round::Ordered { order: current, candidate, .. } => {
                *current == order && candidate.node == from
            }
            Round::Idle | Round::Asking { .. } | Round::Pausing { .. } => false,
        };
        let settled = !matches!(outcome, OrderOutcome::Unknown);
        match outcome {
            OrderOutcome::Committed(_) => return,
            OrderOutcome::Refused(_) => {
                if current {
                    self.settle_order(order);
                    self.give_up();
                    self.pause(self.unit.half(), now);
                    return;
                }
            }
            OrderOutcome::Unknown => {
                if current {
                    self.next_candidate(None, now);
                }
            }
            OrderOutcome::NotTried => {
                if current {
                    self.next_candidate(Some(order), now);
                    return;
                }
            }
        }
        if settled {
            self.settle_order(order);
        }
    }

    /// The candidate failed; another one is asked to commit the same change. `settled` is the
    /// order, when it is certain that it was not carried out.
    fn next_candidate(&mut self, settled: Option<u64>, now: Instant) {
        let round = std::mem::take(&mut self.coordinator.round);
        let Round::Ordered { proposal, mut storage, candidate, .. } = round else {
            unreachable!("only an ordered round has a candidate");
        };
        self.fail_candidate(candidate, now);
        storage.remove(candidate.node);
        let number = proposal.round.number;
        self.order(proposal, storage, now);
        if let Some(order) = settled
            && let Some(open) = self.coordinator.open.get_mut(&number)
        {
            open.orders.remove(&order);
            self.withdraw_if_settled(number);
        }
    }

    fn settle_order(&mut self, order: u64) {
        let of = |(_, open): &(&u64, &OpenRound)| open.orders.contains(&order);
        let Some(number) = self.coordinator.open.iter().find(of).map(|(n, _)| *n) else { return };
        let open = self.coordinator.open.get_mut(&number).expect("just found");
        open.orders.remove(&order);
        self.withdraw_if_settled(number);
    }

    // Giving up

    fn pause(&mut self, pause: mx_base::Duration, now: Instant) {
        if matches!(self.coordinator.round, Round::Idle) && !pause.is_zero() {
            self.coordinator.round = Round::Pausing { until: now + pause };
        }
    }

    fn give_up(&mut self) {
        let number = match &self.coordinator.round {
            Round::Asking { proposal, .. } | Round::Ordered { proposal, .. } => {
                proposal.round.number
            }
            Round::Idle | Round::Pausing { .. } => return,
        };
        self.give_up_round(number);
    }

    fn give_up_round(&mut self, number: u64) {
        self.coordinator.round = Round::Idle;
        if let Some(open) = self.coordinator.open.get_mut(&number) {
            open.given_up = true;
            self.withdraw_if_settled(number);
        }
    }

    fn withdraw_if_settled(&mut self, number: u64) {
        let Standing::Member { me, .. } = self.standing else { return };
        let Some(open) = self.coordinator.open.get(&number) else { return };
        if !open.given_up || !open.orders.is_empty() {
            return;
        }
        let asked = open.asked;
        self.coordinator.open.remove(&number);
        self.coordinator.settled.take_if(|settled| settled.round == number);
        let round = RoundId { coordinator: me, number };
        self.agreed.remove(&round);
        for node in asked.iter() {
            self.send(node, Control::Withdraw { round });
        }
    }

    // Newcomers

    /// A member that acts in no view has not been welcomed, perhaps because whoever should have
    /// done it died: the coordinator does.
    pub(super) fn welcome_newcomers(&mut self, neighbours: &Neighbours, now: Instant) {
        let Standing::Member { me, view } = &self.standing else { return };
        if self.coordinator_among(neighbours, now) != Some(*me) {
            return;
        }
        let view = view.clone();
        let is_new = |member: &&Member| {
            neighbours.get(&member.node).is_some_and(|neighbour| {
                self.starts.get(*member) == Some(&neighbour.start)
                    && neighbour.report.is_some_and(|report| !report.flags.member)
            })
        };
        let new: Vec<Member> = view.members().iter().filter(is_new).copied().collect();
        let fresh: Vec<Member> = new.into_iter().filter(|m| self.welcomed.insert(*m)).collect();
        if !fresh.is_empty() {
            self.newcomers.extend(fresh);
            self.effects.push_back(Effect::CollectJoinState { view: view.id });
        }
    }
}
