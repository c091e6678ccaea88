//! Blocks that cannot be read or written: what is lost is told, and the rest goes on.

use std::sync::Arc;

use lcl::{LockClass, Mode};
use mfs::block::{Block, BlockNo};
use mfs::env::{Locks, MountGroup};
use mfs::file::FileId;
use mfs::locks::Resource;
use mfs::ondisk::inode::InodeBlock;
use mfs::ops::{Lookup, NewFile, NewKind, OpenFile, OpenFlags, ReadKind, SetAttributes};
use mfs::{Fs, FsError, MountError, Options};
use mx_base::Duration;
use parking_lot::Mutex;
use sim::disk::{Device, Event, Faults};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};
use sim::solo::Alone;

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
    mount_with(exec, device, incarnation, Options::default()).await
}

async fn mount_with(exec: &Executor, device: &Device, incarnation: u32, options: Options) -> Mount {
    let env = env(exec, device, incarnation);
    let locks = Arc::clone(&env.locks);
    let class: Mutex<Option<Arc<dyn LockClass>>> = Mutex::default();
    let register = |registered| *class.lock() = Some(registered);
    let mounted = mfs::mount(env, options, true, register).await.expect("mounts");
    let class = class.lock().take().expect("registered by the mount");
    Mount { mounted, locks, class }
}

fn device() -> Device {
    Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"))
}

const NEW: NewFile<'static> =
    NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };

async fn made(fs: &Fs, name: &[u8]) -> Result<(FileId, OpenFile), FsError> {
    let open = made_in(fs, fs.root(), name).await?;
    Ok((open.file(), open))
}

async fn made_in(fs: &Fs, directory: FileId, name: &[u8]) -> Result<OpenFile, FsError> {
    let flags = OpenFlags { write: true, ..OpenFlags::default() };
    Ok(fs.create_and_open(directory, name, &NEW, flags).await?.1)
}

async fn made_directory(fs: &Fs, name: &[u8]) -> Result<FileId, FsError> {
    let new = NewFile { kind: NewKind::Directory, permissions: 0o755, ..NEW };
    Ok(fs.create(fs.root(), name, &new).await?.attributes.file)
}

/// The data cannot be written when another node asks for the lock: it is lost with the lock, and what
/// was acknowledged before is not.
#[test]
fn an_fsync_behind_a_surrender_that_lost_data_tells_of_it() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, locks, class } = mount(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let (file, open) = made(&fs, b"f").await.expect("there is room");
        let page = [7; mfs::block::BLOCK_SIZE];
        fs.write(&open, 0, &page).await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
        let data_at = on.visible().into_iter().find(|(_, block)| block.0 == page);
        let set = SetAttributes { permissions: Some(0o600), ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await.expect("changed"));
        fs.fsync(&open).await.expect("durable");
        let unwritable = data_at.map(|(at, _)| at).into_iter().collect();
        on.set_faults(Faults { unwritable, ..Faults::default() });
        fs.write(&open, 0, b"not to be written").await.expect("in memory");

        let inode = Resource::Inode(file.inode);
        let entry = locks.entry(inode.name(), inode.bucket(fs.layout()));
        entry.begin_close();
        let surrendered = lcl::surrender(Arc::clone(&entry), Mode::NL, class).await;
        entry.reopen(Mode::NL);
        assert!(surrendered.damaged);
        let in_place = on.visible()[&BlockNo(file.inode.0)].get::<InodeBlock>().core;
        assert_eq!(in_place.mode.get() & 0o777, 0o600, "the last durable change is in place");

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

/// However many pages wait for it: other files go on, and nothing turns in circles (seed 416178).
#[test]
fn what_cannot_be_written_is_tried_again_once_in_a_while() {
    const PAGES: u64 = 64;
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let options = Options { dirty_pages_max: 100, ..Options::default() };
        let mounted = mount_with(&inside, &on, 1, options).await.mounted;
        let fs = Arc::clone(&mounted.fs);
        let (_, open) = made(&fs, b"f").await.expect("there is room");
        let (_, other) = made(&fs, b"g").await.expect("there is room");
        let page = [7; mfs::block::BLOCK_SIZE];
        let bytes = page.repeat(usize::try_from(PAGES).expect("small"));
        fs.write(&open, 0, &bytes).await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
        let data = on.visible().into_iter().filter(|(_, block)| block.0 == page);
        let unwritable = data.map(|(at, _)| at).collect();
        on.set_faults(Faults { unwritable, ..Faults::default() });
        fs.write(&open, 0, &bytes).await.expect("in memory");
        let before = on.counts().writes;
        for _ in 0..10 {
            inside.sleep(Duration::from_secs(1)).await;
            fs.write(&other, 0, &page).await.expect("there is room");
        }
        let writes = on.counts().writes - before;
        assert!((10..100).contains(&writes), "{writes} writes in ten seconds");
        std::mem::forget((mounted, open, other));
    });
    exec.kill(NODE);
    ran.expect("goes on");
}

