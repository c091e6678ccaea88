//! `test`: everything that CI runs.

use std::process::ExitCode;

use anyhow::Result;

use crate::runner::{self, Which};
use crate::steps::{Counts, Steps};
use crate::{conformance, e2e, verify};

/// Runs everything that CI runs, after installing what the machine lacks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("packages and tools", || {
        e2e::prepare()?;
        Ok(Counts::NONE)
    });
    verify::check(&mut steps);
    steps.run("conformance", || {
        conformance::check()?;
        Ok(Counts::NONE)
    });
    steps.run("tests", || runner::tests(Which::All));
    steps.run("every state", || runner::every_state(false));
    steps.run("documentation tests", runner::doc_tests);
    Ok(steps.finish())
}
