//! Claims of this mount on data chunks, and what of them is promised to writes.
//!
//! A claim is on disk, in the chunk table, and outlives the group's lock: only the claiming mount
//! allocates from the chunk. A write reserves blocks before it is acknowledged, so that the flush
//! that follows finds room whoever fills the device meanwhile. Claims of a mount that is gone are
//! void: its incarnation is in them.

use mx_base::{Incarnation, Member, NodeId, SlotId};
use parking_lot::Mutex;
use zerocopy::little_endian::{U16, U32};

use super::group::PinnedGroup;
use crate::cache::Step;
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::ondisk::alloc_group::{ChunkEntry, ChunkKind};

/// Free blocks in this mount's claims, and how many of them are promised.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Promises>);

#[derive(Debug, Default, Clone, Copy)]
struct Promises {
    claimed_free: i64,
    promised: i64,
}

impl Space {
    /// Promises `blocks`, if the claims hold that many.
    pub(crate) fn try_promise(&self, blocks: u64) -> bool {
        let promises = &mut *self.0.lock();
        let blocks = signed(blocks);
        if promises.claimed_free - promises.promised < blocks {
            return false;
        }
        promises.promised += blocks;
        true
    }

    /// A promise was kept or is not needed any more.
    pub(crate) fn settle(&self, blocks: u64) {
        let promises = &mut *self.0.lock();
        promises.promised -= signed(blocks);
        assert!(promises.promised >= 0, "a promise is settled once");
    }

    /// Blocks that more claims would have to bring before `blocks` can be promised.
    pub(crate) fn shortage(&self, blocks: u64) -> u64 {
        let promises = *self.0.lock();
        let short = signed(blocks) + promises.promised - promises.claimed_free;
        u64::try_from(short).unwrap_or(0)
    }

    /// Claimed blocks became used (negative) or free.
    pub(crate) fn change(&self, blocks: i64) {
        self.0.lock().claimed_free += blocks;
    }

    /// Blocks that writes were promised and that are not allocated yet.
    pub(crate) fn promised(&self) -> u64 {
        u64::try_from(self.0.lock().promised).unwrap_or(0)
    }
}

pub(super) fn signed(blocks: u64) -> i64 {
    i64::try_from(blocks).expect("a device has fewer blocks")
}

/// Who has claimed a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claimant {
    pub(crate) slot: SlotId,
    pub(crate) member: Member,
}

impl ChunkEntry {
    pub(crate) fn claimant(&self) -> Option<Claimant> {
        if self.claim_slot.get() == ChunkEntry::UNCLAIMED {
            return None;
        }
        let node = NodeId::new(self.claim_node.get())?;
        let incarnation = Incarnation(self.claim_incarnation.get());
        let member = Member { node, incarnation };
        Some(Claimant { slot: SlotId(self.claim_slot.get()), member })
    }

    pub(crate) fn set_claimant(&mut self, claimant: Option<Claimant>) {
        let Some(claimant) = claimant else {
            self.claim_slot = U16::new(ChunkEntry::UNCLAIMED);
            self.claim_node = U16::ZERO;
            self.claim_incarnation = U32::ZERO;
            return;
        };
        self.claim_slot = U16::new(claimant.slot.0);
        self.claim_node = U16::new(claimant.member.node.get());
        self.claim_incarnation = U32::new(claimant.member.incarnation.0);
    }
}

impl PinnedGroup {
    /// Claims chunks for data until `want` free blocks are won or the group has no more: whole
    /// free chunks first, then what is left over in others. Returns the chunks with their free
    /// blocks.
    pub(crate) fn claim_data(
        &self,
        fs: &Fs,
        tx: &mut Transaction,
        want: u64,
    ) -> Step<Vec<(u64, i64)>> {
        let mut claimed = Vec::new();
        let mut won = 0;
        for kind in [ChunkKind::Free, ChunkKind::Data] {
            for chunk in 0..self.group.geometry.chunks {
                if won >= want {
                    return Ok(claimed);
                }
                let mut entry = self.group.chunk(tx, chunk)?;
                if entry.kind != kind as u8 || entry.free.get() == 0 || is_taken(fs, &entry) {
                    continue;
                }
                if kind == ChunkKind::Free {
                    self.group.add_free(tx, &self.pin, 0, -1)?;
                }
                entry.kind = ChunkKind::Data as u8;
                entry.set_claimant(Some(fs.claimant()));
                self.group.set_chunk(tx, &self.pin, chunk, entry)?;
                claimed.push((chunk, i64::from(entry.free.get())));
                won += u64::from(entry.free.get());
            }
        }
        Ok(claimed)
    }

    /// Gives the claim on a chunk up.
    pub(crate) fn unclaim_data(&self, tx: &mut Transaction, chunk: u64) -> Step<()> {
        let mut entry = self.group.chunk(tx, chunk)?;
        entry.set_claimant(None);
        if u64::from(entry.free.get()) == self.group.geometry.chunk_blocks {
            entry.kind = ChunkKind::Free as u8;
            self.group.add_free(tx, &self.pin, 0, 1)?;
        }
        self.group.set_chunk(tx, &self.pin, chunk, entry)
    }
}

/// Has a mount that lives claimed the chunk, this one included?
fn is_taken(fs: &Fs, entry: &ChunkEntry) -> bool {
    entry.claimant().is_some_and(|claimant| fs.env.group.is_member(claimant.member))
}
