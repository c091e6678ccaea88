//! A file as a block device: `losetup`.
//!
//! Keeps true: the device is gone when its value is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// A loop device over a file.
#[derive(Debug)]
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// # Errors
    /// When there is none to be had.
    pub fn over(file: &Path) -> Result<LoopDevice> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        let output = output.context("losetup (package mount)")?;
        if !output.status.success() {
            bail!("losetup: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let path = String::from_utf8(output.stdout).context("losetup")?;
        Ok(LoopDevice(PathBuf::from(path.trim())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Whoever has it open keeps it a moment longer; nothing else can be done about it here.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
