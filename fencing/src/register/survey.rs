//! What a starting node learns from the register before it may use it.
//!
//! A node must register a new life on the storage side before its first ballot (R5), and needs an
//! incarnation for that, while incarnations are given out by the register. So it looks at the
//! records without a ballot and takes a number above all it sees. That is a guess: the register
//! and the storage side refuse a number that was used, and then the next one is tried.

use mx_base::{ClusterId, Incarnation, Member, NodeId, SanGeneration};

use super::scan::owner;
use crate::key::is_life;
use crate::layout::{self, MpBlock, MpIndex};
use crate::ondisk::Block;
use crate::ondisk::register::{RegisterRecord, place};
use crate::reg_val::RegVal;

/// The newest of everything that readable records show, committed or not.
#[derive(Clone, Debug)]
pub struct Survey {
    cluster: ClusterId,
    nodes_max: u16,
    newest: [u32; NodeId::MAX as usize],
    latest: RegVal,
}

impl Survey {
    pub fn new(cluster: ClusterId, nodes_max: u16) -> Survey {
        let newest = [0; NodeId::MAX as usize];
        Survey { cluster, nodes_max, newest, latest: RegVal::initial() }
    }

    /// Adds register blocks from `at` on. Damaged ones are passed over.
    pub fn add(&mut self, partition: MpIndex, at: MpBlock, blocks: &[Block]) {
        let (first, count) = layout::register_run(self.nodes_max);
        for (block, number) in blocks.iter().zip(at.0..) {
            if number < first.0 || number >= first.0 + count {
                continue;
            }
            let (node, copy) = owner(MpBlock(number));
            let place = place(self.cluster, partition, node, copy);
            let Ok(record) = RegisterRecord::decode(block, node, place) else { continue };
            for (newest, seen) in self.newest.iter_mut().zip(record.value.incarnations.as_array()) {
                *newest = (*newest).max(*seen);
            }
            if record.value.generation() > self.latest.generation() {
                self.latest = record.value;
            }
        }
    }

    /// A life of `node` that is newer than all that were seen, here or by the storage side
    /// (`beyond`); `None` when the numbers are used up.
    pub fn next_life(&self, node: NodeId, beyond: Incarnation) -> Option<Member> {
        let newest = self.newest[node.index()].max(beyond.0);
        let incarnation = Incarnation(newest.checked_add(1)?);
        is_life(incarnation).then_some(Member { node, incarnation })
    }

    /// Newest generation that was written, committed or not.
    pub fn generation(&self) -> SanGeneration {
        self.latest.generation()
    }

    /// Who may be in the cluster, to be asked to let this node join. A hint: the value it comes
    /// from may not be committed.
    pub fn members(&self) -> Vec<Member> {
        self.latest.members()
    }
}
