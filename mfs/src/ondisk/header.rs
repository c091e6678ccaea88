//! The header of every metadata block: what it is, whose it is, how new it is.
//!
//! Keeps I3: a block's version grows over its whole life, whatever it is used for. The header
//! alone names the lock that covers the block (I1, [`crate::locks::covering`]).

use mx_base::{FsId, Incarnation, SlotId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{Block, BlockNo};
use crate::error::{Corruption, CorruptionKind};

/// `MXFB`, in the order of the bytes on disk.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MXFB");

/// What a block is. The numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    Superblock = 1,
    GroupHeader = 2,
    Bitmap = 3,
    ChunkTable = 4,
    GroupMap = 5,
    SlotHead = 6,
    Orphans = 7,
    /// A block of a metadata chunk that is not in use; covered by its group's lock.
    Free = 8,
    Inode = 9,
    ExtentNode = 10,
    DirIndex = 11,
    DirBucket = 12,
    JournalHeader = 14,
    SlotBody = 15,
    Xattr = 16,
}

impl Kind {
    pub const fn from_u8(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Superblock,
            2 => Kind::GroupHeader,
            3 => Kind::Bitmap,
            4 => Kind::ChunkTable,
            5 => Kind::GroupMap,
            6 => Kind::SlotHead,
            7 => Kind::Orphans,
            8 => Kind::Free,
            9 => Kind::Inode,
            10 => Kind::ExtentNode,
            11 => Kind::DirIndex,
            12 => Kind::DirBucket,
            14 => Kind::JournalHeader,
            15 => Kind::SlotBody,
            16 => Kind::Xattr,
            _ => return None,
        })
    }
}

/// The first 64 bytes of every metadata block.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct Header {
    pub magic: U32,
    pub kind: u8,
    pub reserved0: u8,
    /// The slot that wrote the block in place; [`Header::NO_SLOT`] for mkfs.
    pub slot: U16,
    pub fs_id: [u8; 16],
    pub block: U64,
    /// Inode, group or slot number, by kind.
    pub owner: U64,
    /// Generation of the owning inode; 0 where the owner is no inode.
    pub owner_generation: U32,
    /// Incarnation of the writing slot.
    pub incarnation: U32,
    pub version: U64,
    /// Hash bucket once a directory has a lock per bucket; 0 until then.
    pub bucket: U32,
    /// CRC-32C of the whole block with this field 0.
    pub crc: U32,
}

/// Bytes in a [`Header`].
pub const HEADER_SIZE: usize = 64;
const _: () = assert!(size_of::<Header>() == HEADER_SIZE);

/// Ranges of the header that are filled in when a block is written in place and therefore are not
/// part of a journal record: writing slot, incarnation, checksum. (Offset, length.)
pub const SEALED_FIELDS: [(usize, usize); 3] = [(6, 2), (44, 4), (60, 4)];

/// Who a block belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    pub id: u64,
    pub generation: u32,
}

impl Owner {
    /// A group or a slot.
    pub const fn plain(id: u64) -> Owner {
        Owner { id, generation: 0 }
    }
}

/// Who writes: goes into the header of every block written in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    pub slot: SlotId,
    pub incarnation: Incarnation,
}

impl Writer {
    /// mkfs, before there are slots.
    pub const MKFS: Writer = Writer { slot: SlotId(Header::NO_SLOT), incarnation: Incarnation(0) };
}

impl Header {
    pub const NO_SLOT: u16 = u16::MAX;

    /// A header for a block that is about to become `kind`; sealed when it is written.
    pub fn new(fs_id: FsId, kind: Kind, block: BlockNo, owner: Owner, version: u64) -> Header {
        Header {
            magic: U32::new(MAGIC),
            kind: kind as u8,
            reserved0: 0,
            slot: U16::new(Header::NO_SLOT),
            fs_id: fs_id.0,
            block: U64::new(block.0),
            owner: U64::new(owner.id),
            owner_generation: U32::new(owner.generation),
            incarnation: U32::ZERO,
            version: U64::new(version),
            bucket: U32::ZERO,
            crc: U32::ZERO,
        }
    }

    pub fn of(block: &Block) -> &Header {
        match Header::ref_from_prefix(&block.0) {
            Ok((header, _)) => header,
            Err(_) => unreachable!("a block is larger than a header"),
        }
    }

    pub fn of_mut(block: &mut Block) -> &mut Header {
        match Header::mut_from_prefix(&mut block.0) {
            Ok((header, _)) => header,
            Err(_) => unreachable!("a block is larger than a header"),
        }
    }

    pub fn kind(&self) -> Option<Kind> {
        Kind::from_u8(self.kind)
    }

    pub fn version(&self) -> u64 {
        self.version.get()
    }

    pub fn owner(&self) -> Owner {
        Owner { id: self.owner.get(), generation: self.owner_generation.get() }
    }
}

/// Fills in writer and checksum, the last step before a block is written in place.
pub fn seal(block: &mut Block, writer: Writer) {
    let header = Header::of_mut(block);
    header.slot = U16::new(writer.slot.0);
    header.incarnation = U32::new(writer.incarnation.0);
    header.crc = U32::ZERO;
    let crc = crc32c(&block.0);
    Header::of_mut(block).crc = U32::new(crc);
}

/// Is this a block of the file system, whole, and the one that was asked for?
///
/// # Errors
/// The first thing that is wrong, with what was expected and found.
pub fn check(block: &Block, fs_id: FsId, number: BlockNo) -> Result<&Header, Corruption> {
    let header = Header::of(block);
    let wrong =
        |kind, expected: u64, found: u64| Corruption { block: number, kind, expected, found };
    if header.magic.get() != MAGIC {
        return Err(wrong(CorruptionKind::Magic, u64::from(MAGIC), u64::from(header.magic.get())));
    }
    let stored = header.crc.get();
    let crc = crc32c_with_hole(&block.0, 60);
    if crc != stored {
        return Err(wrong(CorruptionKind::Checksum, u64::from(crc), u64::from(stored)));
    }
    if header.fs_id != fs_id.0 {
        return Err(wrong(CorruptionKind::FileSystem, 0, 0));
    }
    if header.block.get() != number.0 {
        return Err(wrong(CorruptionKind::Address, number.0, header.block.get()));
    }
    if header.kind().is_none() {
        return Err(wrong(CorruptionKind::Kind, 0, u64::from(header.kind)));
    }
    Ok(header)
}

/// The header of a block that [`check`] refuses, if it is that of this block all the same: then the
/// sector with it is one that was written here, whatever has become of the others.
pub fn of_damaged(block: &Block, fs_id: FsId, number: BlockNo) -> Option<&Header> {
    let header = Header::of(block);
    let is_here = header.magic.get() == MAGIC
        && header.fs_id == fs_id.0
        && header.block.get() == number.0
        && header.kind().is_some();
    is_here.then_some(header)
}

/// CRC-32C (Castagnoli), as iSCSI, ext4 and btrfs use it.
#[expect(clippy::cast_possible_truncation, reason = "a 32-bit CRC in a 64-bit return value")]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// As [`crc32c`], with the four bytes at `hole` taken as zero.
#[expect(clippy::cast_possible_truncation, reason = "a 32-bit CRC in a 64-bit return value")]
pub fn crc32c_with_hole(bytes: &[u8], hole: usize) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..hole]);
    digest.update(&[0; 4]);
    digest.update(&bytes[hole + 4..]);
    digest.finalize() as u32
}
