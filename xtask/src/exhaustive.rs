//! `exhaustive`: every state of small clusters of lock managers, further than CI goes.

use std::process::ExitCode;

use anyhow::Result;

use crate::runner;
use crate::steps::Steps;

/// Visits every state of small clusters of lock managers, within bounds that take minutes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    let mut steps = Steps::default();
    steps.run("every state", || runner::every_state(true));
    Ok(steps.finish())
}
