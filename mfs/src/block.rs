//! A block: 4 KiB of aligned memory, the unit of everything on disk.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 4096;
/// The same as a file offset counts it.
pub const BLOCK_SIZE_U64: u64 = BLOCK_SIZE as u64;

/// A number of blocks or bytes that are in memory, or the index of one.
#[expect(clippy::cast_possible_truncation, reason = "asserted: as wide as the number")]
pub(crate) const fn as_usize(number: u64) -> usize {
    const { assert!(usize::BITS >= u64::BITS) };
    number as usize
}

/// Address of a block on the device, counted in blocks from its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockNo(pub u64);

impl BlockNo {
    /// The block `blocks` further on.
    #[must_use]
    pub const fn plus(self, blocks: u64) -> BlockNo {
        BlockNo(self.0 + blocks)
    }
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The bytes of a block, aligned so that direct I/O may use them in place.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub struct Block(pub [u8; BLOCK_SIZE]);

impl Block {
    pub fn zeroed() -> Box<Block> {
        Box::new(Block([0; BLOCK_SIZE]))
    }

    /// `count` zeroed blocks in one piece.
    pub fn zeroed_many(count: usize) -> Box<[Block]> {
        vec![Block([0; BLOCK_SIZE]); count].into_boxed_slice()
    }

    /// The block seen as one of the structures of `ondisk`, each of which fills a block exactly.
    pub fn get<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> &T {
        match T::ref_from_bytes(&self.0) {
            Ok(structure) => structure,
            Err(_) => unreachable!("every structure on disk fills a block"),
        }
    }

    /// As [`Block::get`], to change it.
    pub fn get_mut<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned>(
        &mut self,
    ) -> &mut T {
        match T::mut_from_bytes(&mut self.0) {
            Ok(structure) => structure,
            Err(_) => unreachable!("every structure on disk fills a block"),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Block(..)")
    }
}

/// A block that several may look at and nobody changes. (An `Arc<Block>` would take 8 KiB: its
/// counters are padded to the alignment of the block.)
#[derive(Clone, Debug)]
#[expect(clippy::redundant_allocation, reason = "see the comment: half the memory")]
pub struct SharedBlock(Arc<Box<Block>>);

impl SharedBlock {
    pub fn ptr_eq(&self, other: &SharedBlock) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// To change it: a copy, unless nobody else looks at it.
    pub fn make_mut(&mut self) -> &mut Block {
        let boxed: &mut Box<Block> = Arc::make_mut(&mut self.0);
        boxed
    }

    pub fn to_boxed(&self) -> Box<Block> {
        Box::clone(&self.0)
    }
}

impl From<Box<Block>> for SharedBlock {
    fn from(block: Box<Block>) -> SharedBlock {
        SharedBlock(Arc::new(block))
    }
}

impl Deref for SharedBlock {
    type Target = Block;

    fn deref(&self) -> &Block {
        &self.0
    }
}

/// Blocks in one piece that several may look at and nobody changes.
#[derive(Clone, Debug)]
pub struct SharedRun(Arc<Box<[Block]>>);

impl From<Box<[Block]>> for SharedRun {
    fn from(blocks: Box<[Block]>) -> SharedRun {
        SharedRun(Arc::new(blocks))
    }
}

impl Deref for SharedRun {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_for_direct_io() {
        let one = Block::zeroed();
        assert_eq!(std::ptr::from_ref(&*one) as usize % BLOCK_SIZE, 0);
        let many = Block::zeroed_many(3);
        assert_eq!(many.as_bytes().len(), 3 * BLOCK_SIZE);
        assert_eq!(many.as_ptr() as usize % BLOCK_SIZE, 0);
    }
}
