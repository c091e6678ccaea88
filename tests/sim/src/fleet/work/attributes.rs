//! Extended attributes: one of each file, small or large, changed by one writer at a time and read by
//! anybody; whole or not at all.

use mfs::FsError;
use mfs::ops::SetXattr;

use super::{App, WRITE};

const NAME: &[u8] = b"user.value";
/// Stands for an attribute that is not there.
const ABSENT: u64 = 0;

/// What a number stands for: in the inode, in a block, in several.
fn value_of(number: u64) -> Vec<u8> {
    let len = [8, 60, 900, 3_000, 20_000][usize::try_from(number / 256 % 5).expect("below 5")];
    number.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn number_of(value: &[u8]) -> Option<u64> {
    let number = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))?;
    (value_of(number) == value).then_some(number)
}

impl App {
    pub(super) async fn attribute(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.attributes[i];
        let writes = self.chance(50) && chain.lock().take(self.id());
        if !writes {
            return self.read_attribute(i).await.map(|_| ());
        }
        let file = self.file('x', i).await?;
        if chain.lock().is_in_doubt() {
            let number = self.read_attribute(i).await?;
            if self.counts() {
                chain.lock().settle(self.id(), number);
            } else {
                chain.lock().release(self.id());
                return Ok(());
            }
        }
        let is_there = *chain.lock().newest() != ABSENT;
        let number = match is_there && self.chance(20) {
            true => ABSENT,
            false => self.exec().draw(|r| r.next_u64()) | 1,
        };
        let Some(change) = chain.lock().begin_change(self.id(), number) else { return Ok(()) };
        self.step("change an attribute of", file);
        let done = if number == ABSENT {
            self.mount.remove_xattr(file, NAME).await
        } else {
            self.mount.set_xattr(file, NAME, &value_of(number), SetXattr::default()).await
        };
        let Some(()) = self.unless_full(chain, change, done)? else { return Ok(()) };
        chain.lock().acknowledge(change, number);
        self.stat(file).await?;
        if self.chance(30) {
            self.step("open", file);
            let open = self.mount.open(file, WRITE).await?;
            let sync = chain.lock().begin_sync();
            self.step("fsync", file);
            self.mount.fsync(&open).await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    pub(super) async fn read_attribute(&self, i: usize) -> Result<u64, FsError> {
        let file = self.file('x', i).await?;
        self.stat(file).await?;
        let began = self.work.attributes[i].lock().begin_read();
        self.step("read an attribute of", file);
        let number = match self.mount.served().await.get_xattr(file, NAME).await {
            Ok(value) => number_of(&value),
            Err(FsError::NoXattr) => Some(ABSENT),
            Err(error) => return Err(error),
        };
        let number = number.unwrap_or_else(|| {
            if self.counts() {
                self.wrong("attributes", format!("attribute {i} ({file:?}) is of no writer"));
            }
            ABSENT
        });
        self.exec().note(number);
        if self.counts()
            && let Err(why) =
                self.work.attributes[i].lock().end_read(self.id(), began, |v| *v == number)
        {
            self.wrong("attributes", format!("attribute {i} ({file:?}) is {number:#x}: {why}"));
        }
        Ok(number)
    }
}
