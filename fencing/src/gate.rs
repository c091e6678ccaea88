//! The pseudo storage driver: the gate that every request to a shared device passes (R17).
//!
//! Keeps true:
//! * once closed, no request is admitted and no request that ends counts as done, for ever: a node
//!   that was cut off comes back as a new incarnation with a new gate;
//! * [`Gate::is_drained`] is never true while a request that was admitted is under way;
//! * the first reason for closing is the one that is kept.
//!
//! Shared by all threads that do I/O and never blocks them: one word counts the requests under way
//! and says whether the gate is closed, a second holds the time until which it is open. Does no
//! I/O itself, and does not wait for requests: whoever closes it cuts them off.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mx_base::Instant;

/// Why the gate is closed for good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[repr(u8)]
pub enum Closed {
    #[error("this node was fenced from the device")]
    Fenced = 1,
    #[error("this node was expelled from the cluster")]
    Expelled = 2,
    #[error("another start of this node has taken its place")]
    Replaced = 3,
    #[error("the device contradicts what this node has written to it")]
    Contradiction = 4,
    #[error("this node has cut itself off")]
    SelfFenced = 5,
    #[error("the device is being given up in good order")]
    Left = 6,
}

impl Closed {
    const ALL: [Closed; 6] = [
        Closed::Fenced,
        Closed::Expelled,
        Closed::Replaced,
        Closed::Contradiction,
        Closed::SelfFenced,
        Closed::Left,
    ];
}

/// Why a request may not pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The permit has run out; it may be renewed.
    #[error("this node's permit to use the device has run out")]
    NoPermit,
}

/// What has passed so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GateCounts {
    pub admitted: u64,
    /// At submission.
    pub refused: u64,
    /// At completion: the device may have done it, the caller was told otherwise.
    pub disowned: u64,
}

// The state word: why closed (0 for open) in the high 8 bits, requests under way in the rest. One
// word, so that a request is either counted before the gate closes or sees it closed.
const REASON_SHIFT: u32 = 56;
const COUNT_MASK: u64 = (1 << REASON_SHIFT) - 1;

/// In front of one device, for one incarnation of this node.
pub struct Gate {
    state: AtomicU64,
    permit_until: AtomicU64,
    admitted: AtomicU64,
    refused: AtomicU64,
    disowned: AtomicU64,
}

impl Gate {
    /// Open, with a permit that never runs out; a lease that does is set by [`Gate::permit`].
    pub fn new() -> Arc<Gate> {
        Arc::new(Gate {
            state: AtomicU64::new(0),
            permit_until: AtomicU64::new(u64::MAX),
            admitted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            disowned: AtomicU64::new(0),
        })
    }

    /// Asked before a request is handed to the device. The request counts as under way until the
    /// admission is dropped, which must not be before the device has ended it.
    ///
    /// # Errors
    /// When the gate is closed or the permit has run out at `now`.
    pub fn admit(self: &Arc<Gate>, now: Instant) -> Result<Admission, Refused> {
        let before = self.state.fetch_add(1, Ordering::AcqRel);
        let admission = Admission { gate: Arc::clone(self), counts: true };
        match self.judge(before, now) {
            Ok(()) => {
                self.admitted.fetch_add(1, Ordering::Relaxed);
                Ok(admission)
            }
            Err(refused) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(refused)
            }
        }
    }

    /// May requests pass at `now`?
    ///
    /// # Errors
    /// When the gate is closed or the permit has run out.
    pub fn check(&self, now: Instant) -> Result<(), Refused> {
        self.judge(self.state.load(Ordering::Acquire), now)
    }

    /// Closes the gate for good. True when this call closed it.
    pub fn close(&self, why: Closed) -> bool {
        let closing = |state: u64| {
            (state >> REASON_SHIFT == 0).then_some(state | (why as u64) << REASON_SHIFT)
        };
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, closing).is_ok()
    }

    /// Requests pass until `until`; earlier than before shortens.
    pub fn permit(&self, until: Instant) {
        self.permit_until.store(until.0, Ordering::Release);
    }

    pub fn closed(&self) -> Option<Closed> {
        reason(self.state.load(Ordering::Acquire))
    }

    /// Requests under way.
    pub fn under_way(&self) -> u64 {
        self.state.load(Ordering::Acquire) & COUNT_MASK
    }

    /// Closed, and nothing that was admitted is under way any more.
    pub fn is_drained(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        reason(state).is_some() && state & COUNT_MASK == 0
    }

    pub fn counts(&self) -> GateCounts {
        GateCounts {
            admitted: self.admitted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            disowned: self.disowned.load(Ordering::Relaxed),
        }
    }

    fn judge(&self, state: u64, now: Instant) -> Result<(), Refused> {
        if let Some(why) = reason(state) {
            return Err(Refused::Closed(why));
        }
        if now.0 > self.permit_until.load(Ordering::Acquire) {
            return Err(Refused::NoPermit);
        }
        Ok(())
    }
}

