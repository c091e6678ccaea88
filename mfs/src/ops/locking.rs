//! Pinning several inodes in the fixed order: directories by number, then the others by number.
//!
//! Which inodes an operation needs is known only after it has looked into a directory, for which
//! the directory has to be pinned. Where what was found comes earlier in the order, everything is
//! let go and pinned anew, in order, and looked up again.

use std::collections::BTreeMap;
use std::sync::Arc;

use lcl::pin::{Pin, Want};

use crate::dir::{Directory, Dirent};
use crate::error::FsError;
use crate::file::{FileId, FileType, InodeNo};
use crate::fs::Fs;
use crate::inode::{Inode, State};

/// Place of an inode in the order.
type Rank = (bool, InodeNo);

fn rank(no: InodeNo, is_directory: bool) -> Rank {
    (!is_directory, no)
}

/// Inodes pinned together.
#[derive(Default)]
pub(crate) struct Pinned {
    by_inode: BTreeMap<InodeNo, (Arc<Inode>, Pin)>,
}

impl Pinned {
    pub(crate) fn inode(&self, no: InodeNo) -> &Arc<Inode> {
        &self.by_inode[&no].0
    }

    pub(crate) fn pin(&self, no: InodeNo) -> &Pin {
        &self.by_inode[&no].1
    }

    /// The pins, to be kept behind the answer.
    pub(crate) fn into_pins(self) -> Vec<Pin> {
        self.by_inode.into_values().map(|(_, pin)| pin).collect()
    }
}

/// A name in a directory that an operation works on.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: FileId,
    pub(crate) name: &'a [u8],
}

impl Fs {
    /// Pins the directories of `places` and what the names lead to, and beside them `others`, all
    /// with `want`; returns the entries found, which hold as long as the pins.
    pub(crate) async fn pin_places(
        &self,
        places: &[At<'_>],
        others: &[(FileId, FileType)],
        want: Want,
    ) -> Result<(Pinned, Vec<Option<Dirent>>), FsError> {
        let dirs = places.iter().map(|at| rank(at.dir.inode, true));
        let others = others.iter().map(|(file, t)| rank(file.inode, *t == FileType::Directory));
        let base: Vec<Rank> = dirs.chain(others).collect();
        let mut planned = base.clone();
        loop {
            planned.sort_unstable();
            planned.dedup_by_key(|(_, no)| *no);
            let mut pinned = Pinned::default();
            for (_, no) in &planned {
                self.pin_into(&mut pinned, *no, want).await?;
            }
            let mut found = Vec::with_capacity(places.len());
            for at in places {
                found.push(self.find_in(&pinned, at).await?);
            }
            let wanted = found
                .iter()
                .flatten()
                .map(|e| rank(e.file.inode, e.file_type == FileType::Directory));
            let is_missing = |(_, no): &Rank| !pinned.by_inode.contains_key(no);
            let mut more: Vec<Rank> = wanted.clone().filter(is_missing).collect();
            more.sort_unstable();
            more.dedup();
            if more.first() >= planned.last() || more.is_empty() {
                for (_, no) in more {
                    self.pin_into(&mut pinned, no, want).await?;
                }
                return Ok((pinned, found));
            }
            // Also what was pinned: another round would find that missing, and then this again.
            let is_new = |(_, no): &Rank| base.iter().all(|(_, other)| other != no);
            planned = base.iter().copied().chain(wanted.filter(is_new)).collect();
        }
    }

    async fn pin_into(&self, pinned: &mut Pinned, no: InodeNo, want: Want) -> Result<(), FsError> {
        let inode = self.inode(no)?;
        let pin = inode.entry.pin(want).await?;
        pinned.by_inode.insert(no, (inode, pin));
        Ok(())
    }

    async fn find_in(&self, pinned: &Pinned, at: &At<'_>) -> Result<Option<Dirent>, FsError> {
        let inode = pinned.inode(at.dir.inode);
        self.find(inode, at.dir, at.name).await
    }

    /// What a name in a pinned directory leads to.
    pub(crate) async fn find(
        &self,
        inode: &Arc<Inode>,
        dir: FileId,
        name: &[u8],
    ) -> Result<Option<Dirent>, FsError> {
        let tx = self.transaction();
        self.settle(|| {
            inode.with_file(dir, |state| Ok(check_directory(state)?))?;
            Directory { inode, key: &self.hash_key }.find(&tx, name)
        })
        .await
    }
}

pub(crate) fn check_directory(state: &State) -> Result<(), FsError> {
    if state.core().file_type() == FileType::Directory {
        Ok(())
    } else {
        Err(FsError::NotDirectory)
    }
}
