//! One node alone with a device: format, mount, run operations, crash anywhere, look what is left.

use std::collections::BTreeSet;
use std::sync::Arc;

use mfs::env::Env;
use mfs::mkfs::{self, Format};
use mfs::{MountError, Mounted, Options, fsck};
use model::Random;
use model::crash::History;
use model::ops::{Action, Generator, Outcome, Profile};
use model::posix::{Compare, Errno, Ino, Snapshot, Tree, diff};
use mx_base::{ClusterId, Duration, FsId};

use crate::disk::{Device, Event, Image, Replayer};
use crate::driver::{Driver, Mismatch};
use crate::exec::{Executor, Group, SimRuntime};
use crate::solo::{Alone, NoKernel, SoloLocks};
use crate::walk::walk;

const NODE: Group = Group(1);
/// Longer than anything may take in virtual time.
const LIMIT: Duration = Duration::from_secs(3600);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    pub operations: usize,
    pub device_blocks: u64,
}

/// Something that was not as it has to be.
#[derive(Debug)]
pub struct Failure(pub String);

/// What a run has covered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    pub operations: u64,
    pub writes: u64,
    pub crashes: u64,
    pub trace: u64,
}

/// Something that happened between the file system and its user, and when on the device.
enum Moment {
    /// The tree as it is after an operation that is about to run.
    Version(Box<Tree>),
    /// An fsync of the file, begun at this version, was answered.
    Synced(Ino, usize),
    SyncedNames(usize),
}

impl Moment {
    fn tree(&self) -> Option<&Tree> {
        match self {
            Moment::Version(tree) => Some(tree),
            Moment::Synced(..) | Moment::SyncedNames(_) => None,
        }
    }
}

/// What happened, and behind how many events of the device.
type Moments = Vec<(usize, Moment)>;

/// A formatted device.
///
/// # Errors
/// When it cannot be formatted.
pub fn formatted(seed: u64, blocks: u64) -> Result<Image, Failure> {
    let exec = Executor::new(seed);
    let device = Device::new(blocks, Image::new());
    let port = device.port(&exec);
    let mut random = Random::new(seed ^ 0xf0f0);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.next_u64().to_le_bytes());
    let format = Format {
        fs_id: FsId(id),
        cluster_id: ClusterId(id),
        label: "sim".into(),
        hash_key: id,
        discard: false,
        now: exec.wall_time(),
        membership: Vec::new(),
    };
    let done = exec.run(NODE, LIMIT, async move {
        mkfs::format(&*port, &format, |_, _| {}).await.map_err(|e| e.to_string())
    });
    done.map_err(|s| Failure(format!("mkfs: {s:?}")))?.map_err(Failure)?;
    Ok(device.visible())
}

/// What a node that is alone needs, on a device.
pub fn env(exec: &Executor, device: &Device, incarnation: u32) -> Env {
    Env {
        disk: device.port(exec),
        locks: SoloLocks::new(),
        kernel: Arc::new(NoKernel),
        group: Arc::new(Alone::new(incarnation)),
        runtime: Arc::new(SimRuntime { exec: exec.clone(), group: NODE }),
    }
}

/// Options that make small runs write back and checkpoint often.
fn options() -> Options {
    Options {
        dirty_pages_max: 64,
        clean_pages_max: 64,
        checkpoint_interval: Duration::from_millis(700),
        runs_cut_at_once: 2,
        ..Options::default()
    }
}

async fn mounted(env: Env) -> Result<Mounted, MountError> {
    mfs::mount(env, options(), true, |_| {}).await
}

/// Runs the plan without a crash: every answer is the model's, and so is what is found after
/// leaving and mounting again.
///
/// # Errors
/// The first thing that differs.
pub fn run_to_the_end(plan: &Plan) -> Result<Coverage, Failure> {
    let image = formatted(plan.seed, plan.device_blocks)?;
    let (device, moments, mut coverage) = run(plan, image, true)?;
    let tree = moments.iter().rev().find_map(|(_, moment)| moment.tree());
    let mut tree = tree.expect("a run begins with a tree").clone();
    // The handles of the run are closed: what had no name is gone.
    let handles: Vec<_> = tree.handles().map(|(handle, _)| handle).collect();
    for handle in handles {
        tree.release(handle).map_err(|e| Failure(e.to_string()))?;
    }
    let image = device.visible();
    check_image(plan, &image)?;
    let found = look(plan, image, 2, &written_pages(&moments))?;
    if let Some(difference) = diff(&tree.snapshot(), &found, Compare::WithoutTimes) {
        return Err(Failure(format!("after mounting again: {difference}")));
    }
    coverage.crashes = 1;
    Ok(coverage)
}

