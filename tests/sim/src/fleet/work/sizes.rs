//! Sizes: files that are only made longer and shorter; what they hold is zero (I10).

use mfs::FsError;
use mfs::ops::SetAttributes;

use super::{App, READ};

impl App {
    pub(super) async fn size(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.sizes[i];
        let writes = self.chance(50) && chain.lock().take(self.id());
        if !writes {
            return self.read_size(i).await.map(|_| ());
        }
        let file = self.file('s', i).await?;
        if chain.lock().is_in_doubt() {
            let size = self.read_size(i).await?;
            if self.counts() {
                chain.lock().settle(self.id(), size);
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let size = self.exec().draw(|r| r.below(20_000));
        let Some(change) = chain.lock().begin_change(self.id(), size) else { return Ok(()) };
        let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
        self.step("set size", file);
        let found = self.mount.set(file, &set).await;
        let Some(found) = self.unless_full(chain, change, found)? else { return Ok(()) };
        if found.size != size && self.counts() {
            self.wrong("sizes", format!("size set to {size} is {}", found.size));
        }
        let mut chain = chain.lock();
        chain.acknowledge(change, size);
        chain.release(self.id());
        Ok(())
    }

    pub(super) async fn read_size(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('s', i).await?;
        let began = self.work.sizes[i].lock().begin_read();
        let size = self.stat(file).await?.size;
        if self.counts()
            && let Err(why) = self.work.sizes[i].lock().end_read(self.id(), began, |s| *s == size)
        {
            self.wrong("sizes", format!("size {i} ({file:?}) is {size}: {why}"));
        }
        if self.chance(30) {
            self.step("open", file);
            let open = self.mount.open(file, READ).await?;
            self.step("read", file);
            let bytes = self.mount.read(&open, 0, 20_000).await?;
            if self.counts() && bytes.iter().any(|b| *b != 0) {
                self.wrong("nothing exposed", format!("{file:?} holds what nobody wrote (I10)"));
            }
        }
        Ok(size)
    }
}
