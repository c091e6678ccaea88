//! Requests and replies.

use fencing::Victim;
use mx_base::{Incarnation, NodeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DISCARD_BLOCKS_MAX, FRAME_SIZE, PAYLOAD_BLOCKS_MAX};

const REQUEST_MAGIC: [u8; 4] = *b"MXRQ";
const REPLY_MAGIC: [u8; 4] = *b"MXRP";

/// Blocks of the device and where their bytes are in the shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// First block on the device.
    pub block: u64,
    /// 1 to [`PAYLOAD_BLOCKS_MAX`].
    pub count: u32,
    /// First block in the shared memory.
    pub area_block: u32,
}

/// A fault for tests; a server refuses it unless it was started to accept faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Writes of the node take effect this much later; they count as executing meanwhile.
    DelayWrites { node: NodeId, ms: u32 },
    /// Writes of the node do not end until the faults are cleared.
    StallWrites { node: NodeId },
    /// Writes of the node fail with this errno.
    FailWrites { node: NodeId, errno: u32 },
    /// No faults any more.
    Clear,
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Read(Transfer),
    /// `durable`: on stable storage when it is answered.
    Write {
        transfer: Transfer,
        durable: bool,
    },
    /// 1 to [`DISCARD_BLOCKS_MAX`] blocks become zeros, for good after the next flush.
    Discard {
        block: u64,
        count: u32,
    },
    /// Everything that was answered before it is sent is on stable storage when it is answered.
    Flush,
    /// Cut off every life of a node up to one; answered when no write of them is under way and
    /// none will ever be let in.
    Fence {
        victim: Victim,
    },
    /// A report of every node, into one block of the shared memory.
    List {
        area_block: u32,
    },
    /// The server's counters, into one block of the shared memory.
    Counters {
        area_block: u32,
    },
    Ping,
    Inject(Fault),
}

/// What kind of request a frame holds. The number is the one on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Read = 1,
    Write = 2,
    Flush = 3,
    Fence = 4,
    List = 5,
    Counters = 6,
    Ping = 7,
    Inject = 8,
    Discard = 9,
}

const FLAG_DURABLE: u8 = 1;

/// Numbers that the kernel uses for errors.
const ERRNOS: std::ops::RangeInclusive<u32> = 1..=4095;

const FAULT_CLEAR: u16 = 0;
const FAULT_DELAY: u16 = 1;
const FAULT_STALL: u16 = 2;
const FAULT_FAIL: u16 = 3;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RequestRaw {
    magic: [u8; 4],
    kind: u8,
    flags: u8,
    fault: U16,
    id: U64,
    block: U64,
    count: U32,
    area_block: U32,
    node: U16,
    reserved: [u8; 2],
    incarnation: U32,
    argument: U32,
    reserved_2: [u8; 20],
}
const _: () = assert!(size_of::<RequestRaw>() == FRAME_SIZE);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ReplyRaw {
    magic: [u8; 4],
    status: U16,
    reserved: [u8; 2],
    id: U64,
    detail: U64,
    reserved_2: [u8; 40],
}
const _: () = assert!(size_of::<ReplyRaw>() == FRAME_SIZE);

/// A frame that is no request of this protocol. It ends the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    #[error("a frame has {FRAME_SIZE} bytes, this one {found}")]
    Size { found: usize },
    #[error("the magic is not that of a request")]
    Magic,
    #[error("kind {kind} is unknown")]
    Kind { id: u64, kind: u8 },
    #[error("{count} blocks in one request, 1 to {PAYLOAD_BLOCKS_MAX} are possible")]
    Count { id: u64, count: u32 },
    #[error("{count} blocks to discard, 1 to {DISCARD_BLOCKS_MAX} are possible")]
    Discard { id: u64, count: u32 },
    #[error("an impossible node or incarnation")]
    Node { id: u64 },
    #[error("fault {fault} is unknown")]
    Fault { id: u64, fault: u16 },
}

impl RequestError {
    /// The id of the frame, 0 when it has none.
    pub fn id(self) -> u64 {
        match self {
            RequestError::Size { .. } | RequestError::Magic => 0,
            RequestError::Kind { id, .. }
            | RequestError::Count { id, .. }
            | RequestError::Discard { id, .. }
            | RequestError::Node { id }
            | RequestError::Fault { id, .. } => id,
        }
    }
}

