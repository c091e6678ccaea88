//! Blocks, holes and flags of files, files without a name, copies of ranges: what the model does not
//! say, on one node.

use std::sync::Arc;

use mfs::block::{BLOCK_SIZE, BLOCK_SIZE_U64};
use mfs::file::{FileFlags, FileId};
use mfs::ops::{
    Allocate, Lookup, NewFile, NewKind, OpenFile, OpenFlags, ReadKind, SeekFor, SetAttributes,
    SetTime,
};
use mfs::{Fs, FsError, Mounted, Options, fsck};
use model::Random;
use mx_base::Duration;
use sim::disk::Device;
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const PAGE: u64 = BLOCK_SIZE_U64;
const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const REGULAR: NewFile<'static> =
    NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };

fn device() -> Device {
    Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"))
}

/// Runs `then` on a mount; what it leaves is on the device, and without fault.
fn on_mount<T: Send + 'static, F>(
    device: &Device,
    life: u32,
    then: impl FnOnce(Arc<Fs>, Executor) -> F + Send + 'static,
) -> T
where
    F: Future<Output = T> + Send + 'static,
{
    let exec = Executor::new(life.into());
    let env = env(&exec, device, life);
    let within = exec.clone();
    let done = exec.run(NODE, LIMIT, async move {
        let mounted: Mounted = {
            let options = Options { runs_cut_at_once: 4, ..Options::default() };
            mfs::mount(env, options, true, |_| {}).await.expect("mounts")
        };
        let value = then(Arc::clone(&mounted.fs), within.clone()).await;
        within.sleep(Duration::from_secs(2)).await;
        mounted.leave().await.expect("left");
        value
    });
    let port = device.port(&exec);
    let report = exec.run(NODE, LIMIT, async move { fsck::check(port, &mut |_, _, _| {}).await });
    let problems = report.expect("goes on").expect("readable").problems;
    assert!(problems.is_empty(), "{problems:?}");
    done.expect("nothing waits for ever")
}

async fn made(fs: &Fs, name: &[u8]) -> OpenFile {
    let (_, open) = fs.create_and_open(fs.root(), name, &REGULAR, WRITE).await.expect("room");
    open
}

async fn found(fs: &Fs, name: &[u8]) -> FileId {
    match fs.lookup(fs.root(), name).await.expect("readable") {
        Lookup::Found(entry) => entry.attributes.file,
        Lookup::Absent(_) => panic!("it is there"),
    }
}

async fn read(fs: &Fs, open: &OpenFile, offset: u64, len: u64) -> Vec<u8> {
    let data = fs.read(open, offset, len, ReadKind::Direct).await.expect("readable");
    data.as_slice().to_vec()
}

async fn sizes(fs: &Fs, file: FileId) -> (u64, u64) {
    let attributes = fs.getattr(file).await.expect("it is there").attributes;
    (attributes.size, attributes.blocks)
}

async fn set_size(fs: &Fs, file: FileId, size: u64) {
    let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
    fs.setattr(file, &set).await.expect("sets");
}

