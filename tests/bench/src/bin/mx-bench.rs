//! Measures; also is the processes that are measured against (`cargo xtask bench` runs it).
//!
//! Keeps true: everything it mounts is in a mount namespace of its own, so that nothing stays
//! mounted when it ends, however it ends.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bench::allocations::Counting;
use bench::floors::{memory_fuse, partner};
use bench::machine::Machine;
use bench::row::{Report, Row};
use bench::samples::Samples;
use bench::scale::Scale;
use bench::spec::{self, Group};
use bench::stage::{self, Stage};
use bench::{document, groups, needs};
use clap::Parser;
use e2e::Programs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How long one run of a group may take.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_QUICK: Duration = Duration::from_secs(60);

/// Measures MatrixFS beside what bounds it.
#[derive(Parser, Debug)]
#[command(name = "mx-bench", version)]
enum Command {
    /// Measure.
    Run(Run),
    /// Write the document from a report that `run --json` printed.
    Document { report: PathBuf, document: PathBuf },
    #[command(name = partner::COMMAND, hide = true)]
    AnswerOnStdin,
    #[command(name = memory_fuse::COMMAND, hide = true)]
    ServeMemory { dir: PathBuf },
}

#[derive(clap::Args, Debug)]
struct Run {
    /// A row, a group of rows, or `all`.
    name: String,
    /// Where mxd and the other programs are. [default: beside this one]
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Where device files are made; what is measured depends on what it lies on.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// How often everything is measured. [default: 5, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: Option<u16>,
    /// Few files and small ones: shows that everything works; the times say little.
    #[arg(long)]
    quick: bool,
    /// Print the report as one object of JSON, on the last line.
    #[arg(long)]
    json: bool,
    /// Write the document; needs all rows.
    #[arg(long, value_name = "FILE")]
    write_doc: Option<PathBuf>,
    /// What is measured, for the report.
    #[arg(long, default_value = "unknown")]
    revision: String,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Run(args) => run(&args),
        Command::Document { report, document } => from_report(&report, &document),
        Command::AnswerOnStdin => partner::answer(),
        Command::ServeMemory { dir } => memory_fuse::serve(&dir),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Run) -> Result<()> {
    let wanted = spec::groups_of(&args.name);
    if wanted.is_empty() {
        let groups: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
        let mut rows: Vec<&str> = spec::SPECS.iter().map(|spec| spec.name).collect();
        rows.dedup();
        let (groups, rows) = (groups.join(", "), rows.join(", "));
        bail!("there is no row `{}`; there are all; the groups {groups}; {rows}", args.name);
    }
    if args.write_doc.is_some() && args.name != "all" {
        bail!("the document has all rows: bench all --write-doc");
    }
    needs::check()?;
    hide_mounts()?;
    let program = std::env::current_exe().context("where is this program?")?;
    let beside = program.parent().unwrap_or(Path::new("."));
    let programs = Programs::in_folder(args.programs.as_deref().unwrap_or(beside))?;
    let scale = match args.quick {
        true => Scale::quick(args.runs.unwrap_or(1).into()),
        false => Scale::full(args.runs.unwrap_or(5).into()),
    };
    let machine = Machine::here(
        &args.dir.canonicalize().context("--dir")?,
        &programs.path("mxd"),
        &args.revision,
        &scale.describe(),
    );
    let folder = stage::folder(&args.dir)?;
    let stage = if wanted.iter().all(|group| group.is_in_process()) {
        None
    } else {
        eprintln!("starting three nodes and what they are compared with in {}", folder.display());
        Some(Stage::start(&programs, &program, &folder, scale)?)
    };
    let patience = if args.quick { PATIENCE_QUICK } else { PATIENCE };
    let samples = watched(patience, &folder, move |steps| measure(stage, &scale, &wanted, steps))?;
    let rows = spec::rows_of(&args.name).map(|spec| {
        let row = samples.row(spec);
        row.with_context(|| format!("{} was not measured", spec.name))
    });
    let report = Report { machine, rows: rows.collect::<Result<_>>()? };
    if let Some(file) = &args.write_doc {
        std::fs::write(file, document::document(&report)).context("the document")?;
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", document::table(&report.rows.iter().collect::<Vec<&Row>>()));
    }
    Ok(())
}

fn measure(
    mut stage: Option<Stage>,
    scale: &Scale,
    wanted: &[Group],
    steps: &Sender<String>,
) -> Result<Samples> {
    let mut samples = Samples::default();
    for group in wanted.iter().copied() {
        for run in 0..groups::runs(group, scale) {
            let step = format!("{}, run {}", group.name(), run + 1);
            steps.send(step.clone())?;
            match &mut stage {
                Some(stage) => groups::measure(group, stage, run, &mut samples),
                None => groups::measure_in_process(group, scale, &mut samples),
            }
            .context(step)?;
        }
    }
    let Some(mut stage) = stage else { return Ok(samples) };
    steps.send("stopping everything and checking the device".to_owned())?;
    let ended = stage.cluster.stop_all();
    ended.and_then(|()| stage.cluster.fsck()?.expect_clean()).context("at the end")?;
    Ok(samples)
}

/// Runs `act` on a thread of its own, tells its steps, and ends the program when one of them does
/// not end: what waits for an answer of a daemon cannot be stopped, but the daemons, which this
/// thread has started, end with it, and everything mounted with them.
fn watched<T: Send>(
    patience: Duration,
    folder: &Path,
    act: impl FnOnce(&Sender<String>) -> Result<T> + Send,
) -> Result<T> {
    let (sender, steps) = mpsc::channel();
    thread::scope(|scope| {
        let acting = scope.spawn(move || act(&sender));
        let mut last = String::new();
        loop {
            match steps.recv_timeout(patience) {
                Ok(step) => {
                    eprintln!("{step}");
                    last = step;
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    eprintln!("error: {last}: hangs, no end after {} s", patience.as_secs());
                    eprintln!("what the nodes logged is in {}/cluster", folder.display());
                    stage::remove_devices(folder);
                    end_at_once();
                }
            }
        }
        acting.join().expect("the measurement does not panic")
    })
}

#[expect(clippy::disallowed_methods, reason = "a thread that waits for a daemon never returns")]
fn end_at_once() -> ! {
    std::process::exit(1)
}

fn from_report(report: &Path, to: &Path) -> Result<()> {
    let text = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let report: Report = serde_json::from_str(last).context("a report of run --json")?;
    std::fs::write(to, document::document(&report)).with_context(|| to.display().to_string())
}

/// From here on mounts of this process and of those it starts are seen by them alone, and end with
/// the last of them. To be called before there is a second thread.
fn hide_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
    let nothing: Option<&str> = None;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, "/", nothing, flags, nothing).context("a mount namespace")
}
