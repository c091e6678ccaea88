//! Named steps with their times: all of them run, whatever fails, and a table tells how it went.

use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

/// Tests that ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub passed: u64,
    pub failed: u64,
}

impl Counts {
    pub(crate) const NONE: Counts = Counts { passed: 0, failed: 0 };

    pub(crate) fn plus(self, other: Counts) -> Counts {
        Counts { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

/// As test runners close: recognised by CI.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    took: Duration,
    counts: Counts,
    error: Option<Error>,
}

impl Steps {
    /// Runs a step. One that runs no tests returns [`Counts::NONE`]; when it fails it counts as
    /// one failure.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<Counts>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let (counts, error) = match step() {
            Ok(counts) => (counts, None),
            Err(error) => {
                println!("{name}: {error:#}");
                (Counts { passed: 0, failed: 1 }, Some(error))
            }
        };
        self.done.push(Step { name: name.to_owned(), took: start.elapsed(), counts, error });
    }

    /// Prints the table and, as the very last line, the sum of the tests.
    pub(crate) fn finish(self) -> ExitCode {
        print!("\n{self}");
        let total = self.total();
        println!("{total}");
        if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn total(&self) -> Counts {
        self.done.iter().fold(Counts::NONE, |sum, step| sum.plus(step.counts))
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.done.iter().map(|step| step.name.len()).max().unwrap_or(0);
        for Step { name, took, counts, error } in &self.done {
            let seconds = took.as_secs_f64();
            let failed = counts.failed > 0;
            let result = if failed { "FAILED" } else { "ok" };
            write!(f, "{name:width$} {seconds:7.1} s  {result:6}")?;
            if *counts != Counts::NONE && error.is_none() {
                write!(f, " {} tests", counts.passed + counts.failed)?;
                if failed {
                    write!(f, ", {} failed", counts.failed)?;
                }
            }
            if let Some(error) = error {
                write!(f, " {}", error.to_string().lines().next().unwrap_or_default())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_failed_step_does_not_keep_the_next_from_running_and_counts_once() {
        let mut steps = Steps::default();
        steps.run("one", || Err(anyhow!("broken")));
        steps.run("two", || Ok(Counts { passed: 5, failed: 2 }));
        steps.run("three", || Ok(Counts::NONE));
        assert_eq!(steps.total().to_string(), "5 passed, 3 failed");
        let table = steps.to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("one") && lines[0].ends_with("FAILED broken"), "{table}");
        assert!(lines[1].ends_with("7 tests, 2 failed"), "{table}");
        assert!(lines[2].trim_end().ends_with("ok"), "{table}");
        assert_eq!(steps.finish(), ExitCode::FAILURE);
    }
}
