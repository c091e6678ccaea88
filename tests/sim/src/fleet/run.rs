//! A run from its beginning to its end, and what is checked on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fencing::MpIndex;
use fencing::ondisk::format;
use fencing::ondisk::superblock::Superblock;
use mfs::block::Block;
use mfs::mkfs::{self, Format};
use mfs::{fsck, superblock};
use model::Random;
use mx_base::{ClusterId, Duration, FsId, Instant};
use parking_lot::Mutex;

use super::aim::{Deaths, Phase};
use super::arbiter::Arbiter;
use super::clock::HostClock;
use super::host::Life;
use super::net::Net;
use super::oracle::bounds::{HEALED_WITHIN, RECOVERED_WITHIN};
use super::oracle::views::Views;
use super::oracle::{Oracle, Violation};
use super::plan::{Kind, Plan};
use super::volume::Volume;
use super::work::Work;
use super::{Fleet, Host, Inner, WORLD, nodes_max};
use crate::disk::{Device, Image};
use crate::exec::{Executor, Stopped};

/// Blocks of the device: the smallest that is formatted.
const DEVICE_BLOCKS: u64 = 64 << 8;
/// One unit.
const U: Duration = Duration::from_millis(100);

/// What a run has covered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub operations: u64,
    pub polls: u64,
    pub frames: u64,
    pub lives: u32,
    pub refused_writes: u64,
    /// Writes that arrived after the process that sent them was gone.
    pub late_writes: u64,
    /// Deaths in the middle of the recovery of another one, by how far that was.
    pub deaths_during_recovery: BTreeMap<Phase, u32>,
    /// Of what was aimed at whoever plays a part in a recovery, what has hit somebody.
    pub hits: u32,
    /// The longest operation of a node that lived on.
    pub longest: (Duration, String),
    /// The longest operation of one that touches nothing of the dead.
    pub longest_bystander: Duration,
    pub virtual_time: Duration,
    /// Equal for equal seeds.
    pub trace: u64,
}

/// A formatted device with a membership partition.
fn formatted(fs: FsId, cluster: ClusterId, nodes_max: u16, blocks: u64) -> Result<Image, String> {
    let exec = Executor::new(1);
    let device = Device::new(blocks, Image::new());
    let port = device.port(&exec);
    let superblock = Superblock {
        cluster,
        partition_id: fs.0,
        index: MpIndex(0),
        count: 1,
        set_epoch: 1,
        nodes_max,
        unit: U,
        sequence: 1,
    };
    let mut membership: BTreeMap<u32, Box<Block>> = BTreeMap::new();
    for (at, block) in format::format(superblock) {
        let mut copy = Block::zeroed();
        copy.0.copy_from_slice(&block.0);
        membership.insert(at.0, copy);
    }
    let format = Format {
        fs_id: fs,
        cluster_id: cluster,
        label: "sim".into(),
        hash_key: fs.0,
        now: exec.wall_time(),
        membership: membership.into_values().collect(),
    };
    let done = exec.run(WORLD, Duration::from_secs(600), async move {
        mkfs::format(&*port, &format, |_, _| {}).await.map_err(|e| e.to_string())
    });
    done.map_err(|s| format!("mkfs: {s:?}"))??;
    Ok(device.visible())
}

/// A file system that was made for this run, and nobody has used.
fn volume(
    plan: &Plan,
    (number, blocks): (usize, u64),
    cluster: ClusterId,
    exec: &Executor,
    oracle: &Oracle,
) -> Result<Volume, String> {
    let fs = FsId([7 + u8::try_from(number).expect("few"); 16]);
    let device = Device::new(blocks, formatted(fs, cluster, nodes_max(plan), blocks)?);
    let port = device.port(exec);
    let read = exec.run(WORLD, U * 100, async move { superblock::read(&*port).await });
    let read = read.map_err(|stopped| format!("superblock: {stopped:?}"))?;
    let layout = read.map_err(|error| error.to_string())?.layout;
    let place = (number, fs, layout);
    let arbiter = Arbiter::new(exec, device, oracle.clone(), plan.weather, place);
    Ok(Volume::new(fs, layout, arbiter, Work::new(exec, oracle, plan)))
}

