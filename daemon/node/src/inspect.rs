//! What a node shows of itself to tests and to whoever reports on it. Changes nothing.

use std::sync::Arc;

use lcl::pin::Table;
use lcl::{LockCache, Mode, ResourceName};
use mx_base::{FsId, View, ViewId};

use crate::node::Node;

impl Node {
    /// The view that this node acts in.
    pub fn view(&self) -> Option<View> {
        self.look(|core| core.cluster.view().cloned())
    }

    /// What the membership is doing, in words.
    pub fn activity(&self) -> &'static str {
        self.look(|core| core.cluster.activity())
    }

    /// Every lock of a file system as this node has cached it.
    pub fn table(&self, fs: FsId) -> Option<&Arc<Table>> {
        self.locals.get(&fs).map(|local| &local.table)
    }

    /// The view that this node acts in, and a number that grows whenever the mode of a lock that it has
    /// cached, in whatever file system, may have changed.
    pub fn lock_changes(&self) -> (Option<ViewId>, u64) {
        let changes = |locks: &LockCache| locks.counters().grants + locks.counters().surrenders;
        self.look(|core| {
            let all = core.file_systems.values().filter_map(|fs| fs.locks.as_ref());
            (core.cluster.view().map(|view| view.id), all.map(changes).sum())
        })
    }

    /// See [`LockCache::modes`]; shows them to `see` with their places.
    pub fn see_modes(&self, fs: FsId, mut see: impl FnMut(usize, Option<(ResourceName, Mode)>)) {
        self.look(|core| {
            let locks = core.file_systems.get(&fs).and_then(|fs| fs.locks.as_ref());
            let modes = locks.into_iter().flat_map(LockCache::modes).enumerate();
            modes.for_each(|(place, mode)| see(place, mode));
        });
    }

    /// Is there nothing of a file system of which this node is the home and waits for reports?
    pub fn has_rebuilt(&self, fs: FsId) -> bool {
        self.look(|core| {
            let locks = core.file_systems.get(&fs).and_then(|fs| fs.locks.as_ref());
            locks.is_some_and(|locks| locks.lockspace().unreported().is_empty())
        })
    }

    /// This life is over: nothing that it has cached is used any more.
    pub fn has_ended(&self) -> bool {
        self.look(|core| core.ended.is_some())
    }

    /// Walks everything that is known of locks. No thread may pin meanwhile.
    ///
    /// # Panics
    /// When an invariant does not hold, with the invariant in words.
    pub fn check_locks(&self) {
        self.look(|core| {
            let all = core.file_systems.values().filter_map(|fs| fs.locks.as_ref());
            all.for_each(LockCache::check_invariants);
        });
    }

    /// Payloads of lock traffic that this node has handed to its links, each with one message or a
    /// bundle of them.
    pub fn lock_payloads(&self) -> u64 {
        self.look(|core| core.backlog.sent())
    }
}
