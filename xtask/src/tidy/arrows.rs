//! Which crate may use which: the one table of it.
//!
//! Compared with what `cargo metadata` says and with the block in ARCHITECTURE.md.

use crate::workspace::{File, Package};

/// A crate of the workspace and what it may depend on.
#[derive(Debug)]
pub(crate) struct Row {
    pub name: &'static str,
    pub folder: &'static str,
    pub kind: Kind,
    /// Crates of the workspace; also what tests of the crate may use, besides `model`.
    pub uses: &'static [&'static str],
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// No clock, randomness, thread, socket or file; no `unsafe`. From outside the workspace it
    /// may use these crates, and in its tests any.
    Pure(&'static [&'static str]),
    /// Where effects are carried out; may use any crate from outside.
    Shell,
    /// Part of the proof or of the tools: like a shell, but without `unsafe`.
    Tool,
}

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { name: "mx-base", folder: "base", kind: Kind::Pure(&[]), uses: &[] },
    Row { name: "dlm", folder: "dlm", kind: Kind::Pure(CORE), uses: &["mx-base"] },
    Row { name: "lcl", folder: "lcl", kind: Kind::Pure(LOCK_CACHE), uses: &["mx-base", "dlm"] },
    Row { name: "mfs", folder: "mfs", kind: Kind::Pure(FILE_SYSTEM), uses: &["mx-base", "lcl"] },
    Row { name: "mfs-fuse", folder: "mfs/fuse", kind: Kind::Shell, uses: &["mx-base", "lcl", "mfs"] },
    Row { name: "fencing", folder: "fencing", kind: Kind::Pure(CORE), uses: &["mx-base"] },
    Row { name: "fencing-agents", folder: "fencing/agents", kind: Kind::Shell, uses: &["mx-base", "fencing"] },
    Row { name: "cluster", folder: "cluster", kind: Kind::Pure(CORE), uses: &["mx-base"] },
    Row { name: "mx-latch", folder: "daemon/latch", kind: Kind::Shell, uses: &[] },
    Row { name: "mx-node", folder: "daemon/node", kind: Kind::Pure(NODE), uses: &["mx-base", "lcl", "mfs", "fencing", "cluster", "mx-latch"] },
    Row { name: "mxd", folder: "daemon", kind: Kind::Shell, uses: &["mx-base", "lcl", "mfs", "mfs-fuse", "fencing", "fencing-agents", "cluster", "mx-latch", "mx-node"] },
    Row { name: "model", folder: "tests/model", kind: Kind::Pure(&[]), uses: &["mx-base"] },
    Row { name: "sim", folder: "tests/sim", kind: Kind::Tool, uses: &["mx-base", "dlm", "lcl", "mfs", "fencing", "cluster", "mx-node", "model"] },
    Row { name: "e2e", folder: "tests/e2e", kind: Kind::Shell, uses: &["mx-base", "fencing", "fencing-agents"] },
    Row { name: "fuzz", folder: "tests/fuzz", kind: Kind::Tool, uses: &["mx-base", "dlm", "mfs", "mfs-fuse", "fencing", "fencing-agents", "cluster"] },
    Row { name: "bench", folder: "tests/bench", kind: Kind::Shell, uses: &["mx-base", "lcl", "mfs", "fencing", "fencing-agents", "e2e"] },
    Row { name: "xtask", folder: "xtask", kind: Kind::Tool, uses: &["e2e"] },
];

/// What protocol crates may use: errors, logs, layouts, checksums, latches.
const CORE: &[&str] = &[
    "blake3",
    "crc-fast",
    "parking_lot",
    "postcard",
    "serde",
    "siphasher",
    "smallvec",
    "thiserror",
    "tracing",
    "zerocopy",
];

/// What the lock cache may use: the same, and a table for entries that are found by a fixed hash.
/// What comes out of it is sorted, so no order of a hash is seen.
const LOCK_CACHE: &[&str] = &[
    "blake3",
    "crc-fast",
    "hashbrown",
    "parking_lot",
    "postcard",
    "serde",
    "siphasher",
    "smallvec",
    "thiserror",
    "tracing",
    "zerocopy",
];

/// The file system's operations are futures, and its caches are met by threads.
const FILE_SYSTEM: &[&str] = &[
    "crc-fast",
    "event-listener",
    "futures-channel",
    "futures-util",
    "parking_lot",
    "siphasher",
    "thiserror",
    "tracing",
    "zerocopy",
];

