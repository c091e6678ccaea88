//! The handshake.

use fencing::{DeviceId, Key};
use mx_base::{ClusterId, Incarnation};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{AREA_BLOCKS_MAX, HELLO_SIZE, VERSION};

const HELLO_MAGIC: [u8; 8] = *b"MXARBHEL";
const WELCOME_MAGIC: [u8; 8] = *b"MXARBWEL";

/// The first packet of a client; it carries the descriptor of the shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    pub cluster: ClusterId,
    pub device: DeviceId,
    /// A node in one of its lives; `None` for an observer, who may read, list and count, and
    /// never write or fence.
    pub key: Option<Key>,
    /// Of a node: drawn at random by every start of its daemon; an incarnation belongs to the start
    /// that registered it first. Of an observer: drawn at random by every client.
    pub nonce: u64,
    /// Tells sessions of one life, or of one observer, apart: a new one replaces the former one of
    /// the same channel, after its requests have ended.
    pub channel: u16,
    /// Blocks of the shared memory, 1 to [`AREA_BLOCKS_MAX`].
    pub area_blocks: u32,
}

/// The answer that opens a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Blocks of the device.
    pub device_blocks: u64,
    /// Drawn at random by every start of the server.
    pub server_start: u64,
    /// Requests that may be under way.
    pub requests_max: u32,
    /// Lives of the client's node below it are fenced.
    pub incarnation_min: Incarnation,
    /// The newest life of the client's node that has ever registered.
    pub incarnation_newest: Incarnation,
}

/// Why no session is opened. The number is the one on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u16)]
pub enum HelloRefusal {
    #[error("the arbiter and this program speak no common version of the protocol")]
    Version = 1,
    #[error("the arbiter serves another cluster")]
    ForeignCluster = 2,
    #[error("the arbiter serves another device")]
    ForeignDevice = 3,
    #[error("this incarnation of the node is fenced")]
    Fenced = 4,
    #[error("a newer incarnation of the node has registered")]
    Superseded = 5,
    #[error("another start of the node's daemon has registered this incarnation")]
    InUse = 6,
    #[error("the shared memory is missing, not sealed against shrinking, or too small")]
    BadArea = 7,
    #[error("too many sessions")]
    TooManySessions = 8,
    #[error("the arbiter cannot store the registration")]
    StateUnavailable = 9,
    #[error("the handshake is malformed")]
    Malformed = 10,
    #[error("the arbiter is shutting down")]
    ShuttingDown = 11,
}

impl HelloRefusal {
    const ALL: [HelloRefusal; 11] = [
        HelloRefusal::Version,
        HelloRefusal::ForeignCluster,
        HelloRefusal::ForeignDevice,
        HelloRefusal::Fenced,
        HelloRefusal::Superseded,
        HelloRefusal::InUse,
        HelloRefusal::BadArea,
        HelloRefusal::TooManySessions,
        HelloRefusal::StateUnavailable,
        HelloRefusal::Malformed,
        HelloRefusal::ShuttingDown,
    ];

    /// May it be different at the next try?
    pub fn passes(self) -> bool {
        match self {
            HelloRefusal::TooManySessions
            | HelloRefusal::StateUnavailable
            | HelloRefusal::ShuttingDown => true,
            HelloRefusal::Version
            | HelloRefusal::ForeignCluster
            | HelloRefusal::ForeignDevice
            | HelloRefusal::Fenced
            | HelloRefusal::Superseded
            | HelloRefusal::InUse
            | HelloRefusal::BadArea
            | HelloRefusal::Malformed => false,
        }
    }
}

/// A packet that is no handshake of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HelloError {
    #[error("the packet has {found} bytes, a handshake has {HELLO_SIZE}")]
    Size { found: usize },
    #[error("the magic is not that of a handshake")]
    Magic,
    #[error("versions {min} to {max}, this program speaks {VERSION}")]
    Version { min: u16, max: u16 },
    #[error("{key:#018x} is no key")]
    Key { key: u64 },
    #[error("{blocks} blocks of shared memory, 1 to {AREA_BLOCKS_MAX} are possible")]
    Area { blocks: u32 },
    #[error("status {0} is unknown")]
    Status(u16),
}

