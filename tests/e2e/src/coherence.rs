//! The program `mx-coherence`: whatever one node does, every node sees at once, whatever it looks
//! at, and however warm its caches are.
//!
//! * `mx-coherence pairs SEED PART DIR...`: each operation on the first node with each observation on
//!   all of them, one after the other, and once more when the others are done: a pause.
//! * `mx-coherence races SEED PART DIR...`: the same, while all look all the time.
//! * `mx-coherence winners SEED ROUNDS DIR...`: of many who want the same name one gets it.
//! * `mx-coherence appends SEED COUNT DIR...`: no append is lost or torn.
//! * `mx-coherence follows SEED WRITES DIR...`: readers of a file that grows never end too early.
//! * `mx-coherence table`: the table below.
//!
//! Each DIR is the same folder through the mount of a node, and may come again; PART is `all`,
//! `1/3` for the first third of the pairs, or the name of an operation. The operations, the observations and what is expected
//! of each pair are the table of docs/semantics.md, which [`table`] writes.

mod appends;
mod follows;
mod model;
mod observations;
mod operations;
mod pairs;
mod winners;
mod world;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::Timespec;

use crate::dice::Dice;

/// Runs what the first word says, and tells how it went.
///
/// # Errors
/// For wrong usage, and with what somebody should not have seen.
pub fn main(args: &[String], out: &mut impl Write) -> Result<()> {
    if args == ["table"] {
        return Ok(writeln!(out, "{}", table().join("\n"))?);
    }
    let [what, seed, number, dirs @ ..] = args else {
        bail!("usage: mx-coherence pairs|races|winners|appends|follows SEED NUMBER DIR...");
    };
    ensure!(!dirs.is_empty(), "no DIR");
    let mut dice = Dice::new(seed.parse().context("SEED")?);
    let dirs: Vec<PathBuf> = dirs.iter().map(PathBuf::from).collect();
    rustix::process::umask(0.into());
    let count = || number.parse::<u32>().context("NUMBER");
    let told = match what.as_str() {
        "pairs" => pairs::run(&pairs::Part::parse(number)?, &dirs, pairs::in_turn, &mut dice)?,
        "races" => pairs::run(&pairs::Part::parse(number)?, &dirs, pairs::at_once, &mut dice)?,
        "winners" => winners::run(count()?, &dirs)?,
        "appends" => appends::run(count()?, &dirs, &mut dice)?,
        "follows" => follows::run(count()?, &dirs, &mut dice)?,
        _ => bail!("{what}: not known"),
    };
    Ok(writeln!(out, "{what}: {told}")?)
}

/// The table of docs/semantics.md, a line for each row: `new` where another node has to see what
/// the operation changed, `late` where it may see it later, nothing where nothing changes.
pub fn table() -> Vec<String> {
    let line = |cells: &[&str]| format!("| {} |", cells.join(" | "));
    let names = observations::ALL.iter().map(|observation| observation.name);
    let heading: Vec<&str> = ["operation"].into_iter().chain(names).collect();
    let mut lines = vec![line(&heading), line(&vec!["---"; heading.len()])];
    for operation in operations::ALL {
        let cell = |observation| pairs::Pair::new(operation, observation).mark();
        let cells = [operation.name].into_iter().chain(observations::ALL.iter().map(cell));
        lines.push(line(&cells.collect::<Vec<_>>()));
    }
    lines
}

/// What a file's times are set to.
fn told() -> Timespec {
    Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 }
}
