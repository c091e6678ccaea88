//! Who is in the cluster (MMS, Fig. 7A): proposals, agreement, and the views that the register
//! commits.
//!
//! Keeps true:
//! * a view is installed only if the register has committed it (R11), one after the other without
//!   leaving one out, and never by a node that it does not list;
//! * whoever is in a committed view has agreed to exactly this change of exactly this base, or has
//!   made it alone by a cold start; a joiner acts only after it was welcomed;
//! * from the moment a node agrees to drop a member it answers no heartbeat of it, until a view is
//!   installed or the proposal is known to have failed;
//! * one incarnation is offered to one start only, so that a member of a view is always one
//!   process.
//!
//! Nothing here is trusted because it was proposed, agreed or suspected: the only authority is the
//! register, whose answers come in as values.

mod committer;
mod coordinator;
mod join;
mod leave;
mod regroup;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mx_base::{Incarnation, Instant, Member, NodeId, SanGeneration, View, ViewId};

use crate::disk::{DiskHeartbeat, DiskWatch};
use crate::handshake::StartNonce;
use crate::heartbeat::{Heartbeat, Permit, Ping};
use crate::nodes::NodeSet;
use crate::output::{End, JoinBlob};
use crate::random::Random;
use crate::register::{Change, Commit, CommitAnswer, CommitToken, RegisterValue};
use crate::timer::{self, Unit};
use crate::wire::{Control, JoinRefusal, Objection, OrderOutcome, Proposal, RoundId, SanState};

use committer::Committer;
use coordinator::Coordinator;
use join::Joining;

/// Proposals that a node has agreed to and does not know the end of. A coordinator has one at a
/// time, save for those whose commit is unknown.
const AGREED_MAX: usize = 64;

/// What is known of one peer when something is decided.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) start: StartNonce,
    /// Connected or about to be again, and not suspected.
    pub(crate) reached: bool,
    /// Its process is known to have ended.
    pub(crate) gone: bool,
    /// What it last said of itself.
    pub(crate) report: Option<Ping>,
    /// Nodes that it does not reach, and since when it says so.
    pub(crate) missing: BTreeMap<NodeId, Instant>,
}

/// What is known of all peers. A peer that was never connected is not in it.
pub(crate) type Neighbours = BTreeMap<NodeId, Neighbour>;

/// What the membership wants done, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    Send {
        to: NodeId,
        control: Control,
    },
    Welcome {
        to: NodeId,
        value: Box<RegisterValue>,
        starts: BTreeMap<Member, StartNonce>,
    },
    Commit(Commit),
    ReadRegister,
    Installed(Box<Installation>),
    /// The register has moved on within the installed view.
    PhaseMoved(Box<RegisterValue>),
    CollectJoinState {
        view: ViewId,
    },
    JoinRefused {
        by: NodeId,
        reason: JoinRefusal,
    },
    Ended(End),
}

/// A view from which on this node acts.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) me: Member,
    pub(crate) value: RegisterValue,
    /// The view before and its administrator.
    pub(crate) previous: Option<(View, Option<Member>)>,
    /// From here on no member of the view answers heartbeats of those it lost.
    pub(crate) quiet_from: Instant,
    /// What a joiner was given.
    pub(crate) admission: Option<(Box<SanState>, Vec<JoinBlob>)>,
}

#[derive(Debug)]
enum Standing {
    Joining(Joining),
    Member { me: Member, view: View },
    Ended,
}

/// What this node has agreed to.
#[derive(Debug)]
struct Agreed {
    /// The view that the proposal was made from.
    base: ViewId,
    dropped: Vec<Member>,
    /// The members if it is committed.
    after: Vec<Member>,
}

/// A join request that waits.
#[derive(Clone, Copy, Debug)]
struct Request {
    start: StartNonce,
    incarnation: Incarnation,
    /// What it has read in the register.
    generation: SanGeneration,
    /// It has read the generation that this node was in at the time (Fig. 10).
    acted_alike: bool,
    storage_ok: bool,
    first: Instant,
    last: Instant,
}

