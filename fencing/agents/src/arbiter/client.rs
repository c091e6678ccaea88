//! The arbiter's client: how a node of a cluster reads and writes a shared device.
//!
//! Keeps true:
//! * a request is sent only while the node's [`Gate`] is open, and is asked for again before it is
//!   sent a second time; a request that ends after the gate was closed has failed;
//! * once the arbiter says that this life is fenced the gate is closed for good and every request
//!   fails;
//! * the bytes of a write lie in the shared memory until it is answered, so that it can be sent
//!   again to an arbiter that was restarted. That is safe because the arbiter opens the new
//!   session only after everything of the former one has ended.
//!
//! Requests are sent by the thread that makes them, without waiting; one thread of the client's own
//! receives the answers and connects again. While the arbiter is away requests wait; whoever wants
//! them to fail cuts the client off.

mod area;
mod link;
mod requests;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mx_base::{ClusterId, Instant};
use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::io::Errno;

use fencing::gate::Refused;
use fencing::{Closed, DeviceId, Gate, Key, Victim};

use super::protocol::{
    AREA_BLOCKS_MAX, Counters, DISCARD_BLOCKS_MAX, Fault, Hello, HelloRefusal, NodeReport,
    PAYLOAD_BLOCKS_MAX, Request, Welcome,
};
use super::shared_memory::SharedMemory;
use crate::completion::{Completion, completion};
use crate::engine::wake;
use crate::payload::{self, BlockBuffer, Payload, assert_block};
use requests::{CountersAnswer, DoneAnswer, ListAnswer, ReadAnswer, Requests};

/// Blocks of shared memory that suit a node: 16 MiB.
pub const AREA_BLOCKS: u32 = 4096;

/// Who opens a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Identity {
    /// May read, list and count; never write or fence.
    Observer,
    /// A node in one of its lives. `nonce` is drawn at random by every start of the node's daemon:
    /// an incarnation belongs to the start that registered it first.
    Member { key: Key, nonce: u64 },
}

/// How a client is set up.
#[derive(Clone)]
pub struct Config {
    pub socket: PathBuf,
    pub cluster: ClusterId,
    pub device: DeviceId,
    pub identity: Identity,
    /// Tells several clients of one life apart.
    pub channel: u16,
    /// Blocks of the memory for payloads, 256 to 16,384; they are under way at most.
    pub area_blocks: u32,
    /// The gate of this node's life in front of the device.
    pub gate: Arc<Gate>,
    /// This node's clock, for the gate.
    pub clock: Arc<dyn Fn() -> Instant + Send + Sync>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("socket", &self.socket)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Why there is no session.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the arbiter refuses the session")]
    Refused(#[from] HelloRefusal),
    #[error("{path}: no arbiter answers within {waited:?} ({last})", path = .path.display())]
    NoAnswer { path: PathBuf, waited: Duration, last: String },
    #[error("no memory, descriptor or thread: {0}")]
    System(Errno),
}

/// Why a request was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestFailed {
    /// This node may not use the device. Whether a write was done is unknown.
    #[error(transparent)]
    Gate(#[from] Refused),
    #[error("the device failed: {0}")]
    Io(Errno),
    #[error("beyond the end of the device")]
    OutOfRange,
    #[error("an observer may not do this, or the arbiter accepts no faults")]
    NotAllowed,
    #[error("nothing to read or write, not whole blocks, or more than {PAYLOAD_BLOCKS_MAX}")]
    NotBlocks,
    #[error("too many requests at once")]
    Overloaded,
    /// The session cannot be opened again: the arbiter serves something else, or is of another
    /// version.
    #[error("the arbiter refuses the session: {0}")]
    Session(HelloRefusal),
    #[error("the arbiter's answer is not understood")]
    Protocol,
    #[error("the client has ended")]
    Ended,
}

/// A client. Dropping it fails what is under way; what the arbiter has begun goes on.
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    config: Config,
    /// What every session begins with, and the shared memory that goes along.
    hello: Hello,
    descriptor: OwnedFd,
    wake: OwnedFd,
    state: Mutex<Requests>,
}

