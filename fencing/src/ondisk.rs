//! The records of a membership partition, byte by byte (`docs/spec/fencing.md`).
//!
//! Every record is the first 512 bytes of its block, so that one sector holds all of it; the rest
//! of the block is zero. Little-endian, no implicit padding. Every record begins with the same 32
//! bytes and ends with a crc32c, at the same place in every version of the format. A record is
//! believed only if magic, checksum, version, cluster and place all fit: a block that was written
//! to the wrong place, or by another cluster, does not count.

pub mod format;
pub mod heartbeat;
pub mod register;
pub mod superblock;

use std::fmt;

use mx_base::ClusterId;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::layout::{BLOCK_SIZE, MpBlock, MpIndex, RECORD_SIZE};

/// The version of the format that this code writes, and the only one it reads.
pub const VERSION: u16 = 1;

/// A block in memory, aligned so that direct I/O may use it in place.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK_SIZE]);

impl Block {
    pub fn zeroed() -> Box<Block> {
        // In place: a `Box::new` of an array of this size goes over the stack.
        match Block::new_box_zeroed() {
            Ok(block) => block,
            Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<Block>()),
        }
    }

    /// `count` zeroed blocks in one piece.
    pub fn zeroed_many(count: usize) -> Box<[Block]> {
        match <[Block]>::new_box_zeroed_with_elems(count) {
            Ok(blocks) => blocks,
            Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<Block>()),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Block(..)")
    }
}

/// Where a record must be to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub cluster: ClusterId,
    pub partition: MpIndex,
    pub block: MpBlock,
}

/// Why a block is not the record that was expected there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("no such record: the magic is {found:02x?}, not {expected:02x?}")]
    Magic { expected: [u8; 8], found: [u8; 8] },
    #[error("the checksum is {found:#010x}, the contents give {computed:#010x}")]
    Checksum { found: u32, computed: u32 },
    #[error("format version {found}, this software knows {VERSION}")]
    Version { found: u16 },
    #[error("belongs to cluster {found}")]
    Cluster { found: ClusterId },
    #[error("written for {found:?} of {partition}, found at {expected:?}", partition = .partition)]
    Place { expected: MpBlock, found: MpBlock, partition: MpIndex },
    #[error("impossible contents: {0}")]
    Contents(&'static str),
}

/// The first 32 bytes of every record.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U16,
    partition: u8,
    reserved: u8,
    block: U32,
    cluster: [u8; 16],
}
const _: () = assert!(size_of::<Header>() == 32);

/// A record as it lies on disk: header first, checksum last.
trait Record: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {
    const MAGIC: [u8; 8];
}

const CHECKSUM_AT: usize = RECORD_SIZE - 4;

fn checksum(record: &[u8]) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &record[..CHECKSUM_AT]);
    u32::try_from(crc).expect("a crc32c has 32 bits")
}

/// Puts header and checksum on a record whose other fields are set, and makes a block of it.
fn seal<R: Record>(mut record: R, place: Place) -> Box<Block> {
    const { assert!(size_of::<R>() == RECORD_SIZE) };
    let bytes = record.as_mut_bytes();
    let header = Header {
        magic: R::MAGIC,
        version: VERSION.into(),
        partition: place.partition.0,
        reserved: 0,
        block: place.block.0.into(),
        cluster: place.cluster.0,
    };
    bytes[..size_of::<Header>()].copy_from_slice(header.as_bytes());
    let crc = checksum(bytes);
    bytes[CHECKSUM_AT..].copy_from_slice(U32::new(crc).as_bytes());
    let mut block = Block::zeroed();
    block.0[..RECORD_SIZE].copy_from_slice(record.as_bytes());
    block
}

/// The record in a block, if it is whole, of this format and in `place`. With no cluster given any
/// will do: that is how a partition is found before one knows whose it is.
fn open<R: Record>(
    block: &Block,
    cluster: Option<ClusterId>,
    partition: Option<MpIndex>,
    at: MpBlock,
) -> Result<(&R, Header), DecodeError> {
    const { assert!(size_of::<R>() == RECORD_SIZE) };
    let bytes = &block.0[..RECORD_SIZE];
    let header = match Header::read_from_prefix(bytes) {
        Ok((header, _)) => header,
        Err(_) => unreachable!("a record is longer than its header"),
    };
    if header.magic != R::MAGIC {
        return Err(DecodeError::Magic { expected: R::MAGIC, found: header.magic });
    }
    let computed = checksum(bytes);
    let found = match U32::read_from_bytes(&bytes[CHECKSUM_AT..]) {
        Ok(crc) => crc.get(),
        Err(_) => unreachable!("the checksum is the last four bytes"),
    };
    if found != computed {
        return Err(DecodeError::Checksum { found, computed });
    }
    if header.version.get() != VERSION {
        return Err(DecodeError::Version { found: header.version.get() });
    }
    let found = ClusterId(header.cluster);
    if cluster.is_some_and(|expected| expected != found) {
        return Err(DecodeError::Cluster { found });
    }
    let found = (MpBlock(header.block.get()), MpIndex(header.partition));
    if found.0 != at || partition.is_some_and(|expected| expected != found.1) {
        return Err(DecodeError::Place { expected: at, found: found.0, partition: found.1 });
    }
    match R::ref_from_bytes(bytes) {
        Ok(record) => Ok((record, header)),
        Err(_) => unreachable!("a record has RECORD_SIZE bytes and no alignment"),
    }
}

#[cfg(test)]
mod tests;
