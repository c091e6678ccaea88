//! How a program that goes to the background tells whoever started it that it can be used.
//!
//! `--ready-fd N`: exactly one line is written to descriptor N, `ok` or `error TEXT`, and N is
//! closed. An end without a line means that the program died. What the text must not do is span
//! lines; so it does not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Longer reports are cut: nobody reads on.
const LINE_MAX: usize = 16 * 1024;

const OK: &str = "ok";
const ERROR: &str = "error ";

/// The end of the program that was started.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// Nobody waits.
    pub fn none() -> Ready {
        Ready(None)
    }

    /// Takes the descriptor that was given by number, so that no child of this process keeps it
    /// open.
    ///
    /// # Errors
    /// When it is not open, or is one of standard input, output and error.
    pub fn on(fd: RawFd) -> io::Result<Ready> {
        if fd <= 2 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is taken"));
        }
        // SAFETY: the number is only looked up; if it is not open the kernel says so.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let flags = fcntl_getfd(borrowed)?;
        fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
        // SAFETY: open, as just seen; whoever started this process passed it for this use alone,
        // and it is taken before anything else opens descriptors.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Ready(Some(fd.into())))
    }

    /// It can be used. Said once; later reports are dropped.
    pub fn ok(&mut self) {
        self.say(OK);
    }

    /// It will not be usable, and why.
    pub fn failed(&mut self, why: &impl ToString) {
        let why = why.to_string().replace(['\n', '\r'], " ");
        self.say(&format!("{ERROR}{why}"));
    }

    fn say(&mut self, text: &str) {
        let Some(mut file) = self.0.take() else { return };
        let mut line = text.as_bytes().to_vec();
        line.truncate(LINE_MAX - 1);
        line.push(b'\n');
        if let Err(error) = file.write_all(&line) {
            tracing::debug!(%error, "whoever started this program does not wait any more");
        }
    }
}

/// What the other end read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Ok,
    Failed(String),
    /// It ended without a word.
    Silent,
}

/// Waits for the line.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn wait(read: impl Read) -> io::Result<Outcome> {
    let mut line = Vec::new();
    read.take(LINE_MAX as u64).read_to_end(&mut line)?;
    let line = String::from_utf8_lossy(&line);
    let line = line.strip_suffix('\n').unwrap_or(&line);
    if line.is_empty() {
        return Ok(Outcome::Silent);
    }
    if line == OK {
        return Ok(Outcome::Ok);
    }
    match line.strip_prefix(ERROR) {
        Some(why) => Ok(Outcome::Failed(why.to_owned())),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("not a report: {line}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    fn report(say: impl FnOnce(&mut Ready)) -> Outcome {
        let (read, write) = io::pipe().expect("there are descriptors");
        let mut ready = Ready::on(write.into_raw_fd()).expect("it is open");
        say(&mut ready);
        drop(ready);
        wait(read).expect("a pipe can be read")
    }

    #[test]
    fn the_first_report_is_the_one_that_counts() {
        assert_eq!(report(|_| {}), Outcome::Silent);
        assert_eq!(report(Ready::ok), Outcome::Ok);
        let both = |ready: &mut Ready| {
            ready.failed(&"no\nroom");
            ready.ok();
        };
        assert_eq!(report(both), Outcome::Failed("no room".to_owned()));
        let long = report(|ready| ready.failed(&"x".repeat(2 * LINE_MAX)));
        assert!(matches!(long, Outcome::Failed(why) if why.len() < LINE_MAX));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        assert!(Ready::on(1).is_err());
        assert!(Ready::on(1_000_000).is_err());
    }

    #[test]
    fn nobody_needs_to_wait() {
        Ready::none().ok();
    }
}
