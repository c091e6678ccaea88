//! Reading and writing under locks (Figs. 8 and 9 of seed 003): what is asked for, when data goes
//! to the device, and what becomes of errors.

use std::sync::Arc;

use lcl::pin::{Entry, PinError, Requester, Table, Want};
use lcl::{Bucket, LockClass, Mode, ResourceName};
use mfs::block::BLOCK_SIZE;
use mfs::env::Locks;
use mfs::file::FileId;
use mfs::locks::Resource;
use mfs::ops::{Lookup, NewFile, NewKind, OpenFile, OpenFlags, ReadKind};
use mfs::{Fs, FsError, Options};
use mx_base::{BoxFuture, Duration, Member};
use parking_lot::Mutex;
use sim::disk::{Device, Faults};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const OLD: [u8; 2 * BLOCK_SIZE] = [7; 2 * BLOCK_SIZE];

/// Keeps what is asked for, and grants it.
#[derive(Default)]
struct Asked(Mutex<Vec<(ResourceName, Mode)>>);

impl Requester for Asked {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        self.0.lock().push((entry.name(), want.mode));
        let mode = entry.mode().join(want.mode);
        if mode != entry.mode() {
            entry.raise(mode);
        }
    }
}

struct AskedLocks {
    table: Table,
    asked: Arc<Asked>,
}

impl Locks for AskedLocks {
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

/// A mount with nothing cached, and a file of [`OLD`] in it.
struct Mount {
    exec: Executor,
    device: Device,
    mounted: mfs::Mounted,
    locks: Arc<AskedLocks>,
    class: Arc<dyn LockClass>,
    file: FileId,
    open: OpenFile,
}

impl Mount {
    async fn new(exec: Executor, device: Device, incarnation: u32, is_new: bool) -> Mount {
        let asked = Arc::new(Asked::default());
        let requester: std::sync::Weak<Asked> = Arc::downgrade(&asked);
        let locks = Arc::new(AskedLocks { table: Table::new(requester), asked });
        let mut env = env(&exec, &device, incarnation);
        env.locks = Arc::clone(&locks) as Arc<dyn Locks>;
        let class: Mutex<Option<Arc<dyn LockClass>>> = Mutex::default();
        let register = |registered| *class.lock() = Some(registered);
        let mounted = mfs::mount(env, Options::default(), true, register).await.expect("mounts");
        let class = class.lock().take().expect("registered by the mount");
        let fs = Arc::clone(&mounted.fs);
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let (file, open) = if is_new {
            let new =
                NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };
            let made = fs.create_and_open(fs.root(), b"f", &new, flags).await;
            let (made, open) = made.expect("there is room");
            let file = made.attributes.file;
            // Its pins are kept until the kernel has the answer.
            drop(made);
            fs.write(&open, 0, &OLD).await.expect("there is room");
            (file, open)
        } else {
            let Lookup::Found(entry) = fs.lookup(fs.root(), b"f").await.expect("readable") else {
                panic!("the file is there");
            };
            let file = entry.attributes.file;
            drop(entry);
            (file, fs.open(file, flags).await.expect("opens"))
        };
        Mount { exec, device, mounted, locks, class, file, open }
    }

    fn fs(&self) -> &Fs {
        &self.mounted.fs
    }

    fn lock(&self) -> Arc<Entry> {
        let inode = Resource::Inode(self.file.inode);
        self.locks.entry(inode.name(), inode.bucket(self.fs().layout()))
    }

    /// Modes of the file's lock asked for since the last look.
    fn asked(&self) -> Vec<Mode> {
        let of_file = |(name, mode)| (name == self.lock().name()).then_some(mode);
        std::mem::take(&mut *self.locks.asked.0.lock()).into_iter().filter_map(of_file).collect()
    }

    /// Another node wants the file's lock. Whether what was cached is in order.
    async fn surrender(&self) -> bool {
        let lock = self.lock();
        lock.begin_close();
        let outcome = lcl::surrender(Arc::clone(&lock), Mode::NL, Arc::clone(&self.class)).await;
        lock.reopen(Mode::NL);
        !outcome.damaged
    }

