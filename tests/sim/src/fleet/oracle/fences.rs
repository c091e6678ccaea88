//! Rule: what belongs to a life is left alone by everybody else until that life is proven fenced
//! (I5): its slot, which is the one whose head names it as long as that is live, and the journal of
//! that. Nobody else writes either, and nobody else reads the journal, which may still grow. (What a
//! life held locks of is looked at in [`super::writes`].)
//!
//! A life is proven fenced when somebody has been answered that the device executes nothing of it any
//! more. That is later than the moment from which it executes nothing: who goes on before the answer
//! has only been lucky.

use std::collections::BTreeMap;
use std::ops::Range;

use mfs::block::{Block, BlockNo};
use mfs::layout::Layout;
use mfs::ondisk::header::{self, Kind};
use mfs::ondisk::slot::{SlotHeadBlock, SlotState};
use mx_base::{FsId, Incarnation, Member, NodeId, SlotId};
use zerocopy::FromBytes as _;

use super::Oracle;

/// A slot that is in use.
struct Live {
    member: Member,
    journal: Vec<Range<u64>>,
}

/// Whose slots are live on a device, and who is proven fenced there.
#[derive(Default)]
pub(in crate::fleet) struct Fences {
    live: BTreeMap<SlotId, Live>,
    proven: BTreeMap<NodeId, Incarnation>,
}

impl Fences {
    /// Somebody knows now that nothing of these lives is executed any more.
    pub(in crate::fleet) fn proven(&mut self, node: NodeId, up_to: Incarnation) {
        let known = self.proven.entry(node).or_insert(up_to);
        *known = up_to.max(*known);
    }

    pub(in crate::fleet) fn is_proven(&self, member: Member) -> bool {
        self.proven.get(&member.node).is_some_and(|up_to| member.incarnation <= *up_to)
    }

    /// Does the journal of a life's slot begin here, or go on?
    pub(in crate::fleet) fn is_in_journal_of(&self, member: Member, at: BlockNo) -> bool {
        let mut journals = self.live.values().filter(|of| of.member == member);
        journals.any(|of| of.journal.iter().any(|run| run.contains(&at.0)))
    }

    /// These blocks have been written, or may be others: takes in the heads among them.
    pub(in crate::fleet) fn written<B: std::ops::Deref<Target = Block>>(
        &mut self,
        (fs, layout): (FsId, &Layout),
        blocks: Range<u64>,
        device: impl Fn(BlockNo) -> Option<B>,
    ) {
        let (first, end) = heads_of(layout);
        if blocks.end <= first || end <= blocks.start {
            return;
        }
        let slot_at = |block: u64| (block - first) / 2;
        for slot in slot_at(blocks.start.max(first))..=slot_at(blocks.end.min(end) - 1) {
            let slot = SlotId(u16::try_from(slot).expect("few slots"));
            let copies = layout.slot_heads(slot).map(|at| (at, device(at)));
            let heads = copies.iter().filter_map(|(at, block)| head(block.as_deref()?, fs, *at));
            match heads.max_by_key(|head| head.header.version()).and_then(live) {
                Some(live) => drop(self.live.insert(slot, live)),
                None => drop(self.live.remove(&slot)),
            }
        }
    }

    /// `by` writes blocks, or begins to.
    pub(in crate::fleet) fn check_write(
        &self,
        oracle: &Oracle,
        layout: &Layout,
        by: Member,
        blocks: &Range<u64>,
    ) {
        for (slot, of) in self.not_of(by) {
            let heads = layout.slot_heads(*slot)[0].0;
            let table = [heads..heads + 2, one(layout.slot_body(*slot))];
            if table.iter().chain(&of.journal).any(|run| meets(run, blocks)) {
                let what = format!("{by} writes {blocks:?} of {slot}, which is {}'s", of.member);
                oracle.violation("fence", format!("{what}, not proven fenced"));
            }
        }
    }

    /// `by` reads blocks.
    pub(in crate::fleet) fn check_read(&self, oracle: &Oracle, by: Member, blocks: &Range<u64>) {
        for (slot, of) in self.not_of(by) {
            if of.journal.iter().any(|run| meets(run, blocks)) {
                let what = format!("{by} reads the journal of {slot}, which is {}'s", of.member);
                oracle.violation("fence", format!("{what}, not proven fenced"));
            }
        }
    }

    /// Slots of others who are not proven fenced.
    fn not_of(&self, by: Member) -> impl Iterator<Item = (&SlotId, &Live)> {
        self.live.iter().filter(move |(_, of)| of.member != by && !self.is_proven(of.member))
    }
}

fn one(at: BlockNo) -> Range<u64> {
    at.0..at.0 + 1
}

