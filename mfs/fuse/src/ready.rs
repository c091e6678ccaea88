//! Requests that have waited, and go on.
//!
//! Keeps true: what a thread wakes while it serves a request of the kernel (who waits for a lock that is
//! given up, for a pin that is let go) that thread goes on with itself, behind the request. So whoever
//! waits for another process of this node is answered without a hand-off to a second thread, which
//! costs more than all the rest. What others wake is the runtime's.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use async_task::Runnable;
use mfs::env::Runtime;

/// What one thread goes on with behind one request, at most: the kernel's next one waits for it, and
/// many are sooner done by several.
const AT_ONCE: usize = 8;

thread_local! {
    /// `None` on threads that serve nothing, and between two requests.
    static READY: RefCell<Option<VecDeque<Runnable>>> = const { RefCell::new(None) };
}

/// Serves a request, and goes on with what it has woken.
pub(crate) fn serving(runtime: &Arc<dyn Runtime>, serve: impl FnOnce()) {
    READY.set(Some(VecDeque::new()));
    serve();
    for _ in 0..AT_ONCE {
        let next = READY.with_borrow_mut(|ready| ready.as_mut().and_then(VecDeque::pop_front));
        let Some(task) = next else { break };
        task.run();
    }
    let left = READY.take().unwrap_or_default();
    left.into_iter().for_each(|task| elsewhere(runtime, task));
}

/// Begins to wait: polled here and now, and wherever it is woken.
pub(crate) fn wait(runtime: &Arc<dyn Runtime>, work: impl Future<Output = ()> + Send + 'static) {
    let woken = Arc::clone(runtime);
    let schedule = move |task: Runnable| {
        let foreign = READY.with_borrow_mut(|ready| match ready {
            Some(ready) => {
                ready.push_back(task);
                None
            }
            None => Some(task),
        });
        if let Some(task) = foreign {
            elsewhere(&woken, task);
        }
    };
    let (task, handle) = async_task::spawn(work, schedule);
    handle.detach();
    task.run();
}

fn elsewhere(runtime: &Arc<dyn Runtime>, task: Runnable) {
    runtime.spawn(Box::pin(async move {
        task.run();
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, ThreadId};

    use futures_channel::oneshot;
    use mx_base::{BoxFuture, Duration, Instant, Timestamp};
    use parking_lot::Mutex;

    use super::*;

    /// Polls what it is given at once, and counts it.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Runtime for Counting {
        fn now(&self) -> Instant {
            unreachable!("nobody asks")
        }

        fn wall_time(&self) -> Timestamp {
            unreachable!("nobody asks")
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }

        fn spawn(&self, task: BoxFuture<'static, ()>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            let waker = std::task::Waker::noop();
            let polled = { task }.as_mut().poll(&mut std::task::Context::from_waker(waker));
            assert!(polled.is_ready());
        }
    }

    type Ended = Arc<Mutex<Vec<ThreadId>>>;

    /// Waits that end when what is returned is sent something, and where each has ended.
    fn waits(count: usize) -> (Arc<Counting>, Arc<dyn Runtime>, Vec<oneshot::Sender<()>>, Ended) {
        let counting = Arc::new(Counting::default());
        let runtime: Arc<dyn Runtime> = Arc::clone(&counting) as Arc<dyn Runtime>;
        let ended = Ended::default();
        let begin = |_| {
            let (sender, receiver) = oneshot::channel();
            let ended = Arc::clone(&ended);
            wait(&runtime, async move {
                receiver.await.expect("it is sent");
                ended.lock().push(thread::current().id());
            });
            sender
        };
        let senders = (0..count).map(begin).collect();
        (counting, Arc::clone(&runtime), senders, ended)
    }

    #[test]
    fn what_a_request_wakes_is_gone_on_with_behind_it_by_its_thread() {
        let (counting, runtime, senders, ended) = waits(3);
        serving(&runtime, || {
            senders.into_iter().for_each(|sender| sender.send(()).expect("it waits"));
            assert!(ended.lock().is_empty(), "not within the request");
        });
        assert_eq!(*ended.lock(), vec![thread::current().id(); 3]);
        assert_eq!(counting.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_woken_elsewhere_or_with_many_others_is_the_runtimes() {
        let (counting, runtime, mut senders, ended) = waits(AT_ONCE + 3);
        let alone = senders.pop().expect("one");
        thread::spawn(move || alone.send(()).expect("it waits")).join().expect("sent");
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
        serving(&runtime, || {
            senders.into_iter().for_each(|sender| sender.send(()).expect("it waits"));
        });
        assert_eq!(ended.lock().len(), AT_ONCE + 3);
        assert_eq!(counting.0.load(Ordering::Relaxed), 3);
    }
}
