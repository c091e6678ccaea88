//! Requests on the device.
//!
//! The one place where a write is begun. The order in [`Serving::execute_write`] is the rule: copy
//! the payload, ask the table, count the write as executing, and only then let anything happen.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use mx_base::Member;
use rustix::io::Errno;
use tracing::warn;
use zerocopy::IntoBytes;

use fencing::Block;
use fencing::layout::BLOCK_SIZE;

use super::faults::Fate;
use super::{Event, Serving};
use crate::arbiter::protocol::{Counters, Kind, PAYLOAD_BLOCKS_MAX, Request, Status, Transfer};
use crate::arbiter::shared_memory::SharedMemory;
use crate::ring::{Command, Direction, DiskIo, Piece};

/// Requests on the device at once.
const EXECUTING_MAX: usize = 256;
/// Blocks of payload on the device at once: 64 MiB.
const EXECUTING_BLOCKS_MAX: u32 = 64 * PAYLOAD_BLOCKS_MAX;

/// A request that has been begun.
#[derive(Debug)]
struct Operation {
    session: usize,
    id: u64,
    kind: Kind,
    command: Command,
    blocks: u32,
    /// The private copy of a write.
    buffer: Option<Box<[Block]>>,
    /// The memory that a read goes to: it stays mapped until the kernel is done.
    _memory: Option<Arc<SharedMemory>>,
    /// Whose executing write it is.
    writer: Option<Member>,
}

/// All requests that have been begun.
#[derive(Debug, Default)]
pub(super) struct Operations {
    places: Vec<Option<Operation>>,
    count: usize,
    blocks: u32,
    /// Held up by a fault: due then.
    delayed: BTreeSet<(Instant, usize)>,
    /// Held up by a fault until it is cleared.
    stalled: BTreeSet<usize>,
}

impl Operations {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(due, _)| *due)
    }

    fn has_room(&self) -> bool {
        self.count < EXECUTING_MAX && self.blocks < EXECUTING_BLOCKS_MAX
    }

    fn insert(&mut self, operation: Operation) -> usize {
        self.count += 1;
        self.blocks += operation.blocks;
        let free = self.places.iter().position(Option::is_none).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[free] = Some(operation);
        free
    }

    fn remove(&mut self, position: usize) -> Operation {
        let operation = self.places[position].take().expect("only what was begun ends");
        self.count -= 1;
        self.blocks -= operation.blocks;
        operation
    }

    /// What a fault holds up never begins: the server ends.
    pub(super) fn drop_parked(&mut self, executing_writes: &mut BTreeMap<Member, u32>) {
        let delayed = std::mem::take(&mut self.delayed).into_iter().map(|(_, position)| position);
        let stalled = std::mem::take(&mut self.stalled);
        for position in delayed.chain(stalled).collect::<Vec<_>>() {
            let operation = self.remove(position);
            discount(executing_writes, operation.writer);
        }
    }
}

fn discount(executing_writes: &mut BTreeMap<Member, u32>, writer: Option<Member>) {
    let Some(writer) = writer else { return };
    let count = executing_writes.get_mut(&writer).expect("an executing write was counted");
    *count -= 1;
    if *count == 0 {
        executing_writes.remove(&writer);
    }
}

