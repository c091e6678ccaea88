//! A pin, and the wait for one.

use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dlm::Mode;

use super::{Entry, PinError, Want};

/// The right to rely on a cluster lock in a mode until dropped.
pub struct Pin {
    entry: Arc<Entry>,
    want: Want,
}

impl Pin {
    /// The word counts the pin already.
    pub(super) fn new(entry: Arc<Entry>, want: Want) -> Pin {
        Pin { entry, want }
    }

    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The mode that the pin guarantees; the node may hold more.
    pub fn mode(&self) -> Mode {
        self.want.mode
    }

    pub fn is_exclusive(&self) -> bool {
        self.want.exclusive
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.entry.unpin(self.want);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?} {:?})", self.entry.name(), self.want)
    }
}

/// A wait for a pin; dropping it gives the place in the queue up.
#[must_use = "a future does nothing unless polled"]
pub struct PinFuture {
    entry: Arc<Entry>,
    want: Want,
    ticket: Option<u32>,
    /// Those who watch know of the wait.
    is_told: bool,
    done: bool,
}

impl PinFuture {
    pub(super) fn new(entry: Arc<Entry>, want: Want) -> PinFuture {
        PinFuture { entry, want, ticket: None, is_told: false, done: false }
    }

    /// Takes its place in the queue before the first poll. Gives what the cluster has to be asked
    /// for, if it has to be: whoever calls tells the requester.
    pub(super) fn begin(&mut self) -> Option<(Arc<Entry>, Want)> {
        assert!(self.ticket.is_none(), "a wait takes one place");
        self.ticket = Some(self.entry.join_queue(self.want));
        self.entry.needs_more(self.want).then(|| (Arc::clone(&self.entry), self.want))
    }
}

impl Future for PinFuture {
    type Output = Result<Pin, PinError>;

    fn poll(mut self: StdPin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.done, "polled after completion");
        let this = &mut *self;
        let ticket = match this.ticket {
            Some(ticket) => ticket,
            None => {
                if let Some(pin) = this.entry.try_pin(this.want) {
                    this.done = true;
                    return Poll::Ready(Ok(pin));
                }
                let ticket = this.entry.enqueue(this.want);
                *this.ticket.insert(ticket)
            }
        };
        let Some(outcome) = this.entry.poll_ticket(ticket, context.waker()) else {
            if !std::mem::replace(&mut this.is_told, true) {
                this.entry
                    .tell(|requester, entry| requester.waits(entry, ticket.into(), this.want));
            }
            return Poll::Pending;
        };
        this.done = true;
        if this.is_told {
            this.entry.tell(|requester, entry| requester.waited(entry, ticket.into()));
        }
        let entry = Arc::clone(&this.entry);
        Poll::Ready(outcome.map(|()| Pin { entry, want: this.want }))
    }
}

impl Drop for PinFuture {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.filter(|_| !self.done) {
            self.entry.give_up(ticket, self.want);
            if self.is_told {
                self.entry.tell(|requester, entry| requester.waited(entry, ticket.into()));
            }
        }
    }
}

impl fmt::Debug for PinFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinFuture({:?} {:?})", self.entry.name(), self.want)
    }
}
