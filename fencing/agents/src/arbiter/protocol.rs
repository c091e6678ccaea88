//! The arbiter's protocol, byte by byte (`docs/spec/fencing.md`).
//!
//! A SEQPACKET socket: one [`Hello`] with the shared memory's descriptor, one [`Welcome`] back, then
//! packets of 1 to [`FRAMES_MAX`] request frames one way and reply frames the other, in any order.
//! All fields little-endian. Decoding any bytes gives a value or a typed error, never a panic.

mod frame;
mod hello;
mod report;

pub use frame::{Fault, Kind, Reply, Request, RequestError, Status, Transfer};
pub use hello::{Hello, HelloError, HelloRefusal, Welcome};
pub use report::{Counters, NodeReport, decode_list, encode_list};

/// The version of the protocol that this code speaks, and the only one.
pub const VERSION: u16 = 1;
/// Bytes of a request or reply frame.
pub const FRAME_SIZE: usize = 64;
/// Frames in a packet.
pub const FRAMES_MAX: usize = 64;
/// Bytes of the largest packet.
pub const PACKET_MAX: usize = FRAME_SIZE * FRAMES_MAX;
/// Bytes of [`Hello`] and of [`Welcome`].
pub const HELLO_SIZE: usize = 128;
/// Blocks of 4 KiB in one request: 1 MiB.
pub const PAYLOAD_BLOCKS_MAX: u32 = 256;
/// Blocks in one request to discard: 256 MiB. A fence waits for it.
pub const DISCARD_BLOCKS_MAX: u32 = 65_536;
/// Blocks of the memory that a client may share: 64 MiB.
pub const AREA_BLOCKS_MAX: u32 = 16_384;
/// Requests of one session that may be under way or queued; more end the session.
pub const REQUESTS_MAX: u32 = 1024;

#[cfg(test)]
mod tests;
