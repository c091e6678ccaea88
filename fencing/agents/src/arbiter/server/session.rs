//! One client's connection: its packets, its requests that wait, its replies.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mx_base::Member;
use rustix::io::Errno;
use rustix::net::Shutdown;
use tracing::{debug, info, warn};

use super::{Event, Serving};
use crate::arbiter::protocol::{
    FRAME_SIZE, FRAMES_MAX, HELLO_SIZE, NodeReport, PACKET_MAX, REQUESTS_MAX, Reply, Request,
    Status, encode_list,
};
use crate::arbiter::shared_memory::SharedMemory;
use crate::arbiter::socket;

/// Packets read of one session before the others have their turn.
const PACKETS_AT_ONCE: usize = 8;

/// A client that has introduced itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    /// `None` for an observer.
    pub(super) member: Option<Member>,
    pub(super) nonce: u64,
    pub(super) channel: u16,
}

impl Peer {
    /// Would a session of `other` take the place of one of `self`? The memory of both may be the
    /// same, and a member's requests may be sent again by the new one.
    pub(super) fn is_replaced_by(self, other: Peer) -> bool {
        let same = match self.member {
            Some(_) => self.member == other.member,
            None => other.member.is_none() && self.nonce == other.nonce,
        };
        same && self.channel == other.channel
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nothing has been heard of it yet.
    Greeting,
    /// Opened as soon as the table of this version is durable and its predecessor has ended.
    Registering {
        version: u64,
    },
    Open,
    /// Nothing is read or begun any more; what is executing ends.
    Closing,
}

#[derive(Debug)]
pub(super) struct Session {
    socket: OwnedFd,
    pub(super) state: State,
    pub(super) peer: Option<Peer>,
    pub(super) memory: Option<Arc<SharedMemory>>,
    /// Requests that wait for their turn.
    pub(super) queue: VecDeque<(u64, Request)>,
    /// Requests that have been read and whose reply is not sent yet; at most [`REQUESTS_MAX`].
    unanswered: u32,
    /// Of those, executing on the device.
    pub(super) executing: u32,
    replies: VecDeque<[u8; FRAME_SIZE]>,
    /// The handshake's answer, until it is sent.
    welcome: Option<[u8; HELLO_SIZE]>,
    readable_armed: bool,
    writable_armed: bool,
}

impl Session {
    pub(super) fn new(socket: OwnedFd) -> Session {
        Session {
            socket,
            state: State::Greeting,
            peer: None,
            memory: None,
            queue: VecDeque::new(),
            unanswered: 0,
            executing: 0,
            replies: VecDeque::new(),
            welcome: None,
            readable_armed: false,
            writable_armed: false,
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub(super) fn greet(&mut self, welcome: [u8; HELLO_SIZE]) {
        self.welcome = Some(welcome);
    }

    pub(super) fn reply(&mut self, id: u64, status: Status) {
        if self.state != State::Closing {
            self.replies.push_back(Reply { id, status }.encode());
        }
    }

    /// Sends what it can; an error means that the client is gone.
    fn send(&mut self) -> Result<(), Errno> {
        if let Some(welcome) = &self.welcome {
            if !socket::send(self.socket.as_fd(), welcome, None)? {
                return Ok(());
            }
            self.welcome = None;
        }
        while !self.replies.is_empty() {
            let count = self.replies.len().min(FRAMES_MAX);
            let packet: Vec<u8> = self.replies.iter().take(count).flatten().copied().collect();
            if !socket::send(self.socket.as_fd(), &packet, None)? {
                return Ok(());
            }
            self.replies.drain(..count);
            let sent = u32::try_from(count).expect("at most FRAMES_MAX");
            // Replies to frames that were no requests were never counted.
            self.unanswered = self.unanswered.saturating_sub(sent);
        }
        Ok(())
    }

    fn has_unsent(&self) -> bool {
        self.welcome.is_some() || !self.replies.is_empty()
    }
}

impl Serving<'_> {
    pub(super) fn arm_readable(&mut self, position: usize) {
        let session = self.sessions[position].as_mut().expect("a session in use");
        if !session.readable_armed {
            session.readable_armed = true;
            self.arm(Event::Readable(position));
        }
    }

    pub(super) fn handle_readable(&mut self, position: usize) {
        let session = self.sessions[position].as_mut().expect("armed sessions stay in place");
        session.readable_armed = false;
        for _ in 0..PACKETS_AT_ONCE {
            let session = self.sessions[position].as_ref().expect("freed only when settled");
            if session.state == State::Closing {
                return;
            }
            let mut buffer = [0; PACKET_MAX];
            match socket::receive(session.socket.as_fd(), &mut buffer) {
                Ok(None) => break,
                Ok(Some(packet)) if packet.len == 0 => return self.close(position),
                Ok(Some(packet)) => {
                    let bytes = &buffer[..packet.len];
                    match session.state {
                        _ if packet.truncated => self.end_malformed(position, 0, "oversize packet"),
                        State::Greeting => self.handle_hello(position, bytes, packet.descriptor),
                        State::Open => self.handle_frames(position, bytes),
                        State::Registering { .. } => {
                            self.end_malformed(position, 0, "a request before the welcome");
                        }
                        State::Closing => unreachable!("returned above"),
                    }
                }
                Err(errno) => {
                    debug!(%errno, "a session's socket fails");
                    return self.close(position);
                }
            }
        }
        if self.sessions[position].as_ref().is_some_and(|s| s.state != State::Closing) {
            self.arm_readable(position);
        }
    }

    pub(super) fn handle_writable(&mut self, position: usize) {
        let session = self.sessions[position].as_mut().expect("armed sessions stay in place");
        session.writable_armed = false;
    }

    fn handle_frames(&mut self, position: usize, packet: &[u8]) {
        for frame in packet.chunks(FRAME_SIZE) {
            match Request::decode(frame) {
                Ok((id, request)) => self.handle_request(position, id, request),
                Err(error) => {
                    self.end_malformed(position, error.id(), &error.to_string());
                }
            }
            if !self.sessions[position].as_ref().is_some_and(Session::is_open) {
                return;
            }
        }
    }

    fn handle_request(&mut self, position: usize, id: u64, request: Request) {
        let session = self.sessions[position].as_mut().expect("an open session");
        let peer = session.peer.expect("an open session has introduced itself");
        let memory = session.memory.clone().expect("an open session has memory");
        if session.unanswered >= REQUESTS_MAX {
            session.reply(id, Status::TooMany);
            return self.end_malformed(position, id, "more requests than agreed on");
        }
        if request.area().is_some_and(|(first, count)| !memory.holds(first, count)) {
            return self.end_malformed(position, id, "a payload outside the shared memory");
        }
        session.unanswered += 1;
        match (request, peer.member) {
            (
                Request::Write { .. }
                | Request::Discard { .. }
                | Request::Flush
                | Request::Fence { .. },
                None,
            ) => {
                session.reply(id, Status::NotAllowed);
            }
            // Whether the life is fenced is asked when they are executed, and only then.
            (
                Request::Read(_) | Request::Write { .. } | Request::Discard { .. } | Request::Flush,
                _,
            ) => {
                session.queue.push_back((id, request));
            }
            (_, Some(member)) if !self.table.admits(member) => {
                self.refuse_fenced(position, id, member, request);
            }
            (Request::Fence { victim }, Some(by)) => self.begin_fence(position, id, by, victim),
            (Request::List { area_block }, _) => {
                let list = encode_list(&self.node_reports());
                memory.copy_in(area_block, 1, 0, &list.0);
                self.reply(position, id, Status::Done);
            }
            (Request::Counters { area_block }, _) => {
                let counters = self.present_counters().encode();
                memory.copy_in(area_block, 1, 0, &counters.0);
                self.reply(position, id, Status::Done);
            }
            (Request::Ping, _) => session.reply(id, Status::Done),
            (Request::Inject(fault), _) if self.config.accept_faults => {
                info!(?fault, "fault injected");
                self.faults.inject(fault);
                self.release_stalled();
                self.reply(position, id, Status::Done);
            }
            (Request::Inject(_), _) => session.reply(id, Status::NotAllowed),
        }
    }

    pub(super) fn refuse_fenced(
        &mut self,
        position: usize,
        id: u64,
        member: Member,
        request: Request,
    ) {
        let refused = &mut self.refused[member.node.index()];
        if matches!(request, Request::Write { .. } | Request::Discard { .. }) {
            refused.writes += 1;
            self.counters.writes_refused += 1;
        } else {
            refused.others += 1;
            self.counters.others_refused += 1;
        }
        debug!(%member, id, kind = ?request.kind(), "refused: fenced");
        self.reply(position, id, Status::Fenced);
    }

    pub(super) fn reply(&mut self, position: usize, id: u64, status: Status) {
        if let Some(session) = &mut self.sessions[position] {
            session.reply(id, status);
        }
    }

    /// The client does not speak the protocol: it is told so, and that is the end.
    fn end_malformed(&mut self, position: usize, id: u64, what: &str) {
        let session = self.sessions[position].as_mut().expect("a session in use");
        warn!(peer = ?session.peer, what, "session ended");
        self.counters.sessions_malformed += 1;
        session.reply(id, Status::Malformed);
        // What the socket does not take now the client will not learn.
        let _ = session.send();
        self.close(position);
    }

    /// Nothing more is read, and nothing that is queued is begun.
    pub(super) fn close(&mut self, position: usize) {
        let Some(session) = &mut self.sessions[position] else { return };
        if session.state == State::Closing {
            return;
        }
        let _ = session.send();
        debug!(peer = ?session.peer, dropped = session.queue.len(), "session closes");
        session.state = State::Closing;
        session.queue.clear();
        session.replies.clear();
        session.welcome = None;
        // Both polls complete, so that the position becomes free.
        let _ = rustix::net::shutdown(&session.socket, Shutdown::Both);
        self.fences.retain(|fence| fence.session != position);
    }

    pub(super) fn send_replies(&mut self) {
        for position in 0..self.sessions.len() {
            let Some(session) = &mut self.sessions[position] else { continue };
            if session.state == State::Closing || !session.has_unsent() || session.writable_armed {
                continue;
            }
            match session.send() {
                Ok(()) if session.has_unsent() => {
                    session.writable_armed = true;
                    self.arm(Event::Writable(position));
                }
                Ok(()) => {}
                Err(errno) => {
                    debug!(%errno, "a client is gone");
                    self.close(position);
                }
            }
        }
    }

    /// A position is used again only when no completion can name it any more.
    pub(super) fn free_sessions(&mut self) {
        for place in &mut self.sessions {
            let ended = place.as_ref().is_some_and(|session| {
                session.state == State::Closing
                    && session.executing == 0
                    && !session.readable_armed
                    && !session.writable_armed
            });
            if ended {
                *place = None;
            }
        }
    }

    fn node_reports(&self) -> Vec<NodeReport> {
        let nodes = (1..=mx_base::NodeId::MAX).filter_map(mx_base::NodeId::new);
        let report = |node: mx_base::NodeId| {
            let entry = self.table.entry(node);
            let of_node = |session: &&Session| {
                session.is_open()
                    && session.peer.and_then(|peer| peer.member).is_some_and(|m| m.node == node)
            };
            let sessions = self.sessions.iter().flatten().filter(of_node).count();
            let executing = self.executing_writes.iter().filter(|(member, _)| member.node == node);
            let refused = self.refused[node.index()];
            NodeReport {
                node,
                incarnation_min: mx_base::Incarnation(entry.min),
                incarnation_newest: mx_base::Incarnation(entry.newest),
                sessions: u16::try_from(sessions).expect("at most SESSIONS_MAX"),
                writes_executing: executing.map(|(_, count)| count).sum(),
                writes_refused: refused.writes,
                others_refused: refused.others,
            }
        };
        nodes.map(report).collect()
    }
}
