//! Private copies of payloads, reused.

use fencing::Block;

use crate::arbiter::protocol::PAYLOAD_BLOCKS_MAX;

/// Sizes in blocks; a payload gets the smallest that holds it.
const SIZES: [usize; 3] = [1, 16, PAYLOAD_BLOCKS_MAX as usize];
/// Kept of each size; what comes back beyond that is freed.
const KEPT_MAX: [usize; 3] = [256, 64, 16];

/// Memory for payloads.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: [Vec<Box<[Block]>>; 3],
}

impl Buffers {
    /// At least `blocks` long, with any contents.
    ///
    /// # Panics
    /// For more blocks than a request may have.
    pub(super) fn take(&mut self, blocks: usize) -> Box<[Block]> {
        let class = SIZES.iter().position(|size| *size >= blocks).expect("no more than a request");
        self.free[class].pop().unwrap_or_else(|| Block::zeroed_many(SIZES[class]))
    }

    pub(super) fn give_back(&mut self, buffer: Box<[Block]>) {
        let class = SIZES.iter().position(|size| *size == buffer.len()).expect("taken from here");
        if self.free[class].len() < KEPT_MAX[class] {
            self.free[class].push(buffer);
        }
    }
}
