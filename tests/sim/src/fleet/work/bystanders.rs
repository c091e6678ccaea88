//! Bystanders: one on every node, in a directory that nobody else looks at.
//!
//! Whatever dies, its operations touch nothing of the dead, so they wait on no phase of a recovery.

use mfs::FsError;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind};
use mx_base::Duration;
use parking_lot::Mutex;

use super::{App, READ, WRITE, regular};
use crate::fleet::oracle::bounds::UNAFFECTED_WITHIN;

/// What is known of all bystanders.
#[derive(Debug, Default)]
pub struct Bystanders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_watched: bool,
    longest: Duration,
}

impl Bystanders {
    /// From now on, or no longer, it counts how long they wait.
    pub fn watch(&self, is_watched: bool) {
        self.0.lock().is_watched = is_watched;
    }

    /// The longest that an operation took.
    pub fn longest(&self) -> Duration {
        self.0.lock().longest
    }
}

impl App {
    /// Works until it is told to stop.
    pub async fn stand_by(self) {
        let made = self.make_own_directory().await;
        let Ok(dir) = made else { return };
        let mut made = 0;
        while !self.work.is_stopped() && !self.life.is_leaving() {
            let is_watched = self.work.bystanders.0.lock().is_watched;
            let began = self.exec().now();
            while !self.life.is_permitted() {
                self.mount.kernel.forget_everything();
                self.exec().sleep(Duration::from_millis(2)).await;
            }
            made += 1;
            if self.operation("bystander", self.touch_own(dir, made)).await.is_err() {
                return;
            }
            let took = self.exec().now().since(began);
            if is_watched && self.counts() && self.work.bystanders.0.lock().is_watched {
                let longest = &mut self.work.bystanders.0.lock().longest;
                *longest = took.max(*longest);
                if took > UNAFFECTED_WITHIN {
                    let what = format!("who touches nothing of the dead waited {took:?}");
                    self.wrong("unaffected", what);
                }
            }
            self.exec().sleep(Duration::from_millis(3)).await;
        }
    }

    async fn make_own_directory(&self) -> Result<FileId, FsError> {
        let name = format!("own {}", self.life.member);
        let new = NewFile { kind: NewKind::Directory, ..regular() };
        self.mount.create(self.mount.root(), name.as_bytes(), &new).await
    }

    /// Makes a file, writes and reads it, makes it durable at times, and removes it.
    async fn touch_own(&self, dir: FileId, made: u64) -> Result<(), FsError> {
        let name = format!("own {made}").into_bytes();
        let file = self.mount.create(dir, &name, &regular()).await?;
        let bytes = vec![0x77; 1 + self.draw(6_000)];
        {
            let open = self.mount.open(file, WRITE).await?;
            self.mount.write(&open, 0, &bytes).await?;
            if self.chance(20) {
                self.mount.fsync(&open).await?;
            }
        }
        let open = self.mount.open(file, READ).await?;
        let len = u64::try_from(bytes.len()).expect("short");
        if self.mount.read(&open, 0, len).await? != bytes && self.counts() {
            self.wrong("unaffected", format!("{file:?} is not what was written"));
        }
        drop(open);
        self.mount.unlink(dir, &name).await
    }
}
