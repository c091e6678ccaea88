//! umount.fuse.matrixfs, which umount(8) runs: returns when the daemon has let go.
//!
//! The kernel does not wait for the daemon when a FUSE mount goes. Keeps true: when this returns 0
//! without `-l`, what was written is on the device; of a local mount the device is free too.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::fs::{FlockOperation, OFlags, flock};

use super::serving::{Daemon, daemon_of};
use super::{FAILED, SYSTEM, USAGE, table};
use crate::admin::{Client, ClientError, Request};

/// After this time the user is told what is being waited for.
const QUIET: Duration = Duration::from_secs(5);

/// How long a daemon is waited for whose requests were broken off by force.
const FORCED: Duration = Duration::from_secs(10);

/// How long the kernel may take to end the last requests of a daemon that is gone.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// How often the device is tried.
const RETRY: Duration = Duration::from_millis(20);

/// Unmount a MatrixFS file system and wait until all of it is on the device. Run by umount(8).
///
/// Exit status: 0 unmounted, 1 wrong usage, 2 system error, 32 not unmounted.
#[derive(Parser, Debug)]
#[command(name = "umount.fuse.matrixfs", version)]
pub struct Options {
    /// Where it is mounted.
    pub dir: PathBuf,
    /// Take it out of the tree now, do not wait until nobody uses it.
    #[arg(short)]
    pub lazy: bool,
    /// Break off what is under way.
    #[arg(short)]
    pub force: bool,
    /// Given by umount(8), which keeps its table itself.
    #[arg(short, hide = true)]
    pub no_table: bool,
    /// Say what is done.
    #[arg(short)]
    pub verbose: bool,
    /// Given by umount(8): make it read-only if it is in use. It stays as it is.
    #[arg(short, hide = true)]
    pub read_only: bool,
    /// Given by umount(8).
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    pub kind: Option<String>,
}

