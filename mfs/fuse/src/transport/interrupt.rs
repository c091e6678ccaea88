//! Requests whose process got a signal while it waits for the answer.
//!
//! Without an answer not even SIGKILL ends the wait (`kernel-cache.md`, fact 11). So when a signal ends
//! the process, whoever only looks is told EINTR at once, and so is whoever has not begun. What changes
//! something goes on: half of it may be done. Polled again, it sees that its process got a signal, and
//! may end sooner. A signal that the program handles ends nothing but a wait for a lock, as on one
//! server; the kernel is made to ask again, for the next one may.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;

use super::signals::is_dying;

/// Requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Interrupts(DashMap<u64, Arc<Waiting>>);

/// Who waits, and which signals end that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiter {
    pub(crate) thread: u32,
    /// Not only those that end the process.
    pub(crate) by_any: bool,
}

#[derive(Debug)]
struct Waiting {
    who: Waiter,
    interrupted: Arc<AtomicBool>,
    waker: Mutex<Option<Waker>>,
}

/// What became of a signal.
#[derive(Debug)]
pub(crate) enum Signalled {
    /// The request is given up, or goes on whatever happens.
    Told,
    /// The process handles it, and the request waits on. To be looked at again in a while.
    Handled,
    /// No such request waits: it is answered, or not yet looked at.
    Unknown,
}

impl Interrupts {
    /// The process of a request got a signal.
    pub(crate) fn signal(&self, unique: u64) -> Signalled {
        let Some(waiting) = self.0.get(&unique).map(|waiting| Arc::clone(&waiting)) else {
            return Signalled::Unknown;
        };
        if !waiting.who.by_any && !is_dying(waiting.who.thread) {
            return Signalled::Handled;
        }
        waiting.interrupted.store(true, Ordering::Release);
        if let Some(waker) = waiting.waker.lock().take() {
            waker.wake();
        }
        Signalled::Told
    }

    /// Completes with the answer, or drops it unfinished when `may_stop` and the process got a
    /// signal: then `interrupted` is set.
    pub(crate) async fn attend<F: Future<Output = ()> + ?Sized>(
        &self,
        unique: u64,
        who: Waiter,
        interrupted: Arc<AtomicBool>,
        may_stop: impl Fn() -> bool,
        mut answer: Pin<Box<F>>,
    ) {
        let waiting = Arc::new(Waiting { who, interrupted, waker: Mutex::new(None) });
        if let Entry::Vacant(place) = self.0.entry(unique) {
            place.insert(Arc::clone(&waiting));
        }
        let _forget = Forget { interrupts: self, unique };
        poll_fn(|context| {
            let was_told = waiting.interrupted.load(Ordering::Acquire);
            if answer.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            *waiting.waker.lock() = Some(context.waker().clone());
            if waiting.interrupted.load(Ordering::Acquire) {
                if may_stop() {
                    return Poll::Ready(());
                }
                if !was_told {
                    // The signal came between: the answer has not seen it.
                    context.waker().wake_by_ref();
                }
            }
            Poll::Pending
        })
        .await;
    }
}

struct Forget<'a> {
    interrupts: &'a Interrupts,
    unique: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.interrupts.0.remove(&self.unique);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use super::*;

    fn attend(may_stop: bool) -> (Poll<()>, &'static str, bool) {
        // Nobody has this number.
        attend_as(Waiter { thread: 0, by_any: false }, may_stop)
    }

    fn attend_as(who: Waiter, may_stop: bool) -> (Poll<()>, &'static str, bool) {
        let interrupts = Interrupts::default();
        let interrupted = Arc::new(AtomicBool::new(false));
        let answer = Box::pin(std::future::pending::<()>());
        let mut attended =
            Box::pin(interrupts.attend(7, who, Arc::clone(&interrupted), || may_stop, answer));
        let mut context = Context::from_waker(Waker::noop());
        assert!(attended.as_mut().poll(&mut context).is_pending());
        assert!(matches!(interrupts.signal(8), Signalled::Unknown));
        let signalled = match interrupts.signal(7) {
            Signalled::Told => "told",
            Signalled::Handled => "handled",
            Signalled::Unknown => "unknown",
        };
        let polled = attended.as_mut().poll(&mut context);
        drop(attended);
        assert!(matches!(interrupts.signal(7), Signalled::Unknown), "nothing waits any more");
        (polled, signalled, interrupted.load(Ordering::Acquire))
    }

    #[test]
    fn whoever_only_looks_is_told_and_stops() {
        assert_eq!(attend(true), (Poll::Ready(()), "told", true));
    }

    #[test]
    fn a_signal_that_is_handled_ends_only_waits_for_locks() {
        let thread = std::process::id();
        let handled = attend_as(Waiter { thread, by_any: false }, true);
        assert_eq!(handled, (Poll::Pending, "handled", false));
        let lock = attend_as(Waiter { thread, by_any: true }, false);
        assert_eq!(lock, (Poll::Pending, "told", true));
    }

    #[test]
    fn what_changes_something_goes_on() {
        assert_eq!(attend(false), (Poll::Pending, "told", true));
    }
}
