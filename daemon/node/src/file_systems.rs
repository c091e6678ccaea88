//! The file systems of a cluster, and how their locks are told apart.
//!
//! Keeps true:
//! * every member derives the same number for the lock space of a file system, from the file
//!   system's id alone, and no two file systems of a node have the same;
//! * whoever joins enters exactly the lock spaces that the members have: one that it does not know,
//!   or that nobody has told it about, ends its start before it has taken part in any.

use std::collections::BTreeMap;
use std::fmt;

use cluster::JoinBlob;
use lcl::{EnterError, HandleError, WelcomeError};
use mx_base::FsId;

use crate::file_system::FileSystem;

/// The lock spaces' part of what a joiner is given.
const LAYER_LOCKS: u16 = 1;

/// The number of a file system's lock space in frames and messages. Every member enters it with
/// its first view.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lockspace(u32);

impl Lockspace {
    /// FNV-1a over the id of the file system; 1 instead of 0, which says that none is meant.
    pub(crate) fn of(fs: FsId) -> Lockspace {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        Lockspace(fs.0.iter().fold(0x811c_9dc5, step).max(1))
    }

    pub(crate) fn for_locks(self) -> lcl::LockspaceId {
        lcl::LockspaceId(self.0)
    }

    pub(crate) fn for_frames(self) -> cluster::LockspaceId {
        cluster::LockspaceId(self.0)
    }

    pub(crate) fn blob(self, bytes: Vec<u8>) -> JoinBlob {
        JoinBlob { layer: LAYER_LOCKS, id: self.0, bytes }
    }

    /// What a joiner was told about this lock space.
    pub(crate) fn told(self, join_state: Option<&[JoinBlob]>) -> Option<&[u8]> {
        let mut blobs = join_state.unwrap_or_default().iter();
        let blob = blobs.find(|blob| blob.layer == LAYER_LOCKS && blob.id == self.0)?;
        Some(&blob.bytes)
    }
}

impl fmt::Debug for Lockspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Lockspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lock space {:#010x}", self.0)
    }
}

/// What this node has to do with no lock of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} belongs to no file system that this node is configured with")]
pub(crate) struct ForeignLockspace(pub(crate) Lockspace);

/// Why this node cannot go on with the others in a view: their locks are not the same, or it does
/// not know who holds what.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotEntered {
    #[error(transparent)]
    Foreign(#[from] ForeignLockspace),
    #[error("nobody has told this node about the locks of file system {fs}")]
    NotTold { fs: FsId },
    #[error(transparent)]
    Welcome(#[from] WelcomeError),
    #[error(transparent)]
    Enter(#[from] EnterError),
    #[error(transparent)]
    Follow(#[from] HandleError),
}

/// Why a node cannot serve a set of file systems.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileSystemsError {
    #[error("a node serves one file system at least")]
    None,
    #[error("a cluster has at most {} file systems", cluster::FILE_SYSTEMS_MAX)]
    TooMany,
    #[error("file system {0} is there twice")]
    Twice(FsId),
    /// The later one is made anew, with another id.
    #[error("the locks of file systems {0} and {1} cannot be told apart")]
    SameLockspace(FsId, FsId),
}

/// What a node is to serve. The same on every node of a cluster.
#[derive(Clone, Debug)]
pub struct FileSystems(BTreeMap<FsId, (FileSystem, Lockspace)>);

impl FileSystems {
    pub fn one(fs: FileSystem) -> FileSystems {
        FileSystems(BTreeMap::from([(fs.id, (fs.clone(), Lockspace::of(fs.id)))]))
    }

    /// # Errors
    /// When one node cannot serve these together.
    pub fn new(all: impl IntoIterator<Item = FileSystem>) -> Result<FileSystems, FileSystemsError> {
        let mut file_systems = BTreeMap::new();
        let mut lockspaces = BTreeMap::new();
        for fs in all {
            let (id, lockspace) = (fs.id, Lockspace::of(fs.id));
            if file_systems.insert(id, (fs, lockspace)).is_some() {
                return Err(FileSystemsError::Twice(id));
            }
            if let Some(other) = lockspaces.insert(lockspace, id) {
                return Err(FileSystemsError::SameLockspace(other, id));
            }
        }
        match file_systems.len() {
            0 => Err(FileSystemsError::None),
            count if count > cluster::FILE_SYSTEMS_MAX => Err(FileSystemsError::TooMany),
            _ => Ok(FileSystems(file_systems)),
        }
    }

    /// In the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &FileSystem> {
        self.0.values().map(|(fs, _)| fs)
    }

    pub fn get(&self, id: FsId) -> Option<&FileSystem> {
        self.0.get(&id).map(|(fs, _)| fs)
    }

    /// At least 1.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn with_lockspaces(&self) -> impl Iterator<Item = (&FileSystem, Lockspace)> {
        self.0.values().map(|(fs, lockspace)| (fs, *lockspace))
    }

    /// Whose locks a frame is about.
    pub(crate) fn of_lockspace(&self, id: cluster::LockspaceId) -> Result<FsId, ForeignLockspace> {
        let mut all = self.with_lockspaces();
        let found = all.find(|(_, lockspace)| lockspace.for_frames() == id);
        found.map(|(fs, _)| fs.id).ok_or(ForeignLockspace(Lockspace(id.0)))
    }

    /// A joiner knows every lock space that the members tell it about.
    pub(crate) fn know(&self, join_state: Option<&[JoinBlob]>) -> Result<(), ForeignLockspace> {
        let blobs = join_state.unwrap_or_default().iter();
        for blob in blobs.filter(|blob| blob.layer == LAYER_LOCKS) {
            self.of_lockspace(cluster::LockspaceId(blob.id))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
