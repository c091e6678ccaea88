//! Names of resources, and the one lock that covers a block (I1).

use lcl::{Bucket, ResourceName};
use mx_base::SlotId;

use crate::block::BlockNo;
use crate::error::{Corruption, CorruptionKind};
use crate::file::InodeNo;
use crate::layout::{GroupNo, Layout};
use crate::ondisk::{Header, Kind};

/// What a cluster lock of the file system protects (`docs/spec/locks.md`).
///
/// Types that later stages use (RANGE, DIR, QUOTA, APP) have their numbers reserved in
/// [`Resource::name`]. Locks of applications lie beside the inode's, under its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Resource {
    /// The configuration; EX to be alone with the file system.
    Superblock,
    /// PR while something is changed, EX to suspend the file system (`freeze.rs`).
    Freeze,
    /// A slot with its journal; a recoverer's right to replay it.
    Slot(SlotId),
    /// Bitmap, chunk table and header of a group, and the free blocks of its metadata chunks.
    Group(GroupNo),
    /// Attributes, extents, contents and entries of an inode.
    Inode(InodeNo),
    /// CR while open, EX to free: the last close in the cluster.
    Open(InodeNo),
    /// Moving directories between directories.
    Rename,
    /// Claims on chunks: PR to have some, EX to have the others give back what they do not need.
    Space,
}

impl Resource {
    /// Type byte, then the number, little-endian. Bytes 6, 7 and 10 to 13 are reserved for
    /// RANGE, DIR, QUOTA and APP.
    pub fn name(self) -> ResourceName {
        let (kind, id) = match self {
            Resource::Superblock => (1, 0),
            Resource::Freeze => (2, 0),
            Resource::Slot(slot) => (3, u64::from(slot.0)),
            Resource::Group(group) => (4, group.0),
            Resource::Inode(inode) => (5, inode.0),
            Resource::Open(inode) => (8, inode.0),
            Resource::Rename => (9, 0),
            Resource::Space => (14, 0),
        };
        let mut bytes = [0; 9];
        bytes[0] = kind;
        bytes[1..].copy_from_slice(&id.to_le_bytes());
        match ResourceName::new(&bytes) {
            Some(name) => name,
            None => unreachable!("nine bytes fit a name"),
        }
    }

    /// The resource that a name means; `None` for other names.
    pub fn of_name(name: &ResourceName) -> Option<Resource> {
        let (kind, id) = name.as_bytes().split_first()?;
        let id = u64::from_le_bytes(id.try_into().ok()?);
        Some(match kind {
            1 if id == 0 => Resource::Superblock,
            2 if id == 0 => Resource::Freeze,
            3 => Resource::Slot(SlotId(u16::try_from(id).ok()?)),
            4 => Resource::Group(GroupNo(id)),
            5 => Resource::Inode(InodeNo(id)),
            8 => Resource::Open(InodeNo(id)),
            9 if id == 0 => Resource::Rename,
            14 if id == 0 => Resource::Space,
            _ => return None,
        })
    }

    /// Does a kernel serve from its own memory, without asking, what the lock of this name protects?
    /// Attributes, contents and entries only (`docs/spec/recovery.md`). Of a name that this release
    /// does not know it is to be feared.
    pub fn is_cached_by_kernels(name: &ResourceName) -> bool {
        matches!(Resource::of_name(name), Some(Resource::Inode(_)) | None)
    }

    /// Objects on disk share the bucket of their group, so that what a node makes in a group that
    /// is homed on itself is locked without a message; everything else is spread by its name.
    pub fn bucket(self, layout: &Layout) -> Bucket {
        const GROUPS: u64 = 0;
        const NAMES: u64 = 1 << 63;
        match self {
            Resource::Group(group) => Bucket::of(GROUPS | group.0),
            Resource::Inode(inode) | Resource::Open(inode) => {
                let group = layout.group_of(BlockNo(inode.0)).unwrap_or_default();
                Bucket::of(GROUPS | group.0)
            }
            Resource::Superblock => Bucket::of(NAMES | 1),
            Resource::Rename => Bucket::of(NAMES | 2),
            Resource::Space => Bucket::of(NAMES | 3),
            Resource::Freeze => Bucket::of(NAMES | 4),
            Resource::Slot(slot) => Bucket::of(NAMES | (1 << 32) | u64::from(slot.0)),
        }
    }
}

/// The one lock that covers a block, told from the block's own header (I1).
///
/// # Errors
/// When the header names an owner that cannot be.
pub fn covering(header: &Header, layout: &Layout) -> Result<Resource, Corruption> {
    let block = BlockNo(header.block.get());
    let owner = header.owner.get();
    let wrong = |kind, expected, found| Corruption { block, kind, expected, found };
    let Some(kind) = header.kind() else {
        return Err(wrong(CorruptionKind::Kind, 0, u64::from(header.kind)));
    };
    Ok(match kind {
        Kind::Superblock => Resource::Superblock,
        Kind::GroupHeader | Kind::Bitmap | Kind::ChunkTable | Kind::GroupMap | Kind::Free => {
            if layout.group_of(block) != Some(GroupNo(owner)) {
                let found = layout.group_of(block).map_or(u64::MAX, |g| g.0);
                return Err(wrong(CorruptionKind::Owner, found, owner));
            }
            Resource::Group(GroupNo(owner))
        }
        Kind::SlotHead | Kind::SlotBody | Kind::Orphans | Kind::JournalHeader => {
            match u16::try_from(owner) {
                Ok(slot) if slot < layout.slot_count => Resource::Slot(SlotId(slot)),
                _ => return Err(wrong(CorruptionKind::Owner, 0, owner)),
            }
        }
        Kind::Inode | Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr => {
            Resource::Inode(InodeNo(owner))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_resource() {
        for resource in [
            Resource::Superblock,
            Resource::Freeze,
            Resource::Slot(SlotId(7)),
            Resource::Group(GroupNo(65_535)),
            Resource::Inode(InodeNo(1 << 51)),
            Resource::Open(InodeNo(3)),
            Resource::Rename,
            Resource::Space,
        ] {
            assert_eq!(Resource::of_name(&resource.name()), Some(resource));
        }
        let foreign = ResourceName::new(b"application").expect("short");
        assert_eq!(Resource::of_name(&foreign), None);
        assert!(Resource::is_cached_by_kernels(&foreign));
    }

    #[test]
    fn everything_in_a_group_shares_its_bucket() {
        let layout = Layout::for_device(1 << 20).expect("in range");
        let group = GroupNo(9);
        let inode = InodeNo(layout.group_first(group).0 + 40);
        let bucket = Resource::Group(group).bucket(&layout);
        assert_eq!(Resource::Inode(inode).bucket(&layout), bucket);
        assert_eq!(Resource::Open(inode).bucket(&layout), bucket);
    }
}
