//! A process of a cluster: known by its id and the time of its start, so that no other one with
//! the same id is ever ended; also across runs of whoever started it.

use std::fs::{self, OpenOptions};
use std::io::{PipeReader, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use serde::{Deserialize, Serialize};

/// Which process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Id {
    pub process: i32,
    /// Clock ticks after the boot (`/proc/PID/stat`, field 22).
    started: u64,
}

/// A process that can be told to end.
#[derive(Debug)]
pub struct Process {
    id: Id,
    handle: OwnedFd,
    /// `None` when another run started it.
    child: Option<Child>,
    /// Known of a child that has ended.
    status: Option<ExitStatus>,
}

/// How a process lives and is heard.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Where standard output and error are appended.
    pub log: &'a Path,
    /// It outlives whoever starts it; otherwise it ends when the thread that starts it ends.
    pub is_kept: bool,
}

impl Process {
    /// Starts a program that says on a pipe when it can be used, as `mxd --ready-fd` does.
    ///
    /// # Errors
    /// When it does not start, ends, or says that it cannot be used; it is gone then.
    pub fn start_ready(
        mut command: Command,
        terms: Terms<'_>,
        patience: Duration,
    ) -> Result<Process> {
        let (reader, writer) = std::io::pipe()?;
        let number = writer.as_raw_fd();
        command.arg("--ready-fd").arg(number.to_string());
        command.stdout(Stdio::null());
        // SAFETY: the closure calls fcntl(2) only, which is async-signal-safe; the child has a copy
        // of the table in which `writer` is open until after the start.
        unsafe {
            command.pre_exec(move || {
                let fd = BorrowedFd::borrow_raw(number);
                Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?)
            });
        }
        let process = Process::start(command, terms)?;
        drop(writer);
        process.until_ready(reader, terms.log, patience)
    }

    /// Starts a program that prints `ready`, as `mxarbiter` does.
    ///
    /// # Errors
    /// As [`Process::start_ready`].
    pub fn start_printing(
        mut command: Command,
        terms: Terms<'_>,
        patience: Duration,
    ) -> Result<Process> {
        let (reader, writer) = std::io::pipe()?;
        command.stdout(writer);
        let process = Process::start(command, terms)?;
        process.until_ready(reader, terms.log, patience)
    }

    fn start(mut command: Command, terms: Terms<'_>) -> Result<Process> {
        let Terms { log, is_kept } = terms;
        let file = OpenOptions::new().append(true).create(true).open(log);
        let file = file.with_context(|| log.display().to_string())?;
        command.stdin(Stdio::null()).stderr(file);
        // Keys that are typed are for whoever started it.
        command.process_group(0);
        if !is_kept {
            // SAFETY: the closure calls prctl(2) only, which is async-signal-safe.
            unsafe {
                command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
            }
        }
        let child = command.spawn();
        // With the command go the parent's copies of what the child was given.
        let program = command.get_program().display().to_string();
        drop(command);
        let child = child.with_context(|| format!("cannot start {program}"))?;
        let process = i32::try_from(child.id()).context("a process id")?;
        let started = started(process).context("a child that was not waited for is there")?;
        let id = Id { process, started };
        let mut process = Process::open(id)?.context("a child that was not waited for")?;
        process.child = Some(child);
        Ok(process)
    }

    fn until_ready(
        mut self,
        mut reader: PipeReader,
        log: &Path,
        patience: Duration,
    ) -> Result<Process> {
        let deadline = Instant::now() + patience;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&reader, left)? {
                self.end(Signal::KILL)?;
                bail!("not ready after {} s; see {}", patience.as_secs(), log.display());
            }
            let mut chunk = [0; 512];
            let count = reader.read(&mut chunk)?;
            said.extend_from_slice(&chunk[..count]);
            if count == 0 || said.contains(&b'\n') {
                break;
            }
        }
        let said = String::from_utf8_lossy(&said);
        match said.trim_end() {
            "ok" | "ready" => Ok(self),
            words => {
                let words = words.strip_prefix("error ").unwrap_or(words).to_owned();
                self.end(Signal::KILL)?;
                let last = fs::read_to_string(log).unwrap_or_default();
                let last = last.lines().last().unwrap_or_default().to_owned();
                bail!("did not start: {}", if words.is_empty() { last } else { words })
            }
        }
    }

    /// The process with an id, if it runs.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn open(id: Id) -> Result<Option<Process>> {
        let Some(pid) = Pid::from_raw(id.process) else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno).context("pidfd_open"),
        };
        // The handle holds whatever has this id now; the time says whether it is the one.
        let is_it = started(id.process) == Some(id.started);
        Ok(is_it.then_some(Process { id, handle, child: None, status: None }))
    }

    pub fn id(&self) -> Id {
        self.id
    }

    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.handle, signal)
            .with_context(|| format!("signal to {}", self.id.process))
    }

    /// Has it ended, or does it end within `patience`?
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn ends_within(&mut self, patience: Duration) -> Result<bool> {
        let has_ended = readable(&self.handle, patience)?;
        if has_ended && let Some(child) = &mut self.child {
            self.status = Some(child.wait()?);
        }
        Ok(has_ended)
    }

    /// How it ended, where that is known.
    pub fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Sends a signal that ends it and waits until it is gone; nothing when it has ended already.
    ///
    /// # Errors
    /// When it does not go.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        if self.ends_within(Duration::ZERO)? {
            return Ok(());
        }
        self.signal(signal)?;
        if !self.ends_within(PATIENCE)? {
            bail!("process {} does not end after {signal:?}", self.id.process);
        }
        Ok(())
    }

    /// Bytes that it has in memory now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.id.process))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("VmRSS")?.parse::<u64>()? * 1024)
    }
}

/// Clock ticks; `None` when there is no such process.
fn started(process: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything.
    let (_, fields) = text.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

fn readable(fd: impl AsFd, patience: Duration) -> Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}
