//! What a lock means to the things it protects: the callouts of the layer above.

use std::sync::Arc;

use dlm::{Mode, ResourceName, ValueBlock};
use mx_base::BoxFuture;

use crate::pin::Entry;

/// The callouts of one class of locks. The file system has one implementation per resource type.
///
/// A surrender from the held mode to `to` calls, in this order: [`revoke`](LockClass::revoke)
/// (repeated while the kernel still fetched pages), [`flush`](LockClass::flush),
/// [`purge`](LockClass::purge). None of them may take a lock that comes before this one in the
/// fixed order of locks (`docs/spec/locks.md`), and none is called for one entry twice at a time.
pub trait LockClass: Send + Sync {
    /// Do all shared pins of the lock rely on no more than CR, and does `to` cover that? Then the
    /// surrender does not wait for them: they may last as long as a file is open.
    fn leaves_pins(&self, entry: &Entry, to: Mode) -> bool {
        let _ = (entry, to);
        false
    }

    /// Invalidates what the kernel caches under the lock and `to` does not allow any more.
    /// Operations hold no pins by then; pages the kernel asks for are still served and have to be
    /// invalidated in the next pass. `pass` counts from 0.
    fn revoke<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode, pass: u32) -> BoxFuture<'a, ()>;

    /// Makes durable in place whatever changed under the lock. No pins exist.
    ///
    /// `Err` when that failed: the class has marked the object damaged by then, and the lock is
    /// given up all the same, without a value block. Where others must not have it so, the class ends
    /// this life of the node, and returns when it has ended: then the lock is in limbo.
    fn flush<'a>(&'a self, entry: &'a Arc<Entry>, to: Mode) -> BoxFuture<'a, Result<(), Damaged>>;

    /// Forgets what this node caches and `to` does not cover. Returns the value block for the
    /// next holder, when the surrender is from a mode that writes.
    fn purge(&self, entry: &Arc<Entry>, to: Mode) -> Option<ValueBlock>;

    /// The lock was granted in `mode`; called before the first pin under it. `value` is what the
    /// last writer left, `None` when nobody can vouch for it.
    fn refresh(&self, entry: &Arc<Entry>, mode: Mode, value: Option<&ValueBlock>);
}

/// Which class a lock belongs to.
pub trait ClassTable: Send + Sync {
    /// The callouts of the locks named so.
    fn class(&self, name: &ResourceName) -> Arc<dyn LockClass>;
}

/// What the lock protects could not be made durable and is isolated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("changes could not be made durable; the object is marked damaged")]
pub struct Damaged;
