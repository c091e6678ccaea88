//! Taking a slot.

use std::sync::Arc;

use lcl::pin::{Pin, PinError, Want};
use mx_base::SlotId;

use super::{MountError, first_journal};
use crate::block::{Block, BlockNo};
use crate::cache::{BlockSet, CachedBlock};
use crate::env::Env;
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::fs::{Fs, Options};
use crate::journal::in_place::JournalHeader;
use crate::journal::ring::Extents;
use crate::journal::scan::JournalOf;
use crate::journal::{Journal, SegmentNo};
use crate::locks::{Classes, Resource};
use crate::ondisk::header::{self, Kind, Writer};
use crate::ondisk::slot::{JOURNAL_EXTENTS_MAX, OrphanBlock, SlotBlock, SlotState};
use crate::slot::SlotRecord;
use crate::superblock::Superblock;

/// A slot that is ours, and its block as it is on disk.
pub(super) struct Taken {
    pub(super) slot: SlotId,
    pub(super) pin: Pin,
    pub(super) block: Box<Block>,
}

/// Reads and checks the block of a slot.
pub(crate) async fn read_slot(
    env: &Env,
    sb: &Superblock,
    slot: SlotId,
) -> Result<Box<Block>, MountError> {
    let at = sb.layout.slot_block(slot);
    let mut blocks = env.disk.read(at, 1).await?.into_vec();
    let block = Box::new(blocks.remove(0));
    check_slot(&block, sb, slot, at)
        .map_err(|c| MountError::Slot { slot, source: FsError::Corrupt(c) })?;
    Ok(block)
}

fn check_slot(block: &Block, sb: &Superblock, slot: SlotId, at: BlockNo) -> Result<(), Corruption> {
    let wrong = |kind, expected: u64, found: u64| Corruption { block: at, kind, expected, found };
    let header = header::check(block, sb.fs_id, at)?;
    if header.kind() != Some(Kind::Slot) {
        return Err(wrong(CorruptionKind::Kind, Kind::Slot as u64, header.kind.into()));
    }
    if header.owner().id != u64::from(slot.0) {
        return Err(wrong(CorruptionKind::Owner, slot.0.into(), header.owner().id));
    }
    let body: &SlotBlock = block.get();
    if SlotState::from_u8(body.state).is_none() {
        let what = CorruptionKind::Contents("state of a slot");
        return Err(wrong(what, 0, body.state.into()));
    }
    let extents = usize::from(body.journal_extents_count.get());
    let bad_extent = body.journal_extents.iter().take(extents).find(|e| {
        let (first, len) = (BlockNo(e.start.get()), u64::from(e.blocks.get()));
        len == 0
            || sb.layout.group_of(first).is_none()
            || sb.layout.group_of(first) != sb.layout.group_of(first.plus(len - 1))
    });
    if extents > JOURNAL_EXTENTS_MAX || bad_extent.is_some() {
        let what = CorruptionKind::Contents("journal of a slot");
        return Err(wrong(what, 0, extents as u64));
    }
    Ok(())
}

pub(crate) fn extents_of(body: &SlotBlock) -> Extents {
    let count = usize::from(body.journal_extents_count.get());
    let extents = body.journal_extents[..count].iter();
    Extents::new(extents.map(|e| (BlockNo(e.start.get()), e.blocks.get().into())).collect())
}

/// Takes a slot that is clean, this node's last one if it can be, or one that was never used.
pub(super) async fn take(env: &Env, sb: &Superblock) -> Result<Taken, MountError> {
    let me = env.group.me();
    let mut candidates = Vec::new();
    for n in 0..sb.layout.slot_count {
        let slot = SlotId(n);
        // Only a look: what counts is read again under the lock.
        let Ok(block) = read_slot(env, sb, slot).await else { continue };
        let body: &SlotBlock = block.get();
        let rank = match SlotState::from_u8(body.state) {
            Some(SlotState::Clean) if body.node.get() == me.node.get() => 0,
            Some(SlotState::Clean) => 1,
            Some(SlotState::Free) => 2,
            Some(SlotState::Live) | None => continue,
        };
        candidates.push((rank, slot));
        // Slots are used from the front: behind the first free one there are only free ones.
        if rank == 2 && candidates.len() > 16 {
            break;
        }
    }
    candidates.sort_unstable();
    for (_, slot) in candidates {
        let resource = Resource::Slot(slot);
        let entry = env.locks.entry(resource.name(), resource.bucket(&sb.layout));
        let pin = match entry.pin(Want::write().no_queue()).await {
            Ok(pin) => pin,
            Err(PinError::Busy) => continue,
            Err(error) => return Err(error.into()),
        };
        let block = read_slot(env, sb, slot).await?;
        let state = SlotState::from_u8(block.get::<SlotBlock>().state);
        if matches!(state, Some(SlotState::Clean | SlotState::Free)) {
            return Ok(Taken { slot, pin, block });
        }
    }
    Err(MountError::NoSlot(sb.layout.slot_count))
}

