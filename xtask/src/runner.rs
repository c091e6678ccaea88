//! Runs the tests of the workspace and counts them: with nextest where it is installed, otherwise
//! with cargo's own runner.

use anyhow::{Result, bail};

use crate::process;
use crate::steps::Counts;
use crate::workspace::cargo;

/// Which packages are tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    /// What needs neither mounts nor privileges.
    Units,
    All,
}

/// Packages whose tests start daemons and mount file systems.
const NOT_UNITS: [&str; 2] = ["e2e", "bench"];

pub(crate) fn tests(which: Which) -> Result<Counts> {
    let runner: &[&str] = if has_nextest() {
        &["nextest", "run", "--no-fail-fast", "--no-tests=pass"]
    } else {
        // With the libraries and binaries only; the documentation is a step of its own.
        &["test", "--no-fail-fast", "--lib", "--bins", "--tests"]
    };
    let mut command = cargo(runner);
    command.args(["--workspace", "--locked"]);
    if which == Which::Units {
        command.args(NOT_UNITS.iter().flat_map(|package| ["--exclude", package]));
    }
    count(&mut command)
}

/// Tests of a package in their long forms, one after another; those of one test program, or all.
pub(crate) fn long_tests(
    package: &str,
    test: Option<&str>,
    rounds: u16,
    name: Option<&str>,
) -> Result<Counts> {
    let mut command = if has_nextest() {
        cargo(&["nextest", "run", "--profile", "long", "--package", package, "--locked"])
    } else {
        cargo(&["test", "--no-fail-fast", "--package", package, "--locked"])
    };
    match test {
        Some(test) => _ = command.args(["--test", test]),
        None if has_nextest() => {}
        None => _ = command.arg("--tests"),
    }
    command.args(name).env("MATRIXFS_E2E_ROUNDS", rounds.to_string());
    if !has_nextest() {
        command.args(["--", "--test-threads=1"]);
    }
    count(&mut command)
}

/// Every state of small clusters of lock managers, within bounds that take seconds or minutes.
pub(crate) fn every_state(is_long: bool) -> Result<Counts> {
    let mut command = cargo(&["test", "--no-fail-fast", "--locked", "--package", "dlm"]);
    command.args(["--features", EVERY_STATE]);
    if is_long {
        command.args(["--release", "--test", "exhaustive-long", "--", "--nocapture"]);
    } else {
        command.args(["--test", "exhaustive", "--test", "exhaustive-broken"]);
    }
    count(&mut command)
}

/// The features without which the tests of [`every_state`] are not built.
pub(crate) const EVERY_STATE: &str = "few-buckets,broken-rules";

/// The examples in the documentation.
pub(crate) fn doc_tests() -> Result<Counts> {
    count(cargo(&["test", "--doc", "--no-fail-fast"]).args(["--workspace", "--locked"]))
}

fn has_nextest() -> bool {
    process::output(&mut cargo(&["nextest", "--version"])).is_ok()
}

fn count(command: &mut std::process::Command) -> Result<Counts> {
    let mut counts = Counts::NONE;
    let status = process::watch(command, |line| {
        if let Some(more) = closing_line(line) {
            counts = counts.plus(more);
        }
    })?;
    if !status.success() && counts.failed == 0 {
        // It did not build, or it was stopped.
        bail!("the test runner ended with {status}");
    }
    Ok(counts)
}

/// Reads `Summary [ 1.2s] 5 tests run: 4 passed, 1 failed, 3 skipped` of nextest and
/// `test result: FAILED. 4 passed; 1 failed; 0 ignored; ..` of cargo.
fn closing_line(line: &str) -> Option<Counts> {
    if line.trim_start().starts_with("Summary [") {
        let (before, after) = line.split_once(" run: ")?;
        let run = before.split_whitespace().rev().nth(1)?;
        // `5/7 tests run` when the run was cut short.
        let run: u64 = run.split('/').next()?.parse().ok()?;
        let passed = number_before(after, "passed").unwrap_or(0);
        return Some(Counts { passed, failed: run.saturating_sub(passed) });
    }
    // Indented, it is the output of a test that failed, shown by nextest.
    let results = line.strip_prefix("test result: ")?;
    let (_, results) = results.split_once(". ")?;
    Some(Counts {
        passed: number_before(results, "passed")?,
        failed: number_before(results, "failed")?,
    })
}

fn number_before(text: &str, word: &str) -> Option<u64> {
    let (before, _) = text.split_once(&format!(" {word}"))?;
    before.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_both_runners_are_understood() {
        let counts = |line| closing_line(line).map(|c| (c.passed, c.failed));
        assert_eq!(
            counts("     Summary [   1.035s] 12 tests run: 12 passed, 0 skipped"),
            Some((12, 0))
        );
        assert_eq!(
            counts(
                "Summary [ 9s] 7 tests run: 4 passed (1 slow), 2 failed, 1 timed out, 3 skipped"
            ),
            Some((4, 3))
        );
        assert_eq!(counts("Summary [ 9s] 1 test run: 0 passed, 1 failed, 0 skipped"), Some((0, 1)));
        assert_eq!(counts("Summary [ 1s] 3/7 tests run: 2 passed, 1 failed"), Some((2, 1)));
        assert_eq!(
            counts("test result: ok. 34 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out"),
            Some((34, 0))
        );
        assert_eq!(counts("test result: FAILED. 3 passed; 2 failed; 0 ignored"), Some((3, 2)));
        assert_eq!(counts("    test result: FAILED. 0 passed; 1 failed"), None);
        assert_eq!(counts("test tests::summary ... ok"), None);
    }
}
