//! Rule: a block is written in place only when the records of what changed in it are durable (I2).
//!
//! Looked at when a write in place is sent: by then whoever sends it has waited for the journal. What
//! a journal has durably is told from the segments that are written to it, and from flushes. What is
//! not journaled (`docs/spec/ondisk.md` 10) is left out: headers of journals, first images of groups
//! and of chunks of metadata, and marks of what could not be replayed.

use std::collections::{BTreeMap, VecDeque};

use mfs::block::{Block, BlockNo};
use mfs::ondisk::alloc_group::GroupHeaderBlock;
use mfs::ondisk::header::{self, Header, Kind, MAGIC};
use mfs::ondisk::inode::{InodeBlock, InodeCore};
use mfs::ondisk::journal::{
    RecordHead, SEGMENT_CRC_AT, SEGMENT_HEAD_SIZE, SEGMENT_MAGIC, SegmentHead, TransactionHead,
};
use mx_base::Member;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::Oracle;

/// What journals have durably, of one file system.
#[derive(Default)]
pub(in crate::fleet) struct Records {
    /// The newest version of each block that is in a durable record.
    durable: BTreeMap<BlockNo, u64>,
    /// Segments that were written and not flushed, in the order in which they were complete.
    volatile: Vec<(u64, Versions)>,
    /// Of segments over the end of the ring, until all of them is there.
    pieces: BTreeMap<Member, Pieces>,
    written: u64,
    /// Flushes under way, and what was written when each began.
    flushes: BTreeMap<u64, u64>,
}

type Versions = Vec<(BlockNo, u64)>;

/// Those of the segments of one member, several of which are written at the same time. They come in
/// any order; what belongs together is told by its checksum.
#[derive(Default)]
struct Pieces {
    firsts: VecDeque<Vec<Block>>,
    others: VecDeque<Vec<Block>>,
}

impl Pieces {
    /// More are not written at the same time: what is older was never finished.
    const MOST: usize = 8;

    fn add(list: &mut VecDeque<Vec<Block>>, piece: Vec<Block>) {
        list.push_back(piece);
        if list.len() > Pieces::MOST {
            list.pop_front();
        }
    }

    /// The segments of which all is there.
    fn take_whole(&mut self) -> Option<Versions> {
        for (at, first) in self.firsts.iter().enumerate() {
            let mut used = Vec::new();
            if let Some(versions) = self.finish(first.clone(), &mut used) {
                self.firsts.remove(at);
                used.sort_unstable();
                used.into_iter().rev().for_each(|other| drop(self.others.remove(other)));
                return Some(versions);
            }
        }
        None
    }

    /// Tries to go on with each of the others in turn.
    fn finish(&self, blocks: Vec<Block>, used: &mut Vec<usize>) -> Option<Versions> {
        let count = usize::try_from(segment(&blocks[0])?.blocks.get()).expect("few");
        if let Some(all) = blocks.get(..count) {
            return versions(all);
        }
        for (at, other) in self.others.iter().enumerate() {
            if used.contains(&at) || blocks.len() + other.len() > count {
                continue;
            }
            used.push(at);
            let more = blocks.iter().chain(other).cloned().collect();
            if let Some(versions) = self.finish(more, used) {
                return Some(versions);
            }
            used.pop();
        }
        None
    }
}

impl Records {
    /// A write has been executed. Whether it went into the journal of the slot that it is known to
    /// have is asked only for what may be a piece of a segment: the first ones come before the slot's
    /// head.
    pub(in crate::fleet) fn written(
        &mut self,
        by: Member,
        data: &[impl std::ops::Deref<Target = Block>],
        is_durable: bool,
        is_in_journal: impl FnOnce() -> bool,
    ) {
        let Some(first) = data.first() else { return };
        let is_first = segment(first).is_some();
        // Any other kind may be an image in a record, which happens to begin here.
        let is_of_journal =
            is_header(first) && Header::of(first).kind() == Some(Kind::JournalHeader);
        if !is_first && (is_of_journal || !is_in_journal()) {
            return;
        }
        let blocks = data.iter().map(|block| Block::clone(block)).collect();
        let pieces = self.pieces.entry(by).or_default();
        Pieces::add(if is_first { &mut pieces.firsts } else { &mut pieces.others }, blocks);
        while let Some(versions) = self.pieces.get_mut(&by).and_then(Pieces::take_whole) {
            if is_durable {
                self.are_durable(versions);
            } else {
                self.written += 1;
                self.volatile.push((self.written, versions));
            }
        }
    }

    pub(in crate::fleet) fn flush_began(&mut self, id: u64) {
        self.flushes.insert(id, self.written);
    }

