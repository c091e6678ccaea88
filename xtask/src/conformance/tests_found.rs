//! Every test there is, by the names that docs/conformance.md may call it.
//!
//! * `name`: a function with a test attribute, in any crate;
//! * `crate::name`: the same, in that crate; whatever stands between, as in
//!   `dlm::grant::tests::name`, is for the reader;
//! * `e2e/name`, `sim/name`: the file `name.rs` below a folder `suites` or `invariants` of that
//!   crate.

use std::collections::BTreeSet;

use crate::rust_source;
use crate::tidy::arrows;
use crate::workspace::File;

#[derive(Debug, Default)]
pub(super) struct TestsFound {
    names: BTreeSet<String>,
}

impl TestsFound {
    pub(super) fn among(files: &[File]) -> TestsFound {
        let mut names = BTreeSet::new();
        for file in files.iter().filter(|file| file.is_rust()) {
            let owner = arrows::owner(&file.path).map_or("", |row| row.name);
            let code = rust_source::code(&file.text);
            for test in rust_source::tests(&code) {
                names.insert(test.to_owned());
                names.insert(format!("{owner}::{test}"));
            }
            let mut components = file.path.rsplit('/');
            let stem = components.next().and_then(|name| name.strip_suffix(".rs"));
            if let (Some(stem), Some("suites" | "invariants")) = (stem, components.next()) {
                names.insert(format!("{owner}/{stem}"));
            }
        }
        TestsFound { names }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match (name.split_once("::"), name.rsplit_once("::")) {
            (Some((package, _)), Some((_, test))) => {
                self.names.contains(&format!("{package}::{test}"))
            }
            _ => self.names.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_by_its_name_its_crate_and_its_path() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let found = TestsFound::among(&[
            file("dlm/src/grant.rs", "#[test]\nfn ex_waits() {}\n// #[test]\nfn not_a_test() {}\n"),
            file("tests/e2e/src/suites/coherence.rs", "fn run() {}\n"),
        ]);
        for name in ["ex_waits", "dlm::ex_waits", "dlm::grant::tests::ex_waits", "e2e/coherence"] {
            assert!(found.has(name), "{name}");
        }
        for name in ["not_a_test", "lcl::ex_waits", "coherence", "sim/coherence", "ex"] {
            assert!(!found.has(name), "{name}");
        }
    }
}
