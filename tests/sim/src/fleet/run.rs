//! A run from its beginning to its end, and what is checked on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fencing::MpIndex;
use fencing::ondisk::format;
use fencing::ondisk::superblock::Superblock;
use mfs::block::Block;
use mfs::mkfs::{self, Format};
use mfs::superblock;
use model::Random;
use mx_base::{ClusterId, Duration, FsId, Instant};
use parking_lot::Mutex;

use super::aim::{Deaths, Phase};
use super::arbiter::Arbiter;
use super::clock::HostClock;
use super::host::Life;
use super::net::Net;
use super::oracle::bounds::HEALED_WITHIN;
use super::oracle::grants::Grants;
use super::oracle::leaves::{self, Leaves};
use super::oracle::views::Views;
use super::oracle::{Oracle, Violation};
use super::plan::{Kind, Plan};
use super::volume::Volume;
use super::work::Work;
use super::{Fleet, Host, Inner, WORLD, nodes_max};
use crate::disk::{Device, Image};
use crate::exec::Executor;

/// Blocks of the device: the smallest that is formatted.
const DEVICE_BLOCKS: u64 = 64 << 8;
/// One unit.
pub(super) const U: Duration = Duration::from_millis(100);

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
    /// How often somebody has frozen the first file system.
    pub freezes: u32,
    /// How often it was checked while it was used, to the end.
    pub checks: u32,
    /// Deaths in the middle of the recovery of another one, by how far that was.
    pub deaths_during_recovery: BTreeMap<Phase, u32>,
    /// Of what was aimed at whoever plays a part in a recovery, what has hit somebody.
    pub hits: u32,
    /// The longest operation of a node that lived on.
    pub longest: (Duration, String),
    /// The longest operation of one that touches nothing of the dead.
    pub longest_bystander: Duration,
    pub beside_leaves: leaves::Counts,
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
        discard: false,
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
        freezes: fleet.arbiters().map(|arbiter| arbiter.judge().freezes()).sum(),
        checks: fleet.checks.load(Ordering::SeqCst),
        late_writes: fleet.arbiters().map(Arbiter::late).sum(),
        deaths_during_recovery,
        hits,
        longest: fleet.works().map(|work| work.longest()).max().unwrap_or_default(),
        longest_bystander: fleet.first().work.bystanders.longest(),
        beside_leaves: fleet.leaves.counts(),
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
            is_starting: AtomicBool::new(false),
            life: Mutex::default(),
            processes: Mutex::default(),
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
            harms_media: plan.harms_media(),
            checks: AtomicU32::new(0),
            grants: Grants::default(),
            leaves: Leaves::default(),
            views: Views::default(),
            dead_held: Mutex::default(),
            deaths: Deaths::default(),
            oracle,
            exec,
        }));
        fleet.arbiters().for_each(|arbiter| arbiter.watch(&fleet));
        let weak = Arc::downgrade(&fleet.0);
        fleet.exec.watch(move |group| {
            if group != WORLD
                && let Some(inner) = weak.upgrade()
            {
                let fleet = Fleet(inner);
                fleet.grants.look(&fleet, group);
            }
        });
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
        self.grants.check_invariants();
        self.make_room()?;
        self.look_at_the_end()?;
        self.grants.check_invariants();
        self.leave_all()?;
        self.check_devices()
    }

    pub(super) fn works(&self) -> impl Iterator<Item = &Arc<Work>> {
        self.volumes.iter().map(|volume| &volume.work)
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

    pub(super) fn check(&self) -> Result<(), Violation> {
        for life in self.lives().into_iter().flatten() {
            if let Some(node) = life.node() {
                self.count_violations(&life, &node);
            }
        }
        self.oracle.first_violation().map_or(Ok(()), Err)
    }

    fn leave_all(&self) -> Result<(), Violation> {
        for host in &self.hosts {
            host.is_wanted.store(false, Ordering::SeqCst);
            host.is_done.store(true, Ordering::SeqCst);
        }
        self.until("everybody has left", HEALED_WITHIN, |f| {
            // Whoever was just being registered as well.
            f.lives().into_iter().flatten().for_each(|life| f.leave(life));
            let is_empty = |host: &Host| {
                !host.is_starting.load(Ordering::SeqCst) && host.life.lock().is_none()
            };
            f.hosts.iter().all(is_empty)
        })
    }

    /// So that nothing refers to itself.
    pub(super) fn take_apart(&self) {
        for life in self.lives().into_iter().flatten() {
            self.kill(&life, true);
        }
        (0..self.plan.nodes).for_each(|host| self.stop_host(host));
        self.hosts.iter().for_each(|host| *host.life.lock() = None);
        self.exec.kill(WORLD);
    }
}