fn meets(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Where the heads of all slots lie.
fn heads_of(layout: &Layout) -> (u64, u64) {
    (layout.slot_start, layout.slot_start + 2 * u64::from(layout.slot_count))
}

fn head(block: &Block, fs: FsId, at: BlockNo) -> Option<&SlotHeadBlock> {
    let is_head = header::check(block, fs, at).is_ok_and(|h| h.kind() == Some(Kind::SlotHead));
    SlotHeadBlock::ref_from_bytes(&block.0).ok().filter(|_| is_head)
}

fn live(head: &SlotHeadBlock) -> Option<Live> {
    if SlotState::from_u8(head.state) != Some(SlotState::Live) {
        return None;
    }
    let node = NodeId::new(head.node.get())?;
    let member = Member { node, incarnation: Incarnation(head.incarnation.get()) };
    let extents = &head.journal_extents[..usize::from(head.journal_extents_count.get())];
    let run = |start: u64, blocks: u32| start..start + u64::from(blocks);
    let journal = extents.iter().map(|extent| run(extent.start.get(), extent.blocks.get()));
    Some(Live { member, journal: journal.collect() })
}

#[cfg(test)]
mod tests {
    use mfs::layout::DEVICE_BLOCKS_MIN;
    use mfs::ondisk::header::{Header, Owner, Writer};
    use zerocopy::little_endian::{U16, U32, U64};

    use super::*;
    use crate::exec::Executor;

    const FS: FsId = FsId([7; 16]);

    fn member(node: u16, incarnation: u32) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(incarnation) }
    }

    /// The head of slot 3, with a journal from block 5000 on.
    fn head_of(at: BlockNo, member: Member, state: SlotState, version: u64) -> Box<Block> {
        let mut block = Block::zeroed();
        let head: &mut SlotHeadBlock = block.get_mut();
        head.header = Header::new(FS, Kind::SlotHead, at, Owner::plain(3), version);
        head.state = state as u8;
        head.node = U16::new(member.node.get());
        head.incarnation = U32::new(member.incarnation.0);
        head.journal_extents_count = U16::new(1);
        head.journal_extents[0].start = U64::new(5_000);
        head.journal_extents[0].blocks = U32::new(64);
        header::seal(&mut block, Writer::MKFS);
        block
    }

    fn found(judge: impl FnOnce(&Oracle)) -> Option<&'static str> {
        let oracle = Oracle::new(&Executor::new(1));
        judge(&oracle);
        oracle.first_violation().map(|found| found.oracle)
    }

    #[test]
    fn the_slot_of_who_is_not_proven_fenced_is_left_alone() {
        let layout = Layout::for_device(DEVICE_BLOCKS_MIN).expect("large enough");
        let [first, second] = layout.slot_heads(SlotId(3));
        let (dead, other) = (member(1, 4), member(2, 1));
        let mut fences = Fences::default();
        let live = head_of(first, dead, SlotState::Live, 2);
        let of_device = |at| (at == first).then_some(&*live);
        fences.written((FS, &layout), one(first), of_device);
        let write = |fences: &Fences, by, at: u64| {
            found(|oracle| fences.check_write(oracle, &layout, by, &(at..at + 1)))
        };
        for at in [first.0, second.0, layout.slot_body(SlotId(3)).0, 5_000, 5_063] {
            assert_eq!(write(&fences, other, at), Some("fence"), "{at}");
            assert_eq!(write(&fences, dead, at), None, "its own: {at}");
        }
        assert_eq!(write(&fences, other, 5_064), None);
        let read =
            |fences: &Fences| found(|oracle| fences.check_read(oracle, other, &(5_001..5_002)));
        assert_eq!(read(&fences), Some("fence"));
        fences.proven(dead.node, Incarnation(3));
        assert_eq!(read(&fences), Some("fence"), "of a former life only");
        fences.proven(dead.node, Incarnation(4));
        assert_eq!((read(&fences), write(&fences, other, 5_000)), (None, None));
    }

    #[test]
    fn a_slot_that_was_left_is_anybodys() {
        let layout = Layout::for_device(DEVICE_BLOCKS_MIN).expect("large enough");
        let [first, second] = layout.slot_heads(SlotId(3));
        let mut fences = Fences::default();
        let live = head_of(first, member(1, 4), SlotState::Live, 2);
        let clean = head_of(second, member(1, 4), SlotState::Clean, 3);
        let of_device = |at| Some(if at == first { &*live } else { &*clean });
        fences.written((FS, &layout), one(second), of_device);
        let write = |oracle: &Oracle| {
            fences.check_write(oracle, &layout, member(2, 1), &(5_000..5_001));
        };
        assert_eq!(found(write), None);
    }
}
