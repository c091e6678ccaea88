//! What a crash left behind the end of a file never comes back (I10): a truncation that takes
//! several transactions, a crash anywhere in it, and somebody who makes the file longer before the
//! rest is cut.

use std::sync::Arc;

use lcl::pin::{Entry, PinError, Requester, Table, Want};
use lcl::{Bucket, Mode, ResourceName};
use mfs::env::{Env, Locks, Runtime};
use mfs::ops::{Lookup, NewFile, NewKind, OpenFlags, ReadKind, SetAttributes};
use mfs::{Attributes, FileId, Fs, FsError, Options};
use model::Random;
use mx_base::{BoxFuture, Duration, Instant, Member, Timestamp};
use parking_lot::Mutex;
use sim::disk::{Device, Replayer};
use sim::exec::{Executor, Group};
use sim::single::{env, formatted};

const NODE: Group = Group(1);
const LIMIT: Duration = Duration::from_secs(3600);
const BLOCKS: u64 = 64 << 8;
const PAGE: u64 = mfs::block::BLOCK_SIZE_U64;
/// Every other page, so that each is a run of its own: more than one segment of the journal takes.
const RUNS: u64 = 1500;

/// Another node has every file open: no OPEN lock is had in EX. Those who wait for one are kept.
#[derive(Default)]
struct OpenElsewhere(Mutex<Vec<Arc<Entry>>>);

impl Requester for OpenElsewhere {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        let mode = entry.mode().join(want.mode);
        let refused = entry.name().as_bytes()[0] == 8 && mode == Mode::EX;
        if refused && want.no_queue {
            entry.refuse(mode);
        } else if refused {
            self.0.lock().push(Arc::clone(entry));
        } else if mode != entry.mode() {
            entry.raise(mode);
        }
    }
}

struct SharedLocks(Table, Arc<OpenElsewhere>);

impl SharedLocks {
    fn new() -> Arc<SharedLocks> {
        let requester = Arc::new(OpenElsewhere::default());
        let weak: std::sync::Weak<OpenElsewhere> = Arc::downgrade(&requester);
        Arc::new(SharedLocks(Table::new(weak), requester))
    }

    /// Files of which this node waits for the last close elsewhere.
    fn waited_for(&self) -> usize {
        self.1.0.lock().len()
    }
}

impl Locks for SharedLocks {
    fn entry(&self, name: ResourceName, bucket: Bucket) -> Arc<Entry> {
        self.0.entry(name, bucket)
    }
    fn idle(&self, _: &Arc<Entry>) {}
    fn is_home(&self, _: Bucket) -> bool {
        true
    }
    fn limbo_of(
        &self,
        _: Member,
        live: Vec<ResourceName>,
    ) -> BoxFuture<'static, Result<Vec<ResourceName>, PinError>> {
        Box::pin(std::future::ready(Ok(live)))
    }
    fn wanted_of(&self, _dead: Member) -> Vec<ResourceName> {
        Vec::new()
    }

    fn replayed(&self, _: Member, _: Vec<ResourceName>) {}
    fn recovered(&self, _: Member) {}
}

/// What is not waited for begins a while later: as what another node does that has adopted the file.
struct Slow {
    runtime: Arc<dyn Runtime>,
    by: Duration,
}

impl Runtime for Slow {
    fn now(&self) -> Instant {
        self.runtime.now()
    }
    fn wall_time(&self) -> Timestamp {
        self.runtime.wall_time()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.runtime.sleep(duration)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let later = self.runtime.sleep(self.by);
        self.runtime.spawn(Box::pin(async move {
            later.await;
            task.await;
        }));
    }
}

fn slow(env: Env, by: Duration) -> Env {
    Env { runtime: Arc::new(Slow { runtime: Arc::clone(&env.runtime), by }), ..env }
}

async fn mounted(env: Env) -> mfs::Mounted {
    let options = Options { runs_cut_at_once: 1, ..Options::default() };
    mfs::mount(env, options, true, |_| {}).await.expect("mounts")
}

