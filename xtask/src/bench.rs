//! `bench`: measures, each number beside its floor; `docs/performance.md` is written from it.
//!
//! The measuring is `tests/bench`, built as released; here its programs are built and it is run.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::{Metadata, cargo, root};

/// Measures what operations cost beside what bounds them
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A row, a group of rows, or `all`; another name lists them
    #[arg(required_unless_present = "from")]
    name: Option<String>,
    /// Print the result as one JSON object, the last line
    #[arg(long)]
    json: bool,
    /// How often everything is measured: 5 times, with --quick once
    #[arg(long, value_name = "N")]
    runs: Option<u16>,
    /// Little of everything, in seconds: shows that it works; the times say little
    #[arg(long)]
    quick: bool,
    /// Where device files are made: what is measured depends on what lies below
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write docs/performance.md; with `all`, or from a report
    #[arg(long)]
    write_doc: bool,
    /// Measure nothing: take the output of an earlier run with --json
    #[arg(long, value_name = "FILE", requires = "write_doc", conflicts_with_all = ["name", "json", "runs", "quick", "dir"])]
    from: Option<PathBuf>,
}

const DOCUMENT: &str = "docs/performance.md";

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.write_doc && args.quick {
        bail!("what --quick measures is not worth a document");
    }
    let packages = ["--package", "mxd", "--package", "e2e", "--package", "bench", "--bins"];
    // Standard output is for the result.
    let mut build = cargo(&["build", "--release", "--locked"]);
    let built = build.args(packages).status().context("cannot start cargo")?;
    if !built.success() {
        bail!("the programs do not build");
    }
    let mut command = Command::new(Metadata::read()?.target()?.join("release/mx-bench"));
    let document = root().join(DOCUMENT);
    match (&args.from, &args.name) {
        (Some(report), _) => {
            command.arg("document").arg(report).arg(document);
        }
        (None, Some(name)) => {
            command.args(["run", name, "--revision", &revision()]);
            if args.write_doc {
                command.arg("--write-doc").arg(document);
            }
        }
        (None, None) => unreachable!("the command line asks for one of them"),
    }
    for (flag, is_given) in [("--json", args.json), ("--quick", args.quick)] {
        command.args(is_given.then_some(flag));
    }
    if let Some(runs) = args.runs {
        command.arg("--runs").arg(runs.to_string());
    }
    if let Some(dir) = &args.dir {
        command.arg("--dir").arg(dir);
    }
    let status = command.status().context("cannot start mx-bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is measured, as git calls it.
fn revision() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(root());
    process::output(&mut git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