/// A node routes what futures answer.
const NODE: &[&str] = &["futures-channel", "parking_lot", "serde", "thiserror", "tracing"];

/// Tests of every crate may use it.
const FOR_ALL_TESTS: &str = "model";

pub(crate) fn pure() -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(|row| matches!(row.kind, Kind::Pure(_)))
}

/// The row of the crate in whose folder a file lies.
pub(crate) fn owner(path: &str) -> Option<&'static Row> {
    let contains =
        |row: &&Row| path.strip_prefix(row.folder).is_some_and(|rest| rest.starts_with('/'));
    ROWS.iter().filter(contains).max_by_key(|row| row.folder.len())
}

/// The block of ARCHITECTURE.md.
fn diagram() -> String {
    let width = ROWS.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let line = |row: &Row| {
        let uses = if row.uses.is_empty() { "nothing".to_owned() } else { row.uses.join(", ") };
        format!("{:width$} -> {uses}\n", row.name)
    };
    ROWS.iter().map(line).collect()
}

pub(crate) fn check(packages: &[Package], files: &[File]) -> Vec<String> {
    let members = packages.iter().filter_map(|package| Some((package, package.folder.as_ref()?)));
    let mut findings: Vec<String> = members
        .clone()
        .flat_map(|(package, folder)| match ROWS.iter().find(|row| row.name == package.name) {
            Some(row) if row.folder == folder => check_package(row, package),
            Some(row) => vec![format!("{folder}: {} belongs into {}", row.name, row.folder)],
            None => {
                let name = &package.name;
                vec![format!("{folder}: crate {name} has no row in xtask/src/tidy/arrows.rs")]
            }
        })
        .collect();
    for row in ROWS {
        if !members.clone().any(|(package, _)| package.name == row.name) {
            findings.push(format!("xtask/src/tidy/arrows.rs: there is no crate {}", row.name));
        }
    }
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md");
    let diagram = diagram();
    if !architecture.is_some_and(|file| file.text.contains(&format!("```arrows\n{diagram}```"))) {
        findings.push(format!("ARCHITECTURE.md: the block of arrows should be\n{diagram}"));
    }
    findings
}

fn check_package(row: &Row, package: &Package) -> Vec<String> {
    let mut findings = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let is_ours = ROWS.iter().any(|row| row.name == name);
        let is_allowed = if is_ours {
            row.uses.contains(&name)
                || name == row.name
                || (dependency.is_dev && name == FOR_ALL_TESTS)
        } else {
            match row.kind {
                Kind::Pure(outside) => dependency.is_dev || outside.contains(&name),
                Kind::Shell | Kind::Tool => true,
            }
        };
        if !is_allowed {
            let folder = row.folder;
            findings.push(format!(
                "{folder}/Cargo.toml: {} may not use {name} (xtask/src/tidy/arrows.rs)",
                row.name
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    #[test]
    fn the_table_has_no_cycle_and_names_only_its_own_rows() {
        for (index, row) in ROWS.iter().enumerate() {
            for name in row.uses {
                let at = ROWS.iter().position(|other| other.name == *name);
                let before_or_model = at.is_some_and(|at| at < index || *name == "mx-node");
                assert!(before_or_model, "{} uses {name}, which has to come before it", row.name);
            }
        }
    }

    #[test]
    fn a_dependency_against_the_arrows_is_found_and_one_of_tests_on_the_model_is_not() {
        let dependency = |name: &str, is_dev| Dependency { name: name.to_owned(), is_dev };
        let package = Package {
            name: "dlm".to_owned(),
            version: "0.1.0".to_owned(),
            licence: None,
            folder: Some("dlm".to_owned()),
            dependencies: vec![
                dependency("mx-base", false),
                dependency("lcl", false),
                dependency("tokio", false),
                dependency("loom", true),
                dependency("model", true),
            ],
            binaries: Vec::new(),
        };
        let row = ROWS.iter().find(|row| row.name == "dlm").expect("dlm has a row");
        let findings = check_package(row, &package);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].contains("dlm may not use lcl"), "{findings:?}");
        assert!(findings[1].contains("dlm may not use tokio"), "{findings:?}");
    }

    #[test]
    fn a_file_belongs_to_the_innermost_crate() {
        let owner = |path| owner(path).map(|row| row.name);
        assert_eq!(owner("mfs/fuse/src/lib.rs"), Some("mfs-fuse"));
        assert_eq!(owner("mfs/src/lib.rs"), Some("mfs"));
        assert_eq!(owner("docs/style.md"), None);
    }
}
