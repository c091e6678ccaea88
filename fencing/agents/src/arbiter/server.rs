//! The arbiter's server: one thread for sockets and device.
//!
//! Keeps true:
//! * a write is begun only if its life is admitted by the [`FenceTable`](fence_table) *after* its
//!   payload was copied out of the shared memory, in one step with counting it as executing;
//! * a fence is answered only when no write of the victim is executing, none is queued, and the
//!   table that says so is durable;
//! * a session is opened only when its registration is durable and no request of the session that
//!   it replaces is executing: a late one could otherwise undo what the new session has written;
//! * the server begins only with the lock on the device, which a predecessor's requests hold until
//!   they have ended.

mod buffers;
mod execute;
mod faults;
mod fence;
mod fence_table;
mod listen;
mod session;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mx_base::{ClusterId, Member};
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use tracing::{info, warn};

use fencing::DeviceId;

use super::protocol::Counters;
use super::socket;
use crate::device::{Device, OpenError};
use crate::engine::wake;
use crate::ring::{Completed, Ring, poll_entry};

use buffers::Buffers;
use execute::Operations;
use faults::Faults;
use fence::PendingFence;
use fence_table::FenceTable;
use session::Session;
use store::{Keeper, Owner, StateDir};

pub use store::StoreError;

/// How often a socket on which somebody still answers is tried again.
const SOCKET_RETRY: Duration = Duration::from_millis(5);

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sessions at once: several for each node, and observers.
pub const SESSIONS_MAX: usize = 256;

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// File or block device that is served.
    pub device: PathBuf,
    /// Where clients connect.
    pub socket: PathBuf,
    /// Directory with the fenced set. It belongs to the device: started with another one, the
    /// server would let fenced nodes in again.
    pub state: PathBuf,
    pub cluster: ClusterId,
    pub device_id: DeviceId,
    /// How long to wait for a predecessor's requests, and for its socket, to end.
    pub patience: Duration,
    /// For tests: accept faults from clients.
    pub accept_faults: bool,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("state directory")]
    State(#[from] StoreError),
    #[error("device")]
    Device(#[from] OpenError),
    #[error("{path}: another arbiter answers on this socket", path = .path.display())]
    SocketInUse { path: PathBuf },
    #[error("{path}: cannot listen", path = .path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("the kernel gives no io_uring, thread or descriptor")]
    System(#[from] io::Error),
}

/// Ends a running server from another thread or a signal handler.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

impl Stop {
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Stop> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop(Arc::new(eventfd)))
    }

    /// The server ends once the requests that are executing have ended. May be called in a signal
    /// handler.
    pub fn raise(&self) {
        wake(&self.0);
    }
}

/// A server that listens, and answers once it is run.
#[derive(Debug)]
pub struct Server {
    config: Config,
    device: Device,
    listener: OwnedFd,
    table: FenceTable,
    state: StateDir,
}

/// Starts a server and runs it until `stop` is raised.
///
/// # Errors
/// When it cannot start, or the kernel fails it.
pub fn run(config: Config, stop: &Stop) -> Result<(), StartError> {
    Ok(Server::start(config)?.run(stop)?)
}

impl Server {
    /// Takes device, state and socket. When it returns, clients can connect.
    ///
    /// # Errors
    /// When one of them cannot be had, above all because somebody else has it.
    pub fn start(config: Config) -> Result<Server, StartError> {
        let owner = Owner { cluster: config.cluster, device: config.device_id };
        let state = StateDir::open(&config.state, owner, config.patience)?;
        let device = Device::open(&config.device, config.patience)?;
        let table = state.load()?;
        let listener = listen_on(&config.socket, config.patience)?;
        info!(
            device = %config.device.display(),
            blocks = device.blocks(),
            direct = device.is_direct(),
            socket = %config.socket.display(),
            "arbiter serves"
        );
        Ok(Server { config, device, listener, table, state })
    }

