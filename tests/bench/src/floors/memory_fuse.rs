//! A file system in memory, served through FUSE as ours is: same crate, same number of threads,
//! same flags, same times that the kernel may keep answers, same options of the mount.
//!
//! Keeps nothing right but what one kernel asks for. Its process serves one mount and ends with it.

mod locks;
mod server;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::mounts;
use e2e::process::{Process, Terms};
use rustix::process::Signal;

pub use server::serve;

/// The name of the command that [`serve`] is.
pub const COMMAND: &str = "serve-memory";

/// A mounted one, served by a process of its own.
#[derive(Debug)]
pub struct MemoryFuse {
    mount: PathBuf,
    process: Process,
}

impl MemoryFuse {
    /// Starts `program` with [`COMMAND`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path, mount: &Path, log: &Path) -> Result<MemoryFuse> {
        std::fs::create_dir_all(mount).context("the directory of the file system in memory")?;
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(mount);
        let terms = Terms { log, is_kept: false };
        let process = Process::start_printing(command, terms, Duration::from_secs(30));
        Ok(MemoryFuse { mount: mount.to_owned(), process: process.context("in-memory FUSE")? })
    }

    pub fn mount(&self) -> &Path {
        &self.mount
    }
}

impl Drop for MemoryFuse {
    fn drop(&mut self) {
        let ended = mounts::detach(&self.mount);
        if let Err(error) = ended.and_then(|()| self.process.end(Signal::KILL)) {
            crate::stage::complain(&error);
        }
    }
}
