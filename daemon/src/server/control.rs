//! The thread on which a node stays alive: heartbeats, links, views, the membership partition.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;

use cluster::{ConnectionId, Frame};
use mfs::env::Runtime;
use mx_base::NodeId;
use mx_node::Node;
use mx_node::world::Network;
use tokio::runtime::{Builder, Handle};

use crate::config::Address;
use crate::peers::{ListenError, PeerEvents, Peers};
use crate::runtime::TokioRuntime;

/// Ahead of whatever else wants the processor, behind the kernel's own threads.
const PRIORITY: i32 = 10;

/// A runtime of one thread with real-time priority, where the system allows it.
pub struct Control {
    handle: Handle,
}

impl Control {
    /// Starts the thread; it lives as long as the process.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn start() -> io::Result<Control> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new().name("mx-control".to_owned()).spawn(move || {
            set_priority();
            runtime.block_on(std::future::pending::<()>());
        })?;
        Ok(Control { handle })
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        TokioRuntime::new(self.handle.clone())
    }

    /// Connections of a node; without an address to listen on there are none.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn network(
        &self,
        listen: Option<Address>,
        peers: BTreeMap<NodeId, Address>,
    ) -> Result<Listening, ListenError> {
        let Some(listen) = listen else { return Ok((Arc::new(Nobody), None)) };
        let peers = Arc::new(Peers::bind(&listen, peers, self.handle.clone())?);
        Ok((Arc::clone(&peers) as Arc<dyn Network>, Some(peers)))
    }
}

/// The network, and what listens for it, if anything does.
type Listening = (Arc<dyn Network>, Option<Arc<Peers>>);

/// What happens to connections is told to the node, as long as it is there.
pub(super) fn events_of(node: &Arc<Node>) -> Arc<dyn PeerEvents> {
    Arc::new(Events(Arc::downgrade(node)))
}

struct Events(Weak<Node>);

impl Events {
    fn tell(&self, tell: impl FnOnce(&Node)) {
        if let Some(node) = self.0.upgrade() {
            tell(&node);
        }
    }
}

impl PeerEvents for Events {
    fn accepted(&self, connection: ConnectionId) {
        self.tell(|node| node.handle_accepted(connection));
    }

    fn connected(&self, peer: NodeId, connection: ConnectionId) {
        self.tell(|node| node.handle_connected(peer, connection));
    }

    fn connect_failed(&self, peer: NodeId, refused: bool) {
        self.tell(|node| node.handle_connect_failed(peer, refused));
    }

    fn bytes(&self, connection: ConnectionId, bytes: &[u8]) {
        self.tell(|node| node.handle_bytes(connection, bytes));
    }

    fn closed(&self, connection: ConnectionId) {
        self.tell(|node| node.handle_closed(connection));
    }
}

/// A cluster of one has no links.
struct Nobody;

impl Network for Nobody {
    fn connect(&self, _peer: NodeId) {}

    fn send(&self, _connection: ConnectionId, _frame: Frame) {}

    fn close(&self, _connection: ConnectionId) {}
}

fn set_priority() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the parameters are read during the call only; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "heartbeats run without real-time priority");
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}
