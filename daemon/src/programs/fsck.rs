//! fsck.matrixfs: checks a device, and repairs it.

mod alone;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mfs::env::Disk;
use mfs::fsck::{self, CheckError, Problem, RepairError, RepairOptions, Repaired, Report};
use mfs::superblock::SuperblockError;
use serde::Serialize;

use super::signatures::{InUse, ProbeError, beating, mounted_on};
use super::{AloneError, open_alone};
use crate::partition::{self, IdentityError};
use crate::runtime::wall_time;

use alone::Alone;

/// Check a MatrixFS file system that nobody has mounted, and repair it.
///
/// Without -p or -y it only looks: journals of nodes that died are replayed in memory, nothing is
/// written. A repair replays journals on the device, checks, repairs, checks anew, and says for each
/// object what it did. What cannot be put right without guessing is isolated (every access fails, what
/// it leads to stays reserved); what has lost its name is put into lost+found. It is refused while the
/// file system is mounted or a node of its cluster uses the device. A repair that loses its power is
/// finished by the next one. Exit status: 0 no problem, 1 problems were corrected, 4 problems are
/// left, 8 it could not be done, 16 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "fsck.matrixfs", version)]
pub struct Options {
    /// Only look (what happens without -p or -y too).
    #[arg(short = 'n', conflicts_with_all = ["yes", "preen"])]
    pub only_look: bool,
    /// Repair what can be repaired without guessing.
    #[arg(short = 'y')]
    pub yes: bool,
    /// Repair what needs nobody's judgement: replay journals, set counters.
    #[arg(short = 'p', visible_short_alias = 'a', conflicts_with = "yes")]
    pub preen: bool,
    /// Remove files that an earlier run has isolated, and what they hold.
    #[arg(long, requires = "yes")]
    pub remove_isolated: bool,
    /// Also when it was left in order; accepted for fsck(8), every run checks.
    #[arg(short = 'f')]
    pub force: bool,
    /// Repair although a node of the cluster seems to use the device. Whoever does destroys what is on
    /// it.
    #[arg(long)]
    pub ignore_heartbeats: bool,
    /// Show progress also where standard error is no terminal; accepted for fsck(8).
    #[arg(short = 'C', value_name = "FD", num_args = 0..=1)]
    pub progress: Option<Option<i32>>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Block device or regular file.
    pub device: PathBuf,
}

/// Exit status as fsck(8) has it.
pub const CLEAN: u8 = 0;
pub const CORRECTED: u8 = 1;
pub const PROBLEMS: u8 = 4;
pub const FAILED: u8 = 8;
pub const USAGE: u8 = 16;

/// Why nothing could be done.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    #[error("{0} (a mounted file system cannot be checked)")]
    Open(#[from] AloneError),
    #[error("{}: {in_use}; it cannot be repaired meanwhile", device.display())]
    InUse { device: PathBuf, in_use: InUse },
    #[error("{}: {source}", device.display())]
    Probe { device: PathBuf, source: ProbeError },
    #[error(
        "{}: it cannot be told whether a node of a cluster uses it: {source}; if you know that none \
         does, give --ignore-heartbeats",
        device.display()
    )]
    Heartbeats { device: PathBuf, source: IdentityError },
    #[error("{}: {source}", device.display())]
    Check { device: PathBuf, source: CheckError },
    #[error("{}: {source}; nothing is repaired", device.display())]
    Repair { device: PathBuf, source: RepairError },
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A report as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Printed {
    pub device: PathBuf,
    /// Nothing is wrong, or left to do.
    pub clean: bool,
    /// Something was wrong and was put right.
    pub corrected: bool,
    /// What was done, object by object.
    pub done: Vec<String>,
    /// What is wrong, or could not be done.
    pub problems: Vec<String>,
    /// What is damaged beyond repair, and kept out of reach.
    pub isolated: Vec<String>,
    pub slots_replayed: u64,
    pub groups: u64,
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    pub orphans: u64,
    pub blocks_used: u64,
    #[serde(skip)]
    on_device: bool,
}

