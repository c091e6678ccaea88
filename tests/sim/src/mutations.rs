//! Rules that are broken on purpose, one at a time, and what finds each out (`docs/spec/proof.md`).
//!
//! Each is tried in processes of its own, which break it before they begin: an assertion of the
//! product that fails ends the process, and is one way of being found out. Seeds are played in
//! order, so the seed that finds it out is always the same one.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use model::ops::Profile;
use mx_base::rules::Rule;
use parking_lot::Mutex;

use crate::fleet::plan::{Fault, FaultName, Plan, Weather, Wishes, Workload};
use crate::fleet::{self, Violation};
use crate::single;

/// Where a rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// A cluster, of [`fleet`].
    Cluster,
    /// Clusters in which blocks of files are damaged shortly before nodes crash.
    Damaged,
    /// Clusters whose processes lock ranges of files.
    Locking,
    /// Clusters of eight, of which some crash.
    Crowd,
    /// One node with a device that crashes behind every few of its events, of [`single`].
    Alone,
    /// The same, behind every other one, with a node that writes and cuts files and does little else.
    Data,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Cluster => "cluster",
            World::Damaged => "damaged",
            World::Locking => "locking",
            World::Crowd => "crowd",
            World::Alone => "one node",
            World::Data => "data",
        })
    }
}

/// A rule, where it is broken, and the number of seeds, from 0, within which that is found out.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    pub rule: Rule,
    pub world: World,
    pub within: u64,
}

const fn cluster(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Cluster, within }
}

const fn damaged(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Damaged, within }
}

const fn locking(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Locking, within }
}

const fn crowd(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Crowd, within }
}

const fn alone(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Alone, within }
}

const fn data(rule: Rule, within: u64) -> Mutation {
    Mutation { rule, world: World::Data, within }
}

/// All of them.
pub const MUTATIONS: &[Mutation] = &[
    cluster(Rule::CheckReadersBeforeWriter, 20),
    cluster(Rule::CallOutForConversion, 20),
    cluster(Rule::CallOutAgain, 20),
    cluster(Rule::NoticeCrossingGrant, 20),
    cluster(Rule::DropOldEpochs, 20),
    crowd(Rule::KeepEarlyMessages, 20),
    cluster(Rule::AwaitAllReports, 20),
    cluster(Rule::ReportWhatIsHeld, 20),
    cluster(Rule::ReportWhatIsWaitedFor, 20),
    locking(Rule::AwaitReportsOfClaims, 20),
    cluster(Rule::ChooseOneHome, 20),
    crowd(Rule::DropQueueOfDead, 20),
    locking(Rule::KeepClaimsOfDead, 60),
    cluster(Rule::KeepExOfDead, 20),
    cluster(Rule::AssumeTheWorst, 20),
    cluster(Rule::AwaitCachesOfDead, 20),
    cluster(Rule::KeepLiveInLimbo, 20),
    cluster(Rule::ForgetValueInLimbo, 60),
    crowd(Rule::TellLiveNamesAgain, 20),
    alone(Rule::FlushBehindDead, 20),
    cluster(Rule::RedoBeforeRelease, 60),
    cluster(Rule::RedoOnlyNewer, 20),
    damaged(Rule::SeeWhoTore, 60),
    damaged(Rule::DoubtUnknown, 60),
    cluster(Rule::LeaveDirtySlots, 60),
    damaged(Rule::WriteBothHeads, 20),
    crowd(Rule::AdoptOrphans, 60),
    cluster(Rule::AwaitFence, 60),
    cluster(Rule::KeepVictims, 20),
    cluster(Rule::AdoptAccepted, 20),
    cluster(Rule::AwaitCommit, 60),
    cluster(Rule::DeliverOnce, 60),
    cluster(Rule::SendAgain, 60),
    cluster(Rule::FlushBeforeRelease, 20),
    cluster(Rule::PurgeOnRelease, 20),
    cluster(Rule::LowerBeforeTelling, 20),
    cluster(Rule::RevokeAttributes, 20),
    cluster(Rule::OutdateAnswers, 60),
    cluster(Rule::ShowEnd, 60),
    cluster(Rule::RevokeNames, 20),
    cluster(Rule::RevokePages, 20),
    cluster(Rule::LogBeforePlace, 20),
    alone(Rule::AwaitLogWrite, 20),
    alone(Rule::FlushSegments, 20),
    alone(Rule::FlushPlaces, 20),
    cluster(Rule::NoticeChangesMeanwhile, 20),
    alone(Rule::ImageAfterPlace, 60),
    alone(Rule::CheckSegments, 60),
    alone(Rule::CheckLifeOfSegments, 60),
    cluster(Rule::DrainBeforeClean, 20),
    data(Rule::DataBeforeExtents, 60),
    alone(Rule::SizeBehindData, 20),
    data(Rule::ZeroTail, 60),
    alone(Rule::RestFreedBlocks, 60),
    cluster(Rule::WriteFreeHeaders, 20),
    data(Rule::TrimRested, 60),
    alone(Rule::TrimDataOnly, 20),
    cluster(Rule::TrimInHeldGroups, 60),
    cluster(Rule::RestBeforeFreeze, 60),
    cluster(Rule::AdvanceTimes, 20),
];