#[derive(Debug)]
pub(crate) struct Membership {
    node: NodeId,
    /// What this start is a member as, if it ever is one.
    life: Member,
    start: StartNonce,
    unit: Unit,
    random: Random,
    standing: Standing,
    /// The newest value that this node has heard of; while it is a member, of its view.
    known: Option<RegisterValue>,
    storage_ok: bool,
    /// When the last reading of the register began that listed this node.
    confirmed: Option<Instant>,
    /// When the newest heartbeat of this node that is on the disk was issued.
    pulse: Option<Instant>,
    /// Which start each member of the view is.
    starts: BTreeMap<Member, StartNonce>,
    /// Which start each incarnation of a proposal was meant for, and the view it was made from.
    offers: BTreeMap<Member, (StartNonce, ViewId)>,
    /// Proposals that this node has agreed to and whose end it does not know.
    agreed: BTreeMap<RoundId, Agreed>,
    requests: BTreeMap<NodeId, Request>,
    /// Members of the present view that this node has welcomed, or is about to.
    welcomed: BTreeSet<Member>,
    /// Those of them that wait for what the layers above give them.
    newcomers: Vec<Member>,
    coordinator: Coordinator,
    committer: Committer,
    disk: DiskWatch,
    leaving: bool,
    reconsider_at: Instant,
    effects: VecDeque<Effect>,
}

impl Membership {
    pub(crate) fn new(
        life: Member,
        start: StartNonce,
        unit: Unit,
        seed: u64,
        now: Instant,
    ) -> Membership {
        Membership {
            node: life.node,
            life,
            start,
            unit,
            random: Random::new(seed),
            standing: Standing::Joining(Joining::new(now)),
            known: None,
            storage_ok: false,
            confirmed: None,
            pulse: None,
            starts: BTreeMap::new(),
            offers: BTreeMap::new(),
            agreed: BTreeMap::new(),
            requests: BTreeMap::new(),
            welcomed: BTreeSet::new(),
            newcomers: Vec::new(),
            coordinator: Coordinator::default(),
            committer: Committer::default(),
            disk: DiskWatch::default(),
            leaving: false,
            reconsider_at: now,
            effects: VecDeque::new(),
        }
    }

    // What is known

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn me(&self) -> Option<Member> {
        match &self.standing {
            Standing::Member { me, .. } => Some(*me),
            Standing::Joining(_) | Standing::Ended => None,
        }
    }

    pub(crate) fn view(&self) -> Option<&View> {
        match &self.standing {
            Standing::Member { view, .. } => Some(view),
            Standing::Joining(_) | Standing::Ended => None,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.standing, Standing::Ended)
    }

    pub(crate) fn known(&self) -> Option<&RegisterValue> {
        self.known.as_ref()
    }

    pub(crate) fn starts(&self) -> &BTreeMap<Member, StartNonce> {
        &self.starts
    }

    pub(crate) fn storage_ok(&self) -> bool {
        self.storage_ok
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Until when this node may serve what it has cached (R13). A proposal that it has agreed to
    /// may be committed without its knowledge, and whoever is then in charge counts the votes of
    /// its members; so those must permit it as well.
    pub(crate) fn permit(&self, heartbeat: &Heartbeat) -> Option<Permit> {
        let Standing::Member { me, view } = &self.standing else { return None };
        let administrator = self.known.as_ref().and_then(|known| known.administrator);
        let start_of = |member: Member| {
            let offered = || self.offers.get(&member).map(|(start, _)| *start);
            self.starts.get(&member).copied().or_else(offered)
        };
        let present = heartbeat.permit(*me, view.members(), administrator, start_of);
        let possible = self.agreed.values().map(|agreed| agreed.after.as_slice());
        // A leaver that is let go is no member then and needs the present view's permit only.
        let possible = possible.filter(|members| members.contains(me));
        let permit = possible.fold(present, |permit, members| {
            permit.and(heartbeat.permit(*me, members, None, start_of))
        });
        let read = self.confirmed.map(|began| began + self.unit.times(timer::SUSPECT));
        let pulse = self.pulse.map(|issued| issued + self.unit.times(timer::PULSE));
        Some(Permit {
            register_until: read.unwrap_or(Instant(0)),
            pulse_until: pulse.unwrap_or(Instant(0)),
            ..permit
        })
    }

    /// Has this node agreed to drop `member`, and may that still be committed?
    pub(crate) fn is_silenced(&self, member: Member) -> bool {
        self.agreed.values().any(|agreed| agreed.dropped.contains(&member))
    }

    /// What the coordinator of this node is doing, for people.
    pub(crate) fn activity(&self) -> &'static str {
        match &self.standing {
            Standing::Joining(joining) => joining.activity(),
            Standing::Member { .. } => self.coordinator.activity(),
            Standing::Ended => "out of the cluster",
        }
    }

    // Inputs