/// First block and length.
fn last_write(device: &Device) -> (BlockNo, u64) {
    let written = device.log().into_iter().rev().find_map(|event| match event {
        Event::Issued { at, data, .. } => Some((at, data.len() as u64)),
        Event::Written { .. }
        | Event::FlushBegan { .. }
        | Event::Flushed { .. }
        | Event::Flipped { .. } => None,
    });
    written.expect("something was written")
}

/// What cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Journal,
    InPlace,
}

/// Another node asks for a lock under which something is durable in the journal only, and it cannot be
/// brought in place: that node gets the lock from whoever replays the journal, not from this one.
#[test]
fn locks_of_what_is_durable_in_the_journal_only_are_not_given_up() {
    for broken in [Broken::Journal, Broken::InPlace] {
        kept_until_replayed(broken);
    }
}

fn kept_until_replayed(broken: Broken) {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, locks, class } = mount(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let (file, open) = made(&fs, b"f").await.expect("there is room");
        fs.write(&open, 0, b"acknowledged").await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
        let (at, len) = last_write(&on);
        let unwritable = match broken {
            Broken::Journal => (len..len + 64).map(|i| at.plus(i)).collect(),
            Broken::InPlace => [BlockNo(file.inode.0)].into(),
        };
        on.set_faults(Faults { unwritable, ..Faults::default() });
        if broken == Broken::Journal {
            fs.write(&open, 0, b"never durable").await.expect("in memory");
            fs.fsync(&open).await.expect_err("the journal cannot be written");
        }

        let inode = Resource::Inode(file.inode);
        let entry = locks.entry(inode.name(), inode.bucket(fs.layout()));
        entry.begin_close();
        let (given_up, mut outcome) = futures_channel::oneshot::channel();
        inside.spawn(NODE, async move {
            let _ = given_up.send(lcl::surrender(entry, Mode::NL, class).await);
        });
        inside.sleep(Duration::from_secs(60)).await;
        assert_eq!(outcome.try_recv(), Ok(None), "the lock is given up");
        drop((fs, open));
        mounted.cut_off();
        assert!(outcome.await.expect("this life is over").damaged);
    });
    ran.expect("goes on");
    exec.kill(NODE);
    device.set_faults(Faults::default());
    let exec = Executor::new(2);
    let inside = exec.clone();
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, .. } = mount(&inside, &device, 2).await;
        let fs = Arc::clone(&mounted.fs);
        let Lookup::Found(entry) = fs.lookup(fs.root(), b"f").await.expect("read") else {
            panic!("the file is there");
        };
        let file = entry.attributes.file;
        drop(entry);
        let open = fs.open(file, OpenFlags::default()).await.expect("opens");
        let read = fs.read(&open, 0, 100, ReadKind::Direct).await.expect("read");
        assert_eq!(read.as_slice(), b"acknowledged");
        drop((read, open, fs));
        mounted.leave().await.expect("leaves");
    });
    ran.expect("goes on");
}

