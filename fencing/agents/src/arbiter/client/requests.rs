//! The client's requests: waiting for memory, waiting for the link, sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mx_base::Instant;
use rustix::io::Errno;

use fencing::gate::Refused;
use fencing::{Admission, Block};
use zerocopy::{FromZeros, IntoBytes};

use super::RequestFailed;
use super::area::Area;
use super::link::Link;
use crate::arbiter::protocol::{
    Counters, FRAME_SIZE, FRAMES_MAX, NodeReport, Reply, Request, Status, Transfer, Welcome,
    decode_list,
};
use crate::arbiter::shared_memory::SharedMemory;
use crate::completion::Completer;
use crate::payload::{BlockBuffer, Payload};

/// Requests that wait for memory or an answer; callers keep far fewer.
const REQUESTS_MAX: usize = 65_536;

pub(super) fn read(block: u64, count: u32) -> Request {
    Request::Read(Transfer { block, count, area_block: 0 })
}

pub(super) fn write(block: u64, count: u32, durable: bool) -> Request {
    Request::Write { transfer: Transfer { block, count, area_block: 0 }, durable }
}

/// Whoever waits for a request.
pub(super) trait Answer: Send {
    /// It was done; what it brought lies in `count` blocks of the shared memory.
    fn done(self: Box<Self>, memory: &SharedMemory, first: u32, count: u32);
    fn fail(self: Box<Self>, failed: RequestFailed);
}

pub(super) struct ReadAnswer<B> {
    pub(super) completer: Completer<Result<Box<[B]>, RequestFailed>>,
}

impl<B: BlockBuffer> Answer for ReadAnswer<B> {
    fn done(self: Box<Self>, memory: &SharedMemory, first: u32, count: u32) {
        let Ok(mut blocks) = <[B]>::new_box_zeroed_with_elems(count as usize) else {
            return self.completer.complete(Err(RequestFailed::Io(Errno::NOMEM)));
        };
        memory.copy_out(first, count, blocks.as_mut_bytes());
        self.completer.complete(Ok(blocks));
    }

    fn fail(self: Box<Self>, failed: RequestFailed) {
        self.completer.complete(Err(failed));
    }
}

pub(super) struct DoneAnswer {
    pub(super) completer: Completer<Result<(), RequestFailed>>,
}

impl Answer for DoneAnswer {
    fn done(self: Box<Self>, _memory: &SharedMemory, _first: u32, _count: u32) {
        self.completer.complete(Ok(()));
    }

    fn fail(self: Box<Self>, failed: RequestFailed) {
        self.completer.complete(Err(failed));
    }
}

pub(super) struct ListAnswer {
    pub(super) completer: Completer<Result<Vec<NodeReport>, RequestFailed>>,
}

impl Answer for ListAnswer {
    fn done(self: Box<Self>, memory: &SharedMemory, first: u32, count: u32) {
        let mut block = Block::zeroed();
        memory.copy_out(first, count, block.as_mut_bytes());
        self.completer.complete(decode_list(&block).ok_or(RequestFailed::Protocol));
    }

    fn fail(self: Box<Self>, failed: RequestFailed) {
        self.completer.complete(Err(failed));
    }
}

pub(super) struct CountersAnswer {
    pub(super) completer: Completer<Result<Counters, RequestFailed>>,
}

impl Answer for CountersAnswer {
    fn done(self: Box<Self>, memory: &SharedMemory, first: u32, count: u32) {
        let mut block = Block::zeroed();
        memory.copy_out(first, count, block.as_mut_bytes());
        self.completer.complete(Counters::decode(&block).ok_or(RequestFailed::Protocol));
    }

    fn fail(self: Box<Self>, failed: RequestFailed) {
        self.completer.complete(Err(failed));
    }
}

/// A request from its submission to its answer.
struct Pending {
    request: Request,
    answer: Box<dyn Answer>,
    admission: Admission,
    /// Its blocks of the shared memory, once it has them; its bytes are there from then on.
    area: Option<(u32, u32)>,
    /// Its bytes before that.
    payload: Option<Box<dyn Payload>>,
    /// The arbiter may have it.
    sent: bool,
}

