//! When peers are dialled, and when handshakes are given up.

use mx_base::{Instant, NodeId};

use super::{Connection, ConnectionId, ConnectionState, Dial, Fault, Links, Peer, Transmit};
use crate::timer;

impl Links {
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let slow: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, c)| c.deadline().is_some_and(|deadline| now >= deadline))
            .map(|(id, _)| *id)
            .collect();
        for connection in slow {
            let peer = self.connections.get(&connection).and_then(Connection::peer);
            self.fault(peer, Fault::TooSlow);
            self.close(connection, now);
        }
        let due: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, state)| self.dial_at(**node, state).is_some_and(|at| now >= at))
            .map(|(node, _)| *node)
            .collect();
        for peer in due {
            let state = self.peers.get_mut(&peer).expect("just listed");
            state.dial = Dial::Asked { since: now };
            self.transmits.push_back(Transmit::Connect(peer));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let handshakes = self.connections.values().filter_map(Connection::deadline);
        let dials = self.peers.iter().filter_map(|(node, state)| self.dial_at(*node, state));
        handshakes.chain(dials).min()
    }

    /// When `peer` is to be dialled next; `None` while there is a connection or the hope of one.
    fn dial_at(&self, node: NodeId, peer: &Peer) -> Option<Instant> {
        if !peer.open.is_empty() || !self.eager.contains(node) {
            return None;
        }
        let greeting = |c: &Connection| matches!(c.state, ConnectionState::Greeting { dialled: Some(to), .. } if to == node);
        if self.connections.values().any(greeting) {
            return None;
        }
        match peer.dial {
            Dial::Idle => Some(Instant(0)),
            Dial::Asked { since } => Some(since + self.unit.times(timer::DIAL_ANSWER)),
            Dial::Pause { until } => Some(until),
        }
    }

    pub(super) fn pause_dialling(&mut self, peer: NodeId, now: Instant) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.dial = Dial::Pause { until: now + self.unit.times(timer::DIAL_AGAIN) };
        }
    }
}
