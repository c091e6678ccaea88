//! `sim`, `replay` and `shrink`: whole clusters in the simulator, by seed.
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
    /// Violations after which no more seeds are begun
    #[arg(long, value_name = "N", default_value_t = 1)]
    most: u32,
    #[command(flatten)]
    wish: Wish,
    /// Break each rule of docs/spec/proof.md and tell what found it out; or only these
    #[arg(long, value_name = "RULE", num_args = 0..)]
    mutations: Option<Vec<String>>,
}

/// Handed on to the simulator, which knows the names.
#[derive(Debug, clap::Args)]
struct Wish {
    /// Nodes of the cluster, 1 to 16, instead of what each seed draws
    #[arg(long, value_name = "N")]
    nodes: Option<String>,
    /// What applications do: mixed, counters, sizes, names, blobs, logs, registers, file-locks or tree
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// The only thing that goes wrong; an unknown name lists the known ones
    #[arg(long, value_name = "NAME")]
    fault: Option<String>,
}

impl Wish {
    fn words(self) -> Vec<String> {
        let options =
            [("--nodes", self.nodes), ("--workload", self.workload), ("--fault", self.fault)];
        let given = options.into_iter().filter_map(|(name, value)| Some([name.into(), value?]));
        given.flatten().collect()
    }
}

/// One run of the simulator, by seed or as it was written down.
#[derive(Debug, clap::Args)]
struct One {
    #[arg(required_unless_present = "plan", conflicts_with = "plan")]
    seed: Option<u64>,
    #[command(flatten)]
    wish: Wish,
    /// A plan as `shrink` writes it
    #[arg(long, value_name = "FILE")]
    plan: Option<String>,
}

impl One {
    fn words(self) -> Vec<String> {
        let seed = self.seed.map(|seed| seed.to_string());
        let plan = self.plan.map(|plan| ["--plan".to_owned(), plan]);
        seed.into_iter().chain(self.wish.words()).chain(plan.into_iter().flatten()).collect()
    }
}

/// Plays one seed again, with a log: a column for every node
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    one: One,
    /// Operations and locks as well
    #[arg(long)]
    all: bool,
    /// Seconds of virtual time at which the columns begin
    #[arg(long, value_name = "SECONDS")]
    from: Option<String>,
    /// And at which they end
    #[arg(long, value_name = "SECONDS")]
    until: Option<String>,
    /// Characters of a line
    #[arg(long, value_name = "N")]
    width: Option<String>,
}

/// Makes the run of a seed that fails as small as it can be
#[derive(Debug, clap::Args)]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    one: One,
    /// Where the plan is written
    #[arg(long, value_name = "FILE")]
    to: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if let Some(rules) = &args.mutations {
        return break_rules(rules);
    }
    let (jobs, most) = (args.jobs.to_string(), args.most.to_string());
    let mut words = words(&["run", &args.seeds, "--jobs", &jobs, "--most", &most]);
    words.extend(args.wish.words());
    play(&words)
}

pub(crate) fn replay(args: ReplayArgs) -> Result<ExitCode> {
    let mut words = words(&["replay"]);
    words.extend(args.one.words());
    words.extend(args.all.then(|| "--all".to_owned()));
    let options = [("--from", args.from), ("--until", args.until), ("--width", args.width)];
    for (name, value) in options {
        words.extend(value.map(|value| [name.to_owned(), value]).into_iter().flatten());
    }
    play(&words)
}

pub(crate) fn shrink(args: ShrinkArgs) -> Result<ExitCode> {
    let mut words = words(&["shrink"]);
    words.extend(args.one.words());
    words.extend(args.to.map(|to| ["--to".to_owned(), to]).into_iter().flatten());
    play(&words)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn play(args: &[String]) -> Result<ExitCode> {
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
