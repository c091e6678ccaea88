//! A process that locks files: told what to do line by line, it answers each line with one.
//!
//! Keeps true: an answer is `ok`, `free`, `held ...`, a number, or the name of an error; nothing is
//! said before it is so.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::programs::Programs;
use crate::wait;

/// The process's side: carries out what `input` says.
///
/// # Errors
/// When a line is not understood, or the answer cannot be said.
pub fn run(input: impl BufRead, output: &mut impl Write) -> Result<()> {
    let mut files: Vec<Option<File>> = Vec::new();
    for line in input.lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = carry_out(&words, &mut files).with_context(|| line.clone())?;
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn carry_out(words: &[&str], files: &mut Vec<Option<File>>) -> Result<String> {
    match *words {
        ["open", path] => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)?;
            files.push(Some(file));
            Ok((files.len() - 1).to_string())
        }
        ["close", number] => {
            let place = files.get_mut(number.parse::<usize>()?).context("no such file")?;
            drop(place.take());
            Ok("ok".to_owned())
        }
        ["flock", number, kind, how] => {
            let file = file(files, number)?;
            let operation = match (kind, how) {
                ("r", "wait") => FlockOperation::LockShared,
                ("r", "try") => FlockOperation::NonBlockingLockShared,
                ("w", "wait") => FlockOperation::LockExclusive,
                ("w", "try") => FlockOperation::NonBlockingLockExclusive,
                ("u", _) => FlockOperation::Unlock,
                _ => bail!("r, w or u; try or wait"),
            };
            let done = flock(file, operation);
            Ok(done.map_or_else(|e| name(Errno::from_raw(e.raw_os_error())), |()| "ok".to_owned()))
        }
        [family @ ("posix" | "ofd"), number, kind, start, len, how] => {
            let lock = lock_of(kind, start, len)?;
            let argument = match (family, how) {
                ("posix", "try") => FcntlArg::F_SETLK(&lock),
                ("posix", "wait") => FcntlArg::F_SETLKW(&lock),
                ("ofd", "try") => FcntlArg::F_OFD_SETLK(&lock),
                ("ofd", "wait") => FcntlArg::F_OFD_SETLKW(&lock),
                _ => bail!("try or wait"),
            };
            let done = fcntl(file(files, number)?, argument);
            Ok(done.map_or_else(name, |_| "ok".to_owned()))
        }
        ["test", number, kind, start, len] => {
            let mut lock = lock_of(kind, start, len)?;
            fcntl(file(files, number)?, FcntlArg::F_GETLK(&mut lock))?;
            let kind = match i32::from(lock.l_type) {
                libc::F_UNLCK => return Ok("free".to_owned()),
                libc::F_RDLCK => "r",
                _ => "w",
            };
            Ok(format!("held {kind} {} {} {}", lock.l_start, lock.l_len, lock.l_pid))
        }
        ["count", number, times] => {
            let file = file(files, number)?;
            for _ in 0..times.parse::<u32>()? {
                count(file)?;
            }
            Ok("ok".to_owned())
        }
        _ => bail!("not understood"),
    }
}

/// One more, under a lock of the number's eight bytes.
fn count(file: &File) -> Result<()> {
    let mut lock = lock_of("w", "0", "8")?;
    fcntl(file, FcntlArg::F_SETLKW(&lock)).context("lock")?;
    let mut bytes = [0; 8];
    let read = file.read_at(&mut bytes, 0)?;
    let number = if read == 8 { u64::from_le_bytes(bytes) } else { 0 };
    file.write_all_at(&(number + 1).to_le_bytes(), 0)?;
    lock.l_type = kind_of("u")?;
    fcntl(file, FcntlArg::F_SETLK(&lock)).context("unlock")?;
    Ok(())
}

fn file<'a>(files: &'a [Option<File>], number: &str) -> Result<&'a File> {
    files.get(number.parse::<usize>()?).and_then(Option::as_ref).context("no such file")
}

fn kind_of(kind: &str) -> Result<libc::c_short> {
    Ok(libc::c_short::try_from(match kind {
        "r" => libc::F_RDLCK,
        "w" => libc::F_WRLCK,
        "u" => libc::F_UNLCK,
        _ => bail!("r, w or u"),
    })?)
}

fn lock_of(kind: &str, start: &str, len: &str) -> Result<libc::flock> {
    let whence = libc::c_short::try_from(libc::SEEK_SET)?;
    Ok(libc::flock {
        l_type: kind_of(kind)?,
        l_whence: whence,
        l_start: start.parse()?,
        l_len: len.parse()?,
        l_pid: 0,
    })
}

fn name(error: Errno) -> String {
    format!("{error:?}")
}

/// The test's side: a running process.
#[derive(Debug)]
pub struct Locker {
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<String>,
}

/// How long an answer may take that has to wait for nobody.
const PATIENCE: Duration = Duration::from_secs(20);

impl Locker {
    /// Starts one.
    ///
    /// # Errors
    /// When the program does not start.
    pub fn start(programs: &Programs) -> Result<Locker> {
        let mut command = programs.command("mx-locker");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Locker::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Locker> {
        let mut child = command.spawn().context("mx-locker")?;
        let input = child.stdin.take();
        let output: ChildStdout = child.stdout.take().context("piped")?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Locker { child, input, answers })
    }

    /// Opens a file; its number.
    ///
    /// # Errors
    /// As [`Locker::ask`].
    pub fn open(&mut self, path: &Path) -> Result<String> {
        self.ask(&format!("open {}", path.display()))
    }

    /// Says a line and waits for its answer.
    ///
    /// # Errors
    /// When none comes.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        self.answer(PATIENCE).with_context(|| line.to_owned())
    }

    /// Says a line.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{line}").context("it has ended")
    }

    /// Says a line that has to wait, and sees to it that it does.
    ///
    /// # Errors
    /// When it does not wait.
    pub fn say_and_wait(&mut self, line: &str) -> Result<()> {
        self.say(line)?;
        let wchan = format!("/proc/{}/wchan", self.child.id());
        wait::until("the process to wait for an answer", PATIENCE, || {
            if let Ok(answer) = self.answers.try_recv() {
                bail!("answered {answer}");
            }
            let waits = std::fs::read_to_string(&wchan)?;
            Ok(waits.contains("request_wait_answer").then_some(()))
        })
    }

    /// The next answer.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub fn answer(&mut self, patience: Duration) -> Result<String> {
        match self.answers.recv_timeout(patience) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => bail!("no answer within {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("it has ended"),
        }
    }

    /// An answer that is there already.
    pub fn answered(&mut self) -> Option<String> {
        self.answers.try_recv().ok()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end after a signal.
    ///
    /// # Errors
    /// When it goes on.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        wait::until("the end of a process", PATIENCE, || Ok(self.child.try_wait()?))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
