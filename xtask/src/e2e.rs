//! `e2e`: clusters of real processes and real mounts, in the long forms of their tests.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::packages;
use crate::process;
use crate::runner;
use crate::steps::{Counts, Steps};
use crate::workspace::{Metadata, cargo};

/// Runs the tests with real mounts, each in its long form
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds of the tests that kill nodes [default: what the test asks for, 20 or 50]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only tests whose names contain this
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Suites that others wrote, from the crate registry.
const TOOLS: [&str; 2] = ["fsx", "pjdfstest"];

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if !process::is_root() {
        bail!("mounting takes root: run it with sudo");
    }
    let mut steps = Steps::default();
    steps.run("packages", || {
        packages::ensure(packages::FOR_TESTS)?;
        Ok(Counts::NONE)
    });
    steps.run("tools", || {
        tools()?;
        Ok(Counts::NONE)
    });
    steps.run("programs", || {
        let packages = ["--package", "mxd", "--package", "e2e", "--bins"];
        process::run(cargo(&["build", "--locked"]).args(packages))?;
        Ok(Counts::NONE)
    });
    // 0 stands for what the tests ask for.
    let rounds = args.rounds.unwrap_or(0);
    steps.run("tests", || runner::long_tests("e2e", rounds, args.name.as_deref()));
    Ok(steps.finish())
}

/// Sees to it that the suites are there: in the path, or installed below the target folder, where
/// the tests look for them.
pub(crate) fn tools() -> Result<()> {
    let folder = Metadata::read()?.target()?.join("tools");
    for tool in TOOLS {
        if process::find(tool).is_none() && !folder.join("bin").join(tool).is_file() {
            install(tool, &folder)?;
        }
    }
    Ok(())
}

fn install(tool: &str, folder: &Path) -> Result<()> {
    process::run(cargo(&["install", "--quiet", "--locked", tool, "--root"]).arg(folder))
}
