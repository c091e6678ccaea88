//! One link: ordered, exactly-once delivery between one start of this node and one of a peer.
//!
//! Keeps true, over any number of connections, one after the other or side by side:
//! * a message is handed over at most once, and never before those sent earlier;
//! * what is not acknowledged is kept, and sent again from the oldest on a new connection, so that
//!   every connection carries a gapless sequence that begins at or before what the peer expects;
//! * what is kept is bounded; beyond the bound a message is refused, never dropped.
//!
//! Knows no sockets and no peers' names: which connection is used is decided by [`crate::links`].

use std::collections::VecDeque;
use std::sync::Arc;

use mx_base::rules::{Rule, is_kept};

use crate::frame::{Frame, Kind, LockspaceId};

/// Lock and group traffic that a peer may leave unacknowledged, in bytes with headers: some seconds
/// of a fast network. Beyond it the sender is told to wait.
pub const UNACKED_BYTES_MAX: usize = 64 << 20;

/// Room above [`UNACKED_BYTES_MAX`] for control messages, which must get through so that a peer
/// which takes nothing any more can be dropped.
const CONTROL_BYTES_MAX: usize = 8 << 20;

/// An acknowledgement is sent on its own after this many frames without anything to carry it; so a
/// peer that only listens does not make the sender keep more than this.
const FRAMES_PER_ACK: u64 = 64;

/// The link holds as much unacknowledged as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{bytes} bytes wait to be acknowledged by the peer")]
pub struct LinkFull {
    pub bytes: usize,
}

/// A frame that cannot come from a peer that keeps the rules. The connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LinkError {
    #[error("message {found} came where {expected} was next")]
    Gap { expected: u64, found: u64 },
    #[error("{acked} was acknowledged, only {sent} were sent")]
    AckBeyond { sent: u64, acked: u64 },
}

/// What a frame of a sequenced kind is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// The next one; it counts as received when [`Link::accept`] is called.
    Next,
    /// Came before, on this or another connection.
    Duplicate,
}

#[derive(Debug)]
struct Kept {
    kind: Kind,
    lockspace: LockspaceId,
    payload: Arc<[u8]>,
}

impl Kept {
    fn bytes(&self) -> usize {
        crate::frame::HEADER_LEN + self.payload.len()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Sequence number of the first of `unacked`, minus one.
    acked: u64,
    unacked: VecDeque<Kept>,
    unacked_bytes: usize,
    /// How many of `unacked` the present connection has carried.
    transmitted: usize,
    received: u64,
    ack_sent: u64,
}

impl Link {
    pub(crate) fn new() -> Link {
        Link::default()
    }

    /// Takes a message that is to be delivered.
    pub(crate) fn push(
        &mut self,
        kind: Kind,
        lockspace: LockspaceId,
        payload: Arc<[u8]>,
    ) -> Result<(), LinkFull> {
        assert!(kind.is_sequenced(), "only sequenced kinds are kept: {kind:?}");
        let kept = Kept { kind, lockspace, payload };
        let reserve = if kind == Kind::Control { CONTROL_BYTES_MAX } else { 0 };
        let most = UNACKED_BYTES_MAX + reserve;
        if self.unacked_bytes + kept.bytes() > most {
            return Err(LinkFull { bytes: self.unacked_bytes });
        }
        self.unacked_bytes += kept.bytes();
        self.unacked.push_back(kept);
        Ok(())
    }

    /// From here on frames go over another connection: everything unacknowledged goes again.
    pub(crate) fn restart_transmission(&mut self) {
        if is_kept(Rule::SendAgain) {
            self.transmitted = 0;
        }
    }

    /// The next frame for the present connection.
    pub(crate) fn poll_frame(&mut self, version: u16) -> Option<Frame> {
        let kept = self.unacked.get(self.transmitted)?;
        self.transmitted += 1;
        let sequence = self.acked + self.transmitted as u64;
        self.ack_sent = self.received;
        Some(Frame {
            version,
            kind: kept.kind,
            lockspace: kept.lockspace,
            sequence,
            ack: self.received,
            payload: Arc::clone(&kept.payload),
        })
    }

    /// What goes into the header of a frame that is not sequenced.
    pub(crate) fn ack(&mut self) -> u64 {
        self.ack_sent = self.received;
        self.received
    }

    /// So much has arrived without an acknowledgement that one should be sent on its own.
    pub(crate) fn ack_is_due(&self) -> bool {
        self.received - self.ack_sent >= FRAMES_PER_ACK
    }

