//! `verify`: format, lints, tidy, unit tests. Writes nothing but build results.

use std::process::ExitCode;

use anyhow::Result;

use crate::runner::{self, Which};
use crate::steps::{Counts, Steps};
use crate::workspace::cargo;
use crate::{process, tidy};

/// Checks format, lints, tidiness and unit tests; writes nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    check(&mut steps);
    steps.run("unit tests", || runner::tests(Which::Units));
    steps.run("every state", || runner::every_state(false));
    Ok(steps.finish())
}

/// What can be said of the sources without running them.
pub(crate) fn check(steps: &mut Steps) {
    steps.run("format", || {
        process::run(&mut cargo(&["fmt", "--all", "--check"]))?;
        Ok(Counts::NONE)
    });
    steps.run("lints", || {
        let args = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--"];
        process::run(cargo(&args).args(["-D", "warnings"]))?;
        let args = ["clippy", "--package", "dlm", "--all-targets", "--locked", "--quiet"];
        let mut more = cargo(&args);
        more.args(["--features", runner::EVERY_STATE, "--", "-D", "warnings"]);
        process::run(&mut more)?;
        Ok(Counts::NONE)
    });
    steps.run("tidy", || {
        tidy::check()?;
        Ok(Counts::NONE)
    });
}
