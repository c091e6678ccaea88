//! What a run of a seed is like: how many nodes, how fast everything is, what goes wrong when.
//!
//! A plan says everything; it can be written down as JSON and played again, whatever becomes of the
//! draw that made it. [`draw`] makes one from a seed, [`shrink`] makes it smaller.

pub mod draw;
mod millis;
pub mod shrink;

use std::fmt;
use std::str::FromStr;

use mx_base::Duration;
use serde::{Deserialize, Serialize};

pub use draw::Wishes;

/// How fast and how reliable the world is, apart from faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Weather {
    /// Longest delay of a frame, in microseconds.
    pub network_delay: u64,
    /// Longest delay of a request to the arbiter on each way, and of its execution.
    pub storage_delay: u64,
    /// In percent: a fence is answered as failed, or late.
    pub mishap: u64,
}

impl Weather {
    pub const CALM: Weather = Weather { network_delay: 300, storage_delay: 200, mishap: 0 };
    pub const ROUGH: Weather = Weather { network_delay: 8_000, storage_delay: 3_000, mishap: 10 };
    pub const STORM: Weather = Weather { network_delay: 40_000, storage_delay: 20_000, mishap: 30 };
}

/// Something that goes wrong. Hosts count from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The process ends; its host closes its connections. A new one starts after so long.
    Crash {
        host: usize,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// The process ends between two steps of its own, so many steps from now.
    CrashStep {
        host: usize,
        steps: u64,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// The host is silent from now on; its process is gone.
    PowerOff {
        host: usize,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// The tasks of the process do not run for so long.
    Pause {
        host: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Hosts in the mask and others hear nothing of each other for so long.
    Partition {
        mask: u64,
        #[serde(with = "millis")]
        length: Duration,
    },
    OneWay {
        from: usize,
        to: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Frames between two hosts take up to so much longer.
    SlowLink {
        from: usize,
        to: usize,
        #[serde(with = "millis")]
        extra: Duration,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Each connection is late by an amount of its own: frames on one overtake those on others.
    Reorder {
        #[serde(with = "millis")]
        spread: Duration,
        #[serde(with = "millis")]
        length: Duration,
    },
    BreakConnections {
        percent: u64,
    },
    /// Connections break; what was on the way arrives late, behind what comes again on new ones.
    HalfOpen {
        percent: u64,
        #[serde(with = "millis")]
        late: Duration,
    },
    CutStorage {
        host: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Requests of a host take up to so much longer, most of them a little, some all of it.
    SlowStorage {
        host: usize,
        #[serde(with = "millis")]
        extra: Duration,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Writes of a host are being executed, and do not end for so long.
    StuckWrite {
        host: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// Writes of a host are held on their way from now on. It crashes; they arrive up to so late.
    LateWrite {
        host: usize,
        #[serde(with = "millis")]
        hold: Duration,
        #[serde(with = "millis")]
        late: Duration,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// The block of a file cannot be read any more.
    ReadError {
        victim: usize,
    },
    /// A bit of the block of a file changes on the medium.
    BitFlip {
        victim: usize,
        bit: u64,
    },
    /// A bit of one copy of the head of the host's slot in the first file system changes on the medium,
    /// and the process crashes.
    HeadFlip {
        host: usize,
        copy: usize,
        bit: u64,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// Somebody on this host fills the device, and makes room again after so long.
    DeviceFull {
        host: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// The first file system is frozen on this host, and thawed after so long.
    Freeze {
        host: usize,
        #[serde(with = "millis")]
        length: Duration,
    },
    /// The first file system is checked on this host while everybody uses it.
    Check {
        host: usize,
    },
    /// The wall clock of a host is put forward or back.
    WallJump {
        host: usize,
        seconds: i64,
    },
    /// The file system is unmounted, the node leaves and comes back after so long.
    Leave {
        host: usize,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// The process crashes, and its journal in the first file system cannot be read until everything
    /// heals.
    LoseJournal {
        host: usize,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// Whoever plays a part in the recovery of the last one that died, or of the next one, is struck
    /// so many steps of its own after it began to. Comes behind what was aimed before.
    Aimed {
        part: Part,
        steps: u64,
        blow: Blow,
        #[serde(with = "millis")]
        restart: Duration,
    },
    /// Every process crashes at once, and the device loses what was not durable: each such block is
    /// new, old, or torn.
    PowerFailure,
}

/// A part in the recovery of a dead member; who plays it is known when it comes to that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Asks for the view without it; leads behind that.
    Coordinator,
    /// Commits that view.
    Candidate,
    /// Fences, behind that.
    Administrator,
    /// Rebuilds what was homed on it.
    Heir,
    /// Replays its journal.
    Recoverer,
    /// None of these, when all are known.
    Bystander,
}

/// What strikes whoever is aimed at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blow {
    Crash,
    PowerOff,
    /// It leaves in good order.
    Leave,
    /// Nothing strikes it, but the dead one starts again.
    Return,
}

/// The name of a fault, for the command line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FaultName {
    Crash,
    CrashStep,
    PowerOff,
    Pause,
    Partition,
    OneWay,
    SlowLink,
    Reorder,
    BreakConnections,
    HalfOpen,
    CutStorage,
    SlowStorage,
    StuckWrite,
    LateWrite,
    ReadError,
    BitFlip,
    HeadFlip,
    DeviceFull,
    Freeze,
    Check,
    WallJump,
    /// No event: the clocks of all hosts go at different rates.
    Drift,
    Leave,
    PowerFailure,
    Aimed,
}

impl FaultName {
    pub const ALL: [(FaultName, &'static str); 25] = [
        (FaultName::Crash, "crash"),
        (FaultName::CrashStep, "crash-step"),
        (FaultName::PowerOff, "power-off"),
        (FaultName::Pause, "pause"),
        (FaultName::Partition, "partition"),
        (FaultName::OneWay, "one-way"),
        (FaultName::SlowLink, "slow-link"),
        (FaultName::Reorder, "reorder"),
        (FaultName::BreakConnections, "break-connections"),
        (FaultName::HalfOpen, "half-open"),
        (FaultName::CutStorage, "cut-storage"),
        (FaultName::SlowStorage, "slow-storage"),
        (FaultName::StuckWrite, "stuck-write"),
        (FaultName::LateWrite, "late-write"),
        (FaultName::ReadError, "read-error"),
        (FaultName::BitFlip, "bit-flip"),
        (FaultName::HeadFlip, "head-flip"),
        (FaultName::DeviceFull, "device-full"),
        (FaultName::Freeze, "freeze"),
        (FaultName::Check, "check"),
        (FaultName::WallJump, "wall-jump"),
        (FaultName::Drift, "drift"),
        (FaultName::Leave, "leave"),
        (FaultName::PowerFailure, "power-failure"),
        (FaultName::Aimed, "aimed"),
    ];
}

/// Nodes of the largest cluster.
pub const NODES_MAX: usize = 16;

/// A name or a number that means nothing here; the message says which do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownName(String);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnknownName {}

fn find<T: Copy>(all: &[(T, &'static str)], name: &str) -> Result<T, UnknownName> {
    let found = all.iter().find(|(_, n)| *n == name).map(|(value, _)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
        UnknownName(format!("known are: {}", names.join(", ")))
    })
}

impl FromStr for FaultName {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<FaultName, UnknownName> {
        find(&FaultName::ALL, name)
    }
}

/// What applications do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A bit of everything, in shares that were chosen once.
    #[default]
    Mixed,
    /// Numbers in files that are read and changed in turn.
    Counters,
    Sizes,
    /// Names that are made, moved between directories and removed.
    Names,
    /// Files of which every byte is known.
    Blobs,
    /// Files to which all append.
    Logs,
    /// Files that anybody writes at any time, checked for linearizability.
    Registers,
    /// Ranges of files that processes lock, in any order.
    FileLocks,
    /// The same few names, which everybody changes at any time.
    Tree,
}

impl Workload {
    pub const ALL: [(Workload, &'static str); 9] = [
        (Workload::Mixed, "mixed"),
        (Workload::Counters, "counters"),
        (Workload::Sizes, "sizes"),
        (Workload::Names, "names"),
        (Workload::Blobs, "blobs"),
        (Workload::Logs, "logs"),
        (Workload::Registers, "registers"),
        (Workload::FileLocks, "file-locks"),
        (Workload::Tree, "tree"),
    ];
}

impl FromStr for Workload {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Workload, UnknownName> {
        find(&Workload::ALL, name)
    }
}

/// What a run is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing goes wrong.
    Calm,
    /// One process crashes and comes back.
    OneCrash,
    /// Some nodes die; on every other one somebody touches nothing that was ever theirs.
    Bystanders,
    /// Nodes come and go in good order.
    Coming,
    /// Several file systems; what cannot be replayed in the first concerns no other.
    Apart,
    /// Anything that the first simulator knew.
    Any,
    /// Anything, on clocks that differ, in clusters of up to 16 nodes.
    Harsh,
    /// One dies, and while it is recovered something happens to who recovers it.
    Aimed,
}

/// A pause that is shorter expels nobody: a node is suspected 5 U after it was heard last, and is heard
/// every U (`docs/spec/recovery.md` 1, 2); two more for frames that were late, and for several pauses.
const UNNOTICED: Duration = Duration::from_millis(200);

fn one() -> usize {
    1
}

/// A run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub nodes: usize,
    pub weather: Weather,
    #[serde(default)]
    pub workload: Workload,
    /// File systems, each on a device of its own and mounted on every node.
    #[serde(default = "one")]
    pub file_systems: usize,
    /// Tasks of applications on every node, in each file system.
    pub workers: usize,
    /// Files that faults of the medium may hit.
    #[serde(default)]
    pub victims: usize,
    /// How much the clocks of hosts may differ from true time, in parts per million.
    #[serde(default)]
    pub drift: u64,
    /// How long the work goes on before everything heals.
    #[serde(with = "millis")]
    pub length: Duration,
    /// When, from the beginning of the work.
    #[serde(with = "millis::timed")]
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// A run as it was written down.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Plan, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The run on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values")
    }

    /// Does anything go wrong after which a life may end by itself: something that others may take
    /// for its death, or that keeps it from the network or from storage? A process that crashes is
    /// no reason for another to end.
    pub fn justifies_end(&self) -> bool {
        self.faults.iter().any(|(_, fault)| match fault {
            Fault::Leave { .. }
            | Fault::Crash { .. }
            | Fault::PowerOff { .. }
            | Fault::DeviceFull { .. }
            | Fault::Freeze { .. }
            | Fault::Check { .. }
            | Fault::ReadError { .. }
            | Fault::BitFlip { .. }
            | Fault::HeadFlip { .. }
            | Fault::WallJump { .. } => false,
            Fault::Pause { length, .. } => *length >= UNNOTICED,
            Fault::CrashStep { .. }
            | Fault::Aimed { .. }
            | Fault::Partition { .. }
            | Fault::OneWay { .. }
            | Fault::SlowLink { .. }
            | Fault::Reorder { .. }
            | Fault::BreakConnections { .. }
            | Fault::HalfOpen { .. }
            | Fault::CutStorage { .. }
            | Fault::SlowStorage { .. }
            | Fault::StuckWrite { .. }
            | Fault::LateWrite { .. }
            | Fault::LoseJournal { .. }
            | Fault::PowerFailure => true,
        })
    }

    /// Does the medium lose or change blocks?
    pub fn harms_media(&self) -> bool {
        let harms = |fault: &Fault| {
            matches!(
                fault,
                Fault::ReadError { .. }
                    | Fault::BitFlip { .. }
                    | Fault::HeadFlip { .. }
                    | Fault::LoseJournal { .. }
            )
        };
        self.faults.iter().any(|(_, fault)| harms(fault))
    }

    /// Does a process or a machine die, whatever else is done to it?
    pub fn kills(&self) -> bool {
        let kills = |fault: &Fault| {
            matches!(fault, Fault::Crash { .. } | Fault::PowerOff { .. } | Fault::HeadFlip { .. })
        };
        self.faults.iter().any(|(_, fault)| kills(fault))
    }

    /// # Errors
    /// What of it cannot be played.
    pub fn check(&self) -> Result<(), UnknownName> {
        let wrong = |what: &str| Err(UnknownName(what.to_owned()));
        if !(1..=NODES_MAX).contains(&self.nodes) || self.workers > 16 || self.victims > 16 {
            return wrong("1 to 16 nodes, up to 16 workers on each, up to 16 victims");
        }
        if !(1..=4).contains(&self.file_systems) {
            return wrong("1 to 4 file systems");
        }
        if self.drift > 100_000 {
            return wrong("clocks may differ by up to 100,000 parts in a million");
        }
        let hosts = self.faults.iter().flat_map(|(_, fault)| fault.hosts()).flatten();
        if hosts.into_iter().any(|host| host >= self.nodes) {
            return wrong("a fault concerns a host that is not there; they count from 0");
        }
        Ok(())
    }
}