impl Client {
    /// Opens a session; waits at most `patience` for an arbiter that is not there yet, but not for
    /// one that refuses.
    ///
    /// Stops this thread meanwhile.
    ///
    /// # Errors
    /// When no session can be opened.
    pub fn connect(config: Config, patience: Duration) -> Result<Client, ConnectError> {
        let blocks = config.area_blocks.clamp(PAYLOAD_BLOCKS_MAX, AREA_BLOCKS_MAX);
        let (descriptor, memory) = SharedMemory::create(blocks).map_err(ConnectError::System)?;
        let hello = hello(&config, blocks).map_err(ConnectError::System)?;
        let link = link::Link::open_within(&config.socket, &hello, &descriptor, patience)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(ConnectError::System)?;
        let state = Mutex::new(Requests::new(memory, blocks, link));
        let shared = Arc::new(Shared { config, hello, descriptor, wake, state });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("mx-arbiter-link".into())
            .spawn(move || link::run(&for_thread))
            .map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(Errno::AGAIN.raw_os_error());
                ConnectError::System(Errno::from_raw_os_error(errno))
            })?;
        Ok(Client { shared, thread: Some(thread) })
    }

    /// What the arbiter said when the present session was opened, or the last one.
    pub fn welcome(&self) -> Welcome {
        self.shared.state.lock().welcome()
    }

    /// Is a session open now?
    pub fn is_connected(&self) -> bool {
        self.shared.state.lock().is_connected()
    }

    /// Blocks of the device.
    pub fn blocks(&self) -> u64 {
        self.welcome().device_blocks
    }

    /// Reads 1 to 256 blocks.
    pub fn read<B: BlockBuffer>(
        &self,
        block: u64,
        count: usize,
    ) -> Completion<Result<Box<[B]>, RequestFailed>> {
        const { assert_block::<B>() };
        let Some(count) = request_size(count as u64) else {
            return Completion::ready(Err(RequestFailed::NotBlocks));
        };
        let (completer, done) = completion();
        let request = requests::read(block, count);
        self.submit(request, None, Box::new(ReadAnswer { completer }));
        done
    }

    /// Writes 1 to 256 consecutive blocks; `durable`: on stable storage when it completes.
    ///
    /// The caller never has two writes to one block under way.
    pub fn write<P: Payload>(
        &self,
        block: u64,
        payload: P,
        durable: bool,
    ) -> Completion<Result<(), RequestFailed>> {
        let count = payload::blocks(&payload.pieces()).and_then(request_size);
        let Some(count) = count else {
            return Completion::ready(Err(RequestFailed::NotBlocks));
        };
        let (completer, done) = completion();
        let request = requests::write(block, count, durable);
        self.submit(request, Some(Box::new(payload)), Box::new(DoneAnswer { completer }));
        done
    }

    /// Makes 1 to [`DISCARD_BLOCKS_MAX`] consecutive blocks zeros, for good after the next flush, and
    /// gives their room back to the device.
    ///
    /// The caller has no write to any of them under way.
    ///
    /// # Errors
    /// [`Errno::OPNOTSUPP`] when the device cannot.
    pub fn discard(&self, block: u64, count: u32) -> Completion<Result<(), RequestFailed>> {
        if !(1..=DISCARD_BLOCKS_MAX).contains(&count) {
            return Completion::ready(Err(RequestFailed::NotBlocks));
        }
        self.simple(Request::Discard { block, count })
    }

    /// Makes every write and discard that has completed durable.
    pub fn flush(&self) -> Completion<Result<(), RequestFailed>> {
        self.simple(Request::Flush)
    }

    /// Cuts off every life of a node up to one. When it completes without error, no write of them
    /// reaches the device any more, and none will ever be let in.
    pub fn fence(&self, victim: Victim) -> Completion<Result<(), RequestFailed>> {
        self.simple(Request::Fence { victim })
    }

    /// What the arbiter knows of every node.
    pub fn list(&self) -> Completion<Result<Vec<NodeReport>, RequestFailed>> {
        let (completer, done) = completion();
        self.submit(Request::List { area_block: 0 }, None, Box::new(ListAnswer { completer }));
        done
    }

    pub fn counters(&self) -> Completion<Result<Counters, RequestFailed>> {
        let (completer, done) = completion();
        let answer = Box::new(CountersAnswer { completer });
        self.submit(Request::Counters { area_block: 0 }, None, answer);
        done
    }

    /// Completes when the arbiter answers.
    pub fn ping(&self) -> Completion<Result<(), RequestFailed>> {
        self.simple(Request::Ping)
    }

    /// For tests, with an arbiter that was started to accept faults.
    pub fn inject(&self, fault: Fault) -> Completion<Result<(), RequestFailed>> {
        self.simple(Request::Inject(fault))
    }

    /// Closes the gate for good and fails everything that is under way. The arbiter may still
    /// carry out what it has been sent.
    pub fn cut_off(&self, why: Closed) {
        self.shared.cut_off(why);
    }

    fn simple(&self, request: Request) -> Completion<Result<(), RequestFailed>> {
        let (completer, done) = completion();
        self.submit(request, None, Box::new(DoneAnswer { completer }));
        done
    }

    fn submit(
        &self,
        request: Request,
        payload: Option<Box<dyn Payload>>,
        answer: Box<dyn requests::Answer>,
    ) {
        let shared = &self.shared;
        let admission = match shared.config.gate.admit((shared.config.clock)()) {
            Ok(admission) => admission,
            Err(refused) => return answer.fail(refused.into()),
        };
        let rejected = {
            let mut state = shared.state.lock();
            match state.submit(request, payload, answer, admission) {
                Ok(must_wake) => {
                    drop(state);
                    if must_wake {
                        wake(&shared.wake);
                    }
                    return;
                }
                Err(rejected) => rejected,
            }
        };
        let (answer, failed) = rejected;
        answer.fail(failed);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end(RequestFailed::Ended);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the arbiter's client has panicked");
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("config", &self.shared.config)
            .field("connected", &self.is_connected())
            .finish()
    }
}

impl Shared {
    fn cut_off(&self, why: Closed) {
        self.config.gate.close(why);
        // Whoever closed it first has the say.
        let why = self.config.gate.closed().unwrap_or(why);
        self.end(RequestFailed::Gate(Refused::Closed(why)));
    }

    /// Nothing is sent any more, and everything under way fails.
    fn end(&self, failed: RequestFailed) {
        let (failed, answers) = self.state.lock().end(failed);
        wake(&self.wake);
        for answer in answers {
            answer.fail(failed);
        }
    }
}

fn hello(config: &Config, area_blocks: u32) -> Result<Hello, Errno> {
    let (key, nonce) = match config.identity {
        Identity::Member { key, nonce } => (Some(key), nonce),
        Identity::Observer => {
            let mut nonce = [0_u8; 8];
            rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
            (None, zerocopy::transmute!(nonce))
        }
    };
    let Config { cluster, device, channel, .. } = *config;
    Ok(Hello { cluster, device, key, nonce, channel, area_blocks })
}

fn request_size(blocks: u64) -> Option<u32> {
    u32::try_from(blocks).ok().filter(|count| (1..=PAYLOAD_BLOCKS_MAX).contains(count))
}
