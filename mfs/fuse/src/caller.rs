//! For which process a request is being answered, for whoever asks from within.
//!
//! Keeps true: while the answer to a request is polled, and only then, its thread knows the
//! process.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;

thread_local! {
    static CALLER: Cell<u32> = const { Cell::new(0) };
}

/// The process whose request this thread is answering; `None` for what the kernel does on its own
/// account, or this daemon on its.
pub fn pid() -> Option<u32> {
    Some(CALLER.get()).filter(|pid| *pid != 0)
}

pub(crate) fn during<T>(pid: u32, act: impl FnOnce() -> T) -> T {
    let before = CALLER.replace(pid);
    let result = act();
    CALLER.set(before);
    result
}

pub(crate) async fn on_behalf<F: Future>(pid: u32, mut answer: Pin<Box<F>>) -> F::Output {
    poll_fn(move |context| during(pid, || answer.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn the_caller_is_known_while_its_request_is_polled_and_not_after() {
        let mut answer = Box::pin(on_behalf(7, Box::pin(async { pid() })));
        let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Some(7)));
        assert_eq!(pid(), None);
        assert_eq!(during(0, pid), None);
    }
}
