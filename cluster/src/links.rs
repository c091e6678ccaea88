//! All links of this node: connections, handshakes, and which start of a peer a link leads to.
//!
//! Keeps true:
//! * at most one link per peer, to one start of it; a start that was replaced or dropped is never
//!   linked again, whatever of it still arrives;
//! * a frame is looked at only after the handshake of its connection, and only while the link to
//!   the start that the handshake named exists;
//! * lock and group traffic is handed over only while its sender is a member of the committed view
//!   (I6); from a start that is not known yet it waits, within a bound, for the view that may
//!   bring it;
//! * nothing is sent to a member but over the link to the very start that the view means.
//!
//! Both sides of a pair dial, and any number of connections may exist between them for a moment:
//! each side sends on the newest, takes what comes on all, and the lower node closes the older
//! ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mx_base::{ClusterId, Incarnation, Instant, Member, NodeId};

use crate::frame::{Decoder, Frame, Kind, LockspaceId, PAYLOAD_MAX, STRANGER_PAYLOAD_MAX};
use crate::handshake::{Refusal, StartNonce};
use crate::heartbeat::{self, Ping};
use crate::link::{Arrival, Link};
use crate::nodes::NodeSet;
use crate::timer::{self, Unit};
use crate::wire::Control;

mod dial;
mod fault;
mod greeting;
mod roster;

pub use fault::{Fault, SendError};
pub(crate) use roster::Roster;

/// Names a connection; given by whoever owns the sockets, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Connections whose handshake is not finished. Beyond it a new one is closed at once: a flood of
/// strangers must not keep members out for longer than one handshake lasts.
const STRANGERS_MAX: usize = 128;

/// Traffic of one start that waits for the view that makes it a member, in frames and bytes.
/// Beyond it the connection is closed; the peer sends again what was not acknowledged.
const HELD_FRAMES_MAX: usize = 4096;
const HELD_BYTES_MAX: usize = 16 << 20;

/// Former starts of a peer that are remembered, so that none of them is linked again.
const RETIRED_MAX: usize = 32;

/// What happened, in order.
#[derive(Debug)]
pub(crate) enum Event {
    /// The first connection to this start of the peer.
    Connected {
        peer: NodeId,
        start: StartNonce,
    },
    /// The last connection to the peer is gone.
    Disconnected {
        peer: NodeId,
    },
    /// An attempt to connect was refused by the peer's host.
    DialRefused {
        peer: NodeId,
    },
    /// Any frame; precedes the event for what it carried.
    Heard {
        peer: NodeId,
    },
    Ping {
        peer: NodeId,
        ping: Ping,
    },
    Pong {
        peer: NodeId,
        sequence: u64,
    },
    Control {
        peer: NodeId,
        control: Control,
    },
    Traffic {
        from: Member,
        kind: Kind,
        lockspace: LockspaceId,
        payload: Arc<[u8]>,
    },
    /// The peer says that we are no member, or not the newest life of this node.
    TurnedAway {
        peer: NodeId,
        refusal: Refusal,
    },
    Fault {
        peer: Option<NodeId>,
        fault: Fault,
    },
}

/// What the owner of the sockets is to do, in order.
#[derive(Debug)]
pub(crate) enum Transmit {
    Connect(NodeId),
    Send(ConnectionId, Frame),
    Close(ConnectionId),
}

#[derive(Debug)]
struct Connection {
    decoder: Decoder,
    state: ConnectionState,
}

#[derive(Debug)]
enum ConnectionState {
    /// Whom it was dialled to; `None` when it was accepted.
    Greeting {
        dialled: Option<NodeId>,
        deadline: Instant,
    },
    Open {
        peer: NodeId,
        version: u16,
    },
}

#[derive(Debug, Default)]
enum Dial {
    #[default]
    Idle,
    Asked {
        since: Instant,
    },
    Pause {
        until: Instant,
    },
}

#[derive(Debug)]
struct LinkTo {
    start: StartNonce,
    link: Link,
    held: VecDeque<(Kind, LockspaceId, Arc<[u8]>)>,
    held_bytes: usize,
}

