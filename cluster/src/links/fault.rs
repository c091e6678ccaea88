//! What can be wrong with a connection or with a message to a member.

use mx_base::Member;

use crate::frame::FrameError;
use crate::handshake::{HandshakeError, Refusal};
use crate::link::{LinkError, LinkFull};
use crate::wire::ControlError;

/// What a peer did against the rules, or a connection that could not be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("a heartbeat that is too short")]
    Heartbeat,
    #[error("a second handshake on one connection")]
    GreetedTwice,
    #[error("we refused it: {0}")]
    Refused(Refusal),
    #[error("it refused us: {0}")]
    RefusedUs(Refusal),
    #[error("the handshake was not finished in time")]
    TooSlow,
    #[error("too many connections without a handshake")]
    TooManyStrangers,
    #[error("more traffic than is held for a sender that is no member yet")]
    HeldTooMuch,
    #[error("it takes no control messages any more")]
    TakesNothing,
    /// A layer above says so, which also says what it was.
    #[error("what it sent breaks a rule of the layer above")]
    Distrusted,
}

/// Why a message to a member cannot be sent. It is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// It is dead or has left, or was never there; the view says so or soon will.
    #[error("{to} is no member that can be reached")]
    Gone { to: Member },
    /// Nothing longer than a frame is sent; it has to be cut.
    #[error("{bytes} bytes do not fit a frame")]
    TooLong { bytes: usize },
    /// Wait until the peer has acknowledged some of it.
    #[error(transparent)]
    Full(#[from] LinkFull),
}
