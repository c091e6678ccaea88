//! Becoming a member: asking the members, or, when there are none, starting the cluster alone
//! (Figs. 10 and 11; 4.8 in the design).
//!
//! Keeps true:
//! * a joiner acts in nothing before it is welcomed with the state of a committed view;
//! * a cold start is tried only when nobody who is listed answers on the network and no disk
//!   heartbeat of a listed life has moved for 8 U of unbroken watching, or when the register lists
//!   nobody;
//! * a start becomes a member in the one life that was registered for it, or in none: when that
//!   was used, or its cold start was refused, the start is over.

use std::collections::BTreeMap;

use mx_base::{Instant, Member, NodeId, SanGeneration, ViewId};

use super::{Effect, Membership, Neighbours, Request, Standing};
use crate::handshake::StartNonce;
use crate::output::{End, JoinBlob};
use crate::register::RegisterValue;
use crate::timer;
use crate::wire::{Control, JoinRefusal, SanState};

/// What layers above may give a joiner, in bytes: the tables of many lock spaces.
pub(crate) const JOIN_STATE_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct Joining {
    since: Instant,
    ask_at: Instant,
    /// When a member last answered on the network.
    answered: Option<Instant>,
    /// When the register was last read.
    read: Option<Instant>,
    /// This start has agreed to be let in, or has had its cold start committed: its life may be in
    /// the register.
    agreed: bool,
    /// State of layers above, from each member that sent some, and the view it belongs to.
    blobs: BTreeMap<NodeId, (ViewId, Vec<JoinBlob>)>,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Joining {
        Joining {
            since: now,
            ask_at: now,
            answered: None,
            read: None,
            agreed: false,
            blobs: BTreeMap::new(),
        }
    }

    pub(super) fn handle_read(&mut self, now: Instant) {
        self.read = Some(now);
    }

    pub(super) fn handle_agreed(&mut self) {
        self.agreed = true;
    }

    /// Why this start can never act as `life` now that the register holds `value`, if it cannot.
    pub(super) fn is_over(&self, life: Member, value: &RegisterValue) -> Option<End> {
        let newest = value.newest(life.node);
        if newest < life.incarnation || (self.agreed && value.contains(life)) {
            return None;
        }
        // It may have been let in and put out again before it ever acted.
        let expelled = self.agreed && newest == life.incarnation;
        Some(if expelled { End::Expelled } else { End::LifeUsed { newest } })
    }

    pub(super) fn activity(&self) -> &'static str {
        if self.answered.is_some() { "asking to join" } else { "looking for members" }
    }

    /// The last sign of anybody who is listed; before it has been quiet for 8 U from then, no cold
    /// start.
    fn quiet_since(&self) -> Instant {
        self.answered.map_or(self.since, |answered| answered.max(self.since))
    }
}

impl Membership {
    pub(super) fn evaluate_joining(&mut self, neighbours: &Neighbours, now: Instant) {
        let answers = |report: crate::heartbeat::Ping| report.flags.member;
        let members: Vec<NodeId> = neighbours
            .iter()
            .filter(|(_, n)| n.reached && n.report.is_some_and(answers))
            .map(|(node, _)| *node)
            .collect();
        let unit = self.unit;
        let Standing::Joining(joining) = &mut self.standing else { return };
        if !members.is_empty() {
            joining.answered = Some(now);
        }
        if now >= joining.ask_at {
            joining.ask_at = now + unit.times(timer::ASK_AGAIN);
            self.effects.push_back(Effect::ReadRegister);
            if let Some(generation) = self.known.as_ref().map(|known| known.generation) {
                let (storage_ok, incarnation) = (self.storage_ok, self.life.incarnation);
                for node in &members {
                    let request = Control::JoinRequest { generation, storage_ok, incarnation };
                    self.send(*node, request);
                }
            }
        }
        if members.is_empty() && self.may_start_alone(neighbours, now) {
            let newest = self.known.as_ref().map(|known| known.newest(self.node));
            if let Some(newest) = newest.filter(|newest| *newest >= self.life.incarnation) {
                // It was let in, and nobody is left who could welcome it.
                self.end(End::LifeUsed { newest });
                return;
            }
            if let Standing::Joining(joining) = &mut self.standing {
                joining.handle_agreed();
            }
            self.commit_cold_start(self.life);
        }
    }

