//! A mount of one machine: a daemon of its own, which outlives the helper and its terminal.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, pidfd_open, setsid};

use super::options::MountOptions;
use crate::admin::client::Process;
use crate::config::{RUN_FOLDER, name_of_local};
use crate::ready::{self, Outcome};

/// The daemon's name, beside the helper or in PATH.
const DAEMON: &str = "mxd";

/// How long a daemon may take to end once it has closed the pipe without a word.
const END: Duration = Duration::from_secs(5);

/// Why a local mount failed.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("cannot find the daemon {DAEMON}: neither in {} nor in PATH", beside.display())]
    NoDaemon { beside: PathBuf },
    #[error("cannot start {}: {source}", daemon.display())]
    Start { daemon: PathBuf, source: io::Error },
    #[error("cannot write the log {}: {source}", log.display())]
    Log { log: PathBuf, source: io::Error },
    #[error("{daemon} does not keep to the protocol: {source}", daemon = daemon.display())]
    Protocol { daemon: PathBuf, source: io::Error },
    /// In the daemon's words.
    #[error("{0}")]
    Refused(String),
    #[error(
        "{daemon} ended without saying why ({ending}); its log is {log}",
        daemon = daemon.display(), log = log.display()
    )]
    Silent { daemon: PathBuf, ending: String, log: PathBuf },
}

impl LocalError {
    /// Is the machine to blame, and not the file system?
    pub fn is_of_system(&self) -> bool {
        match self {
            LocalError::NoDaemon { .. }
            | LocalError::Start { .. }
            | LocalError::Log { .. }
            | LocalError::Protocol { .. } => true,
            LocalError::Refused(_) | LocalError::Silent { .. } => false,
        }
    }
}

/// Returns when the daemon says that the mount is usable.
pub(super) fn mount(device: &Path, dir: &Path, options: &MountOptions) -> Result<(), LocalError> {
    let daemon = find_daemon()?;
    let log = Path::new(RUN_FOLDER).join(name_of_local(dir)).join("mxd.log");
    let log_file = open_log(&log).map_err(|source| LocalError::Log { log: log.clone(), source })?;
    let mut arguments: Vec<OsString> = Vec::new();
    for (name, value) in [
        ("--local", device.as_os_str()),
        ("--dir", dir.as_os_str()),
        ("--options", OsStr::new(&options.to_string())),
    ] {
        arguments.extend([OsString::from(name), value.to_owned()]);
    }
    let (mut child, pipe) = start(&daemon, &arguments, log_file)
        .map_err(|source| LocalError::Start { daemon: daemon.clone(), source })?;
    let outcome = ready::wait(pipe)
        .map_err(|source| LocalError::Protocol { daemon: daemon.clone(), source })?;
    match outcome {
        Outcome::Ok => Ok(()),
        Outcome::Failed(why) => {
            // Its status says no more than its words; but when this returns the device is free.
            let _ = end_of(&mut child);
            Err(LocalError::Refused(why))
        }
        Outcome::Silent => {
            let ending = match end_of(&mut child) {
                Ok(Some(status)) => status.to_string(),
                Ok(None) => "it has not ended, only closed the pipe".to_owned(),
                Err(error) => error.to_string(),
            };
            Err(LocalError::Silent { daemon, ending, log })
        }
    }
}

/// Beside the program that asks, wherever links to it lie, so that releases do not mix.
fn find_daemon() -> Result<PathBuf, LocalError> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(beside.clone()).chain(std::env::split_paths(&path));
    let mut candidates = folders.map(|folder| folder.join(DAEMON));
    candidates.find(|file| file.is_file()).ok_or(LocalError::NoDaemon { beside })
}

/// The daemon's standard error: it has no terminal to write to.
fn open_log(log: &Path) -> io::Result<File> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    // A new one for every mount.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    file.set_len(0)?;
    Ok(file)
}

/// Starts a daemon in a session of its own, with the pipe that it reports to.
fn start(daemon: &Path, arguments: &[OsString], log: File) -> io::Result<(Child, PipeReader)> {
    let (read, write) = io::pipe()?;
    let mut command = Command::new(daemon);
    command.args(arguments).arg("--ready-fd").arg(write.as_raw_fd().to_string());
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let kept = write.as_fd().as_raw_fd();
    // SAFETY: only system calls between fork and exec, no allocation and no locks; the descriptor
    // is open in the parent until after the fork.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            fcntl_setfd(std::os::fd::BorrowedFd::borrow_raw(kept), FdFlags::empty())?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    // Else the end of the daemon would not be the end of the pipe.
    drop(write);
    Ok((child, read))
}

fn end_of(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let process = Process::from(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?);
    if process.wait(Some(END))? { child.wait().map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a daemon that is a shell script says.
    fn outcome(script: &str) -> Outcome {
        // The number of the descriptor is the last argument.
        let script = format!("fd=$2; {script}");
        let arguments = ["-c", &script, "sh"].map(OsString::from);
        let log = OpenOptions::new().write(true).open("/dev/null").expect("it is there");
        let (mut child, pipe) = start(Path::new("/bin/sh"), &arguments, log).expect("sh is there");
        let outcome = ready::wait(pipe).expect("a report");
        assert!(end_of(&mut child).expect("a child").is_some());
        outcome
    }

    #[test]
    fn a_daemon_reports_over_the_descriptor_it_was_given() {
        assert_eq!(outcome("echo ok >/proc/self/fd/$fd"), Outcome::Ok);
        let failed = outcome("echo error no such device >/proc/self/fd/$fd; exit 1");
        assert_eq!(failed, Outcome::Failed("no such device".to_owned()));
        assert_eq!(outcome("exit 3"), Outcome::Silent);
    }

    #[test]
    fn a_daemon_has_a_session_of_its_own_and_no_terminal() {
        // Field 6 of stat is the session, field 1 the process.
        let script = "read -r pid _ _ _ _ session _ </proc/self/stat; \
                      [ \"$pid\" = \"$session\" ] && [ ! -t 0 ] && echo ok >/proc/self/fd/$fd";
        assert_eq!(outcome(script), Outcome::Ok);
    }
}
