//! Rules for every source file, and for what stands in all text files.

use super::arrows::{self, Kind};
use crate::rust_source;
use crate::workspace::File;

/// Beyond this two concepts share a file (house style).
const LINES_MAX: usize = 900;

/// The folder with requirements lies outside the repository; nothing may depend on it.
const OUTSIDE: &str = concat!("../", "shared");

const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "make the test run, or take it out"),
    ("todo!", "write it, or leave the function out"),
    ("unimplemented!", "write it, or leave the function out"),
    ("dbg!", "use tracing"),
];

/// Names of files that say nothing about what is inside.
const NAMELESS: &[&str] =
    &["common.rs", "helper.rs", "helpers.rs", "misc.rs", "types.rs", "utils.rs", "util.rs"];

pub(crate) fn check(files: &[File]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let path = &file.path;
    for (index, line) in file.text.lines().enumerate() {
        let number = index + 1;
        if line.ends_with([' ', '\t']) {
            findings.push(format!("{path}:{number}: space at the end of the line"));
        }
        if line.contains(OUTSIDE) {
            findings.push(format!("{path}:{number}: {OUTSIDE} is not part of the project"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(format!("{path}: the last line has no end"));
    }
    if file.is_rust() {
        findings.extend(check_rust(file));
    }
    findings
}

fn check_rust(file: &File) -> Vec<String> {
    let mut findings = Vec::new();
    let path = &file.path;
    if !file.text.starts_with("//!") {
        findings.push(format!("{path}:1: begin with `//!`: what is this, what does it keep true?"));
    }
    let lines = file.text.lines().count();
    if lines > LINES_MAX {
        findings.push(format!("{path}: {lines} lines; split by concern before {LINES_MAX}"));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if NAMELESS.contains(&name) || name.ends_with("manager.rs") {
        findings.push(format!("{path}: name the file for what is inside"));
    }
    let code = rust_source::code(&file.text);
    for (index, line) in code.lines().enumerate() {
        for (banned, instead) in BANNED {
            if line.contains(banned) {
                findings.push(format!("{path}:{}: `{banned}`: {instead}", index + 1));
            }
        }
    }
    let may_be_unsafe = arrows::owner(path).is_some_and(|row| matches!(row.kind, Kind::Shell));
    if !may_be_unsafe {
        let unsafes = rust_source::identifiers(&code).filter(|(_, word)| *word == "unsafe");
        findings.extend(unsafes.map(|(line, _)| format!("{path}:{line}: unsafe is for shells")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_line() {
        let found = |path: &str, text: &str| {
            let file = File { path: path.to_owned(), text: text.to_owned() };
            check_file(&file)
        };
        assert_eq!(found("dlm/src/a.rs", "//! Fine.\n\nfn f() {}\n"), [""; 0]);
        assert!(found("dlm/src/a.rs", "fn f() {}\n")[0].starts_with("dlm/src/a.rs:1: begin"));
        assert!(found("a.md", "x \n")[0].starts_with("a.md:1: space"));
        assert!(found("a.md", "x")[0].contains("no end"));
        let outside = format!("see {OUTSIDE}/x\n");
        assert!(found("a.md", &outside)[0].starts_with("a.md:1:"));
        let text = "//! A.\n#[test]\n#[ignore]\nfn f() { todo!() }\n";
        assert_eq!(found("dlm/src/a.rs", text).len(), 2);
        let text = "//! A.\n// SAFETY: none\nunsafe fn f() {}\n";
        assert_eq!(found("dlm/src/a.rs", text).len(), 1);
        assert_eq!(found("mfs/fuse/src/a.rs", text).len(), 0);
        assert_eq!(found("dlm/src/utils.rs", "//! A.\n").len(), 1);
        let long = format!("//! A.\n{}", "//\n".repeat(LINES_MAX));
        assert_eq!(found("dlm/src/a.rs", &long).len(), 1);
    }

    #[test]
    fn what_stands_in_comments_and_strings_is_no_code() {
        let text = "//! A.\n// todo! unsafe\nconst A: &str = \"#[ignore] unsafe\";\n";
        let file = File { path: "dlm/src/a.rs".to_owned(), text: text.to_owned() };
        assert_eq!(check_file(&file), [""; 0]);
    }
}