    async fn read(&self) -> Result<Vec<u8>, FsError> {
        let read = self.fs().read(&self.open, 0, OLD.len() as u64, ReadKind::Direct).await?;
        Ok(read.as_slice().to_vec())
    }

    fn is_on_device(&self, bytes: &[u8; BLOCK_SIZE]) -> bool {
        self.device.visible().values().any(|block| block.0 == *bytes)
    }

    /// The blocks of the file can be read, or not.
    fn set_readable(&self, is_readable: bool) {
        let blocks = self.device.visible().into_iter();
        let data = blocks.filter(|(_, block)| block.0[..] == OLD[..BLOCK_SIZE]);
        let unreadable = data.map(|(at, _)| at).filter(|_| !is_readable).collect();
        self.device.set_faults(Faults { unreadable, ..Faults::default() });
    }
}

/// Runs `act` on a mount that has just found the file.
fn on_mount<F>(act: impl FnOnce(Mount) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let exec = Executor::new(1);
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, open, .. } = Mount::new(inside, on, 1, true).await;
        drop(open);
        mounted.leave().await.expect("leaves");
    });
    ran.expect("goes on");
    let exec = Executor::new(2);
    let inside = exec.clone();
    let ran =
        exec.run(NODE, LIMIT, async move { act(Mount::new(inside, device, 2, false).await).await });
    exec.kill(NODE);
    ran.expect("goes on");
}

#[test]
fn a_read_asks_for_a_shared_lock_and_a_write_for_an_exclusive_one_once() {
    on_mount(async |mount| {
        assert!(mount.surrender().await);
        mount.asked();
        for asked in [vec![Mode::PR], vec![]] {
            assert_eq!(mount.read().await.expect("readable"), OLD);
            assert_eq!(mount.asked(), asked);
        }
        for asked in [vec![Mode::EX], vec![]] {
            mount.fs().write(&mount.open, 0, b"new").await.expect("there is room");
            assert_eq!(mount.asked(), asked);
        }
        std::mem::forget(mount);
    });
}

#[test]
fn a_read_that_fails_is_told_and_keeps_no_lock() {
    on_mount(async |mount| {
        mount.set_readable(false);
        let failed = mount.read().await;
        assert!(matches!(failed, Err(FsError::Disk(_))), "{failed:?}");
        assert!(mount.surrender().await, "nobody holds it, nothing is damaged");
        mount.set_readable(true);
        assert_eq!(mount.read().await.expect("readable again"), OLD);
        std::mem::forget(mount);
    });
}

#[test]
fn a_write_into_a_page_that_cannot_be_read_fails_and_changes_nothing() {
    on_mount(async |mount| {
        mount.set_readable(false);
        let failed = mount.fs().write(&mount.open, 100, b"new").await;
        assert!(matches!(failed, Err(FsError::Disk(_))), "{failed:?}");
        assert!(mount.surrender().await, "nobody holds it, nothing is damaged");
        mount.set_readable(true);
        assert_eq!(mount.read().await.expect("readable again"), OLD);
        std::mem::forget(mount);
    });
}

#[test]
fn what_is_written_stays_in_the_cache_until_it_is_old_or_another_node_wants_it() {
    on_mount(async |mount| {
        let (aged, wanted) = ([8; BLOCK_SIZE], [9; BLOCK_SIZE]);
        mount.fs().write(&mount.open, 0, &aged).await.expect("there is room");
        mount.exec.sleep(Duration::from_millis(500)).await;
        assert!(!mount.is_on_device(&aged), "written before it is old");
        mount.exec.sleep(Duration::from_secs(5)).await;
        assert!(mount.is_on_device(&aged), "kept for ever");
        assert_eq!(mount.lock().mode(), Mode::EX, "nobody has asked for the lock");
        mount.fs().write(&mount.open, 0, &wanted).await.expect("there is room");
        assert!(!mount.is_on_device(&wanted));
        assert!(mount.surrender().await);
        assert!(mount.is_on_device(&wanted), "given up without what was written");
        std::mem::forget(mount);
    });
}
