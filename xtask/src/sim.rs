//! `sim` and `replay`: whole clusters in the simulator, by seed.
//!
//! The simulator is `tests/sim`; here its program is built and run.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Metadata, cargo};

/// Plays seeds of the cluster simulator: faults of network, disk, clocks and nodes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seeds to play, the last one excluded
    #[arg(long, value_name = "A..B", default_value = "0..200")]
    seeds: String,
    /// Runs at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: u16,
    /// Break each rule of docs/spec/proof.md and tell what found it out; or only these
    #[arg(long, value_name = "RULE", num_args = 0..)]
    mutations: Option<Vec<String>>,
}

/// Plays one seed again, with its log on standard error
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    seed: u64,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if let Some(rules) = &args.mutations {
        return break_rules(rules);
    }
    play(&["run", &args.seeds, &args.jobs.to_string()])
}

pub(crate) fn replay(args: ReplayArgs) -> Result<ExitCode> {
    play(&["replay", &args.seed.to_string()])
}

fn play(args: &[&str]) -> Result<ExitCode> {
    // With all checks of arithmetic, and fast: a release build has both.
    let mut build = cargo(&["build", "--release", "--locked", "--package", "sim", "--bins"]);
    if !build.status().context("cannot start cargo")?.success() {
        bail!("the simulator does not build");
    }
    let program = Metadata::read()?.target()?.join("release/mxsim");
    let status = Command::new(&program).args(args).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// In a folder of its own below the target folder, so that no other build meets its feature.
fn break_rules(rules: &[String]) -> Result<ExitCode> {
    let target = Metadata::read()?.target()?.join("mutations");
    let mut build = cargo(&["build", "--release", "--locked", "--package", "sim", "--bins"]);
    build.args(["--features", "broken-rules", "--target-dir"]).arg(&target);
    if !build.status().context("cannot start cargo")?.success() {
        bail!("the simulator does not build");
    }
    let program = target.join("release/mxsim");
    let status = Command::new(&program).arg("mutations").args(rules).status();
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
