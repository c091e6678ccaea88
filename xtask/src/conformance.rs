//! `conformance`: docs/conformance.md says the truth about what is proven.
//!
//! A row that is `done` or `part` names at least one test, and every test that is named exists.
//! Whether the test passes is the test run's affair.

mod table;
mod tests_found;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use crate::workspace;
use table::{Row, Status};
use tests_found::TestsFound;

const DOCUMENT: &str = "docs/conformance.md";

/// Checks that every row marked done or part names tests that exist, and counts rows
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<ExitCode> {
    check()?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check() -> Result<()> {
    let files = workspace::files(&workspace::root())?;
    let document = files.iter().find(|file| file.path == DOCUMENT).context(DOCUMENT)?;
    let (rows, mut findings) = table::read(&document.text);
    findings.extend(check_rows(&rows, &TestsFound::among(&files)));
    for (line, finding) in &findings {
        println!("{DOCUMENT}:{line}: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} of {} rows of {DOCUMENT} are wrong", findings.len(), rows.len());
    }
    print!("{}", count(&rows));
    Ok(())
}

fn check_rows(rows: &[Row], found: &TestsFound) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    for Row { line, id, status, .. } in rows {
        if let Status::Part(tests) | Status::Done(tests) = status {
            for test in tests.iter().filter(|test| !found.has(test)) {
                findings.push((*line, format!("{id} names `{test}`, and there is no such test")));
            }
        }
    }
    findings
}

/// A table of rows by area and status.
fn count(rows: &[Row]) -> String {
    let mut areas: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for row in rows {
        let column = match row.status {
            Status::Todo => 0,
            Status::Part(_) => 1,
            Status::Done(_) => 2,
            Status::NotApplicable => 3,
        };
        areas.entry(&row.area).or_default()[column] += 1;
        areas.entry("all").or_default()[column] += 1;
    }
    let mut text =
        format!("{:6}{:>6}{:>6}{:>6}{:>6}{:>6}\n", "area", "todo", "part", "done", "n/a", "rows");
    for (area, [todo, part, done, none]) in &areas {
        let sum = todo + part + done + none;
        text += &format!("{area:6}{todo:6}{part:6}{done:6}{none:6}{sum:6}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::File;

    #[test]
    fn a_row_that_names_a_test_that_does_not_exist_is_found() {
        let text = "| S0-001 | A. | Fig | HA | F | x | done `one` |\n| S0-002 | B. | Fig | HA | F | x | part `two` |\n";
        let (rows, findings) = table::read(text);
        assert!(findings.is_empty(), "{findings:?}");
        let source = "//! A.\n#[test]\nfn one() {}\n";
        let file = File { path: "dlm/src/a.rs".to_owned(), text: source.to_owned() };
        let findings = check_rows(&rows, &TestsFound::among(&[file]));
        assert_eq!(findings, [(2, "S0-002 names `two`, and there is no such test".to_owned())]);
    }

    #[test]
    fn rows_are_counted_by_area_and_status() {
        let text = "| S0-001 | A. | Fig | HA | F | x | todo |\n| S0-002 | B. | Fig | CORE | F | x | done `x` |\n| S0-003 | B. | Fig | HA | F | x | n/a |\n";
        let (rows, _) = table::read(text);
        let text = count(&rows);
        let line = |name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(line("CORE").as_deref(), Some("0 0 1 0 1"));
        assert_eq!(line("HA").as_deref(), Some("1 0 0 1 2"));
        assert_eq!(line("all").as_deref(), Some("1 0 1 1 3"));
    }
}