    /// Takes the acknowledgement of any frame's header.
    pub(crate) fn handle_ack(&mut self, ack: u64) -> Result<(), LinkError> {
        let sent = self.acked + self.unacked.len() as u64;
        if ack > sent {
            return Err(LinkError::AckBeyond { sent, acked: ack });
        }
        while self.acked < ack {
            let kept = self.unacked.pop_front().expect("what is acknowledged was sent");
            self.unacked_bytes -= kept.bytes();
            self.acked += 1;
            self.transmitted = self.transmitted.saturating_sub(1);
        }
        Ok(())
    }

    /// Looks at the sequence number of a sequenced frame.
    pub(crate) fn arrival(&self, sequence: u64) -> Result<Arrival, LinkError> {
        let expected = self.received + 1;
        if sequence == expected || sequence < expected && !is_kept(Rule::DeliverOnce) {
            Ok(Arrival::Next)
        } else if sequence != 0 && sequence < expected {
            Ok(Arrival::Duplicate)
        } else {
            Err(LinkError::Gap { expected, found: sequence })
        }
    }

    /// The frame that was [`Arrival::Next`] has been taken over.
    pub(crate) fn accept(&mut self) {
        self.received += 1;
    }

    pub(crate) fn unacked_bytes(&self) -> usize {
        self.unacked_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(link: &mut Link, text: &[u8]) {
        link.push(Kind::Lock, LockspaceId(1), text.into()).expect("there is room");
    }

    fn drain(link: &mut Link) -> Vec<Frame> {
        std::iter::from_fn(|| link.poll_frame(1)).collect()
    }

    /// What a receiver that keeps the rules hands over.
    fn deliver(link: &mut Link, frames: &[Frame]) -> Vec<u8> {
        let mut delivered = Vec::new();
        for frame in frames {
            link.handle_ack(frame.ack).expect("within what was sent");
            if link.arrival(frame.sequence).expect("no gap") == Arrival::Next {
                link.accept();
                delivered.extend_from_slice(&frame.payload);
            }
        }
        delivered
    }

    #[test]
    fn what_a_broken_connection_lost_comes_again_and_only_once() {
        let (mut a, mut b) = (Link::new(), Link::new());
        for text in [b"1", b"2", b"3"] {
            push(&mut a, text);
        }
        let first = drain(&mut a);
        assert_eq!(deliver(&mut b, &first[..2]), b"12");
        a.restart_transmission();
        push(&mut a, b"4");
        assert_eq!(deliver(&mut b, &drain(&mut a)), b"34");
        a.handle_ack(b.ack()).expect("within what was sent");
        assert_eq!(a.unacked_bytes(), 0);
    }

    #[test]
    fn a_late_frame_of_an_older_connection_is_a_duplicate() {
        let (mut a, mut b) = (Link::new(), Link::new());
        push(&mut a, b"1");
        let old = drain(&mut a);
        a.restart_transmission();
        assert_eq!(deliver(&mut b, &drain(&mut a)), b"1");
        assert_eq!(deliver(&mut b, &old), b"");
    }

    #[test]
    fn a_gap_and_an_acknowledgement_of_what_was_never_sent_are_errors() {
        let mut link = Link::new();
        assert_eq!(link.arrival(2), Err(LinkError::Gap { expected: 1, found: 2 }));
        assert_eq!(link.arrival(0), Err(LinkError::Gap { expected: 1, found: 0 }));
        assert_eq!(link.handle_ack(1), Err(LinkError::AckBeyond { sent: 0, acked: 1 }));
    }

    #[test]
    fn beyond_the_bound_traffic_is_refused_and_control_still_gets_through() {
        let mut link = Link::new();
        let big: Arc<[u8]> = vec![0; 1 << 20].into();
        while link.push(Kind::Lock, LockspaceId(1), Arc::clone(&big)).is_ok() {}
        assert!(link.unacked_bytes() <= UNACKED_BYTES_MAX);
        assert_eq!(link.push(Kind::Control, LockspaceId(0), big), Ok(()));
    }

    #[test]
    fn a_peer_that_only_listens_acknowledges_now_and_then() {
        let (mut a, mut b) = (Link::new(), Link::new());
        for _ in 0..FRAMES_PER_ACK {
            assert!(!b.ack_is_due());
            push(&mut a, b"x");
            deliver(&mut b, &drain(&mut a));
        }
        assert!(b.ack_is_due());
        a.handle_ack(b.ack()).expect("within what was sent");
        assert!(!b.ack_is_due());
        assert_eq!(a.unacked_bytes(), 0);
    }
}