async fn fill(fs: &Fs) {
    let open = made(fs, b"filler").await;
    let (mut at, mut len) = (0, 1 << 20);
    while len >= BLOCK_SIZE {
        match fs.write(&open, at, &vec![0xf1; len]).await {
            Ok(_) => at += len as u64,
            Err(FsError::NoSpace) => len /= 4,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn writes_to_allocated_blocks_find_room_on_a_full_device() {
    const PAGES: u64 = 4096;
    let device = device();
    on_mount(&device, 1, async |fs, _| {
        let open = made(&fs, b"f").await;
        let what = Allocate::Blocks { keep_size: false };
        fs.allocate(&open, what, 0, PAGES * PAGE).await.expect("room");
        assert_eq!(sizes(&fs, open.file()).await, (PAGES * PAGE, PAGES));
        fill(&fs).await;
        // Every other page: many more extents than the nodes that are left could hold.
        for page in (0..PAGES).step_by(2) {
            let written = fs.write(&open, page * PAGE, &[0x5a; BLOCK_SIZE]).await;
            assert!(written.is_ok(), "page {page}: {written:?}");
        }
        fs.fsync(&open).await.expect("durable");
    });
    on_mount(&device, 2, async |fs, _| {
        let open = fs.open(found(&fs, b"f").await, WRITE).await.expect("opens");
        for page in 0..PAGES {
            let expected = if page % 2 == 0 { 0x5a } else { 0 };
            let bytes = read(&fs, &open, page * PAGE, PAGE).await;
            assert!(bytes.iter().all(|byte| *byte == expected), "page {page}");
        }
    });
}

#[test]
fn a_full_device_refuses_to_allocate_and_changes_nothing() {
    on_mount(&device(), 1, async |fs, _| {
        let open = made(&fs, b"f").await;
        fs.write(&open, 0, b"contents").await.expect("room");
        for what in [Allocate::Blocks { keep_size: false }, Allocate::Zeros { keep_size: false }] {
            let done = fs.allocate(&open, what, 0, 2 * BLOCKS * PAGE).await;
            assert!(matches!(done, Err(FsError::NoSpace)), "{done:?}");
            assert_eq!(sizes(&fs, open.file()).await.0, 8);
            assert_eq!(read(&fs, &open, 0, 100).await, b"contents");
        }
        let done = fs.allocate(&open, Allocate::Hole, 0, u64::MAX).await;
        assert!(matches!(done, Err(FsError::FileTooLarge)), "{done:?}");
        let done = fs.allocate(&open, Allocate::Hole, 5, 0).await;
        assert!(matches!(done, Err(FsError::Invalid(_))), "{done:?}");
    });
}

#[test]
fn blocks_behind_the_end_stay_until_the_file_is_cut() {
    let device = device();
    on_mount(&device, 1, async |fs, _| {
        let open = made(&fs, b"f").await;
        fs.write(&open, 0, b"0123456789").await.expect("room");
        let what = Allocate::Blocks { keep_size: true };
        fs.allocate(&open, what, 0, 256 * PAGE).await.expect("room");
        assert_eq!(sizes(&fs, open.file()).await, (10, 256));
        fs.write(&open, PAGE, &[7; 2 * BLOCK_SIZE]).await.expect("room");
        assert_eq!(sizes(&fs, open.file()).await, (3 * PAGE, 256));
        set_size(&fs, open.file(), 100 * PAGE).await;
        fs.fsync(&open).await.expect("durable");
    });
    on_mount(&device, 2, async |fs, _| {
        let file = found(&fs, b"f").await;
        assert_eq!(sizes(&fs, file).await, (100 * PAGE, 256));
        let open = fs.open(file, WRITE).await.expect("opens");
        let bytes = read(&fs, &open, 0, 200 * PAGE).await;
        assert_eq!(bytes.len() as u64, 100 * PAGE);
        assert_eq!(&bytes[..11], b"0123456789\0");
        assert!(bytes[3 * BLOCK_SIZE..].iter().all(|byte| *byte == 0));
        // Also when the size stays.
        set_size(&fs, file, 100 * PAGE).await;
        assert_eq!(sizes(&fs, file).await, (100 * PAGE, 100));
        set_size(&fs, file, 10).await;
        assert_eq!(sizes(&fs, file).await, (10, 1));
    });
}

/// Many extents, so that nodes of the tree come and go in the middle.
#[test]
fn what_is_not_punched_stays_however_deep_the_tree_is() {
    const PAGES: u64 = 3000;
    for seed in 0..3 {
        let device = device();
        let expected = on_mount(&device, 1, async move |fs, _| {
            let mut random = Random::new(seed);
            let open = made(&fs, b"f").await;
            let mut expected = vec![0_u8; usize::try_from(PAGES * PAGE).expect("small")];
            for page in (0..PAGES).step_by(2) {
                fs.write(&open, page * PAGE, &[1; BLOCK_SIZE]).await.expect("room");
                let at = usize::try_from(page * PAGE).expect("small");
                expected[at..at + BLOCK_SIZE].fill(1);
            }
            set_size(&fs, open.file(), PAGES * PAGE).await;
            fs.fsync(&open).await.expect("durable");
            for step in 0..150 {
                let from = random.below(PAGES * PAGE);
                let longest = random.pick(&[PAGE, 20 * PAGE, 900 * PAGE]);
                let to = (from + 1 + random.below(longest)).min(PAGES * PAGE);
                let inside =
                    usize::try_from(from).expect("small")..usize::try_from(to).expect("small");
                let len = to - from;
                let what = match random.below(6) {
                    0 => Allocate::Blocks { keep_size: true },
                    1 => Allocate::Zeros { keep_size: true },
                    2 => {
                        let len = inside.len().min(9_000);
                        let byte = random.next_u64().to_le_bytes()[0];
                        fs.write(&open, from, &vec![byte; len]).await.expect("room");
                        expected[inside.start..inside.start + len].fill(byte);
                        continue;
                    }
                    _ => Allocate::Hole,
                };
                fs.allocate(&open, what, from, len).await.expect("room");
                if !matches!(what, Allocate::Blocks { .. }) {
                    expected[inside].fill(0);
                }
                if step % 15 == 0 {
                    let bytes = read(&fs, &open, 0, PAGES * PAGE).await;
                    let wrong = bytes.iter().zip(&expected).position(|(a, b)| a != b);
                    assert_eq!(wrong, None, "seed {seed} step {step}: {what:?} {from} to {to}");
                }
            }
            expected
        });
        on_mount(&device, 2, async move |fs, _| {
            let open = fs.open(found(&fs, b"f").await, WRITE).await.expect("opens");
            let bytes = read(&fs, &open, 0, PAGES * PAGE).await;
            let wrong = bytes.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "seed {seed}");
            fs.allocate(&open, Allocate::Hole, 0, PAGES * PAGE).await.expect("punches");
            assert_eq!(sizes(&fs, open.file()).await, (PAGES * PAGE, 0));
        });
    }
}

#[test]
fn data_is_what_was_written_and_all_else_is_a_hole() {
    on_mount(&device(), 1, async |fs, _| {
        let open = made(&fs, b"f").await;
        let seek = async |offset, what| fs.seek(&open, offset, what).await.expect("seeks");
        assert_eq!(seek(0, SeekFor::Data).await, None, "an empty file");
        for page in [0, 10] {
            fs.write(&open, page * PAGE, &[1; BLOCK_SIZE]).await.expect("room");
        }
        fs.fsync(&open).await.expect("durable");
        let what = Allocate::Blocks { keep_size: false };
        fs.allocate(&open, what, 20 * PAGE, 10 * PAGE + 1).await.expect("room");
        assert_eq!(seek(0, SeekFor::Hole).await, Some(PAGE));
        assert_eq!(seek(100, SeekFor::Data).await, Some(100));
        assert_eq!(seek(PAGE, SeekFor::Data).await, Some(10 * PAGE));
        assert_eq!(seek(10 * PAGE, SeekFor::Hole).await, Some(11 * PAGE));
        assert_eq!(seek(11 * PAGE, SeekFor::Data).await, None, "never written");
        assert_eq!(seek(25 * PAGE, SeekFor::Hole).await, Some(25 * PAGE));
        fs.write(&open, 25 * PAGE + 7, b"x").await.expect("room");
        assert_eq!(seek(11 * PAGE, SeekFor::Data).await, Some(25 * PAGE), "not on disk yet");
        assert_eq!(seek(25 * PAGE, SeekFor::Hole).await, Some(26 * PAGE));
        fs.allocate(&open, Allocate::Hole, 0, PAGE).await.expect("punches");
        assert_eq!(seek(0, SeekFor::Data).await, Some(10 * PAGE));
        let size = 30 * PAGE + 1;
        assert_eq!(seek(size - 1, SeekFor::Hole).await, Some(size - 1));
        for what in [SeekFor::Data, SeekFor::Hole] {
            assert_eq!(seek(size, what).await, None, "behind the end");
        }
    });
}

#[test]
fn a_file_without_a_name_gets_one_or_goes() {
    let device = device();
    on_mount(&device, 1, async |fs, exec| {
        let before = fs.usage().inodes;
        let unnamed = async |linkable| {
            let made = fs.create_unnamed(fs.root(), &REGULAR, WRITE, linkable).await;
            let (entry, open) = made.expect("room");
            assert_eq!(entry.attributes.links, 0);
            open
        };
        let (named, refused, closed) =
            (unnamed(true).await, unnamed(false).await, unnamed(true).await);
        assert_eq!(fs.usage().inodes, before + 3);
        fs.write(&named, 0, b"kept").await.expect("room");
        fs.link(named.file(), fs.root(), b"named").await.expect("links");
        let done = fs.link(refused.file(), fs.root(), b"refused").await;
        assert!(matches!(done, Err(FsError::NotFound)), "{done:?}");
        // What has a name others open at once, while it is open here still.
        let again = fs.open(named.file(), WRITE).await.expect("opens");
        drop((named, again, closed, refused));
        exec.sleep(Duration::from_secs(1)).await;
        assert_eq!(fs.usage().inodes, before + 1);
        // An unlinked one does not get a name again.
        let open = fs.open(found(&fs, b"named").await, WRITE).await.expect("opens");
        fs.link(open.file(), fs.root(), b"second").await.expect("links");
        let gone = made(&fs, b"gone").await;
        fs.unlink(fs.root(), b"gone").await.expect("unlinks");
        let done = fs.link(gone.file(), fs.root(), b"back").await;
        assert!(matches!(done, Err(FsError::NotFound)), "{done:?}");
    });
    on_mount(&device, 2, async |fs, _| {
        let open = fs.open(found(&fs, b"second").await, WRITE).await.expect("opens");
        assert_eq!(read(&fs, &open, 0, 10).await, b"kept");
    });
}

#[test]
fn a_crash_frees_what_has_no_name() {
    let device = device();
    let before = on_mount(&device, 1, async |fs, _| fs.statfs().await.expect("counts").inodes_free);
    let exec = Executor::new(7);
    let env = env(&exec, &device, 2);
    let crashed = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(env, Options::default(), true, |_| {}).await.expect("mounts");
        let fs = Arc::clone(&mounted.fs);
        let made = fs.create_unnamed(fs.root(), &REGULAR, WRITE, true).await;
        // The pins of the entry go with the answer.
        let open = made.expect("room").1;
        fs.write(&open, 0, &[3; 20_000]).await.expect("room");
        fs.fsync(&open).await.expect("durable");
        std::mem::forget((mounted, open));
    });
    crashed.expect("goes on");
    exec.kill(NODE);
    let after = on_mount(&device, 3, async |fs, exec| {
        exec.sleep(Duration::from_secs(1)).await;
        fs.statfs().await.expect("counts").inodes_free
    });
    assert_eq!(after, before);
}

