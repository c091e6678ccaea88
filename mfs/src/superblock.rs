//! Finding and reading a superblock.

use mx_base::{ClusterId, FsId};

use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::error::{Corruption, CorruptionKind, DiskError};
use crate::file::{FileId, InodeNo};
use crate::layout::Layout;
use crate::ondisk::header::{self, Header, Kind};
use crate::ondisk::superblock::{
    FEATURE_XATTR, FEATURES_INCOMPAT_KNOWN, FEATURES_RO_COMPAT_KNOWN, FORMAT_VERSION,
    SUPERBLOCK_AT, SUPERBLOCK_COPY_AT, SuperblockBlock,
};

/// What a superblock says.
#[derive(Clone, Debug)]
pub struct Superblock {
    pub fs_id: FsId,
    pub cluster_id: ClusterId,
    pub label: String,
    pub layout: Layout,
    pub root: FileId,
    pub hash_key: [u8; 16],
    /// A read-only feature is set that this release does not know.
    pub read_only: bool,
    /// Inodes may have extended attributes.
    pub xattrs: bool,
    /// The copy it was read from; not [`SUPERBLOCK_AT`] when that one is damaged.
    pub copy: BlockNo,
    pub version: u64,
}

/// Why a device is not mounted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SuperblockError {
    #[error("not a MatrixFS device: no superblock found")]
    NotFound,
    #[error("all copies of the superblock are damaged; the first: {0}")]
    Damaged(Corruption),
    #[error("format version {found}; this release reads version {FORMAT_VERSION}")]
    Version { found: u32 },
    #[error("formatted with features {bits:#x} that this release does not know")]
    Features { bits: u64 },
    #[error("the superblock describes {expected} blocks, the device has only {found}")]
    DeviceTooSmall { expected: u64, found: u64 },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Reads the first whole copy.
///
/// # Errors
/// [`SuperblockError`]; a device that never was formatted is told from a damaged one.
pub async fn read(disk: &dyn Disk) -> Result<Superblock, SuperblockError> {
    let mut damaged = None;
    let mut candidates = vec![BlockNo(SUPERBLOCK_AT), BlockNo(SUPERBLOCK_COPY_AT)];
    // The copies inside the groups, where a device of this size has them.
    if let Ok(layout) = Layout::for_device(disk.blocks()) {
        candidates.extend(layout.superblock_copies().skip(2).take(4));
    }
    for at in candidates {
        if at.0 >= disk.blocks() {
            continue;
        }
        let block = disk.read(at, 1).await?;
        match parse(&block[0], at) {
            Ok(superblock) => {
                if superblock.copy != BlockNo(SUPERBLOCK_AT) {
                    tracing::warn!(copy = at.0, "superblock damaged, using another copy");
                }
                let (expected, found) = (superblock.layout.device_blocks, disk.blocks());
                if found < expected {
                    return Err(SuperblockError::DeviceTooSmall { expected, found });
                }
                return Ok(superblock);
            }
            Err(Parse::Refused(error)) => return Err(error),
            Err(Parse::Foreign) => {}
            Err(Parse::Damaged(corruption)) => damaged = damaged.or(Some(corruption)),
        }
    }
    match damaged {
        Some(corruption) => Err(SuperblockError::Damaged(corruption)),
        None => Err(SuperblockError::NotFound),
    }
}

/// What a copy says, if it is whole and for this release.
pub(crate) fn read_copy(block: &Block, at: BlockNo) -> Option<Superblock> {
    parse(block, at).ok()
}

enum Parse {
    /// Not ours at all.
    Foreign,
    Damaged(Corruption),
    /// Whole, and not for this release.
    Refused(SuperblockError),
}

fn parse(block: &Block, at: BlockNo) -> Result<Superblock, Parse> {
    let head = Header::of(block);
    if head.magic.get() != header::MAGIC {
        return Err(Parse::Foreign);
    }
    let fs_id = FsId(head.fs_id);
    let header = header::check(block, fs_id, at).map_err(Parse::Damaged)?;
    let damaged =
        |kind, expected, found| Parse::Damaged(Corruption { block: at, kind, expected, found });
    if header.kind() != Some(Kind::Superblock) {
        return Err(damaged(CorruptionKind::Kind, Kind::Superblock as u64, header.kind.into()));
    }
    let sb: &SuperblockBlock = block.get();
    let found = sb.format_version.get();
    if found != FORMAT_VERSION {
        return Err(Parse::Refused(SuperblockError::Version { found }));
    }
    let unknown = sb.features_incompat.get() & !FEATURES_INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(Parse::Refused(SuperblockError::Features { bits: unknown }));
    }
    let layout = Layout::of_superblock(sb).map_err(|kind| damaged(kind, 0, 0))?;
    let root = FileId { inode: InodeNo(sb.root_inode.get()), generation: sb.root_generation.get() };
    let label = sb.label.split(|b| *b == 0).next().unwrap_or_default();
    Ok(Superblock {
        fs_id,
        cluster_id: ClusterId(sb.cluster_id),
        label: String::from_utf8_lossy(label).into_owned(),
        layout,
        root,
        hash_key: sb.hash_key,
        xattrs: sb.features_incompat.get() & FEATURE_XATTR != 0,
        read_only: sb.features_ro_compat.get() & !FEATURES_RO_COMPAT_KNOWN != 0,
        copy: at,
        version: header.version(),
    })
}