    pub(crate) fn handle_register(&mut self, value: RegisterValue, began: Instant, now: Instant) {
        self.storage_ok = true;
        if self.me().is_some_and(|me| value.contains(me)) {
            self.confirmed = self.confirmed.max(Some(began));
        }
        if let Standing::Joining(joining) = &mut self.standing {
            joining.handle_read(now);
        }
        self.learn(value, now);
    }

    pub(crate) fn handle_register_unreadable(&mut self) {
        self.storage_ok = false;
    }

    pub(crate) fn handle_pulse(&mut self, issued: Instant) {
        self.pulse = self.pulse.max(Some(issued));
    }

    pub(crate) fn handle_disk_heartbeats(&mut self, blocks: &[DiskHeartbeat], now: Instant) {
        self.disk.handle_read(blocks, self.unit, now);
    }

    pub(crate) fn handle_commit_answer(
        &mut self,
        token: CommitToken,
        answer: CommitAnswer,
        now: Instant,
    ) {
        self.storage_ok |= !matches!(answer, CommitAnswer::Unknown);
        self.committed(token, answer, now);
    }

    /// This node was not run for a while; answers may wait to be read.
    pub(crate) fn handle_stall(&mut self, now: Instant) {
        self.coordinator.extend_deadline(now + self.unit.times(1));
    }

    /// The phase of the victims is to be recorded; by the administrator only.
    pub(crate) fn want_phase(&mut self, change: Change) {
        let Standing::Member { me, .. } = &self.standing else { return };
        let administers = self.known.as_ref().is_some_and(|k| k.administrator == Some(*me));
        if administers {
            self.record_phase(change);
        }
    }

    pub(crate) fn handle_control(
        &mut self,
        from: NodeId,
        control: Control,
        neighbours: &Neighbours,
        now: Instant,
    ) {
        match control {
            Control::JoinRequest { generation, storage_ok, incarnation } => {
                let life = Member { node: from, incarnation };
                self.handle_join_request(life, generation, storage_ok, neighbours, now);
            }
            Control::JoinRefused(reason) => self.handle_join_refused(from, reason, now),
            Control::Propose(proposal) => self.handle_propose(from, *proposal, neighbours, now),
            Control::Agree { round, storage_ok } => {
                self.handle_agree(from, round, storage_ok, now);
            }
            Control::Object { round, objection } => {
                if let Objection::Behind(value) = &objection {
                    self.hear(from, (**value).clone(), neighbours, now);
                }
                self.handle_objection(from, round, objection, now);
            }
            Control::Withdraw { round } => {
                if round.coordinator.node == from {
                    self.agreed.remove(&round);
                }
            }
            Control::Order { order, base_view, regroup } => {
                self.handle_order(from, order, base_view, regroup, now);
            }
            Control::OrderDone { order, outcome } => {
                if let OrderOutcome::Committed(value) | OrderOutcome::Refused(value) = &outcome {
                    self.hear(from, (**value).clone(), neighbours, now);
                }
                self.handle_order_done(from, order, outcome, now);
            }
            Control::Committed(value) => self.hear(from, *value, neighbours, now),
            Control::JoinState { view, layer, id, bytes } => {
                self.handle_join_state(from, view, JoinBlob { layer, id, bytes });
            }
            Control::Welcome { value, starts, state } => {
                self.handle_welcome(from, *value, starts, state, now);
            }
            Control::SanReport(_)
            | Control::SanState(_)
            | Control::SanEvent { .. }
            | Control::MountGranted { .. } => {
                unreachable!("mount groups and recovery take their own messages")
            }
        }
    }

