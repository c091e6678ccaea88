//! What can go wrong, as the file system sees it. Numbers of `errno` exist only in `mfs-fuse`.

use std::fmt;

use lcl::pin::PinError;

use crate::block::BlockNo;

/// Why an operation failed. The doc of each variant names the POSIX error it becomes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FsError {
    /// ENOENT
    #[error("no such entry")]
    NotFound,
    /// EEXIST
    #[error("the entry exists")]
    Exists,
    /// ENOTDIR
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR
    #[error("is a directory")]
    IsDirectory,
    /// ENOTEMPTY
    #[error("the directory is not empty")]
    NotEmpty,
    /// ENAMETOOLONG
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// ENOSPC
    #[error("no space left on the device")]
    NoSpace,
    /// EFBIG
    #[error("larger than a file may be")]
    FileTooLarge,
    /// EMLINK
    #[error("too many links")]
    TooManyLinks,
    /// EINVAL
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// EPERM
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    /// ELOOP
    #[error("a symbolic link where none may be")]
    SymbolicLink,
    /// EROFS
    #[error("mounted read-only")]
    ReadOnly,
    /// ESTALE: the object that the handle meant is gone.
    #[error("the object does not exist any more")]
    Stale,
    /// EOPNOTSUPP
    #[error("not supported")]
    Unsupported,
    /// ENODATA
    #[error("no such extended attribute")]
    NoXattr,
    /// E2BIG
    #[error("an extended attribute larger than it may be")]
    XattrTooLarge,
    /// ERANGE
    #[error("out of range: {0}")]
    OutOfRange(&'static str),
    /// EACCES
    #[error("refused: {0}")]
    Refused(&'static str),
    /// EIO: the disk contradicts itself; the object is isolated, the rest goes on.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// EIO: the object is isolated since an earlier failure.
    #[error("damaged since an earlier failure; see the log of the daemon, and fsck.matrixfs -n")]
    Damaged,
    /// EIO
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// EIO: this node was cut off from the cluster or is leaving it.
    #[error("this node is cut off from the file system")]
    CutOff,
}

impl From<PinError> for FsError {
    fn from(error: PinError) -> FsError {
        match error {
            // A caller that asks without queueing handles the refusal itself.
            PinError::Busy | PinError::CutOff => FsError::CutOff,
        }
    }
}

/// Why a request to the device failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{operation} of {blocks} blocks at block {at}: {reason}")]
    Failed { operation: &'static str, at: BlockNo, blocks: u64, reason: String },
    /// The gate is closed: this node may not touch the device any more.
    #[error("fenced off from the device")]
    Fenced,
    #[error("block {at} lies beyond the end of the device ({end} blocks)")]
    BeyondEnd { at: BlockNo, end: u64 },
}

/// A block that is not what it has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corruption {
    pub block: BlockNo,
    pub kind: CorruptionKind,
    pub expected: u64,
    pub found: u64,
}

/// In what a block differs from what was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CorruptionKind {
    Magic,
    Checksum,
    /// Belongs to another file system, or to an earlier one on this device.
    FileSystem,
    /// Carries another block's number: a misdirected write.
    Address,
    Kind,
    Owner,
    OwnerGeneration,
    Version,
    /// A count or a pointer inside is out of range.
    Contents(&'static str),
}

impl std::error::Error for Corruption {}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Corruption { block, kind, expected, found } = self;
        match kind {
            CorruptionKind::Magic => {
                write!(f, "block {block}: no header (expected {expected:#x}, found {found:#x})")
            }
            CorruptionKind::Checksum => {
                write!(f, "block {block}: checksum {found:#010x}, computed {expected:#010x}")
            }
            CorruptionKind::FileSystem => {
                write!(f, "block {block}: belongs to another file system")
            }
            CorruptionKind::Address => write!(f, "block {block}: carries the number {found}"),
            CorruptionKind::Kind => {
                write!(f, "block {block}: is of kind {found}, expected {expected}")
            }
            CorruptionKind::Owner => {
                write!(f, "block {block}: belongs to {found}, expected {expected}")
            }
            CorruptionKind::OwnerGeneration => write!(
                f,
                "block {block}: belongs to generation {found} of its owner, expected {expected}"
            ),
            CorruptionKind::Version => {
                write!(f, "block {block}: has version {found}, expected {expected}")
            }
            CorruptionKind::Contents(what) => {
                write!(f, "block {block}: {what} (expected {expected}, found {found})")
            }
        }
    }
}
