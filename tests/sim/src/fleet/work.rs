//! What applications do on every node, and what they must find.
//!
//! * [`counters`], [`sizes`], [`names`], [`blobs`], [`attributes`]: objects with one writer at a time, whichever node
//!   it is on, of which it is known in which version each must be found ([`super::chain`]).
//! * [`logs`], [`registers`]: files that everybody writes at once. [`tree`]: names that everybody changes
//!   at once.
//! * [`file_locks`]: processes that lock ranges of files.
//! * [`victims`]: files whose blocks the medium may damage. [`room`]: the device is full.
//! * [`bystanders`]: whoever touches nothing that others touch.
//! * [`aside`]: where a replay does not end, files that it does not concern.
//! * [`glance`]: who looks only at what the kernel has already.

pub mod aside;
mod attributes;
mod blobs;
pub mod bystanders;
mod counters;
mod file_locks;
mod glance;
mod logs;
mod names;
mod registers;
mod room;
mod sizes;
mod tree;
mod victims;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFlags, TrimError};
use mfs::{Attributes, FsError};
use mx_base::{Duration, Instant, Timestamp};
use parking_lot::Mutex;

use super::LifeId;
use super::chain::{Chain, Change};
use super::host::Life;
use super::kernel::Mount;
use super::log_file::Log;
use super::oracle::Oracle;
use super::oracle::linearizable::History;
use super::oracle::lives;
use super::plan::{Kind, Plan, Workload};
use crate::exec::Executor;
use aside::Aside;
use bystanders::Bystanders;
pub use glance::Glancer;
use victims::Victim;

const COUNTERS: usize = 4;
const SIZES: usize = 2;
const NAMES: usize = 8;
const BLOBS: usize = 2;
const ATTRIBUTES: usize = 2;
const LOGS: usize = 2;
/// Where each counter lies in its file: in the inode, in a block, behind a hole.
const COUNTER_AT: [u64; COUNTERS] = [0, 5_000, 4_088, 300_000];
const BLOB_MAX: u64 = 30_000;
/// An operation that takes longer is worth a line in a log.
const LONG: Duration = Duration::from_millis(250);
const DIRS: [&[u8]; 2] = [b"d0", b"d1"];

/// Where a name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Absent,
    /// In this directory; which file is known when the creation is answered.
    In(usize, Option<FileId>),
}

impl Place {
    fn is_in(self, dir: usize) -> bool {
        matches!(self, Place::In(at, _) if at == dir)
    }

    fn shows(self, dir: usize, found: Option<FileId>) -> bool {
        match (self, found) {
            (Place::In(at, Some(file)), Some(found)) => at == dir && file == found,
            (Place::In(at, None), Some(_)) => at == dir,
            (Place::Absent, found) => found.is_none(),
            (Place::In(at, _), None) => at != dir,
        }
    }
}

type TimesByLife = BTreeMap<LifeId, (Timestamp, Timestamp)>;

/// All objects, and what is known of them.
pub struct Work {
    pub exec: Executor,
    pub oracle: Oracle,
    counters: Vec<Mutex<Chain<u64>>>,
    sizes: Vec<Mutex<Chain<u64>>>,
    names: Vec<Mutex<Chain<Place>>>,
    blobs: Vec<Mutex<Chain<Arc<Vec<u8>>>>>,
    attributes: Vec<Mutex<Chain<u64>>>,
    logs: Vec<Mutex<Log>>,
    registers: Vec<Mutex<History>>,
    tree: Mutex<tree::Turns>,
    claimants: Mutex<file_locks::Claimants>,
    victims: Vec<Mutex<Victim>>,
    pub bystanders: Bystanders,
    pub aside: Aside,
    has_aside: bool,
    /// Somebody fills the device, or has.
    is_full: AtomicBool,
    may_fill: AtomicBool,
    workload: Workload,
    times: Mutex<BTreeMap<FileId, TimesByLife>>,
    /// Operations under way.
    under_way: Mutex<BTreeMap<u64, (LifeId, Step, Instant)>>,
    next: AtomicU64,
    is_over: AtomicBool,
    pub done: AtomicU64,
    /// The longest that an operation took, of a life that was not lost.
    longest: Mutex<(Duration, String)>,
}

/// How far an operation is, in words.
type Step = Arc<Mutex<String>>;

/// One application's view of the world.
#[derive(Clone)]
pub struct App {
    pub step: Step,
    pub work: Arc<Work>,
    pub life: Arc<Life>,
    pub mount: Mount,
}

fn name_of(kind: char, i: usize) -> Vec<u8> {
    format!("{kind}{i}").into_bytes()
}

