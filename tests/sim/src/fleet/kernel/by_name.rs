//! Changes by path, as the kernel makes them: it has the directory locked, looks the last component up
//! there, in its cache first, answers by itself what that settles, and else asks by name. What the name
//! led to when it looked is what it knows to be changed.

use mfs::FsError;
use mfs::file::FileId;
use mfs::ops::{NewFile, OpenFlags, RenameKind};

use super::{DirLock, Locked, Mount, Opened};

impl Mount {
    /// A look-up with the directory locked, alone.
    async fn find_locked(&self, dir: FileId, name: &[u8]) -> Result<Option<FileId>, FsError> {
        if let Some(found) = self.kernel.cached_name(dir, name) {
            self.kernel.state.lock().hits += 1;
            return Ok(found);
        }
        let epoch = self.kernel.state.lock().epoch;
        self.ask_for(dir, name, epoch).await
    }

    async fn lock_both(&self, a: FileId, b: FileId) -> (DirLock, Option<DirLock>) {
        let first = self.kernel.lock_dir(a.min(b), Locked::Exclusive).await;
        if a == b {
            return (first, None);
        }
        (first, Some(self.kernel.lock_dir(a.max(b), Locked::Exclusive).await))
    }

    /// mkdir(2), mknod(2).
    pub async fn make_at(
        &self,
        dir: FileId,
        name: &[u8],
        new: &NewFile<'_>,
    ) -> Result<FileId, FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        if self.find_locked(dir, name).await?.is_some() {
            return Err(FsError::Exists);
        }
        let made = self.served().await.create(dir, name, new).await;
        self.changed(dir, name);
        Ok(made?.attributes.file)
    }

    /// open(2) with O_CREAT and O_EXCL.
    pub async fn make_and_open_at(
        &self,
        dir: FileId,
        name: &[u8],
        new: &NewFile<'_>,
        flags: OpenFlags,
    ) -> Result<Opened, FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        if self.find_locked(dir, name).await?.is_some() {
            return Err(FsError::Exists);
        }
        let made = self.served().await.create_and_open(dir, name, new, flags).await;
        self.changed(dir, name);
        Ok(self.opened(made?.1))
    }

    /// link(2).
    pub async fn link_at(&self, file: FileId, dir: FileId, name: &[u8]) -> Result<(), FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        if self.find_locked(dir, name).await?.is_some() {
            return Err(FsError::Exists);
        }
        // The pins go with the answer, before the kernel goes on.
        let done = self.served().await.link(file, dir, name).await.map(|_| ());
        self.kernel.doubt_attributes(file);
        self.changed(dir, name);
        done
    }

    /// unlink(2), or rmdir(2).
    pub async fn remove_at(
        &self,
        dir: FileId,
        name: &[u8],
        is_directory: bool,
    ) -> Result<(), FsError> {
        let _locked = self.kernel.lock_dir(dir, Locked::Exclusive).await;
        let found = self.find_locked(dir, name).await?.ok_or(FsError::NotFound)?;
        let done = match is_directory {
            true => self.served().await.rmdir(dir, name).await,
            false => self.served().await.unlink(dir, name).await,
        };
        if done.is_ok() {
            self.kernel.drop_attributes(found);
        }
        self.changed(dir, name);
        done
    }

    /// rename(2).
    pub async fn rename_at(
        &self,
        from: (FileId, &[u8]),
        to: (FileId, &[u8]),
        kind: RenameKind,
    ) -> Result<(), FsError> {
        let _locked = self.lock_both(from.0, to.0).await;
        let source = self.find_locked(from.0, from.1).await?.ok_or(FsError::NotFound)?;
        let target = self.find_locked(to.0, to.1).await?;
        match (target, kind) {
            (Some(_), RenameKind::NoReplace) => return Err(FsError::Exists),
            (None, RenameKind::Exchange) => return Err(FsError::NotFound),
            _ => {}
        }
        let done = self.served().await.rename(from, to, kind).await;
        self.kernel.doubt_attributes(source);
        match (target, kind) {
            (Some(target), RenameKind::Exchange) => self.kernel.doubt_attributes(target),
            (Some(target), _) if done.is_ok() => self.kernel.drop_attributes(target),
            _ => {}
        }
        self.changed(from.0, from.1);
        self.changed(to.0, to.1);
        done
    }
}
