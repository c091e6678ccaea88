//! Connections to the other nodes: sockets under the node's links.
//!
//! Keeps true:
//! * the frames of a connection leave whole and in the order they were given, but for urgent ones,
//!   which leave before what still waits;
//! * a connection is announced before anything that comes over it, and nothing comes after its end;
//! * no event is reported from inside a call of [`Network`], and no call of it waits.
//!
//! Nothing here looks into what comes in: the node's links judge it.

mod connection;
mod listener;
mod outbox;

pub use listener::ListenError;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::{ConnectionId, Frame};
use mx_base::NodeId;
use mx_latch::Latch;
use mx_node::world::Network;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::Address;
use connection::Stream;
use outbox::Outbox;

/// An attempt to connect that takes longer has failed.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once; every node has a few with every other, for a while.
const CONNECTIONS_MAX: usize = 1024;

/// What happens to connections: for the node.
///
/// The events of one connection come one after the other; those of several, from several threads.
pub trait PeerEvents: Send + Sync {
    /// Somebody has connected; who, the handshake says.
    fn accepted(&self, connection: ConnectionId);
    /// [`Network::connect`] has succeeded.
    fn connected(&self, peer: NodeId, connection: ConnectionId);
    /// [`Network::connect`] has failed; `refused` when the host answered that nobody listens there.
    fn connect_failed(&self, peer: NodeId, refused: bool);
    /// Any piece of what comes over a connection, in order; never empty.
    fn bytes(&self, connection: ConnectionId, bytes: &[u8]);
    /// The other side has closed it, or it broke, or the other side takes nothing. Not reported of
    /// what was closed here.
    fn closed(&self, connection: ConnectionId);
}

type Events = Arc<dyn PeerEvents>;

/// All connections of this node. To be ended with [`Peers::shut_down`]: it holds whoever it reports
/// to until then.
pub struct Peers {
    shared: Arc<Shared>,
    address: Address,
}

struct Shared {
    handle: Handle,
    peers: BTreeMap<NodeId, Address>,
    numbers: AtomicU64,
    table: Latch<Table>,
    /// Whom events are reported to, once the node is there; until then they wait.
    events: watch::Sender<Option<Events>>,
}

#[derive(Default)]
struct Table {
    open: BTreeMap<ConnectionId, Arc<Outbox>>,
    /// By the number of the attempt, so that one that was given up does not count.
    dialling: BTreeMap<NodeId, (u64, AbortHandle)>,
    listening: Option<AbortHandle>,
    /// The socket that was made here.
    path: Option<PathBuf>,
    ended: bool,
}

impl Peers {
    /// Takes the address that the other nodes connect to. Their connections wait until
    /// [`Peers::start`].
    ///
    /// # Errors
    /// When it cannot be had, above all because another process has it.
    pub fn bind(
        listen: &Address,
        peers: BTreeMap<NodeId, Address>,
        handle: Handle,
    ) -> Result<Peers, ListenError> {
        let (listener, address) = {
            let _entered = handle.enter();
            listener::bind(listen)?
        };
        let path = match &address {
            Address::Unix(path) => Some(path.clone()),
            Address::Tcp(_) => None,
        };
        let shared = Arc::new(Shared {
            handle,
            peers,
            numbers: AtomicU64::new(0),
            table: Latch::new(Table { path, ..Table::default() }),
            events: watch::Sender::new(None),
        });
        let listening = shared.handle.spawn(listener::accept(listener, Arc::clone(&shared)));
        shared.table.lock().listening = Some(listening.abort_handle());
        Ok(Peers { shared, address })
    }

    /// Where this node is reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// From here on events are reported.
    pub fn start(&self, events: Events) {
        if !self.shared.table.lock().ended {
            self.shared.events.send_replace(Some(events));
        }
    }

    /// Closes everything after what was sent, and takes no connection any more. Few events may
    /// still come meanwhile.
    pub fn shut_down(&self) {
        let (open, path) = {
            let mut table = self.shared.table.lock();
            table.ended = true;
            if let Some(listening) = table.listening.take() {
                listening.abort();
            }
            for (_, dialling) in std::mem::take(&mut table.dialling).into_values() {
                dialling.abort();
            }
            (std::mem::take(&mut table.open), table.path.take())
        };
        for outbox in open.into_values() {
            outbox.close();
        }
        if let Some(path) = path {
            // It may be gone already; nobody is told.
            let _ = std::fs::remove_file(path);
        }
        self.shared.events.send_replace(None);
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Network for Peers {
    fn connect(&self, peer: NodeId) {
        let mut table = self.shared.table.lock();
        if table.ended {
            return;
        }
        let attempt = self.shared.number();
        let dial = self.shared.handle.spawn(dial(Arc::clone(&self.shared), peer, attempt));
        // The node has given up an attempt that is still under way.
        let former = table.dialling.insert(peer, (attempt, dial.abort_handle()));
        if let Some((_, former)) = former {
            former.abort();
        }
    }

    fn send(&self, connection: ConnectionId, frame: Frame) {
        let outbox = self.shared.table.lock().open.get(&connection).cloned();
        if let Some(outbox) = outbox {
            outbox.push(frame);
        }
    }

    fn close(&self, connection: ConnectionId) {
        let outbox = self.shared.table.lock().open.remove(&connection);
        if let Some(outbox) = outbox {
            outbox.close();
        }
    }
}

impl Shared {
    /// Whom to report to; `None` when this is over.
    async fn events(&self) -> Option<Events> {
        let mut events = self.events.subscribe();
        events.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Gives a new connection its number. `None` when there are too many, or this is over.
    fn admit(&self) -> Option<(ConnectionId, Arc<Outbox>)> {
        let mut table = self.table.lock();
        if table.ended || table.open.len() >= CONNECTIONS_MAX {
            return None;
        }
        let id = ConnectionId(self.number());
        let outbox = Arc::new(Outbox::default());
        table.open.insert(id, Arc::clone(&outbox));
        Some((id, outbox))
    }

    /// Of a connection or an attempt, never used again.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The attempt is over; false when it was given up before.
    fn settle(&self, peer: NodeId, attempt: u64) -> bool {
        let mut table = self.table.lock();
        let is_present = table.dialling.get(&peer).is_some_and(|(number, _)| *number == attempt);
        is_present && table.dialling.remove(&peer).is_some()
    }

    fn forget(&self, connection: ConnectionId) {
        self.table.lock().open.remove(&connection);
    }
}

async fn dial(shared: Arc<Shared>, peer: NodeId, attempt: u64) {
    let connected = match shared.peers.get(&peer) {
        Some(address) => tokio::time::timeout(DIAL_PATIENCE, reach(address)).await,
        None => Ok(Err(io::ErrorKind::AddrNotAvailable.into())),
    };
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let Some(events) = shared.events().await else { return };
    if !shared.settle(peer, attempt) {
        return;
    }
    match connected.map(|stream| (stream, shared.admit())) {
        Ok((stream, Some((id, outbox)))) => {
            events.connected(peer, id);
            connection::serve(shared, events, id, outbox, stream).await;
        }
        Ok((_, None)) => events.connect_failed(peer, false),
        Err(error) => {
            tracing::debug!(%peer, %error, "cannot connect");
            events.connect_failed(peer, error.kind() == io::ErrorKind::ConnectionRefused);
        }
    }
}

async fn reach(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Unix(path) => Ok(Stream::of_unix(UnixStream::connect(path).await?)),
        Address::Tcp(address) => Stream::of_tcp(TcpStream::connect(address).await?),
    }
}

#[cfg(test)]
mod tests;
