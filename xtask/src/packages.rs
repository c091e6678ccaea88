//! What a machine needs besides Rust: checked, and on Debian and Ubuntu installed.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A program and the Debian package it comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub program: &'static str,
    pub package: &'static str,
}

/// For the tests.
pub(crate) const FOR_TESTS: &[Need] = &[
    Need { program: "cc", package: "gcc" },
    Need { program: "git", package: "git" },
    Need { program: "fusermount3", package: "fuse3" },
    Need { program: "mount", package: "mount" },
    Need { program: "losetup", package: "mount" },
    Need { program: "blkid", package: "util-linux" },
    Need { program: "mkfs.ext4", package: "e2fsprogs" },
];

/// Sees to it that every program is there: installs what is missing when run by root, otherwise
/// fails with the one line to run.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let names = packages(&missing);
    let has_apt = process::find("apt-get").is_some();
    if !has_apt {
        let programs: Vec<&str> = missing.iter().map(|need| need.program).collect();
        bail!("install these programs, then try again: {}", programs.join(", "));
    }
    let install = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
    if !process::is_root() {
        bail!("missing packages; run this, then try again: sudo {install}");
    }
    for need in &missing {
        println!("  {} is missing: installing package {}", need.program, need.package);
    }
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], &names[..]].concat())?;
    match self::missing(needs).first() {
        None => Ok(()),
        Some(need) => bail!("package {} did not bring {}", need.package, need.program),
    }
}

fn missing(needs: &[Need]) -> Vec<Need> {
    let is_there =
        |need: &Need| process::find(need.program).is_some() || is_versioned(need.program);
    needs.iter().copied().filter(|need| !is_there(need)).collect()
}

/// PostgreSQL keeps the programs of every version in a folder of their own.
fn is_versioned(program: &str) -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.into_iter().any(|version| version.path().join("bin").join(program).is_file())
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut names: Vec<&str> = needs.iter().map(|need| need.package).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn apt(args: &[&str]) -> Result<()> {
    process::run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_brings_two_programs_is_asked_for_once() {
        let needs = [
            Need { program: "b", package: "two" },
            Need { program: "a", package: "one" },
            Need { program: "c", package: "two" },
        ];
        assert_eq!(packages(&needs), ["one", "two"]);
    }

    #[test]
    fn what_is_there_is_not_missing() {
        let needs = [
            Need { program: "sh", package: "dash" },
            Need { program: "no-such-program-anywhere", package: "none" },
        ];
        assert_eq!(missing(&needs).len(), 1);
    }
}
