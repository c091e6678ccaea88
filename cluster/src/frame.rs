//! Frames: the 32-byte header in front of everything that two nodes send each other.
//!
//! Keeps true:
//! * a decoder never panics and never holds more than one header and one payload of the largest
//!   length that its connection may send at the time;
//! * what it returns has a known kind and a length that this kind may have.
//!
//! The layout is in `docs/spec/wire.md`. The sender and its incarnation are not in the header: they
//! are those of the connection, agreed in the handshake (I6).

use std::fmt;
use std::sync::Arc;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "MXFR" as bytes on the wire.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MXFR");

/// The most bytes one frame carries after its header. Larger things are cut by whoever sends them.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// The most bytes of a frame of the handshake: a stranger cannot make us hold more.
pub(crate) const STRANGER_PAYLOAD_MAX: usize = 64;

/// Names a lock space, or 0 where no lock space is meant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LockspaceId(pub u32);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    version: U16,
    kind: U16,
    length: U32,
    lockspace: U32,
    sequence: U64,
    ack: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// Bytes of a header.
pub const HEADER_LEN: usize = 32;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u16)]
pub enum Kind {
    /// The first frame of each side of a connection.
    Hello = 1,
    /// Instead of a `Hello`: the connection is not wanted, and why.
    Refusal = 2,
    /// A heartbeat; answered by a `Pong`. Not in sequence, never queued behind others.
    Ping = 3,
    Pong = 4,
    /// Nothing but the cumulative acknowledgement of the header.
    Ack = 5,
    /// A message of membership, mount groups or recovery; see [`crate::wire`].
    Control = 6,
    /// A message of the lock manager: opaque here.
    Lock = 7,
    /// A message between the members of a mount group: opaque here.
    Group = 8,
}

impl Kind {
    fn from_wire(kind: u16) -> Option<Kind> {
        match kind {
            1 => Some(Kind::Hello),
            2 => Some(Kind::Refusal),
            3 => Some(Kind::Ping),
            4 => Some(Kind::Pong),
            5 => Some(Kind::Ack),
            6 => Some(Kind::Control),
            7 => Some(Kind::Lock),
            8 => Some(Kind::Group),
            _ => None,
        }
    }

    /// Numbered, kept until acknowledged, and delivered once and in order.
    pub fn is_sequenced(self) -> bool {
        matches!(self, Kind::Control | Kind::Lock | Kind::Group)
    }

    fn payload_max(self) -> usize {
        if self.is_sequenced() { PAYLOAD_MAX } else { STRANGER_PAYLOAD_MAX }
    }
}

/// One frame. Cloning is cheap: the payload is shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Protocol version agreed in the handshake; 0 in the handshake itself.
    pub version: u16,
    pub kind: Kind,
    pub lockspace: LockspaceId,
    /// From 1 in each pair of starts; 0 for kinds that are not sequenced.
    pub sequence: u64,
    /// The sender has received everything up to here.
    pub ack: u64,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: Arc<[u8]>,
}

impl Frame {
    /// The bytes that go in front of [`Frame::payload`].
    ///
    /// # Panics
    /// When the payload is longer than its kind may be: whoever made the frame has to cut it.
    pub fn header(&self) -> [u8; HEADER_LEN] {
        assert!(
            self.payload.len() <= self.kind.payload_max(),
            "a payload of {:?} is cut before it becomes a frame: {} bytes",
            self.kind,
            self.payload.len()
        );
        let length = u32::try_from(self.payload.len()).expect("PAYLOAD_MAX fits 32 bits");
        let header = Header {
            magic: U32::new(MAGIC),
            version: U16::new(self.version),
            kind: U16::new(self.kind as u16),
            length: U32::new(length),
            lockspace: U32::new(self.lockspace.0),
            sequence: U64::new(self.sequence),
            ack: U64::new(self.ack),
        };
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(header.as_bytes());
        bytes
    }

    /// Header and payload in one piece, for callers that do not gather.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend_from_slice(&self.header());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// To be written before whatever else waits for the same connection.
    pub fn is_urgent(&self) -> bool {
        matches!(self.kind, Kind::Hello | Kind::Refusal | Kind::Ping | Kind::Pong)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} #{} ack {} ({} bytes)",
            self.kind,
            self.sequence,
            self.ack,
            self.payload.len()
        )
    }
}