fn regular() -> NewFile<'static> {
    NewFile { kind: NewKind::Regular, permissions: 0o644, umask: 0, uid: 0, gid: 0 }
}

const WRITE: OpenFlags =
    OpenFlags { write: true, append: false, sync: false, truncate: false, kill_privileges: false };
const READ: OpenFlags =
    OpenFlags { write: false, append: false, sync: false, truncate: false, kill_privileges: false };
const APPEND: OpenFlags =
    OpenFlags { write: true, append: true, sync: false, truncate: false, kill_privileges: false };

impl Work {
    pub fn new(exec: &Executor, oracle: &Oracle, plan: &Plan) -> Arc<Work> {
        let chains = |count| (0..count).map(|_| Mutex::new(Chain::new(0))).collect();
        let work = Arc::new(Work {
            exec: exec.clone(),
            oracle: oracle.clone(),
            counters: chains(COUNTERS),
            sizes: chains(SIZES),
            names: (0..NAMES).map(|_| Mutex::new(Chain::new(Place::Absent))).collect(),
            blobs: (0..BLOBS).map(|_| Mutex::new(Chain::new(Arc::default()))).collect(),
            attributes: chains(ATTRIBUTES),
            logs: (0..LOGS).map(|_| Mutex::default()).collect(),
            registers: (0..registers::COUNT).map(|_| Mutex::default()).collect(),
            tree: Mutex::default(),
            claimants: Mutex::default(),
            victims: (0..plan.victims).map(|_| Mutex::new(Victim::new())).collect(),
            bystanders: Bystanders::default(),
            aside: Aside::default(),
            has_aside: plan.kind == Kind::Apart,
            is_full: AtomicBool::new(false),
            may_fill: AtomicBool::new(true),
            workload: plan.workload,
            times: Mutex::default(),
            under_way: Mutex::default(),
            next: AtomicU64::new(1),
            is_over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            longest: Mutex::default(),
        });
        let weak = Arc::downgrade(&work);
        oracle.listen(Arc::new(move |life| {
            if let Some(work) = weak.upgrade() {
                work.lose(life);
            }
        }));
        work
    }

    fn lose(&self, life: LifeId) {
        let numbers = self.counters.iter().chain(&self.sizes).chain(&self.attributes);
        numbers.for_each(|chain| chain.lock().lose(life));
        self.names.iter().for_each(|chain| chain.lock().lose(life));
        self.blobs.iter().for_each(|chain| chain.lock().lose(life));
        self.logs.iter().for_each(|log| log.lock().lose(life));
        self.tree.lock().lose(life);
        self.claimants.lock().lose(life);
        let now = self.exec.now();
        for register in &self.registers {
            if let Err(why) = register.lock().lose(life, now) {
                self.oracle.violation("linearizable", why);
            }
        }
        self.victims.iter().for_each(|victim| victim.lock().chain.lose(life));
        self.times.lock().values_mut().for_each(|seen| {
            seen.remove(&life);
        });
        self.under_way.lock().retain(|_, (of, _, _)| *of != life);
    }

    /// Everything that this life has done is durable.
    pub fn unmounted(&self, life: LifeId) {
        self.tree.lock().unmounted(life);
    }

    /// Nobody begins anything any more.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub fn is_stopped(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// What has not ended yet.
    pub fn under_way(&self, life: Option<LifeId>) -> Vec<String> {
        let now = self.exec.now();
        let all = self.under_way.lock();
        let of = all.values().filter(|(of, _, _)| life.is_none_or(|life| *of == life));
        let tell = |(of, what, since): &(LifeId, Step, Instant)| {
            format!("{of} {} for {:?}", what.lock(), now.since(*since))
        };
        of.map(tell).collect()
    }

    /// The operation that has been under way for longest.
    pub fn oldest(&self) -> (Duration, String) {
        let now = self.exec.now();
        let all = self.under_way.lock();
        let oldest = all.values().min_by_key(|(_, _, since)| *since);
        let tell = |(of, what, since): &(LifeId, Step, Instant)| {
            (now.since(*since), format!("{of} {}", what.lock()))
        };
        oldest.map(tell).unwrap_or_default()
    }

    pub fn longest(&self) -> (Duration, String) {
        self.longest.lock().clone()
    }

