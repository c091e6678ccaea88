//! Proof that a former life of a node can write to a device no more.
//!
//! A [`FenceProof`] is made by the director out of a verified answer, and by nothing else; what
//! may happen only after a fence takes one as an argument. What it says stays true for ever: the
//! lives it speaks of are never allowed in again.

use std::fmt;

use mx_base::{Incarnation, Instant, Member, NodeId};

use crate::agent::MethodId;

/// Identity of a shared device: the same on every node, whatever the path to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub [u8; 16]);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&mx_base::FsId(self.0), f)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom to fence: every life of a node up to and including one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Victim {
    pub node: NodeId,
    pub up_to: Incarnation,
}

impl Victim {
    pub fn includes(self, member: Member) -> bool {
        self.node == member.node && member.incarnation <= self.up_to
    }
}

impl From<Member> for Victim {
    fn from(member: Member) -> Victim {
        Victim { node: member.node, up_to: member.incarnation }
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} up to {}", self.node, self.up_to)
    }
}

impl fmt::Debug for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.<={}", self.node, self.up_to)
    }
}

/// No write of `victim` reaches `device` from the moment of the proof on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FenceProof {
    victim: Victim,
    device: DeviceId,
    method: MethodId,
    proven_at: Instant,
}

impl FenceProof {
    /// For the director alone, on a verified answer.
    pub(crate) fn new(
        victim: Victim,
        device: DeviceId,
        method: MethodId,
        proven_at: Instant,
    ) -> FenceProof {
        FenceProof { victim, device, method, proven_at }
    }

    pub fn victim(&self) -> Victim {
        self.victim
    }

    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The method that was verified.
    pub fn method(&self) -> MethodId {
        self.method
    }

    /// By the clock of the node that ran the director.
    pub fn proven_at(&self) -> Instant {
        self.proven_at
    }

    /// Does it cover all lives of `victim`? One proof for a later life covers the earlier ones.
    pub fn covers(&self, victim: Victim) -> bool {
        self.victim.node == victim.node && victim.up_to <= self.victim.up_to
    }
}
