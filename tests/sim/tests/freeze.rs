//! While a file system is frozen nothing is written to it, and what was there before is all there.

use std::sync::Arc;

use mfs::freeze::FreezeError;
use mfs::fsck::{self, Report};
use mfs::ondisk::journal::SEGMENT_MAGIC;
use mfs::ops::{NewFile, NewKind, OpenFlags};
use mfs::{Fs, Mounted, Options};
use mx_base::Duration;
use parking_lot::Mutex;
use sim::disk::{Device, Image};
use sim::exec::{Executor, Group};
use sim::fleet::plan::{Fault, Kind, Plan, Weather};
use sim::fleet::run;
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const REGULAR: NewFile<'static> =
    NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three nodes work, and each of them freezes the file system twice; the rule "at rest" looks at
/// everything that is written meanwhile.
#[test]
fn nobody_writes_while_a_node_has_frozen_what_all_use() {
    let mut froze = 0;
    for seed in 0..4 {
        let freeze = |(number, host): (u64, usize)| {
            let at = ms(1_000 + 700 * number);
            (at, Fault::Freeze { host, length: ms(300) })
        };
        let faults = (0..6).zip([0, 1, 2, 0, 1, 2]).map(freeze).collect();
        let plan = Plan {
            nodes: 3,
            weather: Weather::CALM,
            workers: 3,
            length: ms(6_000),
            faults,
            ..Plan::of_kind(10 * seed, Kind::Calm)
        };
        let report = run(&plan).unwrap_or_else(|what| panic!("{what}\n{}", plan.to_json()));
        assert!(report.operations > 500, "work goes on in between: {}", report.operations);
        froze += report.freezes;
    }
    assert!(froze >= 16, "of 24 some meet another one: {froze}");
}

/// Runs `then` on a mount.
fn on_mount<F>(device: &Device, then: impl FnOnce(Arc<Fs>, Executor) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let exec = Executor::new(1);
    let env = env(&exec, device, 1);
    let within = exec.clone();
    let done = exec.run(NODE, LIMIT, async move {
        let options =
            Options { checkpoint_interval: Duration::from_secs(3000), ..Options::default() };
        let mounted: Mounted = mfs::mount(env, options, true, |_| {}).await.expect("mounts");
        then(Arc::clone(&mounted.fs), within).await;
        mounted.leave().await.expect("left");
    });
    done.expect("nothing waits for ever");
}

async fn write(fs: &Fs, name: &[u8]) {
    let (made, open) = fs.create_and_open(fs.root(), name, &REGULAR, WRITE).await.expect("room");
    drop(made);
    fs.write(&open, 0, &[7; 100_000]).await.expect("room");
}

fn checked(image: Image) -> Report {
    let device = Device::new(BLOCKS, image);
    let exec = Executor::new(2);
    let port = device.port(&exec);
    let report = exec.run(NODE, LIMIT, async move { fsck::check(port, &mut |_, _, _| {}).await });
    report.expect("goes on").expect("readable")
}

#[test]
fn a_copy_made_while_it_is_frozen_needs_no_journal() {
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let within = device.clone();
    on_mount(&device, async move |fs, _| {
        // Neither is durable.
        write(&fs, b"one").await;
        write(&fs, b"two").await;
        fs.freeze(ms(1000), ms(100_000)).await.expect("nothing is in the way");
        let mut copy = within.visible();
        let before = copy.len();
        copy.retain(|_, block| !block.0.starts_with(&SEGMENT_MAGIC.to_le_bytes()));
        assert!(copy.len() < before, "there was a journal");
        let report = checked(copy);
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!((report.inodes, report.entries), (3, 2));
        assert!(fs.thaw());
    });
}

#[test]
fn changes_wait_until_it_is_thawed_and_reads_do_not() {
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    on_mount(&device, async |fs, exec| {
        write(&fs, b"file").await;
        fs.freeze(ms(1000), ms(100_000)).await.expect("nothing is in the way");
        assert!(fs.is_frozen() && fs.frozen_since().is_some());
        assert!(matches!(fs.freeze(ms(1), ms(1)).await, Err(FreezeError::Already)));
        let is_done = Arc::new(Mutex::new(false));
        let (changing, done) = (Arc::clone(&fs), Arc::clone(&is_done));
        exec.spawn(NODE, async move {
            write(&changing, b"later").await;
            *done.lock() = true;
        });
        exec.sleep(ms(5_000)).await;
        assert!(!*is_done.lock());
        fs.lookup(fs.root(), b"file").await.expect("reads go on");
        assert!(fs.thaw());
        exec.sleep(ms(1_000)).await;
        assert!(*is_done.lock());
        assert!(!fs.thaw(), "it is");
    });
}

#[test]
fn what_nobody_thaws_is_thawed_in_time_and_what_is_left_at_once() {
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    on_mount(&device, async |fs, exec| {
        fs.freeze(ms(1000), ms(2_000)).await.expect("nothing is in the way");
        let began = exec.now();
        write(&fs, b"waits").await;
        assert!(exec.now().since(began) >= ms(1_900) && !fs.is_frozen());
        fs.freeze(ms(1000), ms(3_000_000)).await.expect("nothing is in the way");
        // Its unmount does not wait for it.
    });
}