/// Room in the journal comes back only behind the block that cannot be written in place.
#[test]
fn nobody_waits_for_ever_for_room_in_a_journal_whose_blocks_cannot_be_written_in_place() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted, .. } = mount(&inside, &on, 1).await;
        let fs = Arc::clone(&mounted.fs);
        let (file, open) = made(&fs, b"f").await.expect("there is room");
        drop(open);
        let unwritable = [BlockNo(file.inode.0)].into();
        on.set_faults(Faults { unwritable, ..Faults::default() });
        for permissions in 0..100_000 {
            let set = SetAttributes { permissions: Some(permissions), ..SetAttributes::default() };
            if let Err(error) = fs.setattr(file, &set).await {
                assert!(matches!(error, FsError::Disk(_)), "{error}");
                drop(fs);
                return mounted.cut_off();
            }
        }
        panic!("the journal is never full");
    });
    exec.kill(NODE);
    ran.expect("goes on");
}

/// The journals of two slots, in place: without a cluster nothing keeps their groups in limbo.
async fn two_journals(exec: &Executor, device: &Device) {
    let Mount { mounted: first, .. } = mount(exec, device, 1).await;
    let other = env(exec, device, 1);
    let second = mfs::mount(other, Options::default(), false, |_| {}).await.expect("mounts");
    second.leave().await.expect("leaves");
    first.leave().await.expect("leaves");
}

/// Its locks are not given free, nor is its slot clean: it is replayed when it can be read again.
#[test]
fn a_journal_that_cannot_be_read_now_is_replayed_later() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        mount(&inside, &on, 1).await.mounted.leave().await.expect("leaves");
        two_journals(&inside, &on).await;
        let Mount { mounted, .. } = mount(&inside, &on, 2).await;
        let fs = Arc::clone(&mounted.fs);
        let (_, open) = made(&fs, b"f").await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
        std::mem::forget((mounted, open));
        last_write(&on).0
    });
    exec.kill(NODE);
    let segment = ran.expect("goes on");
    let exec = Executor::new(2);
    let inside = exec.clone();
    let ran = exec.run(NODE, LIMIT, async move {
        let env = env(&inside, &device, 3);
        let mounted = mfs::mount(env, Options::default(), false, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let dead = Alone::new(2).me();
        device.set_faults(Faults { unreadable: [segment].into(), ..Faults::default() });
        let failed = fs.recover_member(dead).await;
        assert!(failed.is_err(), "{failed:?}");
        device.set_faults(Faults::default());
        let recovered = fs.recover_member(dead).await.expect("replayed");
        assert_eq!((recovered.slots, recovered.locks_damaged), (1, 0));
        let found = fs.lookup(fs.root(), b"f").await.expect("read");
        assert!(matches!(found, Lookup::Found(_)), "{found:?}");
        std::mem::forget((mounted, found));
    });
    exec.kill(NODE);
    ran.expect("goes on");
}

/// What was acknowledged behind the damage is not served as if it had never been: its objects answer
/// EIO, and nothing is allocated from groups whose bitmaps may be too old, until somebody has decided
/// to go on without.
#[test]
fn of_a_damaged_journal_what_comes_before_is_replayed_and_what_is_behind_is_isolated() {
    let (exec, device) = (Executor::new(1), device());
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let Mount { mounted: first, .. } = mount(&inside, &on, 1).await;
        let mut directories = Vec::new();
        for name in [b"a", b"b", b"c"] {
            directories.push(made_directory(&first.fs, name).await.expect("there is room"));
        }
        first.leave().await.expect("leaves");
        two_journals(&inside, &on).await;
        let Mount { mounted, .. } = mount(&inside, &on, 2).await;
        let fs = Arc::clone(&mounted.fs);
        let mut segments = Vec::new();
        for directory in &directories {
            let open = made_in(&fs, *directory, b"f").await.expect("there is room");
            fs.fsync(&open).await.expect("durable");
            segments.push(last_write(&on).0);
            std::mem::forget(open);
        }
        std::mem::forget(mounted);
        (directories, segments)
    });
    exec.kill(NODE);
    let (directories, segments) = ran.expect("goes on");
    device.flip(segments[1], 8 * 200);

    let exec = Executor::new(2);
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let env = env(&inside, &on, 3);
        let mounted = mfs::mount(env, Options::default(), false, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let recovered = fs.recover_member(Alone::new(2).me()).await.expect("as far as it goes");
        assert_eq!((recovered.slots, recovered.segments), (0, 1), "the slot is left for fsck");
        assert!(recovered.locks_damaged > 2, "{recovered:?}");
        let found = fs.lookup(directories[0], b"f").await.expect("read");
        assert!(matches!(found, Lookup::Found(_)), "it comes before the damage: {found:?}");
        let behind = fs.lookup(directories[2], b"f").await;
        assert!(matches!(behind, Err(FsError::Corrupt(_))), "{behind:?}");
        let full = made_in(&fs, fs.root(), b"g").await;
        assert!(full.is_err(), "no group is trusted that the dead may have used");
        let damage = fs.damage();
        let journal = damage.iter().find(|(object, _)| matches!(object, Resource::Slot(_)));
        assert!(journal.is_some_and(|(_, why)| why.contains("damaged")), "{damage:?}");
        std::mem::forget((mounted, found));
    });
    exec.kill(NODE);
    ran.expect("goes on");

    let exec = Executor::new(3);
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let refused = mfs::mount(env(&inside, &on, 4), Options::default(), true, |_| {}).await;
        let why = refused.expect_err("nobody has decided to go on without").to_string();
        assert!(why.contains("fsck.matrixfs -y"), "{why}");
    });
    exec.kill(NODE);
    ran.expect("goes on");
}

