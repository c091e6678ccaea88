//! Directories: names to inodes.
//!
//! A small directory keeps its entries in its inode. A large one is an extendible hash: an index
//! over the leading bits of the names' hashes, eight bits a level, leads to buckets; a bucket that
//! overflows splits in two, and where a level has no bit left an index below it takes over. So no
//! operation touches more than a path, whatever the size.
//!
//! Keeps true: an entry's cookie is its hash and an ordinal, unique in the directory and unchanged
//! for the entry's life; cookies order the entries in the same way in every form of the directory,
//! so a reader that goes on from a cookie sees every entry that stayed exactly once.

pub(crate) mod area;
pub(crate) mod bucket;
pub(crate) mod hash;

use std::sync::Arc;

use lcl::pin::Pin;

use crate::alloc::PinnedGroup;
use crate::cache::Step;
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::inode::Inode;
use crate::inode::extents::Grown;
use crate::journal::Transaction;
use crate::ondisk::inode::{AreaKind, InodeBlock};

use area::{Area, AreaMut};

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Dirent {
    pub(crate) file: FileId,
    pub(crate) file_type: FileType,
    pub(crate) cookie: u64,
}

/// An entry with its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamedDirent {
    pub(crate) name: Vec<u8>,
    pub(crate) entry: Dirent,
}

/// A directory, for looking.
pub(crate) struct Directory<'a> {
    pub(crate) inode: &'a Arc<Inode>,
    /// Key of the hash of names.
    pub(crate) key: &'a [u8; 16],
}

/// A directory, for changing inside a transaction.
pub(crate) struct DirectoryEditor<'a, 'b> {
    pub(crate) dir: Directory<'a>,
    pub(crate) pin: &'a Pin,
    /// Where new blocks come from, if any may be needed.
    pub(crate) group: Option<&'a PinnedGroup>,
    pub(crate) tx: &'b mut Transaction,
}

impl Directory<'_> {
    pub(crate) fn find(&self, tx: &Transaction, name: &[u8]) -> Step<Option<Dirent>> {
        let hash = hash::of(self.key, name);
        let block = self.inode.block()?;
        let seen = tx.see(&block);
        let inode: &InodeBlock = seen.get();
        if inode.core.area == AreaKind::Entries as u8 {
            return Ok(Area::new(inode.body(), block.number)?.find(hash, name));
        }
        let generation = inode.core.generation.get();
        let place = self.locate(tx, generation, hash)?;
        let Some(bucket) = place.bucket else { return Ok(None) };
        let seen = tx.see(&bucket);
        let found = bucket::area(&seen, bucket.number)?.find(hash, name);
        Ok(found)
    }

    /// Entries with cookies above `after`, in order, `max` at most and at least one if there is one.
    pub(crate) fn list(&self, tx: &Transaction, after: u64, max: usize) -> Step<Vec<NamedDirent>> {
        let block = self.inode.block()?;
        let seen = tx.see(&block);
        let inode: &InodeBlock = seen.get();
        if inode.core.area == AreaKind::Entries as u8 {
            let mut entries = Area::new(inode.body(), block.number)?.after(after);
            entries.truncate(max);
            return Ok(entries);
        }
        let generation = inode.core.generation.get();
        let mut entries = Vec::new();
        let mut at = after;
        loop {
            let place = self.locate(tx, generation, hash::of_cookie(at))?;
            if let Some(bucket) = &place.bucket {
                let seen = tx.see(bucket);
                entries.extend(bucket::area(&seen, bucket.number)?.after(after));
            }
            match place.next_cookie() {
                Some(next) if entries.len() < max => at = next,
                _ => break,
            }
        }
        entries.truncate(max);
        Ok(entries)
    }
}

impl DirectoryEditor<'_, '_> {
    /// Adds an entry whose name is not there. [`Grown::NoRoom`]: the group cannot give the blocks.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when 256 names of the directory share one hash.
    pub(crate) fn insert(&mut self, name: &[u8], file: FileId, file_type: FileType) -> Step<Grown> {
        let hash = hash::of(self.dir.key, name);
        let block = self.dir.inode.block()?;
        let is_inline = {
            let seen = self.tx.see(&block);
            seen.get::<InodeBlock>().core.area == AreaKind::Entries as u8
        };
        if is_inline {
            let inode: &mut InodeBlock =
                self.tx.change(self.pin, &self.dir.inode.set, &block).get_mut();
            let mut area = AreaMut::new(inode.body_mut(), block.number)?;
            let Some(cookie) = area.free_cookie(hash) else { return Err(too_many_alike()) };
            if area.insert(name, Dirent { file, file_type, cookie }) {
                return Ok(Grown::Done);
            }
            if let Grown::NoRoom = self.spread()? {
                return Ok(Grown::NoRoom);
            }
        }
        self.insert_hashed(name, hash, file, file_type)
    }

    /// Takes an entry out.
    ///
    /// # Errors
    /// [`FsError::NotFound`].
    pub(crate) fn remove(&mut self, name: &[u8]) -> Step<Dirent> {
        self.with_area_of(name, |area, hash| {
            area.remove(hash, name).ok_or_else(|| FsError::NotFound.into())
        })
    }

    /// Lets an entry lead to another file; its cookie stays.
    ///
    /// # Errors
    /// [`FsError::NotFound`].
    pub(crate) fn replace(
        &mut self,
        name: &[u8],
        file: FileId,
        file_type: FileType,
    ) -> Step<Dirent> {
        self.with_area_of(name, |area, hash| {
            area.replace(hash, name, file, file_type).ok_or_else(|| FsError::NotFound.into())
        })
    }

    fn with_area_of<T>(
        &mut self,
        name: &[u8],
        f: impl FnOnce(&mut AreaMut<'_>, u64) -> Step<T>,
    ) -> Step<T> {
        let hash = hash::of(self.dir.key, name);
        let block = self.dir.inode.block()?;
        let (is_inline, generation) = {
            let seen = self.tx.see(&block);
            let core = &seen.get::<InodeBlock>().core;
            (core.area == AreaKind::Entries as u8, core.generation.get())
        };
        let set = &self.dir.inode.set;
        if is_inline {
            let inode: &mut InodeBlock = self.tx.change(self.pin, set, &block).get_mut();
            return f(&mut AreaMut::new(inode.body_mut(), block.number)?, hash);
        }
        let place = self.dir.locate(self.tx, generation, hash)?;
        let Some(bucket) = place.bucket else { return Err(FsError::NotFound.into()) };
        let data = self.tx.change(self.pin, set, &bucket);
        f(&mut bucket::area_mut(data, bucket.number)?, hash)
    }
}

fn too_many_alike() -> crate::cache::Fault {
    FsError::NoSpace.into()
}
