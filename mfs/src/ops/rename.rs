//! rename, with NOREPLACE and EXCHANGE.
//!
//! A directory that moves to another directory needs RENAME: under it no other directory of the
//! cluster moves, so that the way from the target up to the root can be looked at, and nothing is
//! moved into itself.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Pin, Want};

use super::check_name;
use super::create::NODES_PER_ENTRY;
use super::locking::{At, Pinned};
use crate::alloc::{Needs, PinnedGroup};
use crate::cache::Step;
use crate::dir::{Directory, DirectoryEditor, Dirent};
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::Core;
use crate::inode::extents::Grown;
use crate::journal::Transaction;
use crate::locks::Resource;
use zerocopy::little_endian::{U32, U64};

/// What a rename does with an existing target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameKind {
    /// It is replaced.
    Replace,
    /// The rename fails with [`FsError::Exists`].
    NoReplace,
    /// Both names change places; the target has to exist.
    Exchange,
}

/// A rename that has passed its checks.
struct Move<'a> {
    from: At<'a>,
    to: At<'a>,
    source: Dirent,
    target: Option<Dirent>,
    kind: RenameKind,
}

impl Fs {
    /// Moves the entry `from` to `to`.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::Exists`], [`FsError::NotEmpty`], [`FsError::IsDirectory`],
    /// [`FsError::NotDirectory`], [`FsError::Invalid`] for a directory that would contain itself.
    pub async fn rename(
        self: &Arc<Self>,
        (from_dir, from_name): (FileId, &[u8]),
        (to_dir, to_name): (FileId, &[u8]),
        kind: RenameKind,
    ) -> Result<(), FsError> {
        let _change = self.begin_change().await?;
        check_name(from_name)?;
        check_name(to_name)?;
        self.make_orphan_places(1).await?;
        let (from, to) = (At { dir: from_dir, name: from_name }, At { dir: to_dir, name: to_name });
        let mut rename_pin = None;
        let mut tree = 0;
        loop {
            let checked = match rename_pin {
                Some(_) => self.check_ancestry(from, to, kind).await?,
                None => Vec::new(),
            };
            let (pinned, found) = self.pin_places(&[from, to], &[], Want::write()).await?;
            let Some(source) = found[0] else { return Err(FsError::NotFound) };
            let target = found[1];
            let mut moved = vec![source];
            moved.extend(target.filter(|_| kind == RenameKind::Exchange));
            let is_unchecked =
                |e: &Dirent| e.file_type == FileType::Directory && !checked.contains(&e.file);
            if from.dir != to.dir && moved.iter().any(is_unchecked) {
                drop(pinned);
                if rename_pin.is_none() {
                    rename_pin = Some(self.pin_rename().await?);
                }
                // Otherwise another directory has got the name since it was looked at: a rename inside
                // a directory does not take RENAME.
                continue;
            }
            self.check_linked(pinned.inode(to.dir.inode), to.dir).await?;
            self.check_may_go(&pinned, from.dir, source).await?;
            self.check_flags(pinned.inode(to.dir.inode), Core::check_may_gain).await?;
            if let Some(target) = target {
                self.check_may_go(&pinned, to.dir, target).await?;
            }
            let is_needed = self.check_target(&pinned, source, target, kind).await?;
            if !is_needed || (from.dir == to.dir && from.name == to.name) {
                return Ok(());
            }
            let group = match tree {
                0 => None,
                tree => Some(self.metadata_group(Needs::tree(tree)).await?),
            };
            let step = Move { from, to, source, target, kind };
            let done =
                self.transact(40, |tx| self.move_entry(tx, &pinned, group.as_ref(), &step)).await?;
            let Some(gone) = done else {
                tree = NODES_PER_ENTRY;
                continue;
            };
            let other = target.filter(|_| kind == RenameKind::Exchange).map(|e| e.file);
            for file in [from.dir, to.dir, source.file].into_iter().chain(other) {
                self.outdate_attributes(pinned.inode(file.inode), file);
            }
            drop(pinned);
            if let Some(gone) = gone {
                self.reap_now_or_later(gone).await?;
            }
            return Ok(());
        }
    }

    async fn pin_rename(&self) -> Result<Pin, FsError> {
        let resource = Resource::Rename;
        let entry = self.env.locks.entry(resource.name(), resource.bucket(&self.layout));
        Ok(entry.pin(Want { exclusive: true, ..Want::shared(Mode::EX) }).await?)
    }

    /// A directory must not be moved below itself; returns those that would not be. The caller holds
    /// RENAME, so no way up changes.
    async fn check_ancestry(
        &self,
        from: At<'_>,
        to: At<'_>,
        kind: RenameKind,
    ) -> Result<Vec<FileId>, FsError> {
        let mut checked = Vec::new();
        let mut checks = vec![(from, to)];
        if kind == RenameKind::Exchange {
            checks.push((to, from));
        }
        for (moved, into) in checks {
            let moved = {
                let dir = self.inode(moved.dir.inode)?;
                let _pin = dir.entry.pin(Want::read()).await?;
                self.find(&dir, moved.dir, moved.name).await?
            };
            let Some(moved) = moved.filter(|e| e.file_type == FileType::Directory) else {
                continue;
            };
            let mut at = into.dir;
            loop {
                if at == moved.file {
                    return Err(FsError::Invalid("a directory cannot be moved into itself"));
                }
                if at == self.root {
                    break;
                }
                at = self.parent(at).await?;
            }
            checked.push(moved.file);
        }
        Ok(checked)
    }

