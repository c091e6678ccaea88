//! Blocks that cannot be read or written: what is lost is told, and the rest goes on.

use std::sync::Arc;

use lcl::pin::Want;
use lcl::{LockClass, Mode};
use mfs::block::{Block, BlockNo};
use mfs::env::Locks;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFile, OpenFlags};
use mfs::{Fs, FsError, Options};
use mx_base::Duration;
use parking_lot::Mutex;
use sim::disk::{Device, Faults};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;

/// A mount with its locks and their callouts.
struct Mount {
    mounted: mfs::Mounted,
    locks: Arc<dyn Locks>,
    class: Arc<dyn LockClass>,
}

async fn mount(exec: &Executor, device: &Device, incarnation: u32) -> Mount {
    let env = env(exec, device, incarnation);
    let locks = Arc::clone(&env.locks);
    let class: Mutex<Option<Arc<dyn LockClass>>> = Mutex::default();
    let register = |registered| *class.lock() = Some(registered);
    let mounted = mfs::mount(env, Options::default(), true, register).await.expect("mounts");
    let class = class.lock().take().expect("registered by the mount");
    Mount { mounted, locks, class }
}

fn device() -> Device {
    Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"))
}

async fn made(fs: &Fs, name: &[u8]) -> Result<(FileId, OpenFile), FsError> {
    let new = NewFile { kind: NewKind::Regular, permissions: 0o644, uid: 0, gid: 0 };
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    let (made, open) = fs.create_and_open(fs.root(), name, &new, flags).await?;
    Ok((made.attributes.file, open))
}

/// The file's inode cannot be written in place when another node asks for its lock: what was in the
/// log only is lost with the lock.
#[test]
fn an_fsync_behind_a_surrender_that_lost_changes_tells_of_it() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, locks, class } = mount(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let (file, open) = made(&fs, b"f").await.expect("there is room");
        fs.write(&open, 0, b"synced or told of").await.expect("there is room");

        let inode = mfs::locks::Resource::Inode(file.inode);
        let entry = locks.entry(inode.name(), inode.bucket(fs.layout()));
        drop(entry.pin(Want::read()).await.expect("granted"));
        on.set_faults(Faults { unwritable: [BlockNo(file.inode.0)].into(), ..Faults::default() });
        entry.begin_close();
        let surrendered = lcl::surrender::surrender(Arc::clone(&entry), Mode::NL, class).await;
        entry.reopen(Mode::NL);
        assert!(surrendered.damaged);
        on.set_faults(Faults::default());

        let told = fs.fsync(&open).await;
        assert!(matches!(told, Err(FsError::Damaged)), "{told:?}");
        std::mem::forget((mounted, open));
    });
    exec.kill(NODE);
    ran.expect("goes on");
}

/// Blocks are taken from the other groups.
#[test]
fn files_are_made_beside_a_damaged_group_and_beside_one_that_cannot_be_read() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, .. } = mount(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let (file, open) = made(&fs, b"f").await.expect("there is room");
        drop(open);
        let group = fs.layout().group_of(BlockNo(file.inode.0)).expect("in a group");
        let header = fs.layout().group_header(group);
        drop(fs);
        mounted.leave().await.expect("leaves");
        header
    });
    let header = ran.expect("goes on");
    for is_damaged in [true, false] {
        let mut image = device.visible();
        let mut faults = Faults::default();
        if is_damaged {
            image.insert(header, Block::zeroed().into());
        } else {
            faults.unreadable.insert(header);
        }
        let (exec, device) = (Executor::new(2), Device::new(BLOCKS, image));
        device.set_faults(faults);
        let (inside, on) = (exec.clone(), device.clone());
        let ran = exec.run(NODE, LIMIT, async move {
            let Mount { mounted, .. } = mount(&inside, &on, 2).await;
            let fs = Arc::clone(&mounted.fs);
            for name in [b"g", b"h"] {
                let (_, open) = made(&fs, name).await.expect("the other groups have room");
                let bytes = [1; 3 * mfs::block::BLOCK_SIZE];
                fs.write(&open, 0, &bytes).await.expect("the other groups have room");
                fs.fsync(&open).await.expect("durable");
            }
            drop(fs);
            mounted.leave().await.expect("leaves");
        });
        ran.expect("goes on");
    }
}