/// Bytes that are no frame. The connection that brought them is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("not a frame of this protocol: magic {found:#010x}")]
    Magic { found: u32 },
    #[error("unknown kind of frame: {found}")]
    Kind { found: u16 },
    #[error("a frame of kind {kind:?} with {length} bytes, at most {most} are allowed")]
    Length { kind: Kind, length: u32, most: usize },
    #[error("a {kind:?} before the handshake was finished")]
    TooEarly { kind: Kind },
}

/// Cuts the bytes of one connection into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
    greeted: bool,
}

impl Decoder {
    /// Accepts frames of the handshake only, until [`Decoder::allow_all`].
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// The handshake is finished.
    pub fn allow_all(&mut self) {
        self.greeted = true;
    }

    /// Takes what arrived. Call [`Decoder::next_frame`] until it gives nothing more, so that what
    /// is held stays below one frame plus `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has arrived.
    ///
    /// # Errors
    /// Bytes that are no frame; the decoder is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.consumed..];
        let Ok((header, body)) = Header::ref_from_prefix(rest) else { return Ok(None) };
        if header.magic.get() != MAGIC {
            return Err(FrameError::Magic { found: header.magic.get() });
        }
        let kind = Kind::from_wire(header.kind.get())
            .ok_or(FrameError::Kind { found: header.kind.get() })?;
        if !self.greeted && !matches!(kind, Kind::Hello | Kind::Refusal) {
            return Err(FrameError::TooEarly { kind });
        }
        let length = header.length.get();
        let most = kind.payload_max();
        let payload_len = usize::try_from(length).unwrap_or(usize::MAX);
        if payload_len > most {
            return Err(FrameError::Length { kind, length, most });
        }
        let Some(payload) = body.get(..payload_len) else { return Ok(None) };
        let frame = Frame {
            version: header.version.get(),
            kind,
            lockspace: LockspaceId(header.lockspace.get()),
            sequence: header.sequence.get(),
            ack: header.ack.get(),
            payload: payload.into(),
        };
        self.consumed += HEADER_LEN + payload_len;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Frame {
        Frame {
            version: 1,
            kind,
            lockspace: LockspaceId(7),
            sequence: 0x0102_0304_0506_0708,
            ack: 9,
            payload: payload.into(),
        }
    }

    #[test]
    fn the_bytes_of_a_frame_are_those_of_the_specification() {
        #[rustfmt::skip]
        let golden = [
            b'M', b'X', b'F', b'R', 1, 0, 7, 0,
            3, 0, 0, 0, 7, 0, 0, 0,
            8, 7, 6, 5, 4, 3, 2, 1,
            9, 0, 0, 0, 0, 0, 0, 0,
            b'a', b'b', b'c',
        ];
        assert_eq!(frame(Kind::Lock, b"abc").to_bytes(), golden);
    }

    #[test]
    fn frames_come_out_whole_whatever_the_pieces_they_arrive_in() {
        let sent = [frame(Kind::Lock, b"one"), frame(Kind::Ack, b""), frame(Kind::Control, b"two")];
        let bytes: Vec<u8> = sent.iter().flat_map(Frame::to_bytes).collect();
        for piece in 1..bytes.len() {
            let mut decoder = Decoder::new();
            decoder.allow_all();
            let mut received = Vec::new();
            for chunk in bytes.chunks(piece) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().expect("these are frames") {
                    received.push(frame);
                }
            }
            assert_eq!(received, sent);
        }
    }

    #[test]
    fn a_length_that_lies_is_refused_before_anything_is_held_for_it() {
        let mut bytes = frame(Kind::Control, b"").header();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut decoder = Decoder::new();
        decoder.allow_all();
        decoder.push(&bytes);
        assert!(matches!(decoder.next_frame(), Err(FrameError::Length { .. })));
    }

    #[test]
    fn a_stranger_can_send_nothing_but_a_handshake() {
        let mut decoder = Decoder::new();
        decoder.push(&frame(Kind::Lock, b"abc").to_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooEarly { kind: Kind::Lock }));
    }
}
