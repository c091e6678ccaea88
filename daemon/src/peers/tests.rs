//! Connections over real sockets.

use std::sync::atomic::AtomicU32;

use cluster::LockspaceId;
use cluster::frame::{Decoder, Kind, PAYLOAD_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Accepted(ConnectionId),
    Connected(NodeId, ConnectionId),
    ConnectFailed(NodeId, bool),
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

struct Recorder(UnboundedSender<Event>);

impl Recorder {
    fn report(&self, event: Event) {
        // The test may be over.
        let _ = self.0.send(event);
    }
}

impl PeerEvents for Recorder {
    fn accepted(&self, connection: ConnectionId) {
        self.report(Event::Accepted(connection));
    }

    fn connected(&self, peer: NodeId, connection: ConnectionId) {
        self.report(Event::Connected(peer, connection));
    }

    fn connect_failed(&self, peer: NodeId, refused: bool) {
        self.report(Event::ConnectFailed(peer, refused));
    }

    fn bytes(&self, connection: ConnectionId, bytes: &[u8]) {
        self.report(Event::Bytes(connection, bytes.to_vec()));
    }

    fn closed(&self, connection: ConnectionId) {
        self.report(Event::Closed(connection));
    }
}

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn frame(kind: Kind, sequence: u64, payload: Vec<u8>) -> Frame {
    let lockspace = LockspaceId(0);
    Frame { version: 1, kind, lockspace, sequence, ack: 0, payload: payload.into() }
}

fn scratch_socket() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("mxd-peers-{}-{number}", std::process::id()))
}

fn ephemeral() -> Address {
    Address::Tcp(([127, 0, 0, 1], 0).into())
}

/// A node that records what it is told.
struct Side {
    peers: Peers,
    events: UnboundedReceiver<Event>,
}

impl Side {
    fn new(listen: &Address, peers: &[(u16, &Address)]) -> Side {
        let peers = peers.iter().map(|(id, address)| (node(*id), (*address).clone())).collect();
        let peers = Peers::bind(listen, peers, Handle::current()).expect("a free address");
        let (sender, events) = unbounded_channel();
        peers.start(Arc::new(Recorder(sender)));
        Side { peers, events }
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("in time").expect("the recorder lives")
    }

    async fn accepted(&mut self) -> ConnectionId {
        let event = self.next().await;
        let Event::Accepted(id) = event else { panic!("{event:?}") };
        id
    }

    async fn connect(&mut self, id: u16) -> ConnectionId {
        self.peers.connect(node(id));
        let event = self.next().await;
        let Event::Connected(peer, connection) = event else { panic!("{event:?}") };
        assert_eq!(peer, node(id));
        connection
    }

    /// So many frames of one connection.
    async fn frames(&mut self, connection: ConnectionId, count: usize) -> Vec<Frame> {
        let mut decoder = Decoder::new();
        decoder.allow_all();
        let mut frames = Vec::new();
        while frames.len() < count {
            let event = self.next().await;
            let Event::Bytes(from, bytes) = event else { panic!("{event:?}") };
            assert_eq!(from, connection);
            decoder.push(&bytes);
            while let Some(frame) = decoder.next_frame().expect("frames arrive whole") {
                frames.push(frame);
            }
        }
        frames
    }
}

async fn pair(listen: &Address) -> (Side, ConnectionId, Side, ConnectionId) {
    let mut server = Side::new(listen, &[]);
    let address = server.peers.address().clone();
    let mut client = Side::new(&ephemeral(), &[(2, &address)]);
    let out = client.connect(2).await;
    let inward = server.accepted().await;
    (server, inward, client, out)
}

