//! Who is suspected, and why (R9).
//!
//! A suspicion is a reason to propose a view without the peer, nothing more: it never acts.
//! Keeps true: a peer is suspected from 5 U after the last frame it sent, or as soon as its process
//! is known to be gone, until it is heard on a new connection. A connection that breaks is no such
//! proof by itself: the peer has 1 U to be connected again, and a refused attempt ends that at
//! once.

use std::collections::BTreeMap;

use mx_base::{Duration, Instant, NodeId};

use crate::timer::{self, Unit};

/// Why a peer is suspected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// It was never heard by this node.
    NeverHeard,
    /// No frame for 5 U.
    Silence,
    /// Its connection broke and no new one came about within 1 U.
    ConnectionLost,
    /// Its connection broke and its host refuses a new one: no process listens.
    ProcessGone,
}

/// Since when and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspected {
    pub since: Instant,
    pub cause: Cause,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    heard: Instant,
    /// Since when no connection to it exists.
    broken: Option<Instant>,
    suspected: Option<Suspected>,
}

#[derive(Debug)]
pub(crate) struct Suspicion {
    unit: Unit,
    peers: BTreeMap<NodeId, Peer>,
    /// Before this, silence may be our own fault: this node was not run.
    patient_until: Instant,
}

impl Suspicion {
    pub(crate) fn new(unit: Unit, peers: impl Iterator<Item = NodeId>, now: Instant) -> Suspicion {
        let suspected = Some(Suspected { since: now, cause: Cause::NeverHeard });
        let unknown = Peer { heard: now, broken: Some(now), suspected };
        let peers = peers.map(|node| (node, unknown)).collect();
        Suspicion { unit, peers, patient_until: now }
    }

    /// This node was not run for so long. What the peers sent meanwhile is still to be read; and
    /// those that share its processors, as virtual machines of one host do, were not run either:
    /// they get as long, at most what every silence gets.
    pub(crate) fn handle_stall(&mut self, stalled: Duration, now: Instant) {
        let patience = stalled.clamp(self.unit.times(1), self.unit.times(timer::SUSPECT));
        self.patient_until = now + patience;
    }

    pub(crate) fn handle_connected(&mut self, peer: NodeId, now: Instant) {
        if let Some(state) = self.peers.get_mut(&peer) {
            *state = Peer { heard: now, broken: None, suspected: None };
        }
    }

    /// A frame came. On a connection that was held to be silent it ends the suspicion.
    pub(crate) fn handle_heard(&mut self, peer: NodeId, now: Instant) {
        if let Some(state) = self.peers.get_mut(&peer)
            && state.broken.is_none()
        {
            state.heard = now;
            state.suspected = None;
        }
    }

    /// The last connection to the peer is gone.
    pub(crate) fn handle_disconnected(&mut self, peer: NodeId, now: Instant) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.broken = Some(state.broken.unwrap_or(now));
        }
    }

    /// An attempt to connect was refused by the peer's host. True when this is news.
    pub(crate) fn handle_refused(&mut self, peer: NodeId, now: Instant) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else { return false };
        if state.broken.is_none() {
            return false;
        }
        match state.suspected {
            Some(Suspected { cause: Cause::ProcessGone | Cause::NeverHeard, .. }) => false,
            Some(Suspected { since, cause: Cause::Silence | Cause::ConnectionLost }) => {
                state.suspected = Some(Suspected { since, cause: Cause::ProcessGone });
                true
            }
            None => {
                state.suspected = Some(Suspected { since: now, cause: Cause::ProcessGone });
                true
            }
        }
    }

    /// Raises the suspicions that are due. Those newly suspected of silence come back: their
    /// connections are of no use.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<(NodeId, Cause)> {
        let mut raised = Vec::new();
        for (node, peer) in &mut self.peers {
            let Some((at, cause)) = due(peer, self.unit, self.patient_until) else { continue };
            if now >= at {
                peer.suspected = Some(Suspected { since: now, cause });
                raised.push((*node, cause));
            }
        }
        raised
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.peers
            .values()
            .filter_map(|peer| due(peer, self.unit, self.patient_until))
            .map(|(at, _)| at)
            .min()
    }

    pub(crate) fn suspected(&self, peer: NodeId) -> Option<Suspected> {
        self.peers.get(&peer)?.suspected
    }

    pub(crate) fn is_reached(&self, peer: NodeId) -> bool {
        self.peers.get(&peer).is_some_and(|state| state.suspected.is_none())
    }
}

