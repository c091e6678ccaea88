//! Files of the first file system that whoever dies has not looked at for a while: where a replay
//! of the dead one's journal does not end, they are granted to and fro among the others all the
//! same.

use std::collections::BTreeMap;

use mfs::FsError;
use mfs::file::FileId;
use mx_base::{Duration, Instant};
use parking_lot::Mutex;

use super::{App, WRITE, name_of};
use crate::fleet::LifeId;

/// How many there are: one or another may have been on its way when the home that decided on it
/// died, and then nobody can tell that the dead one did not hold it.
pub const COUNT: usize = 4;
/// Longest pause between two writes, in microseconds.
const PAUSE: usize = 8_000;

/// What is known of each file, and of each life that writes it.
#[derive(Debug, Default)]
pub struct Aside(Mutex<BTreeMap<FileId, BTreeMap<LifeId, Writes>>>);

/// The writes of one life to one file.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    pub last: Instant,
    pub longest: Duration,
}

impl Aside {
    pub fn all(&self) -> BTreeMap<FileId, BTreeMap<LifeId, Writes>> {
        self.0.lock().clone()
    }

    fn written(&self, file: FileId, life: LifeId, began: Instant, now: Instant) {
        let all = &mut *self.0.lock();
        let none = Writes { last: now, longest: Duration::ZERO };
        let writes = all.entry(file).or_default().entry(life).or_insert(none);
        (writes.last, writes.longest) = (now, writes.longest.max(now.since(began)));
    }
}

impl App {
    /// Writes to one of the files until the work is over, after one look-up.
    pub async fn stand_aside(self, i: usize) {
        let Ok(file) = self.file('a', i).await else { return };
        let Ok(open) = self.mount.open(file, WRITE).await else { return };
        while !self.work.is_stopped() && !self.life.is_leaving() {
            let began = self.exec().now();
            let number = u64::from(self.id().0).to_le_bytes();
            let write = async { self.mount.write(&open, 0, &number).await.map(|_| ()) };
            let written: Result<(), FsError> = self.operation("aside", write).await;
            if written.is_err() {
                return;
            }
            self.work.aside.written(file, self.id(), began, self.exec().now());
            let pause = u64::try_from(1 + self.draw(PAUSE)).expect("small");
            self.exec().sleep(Duration::from_micros(pause)).await;
        }
    }
}

/// Their names.
pub(super) fn names() -> impl Iterator<Item = Vec<u8>> {
    (0..COUNT).map(|i| name_of('a', i))
}
