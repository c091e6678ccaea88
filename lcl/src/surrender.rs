//! Giving a cached lock up, or a part of it: the one procedure for every class of locks
//! (`kernel-cache.md`, section 3).
//!
//! Keeps the order: no operation is left, but what relies on less than will be left; then nothing
//! the kernel caches is left; then everything changed is durable in place; then what this node
//! caches is forgotten. The cluster lock is held all the time, and lowered by [`LockCache::handle_surrendered`](crate::LockCache) alone.

use std::sync::Arc;

use dlm::{Mode, ValueBlock};
use mx_base::rules::{Rule, is_kept};

use crate::class::LockClass;
use crate::pin::Entry;

/// How a surrender ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Surrendered {
    /// For the next holder; `None` when nobody can vouch for it.
    pub value: Option<ValueBlock>,
    /// Something could not be made durable, and the class has marked the object damaged.
    pub damaged: bool,
}

/// Carries out the surrender that the lock cache has begun on `entry`: what is left is `to`.
///
/// Waits for pins, for the kernel and for the disk, so it runs as a task of its own, on no thread
/// that a pin may wait for.
pub async fn surrender(entry: Arc<Entry>, to: Mode, class: Arc<dyn LockClass>) -> Surrendered {
    let leaves_pins = class.leaves_pins(&entry, to);
    if leaves_pins {
        entry.exclusive_drained().await;
    } else {
        entry.operations_drained().await;
    }
    for pass in 0.. {
        class.revoke(&entry, to, pass).await;
        // Pages that the kernel asked for meanwhile are served, and then revoked in the next pass.
        entry.kernel_pages_drained().await;
        let is_closed = if leaves_pins { entry.try_close_beside_pins() } else { entry.try_close() };
        if is_closed {
            break;
        }
    }
    let is_flushed = is_kept(Rule::FlushBeforeRelease);
    let damaged = is_flushed && class.flush(&entry, to).await.is_err();
    let value = class.purge(&entry, to).filter(|_| !damaged);
    Surrendered { value, damaged }
}
