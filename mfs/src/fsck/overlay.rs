//! A device with changes that stay in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mx_base::BoxFuture;
use parking_lot::Mutex;

use crate::block::{Block, BlockNo, as_usize};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;

/// Reads what was written here, else what is below; nothing reaches the device below.
pub struct Overlay {
    below: Arc<dyn Disk>,
    changed: Arc<Mutex<BTreeMap<BlockNo, Box<Block>>>>,
}

impl Overlay {
    pub fn new(below: Arc<dyn Disk>) -> Overlay {
        Overlay { below, changed: Arc::default() }
    }

    /// The device without the changes.
    pub(crate) fn below(&self) -> &Arc<dyn Disk> {
        &self.below
    }

    pub(crate) fn put(&self, at: BlockNo, block: Box<Block>) {
        self.changed.lock().insert(at, block);
    }

    /// What was written here.
    pub(crate) fn changed(&self) -> BTreeMap<BlockNo, Box<Block>> {
        self.changed.lock().clone()
    }
}

impl Disk for Overlay {
    fn blocks(&self) -> u64 {
        self.below.blocks()
    }

    fn read(
        &self,
        at: BlockNo,
        count: usize,
    ) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        let below = self.below.read(at, count);
        let changed = Arc::clone(&self.changed);
        Box::pin(async move {
            let below = below.await;
            let changed = changed.lock();
            let changed = changed.range(at..BlockNo(at.0.saturating_add(count as u64)));
            let mut blocks = match below {
                // What is below does not matter.
                Err(_) if changed.clone().count() == count => Block::zeroed_many(count),
                below => below?,
            };
            for (number, block) in changed {
                blocks[as_usize(number.0 - at.0)] = Block::clone(block);
            }
            Ok(blocks)
        })
    }

    fn write(
        &self,
        at: BlockNo,
        data: WriteData,
        _durability: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        let mut changed = self.changed.lock();
        for (i, block) in data.iter().enumerate() {
            changed.insert(at.plus(i as u64), Box::new(block.clone()));
        }
        drop(changed);
        Box::pin(std::future::ready(Ok(())))
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overlay").field("changed", &self.changed.lock().len()).finish()
    }
}
