//! What a long-running program owes to whoever started it: a log, and word that it is ready.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("the log filter is not understood: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log is set up twice")]
    Twice,
}

/// From here on what is traced goes to standard error, by a thread of its own: heartbeats do not
/// wait for the disk or the service that the log goes to. When that is slow by 128,000 lines, lines
/// are left out. What is traced is written when the guard is dropped at the latest.
///
/// # Errors
/// When the filter cannot be read, or a log was set up before.
pub fn log_to_stderr(filter: &str) -> Result<WorkerGuard, LogError> {
    let filter = EnvFilter::try_new(filter)?;
    let (writer, guard) =
        NonBlockingBuilder::default().thread_name("mx-log").finish(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    log.try_init().map_err(|_| LogError::Twice)?;
    Ok(guard)
}

/// Tells the service manager, if there is one, that the program serves (sd_notify(3)). A service
/// manager that cannot be told is not a reason to fail.
pub fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent =
        address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told that this program is ready");
    }
}
