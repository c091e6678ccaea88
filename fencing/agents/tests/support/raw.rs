//! A client that does what it likes on the socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use fencing_agents::arbiter::client::Identity;
use fencing_agents::arbiter::protocol::{
    HELLO_SIZE, Hello, HelloRefusal, PACKET_MAX, Reply, Request, Status, Welcome,
};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketType,
};

pub struct Raw {
    socket: OwnedFd,
}

pub fn hello(identity: Identity) -> Hello {
    let (key, nonce) = match identity {
        Identity::Member { key, nonce } => (Some(key), nonce),
        Identity::Observer => (None, 7),
    };
    Hello {
        cluster: super::CLUSTER,
        device: super::DEVICE,
        key,
        nonce,
        channel: 0,
        area_blocks: 256,
    }
}

/// Memory as a client shares it.
pub fn memory(blocks: u64, seals: SealFlags) -> OwnedFd {
    let memory = rustix::fs::memfd_create("raw", MemfdFlags::ALLOW_SEALING).expect("memfd");
    rustix::fs::ftruncate(&memory, blocks * 4096).expect("sized");
    rustix::fs::fcntl_add_seals(&memory, seals).expect("sealed");
    memory
}

impl Raw {
    pub fn connect(dir: &Path) -> Raw {
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
        let socket = socket.expect("a socket");
        let address = SocketAddrUnix::new(dir.join("socket")).expect("a short path");
        rustix::net::connect(&socket, &address).expect("the arbiter listens");
        Raw { socket }
    }

    /// A session with memory of 256 blocks.
    pub fn open(dir: &Path, identity: Identity) -> Result<Raw, HelloRefusal> {
        let raw = Raw::connect(dir);
        let memory = memory(256, SealFlags::SHRINK);
        raw.send(&hello(identity).encode(), Some(memory.as_fd()));
        raw.welcome().map(|_| raw)
    }

    pub fn send(&self, packet: &[u8], descriptor: Option<BorrowedFd<'_>>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|descriptor| [descriptor]);
        if let Some(descriptors) = &descriptors {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let slices = [IoSlice::new(packet)];
        // The server may have ended the session already.
        let _ = rustix::net::sendmsg(&self.socket, &slices, &mut control, SendFlags::NOSIGNAL);
    }

    /// The next packet; empty at the end of the connection.
    pub fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; PACKET_MAX];
        let mut control = RecvAncillaryBuffer::default();
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::empty();
        match rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags) {
            Ok(message) => buffer[..message.bytes].to_vec(),
            Err(rustix::io::Errno::CONNRESET) => Vec::new(),
            Err(errno) => panic!("{errno}"),
        }
    }

    pub fn welcome(&self) -> Result<Welcome, HelloRefusal> {
        let packet = self.receive();
        assert_eq!(packet.len(), HELLO_SIZE);
        Welcome::decode(&packet).expect("an answer to a handshake")
    }

    pub fn request(&self, id: u64, request: Request) {
        self.send(&request.encode(id), None);
    }

    /// The next single reply.
    pub fn reply(&self) -> (u64, Status) {
        let packet = self.receive();
        let reply = Reply::decode(&packet).expect("one reply");
        (reply.id, reply.status)
    }

    pub fn is_at_end(&self) -> bool {
        self.receive().is_empty()
    }
}
