//! Carrying out changes of the register, one at a time (Fig. 11: the candidate).
//!
//! Keeps true:
//! * at most one change of this node is under way (R3);
//! * an order is carried out only on the view it was agreed on; the generation may have moved on
//!   within that view, because phases do not change what the members agreed to;
//! * whoever gave an order learns how it ended, once it is known for certain.

use std::collections::VecDeque;

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member, NodeId, SanGeneration, ViewId};

use super::{Effect, Membership, Standing};
use crate::nodes::NodeSet;
use crate::register::{Change, Commit, CommitAnswer, CommitToken, Phase, RegisterValue, Regroup};
use crate::wire::{Control, OrderOutcome};

/// Orders that wait for the one under way. Beyond it they are answered as not tried.
const ORDERS_MAX: usize = 8;

/// How often one order is tried again because a phase was recorded in between.
const TRIES_MAX: u8 = 8;

#[derive(Clone, Debug)]
pub(super) struct Order {
    coordinator: NodeId,
    order: u64,
    base_view: ViewId,
    regroup: Regroup,
    tries: u8,
}

#[derive(Debug)]
enum Task {
    Order(Order),
    Phase(Change),
    ColdStart(Member),
}

#[derive(Debug)]
struct UnderWay {
    token: CommitToken,
    expected: SanGeneration,
    task: Task,
    /// The outcome was answered as unknown.
    unknown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Committer {
    tokens: u64,
    under_way: Option<UnderWay>,
    orders: VecDeque<Order>,
}

impl Committer {
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }
}

impl Membership {
    /// The coordinator wants this node to commit a change and to administer from then on.
    pub(super) fn handle_order(
        &mut self,
        from: NodeId,
        order: u64,
        base_view: ViewId,
        regroup: Regroup,
        now: Instant,
    ) {
        let acts = self.view().is_some_and(|view| view.id == base_view);
        let stuck = self.committer.under_way.as_ref().is_some_and(|u| u.unknown);
        let full = self.committer.orders.len() >= ORDERS_MAX;
        if !acts || !self.storage_ok || stuck || full {
            self.report_order(from, order, OrderOutcome::NotTried, now);
            return;
        }
        let order = Order { coordinator: from, order, base_view, regroup, tries: 0 };
        self.committer.orders.push_back(order);
        self.pump(now);
    }

    /// Records how far the victims are, unless another change is under way: it is wanted again.
    pub(super) fn record_phase(&mut self, change: Change) {
        let Some(known) = &self.known else { return };
        let fits = match change {
            Change::Fenced => known.phase == Phase::Fencing,
            Change::Recovered => known.phase == Phase::Fenced,
            Change::Regroup(_) | Change::ColdStart { .. } => false,
        };
        if fits && self.committer.is_idle() && self.storage_ok {
            self.issue(Task::Phase(change));
        }
    }

    pub(super) fn commit_cold_start(&mut self, me: Member) {
        self.issue(Task::ColdStart(me));
    }

    pub(super) fn is_committing(&self) -> bool {
        !self.committer.is_idle()
    }

    fn pump(&mut self, now: Instant) {
        while self.committer.is_idle() {
            let Some(order) = self.committer.orders.pop_front() else { return };
            if self.view().is_some_and(|view| view.id == order.base_view) {
                let early = self.before_commit(&order.regroup);
                self.issue(Task::Order(order));
                if let Some(value) = early {
                    self.announce(&value);
                    self.learn(value, now);
                }
            } else {
                let value = self.known.clone().expect("a member knows a value of the register");
                let outcome = OrderOutcome::Refused(Box::new(value));
                self.report_order(order.coordinator, order.order, outcome, now);
            }
        }
    }

    /// What the register would say, for whoever does not wait until it does.
    fn before_commit(&self, regroup: &Regroup) -> Option<RegisterValue> {
        if is_kept(Rule::AwaitCommit) || regroup.victims.is_empty() {
            return None;
        }
        let base = self.known.clone()?;
        let lost = base.members.iter().filter(|m| regroup.victims.contains(m.node)).copied();
        let victims = base.unrecovered().into_iter().chain(lost);
        Some(RegisterValue {
            generation: SanGeneration(base.generation.0 + 1),
            view: ViewId(base.view.0 + 1),
            phase: Phase::Fencing,
            administrator: self.me(),
            members: regroup.members_after(&base),
            victims: victims.map(|m| (m.node, m.incarnation)).collect(),
            incarnations: base.incarnations,
        })
    }