    /// Serves until `stop` is raised and the requests that were executing have ended.
    ///
    /// # Errors
    /// When the kernel gives no io_uring or fails it.
    pub fn run(self, stop: &Stop) -> io::Result<()> {
        let socket = self.config.socket.clone();
        let mut server = Serving::new(self, stop)?;
        let result = server.serve();
        if result.is_ok() {
            // The path may be gone already; nobody is told.
            let _ = std::fs::remove_file(socket);
        }
        info!("arbiter ends");
        result
    }
}

fn listen_on(path: &Path, patience: Duration) -> Result<OwnedFd, StartError> {
    let failed = |errno: Errno| StartError::Socket { path: path.to_owned(), source: errno.into() };
    let deadline = Instant::now() + patience;
    loop {
        match socket::connect(path) {
            // The kernel keeps the socket of a server that was killed open for a moment.
            Ok(_) | Err(Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(SOCKET_RETRY);
            }
            Ok(_) | Err(Errno::AGAIN) => {
                return Err(StartError::SocketInUse { path: path.to_owned() });
            }
            // Left over by a server that was killed; this device and this state are ours now.
            Err(Errno::CONNREFUSED) if is_socket(path) => {
                std::fs::remove_file(path)
                    .map_err(|source| StartError::Socket { path: path.to_owned(), source })?;
                break;
            }
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(failed(errno)),
        }
    }
    let listener = socket::listen(path).map_err(failed)?;
    rustix::fs::chmod(path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).map_err(failed)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// What a completion belongs to, packed into the number that comes back with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Listener,
    /// A session's socket has something to read, or is at its end.
    Readable(usize),
    /// A session's socket takes replies again.
    Writable(usize),
    Operation(usize),
    Stored,
    Stop,
}

impl Event {
    fn pack(self) -> u64 {
        let (tag, position) = match self {
            Event::Listener => (1, 0),
            Event::Readable(session) => (2, session),
            Event::Writable(session) => (3, session),
            Event::Operation(operation) => (4, operation),
            Event::Stored => (5, 0),
            Event::Stop => (6, 0),
        };
        tag << 32 | u64::try_from(position).expect("positions are small")
    }

    fn unpack(number: u64) -> Event {
        let position = usize::try_from(number & 0xFFFF_FFFF).expect("32 bits");
        match number >> 32 {
            1 => Event::Listener,
            2 => Event::Readable(position),
            3 => Event::Writable(position),
            4 => Event::Operation(position),
            5 => Event::Stored,
            6 => Event::Stop,
            _ => unreachable!("only packed events are submitted"),
        }
    }
}

const POLLIN: u32 = 1;
const POLLOUT: u32 = 4;

/// A running server.
struct Serving<'a> {
    config: Config,
    device: Device,
    listener: OwnedFd,
    stop: &'a Stop,
    keeper: Keeper,
    table: FenceTable,
    /// Changes of the table up to this version are durable.
    stored: u64,
    ring: Ring,
    /// By position; a position is free when nothing of its session is outstanding any more.
    sessions: Vec<Option<Session>>,
    /// The session whose turn it is to have a request executed.
    turn: usize,
    operations: Operations,
    buffers: Buffers,
    /// Writes that have begun and not ended.
    executing_writes: BTreeMap<Member, u32>,
    fences: Vec<PendingFence>,
    faults: Faults,
    counters: Counters,
    refused: [Refused; mx_base::NodeId::MAX as usize],
    server_start: u64,
    started: Instant,
    /// When connections are accepted again after that has failed.
    accept_again: Option<Instant>,
    stopping: bool,
}

/// Requests of a node that were refused because its life is fenced.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    writes: u64,
    others: u64,
}