/// Plays a plan.
///
/// # Errors
/// The first thing that was wrong.
pub fn run(plan: &Plan) -> Result<Report, Violation> {
    let fleet = Fleet::new(plan, DEVICE_BLOCKS)?;
    let outcome = fleet.play();
    let (hits, deaths_during_recovery) = fleet.deaths.counts();
    let report = Report {
        operations: fleet.works().map(|work| work.done.load(Ordering::Relaxed)).sum(),
        polls: fleet.exec.polls(),
        frames: fleet.net.frames(),
        lives: *fleet.next_life.lock(),
        refused_writes: fleet.arbiters().map(Arbiter::refused).sum(),
        late_writes: fleet.arbiters().map(Arbiter::late).sum(),
        deaths_during_recovery,
        hits,
        longest: fleet.works().map(|work| work.longest()).max().unwrap_or_default(),
        longest_bystander: fleet.first().work.bystanders.longest(),
        virtual_time: fleet.exec.now().since(Instant(1_000_000_000)),
        trace: fleet.exec.trace(),
    };
    fleet.take_apart();
    outcome.map(|()| report)
}

impl Fleet {
    /// A cluster that nobody has started yet, over a formatted device of so many blocks.
    pub(super) fn new(plan: &Plan, blocks: u64) -> Result<Fleet, Violation> {
        let cluster_id = ClusterId([7; 16]);
        let exec = Executor::new(plan.seed);
        let oracle = Oracle::new(&exec);
        let made: Result<Vec<Volume>, String> = (0..plan.file_systems)
            .map(|number| volume(plan, (number, blocks), cluster_id, &exec, &oracle))
            .collect();
        let volumes = made.map_err(|what| Violation::new("mkfs", what))?;
        let host = |_| Host {
            is_wanted: AtomicBool::new(true),
            is_done: AtomicBool::new(false),
            life: Mutex::default(),
        };
        let clock = |_| {
            let (ahead, wall) = exec.draw(|r| {
                (Duration::from_millis(r.below(900_000)), Duration::from_millis(r.below(3_000)))
            });
            let drift = |r: &mut Random| r.below(2 * plan.drift + 1);
            let rate = if plan.drift == 0 { 0 } else { exec.draw(drift) };
            HostClock::new(&exec, ahead, wall, 1_000_000 - plan.drift + rate)
        };
        let fleet = Fleet(Arc::new(Inner {
            plan: plan.clone(),
            net: Net::new(&exec, plan.weather),
            volumes,
            cluster_id,
            hosts: (0..plan.nodes).map(host).collect(),
            clocks: (0..plan.nodes).map(clock).collect(),
            next_life: Mutex::new(0),
            unreplayable: Mutex::default(),
            flipped: Mutex::default(),
            views: Views::default(),
            dead_held: Mutex::default(),
            deaths: Deaths::default(),
            oracle,
            exec,
        }));
        fleet.arbiters().for_each(|arbiter| arbiter.watch(&fleet));
        Ok(fleet)
    }

    fn play(&self) -> Result<(), Violation> {
        for host in 0..self.plan.nodes {
            self.exec.spawn(WORLD, self.clone().run_host(host));
        }
        self.exec.spawn(WORLD, self.clone().look());
        self.until("the file system is set up", HEALED_WITHIN, |f| {
            f.volumes.iter().all(Volume::is_ready)
        })?;
        let began = self.exec.now();
        self.first().work.bystanders.watch(self.plan.kind == Kind::Bystanders);
        for (at, fault) in self.plan.faults.clone() {
            self.run_until(began + at)?;
            self.fault(fault);
        }
        self.run_until(began + self.plan.length)?;
        self.first().work.bystanders.watch(false);
        self.check_apart()?;
        self.heal();
        self.until_all_have_mounted()?;
        let now = self.exec.now();
        self.run_until(now + U * 5)?;
        self.works().for_each(|work| work.stop());
        self.until("all operations have ended", HEALED_WITHIN, |f| f.under_way().is_empty())?;
        self.check_times()?;
        self.make_room()?;
        self.look_at_the_end()?;
        self.leave_all()?;
        self.check_devices()
    }