#[derive(Debug, Default)]
struct Peer {
    link: Option<LinkTo>,
    /// Open ones, the newest last.
    open: Vec<ConnectionId>,
    /// When the last frame of the linked start came.
    heard: Instant,
    dial: Dial,
    /// A connection was open since it was dialled in vain: it is dialled again at once.
    hopeful: bool,
    retired: VecDeque<StartNonce>,
}

/// Who this node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) start: StartNonce,
}

#[derive(Debug)]
pub(crate) struct Links {
    identity: Identity,
    incarnation: Option<Incarnation>,
    unit: Unit,
    roster: Roster,
    connections: BTreeMap<ConnectionId, Connection>,
    peers: BTreeMap<NodeId, Peer>,
    /// Peers that are dialled. Others have to come by themselves.
    eager: NodeSet,
    shut_down: bool,
    events: VecDeque<Event>,
    transmits: VecDeque<Transmit>,
    urgent: VecDeque<Transmit>,
}

impl Links {
    pub(crate) fn new(identity: Identity, peers: BTreeSet<NodeId>, unit: Unit) -> Links {
        assert!(!peers.contains(&identity.node), "a node is not its own peer");
        Links {
            identity,
            incarnation: None,
            unit,
            roster: Roster::default(),
            connections: BTreeMap::new(),
            eager: peers.iter().copied().collect(),
            peers: peers.into_iter().map(|node| (node, Peer::default())).collect(),
            shut_down: false,
            events: VecDeque::new(),
            transmits: VecDeque::new(),
            urgent: VecDeque::new(),
        }
    }

    // Connection events

    pub(crate) fn handle_accepted(&mut self, connection: ConnectionId, now: Instant) {
        if self.shut_down {
            self.transmits.push_back(Transmit::Close(connection));
            return;
        }
        let strangers = self.connections.values().filter(|c| c.is_greeting()).count();
        if strangers >= STRANGERS_MAX {
            self.fault(None, Fault::TooManyStrangers);
            self.transmits.push_back(Transmit::Close(connection));
            return;
        }
        self.add(connection, None, now);
    }

    pub(crate) fn handle_connected(
        &mut self,
        peer: NodeId,
        connection: ConnectionId,
        now: Instant,
    ) {
        let Some(state) = self.peers.get_mut(&peer) else {
            self.transmits.push_back(Transmit::Close(connection));
            return;
        };
        state.dial = Dial::Idle;
        self.add(connection, Some(peer), now);
        self.greet(connection, peer);
    }

    pub(crate) fn handle_connect_failed(&mut self, peer: NodeId, refused: bool, now: Instant) {
        self.pause_dialling(peer, now);
        if refused && self.peers.get(&peer).is_some_and(|state| state.open.is_empty()) {
            self.events.push_back(Event::DialRefused { peer });
        }
    }

