//! A value that another thread will bring: a future that any executor can poll.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use parking_lot::Mutex;

enum State<T> {
    Waiting(Option<Waker>),
    Done(T),
    Taken,
}

/// The receiving side. Dropping it does not stop what it waits for.
#[must_use = "what it waits for goes on, but nobody hears how it ended"]
pub struct Completion<T> {
    state: Arc<Mutex<State<T>>>,
}

/// The side that brings the value.
pub(crate) struct Completer<T> {
    state: Arc<Mutex<State<T>>>,
}

pub(crate) fn completion<T>() -> (Completer<T>, Completion<T>) {
    let state = Arc::new(Mutex::new(State::Waiting(None)));
    (Completer { state: Arc::clone(&state) }, Completion { state })
}

impl<T> Completer<T> {
    pub(crate) fn complete(self, value: T) {
        let before = std::mem::replace(&mut *self.state.lock(), State::Done(value));
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Completion<T> {
    pub(crate) fn ready(value: T) -> Completion<T> {
        Completion { state: Arc::new(Mutex::new(State::Done(value))) }
    }

    /// Stops this thread until the value is there. For programs without an executor, and never on
    /// a thread that others wait for.
    pub fn wait(self) -> T {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut this = self;
        loop {
            match Pin::new(&mut this).poll(&mut context) {
                Poll::Ready(value) => return value,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<T> Future for Completion<T> {
    type Output = T;

    /// # Panics
    /// When it is polled after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            State::Done(_) => match std::mem::replace(&mut *state, State::Taken) {
                State::Done(value) => Poll::Ready(value),
                State::Waiting(_) | State::Taken => unreachable!("just seen"),
            },
            State::Taken => panic!("a completion is ready once"),
        }
    }
}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion(..)")
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reaches_a_thread_that_waits_and_one_that_comes_later() {
        let (completer, completion) = completion();
        let waiting = std::thread::spawn(move || completion.wait());
        completer.complete(5);
        assert_eq!(waiting.join().expect("no panic"), 5);
        assert_eq!(Completion::ready(6).wait(), 6);
    }

    #[test]
    fn dropping_the_receiver_does_no_harm() {
        let (completer, completion) = completion();
        drop(completion);
        completer.complete(5);
    }
}
