//! A slot's head: whose it is, in what state, and where its journal lies.
//!
//! It is not journaled, for it has to be read before the journal can be. There are two copies: a write
//! that is torn leaves the other one, and once both are written the loss of either loses nothing.

use mx_base::rules::{Rule, is_kept};
use mx_base::{FsId, Incarnation, Member, NodeId, SlotId};
use zerocopy::little_endian::{U16, U32, U64};

use crate::block::{Block, BlockNo};
use crate::env::{Disk, Durability, WriteData};
use crate::error::{Corruption, CorruptionKind, DiskError};
use crate::journal::ring::Extents;
use crate::journal::scan::JournalOf;
use crate::layout::Layout;
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::ondisk::slot::{JOURNAL_EXTENTS_MAX, JournalExtent, SlotHeadBlock, SlotState};

/// Heads read at once.
const READ_SLOTS: u16 = 64;

/// Blocks read at once of which more cannot be read than these are no damage: the device fails.
const UNREADABLE_MAX: usize = 8;

/// The head of a slot.
#[derive(Clone, Debug)]
pub(crate) struct SlotHead {
    pub(crate) slot: SlotId,
    pub(crate) state: SlotState,
    /// The member whose slot it is or was last; `None` before its first use.
    pub(crate) member: Option<Member>,
    /// The journal; empty before its first use.
    pub(crate) extents: Extents,
    version: u64,
}

/// Why a head cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HeadError {
    #[error("both copies of its head are damaged: {0}")]
    Damaged(Corruption),
    #[error("neither copy of its head is whole: {0}")]
    Disk(#[from] DiskError),
}

impl SlotHead {
    /// In whose name the blocks of a slot that has had a member are written.
    pub(crate) fn writer(&self) -> Writer {
        let member = self.member.expect("a slot with a journal has had a member");
        Writer { slot: self.slot, incarnation: member.incarnation }
    }

    pub(crate) fn journal(&self, fs_id: FsId) -> JournalOf {
        JournalOf { fs_id, slot: self.slot, extents: self.extents.clone() }
    }

    /// The newer whole copy.
    ///
    /// # Errors
    /// [`HeadError`].
    pub(crate) async fn read(
        disk: &dyn Disk,
        fs_id: FsId,
        layout: &Layout,
        slot: SlotId,
    ) -> Result<SlotHead, HeadError> {
        let copies = read_copies(disk, layout.slot_heads(slot)[0], 2).await?;
        SlotHead::newer(copies, fs_id, layout, slot)
    }

    /// The heads of all slots, in order.
    ///
    /// # Errors
    /// When the device cannot be read; heads that cannot be are errors of their own.
    pub(crate) async fn read_all(
        disk: &dyn Disk,
        fs_id: FsId,
        layout: &Layout,
    ) -> Result<Vec<(SlotId, Result<SlotHead, HeadError>)>, DiskError> {
        let mut heads = Vec::new();
        let mut next = 0;
        while next < layout.slot_count {
            let count = READ_SLOTS.min(layout.slot_count - next);
            let first = layout.slot_heads(SlotId(next))[0];
            let mut copies = read_copies(disk, first, 2 * usize::from(count)).await?.into_iter();
            for slot in (next..next + count).map(SlotId) {
                let of_slot = copies.by_ref().take(2);
                heads.push((slot, SlotHead::newer(of_slot, fs_id, layout, slot)));
            }
            next += count;
        }
        Ok(heads)
    }

    fn newer(
        copies: impl IntoIterator<Item = Result<Block, DiskError>>,
        fs_id: FsId,
        layout: &Layout,
        slot: SlotId,
    ) -> Result<SlotHead, HeadError> {
        let parsed =
            layout.slot_heads(slot).into_iter().zip(copies).map(|(at, block)| {
                parse(&block?, at, fs_id, layout, slot).map_err(HeadError::Damaged)
            });
        let newer = parsed.reduce(|a, b| match (a, b) {
            (Ok(a), Ok(b)) => Ok(if b.version > a.version { b } else { a }),
            (Ok(whole), Err(_)) | (Err(_), Ok(whole)) => Ok(whole),
            // It may be there when it is read again.
            (Err(error @ HeadError::Disk(_)), Err(_)) | (Err(_), Err(error)) => Err(error),
        });
        newer.expect("a slot has two heads")
    }