/// Opens the journal of a slot and makes the slot live.
pub(super) async fn begin(
    env: Env,
    options: Options,
    sb: &Superblock,
    taken: Taken,
    classes: &Arc<Classes>,
) -> Result<Arc<Fs>, MountError> {
    let writer = Writer { slot: taken.slot, incarnation: env.group.me().incarnation };
    let set = BlockSet::new(Resource::Slot(taken.slot));
    let body: SlotBlock = *taken.block.get::<SlotBlock>();
    let cached: Arc<CachedBlock> =
        set.insert_read(sb.layout.slot_block(taken.slot), taken.block.into());
    let more =
        read_orphan_blocks(&env, sb, &set, taken.slot, body.orphan_blocks_head.get()).await?;

    let first_use = body.journal_extents_count.get() == 0;
    let found = if first_use { Some(first_journal::find(&env, sb).await?) } else { None };
    let (extents, start) = match &found {
        Some(found) => (found.extents(), (SegmentNo(1), 0)),
        None => {
            let extents = extents_of(&body);
            let of = JournalOf { fs_id: sb.fs_id, slot: taken.slot, extents: extents.clone() };
            let start = of.start(&*env.disk).await?;
            (extents, (start.sequence, start.position))
        }
    };
    let (sequence, position) = start;
    let header = JournalHeader { fs_id: sb.fs_id, writer, extents: &extents, sequence, position };
    let life = header.write(&*env.disk, None).await?;

    let record = SlotRecord::new(taken.pin, set, cached, more);
    let journal =
        Journal::new(Arc::clone(&env.disk), sb.fs_id, (writer, life), extents, start, record);
    let (layout, root) = (sb.layout, sb.root);
    let fs = Fs::new(env, options, sb.fs_id, sb.label.clone(), layout, root, sb.hash_key, journal);
    classes.serve(&fs);
    fs.env.runtime.spawn(Box::pin(Arc::clone(&fs.journal).run_writer()));
    if let Some(found) = found {
        fs.adopt_journal(found).await?;
    }
    fs.mark_slot(SlotState::Live).await?;
    Ok(fs)
}

/// The further blocks of a slot's list of orphans.
pub(crate) async fn read_orphan_blocks(
    env: &Env,
    sb: &Superblock,
    set: &Arc<BlockSet>,
    slot: SlotId,
    head: u64,
) -> Result<Vec<Arc<CachedBlock>>, MountError> {
    let mut blocks = Vec::new();
    let mut next = head;
    while next != 0 {
        let at = BlockNo(next);
        let block = env.disk.read(at, 1).await?.into_vec().remove(0);
        let expect = crate::cache::Expect {
            kind: Kind::Orphans,
            owner: crate::ondisk::header::Owner::plain(slot.0.into()),
        };
        header::check(&block, sb.fs_id, at)
            .and_then(|header| expect.check(at, header))
            .map_err(|c| MountError::Slot { slot, source: FsError::Corrupt(c) })?;
        next = block.get::<OrphanBlock>().next.get();
        blocks.push(set.insert_read(at, Box::new(block).into()));
        if blocks.len() > 4096 {
            let kind = CorruptionKind::Contents("a list of orphans without end");
            let source = Corruption { block: at, kind, expected: 0, found: 0 }.into();
            return Err(MountError::Slot { slot, source });
        }
    }
    Ok(blocks)
}