impl Mutation {
    pub fn of(rule: Rule) -> Option<Mutation> {
        MUTATIONS.iter().copied().find(|mutation| mutation.rule == rule)
    }

    /// Plays one seed, in a process that has broken the rule.
    ///
    /// # Errors
    /// What was found wrong: the rule is found out.
    pub fn play(&self, seed: u64) -> Result<(), Violation> {
        match self.world {
            World::Cluster => fleet::run(&Plan::of(seed)).map(|_| ()),
            World::Damaged => fleet::run(&damaged_plan(seed)).map(|_| ()),
            World::Locking => fleet::run(&locking_plan(seed)).map(|_| ()),
            World::Crowd => {
                let fault = Some(FaultName::Crash);
                let wishes = Wishes { nodes: Some(8), workload: None, fault };
                fleet::run(&Plan::wished(seed, wishes)).map(|_| ())
            }
            World::Alone => {
                let nth = usize::try_from(seed).expect("few seeds");
                play_alone(seed, Profile::ALL[nth % Profile::ALL.len()], 60, 7)
            }
            World::Data => play_alone(seed, Profile::Data, 120, 2),
        }
    }
}

fn play_alone(
    seed: u64,
    profile: Profile,
    operations: usize,
    stride: usize,
) -> Result<(), Violation> {
    let plan = single::Plan { seed, profile, operations, device_blocks: 64 << 8 };
    let ran = single::crash_everywhere(&plan, stride);
    ran.map(|_| ()).map_err(|failure| Violation::new(oracle_of(&failure.0), failure.0))
}

/// Half of them with members that are dropped and alive.
fn locking_plan(seed: u64) -> Plan {
    let fault = if seed.is_multiple_of(2) { FaultName::Crash } else { FaultName::Partition };
    let workload = Some(Workload::FileLocks);
    let plan = Plan::wished(seed, Wishes { nodes: Some(4), workload, fault: Some(fault) });
    let mishap = if seed.is_multiple_of(2) { 0 } else { 60 };
    Plan { weather: Weather { mishap, ..Weather::CALM }, ..plan }
}

/// Every crash finds the blocks of all victims damaged, in one way or the other.
fn damaged_plan(seed: u64) -> Plan {
    let wishes = Wishes { nodes: Some(3), fault: Some(FaultName::Crash), ..Wishes::default() };
    let mut plan = Plan::wished(seed, wishes);
    let crashes = std::mem::take(&mut plan.faults);
    for (i, (at, crash)) in (0..).zip(crashes) {
        for victim in 0..plan.victims {
            let damage = match (seed + i) % 2 {
                0 => Fault::BitFlip { victim, bit: 4096 * 4 + seed },
                _ => Fault::ReadError { victim },
            };
            plan.faults.push((at, damage));
        }
        if let Fault::Crash { host, restart } = crash {
            let copy = usize::from((seed + i) / 2 % 2 == 1);
            let flip = Fault::HeadFlip { host, copy, bit: seed % (4096 * 8), restart };
            plan.faults.push((at, flip));
        }
    }
    Plan { weather: Weather::CALM, ..plan }
}

