//! Blobs: files of which every byte is known, written in any place, cut and made longer, with blocks
//! allocated, zeroed and punched out.

use std::sync::Arc;

use mfs::FsError;
use mfs::ops::{Allocate, SetAttributes};

use super::{App, BLOB_MAX, READ, WRITE};

impl App {
    pub(super) async fn blob(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.blobs[i];
        let writes = self.chance(60) && chain.lock().take(self.id());
        if !writes {
            return self.read_blob(i).await.map(|_| ());
        }
        let file = self.file('b', i).await?;
        if chain.lock().is_in_doubt() {
            let content = self.read_blob(i).await?;
            if self.counts() {
                chain.lock().settle(self.id(), Arc::new(content));
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let mut content = Vec::clone(chain.lock().newest());
        self.step("open", file);
        let open = self.mount.open(file, WRITE).await?;
        if self.chance(20) {
            let size = self.draw(usize::try_from(BLOB_MAX).expect("small"));
            content.resize(size, 0);
            let after = Arc::new(content);
            let Some(change) = chain.lock().begin_change(self.id(), Arc::clone(&after)) else {
                return Ok(());
            };
            let size = u64::try_from(size).expect("small");
            let set = SetAttributes { size: Some(size), ..SetAttributes::default() };
            self.step("set size", file);
            let set = self.mount.set(file, &set).await;
            let Some(_) = self.unless_full(chain, change, set)? else { return Ok(()) };
            chain.lock().acknowledge(change, after);
        } else if self.chance(25) {
            let (at, len) = (self.draw(20_000), 1 + self.draw(9_000));
            let keep_size = self.chance(50);
            let (what, zeros) = match self.draw(3) {
                0 => (Allocate::Blocks { keep_size }, false),
                1 => (Allocate::Zeros { keep_size }, true),
                _ => (Allocate::Hole, true),
            };
            if !keep_size && what != Allocate::Hole {
                content.resize(content.len().max(at + len), 0);
            }
            if zeros {
                let inside = at.min(content.len())..(at + len).min(content.len());
                content[inside].fill(0);
            }
            let after = Arc::new(content);
            let Some(change) = chain.lock().begin_change(self.id(), Arc::clone(&after)) else {
                return Ok(());
            };
            let [from, to] = [at, at + len].map(|at| u64::try_from(at).expect("small"));
            self.step("allocate", open.file());
            let done = self.mount.allocate(&open, what, from..to).await;
            let Some(()) = self.unless_full(chain, change, done)? else { return Ok(()) };
            chain.lock().acknowledge(change, after);
        } else {
            let (at, len) = (self.draw(20_000), 1 + self.draw(9_000));
            let byte = self.exec().draw(|r| r.next_u64().to_le_bytes()[0]) | 1;
            content.resize(content.len().max(at + len), 0);
            content[at..at + len].fill(byte);
            let after = Arc::new(content);
            let Some(change) = chain.lock().begin_change(self.id(), Arc::clone(&after)) else {
                return Ok(());
            };
            let offset = u64::try_from(at).expect("small");
            self.step("write", open.file());
            let written = self.mount.write(&open, offset, &vec![byte; len]).await;
            let Some(()) = self.unless_full(chain, change, written)? else { return Ok(()) };
            chain.lock().acknowledge(change, after);
        }
        if self.chance(30) {
            let sync = chain.lock().begin_sync();
            self.step("fsync", open.file());
            self.mount.fsync(&open).await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    pub(super) async fn read_blob(&self, i: usize) -> Result<Vec<u8>, FsError> {
        let file = self.file('b', i).await?;
        let chain = &self.work.blobs[i];
        let (began, is_doubtful) = {
            let chain = chain.lock();
            (chain.begin_read(), chain.is_in_doubt())
        };
        self.step("open", file);
        let open = self.mount.open(file, if self.chance(30) { WRITE } else { READ }).await?;
        self.step("read", file);
        let content = self.mount.read(&open, 0, 1 << 20).await?;
        if !self.counts() {
            return Ok(content);
        }
        let mut chain = chain.lock();
        if is_doubtful && chain.is_in_doubt() {
            // Pages are written back one by one: each byte may be of any version.
            if let Some(at) = chain.unexplained_byte(began, &content) {
                self.wrong("blobs", format!("byte {at} of blob {i} ({file:?}) was never so"));
            }
        } else if chain.was_quiet(began)
            && let Err(why) = chain.end_read(self.id(), began, |c| **c == content)
        {
            let why = if why.len() > 200 { "no version" } else { &why };
            let difference = chain.newest().iter().zip(&content).position(|(a, b)| a != b);
            let what = format!(
                "blob {i} ({file:?}) has {} bytes instead of {}, differs at {difference:?}: {why}",
                content.len(),
                chain.newest().len(),
            );
            self.wrong("blobs", what);
        }
        Ok(content)
    }
}
