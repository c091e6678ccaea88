//! Until when this mount may be served from what this node has cached (R13).
//!
//! Keeps true: no request is begun without a permit. What the kernel caches is dropped by whoever
//! renews the lease, when it has run out ([`Notifier::forget_everything`](crate::Notifier)).

use std::sync::atomic::{AtomicU64, Ordering};

use event_listener::Event;
use mx_base::Instant;

/// Renewed from outside; read by every request.
#[derive(Debug)]
pub struct Lease {
    until: AtomicU64,
    renewed: Event,
}

impl Lease {
    /// For a node that nobody else can expel.
    pub fn unlimited() -> Lease {
        Lease { until: AtomicU64::new(u64::MAX), renewed: Event::new() }
    }

    /// Until a moment by this node's clock; later or earlier than before.
    pub fn set(&self, until: Instant) {
        self.until.store(until.0, Ordering::Release);
        self.renewed.notify(usize::MAX);
    }

    pub fn until(&self) -> Instant {
        Instant(self.until.load(Ordering::Acquire))
    }

    pub(crate) fn holds(&self, now: Instant) -> bool {
        let until = self.until();
        until.0 == u64::MAX || now < until
    }

    /// Completes when there is a permit.
    pub(crate) async fn granted(&self, now: impl Fn() -> Instant) {
        loop {
            let renewed = self.renewed.listen();
            if self.holds(now()) {
                return;
            }
            renewed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_request_waits_until_the_lease_is_renewed() {
        let lease = Lease::unlimited();
        assert!(lease.holds(Instant(u64::MAX)));
        lease.set(Instant(5));
        assert!(lease.holds(Instant(4)) && !lease.holds(Instant(5)));
        let mut granted = pin!(lease.granted(|| Instant(7)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(granted.as_mut().poll(&mut context).is_pending());
        lease.set(Instant(7));
        assert!(granted.as_mut().poll(&mut context).is_pending(), "still over");
        lease.set(Instant(8));
        assert!(granted.as_mut().poll(&mut context).is_ready());
    }
}