fn due(peer: &Peer, unit: Unit, patient_until: Instant) -> Option<(Instant, Cause)> {
    if peer.suspected.is_some() {
        return None;
    }
    let silent = (peer.heard + unit.times(timer::SUSPECT), Cause::Silence);
    let first = match peer.broken {
        Some(broken) => silent.min((broken + unit.times(timer::RECONNECT), Cause::ConnectionLost)),
        None => silent,
    };
    Some((first.0.max(patient_until), first.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u16) -> NodeId {
        NodeId::new(id).expect("in range")
    }

    fn at(units: u32) -> Instant {
        Instant(1) + Unit::DEFAULT.times(units)
    }

    fn connected() -> Suspicion {
        let mut suspicion = Suspicion::new(Unit::DEFAULT, [node(2)].into_iter(), at(0));
        suspicion.handle_connected(node(2), at(0));
        suspicion
    }

    fn cause(suspicion: &Suspicion) -> Option<Cause> {
        suspicion.suspected(node(2)).map(|suspected| suspected.cause)
    }

    #[test]
    fn a_silent_peer_is_suspected_after_five_units_and_not_before() {
        let mut suspicion = connected();
        suspicion.handle_heard(node(2), at(1));
        suspicion.handle_timeout(at(5));
        assert_eq!(cause(&suspicion), None);
        suspicion.handle_timeout(at(6));
        assert_eq!(cause(&suspicion), Some(Cause::Silence));
        suspicion.handle_heard(node(2), at(7));
        assert_eq!(cause(&suspicion), None);
    }

    #[test]
    fn a_broken_connection_leaves_one_unit_to_come_back() {
        let mut suspicion = connected();
        suspicion.handle_disconnected(node(2), at(1));
        suspicion.handle_timeout(at(1));
        assert_eq!(cause(&suspicion), None);
        suspicion.handle_connected(node(2), at(2));
        suspicion.handle_timeout(at(2));
        assert_eq!(cause(&suspicion), None);
        suspicion.handle_disconnected(node(2), at(3));
        suspicion.handle_timeout(at(4));
        assert_eq!(cause(&suspicion), Some(Cause::ConnectionLost));
    }

    #[test]
    fn a_refused_connection_after_a_broken_one_is_suspected_at_once() {
        let mut suspicion = connected();
        assert!(!suspicion.handle_refused(node(2), at(1)));
        suspicion.handle_disconnected(node(2), at(1));
        assert!(suspicion.handle_refused(node(2), at(1)));
        assert_eq!(cause(&suspicion), Some(Cause::ProcessGone));
    }

    #[test]
    fn a_node_that_was_stopped_itself_first_reads_what_came_meanwhile() {
        let mut suspicion = connected();
        suspicion.handle_stall(Unit::DEFAULT.times(20), at(20));
        suspicion.handle_timeout(at(20));
        assert_eq!(cause(&suspicion), None);
        suspicion.handle_heard(node(2), at(20));
        suspicion.handle_timeout(at(21));
        assert_eq!(cause(&suspicion), None);
    }

    #[test]
    fn whoever_may_have_been_stopped_with_this_node_gets_as_long_to_go_on() {
        for (stalled, patience) in [(2, 2), (4, 4), (20, 5)] {
            let mut suspicion = connected();
            suspicion.handle_stall(Unit::DEFAULT.times(stalled), at(20));
            suspicion.handle_timeout(at(19 + patience));
            assert_eq!(cause(&suspicion), None);
            suspicion.handle_timeout(at(20 + patience));
            assert_eq!(cause(&suspicion), Some(Cause::Silence));
        }
    }
}