impl Request {
    pub fn encode(&self, id: u64) -> [u8; FRAME_SIZE] {
        let mut raw = RequestRaw {
            magic: REQUEST_MAGIC,
            kind: self.kind() as u8,
            flags: 0,
            fault: U16::ZERO,
            id: id.into(),
            block: U64::ZERO,
            count: U32::ZERO,
            area_block: U32::ZERO,
            node: U16::ZERO,
            reserved: [0; 2],
            incarnation: U32::ZERO,
            argument: U32::ZERO,
            reserved_2: [0; 20],
        };
        let transfer = |raw: &mut RequestRaw, transfer: &Transfer| {
            raw.block = transfer.block.into();
            raw.count = transfer.count.into();
            raw.area_block = transfer.area_block.into();
        };
        match self {
            Request::Read(read) => transfer(&mut raw, read),
            Request::Write { transfer: write, durable } => {
                transfer(&mut raw, write);
                raw.flags = if *durable { FLAG_DURABLE } else { 0 };
            }
            Request::Discard { block, count } => {
                raw.block = (*block).into();
                raw.count = (*count).into();
            }
            Request::Fence { victim } => {
                raw.node = victim.node.get().into();
                raw.incarnation = victim.up_to.0.into();
            }
            Request::List { area_block } | Request::Counters { area_block } => {
                raw.area_block = (*area_block).into();
            }
            Request::Flush | Request::Ping => {}
            Request::Inject(fault) => {
                let (number, node, argument) = match fault {
                    Fault::Clear => (FAULT_CLEAR, 0, 0),
                    Fault::DelayWrites { node, ms } => (FAULT_DELAY, node.get(), *ms),
                    Fault::StallWrites { node } => (FAULT_STALL, node.get(), 0),
                    Fault::FailWrites { node, errno } => (FAULT_FAIL, node.get(), *errno),
                };
                raw.fault = number.into();
                raw.node = node.into();
                raw.argument = argument.into();
            }
        }
        zerocopy::transmute!(raw)
    }

    /// The request and its id.
    ///
    /// # Errors
    /// When the frame is no request of this protocol.
    pub fn decode(frame: &[u8]) -> Result<(u64, Request), RequestError> {
        let raw = RequestRaw::ref_from_bytes(frame)
            .map_err(|_| RequestError::Size { found: frame.len() })?;
        if raw.magic != REQUEST_MAGIC {
            return Err(RequestError::Magic);
        }
        let id = raw.id.get();
        let transfer = || {
            let count = raw.count.get();
            if !(1..=PAYLOAD_BLOCKS_MAX).contains(&count) {
                return Err(RequestError::Count { id, count });
            }
            Ok(Transfer { block: raw.block.get(), count, area_block: raw.area_block.get() })
        };
        let node = || NodeId::new(raw.node.get()).ok_or(RequestError::Node { id });
        let area_block = raw.area_block.get();
        let request = match raw.kind {
            1 => Request::Read(transfer()?),
            2 => {
                let durable = raw.flags & FLAG_DURABLE != 0;
                Request::Write { transfer: transfer()?, durable }
            }
            3 => Request::Flush,
            4 => {
                let up_to = raw.incarnation.get();
                // The last number is kept free, so that a life after the victim is possible.
                if up_to == 0 || up_to == u32::MAX {
                    return Err(RequestError::Node { id });
                }
                Request::Fence { victim: Victim { node: node()?, up_to: Incarnation(up_to) } }
            }
            5 => Request::List { area_block },
            6 => Request::Counters { area_block },
            7 => Request::Ping,
            8 => Request::Inject(match raw.fault.get() {
                FAULT_CLEAR => Fault::Clear,
                FAULT_DELAY => Fault::DelayWrites { node: node()?, ms: raw.argument.get() },
                FAULT_STALL => Fault::StallWrites { node: node()? },
                FAULT_FAIL if ERRNOS.contains(&raw.argument.get()) => {
                    Fault::FailWrites { node: node()?, errno: raw.argument.get() }
                }
                fault => return Err(RequestError::Fault { id, fault }),
            }),
            9 => {
                let count = raw.count.get();
                if !(1..=DISCARD_BLOCKS_MAX).contains(&count) {
                    return Err(RequestError::Discard { id, count });
                }
                Request::Discard { block: raw.block.get(), count }
            }
            kind => return Err(RequestError::Kind { id, kind }),
        };
        Ok((id, request))
    }

