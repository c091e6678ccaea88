//! Slots: their journals replayed in memory, their lists and counters.

use std::collections::BTreeMap;
use std::sync::Arc;

use mx_base::SlotId;

use super::{Check, CheckError, JOURNAL_BLOCKS_MIN};
use crate::block::BlockNo;
use crate::env::Disk;
use crate::journal::replay::Replay;
use crate::journal::scan::JournalOf;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::slot::{OrphanBlock, OrphanEntry, SlotBodyBlock, SlotState};
use crate::slot::file_of;
use crate::slot::head::SlotHead;

impl Check<'_> {
    /// Brings the overlay to the state that a mount would find after its recovery.
    pub(super) async fn replay_journals(&mut self) -> Result<(), CheckError> {
        let count = self.sb.layout.slot_count;
        let mut replays = Vec::new();
        let mut newest = BTreeMap::new();
        for (slot, head) in SlotHead::read_all(&*self.disk, self.sb.fs_id, &self.sb.layout).await? {
            self.step("journals", slot.0.into(), count.into());
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    self.problem(slot, error);
                    continue;
                }
            };
            for (first, len) in head.extents.iter() {
                self.journals.extend((0..len).map(|i| (slot, first.plus(i))));
            }
            if head.state == SlotState::Clean {
                self.check_clean(&head.journal(self.sb.fs_id)).await;
            }
            if head.state != SlotState::Live {
                continue;
            }
            self.report.slots_replayed += 1;
            let writer = head.writer();
            let scan = match head.journal(self.sb.fs_id).scan(&*self.disk).await {
                Ok(scan) => scan,
                Err(error) => {
                    self.problem(slot, error);
                    continue;
                }
            };
            let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
            let replay = Replay::new(disk, self.sb.fs_id, writer, scan);
            replay.add_newest(&mut newest);
            replays.push((slot, replay));
        }
        for (slot, replay) in replays {
            let redo = replay.rebuild(&replay.locks(), &newest).await;
            for lock in &redo.damaged {
                self.problem(slot, format!("journal does not reach back far enough for {lock:?}"));
            }
            for lock in &redo.doubtful {
                let what = format!("nothing says whether the journal has the newest of {lock:?}");
                self.problem(slot, what);
            }
            // In memory.
            replay.write(redo.changed).await?;
        }
        Ok(())
    }

    /// Nobody can take a slot whose journal has no header.
    async fn check_clean(&mut self, of: &JournalOf) {
        let blocks = of.extents.blocks();
        if blocks == 0 {
            return;
        }
        if blocks < JOURNAL_BLOCKS_MIN {
            self.problem(of.slot, format!("has a journal of {blocks} blocks"));
        } else if let Err(error) = of.start(&*self.disk).await {
            self.problem(of.slot, error);
        }
    }

    /// Lists of orphans, counters, and the blocks of the journals.
    pub(super) async fn read_slots(&mut self) -> Result<(), CheckError> {
        for (slot, at) in std::mem::take(&mut self.journals) {
            self.use_block(slot, at, ChunkKind::Journal);
        }
        for slot in (0..self.sb.layout.slot_count).map(SlotId) {
            let at = self.sb.layout.slot_body(slot);
            let body = match self.read(at, Kind::SlotBody, Owner::plain(slot.0.into())).await {
                Ok(block) => *block.get::<SlotBodyBlock>(),
                Err(corruption) => {
                    self.problem(slot, corruption);
                    continue;
                }
            };
            self.usage.blocks += body.used_blocks.get();
            self.usage.inodes += body.used_inodes.get();
            let listed = self.list_orphans(slot, &body.orphans);
            if listed != u64::from(body.orphans_count.get()) {
                let counted = body.orphans_count.get();
                self.problem(slot, format!("counts {counted} orphans, lists {listed}"));
            }
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
