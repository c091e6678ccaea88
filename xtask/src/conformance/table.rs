//! The rows of docs/conformance.md.
//!
//! A row is a line `| S3-036 | requirement | where | area | kind | note | status |`. The status is
//! `todo`, `n/a`, or `part` or `done` followed by the tests, each in backquotes.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Row {
    /// From 1.
    pub line: usize,
    pub id: String,
    pub area: String,
    pub status: Status,
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Status {
    Todo,
    Part(Vec<String>),
    Done(Vec<String>),
    NotApplicable,
}

const AREAS: [&str; 5] = ["HA", "CORE", "BOTH", "UI", "NA"];

/// All rows that can be read, and what is wrong with the others, by line.
pub(super) fn read(document: &str) -> (Vec<Row>, Vec<(usize, String)>) {
    let mut rows = Vec::new();
    let mut findings = Vec::new();
    let mut lines_by_id: BTreeMap<String, usize> = BTreeMap::new();
    for (index, text) in document.lines().enumerate() {
        let line = index + 1;
        let cells: Vec<&str> = text.split('|').map(str::trim).collect();
        // The table of obsolete forms repeats ids in rows of three cells.
        if cells.len() <= 5 || !cells.get(1).is_some_and(|cell| is_id(cell)) {
            continue;
        }
        match row(line, &cells) {
            Ok(row) => {
                if let Some(before) = lines_by_id.insert(row.id.clone(), line) {
                    findings.push((line, format!("{} stands on line {before} already", row.id)));
                }
                rows.push(row);
            }
            Err(finding) => findings.push((line, format!("{}: {finding}", cells[1]))),
        }
    }
    if rows.is_empty() {
        findings.push((1, "no rows".to_owned()));
    }
    (rows, findings)
}

/// Such as `S3-036`.
fn is_id(cell: &str) -> bool {
    let is_number = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    let parts = cell.strip_prefix('S').and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(seed, row)| is_number(seed, 1) && is_number(row, 3))
}

fn row(line: usize, cells: &[&str]) -> Result<Row, String> {
    let [_, id, _, _, area, _, _, status, _] = cells else {
        return Err(format!("{} cells instead of 7", cells.len() - 2));
    };
    if !AREAS.contains(area) {
        return Err(format!("unknown area {area:?}"));
    }
    Ok(Row { line, id: (*id).to_owned(), area: (*area).to_owned(), status: read_status(status)? })
}

fn read_status(cell: &str) -> Result<Status, String> {
    let (word, rest) = cell.split_once(' ').unwrap_or((cell, ""));
    let tests: Vec<String> = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    match (word, tests.is_empty()) {
        ("todo", true) if rest.is_empty() => Ok(Status::Todo),
        ("n/a", true) if rest.is_empty() => Ok(Status::NotApplicable),
        ("part", false) => Ok(Status::Part(tests)),
        ("done", false) => Ok(Status::Done(tests)),
        ("part" | "done", true) => Err(format!("{word} names no test in backquotes")),
        _ => Err(format!("unknown status {cell:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_with_their_tests() {
        let tests = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(read_status("todo"), Ok(Status::Todo));
        assert_eq!(read_status("n/a"), Ok(Status::NotApplicable));
        assert_eq!(read_status("done `a::b`, `c`"), Ok(Status::Done(tests(&["a::b", "c"]))));
        assert_eq!(read_status("part `x`; y is missing"), Ok(Status::Part(tests(&["x"]))));
        assert!(read_status("done").is_err());
        assert!(read_status("done x").is_err());
        assert!(read_status("nearly `x`").is_err());
        assert!(read_status("todo later").is_err());
        assert!(read_status("").is_err());
    }

    #[test]
    fn wrong_rows_are_told_by_line() {
        let text = "| S0-001 | A | w | HA | F | n | todo |\n| S0-001 | B | w | HA | F | n | todo |\n| S0-002 | C | w | XX | F | n | todo |\n| S0-003 | C | w | HA | F | todo |\n| S0-001 | Fig | old -> new |\n| not a row |\n";
        let (rows, findings) = read(text);
        assert_eq!(rows.len(), 2);
        let lines: Vec<usize> = findings.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }
}
