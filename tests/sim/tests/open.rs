//! An open while another node has the file's OPEN lock, as a cluster would answer it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lcl::pin::{Entry, PinError, Requester, Table, Want};
use lcl::{Bucket, ResourceName};
use mfs::env::Locks;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFlags};
use mfs::{Fs, FsError};
use mx_base::{BoxFuture, Duration, Member};
use sim::disk::Device;
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const BLOCKS: u64 = 64 << 8;
const OPEN: u8 = 8;

/// Another node may have every OPEN lock in EX.
#[derive(Default)]
struct Elsewhere {
    holds: AtomicBool,
    /// It gives them up when it is called out, which a request that does not queue never causes.
    gives_up: AtomicBool,
}

impl Requester for Elsewhere {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        let mode = entry.mode().join(want.mode);
        let is_open = entry.name().as_bytes()[0] == OPEN;
        if is_open && self.holds.load(Ordering::Relaxed) {
            if want.no_queue {
                return entry.refuse(mode);
            }
            if !self.gives_up.load(Ordering::Relaxed) {
                return;
            }
        }
        if mode != entry.mode() {
            entry.raise(mode);
        }
    }
}

struct TwoSides {
    table: Table,
    elsewhere: Arc<Elsewhere>,
}

impl Locks for TwoSides {
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

/// Runs `then` on a fresh mount with one file in it, which nobody has open.
fn with_file<F>(then: impl FnOnce(Arc<Fs>, FileId, Arc<Elsewhere>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let exec = Executor::new(1);
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let elsewhere = Arc::new(Elsewhere::default());
    let requester: std::sync::Weak<Elsewhere> = Arc::downgrade(&elsewhere);
    let locks = Arc::new(TwoSides { table: Table::new(requester), elsewhere });
    let elsewhere = Arc::clone(&locks.elsewhere);
    let mut env = env(&exec, &device, 1);
    env.locks = locks;
    let done = exec.run(NODE, Duration::from_secs(10), async move {
        let options = mfs::Options::default();
        let mounted = mfs::mount(env, options, true, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let new = NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };
        let made = fs.create(fs.root(), b"file", &new).await.expect("there is room");
        let file = made.attributes.file;
        // Its pins are kept until the kernel has the answer.
        drop(made);
        then(fs, file, elsewhere).await;
    });
    done.expect("no operation waits for ever");
}

#[test]
fn a_lock_that_another_node_keeps_without_need_is_asked_back_for_an_open() {
    with_file(async |fs, file, elsewhere| {
        elsewhere.holds.store(true, Ordering::Relaxed);
        elsewhere.gives_up.store(true, Ordering::Relaxed);
        fs.open(file, OpenFlags::default()).await.expect("the file is there");
    });
}

#[test]
fn a_file_that_waits_for_its_deletion_is_not_opened_again() {
    with_file(async |fs, file, elsewhere| {
        elsewhere.holds.store(true, Ordering::Relaxed);
        fs.unlink(fs.root(), b"file").await.expect("it has a name");
        let opened = fs.open(file, OpenFlags::default()).await;
        assert!(matches!(opened, Err(FsError::Stale)), "{opened:?}");
    });
}
