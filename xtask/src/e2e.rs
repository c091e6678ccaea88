//! `e2e`: clusters of real processes and real mounts, in the long forms of their tests.

mod suites;

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
    /// Only this suite, of others or of programs that people use; `list` names them
    #[arg(long, value_name = "SUITE")]
    suite: Option<String>,
    /// Only tests whose names contain this
    #[arg(value_name = "NAME", conflicts_with = "suite")]
    name: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.suite.as_deref() == Some("list") {
        suites::list();
        return Ok(ExitCode::SUCCESS);
    }
    let suite = args.suite.as_deref().map(suites::named).transpose()?;
    if !process::is_root() {
        bail!("mounting takes root: run it with sudo");
    }
    let mut steps = Steps::default();
    steps.run("packages", || {
        let more = suite.map_or_else(suites::needs, |suite| suite.needs.to_vec());
        packages::ensure(&[packages::FOR_TESTS, &more].concat())?;
        Ok(Counts::NONE)
    });
    steps.run("tools", || {
        tools(&suite.map_or_else(suites::tools, |suite| suite.tools.to_vec()))?;
        Ok(Counts::NONE)
    });
    steps.run("programs", || {
        let packages = ["--package", "mxd", "--package", "e2e", "--bins"];
        process::run(cargo(&["build", "--locked"]).args(packages))?;
        Ok(Counts::NONE)
    });
    // 0 stands for what the tests ask for.
    let rounds = args.rounds.unwrap_or(0);
    let name = args.name.as_deref();
    steps.run("tests", || match suite {
        None => runner::long_tests("e2e", None, rounds, name),
        Some(suite) => {
            let module = format!("{}::", suite.name);
            runner::long_tests("e2e", Some("suites"), rounds, Some(&module))
        }
    });
    Ok(steps.finish())
}

/// Sees to it that everything is there that the quick forms of all tests with real mounts need.
pub(crate) fn prepare() -> Result<()> {
    packages::ensure(&[packages::FOR_TESTS, &suites::needs()].concat())?;
    tools(&suites::tools())
}

/// Sees to it that these suites are there: in the path, or installed below the target folder, where
/// the tests look for them.
fn tools(tools: &[&str]) -> Result<()> {
    let folder = Metadata::read()?.target()?.join("tools");
    for tool in tools {
        if process::find(tool).is_none() && !folder.join("bin").join(tool).is_file() {
            install(tool, &folder)?;
        }
    }
    Ok(())
}

fn install(tool: &str, folder: &Path) -> Result<()> {
    process::run(cargo(&["install", "--quiet", "--locked", tool, "--root"]).arg(folder))
}
