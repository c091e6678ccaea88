//! ext4 through a loop device over a file.
//!
//! Keeps true: the loop device goes when the mount does, and the mount when the last process of
//! this mount namespace does; also when this process is killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use e2e::mounts;

/// A mounted one.
#[derive(Debug)]
pub struct Ext4 {
    mount: PathBuf,
}

impl Ext4 {
    /// Formats a file and mounts it.
    ///
    /// # Errors
    /// When one of the programs fails; nothing is left then.
    pub fn start(file: &Path, mount: &Path) -> Result<Ext4> {
        std::fs::create_dir_all(mount).context("the directory of ext4")?;
        let device =
            said(Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(file))?;
        let mounted = format(&device).and_then(|()| mounted(&device, mount));
        // While it is mounted this only says that it goes with the mount.
        let detached = said(Command::new("losetup").arg("--detach").arg(&device));
        let ext4 = Ext4 { mount: mount.to_owned() };
        mounted.and(detached)?;
        Ok(ext4)
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }
}

fn format(device: &str) -> Result<()> {
    // All of it now, so that no thread of the kernel's writes tables while others are measured.
    let now = "lazy_itable_init=0,lazy_journal_init=0";
    said(Command::new("mkfs.ext4").args(["-q", "-F", "-E", now, device])).map(drop)
}

fn mounted(device: &str, mount: &Path) -> Result<()> {
    said(Command::new("mount").args(["-t", "ext4", device]).arg(mount)).map(drop)
}

fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if let Err(error) = mounts::detach(&self.mount) {
            crate::stage::complain(&error);
        }
    }
}
