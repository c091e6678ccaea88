//! `fsck.matrixfs -n`, asked for its findings.

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
    pub slots_replayed: u64,
    pub inodes: u64,
}

/// Checks a device that nobody uses.
///
/// # Errors
/// When the check cannot be done.
pub fn check(programs: &Programs, device: &Path) -> Result<Findings> {
    let mut command: Command = programs.command("fsck-matrixfs");
    let output = command.args(["-n", "--json"]).arg(device).output().context("fsck.matrixfs")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0 | 4) => {}
        _ => bail!("fsck.matrixfs ended with {}: {}", output.status, errors.trim()),
    }
    let findings: Findings = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("fsck.matrixfs printed no report; {}", errors.trim()))?;
    if findings.clean != (output.status.code() == Some(0)) {
        bail!("the exit status of fsck.matrixfs, {}, contradicts its report", output.status);
    }
    Ok(findings)
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
