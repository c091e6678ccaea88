//! statfs: what is free, without walking the disk and without a lock.
//!
//! Every slot counts what its transactions took and gave back (`docs/decisions/`); the sum over
//! all slots is what is in use.

use std::sync::Arc;

use mx_base::{Duration, Instant, SlotId};
use parking_lot::Mutex;

use crate::env::Usage;
use crate::error::FsError;
use crate::fs::Fs;
use crate::mkfs;
use crate::ondisk::directory::NAME_MAX;
use crate::ondisk::header;
use crate::ondisk::slot::SlotBodyBlock;

/// How long the counters of slots that nobody has announced are kept before they are read again.
const KEPT: Duration = Duration::from_secs(10);

/// Slots read at once.
const READ_SLOTS: u16 = 64;

/// Space and inodes, in units of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Statfs {
    pub blocks: u64,
    pub blocks_free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub name_max: u32,
}

/// Usage of all slots as it was last read from disk.
#[derive(Debug, Default)]
pub(crate) struct SlotUsage(Mutex<Option<(Instant, UsageBySlot)>>);

type UsageBySlot = Vec<(SlotId, Usage)>;

impl Fs {
    /// Usage of the whole file system.
    ///
    /// # Errors
    /// When the slots cannot be read.
    #[expect(clippy::cast_possible_truncation, reason = "255")]
    pub async fn statfs(self: &Arc<Self>) -> Result<Statfs, FsError> {
        let mine = self.journal.slot();
        let announced = self.env.group.announced_usage();
        let mut used = Usage { blocks: mkfs::USED_BLOCKS, inodes: mkfs::USED_INODES };
        let mut add = |usage: Usage| {
            used.blocks += usage.blocks;
            used.inodes += usage.inodes;
        };
        add(self.journal.usage());
        for (slot, usage) in self.slots_on_disk().await? {
            let newer = announced.iter().find(|(s, _)| *s == slot).map(|(_, usage)| *usage);
            if slot != mine {
                add(newer.unwrap_or(usage));
            }
        }
        let blocks = self.layout.usable_blocks();
        let used_blocks = u64::try_from(used.blocks).unwrap_or(0) + self.space.promised();
        let blocks_free = blocks.saturating_sub(used_blocks);
        let used_inodes = u64::try_from(used.inodes).unwrap_or(0);
        // Every free block may become an inode.
        Ok(Statfs {
            blocks,
            blocks_free,
            inodes: used_inodes + blocks_free,
            inodes_free: blocks_free,
            name_max: NAME_MAX as u32,
        })
    }

    async fn slots_on_disk(&self) -> Result<Vec<(SlotId, Usage)>, FsError> {
        let now = self.env.runtime.now();
        if let Some((read, usage)) = &*self.slot_usage.0.lock()
            && now.since(*read) < KEPT
        {
            return Ok(usage.clone());
        }
        let mut usage = Vec::new();
        let mut next = 0;
        while next < self.layout.slot_count {
            let count = READ_SLOTS.min(self.layout.slot_count - next);
            let first = self.layout.slot_body(SlotId(next));
            let blocks = self.env.disk.read(first, usize::from(count)).await?;
            let mut used = false;
            for (slot, block) in (next..).map(SlotId).zip(&blocks) {
                // One that is being written may be torn; it is read again next time.
                if header::check(block, self.fs_id, self.layout.slot_body(slot)).is_ok() {
                    let body: &SlotBodyBlock = block.get();
                    let (blocks, inodes) = (body.used_blocks.get(), body.used_inodes.get());
                    used |= body.header.version.get() > 1;
                    if (blocks, inodes) != (0, 0) {
                        usage.push((slot, Usage { blocks, inodes }));
                    }
                }
            }
            if !used {
                // Slots are taken from the front.
                break;
            }
            next += count;
        }
        *self.slot_usage.0.lock() = Some((now, usage.clone()));
        Ok(usage)
    }
}
