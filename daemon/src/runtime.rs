//! Clocks, and the threads that run operations.

use std::fmt;
use std::sync::Arc;

use mx_base::{BoxFuture, Duration, Instant, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;

/// Time since boot, suspended time included (R2).
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    Instant(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// The wall clock.
pub fn wall_time() -> Timestamp {
    let time = clock_gettime(ClockId::Realtime);
    let nanos = u32::try_from(time.tv_nsec).expect("below a second");
    Timestamp { seconds: time.tv_sec, nanos }
}

/// The file system's runtime on tokio.
#[derive(Clone)]
pub struct TokioRuntime(Handle);

impl TokioRuntime {
    pub fn new(handle: Handle) -> Arc<TokioRuntime> {
        Arc::new(TokioRuntime(handle))
    }
}

impl mfs::env::Runtime for TokioRuntime {
    fn now(&self) -> Instant {
        now()
    }

    fn wall_time(&self) -> Timestamp {
        wall_time()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let _entered = self.0.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

impl fmt::Debug for TokioRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokioRuntime")
    }
}
