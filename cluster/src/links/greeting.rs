//! The handshake of one connection: who may speak here, and from when on.
//!
//! Keeps true: a connection is opened only after both sides have checked each other; a start that
//! replaces another ends the link to the former one, which is never linked again.

use std::collections::VecDeque;

use mx_base::{Instant, NodeId};

use super::{
    ConnectionId, ConnectionState, Dial, Event, Fault, LinkTo, Links, Transmit, unsequenced,
};
use crate::frame::{Frame, Kind};
use crate::handshake::{Hello, Refusal, Versions};
use crate::link::Link;
use crate::timer;

impl Links {
    pub(super) fn handle_greeting(
        &mut self,
        connection: ConnectionId,
        dialled: Option<NodeId>,
        frame: &Frame,
        now: Instant,
    ) -> Result<(), Fault> {
        if frame.kind == Kind::Refusal {
            let refusal = Refusal::from_bytes(&frame.payload)?;
            if let Some(peer) = dialled {
                self.events.push_back(Event::TurnedAway { peer, refusal });
            }
            return Err(Fault::RefusedUs(refusal));
        }
        let hello = Hello::from_bytes(&frame.payload)?;
        let version = match self.check(&hello, dialled, now) {
            Ok(version) => version,
            Err(refusal) => {
                let refuse = unsequenced(Kind::Refusal, 0, 0, refusal.to_bytes());
                self.urgent.push_back(Transmit::Send(connection, refuse));
                return Err(Fault::Refused(refusal));
            }
        };
        if dialled.is_none() {
            self.greet(connection, hello.node);
        }
        self.open(connection, &hello, version, now);
        Ok(())
    }

    fn check(&self, hello: &Hello, dialled: Option<NodeId>, now: Instant) -> Result<u16, Refusal> {
        if hello.cluster != self.identity.cluster {
            return Err(Refusal::ForeignCluster);
        }
        let Some(version) = Versions::OURS.common(hello.versions) else {
            let Versions { min, max } = Versions::OURS;
            return Err(Refusal::Version { min, max });
        };
        let meant = hello.to == self.identity.node && dialled.is_none_or(|to| to == hello.node);
        let Some(peer) = self.peers.get(&hello.node).filter(|_| meant) else {
            return Err(Refusal::WrongNode);
        };
        self.roster.check(hello)?;
        if peer.retired.contains(&hello.start) {
            return Err(Refusal::StaleIncarnation { newest: self.roster.newest(hello.node) });
        }
        // Two processes with one node id: the first keeps it while it is heard.
        let lately = self.unit.times(timer::STALLED);
        let is_alive = !peer.open.is_empty() && now.since(peer.heard) <= lately;
        match &peer.link {
            Some(to) if to.start != hello.start && is_alive => Err(Refusal::NodeInUse),
            Some(_) | None => Ok(version),
        }
    }

    fn open(&mut self, connection: ConnectionId, hello: &Hello, version: u16, now: Instant) {
        let peer = hello.node;
        let state = self.peers.get(&peer).expect("checked with the handshake");
        if state.link.as_ref().is_some_and(|to| to.start != hello.start) {
            self.retire(peer, now);
        }
        let known = self.connections.get_mut(&connection).expect("its handshake just came");
        known.decoder.allow_all();
        known.state = ConnectionState::Open { peer, version };
        let state = self.peers.get_mut(&peer).expect("checked with the handshake");
        let to = state.link.get_or_insert_with(|| LinkTo {
            start: hello.start,
            link: Link::new(),
            held: VecDeque::new(),
            held_bytes: 0,
        });
        to.link.restart_transmission();
        state.open.push(connection);
        state.heard = now;
        state.dial = Dial::Idle;
        state.hopeful = true;
        let older: Vec<ConnectionId> = state.open[..state.open.len() - 1].to_vec();
        if older.is_empty() {
            self.events.push_back(Event::Connected { peer, start: hello.start });
        } else if self.identity.node < peer {
            for connection in older {
                self.close(connection, now);
            }
        }
        self.transmit(peer);
    }

    pub(super) fn greet(&mut self, connection: ConnectionId, to: NodeId) {
        let hello = Hello {
            cluster: self.identity.cluster,
            versions: Versions::OURS,
            node: self.identity.node,
            incarnation: self.incarnation,
            start: self.identity.start,
            to,
        };
        let frame = unsequenced(Kind::Hello, 0, 0, hello.to_bytes());
        self.urgent.push_back(Transmit::Send(connection, frame));
    }
}