impl<'a> Serving<'a> {
    fn new(server: Server, stop: &'a Stop) -> io::Result<Serving<'a>> {
        let mut server_start = [0_u8; 8];
        rustix::rand::getrandom(&mut server_start, rustix::rand::GetRandomFlags::empty())?;
        let Server { config, device, listener, table, state } = server;
        Ok(Serving {
            keeper: Keeper::start(state)?,
            ring: Ring::new(1024)?,
            stored: table.version(),
            config,
            device,
            listener,
            stop,
            table,
            sessions: Vec::new(),
            turn: 0,
            operations: Operations::default(),
            buffers: Buffers::default(),
            executing_writes: BTreeMap::new(),
            fences: Vec::new(),
            faults: Faults::default(),
            counters: Counters::default(),
            refused: [Refused::default(); mx_base::NodeId::MAX as usize],
            server_start: zerocopy::transmute!(server_start),
            started: Instant::now(),
            accept_again: None,
            stopping: false,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        self.arm(Event::Listener);
        self.arm(Event::Stored);
        self.arm(Event::Stop);
        let mut completed: Vec<Completed> = Vec::new();
        loop {
            self.begin_due();
            self.dispatch();
            self.settle();
            if self.stopping && self.operations.is_empty() {
                return Ok(());
            }
            if self.accept_again.is_some_and(|again| again <= Instant::now()) {
                self.accept_again = None;
                self.arm(Event::Listener);
            }
            let due = [self.operations.next_due(), self.accept_again].into_iter().flatten().min();
            let patience = due.map(|due| due.saturating_duration_since(Instant::now()));
            if let Err(error) = self.ring.enter(patience) {
                if self.operations.is_empty() {
                    return Err(error);
                }
                // The kernel still uses memory of ours, and nothing can be known of what it does.
                tracing::error!(%error, "io_uring fails with requests under way");
                std::process::abort();
            }
            self.ring.completed(&mut completed);
            for (number, result) in completed.drain(..) {
                self.handle(Event::unpack(number), result);
            }
        }
    }

    fn handle(&mut self, event: Event, result: i32) {
        match event {
            Event::Listener => {
                self.accept();
                if !self.stopping && self.accept_again.is_none() {
                    self.arm(Event::Listener);
                }
            }
            Event::Readable(session) => self.handle_readable(session),
            Event::Writable(session) => self.handle_writable(session),
            Event::Operation(operation) => self.handle_operation(operation, result),
            Event::Stored => {
                for stored in self.keeper.take_stored() {
                    self.handle_stored(&stored);
                }
                self.arm(Event::Stored);
            }
            Event::Stop => {
                self.stopping = true;
                for session in 0..self.sessions.len() {
                    self.close(session);
                }
                self.operations.drop_parked(&mut self.executing_writes);
            }
        }
    }

    /// What may have become possible by anything that happened: sessions that waited are opened,
    /// fences answered, replies sent, positions freed.
    fn settle(&mut self) {
        self.open_registered();
        self.answer_fences();
        self.send_replies();
        self.free_sessions();
    }

    /// Asks to be told about an event once.
    fn arm(&mut self, event: Event) {
        let (fd, events) = match event {
            Event::Listener => (self.listener.as_fd(), POLLIN),
            Event::Stored => (self.keeper.ready().as_fd(), POLLIN),
            Event::Stop => (self.stop.0.as_fd(), POLLIN),
            Event::Readable(session) | Event::Writable(session) => {
                let session = self.sessions[session].as_ref().expect("an open session");
                let events = if matches!(event, Event::Readable(_)) { POLLIN } else { POLLOUT };
                (session.socket().as_fd(), events)
            }
            Event::Operation(_) => unreachable!("operations are submitted, not armed"),
        };
        let entry = poll_entry(fd, events, event.pack());
        // SAFETY: listener, keeper and stop live as long as the ring; a session's socket is closed
        // only when nothing of it is armed (`free_sessions`).
        unsafe { self.ring.push(entry) };
    }

    fn handle_stored(&mut self, stored: &store::Stored) {
        match &stored.result {
            Ok(()) => self.stored = self.stored.max(stored.version),
            Err(error) => {
                warn!(%error, state = %self.config.state.display(), "the fenced set cannot be stored");
                let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
                self.refuse_unstored(stored.version);
                self.fail_fences(stored.version, errno);
            }
        }
    }

    /// Sees to it that the table as it is becomes durable.
    fn store_table(&mut self) {
        if self.stored < self.table.version() {
            self.keeper.store(&self.table);
        }
    }
}

impl std::fmt::Debug for Serving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("config", &self.config).finish_non_exhaustive()
    }
}
