//! The first frame of each side of a connection: who speaks, in which life, and to whom.
//!
//! Keeps true: a connection carries nothing before both sides have checked that they belong to the
//! same cluster, share a protocol version, mean each other, and are not a life that the cluster
//! has left behind. Every refusal names its reason and is sent before the connection is closed.
//!
//! A start is one life of a process and has a random nonce; a joiner has no incarnation yet, a
//! member has the one that the register gave it. One start has at most one incarnation.

use mx_base::{ClusterId, Incarnation, NodeId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Drawn at random when the machine is made, never zero: tells the lives of a process apart before
/// the register has given it an incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StartNonce(u64);

impl StartNonce {
    /// `None` for zero.
    pub const fn new(nonce: u64) -> Option<StartNonce> {
        if nonce == 0 { None } else { Some(StartNonce(nonce)) }
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Protocol versions that a node speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    pub min: u16,
    pub max: u16,
}

impl Versions {
    /// What this release speaks.
    pub const OURS: Versions = Versions { min: 1, max: 1 };

    /// The newest version that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// What a side says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    pub cluster: ClusterId,
    pub versions: Versions,
    pub node: NodeId,
    /// `None` while it has not joined.
    pub incarnation: Option<Incarnation>,
    pub start: StartNonce,
    /// Whom it means to speak to.
    pub to: NodeId,
}

/// Why a connection is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error("it belongs to another cluster")]
    ForeignCluster,
    #[error("no common protocol version: versions {min} to {max} are spoken here")]
    Version { min: u16, max: u16 },
    /// It meant somebody else, calls itself by our own id, or is not configured here.
    #[error("wrong node")]
    WrongNode,
    /// A newer life of the same node is known.
    #[error("stale: incarnation {newest} of the node is known")]
    StaleIncarnation { newest: Incarnation },
    /// Its incarnation is the newest of its node, and no member: expelled, or it has left.
    #[error("no member any more")]
    NotAMember,
    /// Another process speaks for the same node and is alive.
    #[error("another process with the same node id is connected")]
    NodeInUse,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireHello {
    cluster: [u8; 16],
    version_min: U16,
    version_max: U16,
    node: U16,
    to: U16,
    incarnation: U32,
    reserved: U32,
    start: U64,
}

const _: () = assert!(size_of::<WireHello>() == 40);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WireRefusal {
    code: U16,
    version_min: U16,
    version_max: U16,
    reserved: U16,
    newest: U32,
}

const _: () = assert!(size_of::<WireRefusal>() == 12);

/// A payload of the handshake that says nothing valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("a handshake of {length} bytes")]
    Length { length: usize },
    #[error("node id {found} is outside 1 to {max}", max = NodeId::MAX)]
    Node { found: u16 },
    #[error("a start without a nonce")]
    Nonce,
    #[error("versions {min} to {max} are no range")]
    Versions { min: u16, max: u16 },
    #[error("unknown refusal {code}")]
    Code { code: u16 },
}

impl Hello {
    pub fn to_bytes(self) -> Vec<u8> {
        WireHello {
            cluster: self.cluster.0,
            version_min: U16::new(self.versions.min),
            version_max: U16::new(self.versions.max),
            node: U16::new(self.node.get()),
            to: U16::new(self.to.get()),
            incarnation: U32::new(self.incarnation.map_or(0, |i| i.0)),
            reserved: U32::new(0),
            start: U64::new(self.start.get()),
        }
        .as_bytes()
        .to_vec()
    }

    /// # Errors
    /// What is wrong with the bytes. Longer ones are read as far as this release knows them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Hello, HandshakeError> {
        let (wire, _) = WireHello::ref_from_prefix(bytes)
            .map_err(|_| HandshakeError::Length { length: bytes.len() })?;
        let node = |id: U16| NodeId::new(id.get()).ok_or(HandshakeError::Node { found: id.get() });
        let versions = Versions { min: wire.version_min.get(), max: wire.version_max.get() };
        if versions.min == 0 || versions.min > versions.max {
            return Err(HandshakeError::Versions { min: versions.min, max: versions.max });
        }
        Ok(Hello {
            cluster: ClusterId(wire.cluster),
            versions,
            node: node(wire.node)?,
            incarnation: Some(Incarnation(wire.incarnation.get())).filter(|i| i.0 != 0),
            start: StartNonce::new(wire.start.get()).ok_or(HandshakeError::Nonce)?,
            to: node(wire.to)?,
        })
    }
}

