//! Slots: their journals replayed in memory, their lists and counters.

use std::sync::Arc;

use mx_base::{Incarnation, SlotId};

use super::{Check, CheckError};
use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::journal::replay::Replay;
use crate::journal::ring::Extents;
use crate::journal::scan::JournalOf;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{Kind, Owner, Writer};
use crate::ondisk::slot::{
    JOURNAL_EXTENTS_MAX, OrphanBlock, OrphanEntry, SLOT_ORPHANS_MAX, SlotBlock, SlotState,
};
use crate::slot::file_of;

impl Check<'_> {
    async fn slot(&mut self, slot: SlotId) -> Option<Box<Block>> {
        let at = self.sb.layout.slot_block(slot);
        match self.read(at, Kind::Slot, Owner::plain(slot.0.into())).await {
            Ok(block) => Some(block),
            Err(corruption) => {
                self.problem(slot, corruption);
                None
            }
        }
    }

    /// The journal of a slot, if its extents can be.
    fn extents(&mut self, slot: SlotId, body: &SlotBlock) -> Option<Extents> {
        let count = usize::from(body.journal_extents_count.get());
        if count > JOURNAL_EXTENTS_MAX {
            self.problem(slot, format!("has {count} journal extents"));
            return None;
        }
        let mut extents = Vec::new();
        for extent in &body.journal_extents[..count] {
            let (first, len) = (BlockNo(extent.start.get()), u64::from(extent.blocks.get()));
            let group = self.sb.layout.group_of(first);
            if len == 0 || group.is_none() || group != self.sb.layout.group_of(first.plus(len - 1))
            {
                self.problem(slot, format!("journal extent at block {first} is impossible"));
                return None;
            }
            extents.push((first, len));
        }
        Some(Extents::new(extents))
    }

    /// Brings the overlay to the state that a mount would find after its recovery.
    pub(super) async fn replay_journals(&mut self) -> Result<(), CheckError> {
        let count = self.sb.layout.slot_count;
        for n in 0..count {
            self.step("journals", n.into(), count.into());
            let slot = SlotId(n);
            let at = self.sb.layout.slot_block(slot);
            // Problems are told when the slots are read.
            let Ok(block) = self.read(at, Kind::Slot, Owner::plain(n.into())).await else {
                continue;
            };
            let body: SlotBlock = *block.get();
            if SlotState::from_u8(body.state) != Some(SlotState::Live) {
                continue;
            }
            self.report.slots_replayed += 1;
            let Some(extents) = self.extents(slot, &body) else { continue };
            let of = JournalOf { fs_id: self.sb.fs_id, slot, extents };
            let scan = match of.scan(&*self.disk).await {
                Ok(scan) => scan,
                Err(error) => {
                    self.problem(slot, error);
                    continue;
                }
            };
            let writer = Writer { slot, incarnation: Incarnation(body.incarnation.get()) };
            let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
            let replay = Replay::new(disk, self.sb.fs_id, writer, scan);
            let redone = replay.redo(&replay.locks()).await?;
            for lock in &redone.damaged {
                self.problem(slot, format!("journal does not reach back far enough for {lock:?}"));
            }
        }
        Ok(())
    }

    /// Lists of orphans, counters, and the blocks of the journals.
    pub(super) async fn read_slots(&mut self) -> Result<(), CheckError> {
        for n in 0..self.sb.layout.slot_count {
            let slot = SlotId(n);
            let Some(block) = self.slot(slot).await else { continue };
            let body: SlotBlock = *block.get();
            if SlotState::from_u8(body.state).is_none() {
                self.problem(slot, format!("is in unknown state {}", body.state));
            }
            self.usage.blocks += body.used_blocks.get();
            self.usage.inodes += body.used_inodes.get();
            if let Some(extents) = self.extents(slot, &body) {
                for (first, len) in extents.iter() {
                    for i in 0..len {
                        self.use_block(slot, first.plus(i), ChunkKind::Journal);
                    }
                }
            }
            let listed = self.list_orphans(slot, &body.orphans);
            if listed != u64::from(body.orphans_count.get()) {
                let counted = body.orphans_count.get();
                self.problem(slot, format!("counts {counted} orphans, lists {listed}"));
            }
            debug_assert_eq!(body.orphans.len(), SLOT_ORPHANS_MAX);
            let mut next = body.orphan_blocks_head.get();
            let mut blocks = 0;
            while next != 0 && blocks < 4096 {
                let at = BlockNo(next);
                let owner = Owner::plain(slot.0.into());
                let block = match self.read(at, Kind::Orphans, owner).await {
                    Ok(block) => block,
                    Err(corruption) => {
                        self.problem(slot, corruption);
                        break;
                    }
                };
                self.use_block(slot, at, ChunkKind::Tree);
                let body: OrphanBlock = *block.get();
                let listed = self.list_orphans(slot, &body.orphans);
                if listed != u64::from(body.count.get()) {
                    let counted = body.count.get();
                    self.problem(slot, format!("counts {counted} orphans in {at}, lists {listed}"));
                }
                next = body.next.get();
                blocks += 1;
            }
        }
        self.report.orphans = self.orphans.len() as u64;
        Ok(())
    }

    fn list_orphans(&mut self, slot: SlotId, entries: &[OrphanEntry]) -> u64 {
        let mut listed = 0;
        for entry in entries.iter().filter(|e| e.inode.get() != 0) {
            listed += 1;
            let file = file_of(entry);
            if !self.orphans.insert(file) {
                self.problem(slot, format!("orphan {file:?} is listed twice"));
            }
        }
        listed
    }
}
