//! The daemon's side of the administration socket.
//!
//! Keeps true: at most one daemon serves a path, and what a killed one left there is taken over;
//! only the daemon's own user and root are answered; connections and lines are bounded.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::Source;
use super::protocol::{ANSWER_MAX, Answer, Call, LOCKS_MAX, REQUEST_MAX, Reply, Request};
use super::protocol::{VERSION, Versioned};

/// Enough for any number of administrators; a program that leaks connections is refused.
pub const CONNECTIONS_MAX: usize = 32;

/// How long a connection may be silent: one that is forgotten must not keep its place.
const IDLE: Duration = Duration::from_secs(60);

/// After an error of accept(2), as when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is listened on. It goes away with this value.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Kept locked as long as the socket is ours.
    _lock: File,
}

/// Why a daemon cannot be administered, and so does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another mxd is running: {}", .0.display())]
    Running(PathBuf),
    #[error("cannot listen on {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
}

impl Server {
    /// Listens at `path`; missing folders are made. To be called inside a runtime of tokio.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(path: &Path) -> Result<Server, BindError> {
        let failed = |source| BindError::Listen { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o755).create(folder).map_err(failed)?;
        }
        let lock = lock(path).map_err(failed)?;
        let lock = lock.ok_or_else(|| BindError::Running(path.to_owned()))?;
        // Left by a daemon that was killed: ours is the only one while the lock is held.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let server = Server { listener, path: path.to_owned(), _lock: lock };
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(server)
    }

    /// Answers until the future is dropped.
    pub async fn run(&self, source: Arc<dyn Source>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "administration socket");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !may_ask(&stream) {
                debug!("administration refused to another user");
                continue;
            }
            let place = Arc::clone(&places).try_acquire_owned();
            let source = Arc::clone(&source);
            tokio::spawn(async move {
                let ended = match place {
                    Ok(_place) => converse(stream, &*source).await,
                    Err(_) => refuse(stream).await,
                };
                if let Err(error) = ended {
                    debug!(%error, "administration connection");
                }
            });
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // If it is gone already there is nothing to take away.
        let _ = fs::remove_file(&self.path);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

/// `None` when somebody else has it.
fn lock(socket: &Path) -> io::Result<Option<File>> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn may_ask(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// Answers requests until the other side has no more, or breaks the rules.
async fn converse(stream: UnixStream, source: &dyn Source) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let line = match tokio::time::timeout(IDLE, read_line(&mut read)).await {
            Ok(line) => line?,
            Err(_) => return Ok(()),
        };
        let (answer, goes_on) = match line {
            Line::End => return Ok(()),
            Line::TooLong => {
                (Answer::Error(format!("a request has at most {REQUEST_MAX} bytes")), false)
            }
            Line::Whole(line) => match understand(&line) {
                Ok(request) => (carry_out(request, source).await, true),
                Err(why) => (Answer::Error(why), false),
            },
        };
        send(&mut write, answer).await?;
        if !goes_on {
            return Ok(());
        }
    }
}

async fn refuse(mut stream: UnixStream) -> io::Result<()> {
    let why = format!("there are {CONNECTIONS_MAX} connections to this daemon already");
    send(&mut stream, Answer::Error(why)).await
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    /// The other side has closed; half a line does not count.
    End,
}

async fn read_line(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let buffered = read.fill_buf().await?;
        if buffered.is_empty() {
            return Ok(Line::End);
        }
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffered.len(), |end| end + 1);
        if line.len() + count > REQUEST_MAX {
            return Ok(Line::TooLong);
        }
        line.extend_from_slice(&buffered[..count]);
        read.consume(count);
        if end.is_some() {
            return Ok(Line::Whole(line));
        }
    }
}

fn understand(line: &[u8]) -> Result<Request, String> {
    let Versioned { version } =
        serde_json::from_slice(line).map_err(|error| format!("this is no request: {error}"))?;
    if version != VERSION {
        return Err(format!(
            "this daemon speaks version {VERSION} of the administration protocol, not {version}"
        ));
    }
    let call: Call =
        serde_json::from_slice(line).map_err(|error| format!("this is no request: {error}"))?;
    Ok(call.request)
}

async fn carry_out(request: Request, source: &dyn Source) -> Answer {
    let answer = match request {
        Request::Ping => Ok(Answer::Done),
        Request::Status => source.status().await.map(|status| Answer::Status(Box::new(status))),
        Request::LockDump { resource, limit } => {
            let filter = resource.map(|resource| resource.parse()).transpose();
            match filter {
                Ok(filter) => {
                    let limit = limit.min(LOCKS_MAX) as usize;
                    source.lock_dump(filter, limit).await.map(Answer::LockDump)
                }
                Err(error) => Err(error.to_string()),
            }
        }
        Request::RecoveryLast => source.recovery_last().await.map(Answer::RecoveryLast),
        Request::LockTop => source.lock_top().await.map(Answer::LockTop),
        Request::Why(subject) => source.why(subject).await.map(|why| Answer::Why(Box::new(why))),
        Request::FsUsage => source.fs_usage().await.map(Answer::FsUsage),
        Request::FsDamage => source.fs_damage().await.map(Answer::FsDamage),
        Request::FsTrim { from, minimum_bytes } => {
            source.fs_trim(from, minimum_bytes).await.map(Answer::FsTrim)
        }
        Request::FsCheck { from, data } => source.fs_check(from, data).await.map(Answer::FsCheck),
        Request::FsFreeze { patience_ms, lasts_ms } => {
            let [patience, lasts] = [patience_ms, lasts_ms].map(Duration::from_millis);
            source.fs_freeze(patience, lasts).await.map(|()| Answer::Done)
        }
        Request::FsThaw => source.fs_thaw().await.map(|()| Answer::Done),
        Request::Mount { directory, options } => {
            source.mount(directory, options).await.map(|()| Answer::Done)
        }
        Request::Remount { directory, options } => {
            source.remount(directory, options).await.map(|()| Answer::Done)
        }
        Request::Unmount { directory } => source.unmount(directory).await.map(|()| Answer::Done),
        Request::Leave => source.leave().await.map(|()| Answer::Done),
        Request::Stop => source.stop().await.map(|()| Answer::Done),
    };
    answer.unwrap_or_else(Answer::Error)
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), answer: Answer) -> io::Result<()> {
    let mut line = line_of(&Reply { version: VERSION, answer })?;
    if line.len() > ANSWER_MAX {
        let answer = Answer::Error(format!("the answer has {} bytes: ask for less", line.len()));
        line = line_of(&Reply { version: VERSION, answer })?;
    }
    write.write_all(&line).await
}

fn line_of(reply: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}