/// Writes a file, makes it durable and truncates it; returns the device and where the truncation
/// began in its log.
fn truncated() -> (Device, usize) {
    let exec = Executor::new(1);
    let device = Device::new(BLOCKS, formatted(1, BLOCKS).expect("formats"));
    let (env, seen) = (env(&exec, &device, 1), device.clone());
    let ran = exec.run(NODE, LIMIT, async move {
        let mounted = mounted(env).await;
        let fs = Arc::clone(&mounted.fs);
        let new = NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 };
        let (made, open) =
            fs.create_and_open(fs.root(), b"f", &new, writing()).await.expect("made");
        let file = made.attributes.file;
        drop(made);
        for run in 0..RUNS {
            let bytes = [0xaa; mfs::block::BLOCK_SIZE];
            fs.write(&open, 2 * run * PAGE, &bytes).await.expect("there is room");
        }
        fs.fsync(&open).await.expect("durable");
        let before = seen.log_len();
        let set = SetAttributes { size: Some(0), ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await.expect("truncates"));
        fs.fsync(&open).await.expect("durable");
        std::mem::forget((mounted, open));
        before
    });
    exec.kill(NODE);
    (device, ran.expect("nothing stops it"))
}

fn writing() -> OpenFlags {
    OpenFlags { write: true, ..OpenFlags::default() }
}

/// The file, after a crash.
struct Found {
    mounted: mfs::Mounted,
    fs: Arc<Fs>,
    file: FileId,
    size: u64,
}

async fn found(env: Env) -> Result<Found, FsError> {
    let mounted = mounted(env).await;
    let fs = Arc::clone(&mounted.fs);
    let Lookup::Found(entry) = fs.lookup(fs.root(), b"f").await? else {
        panic!("it is there");
    };
    let Attributes { file, size, .. } = entry.attributes;
    drop(entry);
    Ok(Found { mounted, fs, file, size })
}

/// Crashes at every moment of a truncation. An attempt gets the moment and whatever makes devices as
/// the crash leaves them, each time another one.
fn for_every_crash(seed: u64, mut attempt: impl FnMut(usize, &mut dyn FnMut() -> Device)) {
    let (device, before) = truncated();
    let mut replayer = Replayer::new(device.base());
    let mut random = Random::new(seed);
    for (at, event) in device.log().iter().enumerate() {
        replayer.apply(event);
        if at >= before {
            attempt(at, &mut || Device::new(BLOCKS, replayer.crash(&mut random)));
        }
    }
}

/// Opens the file, makes it longer at once if it is empty, and reads all of it.
async fn extended(env: Env, by_write: bool) -> Result<Option<Vec<u8>>, FsError> {
    let Found { mounted, fs, file, size } = found(env).await?;
    if size != 0 {
        return Ok(None);
    }
    let open = fs.open(file, writing()).await?;
    let end = 2 * RUNS * PAGE;
    if by_write {
        fs.write(&open, end, b"x").await?;
    } else {
        let set = SetAttributes { size: Some(end), ..SetAttributes::default() };
        drop(fs.setattr(file, &set).await?);
    }
    let data = fs.read(&open, 0, end, ReadKind::Direct).await?;
    let bytes = data.as_slice().to_vec();
    drop(data);
    drop(open);
    std::mem::forget(mounted);
    Ok(Some(bytes))
}

#[test]
fn what_a_crash_left_behind_the_end_of_a_file_never_comes_back() {
    let mut emptied = 0;
    for_every_crash(7, |at, crashed| {
        for by_write in [true, false] {
            for seed in 0..2 {
                let exec = Executor::new(seed);
                let env = slow(env(&exec, &crashed(), 2), Duration::from_millis(100));
                let read = exec.run(NODE, LIMIT, extended(env, by_write)).expect("goes on");
                exec.kill(NODE);
                if let Some(bytes) = read.expect("no error") {
                    emptied += 1;
                    let old = bytes.iter().position(|byte| *byte == 0xaa);
                    assert_eq!(old, None, "crash behind event {at}, seed {seed}");
                }
            }
        }
    });
    assert!(emptied > 0, "some crash falls into the truncation");
}

