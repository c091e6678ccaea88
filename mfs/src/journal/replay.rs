//! Redoing what a dead slot's journal holds and the disk does not.
//!
//! Keeps true: a block is written only if the lock that covers it is in limbo on the dead member's
//! account (nobody else can have changed it since), and only with a newer version than is in
//! place; so replaying twice is replaying once. If a record of a transaction cannot be applied,
//! none of the locks that the transaction touched is replayed: they are reported as damaged, and
//! so on for every transaction that shares a lock with those (never half a rename).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use lcl::ResourceName;
use mx_base::FsId;

use super::record::Record;
use super::scan::Scan;
use crate::block::{Block, BlockNo};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;
use crate::ondisk::header::{self, Header, Writer};
use crate::ondisk::journal::RecordKind;

/// Blocks in flight at once.
const BATCH: usize = 256;

/// A scan set against what is in place.
pub(crate) struct Replay {
    fs_id: FsId,
    /// The dead slot: its blocks are written in its name.
    writer: Writer,
    disk: Arc<dyn Disk>,
    scan: Scan,
    /// The lock that covers a block after its last record.
    lock_of: BTreeMap<BlockNo, ResourceName>,
}

/// What was done for some locks.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Redone {
    pub(crate) blocks_written: u64,
    /// Locks whose objects have to be isolated.
    pub(crate) damaged: BTreeSet<ResourceName>,
}

impl Replay {
    pub(crate) fn new(disk: Arc<dyn Disk>, fs_id: FsId, writer: Writer, scan: Scan) -> Replay {
        let records = scan.transactions.iter().flat_map(|t| &t.records);
        let lock_of = records.map(|r| (r.block, r.lock)).collect();
        Replay { fs_id, writer, disk, scan, lock_of }
    }

    /// Locks with blocks that are older in place than in the journal. A block that cannot be read
    /// counts: it may have been torn by the dead member's last write.
    pub(crate) async fn live(&self) -> BTreeSet<ResourceName> {
        let newest = self.scan.newest();
        let numbers: Vec<BlockNo> = newest.keys().copied().collect();
        let mut live = BTreeSet::new();
        for batch in numbers.chunks(BATCH) {
            let in_place = self.read(batch).await;
            for (number, block) in batch.iter().zip(in_place) {
                let version = block.map(|b| Header::of(&b).version());
                if version.is_none_or(|v| v < newest[number]) {
                    live.insert(self.lock_of[number]);
                }
            }
        }
        live
    }

    /// Every lock that the journal speaks of.
    pub(crate) fn locks(&self) -> BTreeSet<ResourceName> {
        self.lock_of.values().copied().collect()
    }

    /// Brings the blocks covered by `limbo` up to date in place, durably.
    ///
    /// # Errors
    /// When a block could not be written. Locks whose blocks cannot be rebuilt are no error here
    /// but part of the answer.
    pub(crate) async fn redo(&self, limbo: &BTreeSet<ResourceName>) -> Result<Redone, DiskError> {
        let mut chains: BTreeMap<BlockNo, Vec<&Record>> = BTreeMap::new();
        for record in self.scan.transactions.iter().flat_map(|t| &t.records) {
            if limbo.contains(&self.lock_of[&record.block]) {
                chains.entry(record.block).or_default().push(record);
            }
        }
        let mut changed: BTreeMap<BlockNo, Box<Block>> = BTreeMap::new();
        let mut broken: BTreeSet<BlockNo> = BTreeSet::new();
        let numbers: Vec<BlockNo> = chains.keys().copied().collect();
        for batch in numbers.chunks(BATCH) {
            for (number, in_place) in batch.iter().zip(self.read(batch).await) {
                match rebuild(in_place, &chains[number]) {
                    Rebuilt::Unchanged => {}
                    Rebuilt::Changed(block) => {
                        changed.insert(*number, block);
                    }
                    Rebuilt::Broken => {
                        tracing::error!(block = number.0, "journal does not reach back far enough");
                        broken.insert(*number);
                    }
                }
            }
        }
        let damaged = self.tainted(&broken);
        changed.retain(|number, _| !damaged.contains(&self.lock_of[number]));
        let blocks_written = changed.len() as u64;
        self.write(changed).await?;
        Ok(Redone { blocks_written, damaged })
    }

    /// Locks that share a transaction with a broken block, directly or over others.
    fn tainted(&self, broken: &BTreeSet<BlockNo>) -> BTreeSet<ResourceName> {
        let mut tainted: BTreeSet<ResourceName> =
            broken.iter().map(|number| self.lock_of[number]).collect();
        loop {
            let before = tainted.len();
            for transaction in &self.scan.transactions {
                let locks = transaction.records.iter().map(|r| self.lock_of[&r.block]);
                if locks.clone().any(|lock| tainted.contains(&lock)) {
                    tainted.extend(locks);
                }
            }
            if tainted.len() == before {
                return tainted;
            }
        }
    }

    /// The blocks in place, `None` where one is unreadable or not whole.
    async fn read(&self, numbers: &[BlockNo]) -> Vec<Option<Box<Block>>> {
        let reads = numbers.iter().map(|number| self.disk.read(*number, 1)).collect::<Vec<_>>();
        let blocks = join_all(reads).await;
        let checked = numbers.iter().zip(blocks).map(|(number, read)| {
            let block = Box::new(read.ok()?.into_vec().pop()?);
            header::check(&block, self.fs_id, *number).ok()?;
            Some(block)
        });
        checked.collect()
    }

    async fn write(&self, blocks: BTreeMap<BlockNo, Box<Block>>) -> Result<(), DiskError> {
        if blocks.is_empty() {
            return Ok(());
        }
        let mut requests = Vec::new();
        for (number, mut block) in blocks {
            header::seal(&mut block, self.writer);
            let data = WriteData::Blocks(vec![block.into()]);
            requests.push(self.disk.write(number, data, Durability::Volatile));
            if requests.len() == BATCH {
                let done = join_all(std::mem::take(&mut requests)).await;
                done.into_iter().collect::<Result<(), _>>()?;
            }
        }
        join_all(requests).await.into_iter().collect::<Result<(), _>>()?;
        self.disk.flush().await
    }
}

enum Rebuilt {
    Unchanged,
    Changed(Box<Block>),
    Broken,
}

/// Applies what is newer than the block in place, in order.
fn rebuild(in_place: Option<Box<Block>>, chain: &[&Record]) -> Rebuilt {
    let mut block = in_place;
    let mut changed = false;
    for record in chain {
        let version = block.as_ref().map(|b| Header::of(b).version());
        if version.is_some_and(|v| v >= record.new_version) {
            continue;
        }
        let base = match record.kind {
            RecordKind::Image => Block::zeroed(),
            RecordKind::Delta => match block.take() {
                Some(base) if version == Some(record.old_version) => base,
                _ => return Rebuilt::Broken,
            },
        };
        let mut next = base;
        record.lay_over(&mut next);
        block = Some(next);
        changed = true;
    }
    match block {
        Some(block) if changed => Rebuilt::Changed(block),
        Some(_) => Rebuilt::Unchanged,
        None => Rebuilt::Broken,
    }
}
