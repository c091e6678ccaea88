//! The lock cache as the file system sees it, and the file system as the lock cache sees it.

use std::sync::{Arc, Weak};

use lcl::pin::{Entry, PinError, Requester, Want};
use lcl::{Bucket, BucketName, ClassTable, LockClass, Mode, ResourceName, ValueBlock};
use mfs::env::Locks;
use mfs::locks::Resource;
use mx_base::{BoxFuture, FsId, Member};
use parking_lot::RwLock;

use crate::file_system::Here;
use crate::node::Node;

/// Asks the lock cache of a file system of a node for what is missed.
pub(crate) struct NodeRequester {
    node: Weak<Node>,
    fs: FsId,
}

impl NodeRequester {
    pub(crate) fn new(node: Weak<Node>, fs: FsId) -> NodeRequester {
        NodeRequester { node, fs }
    }

    fn here(&self) -> Option<Here> {
        self.node.upgrade()?.here(self.fs)
    }
}

impl Requester for NodeRequester {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        let Some(node) = self.node.upgrade() else { return entry.cut_off() };
        node.run_in(self.fs, |fs, now| match &mut fs.locks {
            Some(locks) => locks.handle_missed(entry, want, now),
            None => entry.cut_off(),
        });
    }

    fn missed_together(&self, missed: &[(Arc<Entry>, Want)]) {
        let Some(node) = self.node.upgrade() else {
            return missed.iter().for_each(|(entry, _)| entry.cut_off());
        };
        node.run_in(self.fs, |fs, now| {
            for (entry, want) in missed {
                match &mut fs.locks {
                    Some(locks) => locks.handle_missed(entry, *want, now),
                    None => entry.cut_off(),
                }
            }
        });
    }

    fn abandoned(&self, entry: &Arc<Entry>) {
        let Some(node) = self.node.upgrade() else { return };
        node.run_in(self.fs, |fs, now| {
            if let Some(locks) = &mut fs.locks {
                locks.handle_abandoned(entry, now);
            }
        });
    }

    fn waits(&self, entry: &Arc<Entry>, ticket: u64, want: Want) {
        if let Some(here) = self.here() {
            here.begins_to_wait(entry.name(), entry.bucket(), ticket, want);
        }
    }

    fn waited(&self, entry: &Arc<Entry>, ticket: u64) {
        if let Some(here) = self.here() {
            here.has_waited(entry.name(), ticket);
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

/// The locks of a file system on a node, for its mount.
pub(crate) struct NodeLocks(pub(crate) Here);

impl NodeLocks {
    fn bucket_names(&self, names: Vec<ResourceName>) -> Vec<BucketName> {
        let layout = &self.0.local.given.layout;
        let bucket = |name: &ResourceName| Resource::of_name(name).map(|r| r.bucket(layout));
        names
            .into_iter()
            .filter_map(|name| bucket(&name).map(|bucket| BucketName { bucket, name }))
            .collect()
    }
}

impl Locks for NodeLocks {
    fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        self.0.local.table.entry(name, bucket)
    }

    fn idle(&self, entry: &Arc<Entry>) {
        self.0.run(|fs, _| {
            if let Some(locks) = &mut fs.locks {
                locks.handle_idle(entry);
            }
        });
    }

    fn is_home(&self, bucket: Bucket) -> bool {
        self.0.look(|fs| fs.locks.as_ref().is_some_and(|locks| locks.is_home(bucket)))
    }

    fn limbo_of(
        &self,
        dead: Member,
        live: Vec<ResourceName>,
    ) -> BoxFuture<'static, Result<Vec<ResourceName>, PinError>> {
        let names = self.bucket_names(live);
        let here = self.0.clone();
        Box::pin(async move { here.limbo_of(dead, names).await })
    }

    fn wanted_of(&self, dead: Member) -> Vec<ResourceName> {
        self.0.run(|fs, _| fs.take_wanted(dead))
    }

    fn replayed(&self, dead: Member, names: Vec<ResourceName>) {
        let names = self.bucket_names(names);
        self.0.run(|fs, now| {
            if let Some(locks) = &mut fs.locks
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