    /// What every run begins with.
    pub async fn set_up(&self, mount: &Mount) -> Result<(), FsError> {
        let root = mount.root();
        for dir in DIRS {
            let new = NewFile { kind: NewKind::Directory, ..regular() };
            mount.create(root, dir, &new).await?;
        }
        let files = [('c', COUNTERS), ('s', SIZES), ('b', BLOBS), ('x', ATTRIBUTES), ('l', LOGS)];
        for (kind, count) in files {
            for i in 0..count {
                mount.create(root, &name_of(kind, i), &regular()).await?;
            }
        }
        if self.workload == Workload::Registers {
            for i in 0..registers::COUNT {
                mount.create(root, &name_of('r', i), &regular()).await?;
            }
        }
        if self.workload == Workload::Tree {
            let new = NewFile { kind: NewKind::Directory, ..regular() };
            let top = mount.create(root, tree::TOP, &new).await?;
            self.tree.lock().begin(top);
        }
        for name in aside::names().filter(|_| self.has_aside) {
            mount.create(root, &name, &regular()).await?;
        }
        for i in 0..self.victims.len() {
            let file = mount.create(root, &name_of('v', i), &regular()).await?;
            self.victims[i].lock().file = Some(file);
        }
        mount.served().await.sync().await
    }
}

impl App {
    fn exec(&self) -> &Executor {
        &self.work.exec
    }

    fn id(&self) -> LifeId {
        self.life.id
    }

    fn draw(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("small");
        usize::try_from(self.exec().draw(|r| r.below(bound))).expect("small")
    }

    fn chance(&self, percent: u64) -> bool {
        self.exec().draw(|r| r.chance(percent))
    }

    /// Does what this node sees count?
    fn counts(&self) -> bool {
        !self.work.oracle.is_lost(self.id()) && self.life.is_permitted()
    }

    /// Works until it is told to stop.
    pub async fn work(self) {
        while !self.work.is_stopped() && !self.life.is_leaving() {
            if !self.work.victims.is_empty() && self.chance(8) {
                if self.operation("victim", self.victim()).await.is_err() {
                    break;
                }
                continue;
            }
            let what = self.what();
            let name = match what {
                0..20 => "counter",
                20..30 => "size",
                30..55 => "name",
                55..70 => "blob",
                70..85 => "append",
                85..92 => "log",
                92..95 => "list",
                95..98 => "attribute",
                100..110 => "register",
                110..120 => "lock files",
                120.. => "tree",
                98 => "trim",
                _ => "statfs",
            };
            if self.operation(name, self.any(what)).await.is_err() {
                // The mount is gone; so is what it had.
                break;
            }
            let pause = if self.chance(70) { self.draw(2_000) } else { self.draw(40_000) };
            let pause = Duration::from_micros(u64::try_from(pause).expect("small"));
            self.exec().sleep(pause).await;
        }
    }

    /// Which operation, as a number in the shares of a mixture; registers lie behind them.
    fn what(&self) -> usize {
        match self.work.workload {
            Workload::Mixed => self.draw(100),
            Workload::Counters => self.draw(20),
            Workload::Sizes => 20 + self.draw(10),
            Workload::Names => match self.draw(10) {
                0 => 92,
                _ => 30 + self.draw(25),
            },
            Workload::Blobs => 55 + self.draw(15),
            Workload::Logs => 70 + self.draw(22),
            Workload::Registers => match self.draw(10) {
                0 => self.draw(100),
                _ => 100,
            },
            Workload::FileLocks => match self.draw(10) {
                0 => self.draw(100),
                _ => 110,
            },
            Workload::Tree => 120,
        }
    }

    async fn any(&self, what: usize) -> Result<(), FsError> {
        match what {
            0..20 => self.counter(self.draw(COUNTERS)).await,
            20..30 => self.size(self.draw(SIZES)).await,
            30..55 => self.name(self.draw(NAMES)).await,
            55..70 => self.blob(self.draw(BLOBS)).await,
            70..85 => self.append(self.draw(LOGS)).await,
            85..92 => self.read_log(self.draw(LOGS)).await,
            100..110 => self.register(self.draw(registers::COUNT)).await,
            110..120 => self.lock_files().await,
            120.. => self.tree().await,
            92..95 => self.list(self.draw(DIRS.len())).await,
            95..98 => self.attribute(self.draw(ATTRIBUTES)).await,
            98 => self.trim().await,
            _ => self.mount.served().await.statfs().await.map(|_| ()),
        }
    }

    /// Nobody notices but the device.
    async fn trim(&self) -> Result<(), FsError> {
        let fs = self.mount.served().await;
        let groups = fs.layout().group_count;
        let first = self.exec().draw(|r| r.below(groups));
        match fs.trim(first..first + groups.div_ceil(8), 1).await {
            // Somebody has died.
            Ok(_) | Err(TrimError::NotReplayed(_)) => Ok(()),
            Err(TrimError::Fs(error)) => Err(error),
            Err(TrimError::NotSupported) => unreachable!("the simulated device discards"),
        }
    }

