//! Recovering what a dead mount left: its journal replayed, its slot clean, its orphans adopted.
//!
//! Two ways lead here. Alone: whoever mounts when nobody else has the file system mounted replays
//! every slot that is still live before the first operation. Beside others: a node that has it
//! mounted is told which member died, after the proof that it is fenced (I5); it replays only what
//! is in limbo on that member's account, while everybody goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lcl::ResourceName;
use lcl::pin::{Pin, PinError, Want};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Incarnation, Member, SlotId};
use zerocopy::little_endian::{U16, U32};

use super::MountError;
use super::slots::SlotBlocks;
use crate::block::{Block, BlockNo};
use crate::cache::CachedBlock;
use crate::env::{Disk, Durability, Env, WriteData};
use crate::error::DiskError;
use crate::file::FileId;
use crate::fs::Fs;
use crate::journal::redo_queue::RedoQueue;
use crate::journal::replay::{Redo, Replay};
use crate::journal::scan::{Damage, Scan, ScanError};
use crate::locks::Resource;
use crate::ondisk::alloc_group::GroupHeaderBlock;
use crate::ondisk::header::{self, Header, Kind, Writer};
use crate::ondisk::inode::{InodeBlock, InodeCore};
use crate::ondisk::slot::{OrphanBlock, OrphanEntry, SlotBodyBlock, SlotState};
use crate::slot::file_of;
use crate::slot::head::SlotHead;
use crate::superblock::Superblock;

/// Orphans adopted by one transaction.
const ADOPTED_AT_ONCE: usize = 16;

/// Blocks made durable before the first locks are free, and when somebody has begun to wait.
const REDONE_FIRST: usize = 32;

/// Blocks made durable at once when nobody waits.
const REDONE_AT_ONCE: usize = 512;

/// Locks freed at once.
const NAMES_AT_ONCE: usize = 1024;

/// What a recovery did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    pub slots: u64,
    /// Segments found in the journals.
    pub segments: u64,
    /// Locks that the journals speak of, and those of them with blocks not in place.
    pub locks: u64,
    pub locks_live: u64,
    /// Blocks brought up to date.
    pub blocks_replayed: u64,
    /// Locks whose objects had to be isolated.
    pub locks_damaged: u64,
    pub orphans_adopted: u64,
}

/// The journal of a dead slot, ready to be replayed.
async fn open_journal(
    env: &Env,
    sb: &Superblock,
    head: &SlotHead,
) -> Result<(Replay, u64), MountError> {
    let scan = head.journal(sb.fs_id).scan(&*env.disk).await?;
    let segments = scan.segments;
    Ok((Replay::new(Arc::clone(&env.disk), sb.fs_id, head.writer(), scan), segments))
}

/// A journal of a dead slot as far as it is whole.
struct Readable {
    replay: Replay,
    segments: u64,
    damage: Option<ScanError>,
    /// Locks that nobody may be given as if nothing was missing: of a journal that is damaged, those with
    /// records behind the damage, and all groups, since what is not in their bitmaps may be in use.
    doubtful: BTreeSet<ResourceName>,
}

async fn open_readable(env: &Env, sb: &Superblock, head: &SlotHead) -> Result<Readable, DiskError> {
    let (scan, damage) = match head.journal(sb.fs_id).scan_prefix(&*env.disk).await {
        Ok(found) => found,
        Err(ScanError::Disk(error)) => return Err(error),
        Err(error) => (Scan::default(), Some(Damage { error, behind: BTreeSet::new() })),
    };
    let segments = scan.segments;
    let replay = Replay::new(Arc::clone(&env.disk), sb.fs_id, head.writer(), scan);
    let Some(Damage { error, behind: mut doubtful }) = damage else {
        return Ok(Readable { replay, segments, damage: None, doubtful: BTreeSet::new() });
    };
    doubtful.extend(sb.layout.groups().map(|group| Resource::Group(group).name()));
    Ok(Readable { replay, segments, damage: Some(error), doubtful })
}

/// What dead members wrote may be in the volatile cache of the device only. It becomes durable, as what
/// is found in place is not written again, neither before its locks are free nor before the slot is clean.
async fn flush_behind_dead(env: &Env) -> Result<(), DiskError> {
    if is_kept(Rule::FlushBehindDead) { env.disk.flush().await } else { Ok(()) }
}