    fn may_start_alone(&self, neighbours: &Neighbours, now: Instant) -> bool {
        let Standing::Joining(joining) = &self.standing else { return false };
        let Some(known) = &self.known else { return false };
        let fresh = self.unit.times(2 * timer::ASK_AGAIN);
        let is_fresh = joining.read.is_some_and(|read| now.since(read) <= fresh);
        if !is_fresh || !self.storage_ok || self.is_committing() {
            return false;
        }
        // Of several that start together the lowest goes first and the others join it.
        let lower = neighbours.iter().filter(|(node, n)| n.reached && **node < self.node).count();
        let lower = u32::try_from(lower).expect("at most 64 nodes");
        let turn = self.unit.times(timer::NOT_PREFERRED * lower);
        if known.members.is_empty() {
            return now.since(joining.quiet_since()) >= turn;
        }
        let watch = self.unit.times(timer::COLD_WATCH);
        let signs = known.members.iter().filter_map(|member| self.disk.last_sign(*member));
        let quiet_since = signs.fold(joining.quiet_since(), Instant::max);
        self.disk.watched_for(self.unit, now) >= watch && now.since(quiet_since) >= watch + turn
    }

    pub(super) fn handle_cold_started(&mut self, me: Member, value: RegisterValue, now: Instant) {
        if matches!(self.standing, Standing::Joining(_)) && value.members == [me] {
            let newest = self.known.take();
            self.install(me, value, BTreeMap::from([(me, self.start)]), None, now);
            if let Some(newest) = newest {
                self.learn(newest, now);
            }
        } else {
            self.learn(value, now);
        }
    }

    pub(super) fn handle_cold_start_refused(&mut self) {
        if matches!(self.standing, Standing::Joining(_)) {
            self.end(End::ColdStartRefused);
        }
    }

    pub(super) fn handle_join_refused(&mut self, by: NodeId, reason: JoinRefusal, now: Instant) {
        let Standing::Joining(joining) = &mut self.standing else { return };
        if matches!(reason, JoinRefusal::GenerationMismatch { .. }) {
            // Read again and ask again; the members may have moved on just now.
            joining.ask_at = joining.ask_at.min(now + self.unit.half());
            self.effects.push_back(Effect::ReadRegister);
        }
        self.effects.push_back(Effect::JoinRefused { by, reason });
        if let JoinRefusal::LifeUsed { newest } = reason {
            self.end(End::LifeUsed { newest });
        }
    }

    /// One piece of what layers above give this joiner, before the welcome.
    pub(super) fn handle_join_state(&mut self, from: NodeId, view: ViewId, blob: JoinBlob) {
        let Standing::Joining(joining) = &mut self.standing else { return };
        let (of, blobs) = joining.blobs.entry(from).or_default();
        if *of != view {
            *of = view;
            blobs.clear();
        }
        let held: usize = blobs.iter().map(|blob| blob.bytes.len()).sum();
        if held + blob.bytes.len() > JOIN_STATE_BYTES_MAX {
            return;
        }
        match blobs.last_mut() {
            Some(last) if last.layer == blob.layer && last.id == blob.id => {
                last.bytes.extend_from_slice(&blob.bytes);
            }
            Some(_) | None => blobs.push(blob),
        }
    }

    pub(super) fn handle_welcome(
        &mut self,
        from: NodeId,
        value: RegisterValue,
        starts: BTreeMap<Member, StartNonce>,
        state: Box<SanState>,
        now: Instant,
    ) {
        let Standing::Joining(joining) = &mut self.standing else { return };
        let me = self.life;
        if !value.contains(me) || starts.get(&me) != Some(&self.start) {
            return;
        }
        // A register value that is two views ahead cannot be caught up with; whoever coordinates
        // there welcomes this node again.
        let newest = self.known.take();
        if newest.as_ref().is_some_and(|newest| newest.view.0 > value.view.0 + 1) {
            self.known = newest;
            return;
        }
        let (of, blobs) = joining.blobs.remove(&from).unwrap_or_default();
        let blobs = if of == value.view { blobs } else { Vec::new() };
        self.install(me, value, starts, Some((state, blobs)), now);
        if let Some(newest) = newest {
            self.learn(newest, now);
        }
    }

    // The members' side

    pub(super) fn handle_join_request(
        &mut self,
        life: Member,
        generation: SanGeneration,
        storage_ok: bool,
        neighbours: &Neighbours,
        now: Instant,
    ) {
        let (from, incarnation) = (life.node, life.incarnation);
        let Some(start) = neighbours.get(&from).map(|neighbour| neighbour.start) else { return };
        let Standing::Member { me, .. } = self.standing else { return };
        if self.starts.values().any(|known| *known == start) {
            return;
        }
        let former = self.requests.get(&from).filter(|request| request.start == start);
        let first = former.map_or(now, |request| request.first);
        let ours = self.known.as_ref().map(|known| known.generation);
        let acted_alike = former.is_some_and(|request| request.acted_alike);
        let request = Request {
            start,
            incarnation,
            generation,
            acted_alike: acted_alike || ours == Some(generation),
            storage_ok,
            first,
            last: now,
        };
        self.requests.insert(from, request);
        if self.coordinator_among(neighbours, now) == Some(me)
            && let Some(reason) = self.join_refusal(from, request, neighbours, now)
        {
            self.send(from, Control::JoinRefused(reason));
        }
    }

