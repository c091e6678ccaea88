//! Claims of this mount on chunks, and what of them is promised to writes.
//!
//! Keeps true:
//!   * a claim is on disk, in the chunk table, and outlives the group's lock: only the claiming
//!     mount allocates from the chunk, data from a data chunk, nodes of extent trees from a tree
//!     chunk. Claims of a mount that is gone are void: its incarnation is in them;
//!   * of each use no more is promised than the claims have free. A write is answered when it has
//!     promises for all that its flush may take, data and nodes, or not at all; so the flush finds
//!     room whoever fills the device meanwhile;
//!   * who has claims holds SPACE in PR, or has asked for it: there is somebody to ask for what is
//!     claimed and not needed ([`super::give_back`]).

use mx_base::{Incarnation, Member, NodeId, SlotId};
use parking_lot::Mutex;
use zerocopy::little_endian::{U16, U32};

use super::group::{Group, PinnedGroup};
use crate::cache::Step;
use crate::env::MountGroup;
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::ondisk::alloc_group::{ChunkEntry, ChunkKind};

/// What a claimed chunk is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    Data,
    /// Nodes of extent trees.
    Nodes,
}

/// Free blocks in this mount's claims for one use, and how many of them are promised.
#[derive(Debug, Default)]
pub(crate) struct Space(Mutex<Promises>);

#[derive(Debug, Default, Clone, Copy)]
struct Promises {
    claimed_free: i64,
    promised: i64,
    /// How often claimed blocks came, or became free.
    gains: u64,
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
        let promises = &mut *self.0.lock();
        promises.claimed_free += blocks;
        promises.gains += u64::from(blocks > 0);
    }

    /// Changes whenever there may be blocks where there were none: who has found none anywhere looks
    /// again then.
    pub(crate) fn gains(&self) -> u64 {
        self.0.lock().gains
    }

    /// Blocks that writes were promised and that are not allocated yet.
    pub(crate) fn promised(&self) -> u64 {
        u64::try_from(self.0.lock().promised).unwrap_or(0)
    }
}

/// Blocks promised and not used yet; the promise ends with it.
pub(crate) struct Aside<'a> {
    space: &'a Space,
    pub(crate) blocks: u64,
}

impl<'a> Aside<'a> {
    pub(crate) fn nothing(space: &'a Space) -> Aside<'a> {
        Aside { space, blocks: 0 }
    }

    /// Sets so many more aside; false when that many are not there.
    pub(crate) fn try_more(&mut self, blocks: u64) -> bool {
        let more = self.space.try_promise(blocks);
        self.blocks += if more { blocks } else { 0 };
        more
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.space.settle(self.blocks);
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

/// Is the chunk free as a whole, for whatever use? One that is still claimed for data, by a mount that
/// is gone, is too.
pub(crate) fn is_whole(entry: &ChunkEntry, chunk_blocks: u64, mounts: &dyn MountGroup) -> bool {
    match entry.chunk_kind() {
        Some(ChunkKind::Free) => true,
        Some(ChunkKind::Data) => {
            u64::from(entry.free.get()) == chunk_blocks && !is_taken(entry, mounts)
        }
        _ => false,
    }
}

/// Has a mount that lives claimed the chunk? Claims of others are void.
pub(crate) fn is_taken(entry: &ChunkEntry, mounts: &dyn MountGroup) -> bool {
    entry.claimant().is_some_and(|claimant| mounts.is_member(claimant.member))
}

impl Fs {
    /// A claim is committed: its free blocks can be promised.
    pub(super) fn count_claim(&self, group: &Group, of: Use, chunk: u64, free: i64) {
        group.claim(of, chunk, free);
        self.account(of).change(free);
    }

    /// That a claim is given up is committed.
    pub(super) fn discount_claim(&self, group: &Group, of: Use, chunk: u64, free: i64) {
        group.unclaim(of, chunk, free);
        self.account(of).change(-free);
    }
}

impl PinnedGroup {
    /// Claims chunks that nobody has claimed until `want` free blocks are won or the group has no
    /// more: for data whole free chunks first, then what is left over in others; for nodes what is
    /// left over in tree chunks. Returns the chunks with their free blocks.
    pub(crate) fn claim(
        &self,
        fs: &Fs,
        tx: &mut Transaction,
        of: Use,
        want: u64,
    ) -> Step<Vec<(u64, i64)>> {
        let kinds: &[ChunkKind] = match of {
            Use::Data => &[ChunkKind::Free, ChunkKind::Data],
            Use::Nodes => &[ChunkKind::Tree],
        };
        let mut claimed = Vec::new();
        let mut won = 0;
        for kind in kinds {
            for chunk in 0..self.group.geometry.chunks {
                if won >= want {
                    return Ok(claimed);
                }
                let mut entry = self.group.chunk(tx, chunk)?;
                if entry.kind != *kind as u8 || entry.free.get() == 0 || self.group.is_taken(&entry)
                {
                    continue;
                }
                if *kind == ChunkKind::Free {
                    self.group.add_free(tx, &self.pin, 0, -1)?;
                    entry.kind = ChunkKind::Data as u8;
                }
                entry.set_claimant(Some(fs.claimant()));
                self.group.set_chunk(tx, &self.pin, chunk, entry)?;
                claimed.push((chunk, i64::from(entry.free.get())));
                won += u64::from(entry.free.get());
            }
        }
        Ok(claimed)
    }

    /// Gives the claim on a chunk up.
    pub(crate) fn unclaim(&self, tx: &mut Transaction, chunk: u64) -> Step<()> {
        let mut entry = self.group.chunk(tx, chunk)?;
        entry.set_claimant(None);
        let whole = u64::from(entry.free.get()) == self.group.geometry.chunk_blocks;
        if whole && entry.kind == ChunkKind::Data as u8 {
            entry.kind = ChunkKind::Free as u8;
            self.group.add_free(tx, &self.pin, 0, 1)?;
        }
        self.group.set_chunk(tx, &self.pin, chunk, entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_promised_than_the_claims_have_free() {
        let space = Space::default();
        assert!(!space.try_promise(1));
        space.change(10);
        assert!(space.try_promise(7));
        assert!(!space.try_promise(4));
        assert_eq!(space.shortage(4), 1);
        // What is given back is set aside first, so that it cannot be promised meanwhile.
        let mut aside = Aside::nothing(&space);
        assert!(!aside.try_more(4), "promised");
        assert!(aside.try_more(3));
        assert!(!space.try_promise(1));
        space.change(-3);
        drop(aside);
        assert!(!space.try_promise(1));
    }

    #[test]
    fn what_comes_to_the_claims_is_seen_by_who_has_found_nothing() {
        let space = Space::default();
        let before = space.gains();
        space.change(-1);
        assert_eq!(space.gains(), before);
        space.change(1);
        assert_ne!(space.gains(), before);
    }
}
