//! Taking a slot.

use std::sync::Arc;

use lcl::pin::{Pin, PinError, Want};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Duration, FsId, SlotId};

use super::{MountError, first_journal};
use crate::block::{Block, BlockNo};
use crate::cache::{BlockSet, CachedBlock, Expect};
use crate::env::{Disk, Env};
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::fs::{Fs, Options};
use crate::journal::in_place::JournalHeader;
use crate::journal::{Journal, SegmentNo};
use crate::layout::Layout;
use crate::locks::{Classes, Resource};
use crate::ondisk::header::{self, Kind, Owner, Writer};
use crate::ondisk::slot::{OrphanBlock, SlotBodyBlock, SlotState};
use crate::slot::SlotRecord;
use crate::slot::head::SlotHead;
use crate::superblock::Superblock;

/// The longest list of orphans, in blocks: a million files.
const ORPHAN_BLOCKS_MAX: usize = 4096;

/// How long a mount tries to get the lock of a slot, and how often.
const PATIENCE: Duration = Duration::from_secs(30);
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// A slot that is ours.
pub(super) struct Taken {
    head: SlotHead,
    pin: Pin,
}

impl Superblock {
    pub(crate) async fn slot_head(
        &self,
        disk: &dyn Disk,
        slot: SlotId,
    ) -> Result<SlotHead, MountError> {
        let head = SlotHead::read(disk, self.fs_id, &self.layout, slot).await;
        head.map_err(|source| MountError::SlotHead { slot, source })
    }
}

/// A slot's body and the further blocks of its list of orphans, in the set of its lock.
pub(crate) struct SlotBlocks {
    pub(crate) set: Arc<BlockSet>,
    pub(crate) body: Arc<CachedBlock>,
    pub(crate) more: Vec<Arc<CachedBlock>>,
}

impl SlotBlocks {
    /// Reads them; the caller holds the slot's lock in EX.
    pub(crate) async fn read(
        disk: &dyn Disk,
        fs_id: FsId,
        layout: &Layout,
        slot: SlotId,
    ) -> Result<SlotBlocks, MountError> {
        let set = BlockSet::new(Resource::Slot(slot));
        let owner = Owner::plain(slot.0.into());
        let damaged = |c: Corruption| MountError::Slot { slot, source: FsError::Corrupt(c) };
        let read = async |at: BlockNo, kind: Kind| {
            let block = Box::new(disk.read(at, 1).await?.into_vec().remove(0));
            let header = header::check(&block, fs_id, at).map_err(damaged)?;
            Expect { kind, owner }.check(at, header).map_err(damaged)?;
            Ok::<Box<Block>, MountError>(block)
        };
        let at = layout.slot_body(slot);
        let body = read(at, Kind::SlotBody).await?;
        let mut next = body.get::<SlotBodyBlock>().orphan_blocks_head.get();
        let body = set.insert_read(at, body.into());
        let mut more = Vec::new();
        while next != 0 {
            let at = BlockNo(next);
            let block = read(at, Kind::Orphans).await?;
            next = block.get::<OrphanBlock>().next.get();
            more.push(set.insert_read(at, block.into()));
            if more.len() > ORPHAN_BLOCKS_MAX {
                let kind = CorruptionKind::Contents("a list of orphans without end");
                return Err(damaged(Corruption { block: at, kind, expected: 0, found: 0 }));
            }
        }
        Ok(SlotBlocks { set, body, more })
    }
}

/// Takes a slot that is clean, this node's last one if it can be, or one that was never used. When
/// the locks of all of them are refused it tries again for a while: what dead members may have
/// cached is waited for, and that ends soon.
pub(super) async fn take(env: &Env, sb: &Superblock) -> Result<Taken, MountError> {
    let began = env.runtime.now();
    loop {
        match try_take(env, sb).await? {
            Attempt::Taken(taken) => return Ok(*taken),
            Attempt::Refused if env.runtime.now().since(began) < PATIENCE => {
                env.runtime.sleep(TRY_AGAIN).await;
            }
            Attempt::Refused | Attempt::NoneFree => {
                return Err(MountError::NoSlot(sb.layout.slot_count));
            }
        }
    }
}

