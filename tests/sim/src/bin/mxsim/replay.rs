//! `mxsim replay`: one run, with a log.

use std::io::Write as _;
use std::process::ExitCode;

use mx_base::Duration;
use sim::columns::Columns;
use sim::exec;
use sim::fleet::run as play;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::choice::One;
use super::panics;
use super::play::line;

/// Plays one run again, with a log: a column for every node on standard output
///
/// With MXSIM_LOG set, a filter of `tracing` such as info,dlm=trace, a log of lines on standard error
/// as well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Operations and locks as well: who is granted, called out, and gives up what
    #[arg(long)]
    all: bool,
    /// Seconds of virtual time at which the columns begin
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    from: f64,
    /// And at which they end
    #[arg(long, value_name = "SECONDS")]
    until: Option<f64>,
    /// Characters of a line
    #[arg(long, value_name = "N", default_value_t = 200)]
    width: usize,
    /// No log: only what came of it
    #[arg(long)]
    quiet: bool,
}

/// Virtual time and the life whose task runs.
struct Clock;

impl tracing_subscriber::fmt::time::FormatTime for Clock {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let (now, group) = exec::running();
        write!(w, "{now:?} [{}]", group.0)
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let plan = match args.one.plan() {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    panics::playing(plan.seed);
    panics::tell(|seed, what| println!("seed {seed} FAILED: [assertion] {what}"));
    if !args.quiet {
        let seconds = |s: f64| Duration::from_secs_f64(s.max(0.0));
        let until = args.until.map_or(Duration::MAX, seconds);
        let columns = Columns::new(plan.nodes, args.width, seconds(args.from), until);
        // Whoever reads it may have enough.
        let _ = writeln!(std::io::stdout(), "{}\n{}", plan.to_json(), columns.head());
        let shown = match args.all {
            true => "info,sim::operations=debug,sim::locks=debug",
            false => "info,cluster=warn",
        };
        let lines = EnvFilter::try_from_env("MXSIM_LOG").ok().map(|filter| {
            tracing_subscriber::fmt::layer()
                .with_timer(Clock)
                .with_ansi(false)
                .with_writer(std::io::stderr)
                .with_filter(filter)
        });
        tracing_subscriber::registry()
            .with(columns.with_filter(EnvFilter::new(shown)))
            .with(lines)
            .init();
    }
    match play(&plan) {
        Ok(report) => {
            println!("{}", line(&plan, &report));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {} FAILED: {violation}", plan.seed);
            ExitCode::FAILURE
        }
    }
}