    pub(in crate::fleet) fn flush_ended(&mut self, id: u64) {
        let Some(written) = self.flushes.remove(&id) else { return };
        let still = self.volatile.iter().position(|(number, _)| *number > written);
        let still = still.unwrap_or(self.volatile.len());
        let flushed: Vec<_> = self.volatile.drain(..still).collect();
        flushed.into_iter().for_each(|(_, versions)| self.are_durable(versions));
    }

    /// What the power left is durable, and whoever replays a journal finds what it has.
    pub(in crate::fleet) fn power_failed(&mut self) {
        self.flushes.clear();
        self.pieces.clear();
        let left = std::mem::take(&mut self.volatile);
        left.into_iter().for_each(|(_, versions)| self.are_durable(versions));
    }

    fn are_durable(&mut self, versions: Versions) {
        for (block, version) in versions {
            let known = self.durable.entry(block).or_insert(version);
            *known = version.max(*known);
        }
    }

    /// `by` sends the write of a block to its place.
    pub(in crate::fleet) fn check(&self, oracle: &Oracle, by: Member, at: BlockNo, new: &Block) {
        let header = Header::of(new);
        let is_metadata = is_header(new) && header.block.get() == at.0;
        if !is_metadata || !is_journaled(new) {
            return;
        }
        let version = header.version();
        let durable = self.durable.get(&at).copied();
        if durable.is_none_or(|durable| durable < version) {
            let what = format!("{by} writes {at} in version {version}; durable is {durable:?}");
            oracle.violation("records first", what);
        }
    }
}

fn is_journaled(block: &Block) -> bool {
    let header = Header::of(block);
    match header.kind() {
        None | Some(Kind::Superblock | Kind::SlotHead | Kind::JournalHeader) => false,
        // Less than its epoch has the first version only.
        Some(Kind::Free) => header.version() & u64::from(u32::MAX) != 0,
        Some(Kind::GroupHeader) => {
            header.version() > 1 && block.get::<GroupHeaderBlock>().isolated.get() == 0
        }
        Some(Kind::Bitmap | Kind::ChunkTable | Kind::GroupMap | Kind::SlotBody) => {
            header.version() > 1
        }
        Some(Kind::Inode) => {
            let inode: &InodeBlock = block.get();
            inode.core.flags.get() & InodeCore::ISOLATED == 0
        }
        Some(Kind::Orphans | Kind::ExtentNode | Kind::DirIndex | Kind::DirBucket | Kind::Xattr) => {
            true
        }
    }
}

fn is_header(block: &Block) -> bool {
    Header::of(block).magic.get() == MAGIC
}

fn segment(block: &Block) -> Option<&SegmentHead> {
    let (head, _) = SegmentHead::ref_from_prefix(&block.0).ok()?;
    (head.magic.get() == SEGMENT_MAGIC).then_some(head)
}

/// The blocks that a segment has records of; `None` when it is not whole.
fn versions(blocks: &[Block]) -> Option<Versions> {
    let bytes = blocks.as_bytes();
    let (head, _) = SegmentHead::ref_from_prefix(bytes).ok()?;
    if header::crc32c_with_hole(bytes, SEGMENT_CRC_AT) != head.crc.get() {
        return None;
    }
    let length = |len: u32| usize::try_from(len).expect("short");
    let mut left = bytes.get(SEGMENT_HEAD_SIZE..)?.get(..length(head.payload_len.get()))?;
    let mut versions = Versions::new();
    while !left.is_empty() {
        let (transaction, behind) = TransactionHead::ref_from_prefix(left).ok()?;
        let mut records;
        (records, left) = behind.split_at_checked(length(transaction.len.get()))?;
        while !records.is_empty() {
            let (record, behind) = RecordHead::ref_from_prefix(records).ok()?;
            versions.push((BlockNo(record.block.get()), record.new_version.get()));
            records = behind.get(length(record.len.get())..)?;
        }
    }
    Some(versions)
}

#[cfg(test)]
mod tests {
    use mfs::block::BLOCK_SIZE;
    use mfs::ondisk::header::Owner;
    use mx_base::{FsId, Incarnation, NodeId};
    use zerocopy::FromZeros as _;
    use zerocopy::little_endian::{U32, U64};

    use super::*;
    use crate::exec::Executor;

    const AT: BlockNo = BlockNo(9_000);

    fn me() -> Member {
        Member { node: NodeId::new(1).expect("in range"), incarnation: Incarnation(1) }
    }