impl Refusal {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut wire = WireRefusal {
            code: U16::new(0),
            version_min: U16::new(0),
            version_max: U16::new(0),
            reserved: U16::new(0),
            newest: U32::new(0),
        };
        let code = match self {
            Refusal::ForeignCluster => 1,
            Refusal::Version { min, max } => {
                wire.version_min = U16::new(min);
                wire.version_max = U16::new(max);
                2
            }
            Refusal::WrongNode => 3,
            Refusal::StaleIncarnation { newest } => {
                wire.newest = U32::new(newest.0);
                4
            }
            Refusal::NotAMember => 5,
            Refusal::NodeInUse => 6,
        };
        wire.code = U16::new(code);
        wire.as_bytes().to_vec()
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Refusal, HandshakeError> {
        let (wire, _) = WireRefusal::ref_from_prefix(bytes)
            .map_err(|_| HandshakeError::Length { length: bytes.len() })?;
        match wire.code.get() {
            1 => Ok(Refusal::ForeignCluster),
            2 => Ok(Refusal::Version { min: wire.version_min.get(), max: wire.version_max.get() }),
            3 => Ok(Refusal::WrongNode),
            4 => Ok(Refusal::StaleIncarnation { newest: Incarnation(wire.newest.get()) }),
            5 => Ok(Refusal::NotAMember),
            6 => Ok(Refusal::NodeInUse),
            code => Err(HandshakeError::Code { code }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId([0xc1; 16]),
            versions: Versions { min: 1, max: 2 },
            node: NodeId::new(3).expect("in range"),
            incarnation: Some(Incarnation(5)),
            start: StartNonce::new(0x1122).expect("not zero"),
            to: NodeId::new(1).expect("in range"),
        }
    }

    #[test]
    fn the_bytes_of_a_hello_are_those_of_the_specification() {
        let mut golden = vec![0xc1; 16];
        golden.extend([1, 0, 2, 0, 3, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([0x22, 0x11, 0, 0, 0, 0, 0, 0]);
        assert_eq!(hello().to_bytes(), golden);
        assert_eq!(Hello::from_bytes(&golden), Ok(hello()));
    }

    #[test]
    fn a_joiner_has_no_incarnation() {
        let joiner = Hello { incarnation: None, ..hello() };
        assert_eq!(Hello::from_bytes(&joiner.to_bytes()), Ok(joiner));
    }

    #[test]
    fn impossible_handshakes_are_refused_with_what_is_wrong() {
        let mut bytes = hello().to_bytes();
        assert_eq!(Hello::from_bytes(&bytes[..39]), Err(HandshakeError::Length { length: 39 }));
        bytes[20] = 65;
        assert_eq!(Hello::from_bytes(&bytes), Err(HandshakeError::Node { found: 65 }));
        bytes[16] = 3;
        assert_eq!(Hello::from_bytes(&bytes), Err(HandshakeError::Versions { min: 3, max: 2 }));
    }

    #[test]
    fn every_refusal_survives_the_wire() {
        for refusal in [
            Refusal::ForeignCluster,
            Refusal::Version { min: 2, max: 3 },
            Refusal::WrongNode,
            Refusal::StaleIncarnation { newest: Incarnation(9) },
            Refusal::NotAMember,
            Refusal::NodeInUse,
        ] {
            assert_eq!(Refusal::from_bytes(&refusal.to_bytes()), Ok(refusal));
        }
        assert_eq!(Refusal::from_bytes(&[9; 12]), Err(HandshakeError::Code { code: 0x0909 }));
    }

    #[test]
    fn two_nodes_speak_the_newest_version_that_both_know() {
        let ours = Versions { min: 2, max: 4 };
        assert_eq!(ours.common(Versions { min: 1, max: 3 }), Some(3));
        assert_eq!(ours.common(Versions { min: 4, max: 9 }), Some(4));
        assert_eq!(ours.common(Versions { min: 5, max: 9 }), None);
    }
}