/// One node alone has three oracles.
fn oracle_of(failure: &str) -> &'static str {
    if failure.contains("fsck found") {
        "fsck"
    } else if failure.contains("mount: ") || failure.contains("mounting stopped") {
        "mounting"
    } else {
        "model of one node"
    }
}

/// What became of one broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Caught {
        seed: u64,
        oracle: String,
        what: String,
    },
    Missed,
    /// The process that tried it did not do its work.
    Failed(String),
}

/// What a process that has found a rule out says last.
pub fn caught_line(seed: u64, oracle: &str, what: &str) -> String {
    format!("caught\t{seed}\t{oracle}\t{}", what.replace(['\n', '\t'], " "))
}

fn outcome_of(output: &std::process::Output) -> Outcome {
    let text = String::from_utf8_lossy(&output.stdout);
    let caught = text.lines().find_map(|line| line.strip_prefix("caught\t"));
    let parts = |line: &str| {
        let mut parts = line.splitn(3, '\t');
        let seed = parts.next()?.parse().ok()?;
        let (oracle, what) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Outcome::Caught { seed, oracle, what })
    };
    match caught.and_then(parts) {
        Some(caught) => caught,
        None if output.status.success() => Outcome::Missed,
        None => Outcome::Failed(output.status.to_string()),
    }
}

/// Plays the seeds of one mutation by `program broken RULE FIRST` until one finds it out, and does not
/// find anything with all rules kept: `program broken RULE SEED --kept`.
fn try_one(program: &Path, mutation: Mutation) -> Outcome {
    let name = mutation.rule.name();
    let play = |first: u64, more: &[&str]| {
        let mut child = Command::new(program);
        child.args(["broken", &name, &first.to_string()]).args(more).stderr(Stdio::null());
        child.output().map_or_else(|e| Outcome::Failed(e.to_string()), |o| outcome_of(&o))
    };
    let mut first = 0;
    loop {
        match play(first, &[]) {
            Outcome::Caught { seed, .. } if play(seed, &["--kept"]) != Outcome::Missed => {
                first = seed + 1;
            }
            outcome @ (Outcome::Caught { .. } | Outcome::Missed | Outcome::Failed(_)) => {
                return outcome;
            }
        }
    }
}

/// Tries each mutation, `jobs` at once; `tell` hears of each as it ends.
pub fn try_all(
    program: &Path,
    mutations: &[Mutation],
    jobs: usize,
    tell: impl Fn(Mutation, &Outcome) + Sync,
) -> Vec<(Mutation, Outcome)> {
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, Outcome)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(mutation) = mutations.get(at)
                {
                    let outcome = try_one(program, *mutation);
                    tell(*mutation, &outcome);
                    outcomes.lock().push((at, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner();
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(at, outcome)| (mutations[at], outcome)).collect()
}

/// A row of the table in `docs/spec/proof.md`.
#[derive(Debug)]
pub struct Row<'a>(pub usize, pub Mutation, pub &'a Outcome);

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row(n, Mutation { rule, world, within }, outcome) = self;
        let (name, sentence, place) = (rule.name(), rule.sentence(), rule.place());
        write!(f, "| {n} | `{name}`: {sentence} ({place}) | ")?;
        match outcome {
            Outcome::Caught { seed, oracle, .. } => {
                write!(f, "{world}: {oracle} | {} of {within} |", seed + 1)
            }
            Outcome::Missed => write!(f, "{world}: MISSED | more than {within} |"),
            Outcome::Failed(why) => write!(f, "{world}: FAILED, {why} | |"),
        }
    }
}
