//! What a mount has in memory and has done, for administrators and for tests that count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::block::BLOCK_SIZE;
use crate::file::InodeNo;
use crate::fs::Fs;

/// Of one mount, since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Allocation groups of the file system.
    pub groups: u64,
    /// Those that this mount has looked into.
    pub groups_known: u64,
    /// Room for transactions in the journal, bytes.
    pub journal_bytes: u64,
    pub journal_used_bytes: u64,
    pub cached_inodes: u64,
    pub transactions: u64,
    /// Segments written to the journal and made durable.
    pub forces: u64,
    /// Blocks written in place.
    pub blocks_in_place: u64,
    pub checkpoints: u64,
}

impl Fs {
    /// Blocks of an object, data and metadata, that are not in place yet; `None` when nothing of it
    /// is in memory.
    pub fn unwritten(&self, inode: InodeNo) -> Option<u64> {
        // Looked at in the map: a reference would keep it from being forgotten.
        let inodes = self.inodes.lock();
        let inode = inodes.get(&inode)?;
        let pages = inode.state.lock().pages.dirty_len();
        Some((pages + inode.set.dirty().len()) as u64)
    }

    pub fn statistics(self: &Arc<Self>) -> Statistics {
        let counters = &self.journal.counters;
        let (ring, used) = self.journal.room();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            groups: self.layout.group_count,
            groups_known: self.known_groups().len() as u64,
            journal_bytes: ring * BLOCK_SIZE as u64,
            journal_used_bytes: used * BLOCK_SIZE as u64,
            cached_inodes: self.inodes.lock().len() as u64,
            transactions: count(&counters.transactions),
            forces: count(&counters.forces),
            blocks_in_place: count(&counters.blocks_in_place),
            checkpoints: count(&counters.checkpoints),
        }
    }
}