/// Writes the file anew while what a crash has left of its truncation is cut, with an fsync on the
/// way; returns what is read when the rest was cut, and how many blocks the rest was, or `None` if
/// it was not truncated.
async fn rewritten(exec: Executor, env: Env) -> Result<Option<(Vec<u8>, u64)>, FsError> {
    const PAGES: u64 = 300;
    let Found { mounted, fs, file, size } = found(env).await?;
    if size != 0 {
        return Ok(None);
    }
    let before = fs.statfs().await?.blocks_free;
    let open = Arc::new(fs.open(file, writing()).await?);
    let (writer, by_writer) = (Arc::clone(&fs), Arc::clone(&open));
    let (written, all_written) = futures_channel::oneshot::channel();
    let time = exec.clone();
    exec.spawn(NODE, async move {
        for page in 0..PAGES {
            let bytes = [0x55; mfs::block::BLOCK_SIZE];
            writer.write(&by_writer, page * PAGE, &bytes).await.expect("there is room");
            time.sleep(Duration::from_micros(20)).await;
        }
        drop((writer, by_writer));
        let _ = written.send(());
    });
    exec.sleep(Duration::from_millis(2)).await;
    fs.fsync(&open).await?;
    all_written.await.expect("written");
    drop(open);
    exec.sleep(Duration::from_millis(50)).await;
    let open = fs.open(file, OpenFlags::default()).await?;
    let read = fs.read(&open, 0, PAGES * PAGE, ReadKind::Direct).await?;
    let bytes = read.as_slice().to_vec();
    drop((read, open));
    let cut = (fs.statfs().await?.blocks_free + PAGES).saturating_sub(before);
    std::mem::forget(mounted);
    Ok(Some((bytes, cut)))
}

#[test]
fn what_is_written_before_the_rest_of_a_truncation_is_cut_stays() {
    let mut most = 0;
    for_every_crash(8, |at, crashed| {
        for seed in 0..4 {
            let exec = Executor::new(seed);
            let env = slow(env(&exec, &crashed(), 2), Duration::from_micros(1500 * seed));
            let read = exec.run(NODE, LIMIT, rewritten(exec.clone(), env));
            exec.kill(NODE);
            if let Some((bytes, cut)) = read.expect("goes on").expect("no error") {
                most = cut.max(most);
                let lost = bytes.iter().position(|byte| *byte != 0x55);
                assert_eq!(lost, None, "crash behind event {at}, seed {seed}");
            }
        }
    });
    assert!(most > RUNS / 2, "some crash leaves much to cut, at most {most} blocks");
}

/// Opens the file beside another node that has it open, and waits until the rest is cut; returns the
/// blocks that came back.
async fn cut_while_open(
    exec: Executor,
    env: Env,
    locks: Arc<SharedLocks>,
) -> Result<Option<u64>, FsError> {
    let Found { mounted, fs, file, size } = found(env).await?;
    if size != 0 {
        return Ok(None);
    }
    let before = fs.statfs().await?.blocks_free;
    let open = fs.open(file, OpenFlags::default()).await?;
    exec.sleep(Duration::from_secs(20)).await;
    assert_eq!(locks.waited_for(), 0, "opens would wait behind it");
    let back = fs.statfs().await?.blocks_free - before;
    drop(open);
    std::mem::forget(mounted);
    Ok(Some(back))
}

#[test]
fn the_rest_of_a_truncation_is_cut_though_another_node_has_the_file_open_and_no_open_waits() {
    let mut cut = 0;
    for_every_crash(9, |_, crashed| {
        let exec = Executor::new(1);
        let locks = SharedLocks::new();
        let mut env = slow(env(&exec, &crashed(), 2), Duration::from_millis(100));
        env.locks = Arc::clone(&locks) as Arc<dyn Locks>;
        let back = exec.run(NODE, LIMIT, cut_while_open(exec.clone(), env, locks));
        exec.kill(NODE);
        cut = back.expect("goes on").expect("no error").unwrap_or(0).max(cut);
    });
    assert!(cut > RUNS / 2, "some crash leaves much to cut, at most {cut} blocks");
}