    fn issue(&mut self, task: Task) {
        assert!(self.committer.is_idle(), "one change of the register at a time");
        let known = self.known.as_ref().expect("changes are made from a known value");
        let change = match &task {
            Task::Order(order) => Change::Regroup(order.regroup.clone()),
            Task::Phase(change) => change.clone(),
            Task::ColdStart(me) => Change::ColdStart { me: *me },
        };
        self.committer.tokens += 1;
        let token = CommitToken(self.committer.tokens);
        let expected = known.generation;
        self.effects.push_back(Effect::Commit(Commit { token, expected, change }));
        self.committer.under_way = Some(UnderWay { token, expected, task, unknown: false });
    }

    /// The register has answered.
    pub(super) fn committed(&mut self, token: CommitToken, answer: CommitAnswer, now: Instant) {
        if self.committer.under_way.as_ref().is_none_or(|u| u.token != token) {
            return;
        }
        match answer {
            CommitAnswer::Unknown => self.commit_unknown(now),
            CommitAnswer::Committed(value) => {
                let done = self.committer.under_way.take().expect("just looked at");
                self.commit_done(done, value, now);
            }
            CommitAnswer::Refused(value) => {
                let done = self.committer.under_way.take().expect("just looked at");
                self.commit_refused(done, value, now);
            }
            CommitAnswer::Overtaken(value) => {
                let done = self.committer.under_way.take().expect("just looked at");
                self.commit_overtaken(done, value, now);
            }
        }
        if !self.has_ended() {
            self.pump(now);
        }
    }

    fn commit_unknown(&mut self, now: Instant) {
        let under_way = self.committer.under_way.as_mut().expect("just looked at");
        let news = !std::mem::replace(&mut under_way.unknown, true);
        let order = match &under_way.task {
            Task::Order(order) => Some((order.coordinator, order.order)),
            Task::Phase(_) | Task::ColdStart(_) => None,
        };
        self.effects.push_back(Effect::ReadRegister);
        if let Some((coordinator, order)) = order.filter(|_| news) {
            self.report_order(coordinator, order, OrderOutcome::Unknown, now);
        }
    }

    fn commit_done(&mut self, done: UnderWay, value: RegisterValue, now: Instant) {
        match done.task {
            Task::Order(order) => {
                // Before the view is installed, because that ends the links to whom it drops.
                self.announce(&value);
                let outcome = OrderOutcome::Committed(Box::new(value.clone()));
                if order.coordinator != self.node {
                    self.report_order(order.coordinator, order.order, outcome, now);
                }
                self.learn(value, now);
            }
            Task::Phase(_) => {
                self.announce(&value);
                self.learn(value, now);
            }
            Task::ColdStart(me) => self.handle_cold_started(me, value, now),
        }
    }

    fn commit_refused(&mut self, done: UnderWay, value: RegisterValue, now: Instant) {
        self.learn(value.clone(), now);
        match done.task {
            Task::Order(order) => {
                let same_view = self.view().is_some_and(|view| view.id == order.base_view);
                let moved = value.generation > done.expected;
                if same_view && moved && order.tries < TRIES_MAX {
                    self.issue(Task::Order(Order { tries: order.tries + 1, ..order }));
                } else if !self.has_ended() {
                    let outcome = OrderOutcome::Refused(Box::new(value));
                    self.report_order(order.coordinator, order.order, outcome, now);
                }
            }
            // What is to be recorded is asked for again while it is still true.
            Task::Phase(_) => {}
            Task::ColdStart(_) => self.handle_cold_start_refused(),
        }
    }

    fn commit_overtaken(&mut self, done: UnderWay, value: RegisterValue, now: Instant) {
        match &done.task {
            // Every change of the members makes another view: this one was not made.
            Task::Order(order) if value.view == order.base_view => {
                self.commit_refused(done, value, now);
            }
            Task::Order(order) => {
                let (to, order) = (order.coordinator, order.order);
                self.learn(value, now);
                if !done.unknown && !self.has_ended() {
                    self.report_order(to, order, OrderOutcome::Unknown, now);
                }
            }
            Task::Phase(_) => self.learn(value, now),
            Task::ColdStart(_) => self.commit_refused(done, value, now),
        }
    }

    /// Tells everybody whom the change concerns, also those it drops: they stop the sooner.
    fn announce(&mut self, value: &RegisterValue) {
        let before: NodeSet = match &self.standing {
            Standing::Member { view, .. } => view.members().iter().map(|m| m.node).collect(),
            Standing::Joining(_) | Standing::Ended => NodeSet::EMPTY,
        };
        let mut concerned = before.union(value.nodes());
        concerned.remove(self.node);
        for node in concerned.iter() {
            self.send(node, Control::Committed(Box::new(value.clone())));
        }
    }

    fn report_order(&mut self, to: NodeId, order: u64, outcome: OrderOutcome, now: Instant) {
        if to == self.node {
            self.handle_order_done(to, order, outcome, now);
        } else {
            self.send(to, Control::OrderDone { order, outcome });
        }
    }
}