impl Pending {
    fn blocks(&self) -> u32 {
        self.request.area().map_or(0, |(_, count)| count)
    }
}

/// An answer that came in, to be passed on without the latch held.
pub(super) struct Ended {
    answer: Box<dyn Answer>,
    admission: Admission,
    area: Option<(u32, u32)>,
    status: Status,
}

/// Everything that the client's threads share.
pub(super) struct Requests {
    memory: Arc<SharedMemory>,
    area: Area,
    link: Option<Link>,
    welcome: Welcome,
    id: u64,
    pending: BTreeMap<u64, Pending>,
    /// Waiting for memory, in order.
    starved: VecDeque<u64>,
    /// With memory, waiting to be sent, in order.
    unsent: VecDeque<u64>,
    /// Sent on the present link and not answered.
    sent: u32,
    ended: Option<RequestFailed>,
}

impl Requests {
    pub(super) fn new(memory: SharedMemory, blocks: u32, link: Link) -> Requests {
        let welcome = link.welcome();
        Requests {
            memory: Arc::new(memory),
            area: Area::new(blocks),
            link: Some(link),
            welcome,
            id: 0,
            pending: BTreeMap::new(),
            starved: VecDeque::new(),
            unsent: VecDeque::new(),
            sent: 0,
            ended: None,
        }
    }

    pub(super) fn welcome(&self) -> Welcome {
        self.welcome
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(super) fn ended(&self) -> Option<RequestFailed> {
        self.ended
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() && self.sent < self.welcome.requests_max
    }

    pub(super) fn memory(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.memory)
    }

    /// True when the link's thread has to see to the rest.
    pub(super) fn submit(
        &mut self,
        request: Request,
        payload: Option<Box<dyn Payload>>,
        answer: Box<dyn Answer>,
        admission: Admission,
    ) -> Result<bool, (Box<dyn Answer>, RequestFailed)> {
        if let Some(ended) = self.ended {
            return Err((answer, ended));
        }
        if self.pending.len() >= REQUESTS_MAX {
            return Err((answer, RequestFailed::Overloaded));
        }
        self.id += 1;
        let id = self.id;
        let pending = Pending { request, answer, admission, area: None, payload, sent: false };
        let blocks = pending.blocks();
        self.pending.insert(id, pending);
        // Who came first is served first, so that a long request is not starved by short ones.
        if blocks > 0 && (!self.starved.is_empty() || !self.furnish(id)) {
            self.starved.push_back(id);
            return Ok(false);
        }
        self.unsent.push_back(id);
        Ok(self.send())
    }

    /// Gives a request its memory and copies its bytes there; false when there is none.
    fn furnish(&mut self, id: u64) -> bool {
        let pending = self.pending.get_mut(&id).expect("waiting for memory");
        let count = pending.blocks();
        let Some(first) = self.area.take(count) else { return false };
        pending.area = Some((first, count));
        match &mut pending.request {
            Request::Read(transfer) | Request::Write { transfer, .. } => {
                transfer.area_block = first;
            }
            Request::List { area_block } | Request::Counters { area_block } => *area_block = first,
            Request::Discard { .. }
            | Request::Flush
            | Request::Fence { .. }
            | Request::Ping
            | Request::Inject(_) => {}
        }
        if let Some(payload) = pending.payload.take() {
            let mut at = 0;
            for piece in payload.pieces() {
                self.memory.copy_in(first, count, at, piece);
                at += piece.len();
            }
        }
        true
    }

    /// Sends what waits, as far as the link takes it. True when something is left that the link's
    /// thread has to see to.
    pub(super) fn send(&mut self) -> bool {
        loop {
            let Some(link) = &self.link else { return false };
            let room = self.welcome.requests_max.saturating_sub(self.sent) as usize;
            let count = self.unsent.len().min(room).min(FRAMES_MAX);
            if count == 0 {
                return false;
            }
            let mut packet = Vec::with_capacity(count * FRAME_SIZE);
            for id in self.unsent.iter().take(count) {
                let pending = self.pending.get(id).expect("unsent requests are pending");
                packet.extend_from_slice(&pending.request.encode(*id));
            }
            match link.send(&packet) {
                Ok(true) => {
                    for id in self.unsent.drain(..count) {
                        let pending =
                            self.pending.get_mut(&id).expect("unsent requests are pending");
                        pending.sent = true;
                    }
                    self.sent += u32::try_from(count).expect("at most FRAMES_MAX");
                }
                // It takes nothing now, or is at its end: the thread notices both.
                Ok(false) | Err(_) => return true,
            }
        }
    }

