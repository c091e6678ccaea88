//! What the outside calls a file by, and what it is told about one.

use std::fmt;

use mx_base::Timestamp;

use crate::block::BLOCK_SIZE_U64;

/// Number of an inode: the address of its block.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNo(pub u64);

impl fmt::Display for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for InodeNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i{}", self.0)
    }
}

/// A file for good: the number is used again after the file is gone, with another generation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub inode: InodeNo,
    pub generation: u32,
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}.{}", self.inode, self.generation)
    }
}

/// Type of a file; the numbers are those of `st_mode >> 12` and of `d_type`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FileType {
    Fifo = 1,
    CharDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    SymbolicLink = 10,
    Socket = 12,
}

impl FileType {
    pub const fn from_u8(byte: u8) -> Option<FileType> {
        Some(match byte {
            1 => FileType::Fifo,
            2 => FileType::CharDevice,
            4 => FileType::Directory,
            6 => FileType::BlockDevice,
            8 => FileType::Regular,
            10 => FileType::SymbolicLink,
            12 => FileType::Socket,
            _ => return None,
        })
    }

    /// The type bits of a mode.
    pub const fn of_mode(mode: u32) -> Option<FileType> {
        FileType::from_u8(((mode >> 12) & 0xf) as u8)
    }

    /// As the type bits of a mode.
    pub const fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }
}

/// Permission bits of a mode, with set-id and sticky bits.
pub const PERMISSIONS: u32 = 0o7777;

/// What `chattr(1)` sets and `statx(2)` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileFlags {
    /// `FS_IMMUTABLE_FL`: nothing of it changes.
    pub immutable: bool,
    /// `FS_APPEND_FL`: nothing of it is lost.
    pub append_only: bool,
    /// `FS_NOATIME_FL`: its access time stays.
    pub no_atime: bool,
}

/// What `stat` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    pub file: FileId,
    pub file_type: FileType,
    /// Permission bits only.
    pub permissions: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u32,
    pub size: u64,
    /// Units of 4 KiB.
    pub blocks: u64,
    /// The contents are in the inode's own block, which is none of `blocks`.
    pub is_inline: bool,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
    pub rdev: u32,
    pub flags: FileFlags,
}

impl Attributes {
    /// What stat(2) counts, in units of 512 bytes. A file that is not empty is never said to take
    /// none when there are contents: programs that archive would take it for one hole.
    pub fn sectors(&self) -> u64 {
        const SECTOR: u64 = 512;
        let inline = if self.is_inline { self.size.div_ceil(SECTOR) } else { 0 };
        self.blocks * (BLOCK_SIZE_U64 / SECTOR) + inline
    }
}

/// The largest offset a file may reach: what `off_t` holds.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