    /// Looks at everything that waits. Called whenever something changed that may matter, and
    /// twice per unit.
    pub(crate) fn evaluate(&mut self, neighbours: &Neighbours, now: Instant) {
        self.reconsider_at = now + self.unit.half() * timer::RECONSIDER_HALVES;
        match self.standing {
            Standing::Joining(_) => self.evaluate_joining(neighbours, now),
            Standing::Member { .. } => {
                self.expire_requests(neighbours, now);
                self.welcome_newcomers(neighbours, now);
                self.coordinate(neighbours, now);
            }
            Standing::Ended => {}
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.has_ended() {
            return None;
        }
        Some((self.reconsider_at, "membership"))
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn send(&mut self, to: NodeId, control: Control) {
        self.effects.push_back(Effect::Send { to, control });
    }

    /// A peer says what the register holds. Members of the view are believed; what anybody else
    /// says of a newer value is a reason to read the register.
    fn hear(&mut self, from: NodeId, value: RegisterValue, neighbours: &Neighbours, now: Instant) {
        let start = neighbours.get(&from).map(|neighbour| neighbour.start);
        let is_believed = match &self.standing {
            Standing::Joining(_) => true,
            Standing::Member { view, .. } => view
                .member(from)
                .is_some_and(|m| start.is_some() && self.starts.get(&m).copied() == start),
            Standing::Ended => false,
        };
        if is_believed {
            self.learn(value, now);
        } else if self.known.as_ref().is_none_or(|known| value.generation > known.generation) {
            self.effects.push_back(Effect::ReadRegister);
        }
    }

    // Agreement

    /// A coordinator asks whether this node agrees to a change of the members.
    fn handle_propose(
        &mut self,
        from: NodeId,
        proposal: Proposal,
        neighbours: &Neighbours,
        now: Instant,
    ) {
        let round = proposal.round;
        let speaks_for_itself = round.coordinator.node == from
            && neighbours.get(&from).is_some_and(|neighbour| {
                proposal.starts.get(&round.coordinator).is_none_or(|s| *s == neighbour.start)
            });
        if !speaks_for_itself {
            return;
        }
        self.hear(from, proposal.base.clone(), neighbours, now);
        match self.consider(&proposal, neighbours, now) {
            Ok(()) => {
                self.remember(&proposal);
                let storage_ok = self.storage_ok;
                self.send(from, Control::Agree { round, storage_ok });
            }
            Err(Some(objection)) => self.send(from, Control::Object { round, objection }),
            // This node is not asked: it is out, or the proposal is of another cluster's life.
            Err(None) => {}
        }
    }

    fn consider(
        &self,
        proposal: &Proposal,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Result<(), Option<Objection>> {
        let after = proposal.regroup.members_after(&proposal.base);
        let Some(known) = &self.known else { return Err(None) };
        if proposal.base.view != known.view {
            return Err(Some(Objection::Behind(Box::new(known.clone()))));
        }
        let mine = |m: &&Member| **m == self.life && proposal.starts.get(m) == Some(&self.start);
        match &self.standing {
            Standing::Joining(_) => {
                after.iter().find(mine).ok_or(None)?;
            }
            Standing::Member { me, .. } => {
                if !after.contains(me) && !proposal.regroup.leaves.contains(me.node) {
                    return Err(None);
                }
                let proposer = proposal.round.coordinator;
                let coordinator = self.coordinator_among(neighbours, now);
                if coordinator.is_some_and(|c| c.node < proposer.node) {
                    return Err(coordinator.map(Objection::OtherCoordinator));
                }
            }
            Standing::Ended => return Err(None),
        }
        let is_reached = |member: &Member| {
            member.node == self.node
                || neighbours.get(&member.node).is_some_and(|neighbour| {
                    neighbour.reached && proposal.starts.get(member) == Some(&neighbour.start)
                })
        };
        let unreachable: NodeSet =
            after.iter().filter(|m| !is_reached(m)).map(|m| m.node).collect();
        if !unreachable.is_empty() {
            return Err(Some(Objection::Unreachable(unreachable)));
        }
        let offered_otherwise = |join: &&Member| {
            self.offers.get(join).is_some_and(|(start, base)| {
                *base == proposal.base.view && proposal.starts.get(join) != Some(start)
            })
        };
        if let Some(join) = proposal.regroup.joins.iter().find(offered_otherwise) {
            return Err(Some(Objection::IncarnationOffered(*join)));
        }
        if self.agreed.len() >= AGREED_MAX {
            return Err(Some(Objection::Busy));
        }
        Ok(())
    }

    /// This node agrees: it answers no heartbeat of whom the proposal drops, and knows which
    /// starts its joiners are.
    fn remember(&mut self, proposal: &Proposal) {
        let base = proposal.base.view;
        let dropped = proposal.base.members.iter().copied();
        let dropped = dropped.filter(|m| proposal.regroup.victims.contains(m.node)).collect();
        let after = proposal.regroup.members_after(&proposal.base);
        self.agreed.insert(proposal.round, Agreed { base, dropped, after });
        self.offers.extend(proposal.starts.iter().map(|(member, start)| (*member, (*start, base))));
        if let Standing::Joining(joining) = &mut self.standing
            && proposal.regroup.joins.contains(&self.life)
        {
            joining.handle_agreed();
        }
    }
}

#[cfg(test)]
mod tests;
