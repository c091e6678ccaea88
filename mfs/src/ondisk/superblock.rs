//! The superblock: the geometry of the file system, and what a reader must understand.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::Header;
use super::inode::Time;

/// The first superblock; blocks 0-15 stay free for boot records and other signatures.
pub const SUPERBLOCK_AT: u64 = 16;
/// The second copy, found without knowing the geometry.
pub const SUPERBLOCK_COPY_AT: u64 = 32;
/// Revision of the whole format; a reader refuses others.
pub const FORMAT_VERSION: u32 = 1;

/// Feature bits that this release understands, by class (as in ext4): an unknown compatible bit
/// is ignored, an unknown read-only bit allows reading, an unknown incompatible bit nothing.
pub const FEATURES_COMPAT_KNOWN: u64 = 0;
pub const FEATURES_RO_COMPAT_KNOWN: u64 = 0;
pub const FEATURES_INCOMPAT_KNOWN: u64 = FEATURE_XATTR;

/// Incompatible: inodes may have extended attributes.
pub const FEATURE_XATTR: u64 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct SuperblockBlock {
    pub header: Header,
    pub format_version: U32,
    pub block_size: U32,
    pub features_compat: U64,
    pub features_ro_compat: U64,
    pub features_incompat: U64,
    /// UTF-8, padded with zeros.
    pub label: [u8; 64],
    pub created: Time,
    pub reserved0: U32,
    /// Blocks of the device that the file system uses.
    pub device_blocks: U64,
    pub group_blocks: U64,
    pub group_count: U64,
    pub group_start: U64,
    pub chunk_blocks: U32,
    pub slot_count: U16,
    pub node_count_max: U16,
    pub slot_start: U64,
    pub membership_start: U64,
    pub membership_blocks: U64,
    pub root_inode: U64,
    pub root_generation: U32,
    /// Blocks of the journal that a slot gets when it is first used.
    pub journal_blocks: U32,
    /// Key of the hash of directory entries.
    pub hash_key: [u8; 16],
    /// Identity of the cluster that formatted the device.
    pub cluster_id: [u8; 16],
    pub reserved1: [u8; 3808],
}
