//! Slots: journals replayed as a mount would, heads and journal headers that can be read again; and
//! at the end lists of orphans emptied and counters set.
//!
//! Keeps true: a journal is replayed before anything is judged by what is in place. Of one that is
//! damaged, what comes before the damage is replayed: what is durable is a prefix. Replaying is as
//! safe against a crash as it is in a mount, for it is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mx_base::{FsId, Incarnation, SlotId};
use zerocopy::FromBytes;
use zerocopy::little_endian::{I64, U16, U32, U64};

use super::work::Work;
use crate::block::{Block, BlockNo};
use crate::env::{Disk, Durability, WriteData};
use crate::file::FileId;
use crate::fsck::CheckError;
use crate::fsck::media::{read_each, read_one};
use crate::journal::replay::Replay;
use crate::journal::ring::Extents;
use crate::journal::scan::{JournalOf, ScanError};
use crate::mount::recover::replay_alone;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::ondisk::journal::{JournalHeaderBlock, SEGMENT_HEAD_SIZE, SEGMENT_MAGIC, SegmentHead};
use crate::ondisk::slot::{OrphanBlock, OrphanEntry, SlotBodyBlock, SlotState};
use crate::slot::file_of;
use crate::slot::head::SlotHead;

/// The longest list of orphans, in blocks.
const ORPHAN_BLOCKS_MAX: usize = 4096;

/// Replays the journals of all live slots on the device, and makes the slots clean. With
/// `damaged_too` also those that are damaged, as far as they can be read. Returns how many.
pub(super) async fn replay(work: &mut Work<'_>, damaged_too: bool) -> Result<u64, CheckError> {
    let disk = Arc::clone(work.disk.below());
    let (fs_id, layout) = (work.sb.fs_id, work.sb.layout);
    let mut replays = Vec::new();
    let mut newest = BTreeMap::new();
    for (slot, head) in SlotHead::read_all(&*disk, fs_id, &layout).await? {
        work.step("journals", slot.0.into(), layout.slot_count.into());
        let Ok(head) = head else { continue };
        if head.state != SlotState::Live {
            continue;
        }
        let scan = match head.journal(fs_id).scan_prefix(&*disk).await {
            Ok((scan, None)) => scan,
            Ok((scan, Some(damage))) if damaged_too => {
                let (error, segments) = (damage.error, scan.segments);
                work.report.was_damaged = true;
                work.did(slot, format!("{error}; {segments} segments before that are replayed"));
                scan
            }
            Err(ScanError::Disk(error)) => return Err(error.into()),
            Err(error) if damaged_too => {
                work.report.was_damaged = true;
                work.did(slot, format!("{error}; what only it had is lost"));
                replays.push((head, None));
                continue;
            }
            Ok((_, Some(_))) | Err(_) => continue,
        };
        let replay = Replay::new(Arc::clone(&disk), fs_id, head.writer(), scan);
        replay.add_newest(&mut newest);
        replays.push((head, Some(replay)));
    }
    let mut count = 0;
    for (mut head, replay) in replays {
        if let Some(replay) = replay {
            let done = replay_alone(&disk, &work.sb, &mut head, &replay, &newest).await?;
            if let Some(at) = done.not_written.first() {
                work.report.left(head.slot, format!("block {at} of its journal cannot be written"));
                continue;
            }
            let blocks = done.blocks;
            work.did(head.slot, format!("journal replayed, {blocks} blocks were not in place"));
        } else {
            let writer = head.writer();
            head.state = SlotState::Clean;
            head.write(&*disk, fs_id, &layout, writer).await?;
        }
        count += 1;
    }
    Ok(count)
}

/// Makes heads that nobody can read anew. Where the journal was that they led to is lost with them.
pub(super) async fn mend_heads(work: &mut Work<'_>) -> Result<(), CheckError> {
    let (fs_id, layout) = (work.sb.fs_id, work.sb.layout);
    let disk = Arc::clone(work.disk.below());
    for (slot, head) in SlotHead::read_all(&*disk, fs_id, &layout).await? {
        let Err(error) = head else { continue };
        for (at, block) in SlotHead::unused(fs_id, &layout, slot) {
            disk.write(at, WriteData::Blocks(vec![block.into()]), Durability::Durable).await?;
        }
        let lost = "begins anew, without a journal; what only its journal had is lost";
        work.report.was_damaged = true;
        work.did(slot, format!("{error}; {lost}"));
    }
    Ok(())
}

