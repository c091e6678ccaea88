//! `mxsim mutations` and `mxsim broken`: rules that are broken on purpose.

use std::process::ExitCode;

use mx_base::rules::{CAN_BE_BROKEN, Rule};
use sim::fleet::plan::Workload;
use sim::mutations::{MUTATIONS, Mutation, Outcome, Row, try_all};

/// Rules tried at once.
const JOBS: usize = 2;

/// Breaks rules, one at a time, and tells what finds each out (needs --features broken-rules)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rules to break; all of them if none is named
    rules: Vec<String>,
}

/// Breaks one rule in this process and plays seeds until it is found out
#[derive(Debug, clap::Args)]
pub(crate) struct BrokenArgs {
    rule: String,
    /// The first seed
    #[arg(default_value_t = 0)]
    first: u64,
    /// Plays only the first seed, and keeps the rule
    #[arg(long)]
    kept: bool,
    /// In clusters whose applications do only this
    #[arg(long, value_name = "NAME")]
    workload: Option<Workload>,
}

/// The table of `docs/spec/proof.md` comes last but for one line.
pub(crate) fn run(args: &Args) -> ExitCode {
    if !CAN_BE_BROKEN {
        return no_broken_rules();
    }
    let mut chosen: Vec<Mutation> = Vec::new();
    for name in &args.rules {
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
    let outcomes = try_all(&program, &chosen, JOBS, tell);
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
pub(crate) fn broken(_args: &BrokenArgs) -> ExitCode {
    no_broken_rules()
}

#[cfg(feature = "broken-rules")]
pub(crate) fn broken(args: &BrokenArgs) -> ExitCode {
    use sim::fleet::plan::{Plan, Wishes};
    use sim::fleet::{Violation, run as play};
    use sim::mutations::caught_line;

    use super::panics;

    let Some(mutation) = Rule::of_name(&args.rule).and_then(Mutation::of) else {
        eprintln!("no rule {}", args.rule);
        return ExitCode::from(2);
    };
    let end = if args.kept { args.first + 1 } else { mutation.within };
    if !args.kept {
        mx_base::rules::break_rule(mutation.rule);
    }
    panics::tell(|seed, what| println!("{}", caught_line(seed, "assertion", what)));
    for seed in args.first..end {
        panics::playing(seed);
        eprintln!("seed {seed}");
        let played = match args.workload {
            None => mutation.play(seed),
            Some(_) => {
                play(&Plan::wished(seed, Wishes { workload: args.workload, ..Wishes::default() }))
                    .map(|_| ())
            }
        };
        if let Err(Violation { oracle, what }) = played {
            println!("{}", caught_line(seed, oracle, &what));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