    /// May the target be there, or be replaced? False when there is nothing to do.
    async fn check_target(
        &self,
        pinned: &Pinned,
        source: Dirent,
        target: Option<Dirent>,
        kind: RenameKind,
    ) -> Result<bool, FsError> {
        let Some(target) = target else {
            return match kind {
                RenameKind::Exchange => Err(FsError::NotFound),
                RenameKind::Replace | RenameKind::NoReplace => Ok(true),
            };
        };
        match kind {
            RenameKind::NoReplace => Err(FsError::Exists),
            // Two names of one file: POSIX leaves both.
            RenameKind::Replace | RenameKind::Exchange if source.file == target.file => Ok(false),
            RenameKind::Exchange => Ok(true),
            RenameKind::Replace => {
                let directories = [source, target].map(|e| e.file_type == FileType::Directory);
                match directories {
                    [true, false] => Err(FsError::NotDirectory),
                    [false, true] => Err(FsError::IsDirectory),
                    [true, true] => self.check_empty(pinned, target).await.map(|()| true),
                    [false, false] => Ok(true),
                }
            }
        }
    }

    /// The move itself. `None` when a directory has to grow and there is no block for it;
    /// otherwise the file that lost its last name.
    fn move_entry(
        &self,
        tx: &mut Transaction,
        pinned: &Pinned,
        group: Option<&PinnedGroup>,
        step: &Move<'_>,
    ) -> Step<Option<Option<FileId>>> {
        let Move { from, to, source, target, kind } = *step;
        let mut gone = None;
        match (target, kind) {
            (Some(target), RenameKind::Exchange) => {
                self.editor(tx, pinned, from, None).replace(
                    from.name,
                    target.file,
                    target.file_type,
                )?;
                self.editor(tx, pinned, to, None).replace(
                    to.name,
                    source.file,
                    source.file_type,
                )?;
                self.moved(tx, pinned, source, from, to)?;
                self.moved(tx, pinned, target, to, from)?;
                let (down, up) = (is_directory(source), is_directory(target));
                self.directory_changed(tx, pinned, from.dir, 0, up - down)?;
                self.directory_changed(tx, pinned, to.dir, 0, down - up)?;
            }
            (Some(target), _) => {
                self.editor(tx, pinned, to, None).replace(
                    to.name,
                    source.file,
                    source.file_type,
                )?;
                self.editor(tx, pinned, from, None).remove(from.name)?;
                if self.drop_link(tx, pinned, target)? {
                    gone = Some(target.file);
                }
                self.moved(tx, pinned, source, from, to)?;
                let (down, up) = (is_directory(source), is_directory(target));
                self.directory_changed(tx, pinned, from.dir, -1, -down)?;
                self.directory_changed(tx, pinned, to.dir, 0, down - up)?;
            }
            (None, _) => {
                self.editor(tx, pinned, from, None).remove(from.name)?;
                let mut editor = self.editor(tx, pinned, to, group);
                if let Grown::NoRoom = editor.insert(to.name, source.file, source.file_type)? {
                    tx.abandon();
                    return Ok(None);
                }
                self.moved(tx, pinned, source, from, to)?;
                let links = is_directory(source);
                self.directory_changed(tx, pinned, from.dir, -1, -links)?;
                self.directory_changed(tx, pinned, to.dir, 1, links)?;
            }
        }
        Ok(Some(gone))
    }

    fn editor<'a, 'b>(
        &'a self,
        tx: &'b mut Transaction,
        pinned: &'a Pinned,
        at: At<'_>,
        group: Option<&'a PinnedGroup>,
    ) -> DirectoryEditor<'a, 'b> {
        let dir = Directory { inode: pinned.inode(at.dir.inode), key: &self.hash_key };
        DirectoryEditor { dir, pin: pinned.pin(at.dir.inode), group, tx }
    }

    /// A file has got another name: ctime, and of a directory the way up.
    fn moved(
        &self,
        tx: &mut Transaction,
        pinned: &Pinned,
        entry: Dirent,
        from: At<'_>,
        to: At<'_>,
    ) -> Step<()> {
        let no = entry.file.inode;
        pinned.inode(no).edit_core(tx, pinned.pin(no), |core| {
            core.touch_ctime(self.now());
            if entry.file_type == FileType::Directory && from.dir != to.dir {
                core.attributes.parent = U64::new(to.dir.inode.0);
                core.attributes.parent_generation = U32::new(to.dir.generation);
            }
            Ok(())
        })
    }
}

fn is_directory(entry: Dirent) -> i32 {
    i32::from(entry.file_type == FileType::Directory)
}
