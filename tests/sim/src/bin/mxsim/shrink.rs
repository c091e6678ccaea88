//! `mxsim shrink`: the smallest run that fails in the same way.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use sim::fleet::plan::Plan;
use sim::fleet::plan::shrink::shrink;

use super::choice::One;

/// Leaves out faults, nodes, work and bad weather for as long as the same oracle finds something
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    one: One,
    /// Runs to try at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    tries: usize,
    /// Where the plan is written, for `replay --plan`
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: &Args) -> Result<ExitCode, String> {
    let plan = args.one.plan()?;
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let Some((oracle, _)) = failure(&program, &plan)? else {
        println!("{} does not fail", plan.seed);
        return Ok(ExitCode::SUCCESS);
    };
    eprintln!("[{oracle}] {}", plan.to_json());
    let mut error = None;
    let fails = |candidate: &Plan| match failure(&program, candidate) {
        Ok(found) => {
            let same = found.is_some_and(|(other, _)| other == oracle);
            if same {
                eprintln!("[{oracle}] {}", candidate.to_json());
            }
            same
        }
        Err(why) => {
            error = Some(why);
            false
        }
    };
    let (smallest, tries) = shrink(&plan, args.tries, fails);
    if let Some(error) = error {
        return Err(error);
    }
    let what = failure(&program, &smallest)?.map_or_else(String::new, |(_, line)| line);
    let file = args.to.clone().unwrap_or_else(|| format!("mxsim-{}.json", plan.seed).into());
    let text = smallest.to_json() + "\n";
    std::fs::write(&file, &text).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("{what}");
    print!("{text}");
    println!("{tries} tried; again, with a log:  cargo xtask replay --plan {}", file.display());
    Ok(ExitCode::FAILURE)
}

/// Plays a plan in a process of its own, which a panic may end: the oracle that found something, and
/// its line.
fn failure(program: &Path, plan: &Plan) -> Result<Option<(String, String)>, String> {
    let mut child = Command::new(program)
        .args(["replay", "--quiet", "--plan", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(plan.to_json().as_bytes()).map_err(|e| e.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find_map(|line| {
        let (_, found) = line.split_once("FAILED: [")?;
        let (oracle, _) = found.split_once(']')?;
        Some((oracle.to_owned(), line.to_owned()))
    });
    found.map(Some).ok_or_else(|| format!("the run ended in {}: {text}", output.status))
}
