//! Plays seeds of the cluster simulator: `mxsim run A..B` and `mxsim replay SEED`; and breaks the
//! rules that it has to find out: `mxsim mutations`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use mx_base::rules::{CAN_BE_BROKEN, Rule};
use parking_lot::Mutex;
use sim::exec;
use sim::fleet::plan::Plan;
use sim::fleet::{Report, Violation, run};
use sim::mutations::{MUTATIONS, Mutation, Outcome, Row, try_all};

const USAGE: &str = "usage: mxsim run FIRST..END [JOBS]\n       mxsim replay SEED
       mxsim mutations [RULE].. | mxsim broken RULE    with --features broken-rules";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["run", seeds] => run_seeds(seeds, "1"),
        ["run", seeds, jobs] => run_seeds(seeds, jobs),
        ["replay", seed] => replay(seed),
        ["broken", rule] => broken(rule),
        ["mutations", ref rest @ ..] => mutations(rest),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A panic is what is wrong with a seed.
#[expect(clippy::disallowed_methods, reason = "there is nothing to let go of after a panic")]
fn tell_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let seed = SEED.get();
        println!("seed {seed} FAILED: panic: {info}");
        println!("again, with a log: cargo xtask replay {seed}");
        std::process::exit(1);
    }));
}

fn run_seeds(seeds: &str, jobs: &str) -> ExitCode {
    let range = seeds
        .split_once("..")
        .and_then(|(first, end)| Some((first.parse::<u64>().ok()?, end.parse::<u64>().ok()?)));
    let (Some((first, end)), Ok(jobs)) = (range, jobs.parse::<usize>()) else { return usage() };
    tell_panics();
    let next = AtomicU64::new(first);
    let failed: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let done = Mutex::new((0_u64, 0_u64, 0_u32));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.lock().is_some() {
                        break;
                    }
                    SEED.set(seed);
                    let plan = Plan::of(seed);
                    match run(&plan) {
                        Ok(report) => {
                            let mut done = done.lock();
                            done.0 += 1;
                            done.1 += report.operations;
                            done.2 += report.lives;
                            eprintln!("{}", line(&plan, &report));
                        }
                        Err(what) => {
                            let mut failed = failed.lock();
                            failed.get_or_insert((seed, what));
                        }
                    }
                }
            });
        }
    });
    let (runs, operations, lives) = *done.lock();
    println!("{runs} runs passed: {operations} operations, {lives} lives of nodes");
    match failed.into_inner() {
        None => ExitCode::SUCCESS,
        Some((seed, what)) => {
            println!("seed {seed} FAILED: {what}");
            println!("again, with a log: cargo xtask replay {seed}");
            ExitCode::FAILURE
        }
    }
}

fn line(plan: &Plan, report: &Report) -> String {
    let mut line = format!("seed {} {:?} {} nodes", plan.seed, plan.kind, plan.nodes);
    let Report { operations, polls, lives, longest, virtual_time, trace, .. } = report;
    let _ = write!(
        line,
        ", {lives} lives, {} faults: {operations} operations in {virtual_time:.1?}, {polls} polls, \
         longest {:.3?} ({}), {} writes refused, trace {trace:016x}",
        plan.faults.len(),
        longest.0,
        longest.1,
        report.refused_writes,
    );
    line
}

/// Virtual time and the life whose task runs.
struct Clock;

impl tracing_subscriber::fmt::time::FormatTime for Clock {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let (now, group) = exec::running();
        write!(w, "{now:?} [{}]", group.0)
    }
}

fn replay(seed: &str) -> ExitCode {
    let Ok(seed) = seed.parse() else { return usage() };
    let filter = tracing_subscriber::EnvFilter::try_from_env("MXSIM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Clock)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    SEED.set(seed);
    tell_panics();
    let plan = Plan::of(seed);
    eprintln!("{plan:#?}");
    match run(&plan) {
        Ok(report) => {
            println!("{}", line(&plan, &report));
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("seed {seed} FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

/// Rules tried at once.
const MUTATION_JOBS: usize = 2;

/// Breaks each of the rules, or those that are named, and tells what found it out. The table of
/// `docs/spec/proof.md` comes last but for one line.
fn mutations(names: &[&str]) -> ExitCode {
    if !CAN_BE_BROKEN {
        return no_broken_rules();
    }
    let mut chosen: Vec<Mutation> = Vec::new();
    for name in names {
        match Rule::of_name(name).and_then(Mutation::of) {
            Some(mutation) => chosen.push(mutation),
            None => {
                eprintln!("no rule {name}");
                return ExitCode::from(2);
            }
        }
    }
    if chosen.is_empty() {
        chosen = MUTATIONS.to_vec();
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let tell = |mutation: Mutation, outcome: &Outcome| {
        let name = mutation.rule.name();
        match outcome {
            Outcome::Caught { seed, oracle, what } => {
                eprintln!("{name}: seed {seed}, {oracle}: {what}");
            }
            Outcome::Missed => eprintln!("{name}: MISSED within {} seeds", mutation.within),
            Outcome::Failed(why) => eprintln!("{name}: FAILED: {why}"),
        }
    };
    let outcomes = try_all(&program, &chosen, MUTATION_JOBS, tell);
    for (i, (mutation, outcome)) in outcomes.iter().enumerate() {
        println!("{}", Row(i + 1, *mutation, outcome));
    }
    let is_caught = |outcome: &Outcome| matches!(outcome, Outcome::Caught { .. });
    let caught = outcomes.iter().filter(|(_, outcome)| is_caught(outcome)).count();
    println!(
        "{} rules broken, {caught} caught, {} missed",
        outcomes.len(),
        outcomes.len() - caught
    );
    if caught == outcomes.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn no_broken_rules() -> ExitCode {
    eprintln!("this mxsim keeps all rules: build it with --features broken-rules");
    ExitCode::from(2)
}

#[cfg(not(feature = "broken-rules"))]
fn broken(_rule: &str) -> ExitCode {
    no_broken_rules()
}

/// Breaks one rule in this process, and plays seeds until it is found out.
#[cfg(feature = "broken-rules")]
#[expect(clippy::disallowed_methods, reason = "there is nothing to let go of")]
fn broken(rule: &str) -> ExitCode {
    use sim::mutations::caught_line;

    let Some(mutation) = Rule::of_name(rule).and_then(Mutation::of) else { return usage() };
    mx_base::rules::break_rule(mutation.rule);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        default(info);
        let what = info.payload_as_str().unwrap_or("");
        println!("{}", caught_line(SEED.get(), "assertion", what));
        std::process::exit(1);
    }));
    for seed in 0..mutation.within {
        SEED.set(seed);
        eprintln!("seed {seed}");
        if let Err(Violation { oracle, what }) = mutation.play(seed) {
            println!("{}", caught_line(seed, oracle, &what));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