enum Attempt {
    Taken(Box<Taken>),
    /// The lock of every slot that looked free was refused.
    Refused,
    NoneFree,
}

async fn try_take(env: &Env, sb: &Superblock) -> Result<Attempt, MountError> {
    let me = env.group.me();
    let mut candidates = Vec::new();
    // Only a look: what counts is read again under the lock.
    for (slot, head) in SlotHead::read_all(&*env.disk, sb.fs_id, &sb.layout).await? {
        let Ok(head) = head else { continue };
        let was_mine = head.member.is_some_and(|m| m.node == me.node);
        let rank = match head.state {
            SlotState::Clean if was_mine => 0,
            SlotState::Clean => 1,
            SlotState::Free => 2,
            SlotState::Live if was_mine && !is_kept(Rule::LeaveDirtySlots) => 0,
            SlotState::Live => continue,
        };
        candidates.push((rank, slot));
    }
    candidates.sort_unstable();
    let mut none = Attempt::NoneFree;
    for (_, slot) in candidates {
        let resource = Resource::Slot(slot);
        let entry = env.locks.entry(resource.name(), resource.bucket(&sb.layout));
        let pin = match entry.pin(Want::write().no_queue()).await {
            Ok(pin) => pin,
            Err(PinError::Busy) => {
                none = Attempt::Refused;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let head = sb.slot_head(&*env.disk, slot).await?;
        let is_clean = matches!(head.state, SlotState::Clean | SlotState::Free);
        if is_clean || !is_kept(Rule::LeaveDirtySlots) {
            return Ok(Attempt::Taken(Box::new(Taken { head, pin })));
        }
    }
    Ok(none)
}

/// Opens the journal of a slot and makes the slot live.
pub(super) async fn begin(
    env: Env,
    options: Options,
    sb: &Superblock,
    taken: Taken,
    classes: &Arc<Classes>,
) -> Result<Arc<Fs>, MountError> {
    let Taken { mut head, pin } = taken;
    let writer = Writer { slot: head.slot, incarnation: env.group.me().incarnation };
    let disk = Arc::clone(&env.disk);
    let blocks = SlotBlocks::read(&*disk, sb.fs_id, &sb.layout, head.slot).await?;
    let first_use = head.extents.blocks() == 0;
    let found = if first_use { Some(first_journal::find(&env, sb).await?) } else { None };
    let start = match &found {
        Some(found) => {
            head.extents = found.extents();
            (SegmentNo(1), 0)
        }
        None => {
            let start = head.journal(sb.fs_id).start(&*disk).await?;
            (start.sequence, start.position)
        }
    };
    let (sequence, position) = start;
    let extents = &head.extents;
    let header = JournalHeader { fs_id: sb.fs_id, writer, extents, sequence, position };
    env.group.slot_begun();
    let life = header.write(&*disk, None).await?;

    let record = SlotRecord::new(pin, blocks);
    let extents = head.extents.clone();
    let writer_and_life = (writer, life);
    let journal =
        Journal::new(Arc::clone(&disk), sb.fs_id, writer_and_life, extents, start, record);
    let fs = Fs::new(env, options, sb, journal);
    classes.serve(&fs);
    let (journal, group) = (Arc::clone(&fs.journal), Arc::clone(&fs.env.group));
    fs.env.runtime.spawn(Box::pin(async move {
        if journal.run_writer().await.is_err() {
            group.journal_failed();
        }
    }));
    let held = match found {
        Some(found) => Some(fs.log_first_journal(found).await?),
        None => None,
    };
    head.state = SlotState::Live;
    head.member = Some(fs.env.group.me());
    head.write(&*disk, sb.fs_id, &sb.layout, writer).await?;
    // The groups' locks were kept until the head says that the chunks are taken.
    drop(held);
    *fs.head.lock() = Some(head);
    Ok(fs)
}
