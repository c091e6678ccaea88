//! Suites that run on real mounts: each is the file of its name in `tests/e2e/tests/suites`.

use anyhow::{Result, bail};

use crate::packages::Need;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    /// Of its file, and so of the module that its tests are in.
    pub name: &'static str,
    /// What it tries, in a line.
    pub about: &'static str,
    pub needs: &'static [Need],
    /// From the crate registry.
    pub tools: &'static [&'static str],
}

const POSTGRES: &[Need] = &[
    Need { program: "postgres", package: "postgresql" },
    Need { program: "psql", package: "postgresql" },
];

/// In the order of the names.
pub(crate) const ALL: &[Suite] = &[
    Suite {
        name: "archives",
        about: "rsync and tar: a tree goes round over three nodes and comes back the same",
        needs: &[
            Need { program: "rsync", package: "rsync" },
            Need { program: "tar", package: "tar" },
        ],
        tools: &[],
    },
    Suite {
        name: "cargo",
        about: "cargo builds a program on one node and goes on with it on another",
        needs: &[],
        tools: &[],
    },
    Suite {
        name: "coherence",
        about: "every operation of a node with every observation of all, in turn and in a race",
        needs: &[],
        tools: &[],
    },
    Suite {
        name: "damage",
        about: "a block of each kind is damaged, the rest goes on, and fsck puts it right",
        needs: &[],
        tools: &[],
    },
    Suite {
        name: "dbench",
        about: "dbench on one node, and on three at once",
        needs: &[Need { program: "dbench", package: "dbench" }],
        tools: &[],
    },
    Suite {
        name: "fio",
        about: "fio writes on one node and verifies there and on another, buffered, direct, mapped",
        needs: &[Need { program: "fio", package: "fio" }],
        tools: &[],
    },
    Suite {
        name: "fsx",
        about: "fsx, with mappings, on one node, and while another reads; 1,000,000 operations",
        needs: &[],
        tools: &["fsx"],
    },
    Suite {
        name: "git",
        about: "git: two nodes commit, repack, check out and check, a third reads everything",
        needs: &[Need { program: "git", package: "git" }],
        tools: &[],
    },
    Suite {
        name: "maildir",
        about: "mail is delivered and read on three nodes, one dies, every mail is there once",
        needs: &[],
        tools: &[],
    },
    Suite {
        name: "ping_pong",
        about: "ping_pong of ctdb: two processes lock the same bytes in turn, on two nodes, on one",
        needs: &[Need { program: "ping_pong", package: "ctdb" }],
        tools: &[],
    },
    Suite {
        name: "pjdfstest",
        about: "pjdfstest: what POSIX says of each system call, while another node lists",
        needs: &[],
        tools: &["pjdfstest"],
    },
    Suite {
        name: "postgres",
        about: "PostgreSQL under pgbench: its node is killed, another goes on, nothing is lost",
        needs: POSTGRES,
        tools: &[],
    },
    Suite {
        name: "shared_file",
        about: "one file, three nodes, every operation checked; 200,000 operations",
        needs: &[],
        tools: &[],
    },
    Suite {
        name: "sqlite",
        about: "SQLite in both journal modes, killed in the middle, nothing committed is lost",
        needs: &[Need { program: "sqlite3", package: "sqlite3" }],
        tools: &[],
    },
    Suite {
        name: "stress",
        about: "stress-ng: the stressors of its file-system class, on one node and on three",
        needs: &[Need { program: "stress-ng", package: "stress-ng" }],
        tools: &[],
    },
];

/// The one with a name.
pub(crate) fn named(name: &str) -> Result<&'static Suite> {
    match ALL.iter().find(|suite| suite.name == name) {
        Some(suite) => Ok(suite),
        None => bail!("there is no suite {name}; `cargo xtask e2e --suite list` names them"),
    }
}

/// What all of them need.
pub(crate) fn needs() -> Vec<Need> {
    ALL.iter().flat_map(|suite| suite.needs).copied().collect()
}

/// What all of them take from the crate registry.
pub(crate) fn tools() -> Vec<&'static str> {
    ALL.iter().flat_map(|suite| suite.tools).copied().collect()
}

pub(crate) fn list() {
    let width = ALL.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    for Suite { name, about, .. } in ALL {
        println!("{name:width$}  {about}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_suite_is_a_file_with_tests_and_every_such_file_a_suite() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/e2e/tests/suites");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).expect("it is there") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            if text.contains("#[test]") {
                let stem = path.file_stem().expect("a name").to_string_lossy();
                found.push(stem.into_owned());
            }
        }
        found.sort();
        assert_eq!(found, ALL.iter().map(|suite| suite.name).collect::<Vec<_>>());
    }
}