#[test]
fn a_copy_is_as_reading_and_writing() {
    on_mount(&device(), 1, async |fs, _| {
        let (from, to) = (made(&fs, b"from").await, made(&fs, b"to").await);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        fs.write(&from, 0, &bytes).await.expect("room");
        let copied = fs.copy_range((&from, 5), (&to, 70_000), 1 << 40).await.expect("copies");
        assert_eq!(copied, bytes.len() as u64 - 5);
        assert_eq!(read(&fs, &to, 70_000, 4_000_000).await, bytes[5..]);
        let copied = fs.copy_range((&from, 3_000_000), (&to, 0), 9).await.expect("copies");
        assert_eq!(copied, 0, "at the end");
        let done = fs.copy_range((&from, 0), (&from, 100), 101).await;
        assert!(matches!(done, Err(FsError::Invalid(_))), "{done:?}");
        assert_eq!(fs.copy_range((&from, 0), (&from, 100), 100).await.expect("copies"), 100);
        assert_eq!(read(&fs, &from, 100, 100).await, bytes[..100]);
    });
}

#[test]
fn flags_forbid_what_they_say_on_every_later_mount() {
    let is_refused = |done: Result<(), FsError>| {
        assert!(matches!(done, Err(FsError::NotPermitted(_))), "{done:?}");
    };
    let device = device();
    let immutable = FileFlags { immutable: true, ..FileFlags::default() };
    let append_only = FileFlags { append_only: true, ..FileFlags::default() };
    on_mount(&device, 1, async move |fs, _| {
        let open = made(&fs, b"i").await;
        fs.write(&open, 0, b"x").await.expect("room");
        fs.set_flags(open.file(), immutable).await.expect("sets");
        is_refused(fs.write(&open, 0, b"y").await.map(|_| ()));
        drop(made(&fs, b"a").await);
        fs.set_flags(found(&fs, b"a").await, append_only).await.expect("sets");
        let new = NewFile { kind: NewKind::Directory, ..REGULAR };
        let dir = fs.create(fs.root(), b"d", &new).await.expect("room").attributes.file;
        fs.create(dir, b"in", &REGULAR).await.expect("room");
        fs.set_flags(dir, append_only).await.expect("sets");
    });
    on_mount(&device, 2, async move |fs, _| {
        let (i, a, d) = (found(&fs, b"i").await, found(&fs, b"a").await, found(&fs, b"d").await);
        let root = fs.root();
        assert_eq!(fs.flags(i).await.expect("it is there"), immutable);
        let mode = SetAttributes { permissions: Some(0o600), ..SetAttributes::default() };
        let cut = SetAttributes { size: Some(0), ..SetAttributes::default() };
        let touched = SetAttributes { mtime: Some(SetTime::Now), ..SetAttributes::default() };
        for file in [i, a] {
            is_refused(fs.open(file, WRITE).await.map(|_| ()));
            is_refused(fs.setattr(file, &mode).await.map(|_| ()));
            is_refused(fs.setattr(file, &cut).await.map(|_| ()));
            is_refused(fs.link(file, root, b"l").await.map(|_| ()));
        }
        let how = mfs::ops::SetXattr::default();
        is_refused(fs.set_xattr(i, b"user.x", b"y", how).await);
        is_refused(fs.setattr(i, &touched).await.map(|_| ()));
        fs.setattr(a, &touched).await.expect("it may be written");
        for name in [&b"i"[..], b"a"] {
            is_refused(fs.unlink(root, name).await);
            let kind = mfs::ops::RenameKind::Replace;
            is_refused(fs.rename((root, name), (root, b"n"), kind).await);
            fs.create(root, b"t", &REGULAR).await.expect("room");
            is_refused(fs.rename((root, b"t"), (root, name), kind).await);
            fs.unlink(root, b"t").await.expect("unlinks");
        }
        let open = fs.open(a, OpenFlags { append: true, ..WRITE }).await.expect("to append");
        fs.write(&open, 0, b"more").await.expect("room");
        is_refused(fs.allocate(&open, Allocate::Hole, 0, 1).await.map(|_| ()));
        fs.create(d, b"more", &REGULAR).await.expect("comes");
        is_refused(fs.unlink(d, b"in").await);
        fs.set_flags(d, immutable).await.expect("sets");
        is_refused(fs.create(d, b"no", &REGULAR).await.map(|_| ()));
        is_refused(fs.create_unnamed(d, &REGULAR, WRITE, true).await.map(|_| ()));
        fs.set_flags(i, FileFlags::default()).await.expect("sets");
        fs.unlink(root, b"i").await.expect("unlinks");
    });
}
