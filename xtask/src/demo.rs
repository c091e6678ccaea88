//! `demo`: nodes share one file system, one dies, nothing is lost.
//!
//! Counted from outside: writers are processes beside the mounts that tell every acknowledged
//! operation over a pipe, and the judge compares what is on every mount with what they told.

mod report;
mod scenario;
mod screen;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use e2e::{Cluster, Programs, Shape};

use crate::packages::{self, Need};
use crate::process;
use crate::workspace::{Metadata, cargo};
use report::Report;
use screen::Screen;

/// Starts a cluster on this machine, kills a node in the middle of work, and shows what happens
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=8))]
    nodes: u16,
    /// Size of the device, which is a sparse file: at least 64M
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = size)]
    size: u64,
    /// Folder for the device, the logs and the mounts; made if it is not there
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the cluster running at the end
    #[arg(long)]
    keep: bool,
    /// Stop a kept cluster, check its device and remove it
    #[arg(long, conflicts_with_all = ["keep", "kill", "start"])]
    stop: bool,
    /// Kill a node of a kept cluster, and show its recovery
    #[arg(long, value_name = "N", conflicts_with = "start")]
    kill: Option<u16>,
    /// Start a node of a kept cluster again
    #[arg(long, value_name = "N")]
    start: Option<u16>,
    /// Print the result as one JSON object, the last line
    #[arg(long)]
    json: bool,
}

/// What a bare machine lacks.
const NEEDS: &[Need] = &[
    Need { program: "cc", package: "gcc" },
    Need { program: "fusermount3", package: "fuse3" },
    Need { program: "mount", package: "mount" },
];

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let mut report = Report::default();
    let outcome = ready(&args).and_then(|programs| {
        let screen = Screen::new();
        carry_out(&args, &programs, &mut report, &screen)
    });
    report.ok = outcome.is_ok();
    if let Err(error) = &outcome {
        println!("\nFAILED: {error:#}");
    }
    if args.json {
        println!("{}", report.json());
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The machine can do it, and the programs are built.
fn ready(args: &Args) -> Result<Programs> {
    packages::ensure(NEEDS)?;
    if !process::is_root() {
        bail!("mounting takes root: run it with sudo");
    }
    if args.stop { built() } else { build() }
}

fn carry_out(args: &Args, programs: &Programs, report: &mut Report, screen: &Screen) -> Result<()> {
    let folder = args.dir.clone().unwrap_or_else(|| env::temp_dir().join("matrixfs-demo"));
    if args.stop || args.kill.is_some() || args.start.is_some() {
        let mut cluster = Cluster::open(programs, &folder)?;
        report.describe(&cluster);
        return match (args.kill, args.start) {
            (Some(node), _) => scenario::kill(&mut cluster, node, report, screen),
            (None, Some(node)) => scenario::start(&mut cluster, node, screen),
            (None, None) => scenario::stop(cluster, screen),
        };
    }
    let shape = Shape {
        nodes: args.nodes,
        bytes: args.size,
        folder,
        is_kept: args.keep,
        log: "info",
        unit: None,
    };
    scenario::whole(programs, &shape, report, screen)
}

fn build() -> Result<Programs> {
    let packages = ["--package", "mxd", "--package", "e2e", "--bins"];
    process::run(cargo(&["build", "--release", "--locked"]).args(packages))?;
    built()
}

fn built() -> Result<Programs> {
    Programs::in_folder(&Metadata::read()?.target()?.join("release"))
}

/// `64M`, `2G`, `1T` or bytes.
fn size(text: &str) -> Result<u64, String> {
    const MIN: u64 = 64 << 20;
    let text = text.strip_suffix("iB").unwrap_or(text);
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let split = |(unit, shift): (char, u32)| {
        let number = text.strip_suffix([unit, unit.to_ascii_lowercase()])?;
        Some((number, shift))
    };
    let (number, shift) = units.into_iter().find_map(split).unwrap_or((text, 0));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64 << shift));
    match bytes {
        Some(bytes) if bytes >= MIN => Ok(bytes),
        Some(_) => Err("a device has at least 64M".to_owned()),
        None => Err(format!("`{text}` is no size: expected something like 512M or 2G")),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_have_units_and_a_least() {
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("134217728"), Ok(128 << 20));
        for wrong in ["63M", "", "G", "-1G", "2X", "99999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
