//! This mount's slot: its body, its counters, its list of orphans.
//!
//! The counters and the list change only inside the transactions that make them change, under the
//! journal's latch, so that they are exact after a crash. The slot's lock is pinned for the life
//! of the mount.

pub(crate) mod head;

use std::collections::BTreeMap;
use std::sync::Arc;

use lcl::pin::Pin;
use zerocopy::little_endian::{U16, U32, U64};

use crate::cache::{BlockSet, CachedBlock};
use crate::env::Usage;
use crate::file::{FileId, InodeNo};
use crate::journal::transaction::{SlotChanges, Transaction};
use crate::mount::slots::SlotBlocks;
use crate::ondisk::slot::{
    ORPHANS_PER_BLOCK, OrphanBlock, OrphanEntry, SLOT_ORPHANS_MAX, SlotBodyBlock,
};

/// The slot as this mount keeps it in memory.
pub(crate) struct SlotRecord {
    pin: Arc<Pin>,
    set: Arc<BlockSet>,
    block: Arc<CachedBlock>,
    /// Further blocks of orphans, in the order of their list.
    more: Vec<Arc<CachedBlock>>,
    /// Where each orphan stands: place in the slot's block, then in the further ones.
    places: BTreeMap<FileId, usize>,
    free_places: Vec<usize>,
}

impl SlotRecord {
    /// Takes the list over as it is on disk.
    pub(crate) fn new(pin: Pin, blocks: SlotBlocks) -> SlotRecord {
        let SlotBlocks { set, body: block, more } = blocks;
        let mut record = SlotRecord {
            pin: Arc::new(pin),
            set,
            block,
            more,
            places: BTreeMap::new(),
            free_places: Vec::new(),
        };
        let places = SLOT_ORPHANS_MAX + record.more.len() * ORPHANS_PER_BLOCK;
        for place in (0..places).rev() {
            let entry = record.entry(place);
            if entry.inode.get() == 0 {
                record.free_places.push(place);
            } else {
                record.places.insert(file_of(&entry), place);
            }
        }
        record
    }

    pub(crate) fn usage(&self) -> Usage {
        let block = self.block.data();
        let slot: &SlotBodyBlock = block.get();
        Usage { blocks: slot.used_blocks.get(), inodes: slot.used_inodes.get() }
    }

    pub(crate) fn orphans(&self) -> Vec<FileId> {
        self.places.keys().copied().collect()
    }

    pub(crate) fn free_orphan_places(&self) -> usize {
        self.free_places.len()
    }

    /// The proof that the slot is this mount's.
    pub(crate) fn pin(&self) -> Arc<Pin> {
        Arc::clone(&self.pin)
    }

    pub(crate) fn set(&self) -> Arc<BlockSet> {
        Arc::clone(&self.set)
    }

    /// Another block of orphans joins the list.
    fn add_orphan_block(&mut self, block: Arc<CachedBlock>) {
        let first = SLOT_ORPHANS_MAX + self.more.len() * ORPHANS_PER_BLOCK;
        self.more.push(block);
        // Low places first, as everywhere: popped from the end.
        let mut places: Vec<usize> = (first..first + ORPHANS_PER_BLOCK).rev().collect();
        places.append(&mut self.free_places);
        self.free_places = places;
    }

    /// Lays the changes of the slot over its blocks, for a transaction that is about to commit.
    pub(crate) fn stage(&mut self, transaction: &mut Transaction) {
        let SlotChanges { usage, orphans_added: added, orphans_removed: removed, orphan_block } =
            std::mem::take(transaction.change_slot());
        if let Some(new) = orphan_block {
            let at = U64::new(new.number.0);
            match self.more.last() {
                Some(last) => {
                    let last = transaction.change(&self.pin, &self.set, last);
                    last.get_mut::<OrphanBlock>().next = at;
                }
                None => self.slot_mut(transaction).orphan_blocks_head = at,
            }
            self.add_orphan_block(new);
        }
        if usage != Usage::default() {
            let slot = self.slot_mut(transaction);
            slot.used_blocks.set(slot.used_blocks.get() + usage.blocks);
            slot.used_inodes.set(slot.used_inodes.get() + usage.inodes);
        }
        for file in added {
            if self.places.contains_key(&file) {
                // A truncation that a crash cut short had put it there.
                continue;
            }
            let place = self.free_places.pop().expect("room for an orphan was made before");
            let entry = OrphanEntry {
                inode: U64::new(file.inode.0),
                generation: U32::new(file.generation),
                reserved0: U32::ZERO,
            };
            self.set_entry(transaction, place, entry, 1);
            self.places.insert(file, place);
        }
        for file in removed {
            let place = self.places.remove(&file).expect("only an orphan is removed from the list");
            self.set_entry(transaction, place, OrphanEntry::FREE, -1);
            self.free_places.push(place);
        }
    }

    fn slot_mut<'a>(&self, transaction: &'a mut Transaction) -> &'a mut SlotBodyBlock {
        transaction.change(&self.pin, &self.set, &self.block).get_mut()
    }

    fn entry(&self, place: usize) -> OrphanEntry {
        match place.checked_sub(SLOT_ORPHANS_MAX) {
            None => self.block.data().get::<SlotBodyBlock>().orphans[place],
            Some(rest) => {
                let block = self.more[rest / ORPHANS_PER_BLOCK].data();
                block.get::<OrphanBlock>().orphans[rest % ORPHANS_PER_BLOCK]
            }
        }
    }

    fn set_entry(
        &self,
        transaction: &mut Transaction,
        place: usize,
        entry: OrphanEntry,
        change: i32,
    ) {
        match place.checked_sub(SLOT_ORPHANS_MAX) {
            None => {
                let slot = self.slot_mut(transaction);
                slot.orphans[place] = entry;
                let count = i32::from(slot.orphans_count.get()) + change;
                slot.orphans_count = U16::new(u16::try_from(count).expect("counted exactly"));
            }
            Some(rest) => {
                let block = &self.more[rest / ORPHANS_PER_BLOCK];
                let block = transaction.change(&self.pin, &self.set, block);
                let orphans: &mut OrphanBlock = block.get_mut();
                orphans.orphans[rest % ORPHANS_PER_BLOCK] = entry;
                let count = i64::from(orphans.count.get()) + i64::from(change);
                orphans.count = U32::new(u32::try_from(count).expect("counted exactly"));
            }
        }
    }
}

pub(crate) fn file_of(entry: &OrphanEntry) -> FileId {
    FileId { inode: InodeNo(entry.inode.get()), generation: entry.generation.get() }
}
