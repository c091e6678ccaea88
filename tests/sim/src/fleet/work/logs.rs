//! Logs: files to which everybody appends at once.

use std::sync::atomic::Ordering;

use mfs::FsError;

use super::{APPEND, App, READ, WRITE};
use crate::fleet::log_file::Record;

impl App {
    pub(super) async fn append(&self, i: usize) -> Result<(), FsError> {
        let file = self.file('l', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, APPEND).await?;
        let log = &self.work.logs[i];
        let (id, len) = (self.work.next.fetch_add(1, Ordering::Relaxed), 1 + self.draw(1_500));
        let record = Record::bytes(id, len);
        let is_lost = self.work.oracle.is_lost(self.id());
        log.lock().begin(id, self.id(), self.exec().now(), is_lost);
        self.step("write", open.file());
        match self.mount.write(&open, 0, &record).await {
            Err(FsError::NoSpace) if self.work.may_be_full() => {
                log.lock().withdraw(id);
                return Ok(());
            }
            written => written?,
        }
        log.lock().acknowledge(id, self.exec().now());
        if self.chance(20) {
            let now = self.exec().now();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            log.lock().synced(self.id(), now);
        }
        Ok(())
    }

    pub(super) async fn read_log(&self, i: usize) -> Result<(), FsError> {
        let file = self.file('l', i).await?;
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        let began = self.exec().now();
        self.step("read", file);
        let bytes = self.mount.read(&open, 0, 64 << 20).await?;
        if self.counts()
            && let Err(why) = self.work.logs[i].lock().check(self.id(), began, &bytes)
        {
            self.wrong("logs", format!("log {i} ({file:?}): {why}"));
        }
        Ok(())
    }
}
