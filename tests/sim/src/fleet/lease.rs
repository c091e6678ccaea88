//! Until when a mount is served, as `mfs_fuse::Lease` and `Served` of `mxd` have it (`keep_lease`,
//! `give_up`): those need sockets and a kernel.
//!
//! Keeps true: no request is begun without a permit (R13), and what the kernel has cached is dropped
//! when the permit has run out or the life has ended, by a daemon that runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cluster::heartbeat::FOR_EVER;
use futures_channel::oneshot;
use mx_base::{Duration, Instant};
use mx_node::Node;

use super::Fleet;
use super::clock::HostClock;
use super::host::Life;
use super::kernel::{Kernel, Mount};
use crate::exec::Executor;

/// A request that waits for the permit looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Renewed by [`Fleet::keep_lease`], read by every request. Clones are the same one.
#[derive(Clone)]
pub struct Lease {
    exec: Executor,
    clock: HostClock,
    until: Arc<AtomicU64>,
}

impl Lease {
    pub(super) fn new(exec: &Executor, clock: &HostClock, until: Instant) -> Lease {
        let until = Arc::new(AtomicU64::new(until.0));
        Lease { exec: exec.clone(), clock: clock.clone(), until }
    }

    fn set(&self, until: Instant) {
        self.until.store(until.0, Ordering::SeqCst);
    }

    fn holds(&self) -> bool {
        self.clock.now().0 < self.until.load(Ordering::SeqCst)
    }

    /// Completes when there is a permit.
    pub async fn granted(&self) {
        while !self.holds() {
            self.exec.sleep(LOOK_AGAIN).await;
        }
    }
}

impl Fleet {
    /// Keeps the lease of a mount as long as the node's permit, until the process ends.
    pub(super) async fn keep_lease(
        self,
        life: Arc<Life>,
        node: Arc<Node>,
        kernel: Kernel,
        lease: Lease,
    ) {
        let unit = node.config().unit.get();
        let mut is_dropped = false;
        loop {
            let until = node.permit_until();
            lease.set(until);
            let runs_out = until <= lease.clock.now();
            if runs_out && !is_dropped {
                tracing::info!(member = %life.member, "no permit: what the kernel has cached is dropped");
                // Pages that the kernel is reading wait for the permit, and this for them.
                let kernel = kernel.clone();
                self.exec.spawn(life.group(), async move { kernel.forget_everything().await });
            }
            is_dropped = runs_out;
            self.exec.sleep(lease.clock.in_true_time(unit / 2)).await;
        }
    }

    /// The life has ended: its daemon drops what the kernel has cached, unless it dies before.
    pub(super) async fn give_up(&self, life: &Arc<Life>) {
        let (done, is_done) = oneshot::channel::<()>();
        let mounts: Vec<_> = (0..self.volumes.len()).filter_map(|i| life.mount(i)).collect();
        self.exec.spawn(life.group(), async move {
            for Mount { kernel, lease, .. } in mounts {
                // Pages that are being read would hold it up: whoever waits for a permit fails now.
                lease.set(FOR_EVER);
                kernel.forget_everything().await;
            }
            drop(done);
        });
        let _ = is_done.await;
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until).finish_non_exhaustive()
    }
}
