//! Where each event and effect goes. The order in which they are passed on is the order in which
//! things must happen: a view is announced before its links to the dropped are closed, and layers
//! above hear of a view before anything that happens in it.

use std::collections::BTreeMap;

use mx_base::{Instant, Member, NodeId, View, ViewId};

use super::Cluster;
use crate::frame::Kind;
use crate::heartbeat::{self, Flags, Ping};
use crate::links::{Event, Roster};
use crate::membership::{self, Installation, Neighbour, Neighbours};
use crate::nodes::NodeSet;
use crate::output::{End, Installed, Output};
use crate::register::RegisterValue;
use crate::san;
use crate::suspicion::Cause;
use crate::wire::Control;

impl Cluster {
    pub(super) fn run_timers(&mut self, now: Instant) {
        for (peer, cause) in self.suspicion.handle_timeout(now) {
            self.outputs.push_back(Output::Suspected { peer, cause: Some(cause) });
            self.links.reset(peer, now);
            self.spread_news(now);
        }
        self.links.handle_timeout(now);
        if self.heartbeat.handle_timeout(now) {
            self.ping_all(now);
        }
        if self.membership.poll_timeout().is_some_and(|(at, _)| now >= at) {
            self.stirred = true;
            self.san.handle_tick();
        }
        if self.leave_wanted && !self.membership.is_leaving() && self.san.may_leave() {
            self.membership.handle_leave();
            self.spread_news(now);
        }
    }

    pub(super) fn route_event(&mut self, event: Event, now: Instant) {
        // Traffic moves timers only to later, and a timer that comes too early does no harm.
        if !matches!(event, Event::Heard { .. } | Event::Traffic { .. } | Event::Pong { .. }) {
            self.touched = true;
        }
        match event {
            Event::Connected { peer, start } => {
                self.heartbeat.handle_start(peer, start);
                if self.suspicion.suspected(peer).is_some() {
                    self.outputs.push_back(Output::Suspected { peer, cause: None });
                }
                self.suspicion.handle_connected(peer, now);
                self.spread_news(now);
            }
            Event::Disconnected { peer } => {
                self.suspicion.handle_disconnected(peer, now);
                self.links.handle_timeout(now);
                self.stirred = true;
            }
            Event::DialRefused { peer } => {
                if self.suspicion.handle_refused(peer, now) {
                    let cause = self.suspicion.suspected(peer).map(|suspected| suspected.cause);
                    self.outputs.push_back(Output::Suspected { peer, cause });
                    self.spread_news(now);
                }
            }
            Event::Heard { peer } => {
                if self.suspicion.suspected(peer).is_some() {
                    self.suspicion.handle_heard(peer, now);
                    if self.suspicion.suspected(peer).is_none() {
                        self.outputs.push_back(Output::Suspected { peer, cause: None });
                        self.spread_news(now);
                    }
                } else {
                    self.suspicion.handle_heard(peer, now);
                }
            }
            Event::Ping { peer, ping } => self.route_ping(peer, ping, now),
            Event::Pong { peer, sequence } => self.heartbeat.handle_pong(peer, sequence),
            Event::Control { peer, control } => self.route_control(peer, control, now),
            Event::Traffic { from, kind, lockspace, payload } => {
                self.outputs.push_back(if kind == Kind::Group {
                    Output::DeliverGroup { from, lockspace, payload }
                } else {
                    Output::DeliverLock { from, lockspace, payload }
                });
            }
            Event::TurnedAway { peer, refusal } => {
                // Perhaps the register has moved on without this node.
                self.outputs.push_back(Output::ReadRegister);
                self.outputs.push_back(Output::TurnedAway { peer, refusal });
            }
            Event::Fault { peer, fault } => {
                self.outputs.push_back(Output::PeerFault { peer, fault });
            }
        }
    }

    fn route_ping(&mut self, peer: NodeId, ping: Ping, now: Instant) {
        let member = self.links.start(peer).and_then(|start| {
            let mut starts = self.membership.starts().iter();
            starts.find(|(_, known)| **known == start).map(|(member, _)| *member)
        });
        // A node that this one has agreed to drop must lose its permit (R13).
        if !member.is_some_and(|member| self.membership.is_silenced(member)) {
            self.links.send_pong(peer, ping.sequence);
        }
        if self.heartbeat.handle_ping(peer, ping, now) {
            self.stirred = true;
        }
    }

    fn route_control(&mut self, peer: NodeId, control: Control, now: Instant) {
        match control {
            Control::SanReport(_)
            | Control::SanState(_)
            | Control::SanEvent { .. }
            | Control::MountGranted { .. } => self.san.handle_control(peer, control, now),
            Control::JoinRequest { .. }
            | Control::JoinRefused(_)
            | Control::Propose(_)
            | Control::Agree { .. }
            | Control::Object { .. }
            | Control::Withdraw { .. }
            | Control::Order { .. }
            | Control::OrderDone { .. }
            | Control::Committed(_)
            | Control::JoinState { .. }
            | Control::Welcome { .. } => {
                let neighbours = self.neighbours();
                self.membership.handle_control(peer, control, &neighbours, now);
                self.stirred = true;
            }
        }
    }

    pub(super) fn route_membership(&mut self, effect: membership::Effect, now: Instant) {
        match effect {
            membership::Effect::Send { to, control } => self.links.send_control(to, &control, now),
            membership::Effect::Welcome { to, value, starts } => {
                let state = Box::new(self.san.state());
                let control = Control::Welcome { value, starts, state };
                self.links.send_control(to, &control, now);
            }
            membership::Effect::Commit(commit) => {
                self.outputs.push_back(Output::CommitView(commit));
            }
            membership::Effect::ReadRegister => self.outputs.push_back(Output::ReadRegister),
            membership::Effect::Installed(installation) => self.route_installed(*installation, now),
            membership::Effect::PhaseMoved(value) => {
                self.san.handle_phase(&value, now);
                self.set_roster(now);
                self.outputs.push_back(Output::PhaseChanged(value));
            }
            membership::Effect::CollectJoinState { view } => {
                self.outputs.push_back(Output::CollectJoinState { view });
            }
            membership::Effect::JoinRefused { by, reason } => {
                self.outputs.push_back(Output::JoinRefused { by, reason });
            }
            membership::Effect::Ended(end) => self.route_ended(end),
        }
    }

