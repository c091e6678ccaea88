//! `mxsim run`: many seeds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use sim::fleet::aim::Phase;
use sim::fleet::plan::Plan;
use sim::fleet::{Report, run as play};

use super::choice::Wish;
use super::panics;

/// Plays seeds: network, storage, clocks and nodes fail as each draws it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seeds to play, the last one excluded
    #[arg(value_name = "A..B", value_parser = range)]
    seeds: (u64, u64),
    /// Runs at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Violations after which no more seeds are begun
    #[arg(long, value_name = "N", default_value_t = 1)]
    most: usize,
    #[command(flatten)]
    wish: Wish,
    /// Not a line for every seed
    #[arg(long)]
    quiet: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (first, end) = text.split_once("..").ok_or("not A..B")?;
    let parse = |s: &str| s.parse::<u64>().map_err(|e| e.to_string());
    Ok((parse(first)?, parse(end)?))
}

/// What was done so far.
#[derive(Debug)]
struct Tally {
    began: Instant,
    runs: AtomicU64,
    violations: AtomicUsize,
    polls: AtomicU64,
    operations: AtomicU64,
    lives: AtomicU64,
    /// Runs in which somebody died in the middle of a recovery.
    interrupted: AtomicU64,
    /// By how far that was: in so many runs, so many deaths.
    during: Mutex<BTreeMap<Phase, (u64, u64)>>,
    /// One line at a time.
    output: Mutex<()>,
}

impl Tally {
    fn failed(&self, seed: u64, wish: &Wish, what: &str) {
        self.violations.fetch_add(1, Ordering::SeqCst);
        let _one = self.output.lock();
        println!("seed {seed} FAILED: {what}");
        println!("again, with a log:  cargo xtask replay {seed}{}", wish.words());
        println!("the smallest like it:  cargo xtask shrink {seed}{}", wish.words());
    }

    fn passed(&self, report: &Report) {
        self.polls.fetch_add(report.polls, Ordering::SeqCst);
        self.operations.fetch_add(report.operations, Ordering::SeqCst);
        self.lives.fetch_add(u64::from(report.lives), Ordering::SeqCst);
        if !report.deaths_during_recovery.is_empty() {
            self.interrupted.fetch_add(1, Ordering::SeqCst);
        }
        let during = &mut *self.during.lock();
        for (phase, count) in &report.deaths_during_recovery {
            let (runs, deaths) = during.entry(*phase).or_default();
            *runs += 1;
            *deaths += u64::from(*count);
        }
    }

    /// The last lines. A state is what is there after a step of one task.
    fn tell(&self) {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let polls = of(&self.polls);
        let per_second = polls as f64 / seconds;
        println!("{} operations, {} lives of nodes", of(&self.operations), of(&self.lives));
        let during = self.during.lock();
        let deaths: u64 = during.values().map(|(_, deaths)| deaths).sum();
        println!("{deaths} deaths during a recovery in {} runs", of(&self.interrupted));
        for (phase, name) in Phase::ALL {
            let (runs, deaths) = during.get(&phase).copied().unwrap_or_default();
            println!("  {name}: {deaths} in {runs} runs");
        }
        println!(
            "{} seeds run, {} violations, {per_second:.0} states per second ({polls} in {seconds:.0} s)",
            of(&self.runs),
            self.violations.load(Ordering::SeqCst),
        );
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let (first, end) = args.seeds;
    let tally = Arc::new(Tally {
        began: Instant::now(),
        runs: AtomicU64::new(0),
        violations: AtomicUsize::new(0),
        polls: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        lives: AtomicU64::new(0),
        interrupted: AtomicU64::new(0),
        during: Mutex::default(),
        output: Mutex::new(()),
    });
    let (told, wish) = (Arc::clone(&tally), args.wish.clone());
    panics::tell(move |seed, what| {
        told.runs.fetch_add(1, Ordering::SeqCst);
        told.failed(seed, &wish, &format!("[assertion] {what}"));
        told.tell();
    });
    let next = AtomicU64::new(first);
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || tally.violations.load(Ordering::SeqCst) >= args.most {
                        break;
                    }
                    panics::playing(seed);
                    let plan = args.wish.plan(seed);
                    let outcome = play(&plan);
                    tally.runs.fetch_add(1, Ordering::SeqCst);
                    match outcome {
                        Ok(report) => {
                            tally.passed(&report);
                            if !args.quiet {
                                eprintln!("{}", line(&plan, &report));
                            }
                        }
                        Err(violation) => {
                            tally.failed(seed, &args.wish, &violation.to_string());
                        }
                    }
                }
            });
        }
    });
    tally.tell();
    match tally.violations.load(Ordering::SeqCst) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A run that passed.
pub(crate) fn line(plan: &Plan, report: &Report) -> String {
    let mut line = format!("seed {} {:?} {} nodes", plan.seed, plan.kind, plan.nodes);
    let Report { operations, polls, lives, longest, virtual_time, trace, .. } = report;
    let _ = write!(
        line,
        ", {lives} lives, {} faults: {operations} operations in {virtual_time:.1?}, {polls} polls, \
         longest {:.3?} ({}), bystander {:.3?}, {} writes late, {} refused, {} hits, trace {trace:016x}",
        plan.faults.len(),
        longest.0,
        longest.1,
        report.longest_bystander,
        report.late_writes,
        report.refused_writes,
        report.hits,
    );
    let beside = report.beside_leaves;
    if beside.asked > 0 {
        let _ = write!(
            line,
            ", beside leaves {} asked, {} noticed, longest {:?}",
            beside.asked, beside.noticed, beside.longest
        );
    }
    line
}