    pub fn kind(&self) -> Kind {
        match self {
            Request::Read(_) => Kind::Read,
            Request::Write { .. } => Kind::Write,
            Request::Discard { .. } => Kind::Discard,
            Request::Flush => Kind::Flush,
            Request::Fence { .. } => Kind::Fence,
            Request::List { .. } => Kind::List,
            Request::Counters { .. } => Kind::Counters,
            Request::Ping => Kind::Ping,
            Request::Inject(_) => Kind::Inject,
        }
    }

    /// Blocks of the shared memory that it uses: first and number.
    pub fn area(&self) -> Option<(u32, u32)> {
        match self {
            Request::Read(transfer) | Request::Write { transfer, .. } => {
                Some((transfer.area_block, transfer.count))
            }
            Request::List { area_block } | Request::Counters { area_block } => {
                Some((*area_block, 1))
            }
            Request::Discard { .. }
            | Request::Flush
            | Request::Fence { .. }
            | Request::Ping
            | Request::Inject(_) => None,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Done,
    /// The session's key is fenced. Nothing of the request was done, unless it was answered `Done`
    /// before.
    Fenced,
    /// The device or the state directory failed with this errno. A write may have been done in
    /// part; a fence is not in force for good.
    Io {
        errno: u32,
    },
    /// Beyond the end of the device.
    OutOfRange,
    /// An observer may not, or faults are not accepted.
    NotAllowed,
    /// The request is malformed; the session ends.
    Malformed,
    /// More requests at once than were agreed on; the session ends.
    TooMany,
}

const STATUS_DONE: u16 = 0;
const STATUS_FENCED: u16 = 1;
const STATUS_IO: u16 = 2;
const STATUS_OUT_OF_RANGE: u16 = 3;
const STATUS_NOT_ALLOWED: u16 = 4;
const STATUS_MALFORMED: u16 = 5;
const STATUS_TOO_MANY: u16 = 6;

/// The answer to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    pub id: u64,
    pub status: Status,
}

impl Reply {
    pub fn encode(&self) -> [u8; FRAME_SIZE] {
        let (status, detail) = match self.status {
            Status::Done => (STATUS_DONE, 0),
            Status::Fenced => (STATUS_FENCED, 0),
            Status::Io { errno } => (STATUS_IO, errno),
            Status::OutOfRange => (STATUS_OUT_OF_RANGE, 0),
            Status::NotAllowed => (STATUS_NOT_ALLOWED, 0),
            Status::Malformed => (STATUS_MALFORMED, 0),
            Status::TooMany => (STATUS_TOO_MANY, 0),
        };
        let raw = ReplyRaw {
            magic: REPLY_MAGIC,
            status: status.into(),
            reserved: [0; 2],
            id: self.id.into(),
            detail: u64::from(detail).into(),
            reserved_2: [0; 40],
        };
        zerocopy::transmute!(raw)
    }

    /// `None` when the frame is no reply of this protocol.
    pub fn decode(frame: &[u8]) -> Option<Reply> {
        let raw = ReplyRaw::ref_from_bytes(frame).ok()?;
        if raw.magic != REPLY_MAGIC {
            return None;
        }
        let status = match raw.status.get() {
            STATUS_DONE => Status::Done,
            STATUS_FENCED => Status::Fenced,
            STATUS_IO => {
                let errno = u32::try_from(raw.detail.get()).ok()?;
                ERRNOS.contains(&errno).then_some(Status::Io { errno })?
            }
            STATUS_OUT_OF_RANGE => Status::OutOfRange,
            STATUS_NOT_ALLOWED => Status::NotAllowed,
            STATUS_MALFORMED => Status::Malformed,
            STATUS_TOO_MANY => Status::TooMany,
            _ => return None,
        };
        Some(Reply { id: raw.id.get(), status })
    }
}
