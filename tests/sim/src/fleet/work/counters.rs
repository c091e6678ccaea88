//! Counters: numbers in files, each changed by one writer at a time and read by anybody.

use mfs::FsError;

use super::{App, COUNTER_AT, READ, WRITE};

impl App {
    pub(super) async fn counter(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.counters[i];
        let writes = self.chance(50) && chain.lock().take(self.id());
        if !writes {
            return self.read_counter(i).await.map(|_| ());
        }
        let file = self.file('c', i).await?;
        if chain.lock().is_in_doubt() {
            let value = self.read_counter(i).await?;
            if self.counts() {
                chain.lock().settle(self.id(), value);
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let (change, value) = {
            let mut chain = chain.lock();
            let value = chain.newest() + 1;
            let Some(change) = chain.begin_change(self.id(), value) else { return Ok(()) };
            (change, value)
        };
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        self.step("write", open.file());
        let written = self.mount.write(&open, COUNTER_AT[i], &value.to_le_bytes()).await;
        let Some(()) = self.unless_full(chain, change, written)? else { return Ok(()) };
        chain.lock().acknowledge(change, value);
        if self.chance(30) {
            let sync = chain.lock().begin_sync();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    pub(super) async fn read_counter(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('c', i).await?;
        let began = self.work.counters[i].lock().begin_read();
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        self.step("read", file);
        let bytes = self.mount.read(&open, COUNTER_AT[i], 8).await?;
        let value = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.exec().note(value);
        if self.counts()
            && let Err(why) =
                self.work.counters[i].lock().end_read(self.id(), began, |v| *v == value)
        {
            self.wrong("counters", format!("counter {i} ({file:?}) is {value}: {why}"));
        }
        Ok(value)
    }
}
