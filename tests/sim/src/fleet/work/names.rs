//! Names that are made, moved between two directories and removed, each by one writer at a time.

use mfs::FsError;
use mfs::file::FileId;

use super::{App, DIRS, Place, WRITE, name_of, regular};
use crate::fleet::chain::Began;

impl App {
    async fn dir(&self, dir: usize) -> Result<FileId, FsError> {
        self.find(self.mount.root(), DIRS[dir]).await
    }

    pub(super) async fn name(&self, i: usize) -> Result<(), FsError> {
        let chain = &self.work.names[i];
        let writes = self.chance(60) && chain.lock().take(self.id());
        if !writes {
            return self.read_name(i, self.draw(DIRS.len())).await.map(|_| ());
        }
        // Whoever changes the name next sees both directories: what was done to them by another
        // node, and not synced, is durable then.
        let is_foreign = chain.lock().newest_life() != self.id();
        if is_foreign || chain.lock().is_in_doubt() {
            let mut place = Place::Absent;
            for dir in 0..DIRS.len() {
                if let Some(file) = self.read_name(i, dir).await? {
                    if place != Place::Absent && self.counts() {
                        self.wrong("names", format!("name {i} is in two directories"));
                    }
                    place = Place::In(dir, Some(file));
                }
            }
            if !self.counts() {
                chain.lock().release(self.id());
                return Ok(());
            }
            let mut chain = chain.lock();
            if chain.is_in_doubt() {
                chain.settle(self.id(), place);
            }
        }
        let name = name_of('n', i);
        let before = *chain.lock().newest();
        match before {
            Place::Absent => {
                let at = self.draw(DIRS.len());
                let dir = self.dir(at).await?;
                let Some(change) = chain.lock().begin_change(self.id(), Place::In(at, None)) else {
                    return Ok(());
                };
                self.step("create in", dir);
                let made = self.mount.create(dir, &name, &regular()).await;
                let Some(file) = self.unless_full(chain, change, made)? else { return Ok(()) };
                chain.lock().acknowledge(change, Place::In(at, Some(file)));
                if self.chance(50) {
                    self.step("open", file);
                    let open = self.mount.open(file, WRITE).await?;
                    let len = 1 + self.draw(9_000);
                    self.step("write", open.file());
                    match self.mount.write(&open, 0, &vec![0x5a; len]).await {
                        Err(FsError::NoSpace) if self.work.may_be_full() => {}
                        written => written?,
                    }
                }
            }
            Place::In(at, file) => {
                let dir = self.dir(at).await?;
                if self.chance(50) {
                    let to = self.dir(1 - at).await?;
                    let after = Place::In(1 - at, file);
                    let Some(change) = chain.lock().begin_change(self.id(), after) else {
                        return Ok(());
                    };
                    self.step("rename from", dir);
                    let renamed = self.mount.rename((dir, &name), (to, &name)).await;
                    let Some(()) = self.unless_full(chain, change, renamed)? else {
                        return Ok(());
                    };
                    chain.lock().acknowledge(change, after);
                } else {
                    let Some(change) = chain.lock().begin_change(self.id(), Place::Absent) else {
                        return Ok(());
                    };
                    self.step("unlink from", dir);
                    let unlinked = self.mount.unlink(dir, &name).await;
                    let Some(()) = self.unless_full(chain, change, unlinked)? else {
                        return Ok(());
                    };
                    chain.lock().acknowledge(change, Place::Absent);
                }
            }
        }
        for at in 0..DIRS.len() {
            let dir = self.dir(at).await?;
            self.stat(dir).await?;
        }
        if self.chance(20) {
            let sync = chain.lock().begin_sync();
            self.mount.served().await.fsync_directory().await?;
            chain.lock().synced(sync);
        }
        chain.lock().release(self.id());
        Ok(())
    }

    pub(super) async fn read_name(&self, i: usize, at: usize) -> Result<Option<FileId>, FsError> {
        let dir = self.dir(at).await?;
        let began = self.work.names[i].lock().begin_read();
        self.step("lookup in", dir);
        let found = self.mount.lookup(dir, &name_of('n', i)).await?;
        self.check_name(i, at, began, found);
        Ok(found)
    }

    fn check_name(&self, i: usize, at: usize, began: Began, found: Option<FileId>) {
        if self.counts()
            && let Err(why) = self.work.names[i].lock().end_partial_read(
                self.id(),
                began,
                |place| place.shows(at, found),
                |before, after| before.is_in(at) || after.is_in(at),
            )
        {
            self.wrong("names", format!("name {i} in directory {at} is {found:?}: {why}"));
        }
    }

    pub(super) async fn list(&self, at: usize) -> Result<(), FsError> {
        let dir = self.dir(at).await?;
        self.stat(dir).await?;
        let began: Vec<_> = self.work.names.iter().map(|chain| chain.lock().begin_read()).collect();
        self.step("list", dir);
        let names = self.mount.list(dir).await?;
        for (i, began) in began.into_iter().enumerate() {
            self.check_name(i, at, began, names.get(&name_of('n', i)).copied());
        }
        Ok(())
    }
}
