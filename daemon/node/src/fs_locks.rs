//! The lock cache as the file system sees it, and the file system as the lock cache sees it.

use std::sync::{Arc, Weak};

use lcl::pin::{Entry, PinError, Requester, Want};
use lcl::{Bucket, BucketName, ClassTable, LockClass, Mode, ResourceName, ValueBlock};
use mfs::env::Locks;
use mfs::locks::Resource;
use mx_base::{BoxFuture, Member};
use parking_lot::RwLock;

use crate::node::Node;

/// Asks the lock cache of a node for what is missed.
pub(crate) struct NodeRequester(Weak<Node>);

impl NodeRequester {
    pub(crate) fn new(node: Weak<Node>) -> NodeRequester {
        NodeRequester(node)
    }
}

impl Requester for NodeRequester {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        let Some(node) = self.0.upgrade() else { return entry.cut_off() };
        node.run(|core, now| match &mut core.locks {
            Some(locks) => locks.handle_missed(entry, want, now),
            None => entry.cut_off(),
        });
    }

    fn missed_together(&self, missed: &[(Arc<Entry>, Want)]) {
        let Some(node) = self.0.upgrade() else {
            return missed.iter().for_each(|(entry, _)| entry.cut_off());
        };
        node.run(|core, now| {
            for (entry, want) in missed {
                match &mut core.locks {
                    Some(locks) => locks.handle_missed(entry, *want, now),
                    None => entry.cut_off(),
                }
            }
        });
    }

    fn abandoned(&self, entry: &Arc<Entry>) {
        let Some(node) = self.0.upgrade() else { return };
        node.run(|core, now| {
            if let Some(locks) = &mut core.locks {
                locks.handle_abandoned(entry, now);
            }
        });
    }

    fn waits(&self, entry: &Arc<Entry>, ticket: u64, want: Want) {
        if let Some(node) = self.0.upgrade() {
            node.begins_to_wait(entry.name(), entry.bucket(), ticket, want);
        }
    }

    fn waited(&self, entry: &Arc<Entry>, ticket: u64) {
        if let Some(node) = self.0.upgrade() {
            node.has_waited(entry.name(), ticket);
        }
    }
}

/// The callouts of the file system that is mounted, if one is.
#[derive(Default)]
pub(crate) struct LockClasses(RwLock<Option<Arc<dyn LockClass>>>);

impl LockClasses {
    pub(crate) fn register(&self, class: Arc<dyn LockClass>) {
        *self.0.write() = Some(class);
    }
}

impl ClassTable for LockClasses {
    fn class(&self, _name: &ResourceName) -> Arc<dyn LockClass> {
        match &*self.0.read() {
            Some(class) => Arc::clone(class),
            None => Arc::new(NothingCached),
        }
    }
}

/// For a node that has not mounted anything yet: its locks protect nothing.
struct NothingCached;

impl LockClass for NothingCached {
    fn revoke<'a>(&'a self, _entry: &'a Arc<Entry>, _to: Mode, _pass: u32) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn flush<'a>(
        &'a self,
        _entry: &'a Arc<Entry>,
        _to: Mode,
    ) -> BoxFuture<'a, Result<(), lcl::class::Damaged>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn purge(&self, _entry: &Arc<Entry>, _to: Mode) -> Option<ValueBlock> {
        None
    }

    fn refresh(&self, _entry: &Arc<Entry>, _mode: Mode, _value: Option<&ValueBlock>) {}
}

/// The locks of a node, for the file system on it.
pub(crate) struct NodeLocks(pub(crate) Arc<Node>);

impl NodeLocks {
    fn bucket_names(&self, names: Vec<ResourceName>) -> Vec<BucketName> {
        let layout = &self.0.config().layout;
        let bucket = |name: &ResourceName| Resource::of_name(name).map(|r| r.bucket(layout));
        names
            .into_iter()
            .filter_map(|name| bucket(&name).map(|bucket| BucketName { bucket, name }))
            .collect()
    }
}

impl Locks for NodeLocks {
    fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        self.0.table.entry(name, bucket)
    }

    fn idle(&self, entry: &Arc<Entry>) {
        self.0.run(|core, _| {
            if let Some(locks) = &mut core.locks {
                locks.handle_idle(entry);
            }
        });
    }

    fn is_home(&self, bucket: Bucket) -> bool {
        self.0.look(|core| core.locks.as_ref().is_some_and(|locks| locks.is_home(bucket)))
    }

    fn limbo_of(
        &self,
        dead: Member,
        live: Vec<ResourceName>,
    ) -> BoxFuture<'static, Result<Vec<ResourceName>, PinError>> {
        let names = self.bucket_names(live);
        let node = Arc::clone(&self.0);
        Box::pin(async move { node.limbo_of(dead, names).await })
    }

    fn wanted_of(&self, dead: Member) -> Vec<ResourceName> {
        self.0.run(|core, _| core.take_wanted(dead))
    }

    fn replayed(&self, dead: Member, names: Vec<ResourceName>) {
        let names = self.bucket_names(names);
        self.0.run(|core, now| {
            if let Some(locks) = &mut core.locks
                && let Err(error) = locks.replayed(dead, &names, now)
            {
                tracing::info!(%dead, %error, "somebody else recovers it");
            }
        });
    }

    fn recovered(&self, dead: Member) {
        self.0.finish_recovery(dead);
    }
}
