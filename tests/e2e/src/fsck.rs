//! `fsck.matrixfs -n`, asked for its findings; and `-y`, for what it did.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::programs::Programs;

/// What it found.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Findings {
    pub clean: bool,
    pub problems: Vec<String>,
    pub done: Vec<String>,
    pub isolated: Vec<String>,
    pub slots_replayed: u64,
    pub inodes: u64,
}

/// Checks a device that nobody uses.
///
/// # Errors
/// When the check cannot be done.
pub fn check(programs: &Programs, device: &Path) -> Result<Findings> {
    let (status, findings) = run(programs, "-n", device)?;
    if findings.clean != (status == 0) {
        bail!("the exit status of fsck.matrixfs, {status}, contradicts its report");
    }
    Ok(findings)
}

/// Repairs a device that nobody uses. Returns the exit status, too.
///
/// # Errors
/// When the repair cannot be done.
pub fn repair(programs: &Programs, device: &Path) -> Result<(i32, Findings)> {
    run(programs, "-y", device)
}

fn run(programs: &Programs, what: &str, device: &Path) -> Result<(i32, Findings)> {
    let mut command: Command = programs.command("fsck-matrixfs");
    let output = command.args([what, "--json"]).arg(device).output().context("fsck.matrixfs")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let status = match output.status.code() {
        Some(status @ (0 | 1 | 4)) => status,
        _ => bail!("fsck.matrixfs ended with {}: {}", output.status, errors.trim()),
    };
    let findings: Findings = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("fsck.matrixfs printed no report; {}", errors.trim()))?;
    Ok((status, findings))
}

impl Findings {
    /// # Errors
    /// With the first problems, when there are any.
    pub fn expect_clean(&self) -> Result<()> {
        if self.clean {
            return Ok(());
        }
        let first: Vec<&str> = self.problems.iter().take(20).map(String::as_str).collect();
        bail!("fsck found {} problems: {}", self.problems.len(), first.join("; "))
    }
}