    /// Fig. 10: why the node may not join now, if there is a reason to tell it.
    fn join_refusal(
        &mut self,
        node: NodeId,
        request: Request,
        neighbours: &Neighbours,
        now: Instant,
    ) -> Option<JoinRefusal> {
        let known = self.known.as_ref()?;
        let life = Member { node, incarnation: request.incarnation };
        if known.newest(node) >= life.incarnation || self.is_offered_otherwise(life, request.start)
        {
            let newest = known.newest(node).max(life.incarnation);
            return Some(JoinRefusal::LifeUsed { newest });
        }
        if !request.storage_ok {
            return Some(JoinRefusal::NotHealthy);
        }
        let patience = self.unit.times(timer::JOIN_PATIENCE);
        let waits = now.since(request.first) >= patience;
        if !request.acted_alike {
            let (theirs, ours) = (request.generation.0, known.generation.0);
            if theirs > ours {
                // It may have read the register later than this node did.
                self.effects.push_back(Effect::ReadRegister);
            }
            return (theirs < ours || waits)
                .then_some(JoinRefusal::GenerationMismatch { theirs, ours });
        }
        if !known.may_join(node) {
            return Some(JoinRefusal::FormerLifeNotFenced);
        }
        (waits && !self.is_connected(node, neighbours)).then_some(JoinRefusal::NotConnected)
    }

    pub(super) fn expire_requests(&mut self, neighbours: &Neighbours, now: Instant) {
        let patience = self.unit.times(timer::JOIN_PATIENCE);
        self.requests.retain(|node, request| {
            now.since(request.last) < patience
                && neighbours.get(node).is_some_and(|n| n.start == request.start)
        });
    }

    /// Those that may join now, each in the life it asked for.
    pub(super) fn joiners(&self, base: &RegisterValue, neighbours: &Neighbours) -> Vec<Member> {
        let life = |node: &NodeId, request: &Request| Member {
            node: *node,
            incarnation: request.incarnation,
        };
        let ready = |(node, request): &(&NodeId, &Request)| {
            request.storage_ok
                && request.acted_alike
                && base.may_join(**node)
                && base.member(**node).is_none()
                && request.incarnation > base.newest(**node)
                && !self.is_offered_otherwise(life(node, request), request.start)
                && self.is_connected(**node, neighbours)
        };
        let requests = self.requests.iter().filter(ready);
        requests.map(|(node, request)| life(node, request)).collect()
    }

    /// The joiner reaches every member of the view, and every member reaches it.
    fn is_connected(&self, node: NodeId, neighbours: &Neighbours) -> bool {
        let Some(view) = self.view() else { return false };
        let reports = |a: NodeId, b: NodeId| {
            let neighbour = neighbours.get(&a).filter(|neighbour| neighbour.reached);
            neighbour.and_then(|n| n.report).is_some_and(|report| report.reach.contains(b))
        };
        view.members().iter().all(|member| {
            reports(node, member.node) && (member.node == self.node || reports(member.node, node))
        })
    }

    /// Was another start offered this life in the present view? It may be committed for that one.
    fn is_offered_otherwise(&self, life: Member, start: StartNonce) -> bool {
        let view = self.known.as_ref().map(|known| known.view);
        let other = |(of, base): &(StartNonce, ViewId)| *of != start && Some(*base) == view;
        self.offers.get(&life).is_some_and(other)
    }

    /// The incarnation was offered to another start by another coordinator.
    pub(super) fn burn(&mut self, member: Member) {
        let nobody = StartNonce::new(u64::MAX).expect("not zero");
        if let Some(known) = &self.known {
            self.offers.insert(member, (nobody, known.view));
        }
    }

    /// What the layers above give the joiners of `view`. Ignored when the view has changed.
    ///
    /// # Panics
    /// When there are more than 64 MiB of it.
    pub(crate) fn handle_collected(&mut self, view: ViewId, blobs: &[JoinBlob]) {
        let held: usize = blobs.iter().map(|blob| blob.bytes.len()).sum();
        assert!(held <= JOIN_STATE_BYTES_MAX, "the state of a joiner has a bound: {held} bytes");
        let Standing::Member { view: installed, .. } = &self.standing else { return };
        let Some(value) = self.known.clone().filter(|_| installed.id == view) else { return };
        for to in std::mem::take(&mut self.newcomers) {
            for blob in blobs {
                let pieces = if blob.bytes.is_empty() {
                    vec![&blob.bytes[..]]
                } else {
                    blob.bytes.chunks(JoinBlob::PIECE).collect()
                };
                for piece in pieces {
                    let (layer, id, bytes) = (blob.layer, blob.id, piece.to_vec());
                    self.send(to.node, Control::JoinState { view, layer, id, bytes });
                }
            }
            let (value, starts) = (Box::new(value.clone()), self.starts.clone());
            self.effects.push_back(Effect::Welcome { to: to.node, value, starts });
        }
    }
}