/// A mount that died with something in its journal only; the copies of the head of its slot.
fn died_with_something_in_its_journal(device: &Device) -> [BlockNo; 2] {
    let exec = Executor::new(1);
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        mount(&inside, &on, 1).await.mounted.leave().await.expect("leaves");
        two_journals(&inside, &on).await;
        let Mount { mounted, .. } = mount(&inside, &on, 2).await;
        let fs = Arc::clone(&mounted.fs);
        let (_, open) = made(&fs, b"f").await.expect("there is room");
        fs.fsync(&open).await.expect("durable");
        let heads = fs.layout().slot_heads(fs.slot());
        std::mem::forget((mounted, open));
        heads
    });
    exec.kill(NODE);
    ran.expect("goes on")
}

#[test]
fn one_copy_of_a_head_leads_to_the_journal() {
    for lost in 0..2 {
        for is_unreadable in [false, true] {
            let device = device();
            let heads = died_with_something_in_its_journal(&device);
            if is_unreadable {
                device.set_faults(Faults { unreadable: [heads[lost]].into(), ..Faults::default() });
            } else {
                device.flip(heads[lost], 8 * 66);
            }
            let exec = Executor::new(2);
            let inside = exec.clone();
            let ran = exec.run(NODE, LIMIT, async move {
                let Mount { mounted, .. } = mount(&inside, &device, 3).await;
                let fs = Arc::clone(&mounted.fs);
                let found = fs.lookup(fs.root(), b"f").await.expect("read");
                assert!(matches!(found, Lookup::Found(_)), "copy {lost} is lost: {found:?}");
                std::mem::forget((mounted, found));
            });
            exec.kill(NODE);
            ran.expect("goes on");
        }
    }
}

#[test]
fn a_head_that_cannot_be_read_keeps_what_its_journal_may_have_in_limbo() {
    let device = device();
    let heads = died_with_something_in_its_journal(&device);
    let whole = heads.map(|at| device.flip(at, 8 * 66).0);
    let exec = Executor::new(2);
    let (inside, on) = (exec.clone(), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let refused = mfs::mount(env(&inside, &on, 3), Options::default(), true, |_| {}).await;
        let why = refused.expect_err("nobody has decided to go on without").to_string();
        assert!(why.contains("fsck.matrixfs -y") && why.contains("head"), "{why}");
        let env = env(&inside, &on, 3);
        let mounted = mfs::mount(env, Options::default(), false, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let dead = Alone::new(2).me();
        let failed = fs.recover_member(dead).await;
        assert!(matches!(failed, Err(MountError::SlotHead { .. })), "{failed:?}");
        for (at, head) in heads.into_iter().zip(whole) {
            on.put_right(at, head);
        }
        let recovered = fs.recover_member(dead).await.expect("replayed");
        assert_eq!((recovered.slots, recovered.locks_damaged), (1, 0));
        std::mem::forget(mounted);
    });
    exec.kill(NODE);
    ran.expect("goes on");
}
