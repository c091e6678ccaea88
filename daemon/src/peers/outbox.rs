//! What waits to be sent over one connection.
//!
//! Keeps true: what waits has a bound; a connection whose other side takes so little that it is
//! exceeded is broken off, and its link sends everything again over the next one.

use std::collections::VecDeque;

use cluster::Frame;
use cluster::frame::HEADER_LEN;
use mx_latch::Latch;
use tokio::sync::Notify;

/// Bytes that may wait. On a new connection a link sends all that was not acknowledged at once: up
/// to 72 MiB, and a header for each message. The payloads are shared with the link.
const BYTES_MAX: usize = 160 << 20;

/// Bytes that are written at once: an urgent frame waits for at most so many.
const BATCH: usize = 256 << 10;

#[derive(Default)]
pub(super) struct Outbox {
    state: Latch<State>,
    /// There is something to write, or nothing will be any more.
    changed: Notify,
    /// It was closed here.
    closing: Notify,
    /// The connection is to end at once.
    broken: Notify,
}

#[derive(Default)]
struct State {
    urgent: VecDeque<Frame>,
    ordinary: VecDeque<Frame>,
    bytes: usize,
    closing: bool,
    broken: bool,
}

/// What the writer does next.
pub(super) enum Next {
    Write(Vec<u8>),
    Wait,
    /// All is written and nothing more comes.
    End,
}

impl Outbox {
    pub(super) fn push(&self, frame: Frame) {
        {
            let mut state = self.state.lock();
            if state.closing || state.broken {
                return;
            }
            let bytes = state.bytes + HEADER_LEN + frame.payload.len();
            if bytes > BYTES_MAX {
                state.break_off();
            } else {
                state.bytes = bytes;
                let queue = if frame.is_urgent() { &mut state.urgent } else { &mut state.ordinary };
                queue.push_back(frame);
            }
            if state.broken {
                self.broken.notify_one();
            }
        }
        self.changed.notify_one();
    }

    /// Nothing more comes from here; what waits is still sent.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.closing.notify_one();
        self.changed.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(frame) = state.urgent.pop_front().or_else(|| state.ordinary.pop_front())
        {
            batch.extend_from_slice(&frame.header());
            batch.extend_from_slice(&frame.payload);
        }
        state.bytes -= batch.len();
        if !batch.is_empty() {
            Next::Write(batch)
        } else if state.closing {
            Next::End
        } else {
            Next::Wait
        }
    }

    /// Completes when [`Outbox::next`] may have something else to say.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Completes when it was closed here.
    pub(super) async fn closing(&self) {
        while !self.is_closing() {
            self.closing.notified().await;
        }
    }

    /// Completes when too much waits.
    pub(super) async fn broken(&self) {
        self.broken.notified().await;
    }
}

impl State {
    fn break_off(&mut self) {
        self.broken = true;
        self.urgent.clear();
        self.ordinary.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::LockspaceId;
    use cluster::frame::{Kind, PAYLOAD_MAX};

    use super::*;

    fn frame(kind: Kind, sequence: u64, bytes: usize) -> Frame {
        let payload: Arc<[u8]> = vec![0; bytes].into();
        Frame { version: 1, kind, lockspace: LockspaceId(0), sequence, ack: 0, payload }
    }

    #[test]
    fn urgent_frames_leave_before_what_waits_and_both_in_order() {
        let outbox = Outbox::default();
        let sent = [(Kind::Lock, 1), (Kind::Ping, 2), (Kind::Lock, 3), (Kind::Pong, 4)];
        for (kind, sequence) in sent {
            outbox.push(frame(kind, sequence, 8));
        }
        let Next::Write(batch) = outbox.next() else { panic!("there is something") };
        let order: Vec<u8> = batch.chunks(HEADER_LEN + 8).map(|frame| frame[16]).collect();
        assert_eq!(order, [2, 4, 1, 3]);
        assert!(matches!(outbox.next(), Next::Wait));
        outbox.close();
        assert!(matches!(outbox.next(), Next::End));
    }

    #[test]
    fn an_urgent_frame_waits_for_little_more_than_a_batch() {
        let outbox = Outbox::default();
        for sequence in 0..8 {
            outbox.push(frame(Kind::Lock, sequence, PAYLOAD_MAX));
        }
        let Next::Write(first) = outbox.next() else { panic!("there is something") };
        assert_eq!(first.len(), HEADER_LEN + PAYLOAD_MAX, "one frame is more than a batch");
        outbox.push(frame(Kind::Ping, 9, 40));
        let Next::Write(second) = outbox.next() else { panic!("there is something") };
        assert_eq!(second[16], 9);
    }

    #[test]
    fn too_much_breaks_the_connection_off_and_holds_nothing() {
        let outbox = Outbox::default();
        let large = frame(Kind::Lock, 1, PAYLOAD_MAX);
        for _ in 0..=BYTES_MAX / PAYLOAD_MAX {
            outbox.push(large.clone());
        }
        assert!(outbox.state.lock().broken);
        outbox.push(frame(Kind::Lock, 0, 1));
        assert!(matches!(outbox.next(), Next::Wait));
    }
}