    /// A segment with one record, of so many blocks.
    fn segment_with(version: u64, blocks: usize) -> Vec<Box<Block>> {
        let mut record = RecordHead::new_zeroed();
        (record.block, record.new_version) = (U64::new(AT.0), U64::new(version));
        record.len = U32::new(u32::try_from((blocks - 1) * BLOCK_SIZE).expect("short"));
        let records = size_of::<RecordHead>() + (blocks - 1) * BLOCK_SIZE;
        let mut transaction = TransactionHead::new_zeroed();
        transaction.len = U32::new(u32::try_from(records).expect("short"));
        let mut head = SegmentHead::new_zeroed();
        head.magic = U32::new(SEGMENT_MAGIC);
        head.blocks = U32::new(u32::try_from(blocks).expect("few"));
        let payload = size_of::<TransactionHead>() + records;
        head.payload_len = U32::new(u32::try_from(payload).expect("short"));
        let mut bytes = [head.as_bytes(), transaction.as_bytes(), record.as_bytes()].concat();
        bytes.resize(blocks * BLOCK_SIZE, 0x5a);
        let block = |bytes: &[u8]| {
            let mut block = Block::zeroed();
            block.0.copy_from_slice(bytes);
            block
        };
        let mut segment = bytes.chunks(BLOCK_SIZE).map(block).collect::<Vec<_>>();
        sum_up(&mut segment);
        segment
    }

    fn sum_up(segment: &mut [Box<Block>]) {
        let bytes: Vec<u8> = segment.iter().flat_map(|block| block.0).collect();
        let crc = header::crc32c_with_hole(&bytes, SEGMENT_CRC_AT).to_le_bytes();
        segment[0].0[SEGMENT_CRC_AT..SEGMENT_CRC_AT + 4].copy_from_slice(&crc);
    }

    /// Is it found that a version of the block goes to its place?
    fn is_found(records: &Records, version: u64) -> bool {
        let mut block = Block::zeroed();
        let owner = Owner { id: 7, generation: 1 };
        *Header::of_mut(&mut block) =
            Header::new(FsId([7; 16]), Kind::ExtentNode, AT, owner, version);
        let oracle = Oracle::new(&Executor::new(1));
        records.check(&oracle, me(), AT, &block);
        oracle.first_violation().is_some()
    }

    #[test]
    fn what_goes_to_its_place_has_a_durable_record() {
        let mut records = Records::default();
        assert!(is_found(&records, 5));
        records.written(me(), &segment_with(5, 1), true, || true);
        assert!(!is_found(&records, 5) && is_found(&records, 6));
        records.written(me(), &segment_with(6, 1), false, || true);
        assert!(is_found(&records, 6), "it may be lost");
        records.flush_began(1);
        records.written(me(), &segment_with(7, 1), false, || true);
        records.flush_ended(1);
        assert!(!is_found(&records, 6) && is_found(&records, 7), "written behind the flush");
    }

    #[test]
    fn a_segment_over_the_end_of_the_ring_counts_when_all_of_it_is_there() {
        let mut records = Records::default();
        let segment = segment_with(5, 3);
        records.written(me(), &segment[..1], false, || true);
        records.flush_began(1);
        records.flush_ended(1);
        records.written(me(), &segment[1..], false, || true);
        assert!(is_found(&records, 5));
        records.flush_began(2);
        records.flush_ended(2);
        assert!(!is_found(&records, 5));
        // The end of it may be there first.
        let segment = segment_with(6, 3);
        records.written(me(), &segment[1..], true, || true);
        assert!(is_found(&records, 6));
        records.written(me(), &segment[..1], true, || true);
        assert!(!is_found(&records, 6));
    }

    #[test]
    fn segments_are_told_apart_whatever_the_order_of_their_pieces() {
        let mut records = Records::default();
        let [long, short] = [segment_with(5, 6), segment_with(4, 2)];
        let pieces = [&short[..1], &long[4..], &long[..1], &short[1..], &long[3..4]];
        for piece in pieces {
            records.written(me(), piece, true, || true);
        }
        assert!(!is_found(&records, 4) && is_found(&records, 5));
        records.written(me(), &long[1..3], true, || true);
        assert!(!is_found(&records, 5));
    }

    #[test]
    fn a_piece_may_begin_with_an_image() {
        let mut records = Records::default();
        let mut segment = segment_with(5, 2);
        let owner = Owner { id: 7, generation: 1 };
        *Header::of_mut(&mut segment[1]) = Header::new(FsId([7; 16]), Kind::Inode, AT, owner, 5);
        sum_up(&mut segment);
        records.written(me(), &segment[..1], true, || true);
        records.written(me(), &segment[1..], true, || true);
        assert!(!is_found(&records, 5));
    }

    #[test]
    fn what_goes_elsewhere_is_no_piece_of_a_segment() {
        let mut records = Records::default();
        let segment = segment_with(5, 2);
        records.written(me(), &segment[..1], false, || true);
        records.written(me(), &[Block::zeroed()], false, || false);
        records.written(me(), &segment[1..], true, || true);
        assert!(!is_found(&records, 5));
    }

    #[test]
    fn a_torn_segment_is_none() {
        let mut records = Records::default();
        let mut segment = segment_with(5, 2);
        segment[1].0[77] ^= 1;
        records.written(me(), &segment, true, || true);
        assert!(is_found(&records, 5));
    }
}
