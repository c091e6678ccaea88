//! What is cached and what is going on with it: the state as an administrator asks for it.

use dlm::{Bucket, LockId, Mode, ResourceName};

use super::cached::{Cached, CachedLocks, Request};
use super::{LockCache, Surrender};

/// One cached lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CachedLock {
    pub name: ResourceName,
    pub bucket: Bucket,
    /// The lock that backs it; `None` while none could be asked for.
    pub lock: Option<LockId>,
    /// What operations of this node may use.
    pub mode: Mode,
    /// Operations that rely on it at this moment.
    pub operations: u64,
    /// Pages that are served to the kernel at this moment.
    pub kernel_pages: u64,
    /// Operations that wait, for other nodes or for each other.
    pub waiters: usize,
    /// What is asked of the lock manager.
    pub asked: Option<Mode>,
    /// What will be left of a surrender that is under way.
    pub surrendering_to: Option<Mode>,
    /// What others wait for beyond the surrender that is under way.
    pub called_out: Option<Mode>,
}

impl LockCache {
    /// Everything that is cached or asked for, by name.
    pub fn cached(&self) -> impl Iterator<Item = CachedLock> + '_ {
        let mut cached: Vec<&Cached> = self.cached.iter().collect();
        cached.sort_unstable_by_key(|cached| cached.entry.name());
        cached.into_iter().map(describe)
    }

    /// What operations of this node may use of everything that is cached or asked for. Each has a place
    /// of its own as long as it is; `None` is a place that is vacant.
    pub fn modes(&self) -> impl Iterator<Item = Option<(ResourceName, Mode)>> + '_ {
        let mode = |cached: &Cached| (cached.entry.name(), cached.entry.mode());
        self.cached.by_place().map(move |cached| cached.map(mode))
    }

    /// One resource; `None` when this node has nothing to do with it.
    pub fn find(&self, name: &ResourceName) -> Option<CachedLock> {
        self.cached.get(CachedLocks::find(&self.table, name)?).map(describe)
    }
}

fn describe(cached: &Cached) -> CachedLock {
    let entry = &cached.entry;
    let (operations, kernel_pages) = entry.pins();
    CachedLock {
        name: entry.name(),
        bucket: entry.bucket(),
        lock: cached.lock,
        mode: entry.mode(),
        operations,
        kernel_pages,
        waiters: entry.waiters(),
        asked: match cached.request {
            Request::None | Request::Deferred => None,
            Request::Asked { wanted, .. } => Some(wanted),
            Request::Granted { mode, .. } => Some(mode),
        },
        surrendering_to: cached.surrender.map(|Surrender { to, .. }| to),
        called_out: cached.called_out,
    }
}