/// Runs the plan once, then makes what a crash leaves after every single event of the device (every
/// `stride`-th), and for each: fsck finds nothing wrong, the file system mounts, and what is
/// found is explained by the model.
///
/// # Errors
/// The first crash after which something is wrong.
pub fn crash_everywhere(plan: &Plan, stride: usize) -> Result<Coverage, Failure> {
    let image = formatted(plan.seed, plan.device_blocks)?;
    let (device, moments, mut coverage) = run(plan, image, false)?;
    let log = device.log();
    let pages = written_pages(&moments);
    let mut replayer = Replayer::new(device.base());
    let mut moments = moments.into_iter().peekable();
    let mut history: Option<History> = None;
    let mut random = Random::new(plan.seed ^ 0xc4a5);
    for (at, event) in log.iter().enumerate() {
        while let Some((_, moment)) = moments.next_if(|(when, _)| *when <= at) {
            match (moment, &mut history) {
                (Moment::Version(tree), None) => history = Some(History::new(&tree)),
                (Moment::Version(tree), Some(history)) => history.push(&tree),
                (Moment::Synced(ino, version), Some(history)) => history.synced(ino, version),
                (Moment::SyncedNames(version), Some(history)) => history.synced_names(version),
                (_, None) => unreachable!("a run begins with a tree"),
            }
        }
        replayer.apply(event);
        let Some(history) = &history else { continue };
        let is_write = matches!(event, Event::Issued { .. });
        if !(at.is_multiple_of(stride) || is_write && random.chance(10)) {
            continue;
        }
        let mut image = replayer.crash(&mut random);
        coverage.crashes += 1;
        if random.chance(20) {
            let powered_off = Replayer::new(image);
            image = crash_while_mounting(plan, powered_off, &mut random)?;
            coverage.crashes += 1;
        } else if random.chance(20) {
            image = crash_while_mounting(plan, replayer.clone(), &mut random)?;
            coverage.crashes += 1;
        }
        let crashed =
            check_image(plan, &image).and_then(|()| look(plan, image, 3, &pages)).and_then(
                |found| history.judge(&found).map(|_| ()).map_err(|e| Failure(e.to_string())),
            );
        crashed.map_err(|Failure(what)| {
            Failure(format!("crash behind event {at} of {} ({event:?}): {what}", log.len()))
        })?;
    }
    Ok(coverage)
}

/// Mounts what a node has left, and loses power at some moment of that.
fn crash_while_mounting(
    plan: &Plan,
    mut left: Replayer,
    random: &mut Random,
) -> Result<Image, Failure> {
    let exec = Executor::new(random.next_u64());
    let device = Device::new(plan.device_blocks, left.complete());
    let env = env(&exec, &device, 2);
    exec.run(NODE, LIMIT, async move {
        let mounted = mounted(env).await.map_err(|e| Failure(format!("mount: {e}")))?;
        std::mem::forget(mounted);
        Ok(())
    })
    .map_err(|s| Failure(format!("mounting stopped: {s:?}")))??;
    exec.run_for(Duration::from_secs(2));
    exec.kill(NODE);
    let log = device.log();
    let stop = random.below(log.len() as u64 + 1);
    (0..stop).zip(&log).for_each(|(_, event)| left.apply_behind(event));
    Ok(left.crash(random))
}

/// Mounts, runs the operations, leaves if `to_the_end`. Returns the device and what happened when.
fn run(
    plan: &Plan,
    image: Image,
    to_the_end: bool,
) -> Result<(Device, Moments, Coverage), Failure> {
    let exec = Executor::new(plan.seed);
    let device = Device::new(plan.device_blocks, image);
    let env = env(&exec, &device, 1);
    let (plan, exec_in, device_in) = (*plan, exec.clone(), device.clone());
    let outcome = exec.run(NODE, LIMIT, async move {
        let mounted = mounted(env).await.map_err(|e| Failure(format!("mount: {e}")))?;
        let mut driver = Driver::new(Arc::clone(&mounted.fs));
        let moments = drive(&plan, &exec_in, &device_in, &mut driver).await?;
        if to_the_end {
            drop(driver);
            // Orphans of the run go before the file system is left.
            exec_in.sleep(Duration::from_secs(1)).await;
            mounted.leave().await.map_err(|e| Failure(format!("leave: {e}")))?;
        } else {
            std::mem::forget((driver, mounted));
        }
        Ok(moments)
    });
    let moments = outcome.map_err(|s| Failure(format!("the run stopped: {s:?}")))??;
    exec.kill(NODE);
    let coverage = Coverage {
        operations: plan.operations as u64,
        writes: device.counts().writes,
        crashes: 0,
        trace: exec.trace(),
    };
    Ok((device, moments, coverage))
}

