//! The watch on the heartbeat blocks of all nodes.
//!
//! A block has been still for the time between the end of the read that first showed its contents
//! and the start of the last read that showed the same: a write between two reads is never missed,
//! because every write changes the sequence.

use mx_base::{ClusterId, Duration, Instant, NodeId};

use crate::layout::{self, MpBlock, MpIndex, RECORD_SIZE};
use crate::node_set::NodeSet;
use crate::ondisk::Block;
use crate::ondisk::heartbeat::{HeartbeatRecord, place};

/// Nodes whose heartbeats were watched for as long as a cold start asks for, and did not move.
/// Made by [`Observer::quiet`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quiet {
    nodes: NodeSet,
    watched: Duration,
}

impl Quiet {
    pub fn nodes(self) -> NodeSet {
        self.nodes
    }

    /// For how long at least.
    pub fn watched(self) -> Duration {
        self.watched
    }
}

/// What repeated reads of a node's block show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pulse {
    /// Not read yet.
    Unseen,
    /// The same contents at every read for this long.
    Still(Duration),
    /// The last read showed other contents than the one before, and ended then.
    Moved(Instant),
}

/// Whose heartbeat is in this node's own block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnBlock {
    /// Not read yet, or unreadable.
    Unknown,
    /// This start of the daemon has written it last.
    Ours,
    /// Another start has: a former one, or, if it was `Ours` before, a second node of the same id.
    Foreign { nonce: u64, after_ours: bool },
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Contents {
    Ours,
    Bytes(Box<[u8; RECORD_SIZE]>),
}

#[derive(Debug)]
struct Sight {
    contents: Contents,
    record: Option<HeartbeatRecord>,
    /// End of the read that first showed these contents.
    since: Instant,
    /// Start of the last read that showed them.
    until: Instant,
    /// The contents replaced others; false for the first ones seen.
    changed: bool,
    was_ours: bool,
}

impl Sight {
    /// Has nothing but the change itself been seen?
    fn just_moved(&self) -> bool {
        self.changed && self.until == self.since
    }
}

/// Tells from repeated reads which nodes are alive.
#[derive(Debug)]
pub struct Observer {
    cluster: ClusterId,
    own: Option<(NodeId, u64)>,
    /// By partition, then by node.
    sights: Vec<Vec<Option<Sight>>>,
}

impl Observer {
    /// `own` is this node with the nonce of this start, so that its own writing does not count as
    /// a sign of somebody else.
    pub fn new(
        cluster: ClusterId,
        own: Option<(NodeId, u64)>,
        partitions: u8,
        nodes_max: u16,
    ) -> Observer {
        let nodes = || (0..nodes_max).map(|_| None).collect();
        Observer { cluster, own, sights: (0..partitions).map(|_| nodes()).collect() }
    }

    /// Heartbeat blocks from `at` on were read between `started` and `ended`. Blocks that could
    /// not be read are left out, by several calls; they then count as not seen again.
    pub fn handle_read(
        &mut self,
        partition: MpIndex,
        at: MpBlock,
        blocks: &[Block],
        started: Instant,
        ended: Instant,
    ) {
        let (first, count) = layout::heartbeat_run(self.nodes_max());
        for (block, number) in blocks.iter().zip(at.0..) {
            if number < first.0 || number >= first.0 + count {
                continue;
            }
            let id = u16::try_from(number - first.0 + 1).expect("at most 64 nodes");
            let node = NodeId::new(id).expect("the run holds nodes 1 to nodes_max");
            self.see(partition, node, block, started, ended);
        }
    }

    fn see(
        &mut self,
        partition: MpIndex,
        node: NodeId,
        block: &Block,
        started: Instant,
        ended: Instant,
    ) {
        let record =
            HeartbeatRecord::decode(block, node, place(self.cluster, partition, node)).ok();
        let ours = record.is_some_and(|record| self.own == Some((node, record.nonce)));
        let contents = if ours {
            Contents::Ours
        } else {
            let mut bytes = Box::new([0; RECORD_SIZE]);
            bytes.copy_from_slice(&block.0[..RECORD_SIZE]);
            Contents::Bytes(bytes)
        };
        let sight = &mut self.sights[usize::from(partition.0)][node.index()];
        match sight {
            Some(sight) if sight.contents == contents => {
                // Reads may end out of order; an older one takes nothing back.
                sight.until = sight.until.max(started);
                sight.record = record;
            }
            Some(sight) => {
                let was_ours = sight.was_ours || sight.contents == Contents::Ours;
                *sight =
                    Sight { contents, record, since: ended, until: ended, changed: true, was_ours };
            }
            None => {
                *sight = Some(Sight {
                    contents,
                    record,
                    since: ended,
                    until: ended,
                    changed: false,
                    was_ours: false,
                });
            }
        }
    }

    /// The newest record of a node, over all partitions: highest incarnation, then sequence. A hint, for `generation_seen`, `reach` and the flags.
    pub fn record(&self, node: NodeId) -> Option<HeartbeatRecord> {
        self.of(node)
            .filter_map(|sight| sight.record)
            .max_by_key(|record| (record.incarnation, record.sequence))
    }

    /// The liveliest pulse of a node over all partitions.
    pub fn pulse(&self, node: NodeId) -> Pulse {
        let moved = self.of(node).filter(|sight| sight.just_moved()).map(|sight| sight.since).max();
        let still = self.of(node).map(|sight| sight.until.since(sight.since)).min();
        match (moved, still) {
            (Some(at), _) => Pulse::Moved(at),
            (None, Some(duration)) => Pulse::Still(duration),
            (None, None) => Pulse::Unseen,
        }
    }

    /// Nodes that were still for `window` on a majority of the partitions, and moved on none
    /// within it. This node's own writing does not count as moving, another start's in its block
    /// does.
    pub fn quiet(&self, window: Duration) -> Quiet {
        let majority = self.sights.len() / 2 + 1;
        let still = |sight: &Sight| sight.until.since(sight.since) >= window;
        let nodes = (1..=self.nodes_max()).filter_map(NodeId::new).filter(|node| {
            self.of(*node).filter(|sight| still(sight)).count() >= majority
                && self.of(*node).all(|sight| still(sight) || !sight.changed)
        });
        Quiet { nodes: nodes.collect(), watched: window }
    }

    /// Whose heartbeat this node's own block holds; the most alarming answer of all partitions.
    pub fn own_block(&self) -> OwnBlock {
        let Some((node, _)) = self.own else { return OwnBlock::Unknown };
        let sights = || self.of(node).filter_map(|sight| Some((sight, sight.record?)));
        let foreign = sights().filter(|(sight, _)| sight.contents != Contents::Ours);
        let worst = foreign.max_by_key(|(sight, _)| sight.was_ours);
        match worst {
            Some((sight, record)) => {
                OwnBlock::Foreign { nonce: record.nonce, after_ours: sight.was_ours }
            }
            None if sights().next().is_some() => OwnBlock::Ours,
            None => OwnBlock::Unknown,
        }
    }

    fn of(&self, node: NodeId) -> impl Iterator<Item = &Sight> {
        self.sights.iter().filter_map(move |nodes| nodes.get(node.index())?.as_ref())
    }

    fn nodes_max(&self) -> u16 {
        let nodes = self.sights.first().map_or(0, Vec::len);
        u16::try_from(nodes).expect("at most 64 nodes")
    }
}