impl Serving<'_> {
    /// Begins what waits, one request of each session in turn, as far as there is room.
    pub(super) fn dispatch(&mut self) {
        let mut idle = 0;
        while self.operations.has_room() && idle < self.sessions.len() {
            self.turn = (self.turn + 1) % self.sessions.len();
            let position = self.turn;
            let next = self.sessions[position].as_mut().filter(|session| session.is_open());
            match next.and_then(|session| session.queue.pop_front()) {
                Some((id, request)) => {
                    idle = 0;
                    self.execute(position, id, request);
                }
                None => idle += 1,
            }
        }
    }

    fn execute(&mut self, position: usize, id: u64, request: Request) {
        match request {
            Request::Read(transfer) => self.execute_read(position, id, request, transfer),
            Request::Write { transfer, durable } => {
                self.execute_write(position, id, request, transfer, durable);
            }
            Request::Discard { block, count } => {
                self.execute_discard(position, id, request, block, count);
            }
            Request::Flush => {
                if self.admitted(position, id, request).is_none() {
                    return;
                }
                self.counters.flushes += 1;
                self.begin(
                    position,
                    Operation {
                        session: position,
                        id,
                        kind: Kind::Flush,
                        command: Command::Flush,
                        blocks: 0,
                        buffer: None,
                        _memory: None,
                        writer: None,
                    },
                );
            }
            Request::Fence { .. }
            | Request::List { .. }
            | Request::Counters { .. }
            | Request::Ping
            | Request::Inject(_) => unreachable!("answered without the device"),
        }
    }

    fn execute_read(&mut self, position: usize, id: u64, request: Request, transfer: Transfer) {
        let Some(memory) = self.admitted(position, id, request) else { return };
        if !self.in_range(position, id, transfer.block, transfer.count) {
            return;
        }
        let piece = memory.piece(transfer.area_block, transfer.count);
        let io = DiskIo::new(Direction::Read, byte_offset(transfer.block), vec![piece]);
        self.counters.reads += 1;
        self.counters.read_blocks += u64::from(transfer.count);
        self.begin(
            position,
            Operation {
                session: position,
                id,
                kind: Kind::Read,
                command: Command::Transfer(io),
                blocks: transfer.count,
                buffer: None,
                _memory: Some(memory),
                writer: None,
            },
        );
    }

    fn execute_write(
        &mut self,
        position: usize,
        id: u64,
        request: Request,
        transfer: Transfer,
        durable: bool,
    ) {
        if !self.in_range(position, id, transfer.block, transfer.count) {
            return;
        }
        let session = self.sessions[position].as_ref().expect("an open session");
        let memory = session.memory.clone().expect("an open session has memory");
        let writer = session.peer.and_then(|peer| peer.member).expect("only members write");
        let mut buffer = self.buffers.take(transfer.count as usize);
        let bytes = &mut buffer.as_mut_bytes()[..transfer.count as usize * BLOCK_SIZE];
        memory.copy_out(transfer.area_block, transfer.count, bytes);
        let piece = Piece { start: bytes.as_mut_ptr(), len: bytes.len() };
        if self.admitted(position, id, request).is_none() {
            self.buffers.give_back(buffer);
            return;
        }
        let direction = Direction::Write { durable };
        let io = DiskIo::new(direction, byte_offset(transfer.block), vec![piece]);
        self.counters.writes += 1;
        self.counters.write_blocks += u64::from(transfer.count);
        *self.executing_writes.entry(writer).or_default() += 1;
        self.begin(
            position,
            Operation {
                session: position,
                id,
                kind: Kind::Write,
                command: Command::Transfer(io),
                blocks: transfer.count,
                buffer: Some(buffer),
                _memory: None,
                writer: Some(writer),
            },
        );
    }

    /// A discard destroys as a write does: it counts as one.
    fn execute_discard(
        &mut self,
        position: usize,
        id: u64,
        request: Request,
        block: u64,
        count: u32,
    ) {
        if !self.in_range(position, id, block, count)
            || self.admitted(position, id, request).is_none()
        {
            return;
        }
        let session = self.sessions[position].as_ref().expect("an open session");
        let writer = session.peer.and_then(|peer| peer.member).expect("only members write");
        self.counters.discards += 1;
        self.counters.discard_blocks += u64::from(count);
        *self.executing_writes.entry(writer).or_default() += 1;
        self.begin(
            position,
            Operation {
                session: position,
                id,
                kind: Kind::Discard,
                command: Command::Discard {
                    offset: byte_offset(block),
                    len: byte_offset(count.into()),
                },
                blocks: 0,
                buffer: None,
                _memory: None,
                writer: Some(writer),
            },
        );
    }

    /// Asks the table. The session's memory if its life is admitted; else the request is refused.
    fn admitted(
        &mut self,
        position: usize,
        id: u64,
        request: Request,
    ) -> Option<Arc<SharedMemory>> {
        let session = self.sessions[position].as_ref().expect("an open session");
        let memory = session.memory.clone().expect("an open session has memory");
        match session.peer.and_then(|peer| peer.member) {
            Some(member) if !self.table.admits(member) => {
                self.refuse_fenced(position, id, member, request);
                None
            }
            Some(_) | None => Some(memory),
        }
    }

    fn in_range(&mut self, position: usize, id: u64, block: u64, count: u32) -> bool {
        let inside = self.device.holds(block, count.into());
        if !inside {
            self.reply(position, id, Status::OutOfRange);
        }
        inside
    }

    fn begin(&mut self, position: usize, operation: Operation) {
        let fate = operation.writer.map_or(Fate::Normal, |w| self.faults.of_write(w.node));
        let session = self.sessions[position].as_mut().expect("an open session");
        session.executing += 1;
        let place = self.operations.insert(operation);
        match fate {
            Fate::Normal => self.submit(place),
            Fate::Delayed(delay) => {
                self.operations.delayed.insert((Instant::now() + delay, place));
            }
            Fate::Stalled => {
                self.operations.stalled.insert(place);
            }
            Fate::Failed(errno) => self.finish(place, Err(errno)),
        }
    }

    /// Begins what a fault has delayed until now.
    pub(super) fn begin_due(&mut self) {
        while let Some((due, place)) = self.operations.delayed.first().copied() {
            if due > Instant::now() {
                return;
            }
            self.operations.delayed.pop_first();
            self.submit(place);
        }
    }

    /// Begins what no fault holds up any more.
    pub(super) fn release_stalled(&mut self) {
        for place in std::mem::take(&mut self.operations.stalled) {
            let operation = self.operations.places[place].as_ref().expect("stalled, not ended");
            let fate = operation.writer.map_or(Fate::Normal, |w| self.faults.of_write(w.node));
            if fate == Fate::Stalled {
                self.operations.stalled.insert(place);
            } else {
                self.submit(place);
            }
        }
    }

    fn submit(&mut self, place: usize) {
        let number = Event::Operation(place).pack();
        let operation = self.operations.places[place].as_mut().expect("begun");
        // SAFETY: the operation keeps its buffer or memory, and stays in its place, until the
        // completion has come; the device lives as long as the ring. A read goes to memory that the
        // client shares, at its own risk.
        let entry = unsafe { operation.command.entry(self.device.as_fd(), number) };
        // SAFETY: as above.
        unsafe { self.ring.push(entry) };
    }

    pub(super) fn handle_operation(&mut self, place: usize, result: i32) {
        let operation = self.operations.places[place].as_mut().expect("only what was begun ends");
        match operation.command.progress(result) {
            Some(result) => self.finish(place, result),
            None => self.submit(place),
        }
    }

    fn finish(&mut self, place: usize, result: Result<(), Errno>) {
        let operation = self.operations.remove(place);
        if let Some(buffer) = operation.buffer {
            self.buffers.give_back(buffer);
        }
        discount(&mut self.executing_writes, operation.writer);
        let status = match result {
            Ok(()) => Status::Done,
            Err(errno) => {
                warn!(%errno, kind = ?operation.kind, writer = ?operation.writer, "I/O error");
                self.counters.io_errors += 1;
                let errno = u32::try_from(errno.raw_os_error()).expect("errnos are positive");
                Status::Io { errno }
            }
        };
        let session = self.sessions[operation.session].as_mut();
        let session = session.expect("a session stays in place while something of it executes");
        session.executing -= 1;
        session.reply(operation.id, status);
    }

    pub(super) fn present_counters(&self) -> Counters {
        let queued: usize = self.sessions.iter().flatten().map(|s| s.queue.len()).sum();
        Counters {
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            executing: self.operations.count as u64,
            queued: queued as u64,
            ..self.counters
        }
    }
}

fn byte_offset(block: u64) -> u64 {
    block * BLOCK_SIZE as u64
}