    /// Takes note of an operation for as long as it takes; an error is explained by the end of this
    /// life, or wrong.
    async fn operation(
        &self,
        name: &str,
        operation: impl Future<Output = Result<(), FsError>>,
    ) -> Result<(), FsError> {
        let work = &self.work;
        let began = self.exec().now();
        let number = work.next.fetch_add(1, Ordering::Relaxed);
        name.clone_into(&mut self.step.lock());
        work.under_way.lock().insert(number, (self.id(), Arc::clone(&self.step), began));
        let under_way = UnderWay { work, number };
        let done = operation.await;
        drop(under_way);
        work.done.fetch_add(1, Ordering::Relaxed);
        self.exec().note(u64::from(done.is_ok()));
        let took = self.exec().now().since(began);
        if done.is_ok() && self.counts() {
            let mut longest = work.longest.lock();
            if took > longest.0 {
                *longest = (took, format!("{name} on {}", self.life.member));
            }
        }
        match took > LONG {
            true => tracing::info!(?took, "{name} took long"),
            false => tracing::debug!(target: "sim::operations", ok = done.is_ok(), ?took, "{name}"),
        }
        if let Err(error) = &done {
            tracing::info!(%error, "{name} failed");
            lives::failed(&work.oracle, &self.life, self.counts(), (name, error));
        }
        done
    }

    /// What came of a change that had begun; `None` when there was no room for it, and there may be
    /// none: then nothing has happened.
    fn unless_full<S: Clone + PartialEq + fmt::Debug, T>(
        &self,
        chain: &Mutex<Chain<S>>,
        change: Change,
        done: Result<T, FsError>,
    ) -> Result<Option<T>, FsError> {
        match done {
            Err(FsError::NoSpace) if self.work.may_be_full() => {
                let mut chain = chain.lock();
                chain.withdraw(change);
                chain.release(self.id());
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    fn step(&self, what: &str, file: FileId) {
        tracing::debug!(?file, "{what}");
        *self.step.lock() = format!("{what} {file:?}");
    }

    fn wrong(&self, oracle: &'static str, what: String) {
        self.work.oracle.violation(oracle, format!("{}: {what}", self.life.member));
    }

    async fn find(&self, dir: FileId, name: &[u8]) -> Result<FileId, FsError> {
        self.step("find in", dir);
        match self.mount.lookup(dir, name).await? {
            Some(file) => Ok(file),
            None => {
                if self.counts() {
                    self.wrong("names", format!("{} is not there", String::from_utf8_lossy(name)));
                }
                Err(FsError::NotFound)
            }
        }
    }

    async fn file(&self, kind: char, i: usize) -> Result<FileId, FsError> {
        self.find(self.mount.root(), &name_of(kind, i)).await
    }

    async fn stat(&self, file: FileId) -> Result<Attributes, FsError> {
        let before = self.work.times.lock().get(&file).cloned().unwrap_or_default();
        self.step("stat", file);
        let found = self.mount.stat(file).await?;
        if self.counts() {
            let seen = (found.mtime, found.ctime);
            for (life, times) in before {
                let is_back = seen.0 < times.0 || seen.1 < times.1;
                if is_back && !self.work.oracle.is_lost(life) {
                    self.wrong(
                        "times",
                        format!("times of {file:?} went from {times:?} to {seen:?}"),
                    );
                }
            }
            let mut times = self.work.times.lock();
            let mine = times.entry(file).or_default().entry(self.id()).or_default();
            *mine = (mine.0.max(seen.0), mine.1.max(seen.1));
        }
        Ok(found)
    }

    // The end

    /// Looks at everything once, when nobody changes anything.
    pub async fn look_at_all(&self) -> Result<(), FsError> {
        let all = async {
            for i in 0..COUNTERS {
                self.read_counter(i).await?;
            }
            for i in 0..SIZES {
                self.read_size(i).await?;
            }
            for at in 0..DIRS.len() {
                self.list(at).await?;
                for i in 0..NAMES {
                    self.read_name(i, at).await?;
                }
            }
            for i in 0..BLOBS {
                self.read_blob(i).await?;
            }
            for i in 0..ATTRIBUTES {
                self.read_attribute(i).await?;
            }
            for i in 0..LOGS {
                self.read_log(i).await?;
            }
            self.read_victims().await?;
            self.read_registers().await?;
            self.look_at_tree_at_last().await
        };
        self.operation("look at everything", all).await
    }
}

/// An operation, also one that is not run to its end: a life that was given up may still begin
/// something before it learns of that, and then its machine stops.
struct UnderWay<'a> {
    work: &'a Work,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.work.under_way.lock().remove(&self.number);
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("done", &self.done).finish_non_exhaustive()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App on {}", self.life.member)
    }
}