    /// Writes the head durably, over the copy that is not the present one, and then over the other.
    ///
    /// # Errors
    /// When the device fails; the copy that was the present one may still count then.
    pub(crate) async fn write(
        &mut self,
        disk: &dyn Disk,
        fs_id: FsId,
        layout: &Layout,
        writer: Writer,
    ) -> Result<(), DiskError> {
        let copies = if is_kept(Rule::WriteBothHeads) { 2 } else { 1 };
        for _ in 0..copies {
            self.version += 1;
            let at = layout.slot_heads(self.slot)[(self.version % 2) as usize];
            let block = self.block(fs_id, at, writer);
            disk.write(at, WriteData::Blocks(vec![block.into()]), Durability::Durable).await?;
        }
        Ok(())
    }

    /// Both copies as mkfs writes them, and where: a slot never used.
    pub(crate) fn unused(fs_id: FsId, layout: &Layout, slot: SlotId) -> [(BlockNo, Box<Block>); 2] {
        let extents = Extents::new(Vec::new());
        let head = SlotHead { slot, state: SlotState::Free, member: None, extents, version: 0 };
        // The second copy is older than the first write, which goes there.
        layout.slot_heads(slot).map(|at| (at, head.block(fs_id, at, Writer::MKFS)))
    }

    #[expect(clippy::cast_possible_truncation, reason = "a journal lies inside a group")]
    fn block(&self, fs_id: FsId, at: BlockNo, writer: Writer) -> Box<Block> {
        let mut block = Block::zeroed();
        let body: &mut SlotHeadBlock = block.get_mut();
        let owner = Owner::plain(self.slot.0.into());
        body.header = Header::new(fs_id, Kind::SlotHead, at, owner, self.version);
        body.state = self.state as u8;
        if let Some(member) = self.member {
            body.node = U16::new(member.node.get());
            body.incarnation = U32::new(member.incarnation.0);
        }
        let mut count = 0;
        for (place, (start, blocks)) in body.journal_extents.iter_mut().zip(self.extents.iter()) {
            *place = JournalExtent {
                start: U64::new(start.0),
                blocks: U32::new(blocks as u32),
                reserved0: U32::ZERO,
            };
            count += 1;
        }
        body.journal_extents_count = U16::new(count);
        header::seal(&mut block, writer);
        block
    }
}

/// Blocks in a row, each by itself where they cannot be read together.
async fn read_copies(
    disk: &dyn Disk,
    first: BlockNo,
    count: usize,
) -> Result<Vec<Result<Block, DiskError>>, DiskError> {
    match disk.read(first, count).await {
        Ok(blocks) => return Ok(blocks.into_vec().into_iter().map(Ok).collect()),
        Err(DiskError::Failed { .. }) => {}
        Err(error @ (DiskError::Fenced | DiskError::BeyondEnd { .. })) => return Err(error),
    }
    let mut copies = Vec::new();
    let mut unreadable = 0;
    for at in (first.0..).map(BlockNo).take(count) {
        match disk.read(at, 1).await {
            Ok(blocks) => copies.extend(blocks.into_vec().into_iter().map(Ok)),
            Err(error @ DiskError::Failed { .. }) if unreadable < UNREADABLE_MAX => {
                unreadable += 1;
                copies.push(Err(error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(copies)
}

fn parse(
    block: &Block,
    at: BlockNo,
    fs_id: FsId,
    layout: &Layout,
    slot: SlotId,
) -> Result<SlotHead, Corruption> {
    let header = header::check(block, fs_id, at)?;
    let owner = Owner::plain(slot.0.into());
    crate::cache::Expect { kind: Kind::SlotHead, owner }.check(at, header)?;
    let body: &SlotHeadBlock = block.get();
    let wrong = |what, found: u64| {
        let kind = CorruptionKind::Contents(what);
        Corruption { block: at, kind, expected: 0, found }
    };
    let state = SlotState::from_u8(body.state)
        .ok_or_else(|| wrong("state of a slot", body.state.into()))?;
    let count = usize::from(body.journal_extents_count.get());
    if count > JOURNAL_EXTENTS_MAX {
        return Err(wrong("extents of a journal", count as u64));
    }
    let mut extents = Vec::new();
    for extent in &body.journal_extents[..count] {
        let (first, len) = (BlockNo(extent.start.get()), u64::from(extent.blocks.get()));
        let group = layout.group_of(first);
        if len == 0 || group.is_none() || group != layout.group_of(first.plus(len - 1)) {
            return Err(wrong("an extent of a journal", first.0));
        }
        extents.push((first, len));
    }
    let member = NodeId::new(body.node.get())
        .map(|node| Member { node, incarnation: Incarnation(body.incarnation.get()) });
    let extents = Extents::new(extents);
    if state == SlotState::Live && (member.is_none() || extents.blocks() < 16) {
        return Err(wrong("a live slot without member or journal", 0));
    }
    Ok(SlotHead { slot, state, member, extents, version: header.version() })
}
