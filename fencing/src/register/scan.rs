//! Reading all records of a partition, around sectors that cannot be read.

use mx_base::{ClusterId, NodeId};

use super::Trouble;
use crate::ballot::Ballot;
use crate::layout::{self, CopyNo, MpBlock, MpIndex};
use crate::ondisk::register::{RegisterRecord, place};
use crate::ondisk::{Block, DecodeError};
use crate::reg_val::RegVal;

/// With more sectors unreadable than this the device is failing, not a sector.
const READ_ERRORS_MAX: u32 = 24;

/// One copy of a record as it was read.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    NotYet,
    Unreadable,
    Bad(DecodeError),
    Record(Box<RegisterRecord>),
}

impl Seen {
    pub(super) fn record(&self) -> Option<&RegisterRecord> {
        match self {
            Seen::Record(record) => Some(record),
            Seen::NotYet | Seen::Unreadable | Seen::Bad(_) => None,
        }
    }
}

/// A pass over both copies of every node's record. A run that cannot be read is halved until the
/// bad blocks stand alone.
#[derive(Debug)]
pub(super) struct Scan {
    runs: Vec<(MpBlock, u32)>,
    seen: Vec<Seen>,
    read_errors: u32,
}

/// The newest record of each node, as one whole pass showed them.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    records: Vec<RegisterRecord>,
}

impl Scan {
    pub(super) fn new(nodes_max: u16) -> Scan {
        let run = layout::register_run(nodes_max);
        Scan {
            runs: vec![run],
            seen: vec![Seen::NotYet; 2 * usize::from(nodes_max)],
            read_errors: 0,
        }
    }

    /// The run to be read next; `None` when all has been read.
    pub(super) fn next_run(&self) -> Option<(MpBlock, u32)> {
        self.runs.last().copied()
    }

    /// # Errors
    /// When the device fails as a whole.
    ///
    /// # Panics
    /// When the blocks are not as many as were asked for.
    pub(super) fn handle(
        &mut self,
        blocks: Option<&[Block]>,
        cluster: ClusterId,
        partition: MpIndex,
    ) -> Result<(), Trouble> {
        let (first, count) = self.runs.pop().expect("a read is outstanding");
        match blocks {
            Some(blocks) => {
                assert_eq!(blocks.len(), count as usize, "as many blocks as were asked for");
                for (block, number) in blocks.iter().zip(first.0..) {
                    let (node, copy) = owner(MpBlock(number));
                    let place = place(cluster, partition, node, copy);
                    self.seen[position(node, copy)] =
                        match RegisterRecord::decode(block, node, place) {
                            Ok(record) => Seen::Record(Box::new(record)),
                            Err(error) => Seen::Bad(error),
                        };
                }
            }
            None => {
                self.read_errors += 1;
                if self.read_errors > READ_ERRORS_MAX {
                    return Err(Trouble::Io);
                }
                if count == 1 {
                    let (node, copy) = owner(first);
                    self.seen[position(node, copy)] = Seen::Unreadable;
                } else {
                    let half = count / 2;
                    self.runs.push((MpBlock(first.0 + half), count - half));
                    self.runs.push((first, half));
                }
            }
        }
        Ok(())
    }

    pub(super) fn copies(&self, node: NodeId) -> [&Seen; 2] {
        CopyNo::BOTH.map(|copy| &self.seen[position(node, copy)])
    }

    /// # Errors
    /// When a node has no readable copy: what it has promised or accepted is then unknown.
    pub(super) fn picture(&self) -> Result<Picture, Trouble> {
        let nodes = self.seen.len() / 2;
        let nodes = u16::try_from(nodes).expect("at most 64 nodes");
        let newest = |node: NodeId| {
            let copies = self.copies(node);
            let records = copies.iter().filter_map(|seen| seen.record());
            records
                .max_by_key(|record| record.sequence)
                .cloned()
                .ok_or_else(|| damage(node, copies))
        };
        let records: Result<_, _> = (1..=nodes).filter_map(NodeId::new).map(newest).collect();
        Ok(Picture { records: records? })
    }
}

impl Picture {
    /// # Panics
    /// For a node beyond those of the cluster.
    pub(super) fn record(&self, node: NodeId) -> &RegisterRecord {
        &self.records[node.index()]
    }

    /// The highest promise of any node but `node`.
    pub(super) fn promised_by_others(&self, node: NodeId) -> Ballot {
        let others = self.records.iter().filter(|record| record.node != node);
        others.map(|record| record.promised).max().unwrap_or(Ballot::ZERO)
    }

    /// The record with the highest accepted ballot.
    pub(super) fn highest(&self) -> &RegisterRecord {
        let highest = self.records.iter().max_by_key(|record| record.accepted);
        highest.expect("a cluster has nodes")
    }

    pub(super) fn promised(&self) -> Ballot {
        self.records.iter().map(|record| record.promised).max().unwrap_or(Ballot::ZERO)
    }

    /// What was accepted in the highest ballot; the initial value if nothing was.
    ///
    /// # Errors
    /// When one ballot has two values, which no correct node ever writes.
    pub(super) fn accepted(pictures: &[&Picture]) -> Result<RegVal, Trouble> {
        let records = || pictures.iter().flat_map(|picture| &picture.records);
        let Some(highest) = records().max_by_key(|record| record.accepted) else {
            return Ok(RegVal::initial());
        };
        let rivals = records().filter(|record| record.accepted == highest.accepted);
        if rivals.into_iter().any(|rival| rival.value != highest.value) {
            return Err(Trouble::Contradiction);
        }
        Ok(highest.value.clone())
    }
}

fn damage(node: NodeId, copies: [&Seen; 2]) -> Trouble {
    let newer = copies.iter().find_map(|seen| match seen {
        Seen::Bad(DecodeError::Version { found }) => Some(*found),
        Seen::Bad(_) | Seen::NotYet | Seen::Unreadable | Seen::Record(_) => None,
    });
    match newer {
        Some(version) => Trouble::NewerFormat { node, version },
        None => Trouble::Damaged { node },
    }
}

fn position(node: NodeId, copy: CopyNo) -> usize {
    2 * node.index() + copy.index()
}

/// Whose block it is.
pub(super) fn owner(block: MpBlock) -> (NodeId, CopyNo) {
    let (first, _) = layout::register_run(1);
    let position = block.0 - first.0;
    let id = u16::try_from(position / 2 + 1).expect("at most 64 nodes");
    let copy = if position.is_multiple_of(2) { CopyNo::First } else { CopyNo::Second };
    (NodeId::new(id).expect("a register block belongs to a node"), copy)
}
