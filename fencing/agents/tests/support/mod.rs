//! A directory, an arbiter and clients for one test, gone when the test is.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod raw;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use fencing::{Block, DeviceId, Gate, Key, Victim};
use fencing_agents::Completion;
use fencing_agents::arbiter::client::{self, Client, ConnectError, Identity};
use fencing_agents::arbiter::protocol::NodeReport;
use fencing_agents::arbiter::server::{self, Server, Stop};
use mx_base::{ClusterId, Incarnation, Instant, Member, NodeId};

pub const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
pub const DEVICE: DeviceId = DeviceId([0xD2; 16]);
pub const DEVICE_BLOCKS: u64 = 8192;
/// Far longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let parent = std::env::temp_dir();
        Scratch::new_in(parent.to_str().expect("a plain path"), name)
    }

    pub fn new_in(parent: &str, name: &str) -> Scratch {
        let path = Path::new(parent).join(format!("mx-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A sparse file of so many blocks.
    pub fn file(&self, name: &str, blocks: u64) -> PathBuf {
        let path = self.0.join(name);
        let file = std::fs::File::create(&path).expect("a new file");
        file.set_len(blocks * 4096).expect("sparse");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn config(dir: &Path) -> server::Config {
    server::Config {
        device: dir.join("device"),
        socket: dir.join("socket"),
        state: dir.join("state"),
        cluster: CLUSTER,
        device_id: DEVICE,
        patience: PATIENCE,
        accept_faults: true,
    }
}

/// An arbiter in a thread.
pub struct Arbiter {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Arbiter {
    pub fn start(config: server::Config) -> Arbiter {
        let stop = Stop::new().expect("an eventfd");
        let server = Server::start(config).expect("a free device");
        let for_thread = stop.clone();
        let thread = std::thread::spawn(move || server.run(&for_thread).expect("runs to its end"));
        Arbiter { stop, thread: Some(thread) }
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends in order");
        }
    }
}

/// A directory with a device and an arbiter that serves it.
pub struct World {
    pub arbiter: Option<Arbiter>,
    pub scratch: Scratch,
}

impl World {
    pub fn new(name: &str) -> World {
        let scratch = Scratch::new(name);
        scratch.file("device", DEVICE_BLOCKS);
        let arbiter = Some(Arbiter::start(config(scratch.path())));
        World { arbiter, scratch }
    }

    pub fn restart(&mut self) {
        self.arbiter = None;
        self.arbiter = Some(Arbiter::start(config(self.scratch.path())));
    }

    pub fn connect(&self, identity: Identity) -> Result<Client, ConnectError> {
        self.connect_on(identity, 0).map(|(client, _)| client)
    }

    pub fn connect_on(
        &self,
        identity: Identity,
        channel: u16,
    ) -> Result<(Client, Arc<Gate>), ConnectError> {
        let gate = Gate::new();
        let config = client_config(self.scratch.path(), identity, channel, &gate);
        Client::connect(config, PATIENCE).map(|client| (client, gate))
    }

    pub fn member(&self, node: u16, incarnation: u32) -> Client {
        self.connect(identity(node, incarnation)).expect("admitted")
    }

    /// What is in a block of the device, by the file itself.
    pub fn byte(&self, block: u64) -> u8 {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(self.scratch.path().join("device")).expect("the device");
        let mut byte = [0];
        file.read_exact_at(&mut byte, block * 4096).expect("inside");
        byte[0]
    }
}

pub fn client_config(
    dir: &Path,
    identity: Identity,
    channel: u16,
    gate: &Arc<Gate>,
) -> client::Config {
    client::Config {
        socket: dir.join("socket"),
        cluster: CLUSTER,
        device: DEVICE,
        identity,
        channel,
        area_blocks: client::AREA_BLOCKS,
        gate: Arc::clone(gate),
        clock: Arc::new(|| Instant(1)),
    }
}

pub fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

pub fn member(node_id: u16, incarnation: u32) -> Member {
    Member { node: node(node_id), incarnation: Incarnation(incarnation) }
}

/// As a start of the daemon whose nonce follows from node and incarnation.
pub fn identity(node: u16, incarnation: u32) -> Identity {
    let nonce = u64::from(node) << 32 | u64::from(incarnation);
    Identity::Member { key: Key::of(member(node, incarnation)), nonce }
}

pub fn victim(node: u16, up_to: u32) -> Victim {
    Victim::from(member(node, up_to))
}

pub fn filled(byte: u8) -> Box<Block> {
    Box::new(Block([byte; 4096]))
}

/// Is it there without waiting? It can be asked once.
pub fn is_ready<T>(completion: &mut Completion<T>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    matches!(Pin::new(completion).poll(&mut context), Poll::Ready(_))
}

pub fn report(client: &Client, id: u16) -> NodeReport {
    let list = client.list().wait().expect("listed");
    list.into_iter().find(|report| report.node == node(id)).expect("every node is listed")
}

/// Waits until what the arbiter says of a node is so.
pub fn wait_until(client: &Client, id: u16, holds: impl Fn(&NodeReport) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let report = report(client, id);
        if holds(&report) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{report:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
