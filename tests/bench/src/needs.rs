//! What has to be there before anything is measured, each with what to do about it.

use std::fs::File;
use std::path::Path;

use anyhow::{Result, bail};

/// A program, and the Debian package it comes in.
const PROGRAMS: [(&str, &str); 4] =
    [("losetup", "mount"), ("mount", "mount"), ("mkfs.ext4", "e2fsprogs"), ("date", "coreutils")];

const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Is everything there?
///
/// # Errors
/// The first thing that is missing, and the command that brings it.
pub fn check() -> Result<()> {
    let is_missing = |(program, _): &&(&str, &str)| {
        !DIRECTORIES.iter().any(|folder| Path::new(folder).join(program).is_file())
    };
    let missing: Vec<_> = PROGRAMS.iter().filter(is_missing).collect();
    if let Some((program, _)) = missing.first() {
        let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
        packages.dedup();
        let packages = packages.join(" ");
        bail!("{program} is missing; run this, then try again: apt-get install -y {packages}");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("only root may mount: run it with sudo");
    }
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        bail!("there is no /dev/fuse; run this, then try again: modprobe fuse");
    }
    if !Path::new("/dev/loop-control").exists() {
        bail!("there are no loop devices; run this, then try again: modprobe loop");
    }
    Ok(())
}