async fn drive(
    plan: &Plan,
    exec: &Executor,
    device: &Device,
    driver: &mut Driver,
) -> Result<Moments, Failure> {
    let mut tree = Tree::new(exec.wall_time());
    let mut version = 0;
    let mut moments = vec![(device.log_len(), Moment::Version(Box::new(tree.clone())))];
    let generator = Generator::new(plan.seed, plan.profile);
    let mut done = 0;
    for op in generator {
        if done == plan.operations {
            break;
        }
        let Some(action) = op.resolve(&tree) else { continue };
        if Driver::is_for_kernel(&action) {
            continue;
        }
        done += 1;
        let before = tree.clone();
        let (began, began_at) = (version, device.log_len());
        let expected: Result<Outcome, Errno> = tree.apply(&action, exec.wall_time());
        if action.changes() && expected.is_ok() {
            version += 1;
            moments.push((device.log_len(), Moment::Version(Box::new(tree.clone()))));
        }
        match driver.act(&action, &expected).await {
            Ok(()) => {}
            Err(Mismatch::Full) => {
                let left = driver.fs.statfs().await.map_err(|e| Failure(e.to_string()))?;
                // What other mounts might have claimed aside, full means full.
                if left.blocks_free * 4 > left.blocks {
                    return Err(Failure(format!(
                        "operation {done} {action:?}: full, but {left:?}"
                    )));
                }
                tree = before;
                if version > began {
                    version = began;
                    moments.pop();
                }
                // A write takes it before it finds no room.
                if let Action::Write { ino, .. }
                | Action::Append { ino, .. }
                | Action::Allocate { ino, .. }
                | Action::CopyRange { to: (ino, _), .. } = &action
                    && tree.remove_xattr(*ino, b"security.capability", exec.wall_time()).is_ok()
                {
                    version += 1;
                    moments.push((began_at, Moment::Version(Box::new(tree.clone()))));
                }
                continue;
            }
            Err(Mismatch::Differs { expected, found }) => {
                let what = format!("expected {expected}, found {found}");
                return Err(Failure(format!("operation {done} {action:?}: {what}")));
            }
        }
        if let Action::Fsync { ino } | Action::Fdatasync { ino } = action
            && expected.is_ok()
        {
            let is_file = tree.content(ino).is_ok();
            let moment =
                if is_file { Moment::Synced(ino, began) } else { Moment::SyncedNames(began) };
            moments.push((device.log_len(), moment));
        }
        if exec.draw(|r| r.chance(5)) {
            let trimmed = driver.fs.trim(0..u64::MAX, 1).await;
            trimmed.map_err(|e| Failure(format!("trim: {e}")))?;
        }
        if exec.draw(|r| r.chance(10)) {
            let pause = exec.draw(|r| r.below(2_000));
            exec.sleep(Duration::from_millis(pause)).await;
        }
    }
    Ok(moments)
}

/// Every page that any version of any file holds something in, by offset.
fn written_pages(moments: &[(usize, Moment)]) -> BTreeSet<u64> {
    let trees = moments.iter().filter_map(|(_, moment)| moment.tree());
    trees
        .flat_map(|tree| tree.inos().filter_map(|ino| tree.content(ino).ok()))
        .flat_map(|content| content.written())
        .collect()
}

/// fsck of an image, journals replayed in memory.
fn check_image(plan: &Plan, image: &Image) -> Result<(), Failure> {
    let exec = Executor::new(plan.seed);
    let device = Device::new(plan.device_blocks, image.clone());
    let port = device.port(&exec);
    let report = exec
        .run(NODE, LIMIT, async move { fsck::check(port, &mut |_, _, _| {}).await })
        .map_err(|s| Failure(format!("fsck stopped: {s:?}")))?
        .map_err(|e| Failure(format!("fsck: {e}")))?;
    match &report.problems[..] {
        [] => Ok(()),
        problems => {
            let first: Vec<String> = problems.iter().take(8).map(ToString::to_string).collect();
            Err(Failure(format!("fsck found {}: {}", problems.len(), first.join("; "))))
        }
    }
}

/// Mounts an image, with the recovery that needs, and walks it.
fn look(
    plan: &Plan,
    image: Image,
    incarnation: u32,
    pages: &BTreeSet<u64>,
) -> Result<Snapshot, Failure> {
    let pages = pages.clone();
    let exec = Executor::new(plan.seed ^ 0x100c);
    let device = Device::new(plan.device_blocks, image);
    let env = env(&exec, &device, incarnation);
    exec.run(NODE, LIMIT, async move {
        let mounted = mounted(env).await.map_err(|e| Failure(format!("mount: {e}")))?;
        let found = walk(&mounted.fs, &pages).await.map_err(|e| Failure(format!("walk: {e}")))?;
        mounted.leave().await.map_err(|e| Failure(format!("leave: {e}")))?;
        Ok(found)
    })
    .map_err(|s| Failure(format!("mounting again stopped: {s:?}")))?
}
