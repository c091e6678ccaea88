//! Ballots: the total order of all attempts to change the register.

use std::fmt;

use mx_base::NodeId;

/// One attempt of one start of one node. Larger rounds win. The nonce, drawn at random by every
/// start, keeps a restarted node from using again a ballot that its former self left behind on
/// some partition.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    pub round: u64,
    pub nonce: u64,
    /// 0 only in [`Ballot::ZERO`].
    node: u16,
}

impl Ballot {
    /// Before the first attempt: no promise, nothing accepted.
    pub const ZERO: Ballot = Ballot { round: 0, nonce: 0, node: 0 };

    /// # Panics
    /// For round 0, which is kept for [`Ballot::ZERO`].
    pub fn new(round: u64, nonce: u64, node: NodeId) -> Ballot {
        assert!(round > 0, "rounds count from 1");
        Ballot { round, nonce, node: node.get() }
    }

    pub fn node(self) -> Option<NodeId> {
        NodeId::new(self.node)
    }

    /// Rounds of a healthy cluster never come near it.
    const ROUND_MAX: u64 = u64::MAX / 2;

    /// From disk; `None` unless it is [`Ballot::ZERO`] or has a round and a node.
    pub(crate) fn from_parts(round: u64, nonce: u64, node: u16) -> Option<Ballot> {
        let ballot = Ballot { round, nonce, node };
        (ballot == Ballot::ZERO
            || ((1..=Ballot::ROUND_MAX).contains(&round) && NodeId::new(node).is_some()))
        .then_some(ballot)
    }

    /// Node id as it is stored, 0 for none.
    pub(crate) const fn node_raw(self) -> u16 {
        self.node
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}:n{}", self.round, self.nonce, self.node)
    }
}

impl fmt::Debug for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