/// Replays every slot that is live, alone with the device: nobody else has it mounted.
///
/// # Errors
/// When a journal, or the head that leads to one, cannot be read or a block cannot be written.
pub(super) async fn recover_unowned(env: &Env, sb: &Superblock) -> Result<Recovered, MountError> {
    let mut recovered = Recovered::default();
    let mut live = Vec::new();
    for (slot, head) in SlotHead::read_all(&*env.disk, sb.fs_id, &sb.layout).await? {
        // It may lead to a journal with what somebody was told is safe.
        let head = head.map_err(|source| MountError::SlotHead { slot, source })?;
        let was_mine = head.member.is_some_and(|m| m.node == env.group.me().node);
        if head.state == SlotState::Live && (!was_mine || is_kept(Rule::LeaveDirtySlots)) {
            live.push(head);
        }
    }
    if live.is_empty() {
        return Ok(recovered);
    }
    flush_behind_dead(env).await?;
    // Looked through twice, so that no more than one is in memory.
    let mut newest = BTreeMap::new();
    if live.len() > 1 {
        for head in &live {
            open_journal(env, sb, head).await?.0.add_newest(&mut newest);
        }
    }
    for mut head in live {
        let (replay, segments) = open_journal(env, sb, &head).await?;
        let done = replay_alone(&env.disk, sb, &mut head, &replay, &newest).await?;
        if !done.not_written.is_empty() {
            return Err(MountError::NotReplayed(done.not_written.len()));
        }
        let locks = replay.locks().len() as u64;
        recovered.slots += 1;
        recovered.segments += segments;
        recovered.locks += locks;
        recovered.locks_live += locks;
        recovered.blocks_replayed += done.blocks;
        recovered.locks_damaged += done.isolated;
        let blocks = done.blocks;
        tracing::info!(slot = head.slot.0, segments, blocks, "slot replayed");
    }
    Ok(recovered)
}

/// What the replay of one journal did.
pub(crate) struct ReplayedAlone {
    /// Blocks that were not in place.
    pub(crate) blocks: u64,
    /// Objects that had to be isolated.
    pub(crate) isolated: u64,
    /// Of the blocks: the slot stays live when there are any.
    pub(crate) not_written: Vec<BlockNo>,
}

/// Replays a journal, alone with the device, and then makes its slot clean. `newest` are versions in
/// other journals that are replayed, too.
pub(crate) async fn replay_alone(
    disk: &Arc<dyn Disk>,
    sb: &Superblock,
    head: &mut SlotHead,
    replay: &Replay,
    newest: &BTreeMap<BlockNo, u64>,
) -> Result<ReplayedAlone, DiskError> {
    let mut redo = replay.rebuild(&replay.locks(), newest).await;
    let isolated = isolate(disk, sb, replay.writer, &mut redo).await?;
    let blocks = redo.changed.len() as u64;
    let not_written = replay.write(redo.changed).await?;
    if not_written.is_empty() {
        // Only now: until the slot is clean, another crash replays it again.
        head.state = SlotState::Clean;
        head.write(&**disk, sb.fs_id, &sb.layout, replay.writer).await?;
    }
    Ok(ReplayedAlone { blocks, isolated, not_written })
}

/// Marks objects that could not be replayed, or not for certain, so that every node refuses them;
/// durably, before anything else of the journal is written. Returns how many.
async fn isolate(
    disk: &Arc<dyn Disk>,
    sb: &Superblock,
    dead: Writer,
    redo: &mut Redo,
) -> Result<u64, DiskError> {
    let isolated: BTreeSet<ResourceName> = redo.damaged.union(&redo.doubtful).copied().collect();
    for name in &isolated {
        let at = match Resource::of_name(name) {
            Some(Resource::Inode(inode)) => BlockNo(inode.0),
            Some(Resource::Group(group)) => sb.layout.group_header(group),
            _ => continue,
        };
        tracing::error!(resource = ?name, "not replayable, isolated");
        let (mut block, writer) = match redo.changed.remove(&at) {
            Some(block) => (block, dead),
            None => match in_place(disk, sb, at).await? {
                Some(found) => found,
                // Whoever reads it finds out.
                None => continue,
            },
        };
        match Header::of(&block).kind() {
            Some(Kind::Inode) => {
                let core = &mut block.get_mut::<InodeBlock>().core;
                core.flags.set(core.flags.get() | InodeCore::ISOLATED);
            }
            Some(Kind::GroupHeader) => {
                block.get_mut::<GroupHeaderBlock>().isolated = U32::new(1);
            }
            _ => {}
        }
        header::seal(&mut block, writer);
        let data = WriteData::Blocks(vec![block.into()]);
        disk.write(at, data, Durability::Durable).await?;
    }
    Ok(isolated.len() as u64)
}

