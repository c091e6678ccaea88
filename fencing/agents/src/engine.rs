//! Asynchronous I/O on a device of this machine: one thread with an io_uring, futures for the rest
//! of the program.
//!
//! Keeps true:
//! * the memory of a request stays untouched in the hands of the engine until the kernel has ended
//!   it, also when nobody waits for it any more;
//! * the device stays open, and so locked, until the last request has ended;
//! * requests are not ordered among each other, save that a flush covers what completed before it
//!   was submitted.
//!
//! Knows no gate: whoever owns the engine asks before he submits and after it completes.

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use fencing::layout::BLOCK_SIZE;

use crate::completion::{Completer, Completion, completion};
use crate::device::Device;
use crate::payload::{self, BlockBuffer, Payload, assert_block};
use crate::ring::{Command, Completed, Direction, DiskIo, PIECES_MAX, Piece, Ring, poll_entry};

/// Requests that may be queued or under way; callers keep far fewer, so more is a fault of theirs.
pub const REQUESTS_MAX: usize = 65_536;
/// Requests that the kernel has at once; the rest waits in order.
const UNDER_WAY_MAX: usize = 256;

/// Why a request was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the device failed: {0}")]
    Io(Errno),
    #[error("blocks {block} to {end} are not all on the device", end = .block.saturating_add(*.count))]
    OutOfRange { block: u64, count: u64 },
    #[error("nothing to read or write, or not whole blocks")]
    NotBlocks,
    #[error("more than {REQUESTS_MAX} requests at once")]
    Overloaded,
    #[error("the engine has ended")]
    Ended,
}

/// See the module. Dropping it ends it after everything that was submitted has completed.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    device: Device,
    wake: OwnedFd,
    queue: Mutex<Queue>,
}

struct Queue {
    jobs: VecDeque<Box<dyn Job>>,
    /// Queued and under way.
    count: usize,
    ended: bool,
}

/// A request with the memory it uses and whoever waits for it.
trait Job: Send {
    /// What is to be done. Called once; addresses stay valid until [`Job::end`].
    fn begin(&mut self) -> Command;
    fn end(self: Box<Self>, result: Result<(), EngineError>);
}

struct ReadJob<B> {
    block: u64,
    buffer: Box<[B]>,
    completer: Completer<Result<Box<[B]>, EngineError>>,
}

struct WriteJob<P> {
    block: u64,
    payload: P,
    durable: bool,
    /// In place of a payload that direct I/O cannot use where it is.
    copy: Vec<u8>,
    completer: Completer<Result<(), EngineError>>,
}

struct DiscardJob {
    block: u64,
    count: u64,
    completer: Completer<Result<(), EngineError>>,
}

struct FlushJob {
    completer: Completer<Result<(), EngineError>>,
}

impl<B: BlockBuffer> Job for ReadJob<B> {
    fn begin(&mut self) -> Command {
        let bytes = self.buffer.as_mut_bytes();
        let piece = Piece { start: bytes.as_mut_ptr(), len: bytes.len() };
        Command::Transfer(DiskIo::new(Direction::Read, byte_offset(self.block), vec![piece]))
    }

    fn end(self: Box<Self>, result: Result<(), EngineError>) {
        let ReadJob { buffer, completer, .. } = *self;
        completer.complete(result.map(|()| buffer));
    }
}

