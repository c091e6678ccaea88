//! A set of node ids, as the bitmaps on disk hold it.

use std::fmt;

use mx_base::NodeId;

/// Nodes 1 to 64; bit `n - 1` stands for node `n`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeSet(u64);

impl NodeSet {
    pub const EMPTY: NodeSet = NodeSet(0);

    pub const fn from_bits(bits: u64) -> NodeSet {
        NodeSet(bits)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    pub const fn of(node: NodeId) -> NodeSet {
        NodeSet(1 << node.index())
    }

    pub const fn contains(self, node: NodeId) -> bool {
        self.0 & NodeSet::of(node).0 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    #[must_use]
    pub const fn with(self, node: NodeId) -> NodeSet {
        self.union(NodeSet::of(node))
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

    /// In order of node id.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (1..=NodeId::MAX).filter_map(NodeId::new).filter(move |node| self.contains(*node))
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> NodeSet {
        nodes.into_iter().fold(NodeSet::EMPTY, NodeSet::with)
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, node) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{node}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u16) -> NodeId {
        NodeId::new(id).expect("in range")
    }

    #[test]
    fn the_first_and_the_last_node_have_the_outer_bits() {
        let set: NodeSet = [node(1), node(64)].into_iter().collect();
        assert_eq!(set.bits(), 1 | 1 << 63);
        assert_eq!(set.iter().collect::<Vec<_>>(), [node(1), node(64)]);
        assert_eq!(set.to_string(), "{n1 n64}");
    }

    #[test]
    fn sets_combine() {
        let set = NodeSet::of(node(2)).with(node(3));
        assert_eq!(set.minus(NodeSet::of(node(2))), NodeSet::of(node(3)));
        assert_eq!(set.intersection(NodeSet::of(node(2))), NodeSet::of(node(2)));
        assert!(NodeSet::EMPTY.is_empty() && set.len() == 2);
    }
}