/// A block to be marked, in its next version, and who has written it; `None` for one that is not
/// what it should be.
async fn in_place(
    disk: &Arc<dyn Disk>,
    sb: &Superblock,
    at: BlockNo,
) -> Result<Option<(Box<Block>, Writer)>, DiskError> {
    let mut block = match disk.read(at, 1).await {
        Ok(blocks) => Box::new(blocks.into_vec().remove(0)),
        Err(DiskError::Failed { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Ok(header) = header::check(&block, sb.fs_id, at) else { return Ok(None) };
    if !matches!(header.kind(), Some(Kind::Inode | Kind::GroupHeader)) {
        return Ok(None);
    }
    let (slot, incarnation) = (SlotId(header.slot.get()), Incarnation(header.incarnation.get()));
    let version = header.version();
    Header::of_mut(&mut block).version.set(version + 1);
    Ok(Some((block, Writer { slot, incarnation })))
}

impl Fs {
    /// Recovers a dead member that is proven fenced: replays its journal as far as its locks are in
    /// limbo, frees those as their blocks become durable, makes its slot clean and adopts its
    /// orphans. Doing it twice is doing it once.
    ///
    /// # Errors
    /// When the device or the journal of this node fails; what could be replayed is free by then. A
    /// journal that is damaged is no error of the recovery: what is doubtful for it is isolated, and the
    /// slot stays as it is for fsck. A journal that nothing leads to any more is one: everything that
    /// the dead one held for writing stays in limbo.
    pub async fn recover_member(self: &Arc<Self>, dead: Member) -> Result<Recovered, MountError> {
        let mut recovered = Recovered::default();
        let sb = crate::superblock::read(&*self.env.disk).await?;
        let slots = self.slots_of(&sb, dead).await?;
        if !slots.is_empty() {
            flush_behind_dead(&self.env).await?;
        }
        let mut journals = Vec::new();
        let mut live = BTreeSet::new();
        let mut whole = Vec::new();
        for head in &slots {
            // One that cannot be read may well be read later, or by somebody else.
            let journal = open_readable(&self.env, &sb, head).await?;
            recovered.segments += journal.segments;
            recovered.locks += journal.replay.locks().len() as u64;
            live.extend(journal.replay.live().await);
            live.extend(&journal.doubtful);
            match &journal.damage {
                None => whole.push(head.slot),
                Some(error) => {
                    self.report_journal(head.slot, error);
                    recovered.locks_damaged += 1;
                }
            }
            journals.push(journal);
            // The slot itself belongs to the dead until it is clean.
            live.insert(Resource::Slot(head.slot).name());
        }
        recovered.locks_live = live.len() as u64;
        let limbo = self.env.locks.limbo_of(dead, live.iter().copied().collect()).await?;
        let mut queue = RedoQueue::new(limbo);
        for (i, journal) in journals.iter().enumerate() {
            // A member has one slot. Should it have left more, what they share is free at the end.
            let shared = journals[i + 1..].iter().flat_map(|later| later.replay.locks()).collect();
            self.redo(&sb, dead, journal, &mut queue, &shared, &mut recovered).await?;
        }
        self.env.locks.replayed(dead, queue.rest());
        if !queue.unwritable.is_empty() {
            // Nobody may see half of it: they stay in limbo until it can be written.
            return Err(MountError::NotReplayed(queue.unwritable.len()));
        }
        for slot in whole {
            let resource = Resource::Slot(slot);
            let entry = self.env.locks.entry(resource.name(), resource.bucket(&self.layout));
            let pin = entry.pin(Want::write()).await?;
            recovered.orphans_adopted += self.take_over(&sb, slot, &pin, Some(dead)).await?;
            recovered.slots += 1;
            drop(pin);
            // Whoever mounts next takes it without queueing.
            self.env.locks.idle(&entry);
        }
        self.env.locks.recovered(dead);
        Ok(recovered)
    }

    /// Redoes what one journal of a dead member has for the locks in the queue, in its order, and
    /// frees each lock as what it needs has become durable; but not those in `shared`.
    async fn redo(
        &self,
        sb: &Superblock,
        dead: Member,
        journal: &Readable,
        queue: &mut RedoQueue,
        shared: &BTreeSet<ResourceName>,
        recovered: &mut Recovered,
    ) -> Result<(), MountError> {
        let Readable { replay, doubtful, .. } = journal;
        let mut redo = replay.rebuild(&queue.names, &BTreeMap::new()).await;
        // What is not in limbo is in other hands, in place.
        redo.doubtful.extend(doubtful.intersection(&queue.names));
        recovered.locks_damaged += isolate(&self.env.disk, sb, replay.writer, &mut redo).await?;
        let Redo { mut changed, needs, .. } = redo;
        let mut failed: BTreeSet<BlockNo> = BTreeSet::new();
        queue.begin();
        let mut limit = REDONE_FIRST;
        loop {
            let wanted = self.env.locks.wanted_of(dead);
            if !wanted.is_empty() {
                queue.prefer(wanted);
                limit = REDONE_FIRST;
            }
            let mut names = Vec::new();
            let mut blocks = BTreeMap::new();
            while blocks.len() < limit
                && names.len() < NAMES_AT_ONCE
                && let Some(name) = queue.next()
            {
                let needed = needs.get(&name).into_iter().flatten();
                blocks.extend(needed.filter_map(|number| changed.remove_entry(number)));
                names.push(name);
            }
            if names.is_empty() {
                return Ok(());
            }
            if !is_kept(Rule::RedoBeforeRelease) {
                self.env.locks.replayed(dead, names.clone());
            }
            let count = blocks.len();
            let not_written = replay.write(blocks).await?;
            recovered.blocks_replayed += (count - not_written.len()) as u64;
            failed.extend(not_written);
            let (unwritable, free): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| {
                needs.get(name).into_iter().flatten().any(|number| failed.contains(number))
            });
            queue.unwritable.extend(unwritable);
            let free: Vec<ResourceName> =
                free.into_iter().filter(|name| !shared.contains(name)).collect();
            queue.freed(&free);
            self.env.locks.replayed(dead, free);
            limit = (limit * 2).min(REDONE_AT_ONCE);
        }
    }

    /// Slots that a member left live.
    ///
    /// # Errors
    /// When no slot is known to be its, and one cannot be read that may be.
    async fn slots_of(&self, sb: &Superblock, member: Member) -> Result<Vec<SlotHead>, MountError> {
        let mut live = Vec::new();
        let mut unknown = None;
        for (slot, head) in SlotHead::read_all(&*self.env.disk, sb.fs_id, &sb.layout).await? {
            match head {
                Ok(head) if head.state == SlotState::Live && head.member == Some(member) => {
                    live.push(head);
                }
                Ok(_) => {}
                Err(source) => unknown = Some(MountError::SlotHead { slot, source }),
            }
        }
        match unknown {
            Some(error) if live.is_empty() => Err(error),
            _ => Ok(live),
        }
    }

    /// Adopts the orphans of slots that were left clean with some.
    ///
    /// # Errors
    /// When the device or the journal of this node fails.
    pub async fn adopt_orphans(self: &Arc<Self>) -> Result<u64, MountError> {
        self.unless_over(self.adopt()).await.unwrap_or(Ok(0))
    }

    async fn adopt(self: &Arc<Self>) -> Result<u64, MountError> {
        let sb = crate::superblock::read(&*self.env.disk).await?;
        let mut adopted = 0;
        for (slot, head) in SlotHead::read_all(&*self.env.disk, sb.fs_id, &sb.layout).await? {
            if !head.is_ok_and(|head| head.state == SlotState::Clean) {
                continue;
            }
            let body = self.env.disk.read(sb.layout.slot_body(slot), 1).await?;
            let body: &SlotBodyBlock = body[0].get();
            if body.orphans_count.get() == 0 && body.orphan_blocks_head.get() == 0 {
                continue;
            }
            let resource = Resource::Slot(slot);
            let entry = self.env.locks.entry(resource.name(), resource.bucket(&self.layout));
            match entry.pin(Want::write().no_queue()).await {
                Ok(pin) => {
                    adopted += self.take_over(&sb, slot, &pin, None).await?;
                    drop(pin);
                    self.env.locks.idle(&entry);
                }
                Err(PinError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(adopted)
    }

    /// Moves the orphans of a slot to this mount's own list, and makes the slot clean if it was
    /// `dead`'s. The files move in transactions of this mount: whoever dies now, a file is on one
    /// list.
    async fn take_over(
        self: &Arc<Self>,
        sb: &Superblock,
        slot: SlotId,
        pin: &Pin,
        dead: Option<Member>,
    ) -> Result<u64, MountError> {
        let mut head = sb.slot_head(&*self.env.disk, slot).await?;
        let expected = match dead {
            Some(dead) => head.state == SlotState::Live && head.member == Some(dead),
            None => head.state == SlotState::Clean,
        };
        if !expected {
            // Somebody else was quicker.
            return Ok(0);
        }
        let blocks = SlotBlocks::read(&*self.env.disk, sb.fs_id, &sb.layout, slot).await?;
        let SlotBlocks { set, body: own, more } = blocks;
        let mut orphans = listed(&own, &more);
        let adopted = orphans.clone();
        while !orphans.is_empty() {
            let batch: Vec<Place> =
                orphans.split_off(orphans.len().saturating_sub(ADOPTED_AT_ONCE));
            self.make_orphan_places(batch.len()).await?;
            self.transact(2 + batch.len(), |tx| {
                for place in &batch {
                    if is_kept(Rule::AdoptOrphans) {
                        tx.add_orphan(place.file);
                    }
                    let block = tx.change(pin, &set, place.block(&own, &more));
                    place.clear(block);
                }
                Ok(())
            })
            .await?;
        }
        // In place before the slot is clean and its lock is given up: the next one to look reads it
        // there.
        self.journal.settle_in_place(&set.dirty()).await?;
        if head.state == SlotState::Live {
            let writer = head.writer();
            head.state = SlotState::Clean;
            head.write(&*self.env.disk, sb.fs_id, &sb.layout, writer).await?;
        }
        for place in adopted.iter().filter(|_| is_kept(Rule::AdoptOrphans)) {
            self.reap_later(place.file);
        }
        Ok(adopted.len() as u64)
    }
}

/// Where an orphan stands in another slot's list.
#[derive(Clone, Copy)]
struct Place {
    file: FileId,
    /// The block of the list behind the slot's own, or the slot's own.
    further: Option<usize>,
    at: usize,
}

impl Place {
    fn block<'a>(
        &self,
        own: &'a Arc<CachedBlock>,
        more: &'a [Arc<CachedBlock>],
    ) -> &'a Arc<CachedBlock> {
        self.further.map_or(own, |i| &more[i])
    }

    fn clear(&self, block: &mut Block) {
        match self.further {
            None => {
                let body: &mut SlotBodyBlock = block.get_mut();
                body.orphans[self.at] = OrphanEntry::FREE;
                body.orphans_count = U16::new(body.orphans_count.get().saturating_sub(1));
            }
            Some(_) => {
                let body: &mut OrphanBlock = block.get_mut();
                body.orphans[self.at] = OrphanEntry::FREE;
                body.count = U32::new(body.count.get().saturating_sub(1));
            }
        }
    }
}

/// All orphans of a slot.
fn listed(own: &CachedBlock, more: &[Arc<CachedBlock>]) -> Vec<Place> {
    let in_block = |entries: &[OrphanEntry], further: Option<usize>| -> Vec<Place> {
        let used = entries.iter().enumerate().filter(|(_, entry)| entry.inode.get() != 0);
        used.map(|(at, entry)| Place { file: file_of(entry), further, at }).collect()
    };
    let mut found = in_block(&own.data().get::<SlotBodyBlock>().orphans, None);
    for (i, block) in more.iter().enumerate() {
        found.extend(in_block(&block.data().get::<OrphanBlock>().orphans, Some(i)));
    }
    found
}
