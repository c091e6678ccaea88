//! Inodes: one block each; the core, and an area for inline data, extents, entries or a target.

use mx_base::Timestamp;
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::directory::INDEX_SIZE;
use super::extent::ExtentEntry;
use super::header::{HEADER_SIZE, Header};
use crate::block::BLOCK_SIZE;

/// Wall time with nanoseconds.
#[derive(
    Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct Time {
    pub seconds: I64,
    pub nanos: U32,
}

impl From<Timestamp> for Time {
    fn from(t: Timestamp) -> Time {
        Time { seconds: I64::new(t.seconds), nanos: U32::new(t.nanos) }
    }
}

impl From<Time> for Timestamp {
    fn from(t: Time) -> Timestamp {
        let nanos = t.nanos.get().min(Timestamp::NANOS_PER_SECOND - 1);
        Timestamp { seconds: t.seconds.get(), nanos }
    }
}

/// What the area behind the core holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum AreaKind {
    /// Nothing: device nodes, FIFOs, sockets.
    Empty = 0,
    /// The bytes of a small file, or the target of a symbolic link.
    Bytes = 1,
    /// The root of the extent tree.
    Extents = 2,
    /// The entries of a small directory.
    Entries = 3,
    /// The root of the index of a large directory.
    Index = 4,
}

impl AreaKind {
    pub const fn from_u8(byte: u8) -> Option<AreaKind> {
        Some(match byte {
            0 => AreaKind::Empty,
            1 => AreaKind::Bytes,
            2 => AreaKind::Extents,
            3 => AreaKind::Entries,
            4 => AreaKind::Index,
            _ => return None,
        })
    }
}

/// The attributes of an inode. Also the contents of the value block of INODE(i).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct InodeCore {
    /// Type and permissions, as `st_mode`.
    pub mode: U32,
    pub uid: U32,
    pub gid: U32,
    pub links: U32,
    pub size: U64,
    /// Blocks allocated for data, extent nodes, directory blocks and extended attributes, without the
    /// inode itself.
    pub blocks: U64,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    pub btime: Time,
    /// Device number of a device node, as the kernel's 32-bit encoding.
    pub rdev: U32,
    pub flags: U32,
    pub generation: U32,
    pub area: u8,
    /// Levels of extent nodes below the root; 0 when the root holds extents.
    pub depth: u8,
    /// Entries in the root of the extent tree.
    pub root_count: U16,
    /// Directory: the inode of its parent.
    pub parent: U64,
    pub parent_generation: U32,
    /// Bytes at the end of the area that hold extended attributes, a multiple of 8; 0 when none.
    pub xattr_inline: U16,
    /// Blocks of extended attributes.
    pub xattr_blocks: u8,
    /// Attributes that are asked for often, as bits: which of them the inode has.
    pub xattr_kinds: u8,
    /// Directory: entries without `.` and `..`.
    pub entries: U64,
    /// The first of those blocks; 0 when there are none.
    pub xattr_first: U64,
    /// Bytes of extended attributes in those blocks; blocks beyond are spare.
    pub xattr_len: U32,
    pub reserved0: [u8; 60],
}

impl InodeCore {
    /// Flag: a recovery could not bring the inode up to date; every access fails.
    pub const ISOLATED: u32 = 1 << 31;
    /// Flag, beside that one: fsck has found the inode damaged beyond repair. What it leads to stays
    /// reserved.
    pub const DAMAGED: u32 = 1 << 30;
    /// Flag: nothing of the object changes.
    pub const IMMUTABLE: u32 = 1;
    /// Flag: nothing of the object is lost.
    pub const APPEND_ONLY: u32 = 1 << 1;
    /// Flag: its access time stays.
    pub const NO_ATIME: u32 = 1 << 2;

    /// `xattr_kinds`: an access ACL, a default ACL, `security.capability`.
    pub const HAS_ACL: u8 = 1;
    pub const HAS_DEFAULT_ACL: u8 = 2;
    pub const HAS_CAPABILITY: u8 = 4;

    /// Bytes of the area in front of the extended attributes.
    pub fn room(&self) -> usize {
        AREA_SIZE.saturating_sub(usize::from(self.xattr_inline.get()))
    }

    /// Entries that the root of the extent tree has room for.
    pub fn root_entries_max(&self) -> usize {
        self.room() / ExtentEntry::SIZE
    }
}

pub const CORE_SIZE: usize = 192;
const _: () = assert!(size_of::<InodeCore>() == CORE_SIZE);

/// Bytes behind the core.
pub const AREA_SIZE: usize = BLOCK_SIZE - HEADER_SIZE - CORE_SIZE;

/// Covered by INODE(i).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct InodeBlock {
    pub header: Header,
    pub core: InodeCore,
    pub area: [u8; AREA_SIZE],
}

impl InodeBlock {
    /// The area without the extended attributes at its end.
    pub fn body(&self) -> &[u8] {
        &self.area[..self.core.room()]
    }

    pub fn body_mut(&mut self) -> &mut [u8] {
        let room = self.core.room();
        &mut self.area[..room]
    }

    /// The root of the extent tree, if the area is one; no more than there is room for, whatever the count says.
    pub fn root_extents(&self) -> &[ExtentEntry] {
        let count = usize::from(self.core.root_count.get()).min(self.core.root_entries_max());
        let bytes = &self.area[..count * ExtentEntry::SIZE];
        <[ExtentEntry]>::ref_from_bytes(bytes).expect("whole entries")
    }

    /// The root of the index of a directory, if the area is one.
    pub fn root_pointers(&self) -> Vec<u64> {
        let pointers = <[U64]>::ref_from_bytes(&self.area[..INDEX_SIZE]).expect("whole pointers");
        pointers.iter().map(|pointer| pointer.get()).collect()
    }
}