    /// A reply came in on the present link. `None` for a request that is not known: the arbiter
    /// contradicts the protocol.
    pub(super) fn handle_reply(&mut self, reply: Reply) -> Option<Ended> {
        let Pending { answer, admission, area, .. } = self.pending.remove(&reply.id)?;
        self.sent = self.sent.saturating_sub(1);
        Some(Ended { answer, admission, area, status: reply.status })
    }

    /// The memory of requests that have ended goes to those that wait for some.
    pub(super) fn recycle(&mut self, areas: &[(u32, u32)]) {
        for (first, count) in areas {
            self.area.give_back(*first, *count);
        }
        while let Some(id) = self.starved.front().copied() {
            if !self.furnish(id) {
                break;
            }
            self.starved.pop_front();
            self.unsent.push_back(id);
        }
    }

    /// The link is gone: what was sent and not answered is to be sent again.
    pub(super) fn unlink(&mut self) {
        self.link = None;
        self.sent = 0;
        let starved = std::mem::take(&mut self.starved);
        self.unsent = self.pending.keys().copied().filter(|id| !starved.contains(id)).collect();
        self.starved = starved;
    }

    /// A new link. What may not be sent again, by the gate's word, is given back.
    pub(super) fn relink(&mut self, link: Link, now: Instant) -> Vec<(Box<dyn Answer>, Refused)> {
        let refused: Vec<(u64, Refused)> = self
            .pending
            .iter()
            .filter_map(|(id, pending)| Some((*id, pending.admission.check(now).err()?)))
            .collect();
        let mut answers = Vec::new();
        for (id, why) in refused {
            let pending = self.pending.remove(&id).expect("just seen");
            self.unsent.retain(|unsent| *unsent != id);
            self.starved.retain(|starved| *starved != id);
            if let Some((first, count)) = pending.area {
                self.area.give_back(first, count);
            }
            answers.push((pending.answer, why));
        }
        self.welcome = link.welcome();
        self.link = Some(link);
        answers
    }

    /// Nothing is taken or sent any more. The first reason stays.
    pub(super) fn end(&mut self, failed: RequestFailed) -> (RequestFailed, Vec<Box<dyn Answer>>) {
        let failed = *self.ended.get_or_insert(failed);
        self.link = None;
        self.unsent.clear();
        self.starved.clear();
        // The memory is not used again: the arbiter may still be writing to it.
        let give_up = |pending: Pending| {
            if pending.sent {
                pending.admission.abandon();
            }
            pending.answer
        };
        let pending = std::mem::take(&mut self.pending);
        (failed, pending.into_values().map(give_up).collect())
    }
}

impl Ended {
    pub(super) fn is_fenced(&self) -> bool {
        self.status == Status::Fenced
    }

    /// Passes the answer on, and gives the memory back that it was read from.
    pub(super) fn pass_on(self, memory: &SharedMemory, now: Instant) -> Option<(u32, u32)> {
        let Ended { answer, admission, area, status } = self;
        let (first, count) = area.unwrap_or((0, 0));
        let failed = match (admission.complete(now), status) {
            (Err(refused), _) => RequestFailed::Gate(refused),
            (Ok(()), Status::Done) => {
                answer.done(memory, first, count);
                return area;
            }
            (Ok(()), Status::Io { errno }) => {
                let errno = i32::try_from(errno).expect("checked when the reply was read");
                RequestFailed::Io(Errno::from_raw_os_error(errno))
            }
            (Ok(()), Status::OutOfRange) => RequestFailed::OutOfRange,
            (Ok(()), Status::NotAllowed) => RequestFailed::NotAllowed,
            // The caller closes the gate before it passes this one on.
            (Ok(()), Status::Fenced | Status::Malformed | Status::TooMany) => {
                RequestFailed::Protocol
            }
        };
        answer.fail(failed);
        area
    }
}
