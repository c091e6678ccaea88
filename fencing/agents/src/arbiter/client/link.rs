//! The connection to the arbiter: handshake, the thread that receives, connecting again.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use tracing::{debug, info, warn};

use fencing::Closed;

use super::requests::Ended;
use super::{ConnectError, RequestFailed, Shared};
use crate::arbiter::protocol::{
    FRAME_SIZE, HELLO_SIZE, Hello, HelloRefusal, PACKET_MAX, Reply, Status, Welcome,
};
use crate::arbiter::socket;
use crate::engine::drain;

/// How long the arbiter may take for a handshake: it waits for what is executing of the session
/// before, and stores the registration.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);
/// Pauses between attempts to connect, doubled from the first to the last.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_millis(200);

/// An open session.
#[derive(Debug)]
pub(super) struct Link {
    socket: Arc<OwnedFd>,
    welcome: Welcome,
}

enum OpenFailed {
    Refused(HelloRefusal),
    /// No arbiter there, or it went away; it may come back.
    Away(String),
}

impl Link {
    pub(super) fn welcome(&self) -> Welcome {
        self.welcome
    }

    pub(super) fn send(&self, packet: &[u8]) -> Result<bool, Errno> {
        socket::send(self.socket.as_fd(), packet, None)
    }

    /// Tries until it works, the arbiter refuses for good, or `patience` has passed.
    pub(super) fn open_within(
        path: &Path,
        hello: &Hello,
        descriptor: &OwnedFd,
        patience: Duration,
    ) -> Result<Link, ConnectError> {
        let deadline = Instant::now() + patience;
        let mut pause = RETRY_MIN;
        loop {
            let last = match open(path, hello, descriptor.as_fd(), None) {
                Ok(link) => return Ok(link),
                Err(OpenFailed::Refused(refusal)) if !refusal.passes() => {
                    return Err(ConnectError::Refused(refusal));
                }
                Err(OpenFailed::Refused(refusal)) => refusal.to_string(),
                Err(OpenFailed::Away(why)) => why,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let path = path.to_owned();
                return Err(ConnectError::NoAnswer { path, waited: patience, last });
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// One attempt. `interrupt` becomes readable when nobody wants the link any more.
fn open(
    path: &Path,
    hello: &Hello,
    descriptor: BorrowedFd<'_>,
    interrupt: Option<BorrowedFd<'_>>,
) -> Result<Link, OpenFailed> {
    let away = |errno: Errno| OpenFailed::Away(errno.to_string());
    let socket = socket::connect(path).map_err(away)?;
    if !socket::send(socket.as_fd(), &hello.encode(), Some(descriptor)).map_err(away)? {
        return Err(OpenFailed::Away("the socket takes no handshake".into()));
    }
    let deadline = Instant::now() + HANDSHAKE_PATIENCE;
    loop {
        let mut answer = [0; HELLO_SIZE];
        match socket::receive(socket.as_fd(), &mut answer).map_err(away)? {
            Some(packet) if packet.len == 0 => {
                return Err(OpenFailed::Away("the arbiter closed the connection".into()));
            }
            Some(packet) => {
                return match Welcome::decode(&answer[..packet.len]) {
                    Ok(Ok(welcome)) => Ok(Link { socket: Arc::new(socket), welcome }),
                    Ok(Err(refusal)) => Err(OpenFailed::Refused(refusal)),
                    Err(error) => {
                        warn!(%error, "the arbiter's handshake is not understood");
                        Err(OpenFailed::Refused(HelloRefusal::Version))
                    }
                };
            }
            None => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(OpenFailed::Away("no answer to the handshake".into()));
        }
        let mut waits = vec![PollFd::new(&socket, PollFlags::IN)];
        if let Some(interrupt) = &interrupt {
            waits.push(PollFd::new(interrupt, PollFlags::IN));
        }
        poll(&mut waits, Some(left));
        if waits.get(1).is_some_and(|interrupt| !interrupt.revents().is_empty()) {
            return Err(OpenFailed::Away("not wanted any more".into()));
        }
    }
}

/// The client's thread: receives answers, sends what did not go at once, connects again.
pub(super) fn run(shared: &Shared) {
    loop {
        let socket = {
            let state = shared.state.lock();
            if state.ended().is_some() {
                return;
            }
            state.link().map(|link| Arc::clone(&link.socket))
        };
        match socket {
            Some(socket) => {
                let why = serve(shared, &socket);
                shared.state.lock().unlink();
                if shared.state.lock().ended().is_none() {
                    info!(why, "the arbiter is away");
                }
            }
            None => reconnect(shared),
        }
    }
}

/// Until the connection ends; says why it did.
fn serve(shared: &Shared, socket: &OwnedFd) -> String {
    loop {
        let (unsent, ended) = {
            let mut state = shared.state.lock();
            (state.send() || state.has_unsent(), state.ended().is_some())
        };
        if ended {
            return "ended".into();
        }
        let events = if unsent { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut waits = [PollFd::new(socket, events), PollFd::new(&shared.wake, PollFlags::IN)];
        poll(&mut waits, None);
        if !waits[1].revents().is_empty() {
            drain(&shared.wake);
        }
        if !waits[0].revents().is_empty()
            && let Err(why) = receive_all(shared, socket)
        {
            return why;
        }
    }
}

/// Takes everything that has come in.
fn receive_all(shared: &Shared, socket: &OwnedFd) -> Result<(), String> {
    let mut packet = [0; PACKET_MAX];
    loop {
        let received = socket::receive(socket.as_fd(), &mut packet);
        let len = match received.map_err(|errno| errno.to_string())? {
            None => return Ok(()),
            Some(received) if received.len == 0 => return Err("it closed the connection".into()),
            Some(received) => received.len,
        };
        let mut ended: Vec<Ended> = Vec::new();
        let memory = {
            let mut state = shared.state.lock();
            for frame in packet[..len].chunks(FRAME_SIZE) {
                let reply = Reply::decode(frame).ok_or("a reply is not understood")?;
                match state.handle_reply(reply) {
                    Some(answered) => ended.push(answered),
                    // It answers a frame that it could not read with no id.
                    None if reply.status == Status::Malformed => {}
                    None => return Err("a reply to no request".into()),
                }
            }
            state.memory()
        };
        if ended.iter().any(Ended::is_fenced) {
            warn!(identity = ?shared.config.identity, "the arbiter says that this life is fenced");
            shared.config.gate.close(Closed::Fenced);
        }
        let now = (shared.config.clock)();
        let areas: Vec<(u32, u32)> =
            ended.into_iter().filter_map(|answered| answered.pass_on(&memory, now)).collect();
        shared.state.lock().recycle(&areas);
        if let Some(why) = shared.config.gate.closed() {
            shared.cut_off(why);
            return Err("the gate is closed".into());
        }
    }
}

/// Until there is a link again, or nobody wants one.
fn reconnect(shared: &Shared) {
    let mut pause = RETRY_MIN;
    loop {
        drain(&shared.wake);
        if let Some(why) = shared.config.gate.closed() {
            shared.cut_off(why);
        }
        if shared.state.lock().ended().is_some() {
            return;
        }
        let (descriptor, interrupt) = (shared.descriptor.as_fd(), Some(shared.wake.as_fd()));
        match open(&shared.config.socket, &shared.hello, descriptor, interrupt) {
            Ok(link) => {
                info!(socket = %shared.config.socket.display(), "the arbiter is back");
                let now = (shared.config.clock)();
                let refused = shared.state.lock().relink(link, now);
                for (answer, why) in refused {
                    answer.fail(RequestFailed::Gate(why));
                }
                return;
            }
            Err(OpenFailed::Refused(refusal)) if !refusal.passes() => {
                warn!(%refusal, "the arbiter refuses the session");
                return match refusal {
                    HelloRefusal::Fenced => shared.cut_off(Closed::Fenced),
                    HelloRefusal::Superseded | HelloRefusal::InUse => {
                        shared.cut_off(Closed::Replaced);
                    }
                    HelloRefusal::Version
                    | HelloRefusal::ForeignCluster
                    | HelloRefusal::ForeignDevice
                    | HelloRefusal::BadArea
                    | HelloRefusal::Malformed
                    | HelloRefusal::TooManySessions
                    | HelloRefusal::StateUnavailable
                    | HelloRefusal::ShuttingDown => shared.end(RequestFailed::Session(refusal)),
                };
            }
            Err(OpenFailed::Refused(refusal)) => debug!(%refusal, "not yet"),
            Err(OpenFailed::Away(why)) => debug!(why, "the arbiter is still away"),
        }
        poll(&mut [PollFd::new(&shared.wake, PollFlags::IN)], Some(pause));
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Waits; a signal or an error looks like a time-out, and the caller looks again.
fn poll(waits: &mut [PollFd<'_>], patience: Option<Duration>) {
    let timespec = patience.map(|patience| Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    });
    if rustix::event::poll(waits, timespec.as_ref()).is_err() {
        for wait in waits {
            wait.clear_revents();
        }
    }
}
