//! The ring of a journal: where its blocks are, which segments are still needed, how much room is
//! left.
//!
//! Keeps true: a segment that may be needed by a replay is never overwritten, because room is
//! given out only behind the durable tail.

use std::collections::VecDeque;

use super::SegmentNo;
use crate::block::BlockNo;
use crate::ondisk::journal::HEADER_BLOCKS;

/// The runs of blocks that make up a journal, in order; the first blocks are its headers.
#[derive(Clone, Debug)]
pub(crate) struct Extents(Vec<(BlockNo, u64)>);

impl Extents {
    pub(crate) fn new(extents: Vec<(BlockNo, u64)>) -> Extents {
        Extents(extents)
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (BlockNo, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Where the two headers are.
    pub(crate) fn headers(&self) -> [BlockNo; 2] {
        [self.block(0), self.block(1)]
    }

    /// Blocks that segments may use.
    pub(crate) fn ring_blocks(&self) -> u64 {
        self.blocks() - HEADER_BLOCKS
    }

    /// The device runs of `len` ring blocks from ring block `position` on, over the end of the
    /// ring if need be.
    pub(crate) fn ring_runs(&self, position: u64, len: u64) -> Vec<(BlockNo, u64)> {
        let ring = self.ring_blocks();
        assert!(len <= ring, "a segment is smaller than its journal");
        let mut runs: Vec<(BlockNo, u64)> = Vec::new();
        let (mut at, mut left) = (position % ring, len);
        while left > 0 {
            let (first, extent_left) = self.locate(HEADER_BLOCKS + at);
            let take = left.min(extent_left).min(ring - at);
            runs.push((first, take));
            left -= take;
            at = (at + take) % ring;
        }
        runs
    }

    fn block(&self, index: u64) -> BlockNo {
        self.locate(index).0
    }

    /// The block at `index` and how many follow it in its extent, itself included.
    fn locate(&self, index: u64) -> (BlockNo, u64) {
        let mut skip = index;
        for (first, len) in &self.0 {
            if skip < *len {
                return (first.plus(skip), len - skip);
            }
            skip -= len;
        }
        unreachable!("block {index} lies beyond the journal");
    }
}

/// What of the ring is taken.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    ring_blocks: u64,
    /// Segments from the tail on: sequence, position. Positions only grow; modulo the ring they are
    /// ring blocks.
    segments: VecDeque<(SegmentNo, u64)>,
    head: u64,
    head_sequence: SegmentNo,
    /// Segments before this one are not needed, but their room is not free before the header
    /// that says so is durable.
    tail: u64,
}

impl Room {
    /// An empty ring whose next segment is `sequence`, at ring block `position`.
    pub(crate) fn empty(ring_blocks: u64, sequence: SegmentNo, position: u64) -> Room {
        Room {
            ring_blocks,
            segments: VecDeque::new(),
            head: position,
            head_sequence: sequence,
            tail: position,
        }
    }

    pub(crate) fn free(&self) -> u64 {
        self.ring_blocks - (self.head - self.tail)
    }

    pub(crate) fn used(&self) -> u64 {
        self.head - self.tail
    }

    pub(crate) fn ring_blocks(&self) -> u64 {
        self.ring_blocks
    }

    /// The segment that is written next.
    pub(crate) fn next_segment(&self) -> SegmentNo {
        self.head_sequence
    }

    /// Takes room for a segment; returns its position.
    pub(crate) fn take(&mut self, blocks: u64) -> (SegmentNo, u64) {
        assert!(blocks <= self.free(), "room for a segment was reserved");
        let (sequence, position) = (self.head_sequence, self.head);
        self.segments.push_back((sequence, position));
        self.head += blocks;
        self.head_sequence = sequence.plus(1);
        (sequence, position)
    }

    /// Where a replay would have to start if only segments from `needed` on mattered.
    pub(crate) fn start_of(&self, needed: SegmentNo) -> (SegmentNo, u64) {
        match self.segments.iter().find(|(sequence, _)| *sequence >= needed) {
            Some(found) => *found,
            None => (self.head_sequence, self.head),
        }
    }

    /// The header that says where the tail is has become durable.
    pub(crate) fn advance_tail(&mut self, sequence: SegmentNo, position: u64) {
        assert!(position >= self.tail && position <= self.head, "the tail only moves forward");
        self.tail = position;
        while self.segments.front().is_some_and(|(first, _)| *first < sequence) {
            self.segments.pop_front();
        }
    }

    pub(crate) fn tail_segment(&self) -> SegmentNo {
        self.segments.front().map_or(self.head_sequence, |(sequence, _)| *sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cross_extents_and_the_end_of_the_ring() {
        let extents = Extents::new(vec![(BlockNo(100), 5), (BlockNo(200), 7)]);
        assert_eq!(extents.headers(), [BlockNo(100), BlockNo(101)]);
        assert_eq!(extents.ring_blocks(), 10);
        assert_eq!(extents.ring_runs(1, 4), vec![(BlockNo(103), 2), (BlockNo(200), 2)]);
        assert_eq!(extents.ring_runs(28, 4), vec![(BlockNo(205), 2), (BlockNo(102), 2)]);
    }

    #[test]
    fn room_comes_back_only_behind_the_tail() {
        let mut room = Room::empty(10, SegmentNo(7), 0);
        assert_eq!(room.take(4), (SegmentNo(7), 0));
        assert_eq!(room.take(4), (SegmentNo(8), 4));
        assert_eq!(room.free(), 2);
        assert_eq!(room.start_of(SegmentNo(8)), (SegmentNo(8), 4));
        room.advance_tail(SegmentNo(8), 4);
        assert_eq!(room.free(), 6);
        assert_eq!(room.start_of(SegmentNo(9)), (SegmentNo(9), 8));
    }
}
