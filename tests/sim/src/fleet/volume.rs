//! One file system of a fleet: its device behind an arbiter of its own, and what applications do
//! in it on every node.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fencing::DeviceId;
use mfs::layout::Layout;
use mx_base::FsId;

use super::arbiter::Arbiter;
use super::kernel::Mount;
use super::oracle::Oracle;
use super::work::Work;

/// See the module.
pub struct Volume {
    pub(super) fs: FsId,
    pub(super) layout: Layout,
    pub(super) arbiter: Arbiter,
    pub(super) work: Arc<Work>,
    /// Somebody makes the objects, and they are made.
    set_up: AtomicBool,
    is_ready: AtomicBool,
}

impl Volume {
    pub(super) fn new(fs: FsId, layout: Layout, arbiter: Arbiter, work: Arc<Work>) -> Volume {
        let (set_up, is_ready) = (AtomicBool::new(false), AtomicBool::new(false));
        Volume { fs, layout, arbiter, work, set_up, is_ready }
    }

    pub(super) fn device_id(&self) -> DeviceId {
        DeviceId(self.fs.0)
    }

    /// Whoever mounts it first makes what all use.
    pub(super) async fn set_up(&self, mount: &Mount, oracle: &Oracle) {
        if self.set_up.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.work.set_up(mount).await {
            oracle.violation("errors", format!("setting up: {error}"));
        }
        self.is_ready.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("fs", &self.fs).finish_non_exhaustive()
    }
}
