//! The address that other nodes connect to.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::Shared;
use super::connection::{self, Stream};
use crate::config::Address;

/// How long to wait after a connection could not be taken: no descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address}: another process listens there")]
    InUse { address: Address },
    #[error("{address}: {source}")]
    Failed { address: Address, source: io::Error },
}

pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// The listener, and the address it has.
pub(super) fn bind(address: &Address) -> Result<(Listener, Address), ListenError> {
    let bound = match address {
        Address::Unix(path) => {
            bind_unix(path).map(|listener| (Listener::Unix(listener), address.clone()))
        }
        Address::Tcp(wanted) => bind_tcp(*wanted),
    };
    bound.map_err(|source| {
        let address = address.clone();
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::InUse { address }
        } else {
            ListenError::Failed { address, source }
        }
    })
}

fn bind_tcp(wanted: std::net::SocketAddr) -> io::Result<(Listener, Address)> {
    // With SO_REUSEADDR, so that a restarted daemon has its address at once.
    let listener = std::net::TcpListener::bind(wanted)?;
    listener.set_nonblocking(true)?;
    let address = Address::Tcp(listener.local_addr()?);
    Ok((Listener::Tcp(TcpListener::from_std(listener)?), address))
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            // Left over by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes connections as soon as there is somebody to report them to.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    let Some(events) = shared.events().await else { return };
    loop {
        let accepted = match &listener {
            Listener::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Stream::of_unix(stream))
            }
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => Stream::of_tcp(stream),
                Err(error) => Err(error),
            },
        };
        match accepted {
            Ok(stream) => {
                let Some((id, outbox)) = shared.admit() else {
                    tracing::warn!("too many connections: one more is closed at once");
                    continue;
                };
                let (events, for_task) = (Arc::clone(&events), Arc::clone(&shared));
                shared.handle.spawn(async move {
                    events.accepted(id);
                    connection::serve(for_task, events, id, outbox, stream).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