/// Checks the device, and repairs it if that was asked for.
///
/// # Errors
/// [`FsckError`].
pub fn run(options: &Options) -> Result<Printed, FsckError> {
    let device = &options.device;
    let repairs = options.yes || options.preen;
    if repairs {
        let probe = |source| FsckError::Probe { device: device.clone(), source };
        if let Some(dir) = mounted_on(device).map_err(probe)? {
            return Err(FsckError::InUse { device: device.clone(), in_use: InUse::Mounted(dir) });
        }
    }
    let mut disk: Arc<dyn Disk> = open_alone(device)?;
    if repairs && !options.ignore_heartbeats {
        disk = for_itself(device, disk)?;
    }
    let bar = if options.json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    let style = ProgressStyle::with_template("{prefix:>8} [{bar:40}] {percent}%");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let shown = bar.clone();
    let mut progress = move |what: &str, done: u64, all: u64| {
        shown.set_prefix(what.to_owned());
        shown.set_length(all);
        shown.set_position(done);
    };
    let printed = if repairs {
        let how = RepairOptions {
            preen: options.preen,
            remove_isolated: options.remove_isolated,
            now: wall_time(),
        };
        let repaired = super::block_on(async { fsck::repair(disk, how, &mut progress).await })?;
        let failed = |source| FsckError::Repair { device: device.clone(), source };
        Printed::of_repair(device.clone(), &repaired.map_err(failed)?)
    } else {
        let report = super::block_on(async { fsck::check(disk, &mut progress).await })?;
        let failed = |source| FsckError::Check { device: device.clone(), source };
        Printed::of(device.clone(), &report.map_err(failed)?)
    };
    bar.finish_and_clear();
    Ok(printed)
}

/// No node of the cluster may use the device, from now on: what it has in memory would undo the repair,
/// and the repair would be under its feet. Nodes that do not beat any more are dead, or have lost the
/// device.
fn for_itself(device: &Path, disk: Arc<dyn Disk>) -> Result<Arc<dyn Disk>, FsckError> {
    let identity = match super::block_on(async { partition::identify(&*disk).await })? {
        Ok(identity) => identity,
        // Who repairs says why there is nothing to repair.
        Err(IdentityError::Superblock(SuperblockError::NotFound)) => return Ok(disk),
        Err(source) => return Err(FsckError::Heartbeats { device: device.to_owned(), source }),
    };
    let probe = |source| FsckError::Probe { device: device.to_owned(), source };
    let alone = super::block_on(async { Alone::new(Arc::clone(&disk), &identity).await })?;
    let alone = alone.map_err(|error| probe(error.into()))?;
    let sb = &identity.fs;
    let unit = identity.membership.unit;
    let beats = super::block_on(async { beating(&*disk, sb, unit).await })?;
    if let Some(node) = beats.map_err(probe)? {
        let in_use = InUse::Cluster { label: sb.label.clone(), node };
        return Err(FsckError::InUse { device: device.to_owned(), in_use });
    }
    Ok(Arc::new(alone))
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

impl Printed {
    fn of(device: PathBuf, report: &Report) -> Printed {
        Printed {
            device,
            clean: report.problems.is_empty(),
            corrected: false,
            done: Vec::new(),
            problems: texts(&report.problems),
            isolated: texts(&report.isolated),
            slots_replayed: report.slots_replayed,
            groups: report.groups,
            inodes: report.inodes,
            directories: report.directories,
            entries: report.entries,
            orphans: report.orphans,
            blocks_used: report.blocks_used,
            on_device: false,
        }
    }

    fn of_repair(device: PathBuf, repaired: &Repaired) -> Printed {
        let mut problems = texts(&repaired.left);
        problems.extend(texts(&repaired.after.problems));
        Printed {
            clean: repaired.is_clean(),
            corrected: repaired.was_damaged,
            done: texts(&repaired.done),
            problems,
            slots_replayed: repaired.slots_replayed,
            on_device: true,
            ..Printed::of(device, &repaired.after)
        }
    }

    /// The exit status for it.
    pub fn status(&self) -> u8 {
        match (self.clean, self.corrected) {
            (false, _) => PROBLEMS,
            (true, true) => CORRECTED,
            (true, false) => CLEAN,
        }
    }
}

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for done in &self.done {
            writeln!(f, "{done}")?;
        }
        for problem in &self.problems {
            writeln!(f, "{}{problem}", if self.on_device { "NOT CORRECTED: " } else { "" })?;
        }
        for isolated in &self.isolated {
            writeln!(f, "{isolated}")?;
        }
        let device = self.device.display();
        let verdict = match self.problems.len() {
            0 if self.corrected => "clean now".to_owned(),
            0 => "clean".to_owned(),
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        write!(
            f,
            "{device}: {verdict}; {} inodes, {} directories, {} entries, {} orphans, {} blocks",
            self.inodes, self.directories, self.entries, self.orphans, self.blocks_used
        )?;
        if !self.isolated.is_empty() {
            write!(f, "; {} isolated", self.isolated.len())?;
        }
        if self.slots_replayed > 0 {
            let place = if self.on_device { "" } else { " in memory" };
            write!(f, "; {} journals replayed{place}", self.slots_replayed)?;
        }
        Ok(())
    }
}