    fn route_installed(&mut self, installation: Installation, now: Instant) {
        let Installation { me, value, previous, quiet_from, admission } = installation;
        let kept_majority = previous
            .as_ref()
            .is_some_and(|(view, administrator)| has_majority(view, *administrator, &value));
        // Without it those that were dropped may have renewed each other's permits until they read
        // the register, that is, until the change was committed.
        let quiet_from = if kept_majority { quiet_from } else { now };
        let previous = previous.map(|(view, _)| view);
        let gone: Vec<Member> = previous
            .iter()
            .flat_map(|view| view.members().iter().copied())
            .filter(|member| !value.contains(*member))
            .collect();
        let (lost, left): (Vec<Member>, Vec<Member>) =
            gone.into_iter().partition(|member| value.is_unrecovered(*member));
        let suspected = |member: &Member| {
            let since = self.suspicion.suspected(member.node).map(|suspected| suspected.since);
            (*member, since.unwrap_or(now))
        };
        let dead: Vec<(Member, Instant)> = lost.iter().map(suspected).collect();
        let (state, join_state) = admission.unzip();
        let administrator = value.administrator.expect("a view this node acts in has one");
        self.flush_links();
        self.set_roster(now);
        self.san.handle_installed(me, &value, &dead, state.as_deref(), now);
        self.outputs.push_back(Output::ViewInstalled(Box::new(Installed {
            me,
            view: value.view(),
            administrator,
            previous,
            lost,
            left,
            unrecovered: self.san.unrecovered(),
            quiet_from,
            join_state,
        })));
        self.spread_news(now);
    }

    fn route_ended(&mut self, end: End) {
        self.flush_links();
        self.links.shut_down();
        self.flush_links();
        self.outputs.push_back(Output::Ended(end));
    }

    pub(super) fn route_san(&mut self, effect: san::Effect, now: Instant) {
        match effect {
            san::Effect::Send { to, control } => self.links.send_control(to, &control, now),
            san::Effect::Step(step) => self.outputs.push_back(Output::Step(step)),
            san::Effect::MountGranted { fs, lockspace, first } => {
                self.outputs.push_back(Output::MountGranted { fs, lockspace, first });
            }
            san::Effect::MountRevoked { fs, lockspace } => {
                self.outputs.push_back(Output::MountRevoked { fs, lockspace });
            }
            san::Effect::MountGroupChanged { fs } => {
                let members = self.san.mounts().get(&fs).cloned().unwrap_or_default();
                self.outputs.push_back(Output::MountGroupChanged { fs, members });
            }
            san::Effect::Scoped { dead } => self.outputs.push_back(Output::Scoped { dead }),
            san::Effect::Recovered { dead } => self.outputs.push_back(Output::Recovered { dead }),
            san::Effect::WantPhase(change) => self.membership.want_phase(change),
        }
    }

    fn set_roster(&mut self, now: Instant) {
        let known = self.membership.known();
        let roster = Roster::new(known, self.membership.starts().clone());
        let members = known.map_or(NodeSet::EMPTY, RegisterValue::nodes);
        let incarnation = self.membership.me().map(|me| me.incarnation);
        self.links.set_eager(members);
        self.links.set_roster(roster, incarnation, now);
    }

    /// What this node says of itself has changed: everybody is to know at once.
    fn spread_news(&mut self, now: Instant) {
        self.stirred = true;
        self.ping_all(now);
    }

    fn ping_all(&mut self, now: Instant) {
        let about = self.about();
        let peers: Vec<NodeId> = self.links.peers().collect();
        for peer in peers {
            if self.links.is_connected(peer)
                && let Some(ping) = self.heartbeat.ping(peer, about, now)
            {
                self.links.send_ping(peer, ping);
            }
        }
    }

    fn about(&self) -> Ping {
        let known = self.membership.known();
        Ping {
            sequence: 0,
            view: self.membership.view().map_or(ViewId(0), |view| view.id),
            generation: known.map_or_else(Default::default, |known| known.generation),
            reach: self.reach(),
            flags: Flags {
                member: self.membership.me().is_some(),
                storage_ok: self.membership.storage_ok(),
                leaving: self.membership.is_leaving(),
            },
        }
    }

    pub(super) fn neighbours(&self) -> Neighbours {
        let mut neighbours = BTreeMap::new();
        for peer in self.links.peers() {
            let Some(start) = self.links.start(peer) else { continue };
            let suspected = self.suspicion.suspected(peer);
            let gone = suspected.is_some_and(|s| s.cause == Cause::ProcessGone);
            let neighbour = Neighbour {
                start,
                reached: suspected.is_none(),
                gone,
                report: self.heartbeat.report(peer),
                missing: self.heartbeat.missing(peer),
            };
            neighbours.insert(peer, neighbour);
        }
        neighbours
    }
}

/// Have the members that stay more than half of the votes of `before`?
fn has_majority(before: &View, administrator: Option<Member>, after: &RegisterValue) -> bool {
    let before = before.members();
    let stay = before.iter().filter(|member| after.contains(**member));
    let votes: u32 = stay.map(|m| heartbeat::votes(before, administrator, *m)).sum();
    votes * 2 > heartbeat::votes_in_all(before)
}
