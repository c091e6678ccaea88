//! A set of nodes in one word: what a node reaches, who has agreed, who is dropped.

use std::fmt;

use mx_base::NodeId;

/// Bit `n - 1` stands for node `n`; the same layout on the wire and in disk heartbeats.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct NodeSet(u64);

const _: () = assert!(NodeId::MAX as u32 == u64::BITS, "one bit for each possible node");

impl NodeSet {
    pub const EMPTY: NodeSet = NodeSet(0);

    pub const fn from_bits(bits: u64) -> NodeSet {
        NodeSet(bits)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub fn contains(self, node: NodeId) -> bool {
        self.0 & (1 << node.index()) != 0
    }

    pub fn insert(&mut self, node: NodeId) {
        self.0 |= 1 << node.index();
    }

    pub fn remove(&mut self, node: NodeId) {
        self.0 &= !(1 << node.index());
    }

    #[must_use]
    pub const fn union(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 | other.0)
    }

    #[must_use]
    pub const fn minus(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & !other.0)
    }

    #[must_use]
    pub const fn intersection(self, other: NodeSet) -> NodeSet {
        NodeSet(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The lowest id in the set.
    pub fn first(self) -> Option<NodeId> {
        self.iter().next()
    }

    /// In order of node id.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (1..=NodeId::MAX).filter_map(NodeId::new).filter(move |node| self.contains(*node))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        let mut set = NodeSet::EMPTY;
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_and_the_highest_node_have_the_outer_bits() {
        let ends: NodeSet = [1, NodeId::MAX].into_iter().filter_map(NodeId::new).collect();
        assert_eq!(ends.bits(), 1 | 1 << 63);
        assert_eq!(ends.first(), NodeId::new(1));
        assert_eq!(ends.len(), 2);
    }
}