impl HelloError {
    /// What the client is told.
    pub fn refusal(self) -> HelloRefusal {
        match self {
            HelloError::Version { .. } => HelloRefusal::Version,
            HelloError::Area { .. } => HelloRefusal::BadArea,
            HelloError::Size { .. }
            | HelloError::Magic
            | HelloError::Key { .. }
            | HelloError::Status(_) => HelloRefusal::Malformed,
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct HelloRaw {
    magic: [u8; 8],
    version_min: U16,
    version_max: U16,
    channel: U16,
    reserved: [u8; 2],
    cluster: [u8; 16],
    device: [u8; 16],
    key: U64,
    nonce: U64,
    area_blocks: U32,
    reserved_2: [u8; 60],
}
const _: () = assert!(size_of::<HelloRaw>() == HELLO_SIZE);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WelcomeRaw {
    magic: [u8; 8],
    version: U16,
    status: U16,
    requests_max: U32,
    server_start: U64,
    device_blocks: U64,
    incarnation_min: U32,
    incarnation_newest: U32,
    reserved: [u8; 88],
}
const _: () = assert!(size_of::<WelcomeRaw>() == HELLO_SIZE);

impl Hello {
    /// With these an observer may read whatever is served: it learns from the device what it is.
    pub const ANY_CLUSTER: ClusterId = ClusterId([0; 16]);
    pub const ANY_DEVICE: DeviceId = DeviceId([0; 16]);

    /// Is it of an observer that does not know yet what it will find?
    pub fn is_for_anything(&self) -> bool {
        let any = (Hello::ANY_CLUSTER, Hello::ANY_DEVICE);
        self.key.is_none() && (self.cluster, self.device) == any
    }

    pub fn encode(&self) -> [u8; HELLO_SIZE] {
        let raw = HelloRaw {
            magic: HELLO_MAGIC,
            version_min: VERSION.into(),
            version_max: VERSION.into(),
            channel: self.channel.into(),
            reserved: [0; 2],
            cluster: self.cluster.0,
            device: self.device.0,
            key: self.key.map_or(0, Key::to_u64).into(),
            nonce: self.nonce.into(),
            area_blocks: self.area_blocks.into(),
            reserved_2: [0; 60],
        };
        zerocopy::transmute!(raw)
    }

    /// # Errors
    /// When the packet is no handshake that this program understands.
    pub fn decode(packet: &[u8]) -> Result<Hello, HelloError> {
        let raw = HelloRaw::ref_from_bytes(packet)
            .map_err(|_| HelloError::Size { found: packet.len() })?;
        if raw.magic != HELLO_MAGIC {
            return Err(HelloError::Magic);
        }
        let (min, max) = (raw.version_min.get(), raw.version_max.get());
        if min > VERSION || max < VERSION {
            return Err(HelloError::Version { min, max });
        }
        let key = match raw.key.get() {
            0 => None,
            key => Some(Key::from_u64(key).ok_or(HelloError::Key { key })?),
        };
        let blocks = raw.area_blocks.get();
        if !(1..=AREA_BLOCKS_MAX).contains(&blocks) {
            return Err(HelloError::Area { blocks });
        }
        Ok(Hello {
            cluster: ClusterId(raw.cluster),
            device: DeviceId(raw.device),
            key,
            nonce: raw.nonce.get(),
            channel: raw.channel.get(),
            area_blocks: blocks,
        })
    }
}

impl Welcome {
    /// The answer of a server: a session, or why there is none.
    pub fn encode(answer: Result<Welcome, HelloRefusal>) -> [u8; HELLO_SIZE] {
        let status = answer.err().map_or(0, |refusal| refusal as u16);
        let welcome = answer.unwrap_or(Welcome {
            device_blocks: 0,
            server_start: 0,
            requests_max: 0,
            incarnation_min: Incarnation(0),
            incarnation_newest: Incarnation(0),
        });
        let raw = WelcomeRaw {
            magic: WELCOME_MAGIC,
            version: VERSION.into(),
            status: status.into(),
            requests_max: welcome.requests_max.into(),
            server_start: welcome.server_start.into(),
            device_blocks: welcome.device_blocks.into(),
            incarnation_min: welcome.incarnation_min.0.into(),
            incarnation_newest: welcome.incarnation_newest.0.into(),
            reserved: [0; 88],
        };
        zerocopy::transmute!(raw)
    }

    /// # Errors
    /// When the packet is no answer to a handshake. A refusal is an answer.
    pub fn decode(packet: &[u8]) -> Result<Result<Welcome, HelloRefusal>, HelloError> {
        let raw = WelcomeRaw::ref_from_bytes(packet)
            .map_err(|_| HelloError::Size { found: packet.len() })?;
        if raw.magic != WELCOME_MAGIC {
            return Err(HelloError::Magic);
        }
        let version = raw.version.get();
        let status = raw.status.get();
        if status != 0 {
            let refusal = HelloRefusal::ALL.into_iter().find(|refusal| *refusal as u16 == status);
            return refusal.map(Err).ok_or(HelloError::Status(status));
        }
        if version != VERSION {
            return Err(HelloError::Version { min: version, max: version });
        }
        Ok(Ok(Welcome {
            device_blocks: raw.device_blocks.get(),
            server_start: raw.server_start.get(),
            requests_max: raw.requests_max.get(),
            incarnation_min: Incarnation(raw.incarnation_min.get()),
            incarnation_newest: Incarnation(raw.incarnation_newest.get()),
        }))
    }
}