    fn until_all_have_mounted(&self) -> Result<(), Violation> {
        let stays = |life: &Arc<Life>| !life.is_leaving() && !life.has_ended();
        let has_mounted = |life: &Arc<Life>| life.has_mounted() && stays(life);
        self.until("everybody has mounted again", HEALED_WITHIN, |f| {
            f.lives().iter().all(|life| life.as_ref().is_some_and(has_mounted))
        })
    }

    /// Whoever was silent at the last fault may be expelled although it is heard again: a view that
    /// is being committed is not taken back. Then its next life is looked at, once.
    fn look_at_the_end(&self) -> Result<(), Violation> {
        if self.look_at_all()? {
            return Ok(());
        }
        self.until_all_have_mounted()?;
        if self.look_at_all()? {
            return Ok(());
        }
        Err(Violation::new("life", "one has ended again, long behind the last fault"))
    }

    fn works(&self) -> impl Iterator<Item = &Arc<Work>> {
        self.volumes.iter().map(|volume| &volume.work)
    }

    fn under_way(&self) -> Vec<String> {
        self.works().flat_map(|work| work.under_way(None)).collect()
    }

    pub(super) fn lives(&self) -> Vec<Option<Arc<Life>>> {
        self.hosts.iter().map(|host| host.life.lock().clone()).collect()
    }

    /// Runs up to a moment, unless something is wrong before.
    pub(super) fn run_until(&self, at: Instant) -> Result<(), Violation> {
        while self.exec.now() < at {
            self.exec.run_for(at.since(self.exec.now()).min(U));
            // Nothing may have been left to run.
            let now = self.exec.now();
            let exec = self.exec.clone();
            if now < at {
                let nap = exec.sleep(at.since(now).min(U / 10));
                let _ = exec.run(WORLD, U, nap);
            }
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Violation> {
        for life in self.lives().into_iter().flatten() {
            if let Some(node) = life.node() {
                self.count_violations(&life, &node);
            }
        }
        self.oracle.first_violation().map_or(Ok(()), Err)
    }

    pub(super) fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Fleet) -> bool,
    ) -> Result<(), Violation> {
        let began = self.exec.now();
        while !holds(self) {
            if self.exec.now().since(began) > limit {
                let lives = self.lives();
                lives.iter().flatten().for_each(|life| life.log_waits());
                let states: Vec<String> = lives.iter().flatten().map(|l| l.describe()).collect();
                let under_way = self.under_way();
                let what = format!(
                    "not within {limit:?}: {what}; {}; under way: {under_way:?}",
                    states.join("; ")
                );
                return Err(Violation::new("liveness", what));
            }
            self.run_until(self.exec.now() + U / 5)?;
        }
        Ok(())
    }

    // The end

    fn check_times(&self) -> Result<(), Violation> {
        let (longest, what) = self.first().work.longest();
        if self.plan.kind == Kind::OneCrash && longest > RECOVERED_WITHIN {
            let what = format!("{what} took {longest:?}, beside nothing but one crash");
            return Err(Violation::new("recovery time", what));
        }
        Ok(())
    }