async fn frames_go_both_ways(listen: Address) {
    let (mut server, inward, mut client, out) = pair(&listen).await;
    let sizes = [0, 1, 100_000, PAYLOAD_MAX, 7];
    let sent: Vec<Frame> = (1..)
        .zip(sizes)
        .map(|(number, size)| frame(Kind::Lock, number, vec![size.to_le_bytes()[0]; size]))
        .collect();
    for frame in &sent {
        client.peers.send(out, frame.clone());
        server.peers.send(inward, frame.clone());
    }
    assert_eq!(server.frames(inward, sent.len()).await, sent);
    assert_eq!(client.frames(out, sent.len()).await, sent);
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_over_tcp() {
    frames_go_both_ways(ephemeral()).await;
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order_over_a_unix_socket() {
    frames_go_both_ways(Address::Unix(scratch_socket())).await;
}

/// The other side reads nothing until much waits; then comes what fits the sockets, and then the
/// urgent frame, far before the last of the others.
#[tokio::test]
async fn an_urgent_frame_overtakes_what_waits() {
    let path = scratch_socket();
    let listener = tokio::net::UnixListener::bind(&path).expect("a free path");
    let mut client = Side::new(&ephemeral(), &[(2, &Address::Unix(path.clone()))]);
    let out = client.connect(2).await;
    let (mut stream, _) = listener.accept().await.expect("connected");
    const OTHERS: u64 = 64;
    for number in 1..=OTHERS {
        client.peers.send(out, frame(Kind::Lock, number, vec![0; PAYLOAD_MAX]));
    }
    let mut decoder = Decoder::new();
    decoder.allow_all();
    let mut kinds = Vec::new();
    let mut piece = vec![0; 1 << 20];
    let count = stream.read(&mut piece).await.expect("readable");
    decoder.push(&piece[..count]);
    client.peers.send(out, frame(Kind::Ping, 0, vec![0; 40]));
    client.peers.close(out);
    loop {
        let count = stream.read(&mut piece).await.expect("readable");
        if count == 0 {
            break;
        }
        decoder.push(&piece[..count]);
        while let Some(frame) = decoder.next_frame().expect("frames") {
            kinds.push(frame.kind);
        }
    }
    assert_eq!(kinds.len() as u64, OTHERS + 1, "all that was sent before the end arrives");
    let ping = kinds.iter().position(|kind| *kind == Kind::Ping).expect("sent");
    assert!((1..16).contains(&ping), "{ping} frames went before it");
    std::fs::remove_file(path).expect("ours");
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_and_then_the_end() {
    let (mut server, inward, mut client, out) = pair(&ephemeral()).await;
    // Not read by the other side's machine, but it must not turn the end into a reset.
    server.peers.send(inward, frame(Kind::Lock, 1, vec![1; 1000]));
    client.frames(out, 1).await;
    let refusal = frame(Kind::Refusal, 0, vec![2; 12]);
    client.peers.send(out, refusal.clone());
    client.peers.close(out);
    client.peers.send(out, frame(Kind::Lock, 2, vec![]));
    assert_eq!(server.frames(inward, 1).await, [refusal]);
    assert_eq!(server.next().await, Event::Closed(inward));
    assert!(client.events.is_empty(), "who closes is not told");
    let again = client.connect(2).await;
    assert_ne!(again, out, "a new connection has a new number");
    server.accepted().await;
}

#[tokio::test]
async fn bytes_are_reported_whatever_they_are() {
    let mut server = Side::new(&ephemeral(), &[]);
    let Address::Tcp(address) = *server.peers.address() else { panic!("a TCP address") };
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let id = server.accepted().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("written");
    assert_eq!(server.next().await, Event::Bytes(id, b"GET / HTTP/1.1\r\n".to_vec()));
    drop(stream);
    assert_eq!(server.next().await, Event::Closed(id));
}

#[tokio::test]
async fn only_a_host_that_answers_refuses() {
    let path = scratch_socket();
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        Address::Tcp(listener.local_addr().expect("bound"))
    };
    let absent = Address::Unix(path.clone());
    let mut client = Side::new(&ephemeral(), &[(2, &gone), (3, &absent)]);
    client.peers.connect(node(2));
    assert_eq!(client.next().await, Event::ConnectFailed(node(2), true));
    client.peers.connect(node(3));
    assert_eq!(client.next().await, Event::ConnectFailed(node(3), false));
    client.peers.connect(node(4));
    assert_eq!(client.next().await, Event::ConnectFailed(node(4), false), "nobody knows it");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
    client.peers.connect(node(3));
    assert_eq!(client.next().await, Event::ConnectFailed(node(3), true));
    let mut server = Side::new(&absent, &[]);
    client.connect(3).await;
    server.accepted().await;
}

#[tokio::test]
async fn an_address_is_had_by_one_and_given_up_at_the_end() {
    let address = Address::Unix(scratch_socket());
    let first = Side::new(&address, &[]);
    let second = Peers::bind(&address, BTreeMap::new(), Handle::current());
    assert!(matches!(second, Err(ListenError::InUse { .. })), "{second:?}");
    first.peers.shut_down();
    Peers::bind(&address, BTreeMap::new(), Handle::current()).expect("free again");
}

#[tokio::test]
async fn nothing_is_lost_that_comes_before_the_node_is_there() {
    let peers = Peers::bind(&ephemeral(), BTreeMap::new(), Handle::current()).expect("free");
    let mut client = Side::new(&ephemeral(), &[(1, peers.address())]);
    let out = client.connect(1).await;
    client.peers.send(out, frame(Kind::Hello, 0, vec![3; 40]));
    let (sender, events) = unbounded_channel();
    peers.start(Arc::new(Recorder(sender)));
    let mut server = Side { peers, events };
    let inward = server.accepted().await;
    assert_eq!(server.frames(inward, 1).await, [frame(Kind::Hello, 0, vec![3; 40])]);
    server.peers.shut_down();
    assert_eq!(client.next().await, Event::Closed(out));
}
