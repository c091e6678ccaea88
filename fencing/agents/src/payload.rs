//! Blocks that are written, and blocks that are read into, whatever type the caller has for them.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use fencing::layout::BLOCK_SIZE;

/// A caller's type for a block: 4096 bytes, aligned to 4096, any contents.
pub trait BlockBuffer:
    FromBytes + IntoBytes + Immutable + KnownLayout + Send + Sync + 'static
{
}

impl<B: FromBytes + IntoBytes + Immutable + KnownLayout + Send + Sync + 'static> BlockBuffer for B {}

/// Checked when code for a block type is generated.
pub(crate) const fn assert_block<B>() {
    assert!(size_of::<B>() == BLOCK_SIZE && align_of::<B>() == BLOCK_SIZE);
}

/// What is written to consecutive blocks of a device.
pub trait Payload: Send + 'static {
    /// The bytes in order; each piece a whole number of blocks.
    fn pieces(&self) -> Vec<&[u8]>;
}

impl<B: BlockBuffer> Payload for Arc<[B]> {
    fn pieces(&self) -> Vec<&[u8]> {
        const { assert_block::<B>() };
        vec![self.as_bytes()]
    }
}

impl<B: BlockBuffer> Payload for Box<[B]> {
    fn pieces(&self) -> Vec<&[u8]> {
        const { assert_block::<B>() };
        vec![self.as_bytes()]
    }
}

impl<B: BlockBuffer> Payload for Vec<Arc<B>> {
    fn pieces(&self) -> Vec<&[u8]> {
        const { assert_block::<B>() };
        self.iter().map(|block| block.as_bytes()).collect()
    }
}

impl<B: BlockBuffer> Payload for Box<B> {
    fn pieces(&self) -> Vec<&[u8]> {
        const { assert_block::<B>() };
        vec![self.as_bytes()]
    }
}

/// Blocks in a payload; `None` unless every piece is a whole number of blocks.
pub(crate) fn blocks(pieces: &[&[u8]]) -> Option<u64> {
    let whole = pieces.iter().all(|piece| piece.len().is_multiple_of(BLOCK_SIZE));
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    whole.then_some((bytes / BLOCK_SIZE) as u64)
}