    /// Whoever filled the device may not have come to make room again. When that is done everybody
    /// finds room: nobody keeps what he does not need.
    fn make_room(&self) -> Result<(), Violation> {
        let began = self.exec.now();
        let mut have_room = BTreeSet::new();
        while self.first().work.may_be_full() {
            let mut all = true;
            for life in self.lives().into_iter().flatten() {
                let Some(mount) = life.mount(0) else { continue };
                if have_room.contains(&life.member) {
                    continue;
                }
                let work = Arc::clone(&self.first().work);
                let found = async move { work.finds_room(&mount).await };
                match self.exec.run(life.group(), HEALED_WITHIN, found) {
                    Ok(Ok(true)) => {
                        have_room.insert(life.member);
                    }
                    Ok(Ok(false)) => all = false,
                    Ok(Err(error)) => {
                        return Err(Violation::new("room", format!("{}: {error}", life.member)));
                    }
                    Err(stopped) => {
                        return Err(Violation::new("room", format!("looking {stopped:?}")));
                    }
                }
            }
            if all {
                return Ok(());
            }
            if self.exec.now().since(began) > HEALED_WITHIN {
                self.lives().iter().flatten().for_each(|life| life.log_waits());
                let what = format!("only {have_room:?} find any again");
                return Err(Violation::new("room", what));
            }
            self.run_until(self.exec.now() + U)?;
        }
        Ok(())
    }

    /// False when one ended by itself, which excuses what it did not see.
    fn look_at_all(&self) -> Result<bool, Violation> {
        let mut all = true;
        for volume in 0..self.volumes.len() {
            all &= self.look_at_all_of(volume)?;
        }
        Ok(all)
    }

    fn look_at_all_of(&self, volume: usize) -> Result<bool, Violation> {
        let mut all = true;
        for life in self.lives().into_iter().flatten() {
            let Some(mount) = life.mount(volume) else { continue };
            let group = life.group();
            let app = self.app(volume, &life, &mount);
            let done = self.exec.run(group, HEALED_WITHIN, async move { app.look_at_all().await });
            match done {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) if life.has_ended() => all = false,
                Ok(Err(error)) => {
                    return Err(Violation::new("errors", format!("{}: {error}", life.member)));
                }
                Err(stopped) => {
                    self.lives().iter().flatten().for_each(|life| life.log_waits());
                    let left = self.under_way();
                    let what = format!("{}: looking {stopped:?}: {left:?}", life.member);
                    return Err(Violation::new("liveness", what));
                }
            }
            self.check()?;
        }
        Ok(all)
    }

    fn leave_all(&self) -> Result<(), Violation> {
        for (host, life) in self.lives().into_iter().enumerate() {
            self.hosts[host].is_wanted.store(false, Ordering::SeqCst);
            self.hosts[host].is_done.store(true, Ordering::SeqCst);
            if let Some(life) = life {
                self.leave(life);
            }
        }
        self.until("everybody has left", HEALED_WITHIN, |f| f.lives().iter().all(Option::is_none))
    }

    fn check_devices(&self) -> Result<(), Violation> {
        self.mend_medium();
        self.volumes.iter().try_for_each(|volume| self.check_device(volume))
    }

    fn check_device(&self, volume: &Volume) -> Result<(), Violation> {
        let exec = Executor::new(self.plan.seed);
        let device = Device::new(DEVICE_BLOCKS, volume.arbiter.device.visible());
        let port = device.port(&exec);
        let limit = Duration::from_secs(600);
        let report = exec
            .run(WORLD, limit, async move { fsck::check(port, &mut |_, _, _| {}).await })
            .map_err(|s: Stopped| Violation::new("fsck", format!("stopped: {s:?}")))?
            .map_err(|e| Violation::new("fsck", e.to_string()))?;
        let damaged = volume.work.damaged();
        let is_expected =
            |found: &fsck::Problem| found.what == fsck::ISOLATED && damaged.contains(&found.object);
        let problems: Vec<_> = report.problems.into_iter().filter(|p| !is_expected(p)).collect();
        match &problems[..] {
            [] => Ok(()),
            problems => {
                let first: Vec<String> = problems.iter().take(8).map(ToString::to_string).collect();
                let what = format!("found {}: {}", problems.len(), first.join("; "));
                Err(Violation::new("fsck", what))
            }
        }
    }

    /// So that nothing refers to itself.
    pub(super) fn take_apart(&self) {
        for life in self.lives().into_iter().flatten() {
            self.kill(&life, true);
        }
        self.hosts.iter().for_each(|host| *host.life.lock() = None);
        self.exec.kill(WORLD);
    }
}
