//! Files whose block on the medium may be damaged: from then on each operation on one of them gives
//! what was written, or a typed error; nothing else is harmed, and no wrong data is ever returned.
//!
//! A victim is a counter in the inode's own block, which has a checksum.

use std::collections::BTreeSet;

use mfs::FsError;
use mfs::error::DiskError;
use mfs::file::{FileId, InodeNo};
use parking_lot::Mutex;

use super::{App, READ, WRITE, Work};
use crate::fleet::chain::Chain;

/// Where the number lies: in the inode's block.
const AT: u64 = 16;

/// A file that may be damaged.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) chain: Chain<u64>,
    pub(super) file: Option<FileId>,
    is_damaged: bool,
}

impl Victim {
    pub(super) fn new() -> Victim {
        Victim { chain: Chain::new(0), file: None, is_damaged: false }
    }
}

impl Work {
    /// The block of a victim is damaged from now on; where it is.
    pub fn damage(&self, victim: usize) -> Option<InodeNo> {
        let victim = &mut *self.victims.get(victim)?.lock();
        victim.is_damaged = true;
        victim.file.map(|file| file.inode)
    }

    /// What may be isolated by now, as a check of the device calls it.
    pub fn damaged(&self) -> BTreeSet<String> {
        let victims = self.victims.iter().map(Mutex::lock);
        let damaged = victims.filter(|victim| victim.is_damaged);
        damaged.filter_map(|victim| Some(format!("inode {}", victim.file?.inode))).collect()
    }
}

/// Says that the object is isolated, or that the device does not give it.
fn is_isolation(error: &FsError) -> bool {
    matches!(
        error,
        FsError::Corrupt(_) | FsError::Damaged | FsError::Disk(DiskError::Failed { .. })
    )
}

impl App {
    pub(super) async fn victim(&self) -> Result<(), FsError> {
        let i = self.draw(self.work.victims.len());
        let done = self.use_victim(i).await;
        self.pardon(i, done)
    }

    pub(super) async fn read_victims(&self) -> Result<(), FsError> {
        for i in 0..self.work.victims.len() {
            let done = self.read_victim(i).await.map(|_| ());
            self.pardon(i, done)?;
        }
        Ok(())
    }

    /// Errors of a file that is damaged are what they have to be.
    fn pardon(&self, i: usize, done: Result<(), FsError>) -> Result<(), FsError> {
        let mut victim = self.work.victims[i].lock();
        match done {
            Err(error) if victim.is_damaged && is_isolation(&error) => {
                victim.chain.release(self.id());
                Ok(())
            }
            done => done,
        }
    }

    async fn use_victim(&self, i: usize) -> Result<(), FsError> {
        let victim = &self.work.victims[i];
        let writes = self.chance(50) && victim.lock().chain.take(self.id());
        if !writes {
            return self.read_victim(i).await.map(|_| ());
        }
        if victim.lock().chain.is_in_doubt() {
            let value = self.read_victim(i).await?;
            let chain = &mut victim.lock().chain;
            if !self.counts() {
                chain.release(self.id());
                return Ok(());
            }
            chain.settle(self.id(), value);
        }
        let file = self.file('v', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        let (change, value) = {
            let chain = &mut victim.lock().chain;
            let value = chain.newest() + 1;
            let Some(change) = chain.begin_change(self.id(), value) else { return Ok(()) };
            (change, value)
        };
        self.step("write", file);
        self.mount.write(&open, AT, &value.to_le_bytes()).await?;
        victim.lock().chain.acknowledge(change, value);
        if self.chance(30) {
            let sync = victim.lock().chain.begin_sync();
            self.step("fsync", file);
            self.mount.fsync(&open).await?;
            victim.lock().chain.synced(sync);
        }
        victim.lock().chain.release(self.id());
        Ok(())
    }

    async fn read_victim(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('v', i).await?;
        let began = self.work.victims[i].lock().chain.begin_read();
        self.step("open", file);
        let open = self.mount.open(file, READ).await?;
        self.step("read", file);
        let bytes = self.mount.read(&open, AT, 8).await?;
        let value = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if self.counts() {
            let seen =
                self.work.victims[i].lock().chain.end_read(self.id(), began, |v| *v == value);
            if let Err(why) = seen {
                self.wrong("damage", format!("victim {i} ({file:?}) is {value}: {why}"));
            }
        }
        Ok(value)
    }
}