/// Why it is not unmounted, or not known to be in order.
#[derive(Debug, thiserror::Error)]
pub enum UnmountFailed {
    #[error("{}: no MatrixFS is mounted here", .0.display())]
    NotMounted(PathBuf),
    #[error("{}: in use", .0.display())]
    Busy(PathBuf),
    #[error("only root may unmount")]
    NotRoot,
    #[error("{}: {source}", dir.display())]
    Unmount { dir: PathBuf, source: io::Error },
    #[error("cannot read the list of mounts: {0}")]
    List(#[source] io::Error),
    #[error("unmounted, but the daemon did not end in order: {0}")]
    Daemon(#[source] ClientError),
    #[error("unmounted, but the daemon cannot be waited for: {0}")]
    Wait(#[source] io::Error),
    #[error("unmounted, but the daemon has not ended after {} s", .0.as_secs())]
    Lingers(Duration),
    #[error("unmounted, but {} is still in use", .0.display())]
    DeviceInUse(PathBuf),
}

impl UnmountFailed {
    /// Exit status as umount(8) has it.
    pub fn status(&self) -> u8 {
        match self {
            UnmountFailed::NotRoot => USAGE,
            UnmountFailed::List(_) | UnmountFailed::Wait(_) => SYSTEM,
            UnmountFailed::NotMounted(_)
            | UnmountFailed::Busy(_)
            | UnmountFailed::Unmount { .. }
            | UnmountFailed::Daemon(_)
            | UnmountFailed::Lingers(_)
            | UnmountFailed::DeviceInUse(_) => FAILED,
        }
    }
}

/// Unmounts; what is said on the way goes to `say`.
///
/// # Errors
/// [`UnmountFailed`].
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> Result<(), UnmountFailed> {
    // Not resolved further: that would ask the file system, which may not answer any more.
    let dir = &std::path::absolute(&options.dir)
        .map_err(|source| UnmountFailed::Unmount { dir: options.dir.clone(), source })?;
    let source = table::source_of(dir).map_err(UnmountFailed::List)?;
    let source = source.ok_or_else(|| UnmountFailed::NotMounted(dir.clone()))?;
    // Found before: afterwards a local daemon may end at any moment.
    let waits = !options.lazy;
    let daemon = if waits { daemon_of(dir) } else { None };
    let mut flags = MntFlags::empty();
    flags.set(MntFlags::MNT_DETACH, options.lazy);
    flags.set(MntFlags::MNT_FORCE, options.force);
    umount2(dir, flags).map_err(|errno| {
        if errno == Errno::EBUSY {
            UnmountFailed::Busy(dir.clone())
        } else if errno == Errno::EPERM {
            UnmountFailed::NotRoot
        } else {
            UnmountFailed::Unmount { dir: dir.clone(), source: errno.into() }
        }
    })?;
    table::forget_socket(dir);
    if options.verbose {
        say(&format!("{} unmounted", dir.display()));
    }
    // The source of a local mount is a path, of any other a name.
    let device = Some(&source).filter(|source| source.is_absolute());
    match (daemon, waits) {
        (_, false) => Ok(()),
        (Some(daemon), true) => daemon.wait(dir, options.force, device, say),
        (None, true) => {
            if options.verbose {
                say("no daemon of this machine knows of it: not waited for");
            }
            device.map_or(Ok(()), |device| wait_until_free(device))
        }
    }
}

impl Daemon {
    fn wait(
        mut self,
        dir: &Path,
        is_forced: bool,
        device: Option<&PathBuf>,
        say: &mut dyn FnMut(&str),
    ) -> Result<(), UnmountFailed> {
        let is_local = device.is_some();
        let request = Request::Unmount { directory: dir.to_owned() };
        match self.client.call(&request, Some(QUIET)) {
            Ok(_) => {}
            // It may have ended before it was asked.
            Err(ClientError::Ended { .. } | ClientError::Failed { .. }) if is_local => {}
            Err(ClientError::NoAnswer { .. }) => {
                say("waiting until everything is written and nobody uses the mount any more");
                let patience = is_forced.then_some(FORCED);
                // The answer to the first request may still come on the old connection.
                let client = Client::connect(self.client.path());
                let answer = client.and_then(|mut client| client.call(&request, patience));
                match answer {
                    Err(_) if is_local => {}
                    answer => drop(answer.map_err(UnmountFailed::Daemon)?),
                }
            }
            Err(error) => return Err(UnmountFailed::Daemon(error)),
        }
        let Some(device) = device else { return Ok(()) };
        let patience = is_forced.then_some(FORCED);
        if !self.process.wait(patience).map_err(UnmountFailed::Wait)? {
            return Err(UnmountFailed::Lingers(FORCED));
        }
        wait_until_free(device)
    }
}

/// Requests under way may outlive the process that made them; its lock lives as long as they do.
fn wait_until_free(device: &Path) -> Result<(), UnmountFailed> {
    let deadline = Instant::now() + LAST_REQUESTS;
    loop {
        match is_free(device) {
            Ok(true) => return Ok(()),
            // It was taken away: nobody uses it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(UnmountFailed::Wait(error)),
        }
        if Instant::now() >= deadline {
            return Err(UnmountFailed::DeviceInUse(device.to_owned()));
        }
        std::thread::sleep(RETRY);
    }
}

fn is_free(device: &Path) -> io::Result<bool> {
    let is_block = std::fs::metadata(device)?.file_type().is_block_device();
    // Exclusive opening of a block device is refused while another has it so.
    let claim = if is_block { OFlags::EXCL } else { OFlags::empty() };
    let flags = i32::try_from(claim.bits()).expect("flags of open(2) fit");
    let file = match File::options().read(true).custom_flags(flags).open(device) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_free_when_nobody_has_its_lock() {
        let path = std::env::temp_dir().join(format!("mx-free-{}", std::process::id()));
        let holder = File::create(&path).expect("a file of ours");
        flock(&holder, FlockOperation::LockExclusive).expect("nobody else has it");
        assert!(!is_free(&path).expect("it can be tried"));
        drop(holder);
        assert!(is_free(&path).expect("it can be tried"));
        std::fs::remove_file(&path).expect("a file of ours");
        wait_until_free(&path).expect("what is not there is not in use");
    }

    #[test]
    fn what_is_not_mounted_is_told_so() {
        let options = Options::parse_from(["umount.fuse.matrixfs", "/proc", "-n", "-v"]);
        let error = run(&options, &mut |_| {}).expect_err("it is no MatrixFS");
        assert_eq!(error.to_string(), "/proc: no MatrixFS is mounted here");
        assert_eq!(error.status(), FAILED);
    }
}
