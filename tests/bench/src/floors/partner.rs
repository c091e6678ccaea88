//! A process at the other end of a Unix socket: answers what it is sent, and can be killed.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Bytes of a message, about as many as a lock message has.
pub const MESSAGE: usize = 64;

/// The name of the command that [`answer`] is.
pub const COMMAND: &str = "answer-on-stdin";

/// See the module.
#[derive(Debug)]
pub struct Partner {
    socket: UnixStream,
    child: Child,
}

impl Partner {
    /// Starts `program` with [`COMMAND`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(program: &Path) -> Result<Partner> {
        let (socket, theirs) = UnixStream::pair().context("a pair of sockets")?;
        let mut command = Command::new(program);
        command.arg(COMMAND).stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        let child = command.spawn().with_context(|| program.display().to_string())?;
        drop(command);
        let mut partner = Partner { socket, child };
        partner.ping()?;
        Ok(partner)
    }

    /// One message there and one back.
    ///
    /// # Errors
    /// When it has ended.
    pub fn ping(&mut self) -> Result<()> {
        let mut message = [7; MESSAGE];
        self.socket.write_all(&message).context("a message")?;
        self.socket.read_exact(&mut message).context("an answer")
    }

    /// Kills it, and tells how long it took until its end of the socket was closed.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> Result<Duration> {
        let start = Instant::now();
        self.child.kill().context("kill")?;
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).context("the end of a socket")?;
        Ok(start.elapsed())
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        // It ends by itself at the end of its socket; killed, it ends at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The partner's side: answers on standard input, a socket, until its end.
///
/// # Errors
/// When standard input is no socket.
pub fn answer() -> Result<()> {
    let stdin = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned()?;
    let mut socket = UnixStream::from(stdin);
    let mut message = [0; MESSAGE];
    while socket.read_exact(&mut message).is_ok() {
        socket.write_all(&message).context("an answer")?;
    }
    Ok(())
}
