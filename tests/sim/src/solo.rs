//! Locks, kernel and mount group for a node that is alone: every lock is granted at once and never
//! asked back.

use std::sync::Arc;

use lcl::pin::{Entry, PinError, Requester, Table, Want};
use lcl::{Bucket, ResourceName};
use mfs::env::{JournalPosition, KernelCache, Locks, MountGroup, Usage};
use mfs::file::FileId;
use mx_base::{BoxFuture, Incarnation, Member, NodeId, SlotId};

/// Grants whatever is missed.
#[derive(Debug)]
struct Granting;

impl Requester for Granting {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        let mode = entry.mode().join(want.mode);
        if mode != entry.mode() {
            entry.raise(mode);
        }
    }
}

/// The locks of a node that is alone.
#[derive(Debug)]
pub struct SoloLocks {
    table: Table,
    _granting: Arc<Granting>,
}

impl SoloLocks {
    pub fn new() -> Arc<SoloLocks> {
        let granting = Arc::new(Granting);
        let requester: std::sync::Weak<Granting> = Arc::downgrade(&granting);
        Arc::new(SoloLocks { table: Table::new(requester), _granting: granting })
    }
}

impl Locks for SoloLocks {
    fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        self.table.entry(name, bucket)
    }

    fn idle(&self, _entry: &Arc<Entry>) {}

    fn is_home(&self, _bucket: Bucket) -> bool {
        true
    }

    fn limbo_of(
        &self,
        _dead: Member,
        live: Vec<ResourceName>,
    ) -> BoxFuture<'static, Result<Vec<ResourceName>, PinError>> {
        Box::pin(std::future::ready(Ok(live)))
    }

    fn wanted_of(&self, _dead: Member) -> Vec<ResourceName> {
        Vec::new()
    }

    fn replayed(&self, _dead: Member, _names: Vec<ResourceName>) {}

    fn recovered(&self, _dead: Member) {}
}

/// A kernel that caches nothing.
#[derive(Debug)]
pub struct NoKernel;

impl KernelCache for NoKernel {
    fn remember(&self, _file: FileId) {}

    fn forget_attributes(&self, _file: FileId, _is_directory: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn outdate_attributes(&self, _file: FileId) {}

    fn forget_names(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn forget_pages(
        &self,
        _file: FileId,
        _bytes: Option<std::ops::Range<u64>>,
    ) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn store(&self, _file: FileId, _offset: u64, _bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A group of one.
#[derive(Debug)]
pub struct Alone(Member);

impl Alone {
    /// # Panics
    /// When `incarnation` is not that of a life: they count from 1.
    pub fn new(incarnation: u32) -> Alone {
        assert!(incarnation > 0, "incarnations count from 1");
        let node = NodeId::new(1).expect("in range");
        Alone(Member { node, incarnation: Incarnation(incarnation) })
    }
}

impl MountGroup for Alone {
    fn me(&self) -> Member {
        self.0
    }

    fn is_member(&self, member: Member) -> bool {
        member == self.0
    }

    fn announced_usage(&self) -> Vec<(SlotId, Usage)> {
        Vec::new()
    }

    fn journal_positions(&self) -> Option<Vec<(SlotId, JournalPosition)>> {
        Some(Vec::new())
    }

    fn slot_begun(&self) {}

    fn journal_failed(&self) {}
}