    /// The other side, or the network, has closed it.
    pub(crate) fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        self.forget(connection, now);
    }

    pub(crate) fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        known.decoder.push(bytes);
        loop {
            // The connection may have been closed by what its last frame said.
            let Some(known) = self.connections.get_mut(&connection) else { return };
            let outcome = match known.decoder.next_frame() {
                Ok(Some(frame)) => self.handle_frame(connection, frame, now),
                Ok(None) => return,
                Err(error) => Err(Fault::Frame(error)),
            };
            if let Err(fault) = outcome {
                let peer = self.connections.get(&connection).and_then(Connection::peer);
                self.fault(peer, fault);
                self.close(connection, now);
                return;
            }
        }
    }

    // Frames

    fn handle_frame(
        &mut self,
        connection: ConnectionId,
        frame: Frame,
        now: Instant,
    ) -> Result<(), Fault> {
        let known = self.connections.get(&connection).expect("looked up by the caller");
        let (peer, version) = match known.state {
            ConnectionState::Greeting { dialled, .. } => {
                return self.handle_greeting(connection, dialled, &frame, now);
            }
            ConnectionState::Open { peer, version } => (peer, version),
        };
        self.events.push_back(Event::Heard { peer });
        let state = self.peers.get_mut(&peer).expect("an open connection has a configured peer");
        state.heard = now;
        let to = state.link.as_mut().expect("an open connection has a link");
        to.link.handle_ack(frame.ack)?;
        match frame.kind {
            Kind::Hello => return Err(Fault::GreetedTwice),
            Kind::Refusal => {
                // The side that dialled has checked what we answered.
                let refusal = Refusal::from_bytes(&frame.payload)?;
                self.events.push_back(Event::TurnedAway { peer, refusal });
                return Err(Fault::RefusedUs(refusal));
            }
            Kind::Ack => {}
            Kind::Ping => {
                let ping = Ping::from_bytes(&frame.payload).ok_or(Fault::Heartbeat)?;
                self.events.push_back(Event::Ping { peer, ping });
            }
            Kind::Pong => {
                let sequence =
                    heartbeat::pong_from_bytes(&frame.payload).ok_or(Fault::Heartbeat)?;
                self.events.push_back(Event::Pong { peer, sequence });
            }
            Kind::Control => {
                if to.link.arrival(frame.sequence)? == Arrival::Next {
                    let control = Control::from_bytes(&frame.payload)?;
                    to.link.accept();
                    self.events.push_back(Event::Control { peer, control });
                }
            }
            Kind::Lock | Kind::Group => {
                if to.link.arrival(frame.sequence)? == Arrival::Next {
                    self.handle_traffic(peer, frame)?;
                }
            }
        }
        self.acknowledge(peer, connection, version);
        Ok(())
    }

    fn handle_traffic(&mut self, peer: NodeId, frame: Frame) -> Result<(), Fault> {
        let state = self.peers.get_mut(&peer).expect("an open connection has a configured peer");
        let to = state.link.as_mut().expect("an open connection has a link");
        match self.roster.member_of(peer, to.start) {
            Some(from) => {
                to.link.accept();
                self.events.push_back(Event::Traffic {
                    from,
                    kind: frame.kind,
                    lockspace: frame.lockspace,
                    payload: frame.payload,
                });
            }
            None => {
                let bytes = to.held_bytes + frame.payload.len();
                if to.held.len() >= HELD_FRAMES_MAX || bytes > HELD_BYTES_MAX {
                    return Err(Fault::HeldTooMuch);
                }
                to.link.accept();
                to.held_bytes = bytes;
                to.held.push_back((frame.kind, frame.lockspace, frame.payload));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, peer: NodeId, connection: ConnectionId, version: u16) {
        let Some(to) = self.peers.get_mut(&peer).and_then(|state| state.link.as_mut()) else {
            return;
        };
        if to.link.ack_is_due() {
            let frame = unsequenced(Kind::Ack, version, to.link.ack(), Vec::new());
            self.transmits.push_back(Transmit::Send(connection, frame));
        }
    }

    // Sending

    /// To whatever start of the peer is linked. Nothing is kept for a peer that never was.
    pub(crate) fn send_control(&mut self, peer: NodeId, control: &Control, now: Instant) {
        let Some(to) = self.peers.get_mut(&peer).and_then(|state| state.link.as_mut()) else {
            return;
        };
        let payload: Arc<[u8]> = control.to_bytes().into();
        if to.link.push(Kind::Control, LockspaceId(0), payload).is_ok() {
            self.transmit(peer);
        } else {
            self.fault(Some(peer), Fault::TakesNothing);
            self.retire(peer, now);
        }
    }

    /// To one member and no other life of its node.
    pub(crate) fn send_traffic(
        &mut self,
        to: Member,
        kind: Kind,
        lockspace: LockspaceId,
        payload: Arc<[u8]>,
    ) -> Result<(), SendError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(SendError::TooLong { bytes: payload.len() });
        }
        let start = self.roster.start_of(to);
        let link = self
            .peers
            .get_mut(&to.node)
            .and_then(|state| state.link.as_mut())
            .filter(|link| Some(link.start) == start)
            .ok_or(SendError::Gone { to })?;
        link.link.push(kind, lockspace, payload)?;
        self.transmit(to.node);
        Ok(())
    }

    pub(crate) fn send_ping(&mut self, peer: NodeId, ping: Ping) {
        self.send_heartbeat(peer, Kind::Ping, ping.to_bytes());
    }

    pub(crate) fn send_pong(&mut self, peer: NodeId, sequence: u64) {
        self.send_heartbeat(peer, Kind::Pong, heartbeat::pong_to_bytes(sequence));
    }

    fn send_heartbeat(&mut self, peer: NodeId, kind: Kind, payload: Vec<u8>) {
        let Some((connection, version)) = self.newest(peer) else { return };
        let state = self.peers.get_mut(&peer).expect("it has an open connection");
        let ack = state.link.as_mut().map_or(0, |to| to.link.ack());
        let frame = unsequenced(kind, version, ack, payload);
        self.urgent.push_back(Transmit::Send(connection, frame));
    }

    /// Puts everything that the newest connection has not carried yet on its way.
    fn transmit(&mut self, peer: NodeId) {
        let Some((connection, version)) = self.newest(peer) else { return };
        let state = self.peers.get_mut(&peer).expect("it has an open connection");
        let to = state.link.as_mut().expect("an open connection has a link");
        while let Some(frame) = to.link.poll_frame(version) {
            self.transmits.push_back(Transmit::Send(connection, frame));
        }
    }

    fn newest(&self, peer: NodeId) -> Option<(ConnectionId, u16)> {
        let connection = *self.peers.get(&peer)?.open.last()?;
        match self.connections.get(&connection)?.state {
            ConnectionState::Open { version, .. } => Some((connection, version)),
            ConnectionState::Greeting { .. } => None,
        }
    }

    // The view

    /// A view was installed, or more is known of the register: who is who from here on.
    pub(crate) fn set_roster(
        &mut self,
        roster: Roster,
        incarnation: Option<Incarnation>,
        now: Instant,
    ) {
        let dropped: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, state)| {
                let start = state.link.as_ref().map(|to| to.start);
                start.is_some_and(|start| self.roster.is_start(start) && !roster.is_start(start))
            })
            .map(|(node, _)| *node)
            .collect();
        for peer in dropped {
            self.retire(peer, now);
        }
        self.roster = roster;
        self.incarnation = incarnation;
        for (peer, state) in &mut self.peers {
            let Some(to) = &mut state.link else { continue };
            let Some(from) = self.roster.member_of(*peer, to.start) else { continue };
            to.held_bytes = 0;
            for (kind, lockspace, payload) in to.held.drain(..) {
                self.events.push_back(Event::Traffic { from, kind, lockspace, payload });
            }
        }
    }

    pub(crate) fn set_eager(&mut self, eager: NodeSet) {
        self.eager = eager;
    }

    /// The connections to a silent peer are of no use; new ones are tried.
    pub(crate) fn reset(&mut self, peer: NodeId, now: Instant) {
        for connection in self.peers.get(&peer).map(|p| p.open.clone()).unwrap_or_default() {
            self.close(connection, now);
        }
    }

    /// This node is no member any more: nothing is sent and nothing is taken.
    pub(crate) fn shut_down(&mut self) {
        let connections: Vec<ConnectionId> = self.connections.keys().copied().collect();
        self.transmits.extend(connections.into_iter().map(Transmit::Close));
        self.connections.clear();
        self.peers.clear();
        self.events.clear();
        self.shut_down = true;
    }

    /// The start of `peer` that a link exists to.
    pub(crate) fn start(&self, peer: NodeId) -> Option<StartNonce> {
        Some(self.peers.get(&peer)?.link.as_ref()?.start)
    }

    pub(crate) fn is_connected(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|state| !state.open.is_empty())
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Bytes that `peer` has not acknowledged.
    pub(crate) fn unacked_bytes(&self, peer: NodeId) -> usize {
        let link = self.peers.get(&peer).and_then(|state| state.link.as_ref());
        link.map_or(0, |to| to.link.unacked_bytes())
    }

    // Ends

    fn add(&mut self, connection: ConnectionId, dialled: Option<NodeId>, now: Instant) {
        let deadline = now + self.unit.times(timer::HANDSHAKE);
        let state = ConnectionState::Greeting { dialled, deadline };
        let added = Connection { decoder: Decoder::new(), state };
        let former = self.connections.insert(connection, added);
        assert!(former.is_none(), "a connection id is used once: {connection:?}");
    }

    fn close(&mut self, connection: ConnectionId, now: Instant) {
        if self.connections.contains_key(&connection) {
            self.transmits.push_back(Transmit::Close(connection));
            self.forget(connection, now);
        }
    }

    fn forget(&mut self, connection: ConnectionId, now: Instant) {
        let Some(gone) = self.connections.remove(&connection) else { return };
        let peer = match gone.state {
            ConnectionState::Open { peer, .. } => peer,
            ConnectionState::Greeting { dialled, .. } => {
                let state = dialled.and_then(|peer| Some((peer, self.peers.get_mut(&peer)?)));
                if let Some((peer, state)) = state {
                    // A process that ends closes its connections before it stops listening: whoever
                    // comes in between is connected and closed, and refused the next time. But if
                    // what listens there does not speak with us: not too often.
                    if !std::mem::take(&mut state.hopeful) {
                        self.pause_dialling(peer, now);
                    }
                }
                return;
            }
        };
        let state = self.peers.get_mut(&peer).expect("an open connection has a configured peer");
        let was_newest = state.open.last() == Some(&connection);
        state.open.retain(|open| *open != connection);
        if state.open.is_empty() {
            self.events.push_back(Event::Disconnected { peer });
        } else if was_newest {
            if let Some(to) = &mut state.link {
                to.link.restart_transmission();
            }
            self.transmit(peer);
        }
    }

    /// A layer above cannot go on with the member: nothing more is taken from this life of it or
    /// sent to it. To the others of the view it looks as if the network between the two had broken.
    pub(crate) fn distrust(&mut self, member: Member, now: Instant) {
        let peer = member.node;
        if self.start(peer).is_none() || self.start(peer) != self.roster.start_of(member) {
            return;
        }
        let is_of_it =
            |event: &Event| matches!(event, Event::Traffic { from, .. } if *from == member);
        self.events.retain(|event| !is_of_it(event));
        self.fault(Some(peer), Fault::Distrusted);
        self.retire(peer, now);
    }

    /// The start that is linked is dead or dropped: never again.
    fn retire(&mut self, peer: NodeId, now: Instant) {
        self.reset(peer, now);
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(to) = state.link.take() else { return };
        if state.retired.len() == RETIRED_MAX {
            state.retired.pop_front();
        }
        state.retired.push_back(to.start);
    }

    fn fault(&mut self, peer: Option<NodeId>, fault: Fault) {
        tracing::debug!(?peer, %fault, "connection fault");
        self.events.push_back(Event::Fault { peer, fault });
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Heartbeats and handshakes first.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.urgent.pop_front().or_else(|| self.transmits.pop_front())
    }
}

impl Connection {
    fn is_greeting(&self) -> bool {
        matches!(self.state, ConnectionState::Greeting { .. })
    }

    fn peer(&self) -> Option<NodeId> {
        match self.state {
            ConnectionState::Greeting { dialled, .. } => dialled,
            ConnectionState::Open { peer, .. } => Some(peer),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            ConnectionState::Greeting { deadline, .. } => Some(deadline),
            ConnectionState::Open { .. } => None,
        }
    }
}

fn unsequenced(kind: Kind, version: u16, ack: u64, payload: Vec<u8>) -> Frame {
    assert!(payload.len() <= STRANGER_PAYLOAD_MAX, "frames out of sequence are short");
    Frame { version, kind, lockspace: LockspaceId(0), sequence: 0, ack, payload: payload.into() }
}

#[cfg(test)]
mod tests;
