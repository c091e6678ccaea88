//! The side of the administration socket that asks; blocking.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mx_node::report::{
    CheckCursor, FsCheck, FsDamage, FsTrim, FsUsage, LockDump, LockTop, RecoveryReport, Status, Why,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, pidfd_open};

use super::protocol::{ANSWER_MAX, Answer, Call, Reply, Request, Subject, VERSION, Versioned};

/// How long a daemon may take to say what it knows: it does not wait for others to do so.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Read at once.
const CHUNK: usize = 64 * 1024;

/// A connection to a daemon.
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
}

/// Why a daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("mxd is not running: {}: {source}", path.display())]
    NotRunning { path: PathBuf, source: io::Error },
    #[error("only root may ask mxd: {}: {source}", path.display())]
    NotAllowed { path: PathBuf, source: io::Error },
    #[error("mxd does not answer: {}: nothing for {} s", path.display(), after.as_secs())]
    NoAnswer { path: PathBuf, after: Duration },
    #[error("mxd ended before it answered: {}", path.display())]
    Ended { path: PathBuf },
    #[error("the connection to mxd failed: {}: {source}", path.display())]
    Failed { path: PathBuf, source: io::Error },
    #[error("the answer of mxd makes no sense: {}: {why}", path.display())]
    Nonsense { path: PathBuf, why: String },
    #[error(
        "mxd speaks version {theirs} of the administration protocol and this program version \
         {VERSION}: install both from one release"
    )]
    Version { theirs: u32 },
    /// In the daemon's words.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// # Errors
    /// [`ClientError::NotRunning`], [`ClientError::NotAllowed`].
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        let path = path.to_owned();
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client { stream, path }),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::NotAllowed { path, source })
            }
            Err(source) => Err(ClientError::NotRunning { path, source }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks, and waits for the answer at most `patience`; `None` for as long as the daemon lives.
    ///
    /// # Errors
    /// [`ClientError`]; [`Answer::Error`] comes as [`ClientError::Refused`].
    pub fn call(
        &mut self,
        request: &Request,
        patience: Option<Duration>,
    ) -> Result<Answer, ClientError> {
        let deadline = patience.map(|patience| (Instant::now() + patience, patience));
        let call = Call { version: VERSION, request };
        let mut line = serde_json::to_vec(&call)
            .map_err(|error| self.failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        line.push(b'\n');
        self.limit(deadline)?;
        match self.stream.write_all(&line) {
            // It may have said why before it closed.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) => {}
            // The deadline has passed; read_line says so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => result.map_err(|error| self.failed(error))?,
        }
        let line = self.read_line(deadline)?;
        let nonsense = |error: serde_json::Error| ClientError::Nonsense {
            path: self.path.clone(),
            why: error.to_string(),
        };
        let Versioned { version } = serde_json::from_slice(&line).map_err(nonsense)?;
        if version != VERSION {
            return Err(ClientError::Version { theirs: version });
        }
        let reply: Reply = serde_json::from_slice(&line).map_err(nonsense)?;
        if let Answer::Error(why) = reply.answer {
            return Err(ClientError::Refused(why));
        }
        Ok(reply.answer)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        let answer = self.call(&Request::Status, Some(PATIENCE))?;
        let Answer::Status(status) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(*status)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn lock_dump(
        &mut self,
        resource: Option<String>,
        limit: u32,
    ) -> Result<LockDump, ClientError> {
        let answer = self.call(&Request::LockDump { resource, limit }, Some(PATIENCE))?;
        let Answer::LockDump(dump) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(dump)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn recovery_last(&mut self) -> Result<RecoveryReport, ClientError> {
        let answer = self.call(&Request::RecoveryLast, Some(PATIENCE))?;
        let Answer::RecoveryLast(report) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(report)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn lock_top(&mut self) -> Result<LockTop, ClientError> {
        let answer = self.call(&Request::LockTop, Some(PATIENCE))?;
        let Answer::LockTop(top) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(top)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn why(&mut self, subject: Subject) -> Result<Why, ClientError> {
        let answer = self.call(&Request::Why(subject), Some(PATIENCE))?;
        let Answer::Why(why) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(*why)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn fs_usage(&mut self) -> Result<FsUsage, ClientError> {
        let answer = self.call(&Request::FsUsage, Some(PATIENCE))?;
        let Answer::FsUsage(usage) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(usage)
    }

    /// # Errors
    /// [`ClientError`].
    pub fn fs_damage(&mut self) -> Result<FsDamage, ClientError> {
        let answer = self.call(&Request::FsDamage, Some(PATIENCE))?;
        let Answer::FsDamage(damage) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(damage)
    }

    /// Some groups, from `from` on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn fs_trim(&mut self, from: u64, minimum_bytes: u64) -> Result<FsTrim, ClientError> {
        let answer = self.call(&Request::FsTrim { from, minimum_bytes }, None)?;
        let Answer::FsTrim(trim) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(trim)
    }

    /// A piece, from `from` on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn fs_check(&mut self, from: CheckCursor, data: bool) -> Result<FsCheck, ClientError> {
        let answer = self.call(&Request::FsCheck { from, data }, None)?;
        let Answer::FsCheck(check) = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(check)
    }

    /// A request that is answered by "done", however long that takes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn carry_out(&mut self, request: &Request) -> Result<(), ClientError> {
        let answer = self.call(request, None)?;
        let Answer::Done = answer else {
            return Err(self.unexpected(&answer));
        };
        Ok(())
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when it is not there any more.
    pub fn process(&self) -> Result<Process, ClientError> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream)
            .map_err(|errno| self.failed(errno.into()))?;
        match pidfd_open(peer.pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Process(fd)),
            Err(Errno::SRCH) => Err(ClientError::Ended { path: self.path.clone() }),
            Err(errno) => Err(self.failed(errno.into())),
        }
    }

    fn read_line(&mut self, deadline: Option<(Instant, Duration)>) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            self.limit(deadline)?;
            let count = match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ClientError::Ended { path: self.path.clone() }),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ClientError::Ended { path: self.path.clone() });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(self.failed(error)),
            };
            line.extend_from_slice(&chunk[..count]);
            if line.last() == Some(&b'\n') {
                return Ok(line);
            }
            if line.len() > ANSWER_MAX {
                let why = format!("more than {ANSWER_MAX} bytes");
                return Err(ClientError::Nonsense { path: self.path.clone(), why });
            }
        }
    }

    /// Lets the socket wait for what is left of the time.
    fn limit(&self, deadline: Option<(Instant, Duration)>) -> Result<(), ClientError> {
        let Some((at, after)) = deadline else {
            return self.wait_at_most(None);
        };
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::NoAnswer { path: self.path.clone(), after });
        }
        self.wait_at_most(Some(left))
    }

    fn wait_at_most(&self, time: Option<Duration>) -> Result<(), ClientError> {
        let set = self.stream.set_read_timeout(time);
        let set = set.and_then(|()| self.stream.set_write_timeout(time));
        set.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Failed { path: self.path.clone(), source }
    }

    fn unexpected(&self, answer: &Answer) -> ClientError {
        let kind = match answer {
            Answer::Done => "done",
            Answer::Status(_) => "a status",
            Answer::LockDump(_) => "a dump of locks",
            Answer::RecoveryLast(_) => "a report on recoveries",
            Answer::LockTop(_) => "counts of locks",
            Answer::Why(_) => "an account of resources",
            Answer::FsUsage(_) => "a report on usage",
            Answer::FsDamage(_) => "a report on damage",
            Answer::FsTrim(_) => "a report on a trim",
            Answer::FsCheck(_) => "a report on a check",
            Answer::Error(_) => "an error",
        };
        let why = format!("{kind} was not asked for");
        ClientError::Nonsense { path: self.path.clone(), why }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A running process, and no later one with the same id.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl From<OwnedFd> for Process {
    /// A pidfd.
    fn from(fd: OwnedFd) -> Process {
        Process(fd)
    }
}

impl Process {
    /// Waits until it has ended, at most `patience` (`None`: for ever). Has it?
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn wait(&self, patience: Option<Duration>) -> io::Result<bool> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
