//! What can be known of a block that is not whole.
//!
//! Keeps true: a block that is put right differs from what was read in one bit, and its checksum
//! proves it. CRC-32C tells all errors of one bit in a block apart, and from those of two and three;
//! a block torn or overwritten is taken for one with a flipped bit once in 100,000.

use mx_base::FsId;
use zerocopy::little_endian::U32;

use crate::block::{BLOCK_SIZE, Block, BlockNo, as_usize};
use crate::env::Disk;
use crate::ondisk::header::{self, Header};

/// A block as it was found where it should be.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Whole(Box<Block>),
    /// One bit was wrong; this is the block with it put right.
    Mended(Box<Block>, usize),
    /// Its header is that of this block, the rest does not belong to it.
    Damaged(Box<Block>),
    /// A whole block of another place, or of another file system.
    Foreign,
    /// Something, without a header.
    Garbage(Box<Block>),
    /// Zeros.
    Nothing,
    /// The device does not give it.
    Unreadable,
}

impl Seen {
    pub(crate) fn of(block: Option<Box<Block>>, fs_id: FsId, at: BlockNo) -> Seen {
        let Some(block) = block else { return Seen::Unreadable };
        if block.0.iter().all(|byte| *byte == 0) {
            return Seen::Nothing;
        }
        if header::check(&block, fs_id, at).is_ok() {
            return Seen::Whole(block);
        }
        let stored = Header::of(&block).crc.get();
        if header::crc32c_with_hole(&block.0, CRC_AT) == stored {
            return Seen::Foreign;
        }
        if let Some((mended, bit)) = mend(&block)
            && header::check(&mended, fs_id, at).is_ok()
        {
            return Seen::Mended(mended, bit);
        }
        match header::of_damaged(&block, fs_id, at) {
            Some(_) => Seen::Damaged(block),
            None => Seen::Garbage(block),
        }
    }

    /// The block, if its contents are beyond doubt.
    pub(crate) fn whole(&self) -> Option<&Block> {
        match self {
            Seen::Whole(block) | Seen::Mended(block, _) => Some(block),
            Seen::Damaged(_)
            | Seen::Foreign
            | Seen::Garbage(_)
            | Seen::Nothing
            | Seen::Unreadable => None,
        }
    }

    /// The block, if its header is that of its place, whatever became of the rest.
    pub(crate) fn of_its_place(&self) -> Option<&Block> {
        match self {
            Seen::Whole(block) | Seen::Mended(block, _) | Seen::Damaged(block) => Some(block),
            Seen::Foreign | Seen::Garbage(_) | Seen::Nothing | Seen::Unreadable => None,
        }
    }

    /// The header of a whole block.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.whole().map(Header::of)
    }
}

/// Reads blocks one by one where they cannot be read together; `None` for those that cannot be read
/// at all.
pub(crate) async fn read_each(
    disk: &dyn Disk,
    first: BlockNo,
    count: u64,
) -> Vec<Option<Box<Block>>> {
    if let Ok(blocks) = disk.read(first, as_usize(count)).await {
        return blocks.into_vec().into_iter().map(|block| Some(Box::new(block))).collect();
    }
    let mut blocks = Vec::new();
    for i in 0..count {
        blocks.push(read_one(disk, first.plus(i)).await);
    }
    blocks
}

/// One block; `None` when it cannot be read.
pub(crate) async fn read_one(disk: &dyn Disk, at: BlockNo) -> Option<Box<Block>> {
    if at.0 >= disk.blocks() {
        return None;
    }
    disk.read(at, 1).await.ok()?.into_vec().pop().map(Box::new)
}

/// Where the checksum is in a header.
const CRC_AT: usize = 60;
/// CRC-32C, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The block with the one bit changed that makes its checksum right, and which bit that is.
fn mend(block: &Block) -> Option<(Box<Block>, usize)> {
    let stored = Header::of(block).crc.get();
    let difference = header::crc32c_with_hole(&block.0, CRC_AT) ^ stored;
    if difference.is_power_of_two() {
        // The checksum itself.
        let mut mended = Box::new(block.clone());
        Header::of_mut(&mut mended).crc = U32::new(stored ^ difference);
        return Some((mended, CRC_AT * 8 + difference.trailing_zeros() as usize));
    }
    // What one bit changes in the checksum, from the last bit of the block to the first.
    let mut changes = 1_u32;
    for bit in (0..BLOCK_SIZE * 8).rev() {
        changes = (changes >> 1) ^ if changes & 1 == 1 { POLYNOMIAL } else { 0 };
        let is_checksum = (CRC_AT * 8..CRC_AT * 8 + 32).contains(&bit);
        if changes == difference && !is_checksum {
            let mut mended = Box::new(block.clone());
            mended.0[bit / 8] ^= 1 << (bit % 8);
            return Some((mended, bit));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ondisk::header::{Kind, Owner, Writer};

    const FS: FsId = FsId([7; 16]);
    const AT: BlockNo = BlockNo(99);

    fn block() -> Box<Block> {
        let mut block = Block::zeroed();
        for (byte, value) in block.0.iter_mut().zip((0_u8..251).cycle()) {
            *byte = value;
        }
        *Header::of_mut(&mut block) = Header::new(FS, Kind::Inode, AT, Owner::plain(99), 5);
        header::seal(&mut block, Writer::MKFS);
        block
    }

    #[test]
    fn any_flipped_bit_is_found_and_put_right() {
        let whole = block();
        let near_the_checksum = CRC_AT * 8 - 8..CRC_AT * 8 + 40;
        for bit in (0..BLOCK_SIZE * 8).step_by(509).chain(near_the_checksum) {
            let mut flipped = whole.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            let Seen::Mended(mended, found) = Seen::of(Some(flipped), FS, AT) else {
                panic!("bit {bit}");
            };
            assert_eq!((found, mended.0), (bit, whole.0));
        }
    }

    #[test]
    fn more_than_a_bit_is_not_guessed_at() {
        let whole = block();
        for bit in (0..BLOCK_SIZE * 8 - 4096).step_by(1021) {
            let mut flipped = whole.clone();
            flipped.0[bit / 8] ^= 1 << (bit % 8);
            flipped.0[bit / 8 + 512] ^= 1;
            let seen = Seen::of(Some(flipped), FS, AT);
            assert!(matches!(seen, Seen::Damaged(_) | Seen::Garbage(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_block_of_another_place_is_told_from_one_that_is_damaged() {
        assert!(matches!(Seen::of(Some(block()), FS, BlockNo(98)), Seen::Foreign));
        assert!(matches!(Seen::of(Some(block()), FsId([8; 16]), AT), Seen::Foreign));
        assert!(matches!(Seen::of(Some(Block::zeroed()), FS, AT), Seen::Nothing));
        assert!(matches!(Seen::of(None, FS, AT), Seen::Unreadable));
        assert!(matches!(Seen::of(Some(block()), FS, AT), Seen::Whole(_)));
    }
}
