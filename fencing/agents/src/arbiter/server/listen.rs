//! Connections and handshakes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use mx_base::Incarnation;
use tracing::{info, warn};

use fencing::Key;

use super::session::{Peer, Session, State};
use super::{ACCEPT_PAUSE, SESSIONS_MAX, Serving};
use crate::arbiter::protocol::{Hello, HelloRefusal, REQUESTS_MAX, Welcome};
use crate::arbiter::shared_memory::SharedMemory;
use crate::arbiter::socket;

impl Serving<'_> {
    pub(super) fn accept(&mut self) {
        loop {
            match socket::accept(self.listener.as_fd()) {
                Ok(Some(socket)) => self.admit(socket),
                Ok(None) => return,
                Err(errno) => {
                    // Out of descriptors, most likely.
                    warn!(%errno, "a connection cannot be accepted");
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let position = match self.sessions.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.sessions.len() < SESSIONS_MAX => {
                self.sessions.push(None);
                self.sessions.len() - 1
            }
            None => {
                self.counters.sessions_refused += 1;
                let answer = Welcome::encode(Err(HelloRefusal::TooManySessions));
                let _ = socket::send(socket.as_fd(), &answer, None);
                return;
            }
        };
        self.sessions[position] = Some(Session::new(socket));
        self.arm_readable(position);
    }

    pub(super) fn handle_hello(
        &mut self,
        position: usize,
        packet: &[u8],
        descriptor: Option<OwnedFd>,
    ) {
        match self.introduce(position, packet, descriptor) {
            Ok(()) => {}
            Err(refusal) => self.refuse_session(position, refusal),
        }
    }

    fn introduce(
        &mut self,
        position: usize,
        packet: &[u8],
        descriptor: Option<OwnedFd>,
    ) -> Result<(), HelloRefusal> {
        let hello = Hello::decode(packet).map_err(|error| {
            warn!(%error, "a handshake is not understood");
            if error.refusal() == HelloRefusal::Malformed {
                self.counters.sessions_malformed += 1;
            }
            error.refusal()
        })?;
        if !hello.is_for_anything() {
            if hello.cluster != self.config.cluster {
                return Err(HelloRefusal::ForeignCluster);
            }
            if hello.device != self.config.device_id {
                return Err(HelloRefusal::ForeignDevice);
            }
        }
        if self.stopping {
            return Err(HelloRefusal::ShuttingDown);
        }
        let descriptor = descriptor.ok_or(HelloRefusal::BadArea)?;
        let memory = SharedMemory::of_client(&descriptor, hello.area_blocks).map_err(|error| {
            warn!(%error, "a client's shared memory cannot be used");
            HelloRefusal::BadArea
        })?;
        let Hello { key, nonce, channel, .. } = hello;
        let peer = Peer { member: key.map(Key::member), nonce, channel };
        if let Some(member) = peer.member {
            self.table.judge(member, nonce)?;
            self.table.register(member, nonce);
            self.store_table();
        }
        for other in 0..self.sessions.len() {
            let former = self.sessions[other].as_ref().and_then(|session| session.peer);
            if other != position && former.is_some_and(|former| former.is_replaced_by(peer)) {
                self.close(other);
            }
        }
        let session = self.sessions[position].as_mut().expect("a session in use");
        session.peer = Some(peer);
        session.memory = Some(Arc::new(memory));
        session.state = State::Registering { version: self.table.version() };
        Ok(())
    }

    /// Opens sessions whose registration is durable and whose predecessor has ended.
    pub(super) fn open_registered(&mut self) {
        for position in 0..self.sessions.len() {
            let Some(session) = &self.sessions[position] else { continue };
            let State::Registering { version } = session.state else { continue };
            let peer = session.peer.expect("a registering session has introduced itself");
            let waits_for = |other: &Session| {
                other.state == State::Closing
                    && other.executing > 0
                    && other.peer.is_some_and(|former| former.is_replaced_by(peer))
            };
            let member = peer.member;
            if self.sessions.iter().flatten().any(waits_for)
                || (member.is_some() && version > self.stored)
            {
                continue;
            }
            // It may have been fenced while it waited.
            if member.is_some_and(|member| !self.table.admits(member)) {
                self.refuse_session(position, HelloRefusal::Fenced);
                continue;
            }
            let entry = member.map(|member| self.table.entry(member.node)).unwrap_or_default();
            let welcome = Welcome {
                device_blocks: self.device.blocks(),
                server_start: self.server_start,
                requests_max: REQUESTS_MAX,
                incarnation_min: Incarnation(entry.min),
                incarnation_newest: Incarnation(entry.newest),
            };
            info!(?peer, "session opens");
            self.counters.sessions += 1;
            let session = self.sessions[position].as_mut().expect("just seen");
            session.greet(Welcome::encode(Ok(welcome)));
            session.state = State::Open;
        }
    }

    /// The registrations that could not be stored are not in force.
    pub(super) fn refuse_unstored(&mut self, failed: u64) {
        for position in 0..self.sessions.len() {
            let waits = self.sessions[position].as_ref().is_some_and(|session| {
                let stored = self.stored;
                let member = session.peer.is_some_and(|peer| peer.member.is_some());
                matches!(session.state, State::Registering { version }
                    if member && version > stored && version <= failed)
            });
            if waits {
                self.refuse_session(position, HelloRefusal::StateUnavailable);
            }
        }
    }

    fn refuse_session(&mut self, position: usize, refusal: HelloRefusal) {
        let session = self.sessions[position].as_mut().expect("a session in use");
        warn!(peer = ?session.peer, %refusal, "session refused");
        self.counters.sessions_refused += 1;
        session.greet(Welcome::encode(Err(refusal)));
        self.close(position);
    }
}