impl Work<'_> {
    /// The journals of all slots are in use; those that lie where they cannot are given up.
    pub(super) async fn claim_journals(&mut self) -> Result<(), CheckError> {
        let (fs_id, layout) = (self.sb.fs_id, self.sb.layout);
        let disk = Arc::clone(&self.disk);
        for (slot, head) in SlotHead::read_all(&*disk, fs_id, &layout).await? {
            let Ok(head) = head else { continue };
            let blocks = || {
                let runs = head.extents.iter();
                runs.flat_map(|(first, len)| (0..len).map(move |i| first.plus(i)))
            };
            if head.extents.blocks() == 0 {
                continue;
            }
            let distinct: BTreeSet<BlockNo> = blocks().collect();
            let is_sound = distinct.len() as u64 == head.extents.blocks()
                && head.extents.blocks() >= crate::fsck::JOURNAL_BLOCKS_MIN
                && blocks().all(|at| !self.is_used(at) && self.fits(at, ChunkKind::Journal));
            if !is_sound {
                for (at, block) in SlotHead::unused(fs_id, &layout, slot) {
                    self.disk.put(at, block);
                    self.fresh.insert(at);
                }
                self.did(slot, "its journal lies where it cannot; begins anew, without one");
                continue;
            }
            for at in blocks() {
                self.claim(at, ChunkKind::Journal);
            }
            self.mend_journal_header(slot, &head.extents).await;
        }
        Ok(())
    }

    /// A journal needs one whole header, or its slot cannot be taken.
    async fn mend_journal_header(&mut self, slot: SlotId, extents: &Extents) {
        let of = JournalOf { fs_id: self.sb.fs_id, slot, extents: extents.clone() };
        let Err(error) = of.start(&*self.disk).await else { return };
        let life = last_life(&*self.disk, self.sb.fs_id, slot, extents).await.saturating_add(1);
        for (at, version) in extents.headers().into_iter().zip([0, u64::from(life)]) {
            let mut block = Block::zeroed();
            let journal: &mut JournalHeaderBlock = block.get_mut();
            let owner = Owner::plain(slot.0.into());
            journal.header = Header::new(self.sb.fs_id, Kind::JournalHeader, at, owner, version);
            journal.tail_sequence = U64::new(1);
            journal.slot = U16::new(slot.0);
            journal.life = U32::new(life);
            header::seal(&mut block, Writer { slot, incarnation: Incarnation(0) });
            self.disk.put(at, block);
            self.fresh.insert(at);
        }
        self.did(slot, format!("{error}; begins anew, empty"));
    }

    /// Files on the lists of orphans, as far as these can be read.
    pub(super) async fn read_orphans(&mut self) -> BTreeSet<FileId> {
        let mut orphans = BTreeSet::new();
        for slot in (0..self.sb.layout.slot_count).map(SlotId) {
            let owner = Owner::plain(slot.0.into());
            let at = self.sb.layout.slot_body(slot);
            let Some(body) = self.find(at, Kind::SlotBody, owner).await else { continue };
            let body: &SlotBodyBlock = body.get();
            let listed = |entries: &[OrphanEntry]| -> Vec<FileId> {
                entries.iter().filter(|e| e.inode.get() != 0).map(file_of).collect()
            };
            orphans.extend(listed(&body.orphans));
            let mut next = body.orphan_blocks_head.get();
            let mut blocks = 0;
            while next != 0 && blocks < ORPHAN_BLOCKS_MAX {
                let Some(block) = self.orphan_block(BlockNo(next), owner).await else { break };
                orphans.extend(listed(&block.get::<OrphanBlock>().orphans));
                next = block.get::<OrphanBlock>().next.get();
                self.claim(BlockNo(block.get::<OrphanBlock>().header.block.get()), ChunkKind::Tree);
                blocks += 1;
            }
        }
        orphans
    }

    async fn orphan_block(&mut self, at: BlockNo, owner: Owner) -> Option<Box<Block>> {
        if self.is_used(at) || !self.fits(at, ChunkKind::Tree) {
            return None;
        }
        self.find(at, Kind::Orphans, owner).await
    }

    /// Lists without anything on them, and counters that add up to what is in use.
    pub(super) async fn write_slots(&mut self, inodes: u64) {
        let mut blocks = 0;
        for (no, group) in &self.groups {
            let fixed = self.sb.layout.fixed_blocks(*no);
            let used = crate::alloc::bits::count_set(&group.used, 0, group.used.len() * 8);
            blocks += used as u64 - fixed;
        }
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (mut blocks_left, mut inodes_left) = (
            signed(blocks).wrapping_sub(crate::mkfs::USED_BLOCKS),
            signed(inodes).wrapping_sub(crate::mkfs::USED_INODES),
        );
        let slots = || (0..self.sb.layout.slot_count).map(SlotId);
        let mut bodies = Vec::new();
        for slot in slots() {
            let at = self.sb.layout.slot_body(slot);
            let owner = Owner::plain(slot.0.into());
            let found = self.find(at, Kind::SlotBody, owner).await;
            if found.is_none() {
                self.did(slot, "its body is lost, and with it which files nobody had a name for");
            }
            let mut body = found.unwrap_or_else(Block::zeroed);
            self.empty_lists(slot, &mut body).await;
            let counters: &SlotBodyBlock = body.get();
            blocks_left = blocks_left.wrapping_sub(counters.used_blocks.get());
            inodes_left = inodes_left.wrapping_sub(counters.used_inodes.get());
            bodies.push((slot, at, owner, body));
        }
        if (blocks_left, inodes_left) != (0, 0) {
            // Which slot counted wrong nobody can say, and it does not matter: the sum counts.
            let (_, _, _, body) = &mut bodies[0];
            let body: &mut SlotBodyBlock = body.get_mut();
            body.used_blocks = I64::new(body.used_blocks.get().wrapping_add(blocks_left));
            body.used_inodes = I64::new(body.used_inodes.get().wrapping_add(inodes_left));
            self.did("slots", format!("now count {blocks} blocks and {inodes} inodes in use"));
        }
        for (_, at, owner, body) in bodies {
            self.put_changed(at, Kind::SlotBody, owner, body).await;
        }
    }

    async fn empty_lists(&mut self, slot: SlotId, body: &mut Block) {
        let owner = Owner::plain(slot.0.into());
        let body: &mut SlotBodyBlock = body.get_mut();
        let was_empty = body.orphans.iter().all(|entry| entry.inode.get() == 0);
        if !was_empty || body.orphans_count.get() != 0 {
            self.did(slot, "list of orphans emptied");
        }
        body.orphans = [OrphanEntry::FREE; crate::ondisk::slot::SLOT_ORPHANS_MAX];
        body.orphans_count = U16::ZERO;
        let mut chain = Vec::new();
        let mut next = body.orphan_blocks_head.get();
        while next != 0 && chain.len() < ORPHAN_BLOCKS_MAX {
            let at = BlockNo(next);
            // Claimed when the lists were read, if it is one of them.
            let block = self.find(at, Kind::Orphans, owner).await;
            let Some(block) = block.filter(|_| self.is_used(at) && !chain.contains(&at)) else {
                self.did(slot, format!("its list of orphans is cut off before block {at}"));
                break;
            };
            next = block.get::<OrphanBlock>().next.get();
            chain.push(at);
        }
        body.orphan_blocks_head = U64::new(chain.first().map_or(0, |at| at.0));
        for (i, at) in chain.iter().enumerate() {
            let mut block = Block::zeroed();
            let next = chain.get(i + 1).map_or(0, |next| next.0);
            block.get_mut::<OrphanBlock>().next = U64::new(next);
            self.put_changed(*at, Kind::Orphans, owner, block).await;
        }
    }
}

/// The highest life that a segment in a ring, or a header, is of.
async fn last_life(disk: &dyn Disk, fs_id: FsId, slot: SlotId, extents: &Extents) -> u32 {
    let mut life = 1;
    for (first, len) in extents.iter() {
        for at in (0..len).step_by(256) {
            let count = 256.min(len - at);
            for block in read_each(disk, first.plus(at), count).await.into_iter().flatten() {
                let Ok(head) = SegmentHead::ref_from_bytes(&block.0[..SEGMENT_HEAD_SIZE]) else {
                    continue;
                };
                if head.magic.get() == SEGMENT_MAGIC
                    && head.fs_id == fs_id.0
                    && head.slot.get() == slot.0
                {
                    life = life.max(head.life.get());
                }
            }
        }
    }
    for at in extents.headers() {
        if let Some(block) = read_one(disk, at).await
            && let Some(header) = header::of_damaged(&block, fs_id, at)
            && header.kind() == Some(Kind::JournalHeader)
        {
            life = life.max(u32::try_from(header.version()).unwrap_or(life));
        }
    }
    life
}