fn reason(state: u64) -> Option<Closed> {
    let code = state >> REASON_SHIFT;
    Closed::ALL.into_iter().find(|why| *why as u64 == code)
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("closed", &self.closed())
            .field("under_way", &self.under_way())
            .field("counts", &self.counts())
            .finish()
    }
}

/// One request that was admitted; under way until it is dropped.
#[derive(Debug)]
#[must_use = "the request counts as under way for as long as its admission lives"]
pub struct Admission {
    gate: Arc<Gate>,
    counts: bool,
}

impl Admission {
    /// May the request be sent, or sent again? Asked before every repetition.
    ///
    /// # Errors
    /// When the gate has closed or the permit has run out.
    pub fn check(&self, now: Instant) -> Result<(), Refused> {
        self.gate.check(now)
    }

    /// The device has ended the request.
    ///
    /// # Errors
    /// When the gate has closed meanwhile, or the permit has run out: the caller must not be told
    /// that it was done.
    pub fn complete(self, now: Instant) -> Result<(), Refused> {
        let verdict = self.gate.check(now);
        if verdict.is_err() {
            self.gate.disowned.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// Whether the device ever ends the request will not be known: the gate is never drained.
    pub fn abandon(mut self) {
        self.counts = false;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.counts {
            self.gate.state.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(5);

    #[test]
    fn a_closed_gate_admits_nothing_and_disowns_what_ends() {
        let gate = Gate::new();
        let first = gate.admit(NOW).expect("open");
        let second = gate.admit(NOW).expect("open");
        assert_eq!(first.complete(NOW), Ok(()));
        assert!(gate.close(Closed::Fenced));
        assert!(!gate.is_drained(), "one is under way");
        assert_eq!(gate.admit(NOW).map(drop), Err(Refused::Closed(Closed::Fenced)));
        assert_eq!(second.check(NOW), Err(Refused::Closed(Closed::Fenced)));
        assert_eq!(second.complete(NOW), Err(Refused::Closed(Closed::Fenced)));
        assert!(gate.is_drained());
        assert_eq!(gate.counts(), GateCounts { admitted: 2, refused: 1, disowned: 1 });
    }

    #[test]
    fn the_first_reason_is_kept_and_nothing_opens_the_gate_again() {
        let gate = Gate::new();
        assert!(gate.close(Closed::Expelled));
        assert!(!gate.close(Closed::Fenced));
        gate.permit(Instant(u64::MAX));
        assert_eq!(gate.closed(), Some(Closed::Expelled));
        assert!(gate.admit(NOW).is_err());
    }

    #[test]
    fn a_permit_runs_out_and_is_renewed() {
        let gate = Gate::new();
        gate.permit(Instant(10));
        let under_way = gate.admit(Instant(10)).expect("still permitted");
        assert_eq!(gate.admit(Instant(11)).map(drop), Err(Refused::NoPermit));
        assert_eq!(under_way.complete(Instant(11)), Err(Refused::NoPermit));
        gate.permit(Instant(20));
        assert!(gate.admit(Instant(11)).is_ok());
        assert!(!gate.is_drained(), "open");
    }

    #[test]
    fn a_refused_request_does_not_count_as_under_way() {
        let gate = Gate::new();
        assert!(gate.close(Closed::Left));
        for _ in 0..3 {
            assert!(gate.admit(NOW).is_err());
        }
        assert_eq!(gate.under_way(), 0);
    }

    #[test]
    fn a_gate_is_not_drained_when_the_end_of_a_request_is_not_known() {
        let gate = Gate::new();
        gate.admit(NOW).expect("open").abandon();
        assert!(gate.close(Closed::SelfFenced));
        assert!(!gate.is_drained());
    }

    /// Every interleaving of one closing with one request: either the request saw the gate closed,
    /// or the closing saw the request under way. The steps are the atomic accesses that the code
    /// makes, on the same words.
    #[test]
    fn no_interleaving_lets_a_request_pass_unseen_by_the_closing() {
        // The request's accesses: 0 admit, 1 drop. The closing's: 0 close, 1 look.
        for schedule in 0_u8..16 {
            if schedule.count_ones() != 2 {
                continue;
            }
            let gate = Gate::new();
            let (mut request, mut closing) = (None, 0);
            let mut running = false;
            for step in 0..4 {
                if schedule >> step & 1 == 0 {
                    match request.take() {
                        None => {
                            let admitted = gate.admit(NOW);
                            running = admitted.is_ok();
                            request = Some(admitted.ok());
                        }
                        Some(admitted) => {
                            drop(admitted);
                            running = false;
                        }
                    }
                } else if closing == 0 {
                    assert!(gate.close(Closed::Fenced));
                    closing = 1;
                } else {
                    assert!(!(gate.is_drained() && running), "schedule {schedule:04b}");
                }
            }
        }
    }
}
