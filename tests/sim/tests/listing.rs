//! A node that the kernel is told of by a listing counts as known exactly as often as it was told:
//! one count too many, and an invalidation waits for a node that the kernel will never have.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use mfs::env::KernelCache;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind};
use mx_base::{BoxFuture, Duration};
use parking_lot::Mutex;
use sim::disk::Device;
use sim::exec::{Executor, Group};
use sim::fleet::listing::{How, cold_look};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const FILES: usize = 20;

/// Counts what it is told of.
#[derive(Default)]
struct Counting(Mutex<BTreeMap<FileId, u64>>);

impl KernelCache for Counting {
    fn remember(&self, file: FileId) {
        *self.0.lock().entry(file).or_default() += 1;
    }
    fn forget_attributes(&self, _: FileId, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn outdate_attributes(&self, _: FileId) {}
    fn forget_names(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn forget_pages(&self, _: FileId, _: Option<Range<u64>>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
    fn store(&self, _: FileId, _: u64, _: Vec<u8>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn a_listing_of_entries_that_are_not_all_cached_counts_each_of_them_once() {
    let exec = Executor::new(3);
    let device = Device::new(64 << 8, formatted(3, 64 << 8).expect("formatted"));
    let first = env(&exec, &device, 1);
    let kernel = Arc::new(Counting::default());
    let mut second = env(&exec, &device, 2);
    second.kernel = Arc::clone(&kernel) as Arc<dyn KernelCache>;
    let done = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(first, mfs::Options::default(), true, |_| {}).await?;
        let root = mounted.fs.root();
        for i in 0..FILES {
            let new =
                NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };
            mounted.fs.create(root, format!("f{i}").as_bytes(), &new).await?;
        }
        mounted.leave().await?;
        // With nothing cached, but for one of them.
        let mounted = mfs::mount(second, mfs::Options::default(), true, |_| {}).await?;
        let listing = mounted.fs.readdir(root, 0, FILES + 2).await?;
        let one = listing.entries.last().expect("files").file;
        drop(listing);
        mounted.fs.getattr(one).await?;
        let listing = mounted.fs.readdir_plus(root, 0, FILES + 2).await?;
        let told: Vec<FileId> =
            listing.entries.iter().filter(|e| e.entry.is_some()).map(|e| e.file).collect();
        Ok::<_, mfs::MountError>(told)
    });
    let told = done.expect("ends").expect("nothing fails");
    assert_eq!(told.len(), FILES);
    let counted = kernel.0.lock();
    assert_eq!(counted.len(), FILES);
    assert!(told.iter().all(|file| counted[file] == 1), "{counted:?}");
}

#[test]
fn a_cold_listing_with_attributes_costs_one_message_to_each_home_and_one_back_and_no_read() {
    for others in [2, 3, 4] {
        let cost = cold_look(How::Listing, others, 256).expect("nothing fails");
        assert_eq!(cost.attributes, 256, "{others} other nodes");
        assert!(cost.requests <= others as u64, "{others} other nodes: {cost:?}");
        assert!(cost.replies <= others as u64, "{others} other nodes: {cost:?}");
        assert_eq!(cost.blocks_read, 0, "{others} other nodes: {cost:?}");
    }
}

/// The first two ask for themselves; the third may do so beside those that are asked for with it.
#[test]
fn cold_look_ups_in_the_order_of_a_listing_cost_few_messages_and_no_read() {
    for others in [2, 4] {
        let cost = cold_look(How::LookUps, others, 256).expect("nothing fails");
        assert_eq!(cost.attributes, 256, "{others} other nodes");
        assert!(cost.requests <= 3 + others as u64, "{others} other nodes: {cost:?}");
        assert!(cost.replies <= 3 + others as u64, "{others} other nodes: {cost:?}");
        assert_eq!(cost.blocks_read, 0, "{others} other nodes: {cost:?}");
    }
}
