//! The program `mx-fsx`: one file, used through several mounts in turn, every operation checked
//! against what the file must contain.
//!
//! Keeps true: operations follow each other, so that there is one right answer to each, whichever
//! node gives it; the same seed, kinds and number of nodes give the same operations. Before an
//! operation is carried out it is written to the log: a program that is killed by the kernel (a
//! mapping that is not backed) or hangs leaves there what it was doing.
//!
//! `mx-fsx SEED OPERATIONS LENGTH KINDS LOG PATH...`: KINDS is a list with commas, `all`, or `all`
//! and names to leave out, `all,-punch`; with `size-first` a node is asked for the size before its
//! mapping is used or it copies. Each PATH is the file through the mount of one node.

mod kind;
mod model;
mod node;
mod run;

pub use kind::Kind;
pub use run::{Outcome, Plan, run};

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

/// Carries a plan out and tells how it went.
///
/// # Errors
/// For wrong usage, and with what was wrong with the file.
pub fn main(args: &[String], out: &mut impl Write) -> Result<()> {
    let [seed, operations, length, kinds, log, paths @ ..] = args else {
        bail!("usage: mx-fsx SEED OPERATIONS LENGTH KINDS LOG PATH...");
    };
    ensure!(!paths.is_empty(), "no PATH is given");
    let plan = Plan {
        seed: seed.parse().context("SEED")?,
        operations: operations.parse().context("OPERATIONS")?,
        length: length.parse().context("LENGTH")?,
        kinds: kinds_named(kinds)?,
        size_first: kinds.split(',').any(|word| word == SIZE_FIRST),
        log: PathBuf::from(log),
        paths: paths.iter().map(PathBuf::from).collect(),
    };
    let Outcome { by_kind, compared } = run(&plan)?;
    let by_kind: Vec<String> = by_kind.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    writeln!(out, "{} operations, none wrong: {}", plan.operations, by_kind.join(", "))?;
    writeln!(out, "the whole file compared {compared} times")?;
    Ok(())
}

/// Among the kinds: see [`Plan::size_first`].
const SIZE_FIRST: &str = "size-first";

fn kinds_named(text: &str) -> Result<BTreeSet<Kind>> {
    let mut kinds = BTreeSet::new();
    for word in text.split(',') {
        match word.strip_prefix('-') {
            None if word == "all" => kinds.extend(Kind::ALL),
            None if word == SIZE_FIRST => {}
            None => _ = kinds.insert(word.parse().map_err(anyhow::Error::msg)?),
            Some(word) => _ = kinds.remove(&word.parse().map_err(anyhow::Error::msg)?),
        }
    }
    ensure!(!kinds.is_empty(), "no kind of operation is left of {text}");
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_or_left_out() {
        let named = |text| kinds_named(text).map(|kinds| kinds.len()).ok();
        assert_eq!(named("all"), Some(Kind::ALL.len()));
        assert_eq!(named("all,-punch,-zero"), Some(Kind::ALL.len() - 2));
        assert_eq!(named("read,write"), Some(2));
        assert_eq!(named("read,paint"), None);
        assert_eq!(named("read,-read"), None);
    }

    #[test]
    fn a_file_of_this_machine_holds_what_is_done_to_it() {
        let folder = std::env::temp_dir().join(format!("mx-fsx-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        let words = |kinds: &str| {
            let file = folder.join("file").display().to_string();
            let log = folder.join("log").display().to_string();
            [["3", "3000", "100000", kinds].map(str::to_owned).to_vec(), vec![log, file]].concat()
        };
        // Where temporary files lie in memory there is no O_DIRECT.
        let kinds = "all,-direct-read,-direct-write";
        let mut said = Vec::new();
        let ended = main(&words(kinds), &mut said);
        std::fs::remove_dir_all(&folder).expect("removed");
        ended.expect("the kernel's own file system is right");
        assert!(String::from_utf8_lossy(&said).starts_with("3000 operations, none wrong"));
    }
}
