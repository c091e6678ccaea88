//! Metadata blocks cached under one lock, with what the journal has to know of each.
//!
//! Keeps true between calls:
//!   * a block is found only through the set of the lock that covers it (I1), and the set is
//!     filled only while that lock is held;
//!   * `data` is the block after the last committed transaction that changed it, never half of
//!     one;
//!   * a block with records that are not in place (`chain`) is dirty and stays in its set;
//!   * at most one write in place of a block is under way.
//!
//! Does no I/O.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{BlockNo, SharedBlock};
use crate::journal::{Lsn, SegmentNo};
use crate::locks::Resource;
use crate::ondisk::Header;

/// The blocks cached under one lock.
pub(crate) struct BlockSet {
    resource: Resource,
    blocks: Mutex<BTreeMap<BlockNo, Arc<CachedBlock>>>,
}

impl BlockSet {
    pub(crate) fn new(resource: Resource) -> Arc<BlockSet> {
        Arc::new(BlockSet { resource, blocks: Mutex::default() })
    }

    pub(crate) fn resource(&self) -> Resource {
        self.resource
    }

    pub(crate) fn get(&self, number: BlockNo) -> Option<Arc<CachedBlock>> {
        self.blocks.lock().get(&number).cloned()
    }

    /// A block as it was read; if somebody was quicker, theirs counts.
    pub(crate) fn insert_read(&self, number: BlockNo, data: SharedBlock) -> Arc<CachedBlock> {
        let mut blocks = self.blocks.lock();
        Arc::clone(blocks.entry(number).or_insert_with(|| CachedBlock::new(number, data)))
    }

    /// A block that comes from another set with its history.
    pub(crate) fn adopt(&self, block: &Arc<CachedBlock>) {
        self.blocks.lock().insert(block.number, Arc::clone(block));
    }

    pub(crate) fn remove(&self, number: BlockNo) {
        self.blocks.lock().remove(&number);
    }

    pub(crate) fn dirty(&self) -> Vec<Arc<CachedBlock>> {
        self.blocks.lock().values().filter(|b| b.is_dirty()).cloned().collect()
    }

    /// Forgets everything; the lock is about to go.
    ///
    /// # Panics
    /// When a block is dirty (I2), unless `damaged`: then its changes are lost by decision.
    pub(crate) fn purge(&self, damaged: bool) {
        let mut blocks = self.blocks.lock();
        for block in blocks.values() {
            assert!(
                damaged || !block.is_dirty(),
                "{:?} is given up while block {} is not in place",
                self.resource,
                block.number
            );
        }
        blocks.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.lock().len()
    }
}

impl fmt::Debug for BlockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockSet({:?}, {} blocks)", self.resource, self.len())
    }
}

/// One cached block.
pub(crate) struct CachedBlock {
    pub(crate) number: BlockNo,
    pub(crate) state: Mutex<BlockState>,
}

/// What the journal knows of a cached block.
pub(crate) struct BlockState {
    pub(crate) data: SharedBlock,
    /// The last transaction that changed it; 0 since it was read.
    pub(crate) lsn: Lsn,
    /// The next record has to be a whole image: the block was read anew, or a write in place has
    /// begun since the last image and may be torn.
    pub(crate) image_next: bool,
    /// First segment with a record that is not in place yet.
    pub(crate) chain: Option<SegmentNo>,
    /// First segment with a record made since the write in place that is under way began.
    pub(crate) chain_next: Option<SegmentNo>,
    pub(crate) writing: bool,
}

impl CachedBlock {
    pub(crate) fn new(number: BlockNo, data: SharedBlock) -> Arc<CachedBlock> {
        let state = BlockState {
            data,
            lsn: Lsn::NONE,
            image_next: true,
            chain: None,
            chain_next: None,
            writing: false,
        };
        Arc::new(CachedBlock { number, state: Mutex::new(state) })
    }

    /// The block after the last committed transaction.
    pub(crate) fn data(&self) -> SharedBlock {
        self.state.lock().data.clone()
    }

    pub(crate) fn is_dirty(&self) -> bool {
        let state = self.state.lock();
        state.chain.is_some() || state.writing
    }

    pub(crate) fn version(&self) -> u64 {
        Header::of(&self.state.lock().data).version()
    }
}

impl fmt::Debug for CachedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedBlock({} v{})", self.number, self.version())
    }
}
