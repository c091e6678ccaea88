//! What a trim tells the device, on one node.

use std::sync::Arc;

use mfs::block::{BLOCK_SIZE_U64, BlockNo};
use mfs::ops::{NewFile, NewKind, OpenFile, OpenFlags, ReadKind, TrimError};
use mfs::{Fs, FsError, Mounted, Options, fsck};
use mx_base::Duration;
use sim::disk::{Device, Image};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const ALL: std::ops::Range<u64> = 0..u64::MAX;
/// Of one file.
const PAGES: u64 = 300;
const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const REGULAR: NewFile<'static> =
    NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };

fn device() -> Device {
    Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"))
}

/// Runs `then` on a mount; what it leaves is on the device, and without fault.
fn on_mount<F>(device: &Device, options: Options, then: impl FnOnce(Arc<Fs>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let exec = Executor::new(1);
    let env = env(&exec, device, 1);
    let done = exec.run(NODE, LIMIT, async move {
        let mounted: Mounted = mfs::mount(env, options, true, |_| {}).await.expect("mounts");
        then(Arc::clone(&mounted.fs)).await;
        mounted.leave().await.expect("left");
    });
    done.expect("nothing waits for ever");
    let port = device.port(&exec);
    let report = exec.run(NODE, LIMIT, async move { fsck::check(port, &mut |_, _, _| {}).await });
    let problems = report.expect("goes on").expect("readable").problems;
    assert!(problems.is_empty(), "{problems:?}");
}

fn quiet() -> Options {
    Options { checkpoint_interval: Duration::from_secs(3000), ..Options::default() }
}

/// A file full of one byte, on the device.
async fn full(fs: &Fs, name: &[u8], byte: u8) -> OpenFile {
    let (made, open) = fs.create_and_open(fs.root(), name, &REGULAR, WRITE).await.expect("room");
    drop(made);
    let page = vec![byte; usize::try_from(PAGES * BLOCK_SIZE_U64).expect("small")];
    fs.write(&open, 0, &page).await.expect("room");
    fs.fsync(&open).await.expect("durable");
    open
}

/// Blocks that are full of the byte.
fn blocks_of(image: &Image, byte: u8) -> Vec<BlockNo> {
    image.iter().filter(|(_, b)| b.0.iter().all(|b| *b == byte)).map(|(at, _)| *at).collect()
}

#[test]
fn what_is_free_for_good_is_discarded_and_nothing_else() {
    let device = device();
    let within = device.clone();
    on_mount(&device, quiet(), async move |fs| {
        let kept = full(&fs, b"kept", 1).await;
        let gone = full(&fs, b"gone", 2).await;
        assert_eq!(blocks_of(&within.visible(), 2).len() as u64, PAGES);

        drop(gone);
        fs.unlink(fs.root(), b"gone").await.expect("it has a name");
        let before = fs.trim(ALL, 1).await.expect("it can");
        assert!(before.blocks > 0 && before.skipped == 0, "{before:?}");
        assert_eq!(
            blocks_of(&within.visible(), 2).len() as u64,
            PAGES,
            "after a crash it would have its name again"
        );

        fs.sync().await.expect("durable");
        let after = fs.trim(ALL, 1).await.expect("it can");
        assert!(after.blocks >= before.blocks + PAGES, "{before:?} {after:?}");
        assert_eq!(blocks_of(&within.visible(), 2), [], "the device has nothing of it any more");
        assert_eq!(blocks_of(&within.visible(), 1).len() as u64, PAGES);
        let read = fs.read(&kept, 0, PAGES * BLOCK_SIZE_U64, ReadKind::Direct).await;
        assert!(read.expect("readable").as_slice().iter().all(|byte| *byte == 1));
        drop(kept);

        // What is free can be used again, for data and for inodes.
        for i in 0..4_u8 {
            drop(full(&fs, &[b'n', b'0' + i], 3).await);
        }
    });
}

#[test]
fn short_runs_are_left_alone_when_that_is_asked_for() {
    let device = device();
    on_mount(&device, quiet(), async move |fs| {
        fs.sync().await.expect("durable");
        let everything = fs.trim(ALL, 1).await.expect("it can");
        let nothing = fs.trim(ALL, BLOCKS).await.expect("it can");
        assert!(everything.blocks > 0);
        assert_eq!(nothing.blocks, 0);
        assert_eq!(fs.trim(0..0, 1).await.expect("it can").blocks, 0);
    });
}

#[test]
fn nothing_is_trimmed_through_a_mount_that_only_reads() {
    let device = device();
    on_mount(&device, Options { read_only: true, ..quiet() }, async move |fs| {
        let refused = fs.trim(ALL, 1).await;
        assert!(matches!(refused, Err(TrimError::Fs(FsError::ReadOnly))), "{refused:?}");
    });
}
