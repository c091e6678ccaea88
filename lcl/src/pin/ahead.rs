//! Asking for many locks in one step, without keeping one.
//!
//! Keeps true: no pin given here outlasts the poll that finds it, so nothing is held while another
//! lock is waited for: the order of locks does not matter, and what was granted is cached as ever
//! and may be called out as ever. All that has to be asked for is told to the requester at once, so
//! that each home gets one message, and gives one back, beside what conflicts cost.

use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Entry, PinFuture, Want};

/// Completes when each of the locks has been granted once since it was asked for, or refused.
/// Dropping it takes back what is still waited for.
#[must_use = "a future does nothing unless polled"]
pub struct Ahead {
    waits: Vec<PinFuture>,
    is_asked: bool,
}

impl Ahead {
    /// For entries of one table, each at most once; those that are cached cost nothing. Everything
    /// that is queued has a bound: the caller asks for a few hundred at a time.
    pub fn new(entries: impl IntoIterator<Item = Arc<Entry>>, want: Want) -> Ahead {
        let missing = entries.into_iter().filter(|entry| entry.try_pin(want).is_none());
        Ahead { waits: missing.map(|entry| entry.pin(want)).collect(), is_asked: false }
    }

    /// How many are waited for.
    pub fn len(&self) -> usize {
        self.waits.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }
}

impl Future for Ahead {
    type Output = ();

    fn poll(mut self: StdPin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_asked, true) {
            let missed: Vec<(Arc<Entry>, Want)> =
                self.waits.iter_mut().filter_map(PinFuture::begin).collect();
            if let Some((first, _)) = missed.first() {
                first.tell(|requester, _| requester.missed_together(&missed));
            }
        }
        // A pin that is found is dropped here.
        self.waits.retain_mut(|wait| StdPin::new(wait).poll(context).is_pending());
        if self.waits.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("waits", &self.waits.len()).finish_non_exhaustive()
    }
}
