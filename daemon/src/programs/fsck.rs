//! fsck.matrixfs: checks a device.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use mfs::env::Disk;
use mfs::fsck::{self, CheckError, Report};
use serde::Serialize;

use super::{AloneError, open_alone};

/// Check a MatrixFS file system that nobody has mounted.
///
/// Journals of nodes that died are replayed in memory; nothing is written. Exit status: 0 no
/// problem, 4 problems found, 8 the check could not be done, 16 wrong usage.
#[derive(Parser, Debug)]
#[command(name = "fsck.matrixfs", version)]
pub struct Options {
    /// Only look (what this release always does).
    #[arg(short = 'n')]
    pub only_look: bool,
    /// Also when it was left in order; accepted for fsck(8), this release always checks.
    #[arg(short = 'f')]
    pub force: bool,
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
pub const PROBLEMS: u8 = 4;
pub const FAILED: u8 = 8;
pub const USAGE: u8 = 16;

/// Why the check could not be done.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    #[error("{0} (a mounted file system cannot be checked)")]
    Open(#[from] AloneError),
    #[error("{}: {source}", device.display())]
    Check { device: PathBuf, source: CheckError },
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A report as it is printed.
#[derive(Clone, Debug, Serialize)]
pub struct Printed {
    pub device: PathBuf,
    pub clean: bool,
    pub problems: Vec<String>,
    pub slots_replayed: u64,
    pub groups: u64,
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    pub orphans: u64,
    pub blocks_used: u64,
}

/// Checks the device.
///
/// # Errors
/// [`FsckError`].
pub fn run(options: &Options) -> Result<Printed, FsckError> {
    let disk: Arc<dyn Disk> = open_alone(&options.device)?;
    let bar = if options.json { ProgressBar::hidden() } else { ProgressBar::new(1) };
    let style = ProgressStyle::with_template("{prefix:>8} [{bar:40}] {percent}%");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let shown = bar.clone();
    let mut progress = move |what: &str, done: u64, all: u64| {
        shown.set_prefix(what.to_owned());
        shown.set_length(all);
        shown.set_position(done);
    };
    let report = super::block_on(async { fsck::check(disk, &mut progress).await })?;
    bar.finish_and_clear();
    let device = options.device.clone();
    let report = report.map_err(|source| FsckError::Check { device: device.clone(), source })?;
    Ok(Printed::of(device, &report))
}

impl Printed {
    fn of(device: PathBuf, report: &Report) -> Printed {
        Printed {
            device,
            clean: report.problems.is_empty(),
            problems: report.problems.iter().map(ToString::to_string).collect(),
            slots_replayed: report.slots_replayed,
            groups: report.groups,
            inodes: report.inodes,
            directories: report.directories,
            entries: report.entries,
            orphans: report.orphans,
            blocks_used: report.blocks_used,
        }
    }
}

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let device = self.device.display();
        let verdict = match self.problems.len() {
            0 => "clean".to_owned(),
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        write!(
            f,
            "{device}: {verdict}; {} inodes, {} directories, {} entries, {} orphans, {} blocks",
            self.inodes, self.directories, self.entries, self.orphans, self.blocks_used
        )?;
        if self.slots_replayed > 0 {
            write!(f, "; {} journals replayed in memory", self.slots_replayed)?;
        }
        Ok(())
    }
}