impl<P: Payload> Job for WriteJob<P> {
    fn begin(&mut self) -> Command {
        let aligned = |piece: &&[u8]| (piece.as_ptr() as usize).is_multiple_of(BLOCK_SIZE);
        let mut pieces = self.payload.pieces();
        if pieces.len() > PIECES_MAX || !pieces.iter().all(aligned) {
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            // Room for moving the start to where a block may begin.
            self.copy = vec![0; bytes + BLOCK_SIZE];
            let start = self.copy.as_ptr().align_offset(BLOCK_SIZE);
            let mut at = start;
            for piece in pieces {
                self.copy[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            pieces = vec![&self.copy[start..at]];
        }
        let piece = |piece: &[u8]| Piece { start: piece.as_ptr().cast_mut(), len: piece.len() };
        let pieces = pieces.into_iter().map(piece).collect();
        let direction = Direction::Write { durable: self.durable };
        Command::Transfer(DiskIo::new(direction, byte_offset(self.block), pieces))
    }

    fn end(self: Box<Self>, result: Result<(), EngineError>) {
        self.completer.complete(result);
    }
}

impl Job for DiscardJob {
    fn begin(&mut self) -> Command {
        Command::Discard { offset: byte_offset(self.block), len: byte_offset(self.count) }
    }

    fn end(self: Box<Self>, result: Result<(), EngineError>) {
        self.completer.complete(result);
    }
}

impl Job for FlushJob {
    fn begin(&mut self) -> Command {
        Command::Flush
    }

    fn end(self: Box<Self>, result: Result<(), EngineError>) {
        self.completer.complete(result);
    }
}

impl Engine {
    /// # Errors
    /// When the kernel gives no io_uring or no thread.
    pub fn start(device: Device) -> std::io::Result<Engine> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let queue = Queue { jobs: VecDeque::new(), count: 0, ended: false };
        let shared = Arc::new(Shared { device, wake, queue: Mutex::new(queue) });
        let (completer, started) = completion();
        let for_thread = Arc::clone(&shared);
        // The ring is made by the thread that uses it; the kernel ties it to that.
        let thread = std::thread::Builder::new().name("mx-disk".into()).spawn(move || {
            match Ring::new(512) {
                Ok(ring) => {
                    completer.complete(Ok(()));
                    Worker::new(&for_thread, ring).run();
                }
                Err(error) => completer.complete(Err(error)),
            }
        })?;
        started.wait()?;
        Ok(Engine { shared, thread: Some(thread) })
    }

    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// Reads `count` blocks into memory of its own.
    pub fn read<B: BlockBuffer>(
        &self,
        block: u64,
        count: usize,
    ) -> Completion<Result<Box<[B]>, EngineError>> {
        const { assert_block::<B>() };
        if let Err(error) = self.check_range(block, count as u64) {
            return Completion::ready(Err(error));
        }
        let Ok(buffer) = <[B]>::new_box_zeroed_with_elems(count) else {
            return Completion::ready(Err(EngineError::Io(Errno::NOMEM)));
        };
        let (completer, done) = completion();
        self.submit(Box::new(ReadJob { block, buffer, completer }));
        done
    }

    /// Writes consecutive blocks; `durable`: on stable storage when it completes.
    pub fn write<P: Payload>(
        &self,
        block: u64,
        payload: P,
        durable: bool,
    ) -> Completion<Result<(), EngineError>> {
        let count = payload::blocks(&payload.pieces());
        let range = count.ok_or(EngineError::NotBlocks);
        if let Err(error) = range.and_then(|count| self.check_range(block, count)) {
            return Completion::ready(Err(error));
        }
        let (completer, done) = completion();
        self.submit(Box::new(WriteJob { block, payload, durable, copy: Vec::new(), completer }));
        done
    }

    /// Makes consecutive blocks zeros, for good after the next flush, and gives their room back to
    /// the device.
    ///
    /// # Errors
    /// [`Errno::OPNOTSUPP`] when the device cannot.
    pub fn discard(&self, block: u64, count: u64) -> Completion<Result<(), EngineError>> {
        if let Err(error) = self.check_range(block, count) {
            return Completion::ready(Err(error));
        }
        let (completer, done) = completion();
        self.submit(Box::new(DiscardJob { block, count, completer }));
        done
    }

    /// Makes every write and discard that has completed durable.
    pub fn flush(&self) -> Completion<Result<(), EngineError>> {
        let (completer, done) = completion();
        self.submit(Box::new(FlushJob { completer }));
        done
    }

    fn check_range(&self, block: u64, count: u64) -> Result<(), EngineError> {
        if count == 0 {
            return Err(EngineError::NotBlocks);
        }
        if !self.shared.device.holds(block, count) {
            return Err(EngineError::OutOfRange { block, count });
        }
        Ok(())
    }

    fn submit(&self, job: Box<dyn Job>) {
        let mut queue = self.shared.queue.lock();
        let error = match queue.count {
            _ if queue.ended => EngineError::Ended,
            REQUESTS_MAX.. => EngineError::Overloaded,
            _ => {
                queue.count += 1;
                queue.jobs.push_back(job);
                // The worker empties the queue whenever it looks, so only the first one wakes it.
                let first = queue.jobs.len() == 1;
                drop(queue);
                if first {
                    wake(&self.shared.wake);
                }
                return;
            }
        };
        drop(queue);
        job.end(Err(error));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue.lock().ended = true;
        wake(&self.shared.wake);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            // With panic = abort this is never reached.
            tracing::error!("the disk thread has panicked");
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("device", &self.shared.device).finish()
    }
}

fn byte_offset(block: u64) -> u64 {
    block * BLOCK_SIZE as u64
}

/// The write fails only when the counter is full, and then the reader is awake anyway.
pub(crate) fn wake(eventfd: &OwnedFd) {
    let _ = rustix::io::write(eventfd, 1_u64.as_bytes());
}

pub(crate) fn drain(eventfd: &OwnedFd) {
    let _ = rustix::io::read(eventfd, &mut [0_u8; 8]);
}

/// The wake-up's number; requests have their position.
const WAKE: u64 = u64::MAX;

struct UnderWay {
    job: Box<dyn Job>,
    command: Command,
}

struct Worker<'a> {
    shared: &'a Shared,
    ring: Ring,
    /// By number; a free place is `None`.
    under_way: Vec<Option<UnderWay>>,
    count: usize,
    waiting: VecDeque<Box<dyn Job>>,
    polling: bool,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, ring: Ring) -> Worker<'a> {
        let under_way = (0..UNDER_WAY_MAX).map(|_| None).collect();
        Worker { shared, ring, under_way, count: 0, waiting: VecDeque::new(), polling: false }
    }

    fn run(&mut self) {
        let mut completed: Vec<Completed> = Vec::new();
        loop {
            let ended = {
                let mut queue = self.shared.queue.lock();
                self.waiting.append(&mut queue.jobs);
                queue.ended
            };
            while self.count < UNDER_WAY_MAX
                && let Some(job) = self.waiting.pop_front()
            {
                self.begin(job);
            }
            if ended && self.count == 0 && self.waiting.is_empty() {
                return;
            }
            if !self.polling {
                let entry = poll_entry(self.shared.wake.as_fd(), POLLIN, WAKE);
                // SAFETY: the eventfd lives in `shared`, which outlives the worker's ring.
                unsafe { self.ring.push(entry) };
                self.polling = true;
            }
            if let Err(error) = self.ring.enter(None) {
                // The kernel still uses memory of requests, and nothing can be known of what it
                // does with it.
                tracing::error!(%error, "io_uring fails with requests under way");
                std::process::abort();
            }
            self.ring.completed(&mut completed);
            for (number, result) in completed.drain(..) {
                if number == WAKE {
                    self.polling = false;
                    drain(&self.shared.wake);
                } else {
                    self.handle(number, result);
                }
            }
        }
    }

    fn begin(&mut self, mut job: Box<dyn Job>) {
        let command = job.begin();
        let free = self.under_way.iter().position(Option::is_none);
        let position = free.expect("fewer are under way than there are places");
        self.under_way[position] = Some(UnderWay { job, command });
        self.count += 1;
        self.send(position);
    }

    fn send(&mut self, position: usize) {
        let under_way = self.under_way[position].as_mut().expect("the place is taken");
        let device = self.shared.device.as_fd();
        // SAFETY: job and command stay in their place, and the job's memory with them, until the
        // completion has come; the device lives in `shared`.
        let entry = unsafe { under_way.command.entry(device, position as u64) };
        // SAFETY: as above.
        unsafe { self.ring.push(entry) };
    }

    fn handle(&mut self, number: u64, result: i32) {
        let position = usize::try_from(number).expect("numbers are positions");
        let under_way = self.under_way[position].as_mut().expect("only what was sent completes");
        let Some(result) = under_way.command.progress(result) else { return self.send(position) };
        let under_way = self.under_way[position].take().expect("just seen");
        self.count -= 1;
        self.shared.queue.lock().count -= 1;
        under_way.job.end(result.map_err(EngineError::Io));
    }
}

const POLLIN: u32 = 1;
