//! The device under a mount that is not complete yet, and may have to stop at once.
//!
//! Keeps true: when a revocation has been carried out no write is under way or begins, and the node
//! hears of it only then.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mfs::block::{Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mx_base::{BoxFuture, FsId};

use crate::file_system::FileSystem;
use crate::node::Node;

const REVOKED: u64 = 1 << 63;

/// The device as the mount sees it.
pub(crate) struct RevocableDisk(pub(crate) Arc<Revocable>);

/// See the module.
pub(crate) struct Revocable {
    disk: Arc<dyn Disk>,
    node: Weak<Node>,
    fs: FsId,
    /// Writes under way, and [`REVOKED`].
    state: AtomicU64,
    /// The mount is complete: nothing can be revoked any more.
    is_settled: AtomicBool,
}

impl Revocable {
    pub(crate) fn new(given: &FileSystem, node: Weak<Node>) -> Arc<Revocable> {
        let (disk, fs) = (Arc::clone(&given.disk), given.id);
        let (state, is_settled) = (AtomicU64::new(0), AtomicBool::new(false));
        Arc::new(Revocable { disk, node, fs, state, is_settled })
    }

    /// True when writes are under way; the node is told when the last of them has ended.
    pub(crate) fn revoke(&self) -> bool {
        self.state.fetch_or(REVOKED, Ordering::AcqRel) & !REVOKED != 0
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.state.load(Ordering::Acquire) & !REVOKED != 0
    }

    pub(crate) fn settle(&self) {
        self.is_settled.store(true, Ordering::Release);
    }

    /// `None` when it is revoked. What is refused is not counted: the node hears once, when the
    /// last write that was under way has ended.
    fn begin(self: &Arc<Self>) -> Option<UnderWay> {
        let one_more = |state: u64| (state & REVOKED == 0).then_some(state + 1);
        let begun = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        begun.is_ok().then(|| UnderWay(Arc::clone(self)))
    }

    fn ended(&self) {
        if self.state.fetch_sub(1, Ordering::AcqRel) == REVOKED | 1
            && let Some(node) = self.node.upgrade()
        {
            node.go_on(self.fs);
        }
    }

    fn is_revoked(&self) -> bool {
        self.state.load(Ordering::Acquire) & REVOKED != 0
    }
}

impl Disk for RevocableDisk {
    fn blocks(&self) -> u64 {
        self.0.disk.blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        self.0.disk.read(at, count)
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        if self.0.is_settled.load(Ordering::Acquire) {
            return self.0.disk.write(at, data, durability);
        }
        let Some(under_way) = self.0.begin() else {
            return Box::pin(std::future::ready(Err(DiskError::Fenced)));
        };
        let write = self.0.disk.write(at, data, durability);
        let (sender, done) = futures_channel::oneshot::channel();
        // A task of its own: the mount's may be dropped, the write goes on.
        let Some(node) = self.0.node.upgrade() else {
            return Box::pin(std::future::ready(Err(DiskError::Fenced)));
        };
        node.world.runtime.spawn(Box::pin(async move {
            let written = write.await;
            drop(under_way);
            let _ = sender.send(written);
        }));
        Box::pin(async move { done.await.unwrap_or(Err(DiskError::Fenced)) })
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        if self.0.is_revoked() {
            return Box::pin(std::future::ready(Err(DiskError::Fenced)));
        }
        self.0.disk.flush()
    }

    /// Only by a mount that is complete.
    fn discard(&self, at: BlockNo, count: u64) -> BoxFuture<'static, Result<bool, DiskError>> {
        if !self.0.is_settled.load(Ordering::Acquire) {
            return Box::pin(std::future::ready(Err(DiskError::Fenced)));
        }
        self.0.disk.discard(at, count)
    }
}

/// One write.
struct UnderWay(Arc<Revocable>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended();
    }
}

impl fmt::Debug for Revocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocable").field("state", &self.state).finish_non_exhaustive()
    }
}
