//! Connections between nodes: ordered bytes, both ways, until they break.

use std::collections::BTreeMap;

use cluster::ConnectionId;

/// One direction of a connection.
#[derive(Default)]
pub(crate) struct Direction {
    /// Nothing arrives before what was sent earlier.
    pub(crate) busy_until: u64,
    /// Something was swallowed by a cut: nothing follows it, as with TCP.
    pub(crate) stuck: bool,
}

pub(crate) struct Connection {
    /// Index of the node that dialled, and of the other.
    pub(crate) ends: [usize; 2],
    /// Which life of each end's process it belongs to.
    pub(crate) lives: [u64; 2],
    pub(crate) open: [bool; 2],
    /// From the dialler, and to it.
    pub(crate) directions: [Direction; 2],
}

impl Connection {
    /// Which end `node` is.
    pub(crate) fn side(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }
}

#[derive(Default)]
pub(crate) struct Net {
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) next: u64,
    /// `cut[a][b]`: nothing gets from a to b.
    pub(crate) cut: Vec<Vec<bool>>,
}

impl Net {
    pub(crate) fn new(nodes: usize) -> Net {
        Net { cut: vec![vec![false; nodes]; nodes], ..Net::default() }
    }

    pub(crate) fn heal(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }
}
