//! The journal of a slot that is used for the first time.
//!
//! There is no journal yet in which the allocation could be logged, so it is logged in the new
//! journal itself: free chunks are found under their groups' locks, the journal is opened in them,
//! and its first transactions mark them used. The slot's head, written behind that, makes the
//! whole valid with one write; before it, the chunks are free and what is in them means
//! nothing.
//!
//! Where there is no room, the other mounts are asked once for what they have claimed and do not
//! need, and groups that they hold are waited for, in order.

use std::sync::Arc;

use lcl::Mode;
use lcl::pin::{Pin, PinError, Want};

use super::MountError;
use crate::alloc::claim::is_whole;
use crate::alloc::give_back::space_entry;
use crate::alloc::group::Group;
use crate::alloc::{PinnedGroup, bits};
use crate::block::{Block, BlockNo, as_usize};
use crate::cache::Expect;
use crate::env::{Durability, Env, WriteData};
use crate::error::FsError;
use crate::fs::Fs;
use crate::journal::ring::Extents;
use crate::layout::{GroupNo, Layout};
use crate::locks::Resource;
use crate::mkfs;
use crate::ondisk::alloc_group::{
    CHUNKS_PER_BLOCK, ChunkEntry, ChunkKind, ChunkTableBlock, GROUPS_PER_MAP, GroupMapBlock,
};
use crate::ondisk::header::{self, Kind, Writer};
use crate::ondisk::slot::JOURNAL_EXTENTS_MAX;
use crate::superblock::Superblock;

/// Half of the ring has to take the largest transaction of a truncation, of 80 blocks.
const BLOCKS_MIN: u64 = 192;

/// Chunks found for a journal, with the locks that keep them free for us.
pub(super) struct Found {
    layout: Layout,
    groups: Vec<FoundGroup>,
}

struct FoundGroup {
    no: GroupNo,
    pin: Pin,
    /// Runs of free chunks to take: first, count. A leader may be here for its map only.
    runs: Vec<(u64, u64)>,
    /// The group has never been used: its bit in the leader's map has to be set.
    is_new: bool,
}

impl Found {
    pub(super) fn extents(&self) -> Extents {
        let chunk_blocks = u64::from(self.layout.chunk_blocks);
        let runs = self.groups.iter().flat_map(|g| g.runs.iter().map(|run| (g.no, *run)));
        let extents = runs.map(|(no, (first, count))| {
            let at = self.layout.group_first(no).plus(first * chunk_blocks);
            (at, count * chunk_blocks)
        });
        Extents::new(extents.collect())
    }

    fn blocks(&self) -> u64 {
        self.extents().blocks()
    }

    fn extent_count(&self) -> usize {
        self.groups.iter().map(|g| g.runs.len()).sum()
    }
}

/// Finds free chunks for a journal of the size that the superblock says, or half of it where there
/// is no more.
pub(super) async fn find(env: &Env, sb: &Superblock) -> Result<Found, MountError> {
    match look_through(env, sb, false).await {
        Err(MountError::NoRoomForJournal) => {}
        found => return found,
    }
    let space = space_entry(&*env.locks, &sb.layout);
    let pin = space.pin(Want::shared(Mode::EX)).await?;
    let found = look_through(env, sb, true).await;
    drop(pin);
    env.locks.idle(&space);
    found
}

/// One look at the groups: those homed here first, trying their locks; or all of them, ascending,
/// waiting for their locks.
async fn look_through(env: &Env, sb: &Superblock, waits: bool) -> Result<Found, MountError> {
    let layout = sb.layout;
    let want = u64::from(layout.journal_blocks);
    let mut found = Found { layout, groups: Vec::new() };
    // Groups homed here first, as for every allocation.
    let is_home = |no: &GroupNo| env.locks.is_home(Resource::Group(*no).bucket(&layout));
    let mut order: Vec<GroupNo> = layout.groups().take(4096).collect();
    if !waits {
        order.sort_by_key(|no| !is_home(no));
    }
    for no in order {
        if found.blocks() >= want || found.extent_count() >= JOURNAL_EXTENTS_MAX {
            break;
        }
        look_into(env, sb, no, want, waits, &mut found).await?;
        if waits {
            // Leaders are needed for their groups.
            found.groups.retain(|g| !g.runs.is_empty() || layout.map_leader(g.no) == g.no);
        }
    }
    if found.blocks() < (want / 2).max(BLOCKS_MIN).min(want) {
        return Err(MountError::NoRoomForJournal);
    }
    Ok(found)
}

/// Adds free chunks of one group. Unless they come in order, and are waited for, locks are only tried
/// when others are held; the first one, a leader's, is waited for all the same: another mount has it
/// cached for as long as nobody asks.
async fn look_into(
    env: &Env,
    sb: &Superblock,
    no: GroupNo,
    want: u64,
    waits: bool,
    found: &mut Found,
) -> Result<(), MountError> {
    let layout = &sb.layout;
    let leader = layout.map_leader(no);
    if !hold(env, layout, leader, waits, found).await? {
        return Ok(());
    }
    let expect =
        |group: GroupNo, kind| Expect { kind, owner: crate::ondisk::header::Owner::plain(group.0) };
    let map = read(env, sb, layout.group_map(leader), expect(leader, Kind::GroupMap)).await?;
    let in_use = bits::get(&map.get::<GroupMapBlock>().bits, (no.0 % GROUPS_PER_MAP) as usize);
    if no != leader && !hold(env, layout, no, waits, found).await? {
        return Ok(());
    }
    if !in_use {
        for (first, blocks) in mkfs::group_blocks(sb.fs_id, layout, no, Writer::MKFS) {
            env.disk.write(first, WriteData::Run(blocks.into()), Durability::Volatile).await?;
        }
        env.disk.flush().await?;
    }
    let chunk_blocks = u64::from(layout.chunk_blocks);
    let mut have = found.blocks();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let room = JOURNAL_EXTENTS_MAX - found.extent_count();
    for t in 0..layout.chunk_table_blocks(no) {
        let at = layout.chunk_table_first(no).plus(t);
        let table = read(env, sb, at, expect(no, Kind::ChunkTable)).await?;
        let entries = &table.get::<ChunkTableBlock>().entries;
        for (i, entry) in entries.iter().enumerate() {
            let chunk = t * CHUNKS_PER_BLOCK as u64 + i as u64;
            if chunk >= layout.chunk_count(no) || have >= want {
                break;
            }
            if !is_whole(entry, chunk_blocks, &*env.group) {
                continue;
            }
            let full = runs.len() == room;
            match runs.last_mut() {
                Some((first, count)) if *first + *count == chunk => *count += 1,
                _ if full => break,
                _ => runs.push((chunk, 1)),
            }
            have += chunk_blocks;
        }
    }
    let group = found.groups.iter_mut().find(|g| g.no == no).expect("held");
    group.runs = runs;
    group.is_new = !in_use;
    Ok(())
}

/// Holds a group's lock from here on; false when another node has it.
async fn hold(
    env: &Env,
    layout: &Layout,
    no: GroupNo,
    waits: bool,
    found: &mut Found,
) -> Result<bool, MountError> {
    if found.groups.iter().any(|g| g.no == no) {
        return Ok(true);
    }
    let resource = Resource::Group(no);
    let entry = env.locks.entry(resource.name(), resource.bucket(layout));
    let want =
        if waits || found.groups.is_empty() { Want::write() } else { Want::write().no_queue() };
    match entry.pin(want).await {
        Ok(pin) => {
            found.groups.push(FoundGroup { no, pin, runs: Vec::new(), is_new: false });
            Ok(true)
        }
        Err(PinError::Busy) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn read(
    env: &Env,
    sb: &Superblock,
    at: BlockNo,
    expect: Expect,
) -> Result<Box<Block>, MountError> {
    let block = Box::new(env.disk.read(at, 1).await?.into_vec().remove(0));
    let header = header::check(&block, sb.fs_id, at).map_err(FsError::Corrupt)?;
    expect.check(at, header).map_err(FsError::Corrupt)?;
    Ok(block)
}

impl Fs {
    /// Logs the allocation of this mount's own journal, as its first transactions, durably. The
    /// groups stay pinned until the slot's head is written.
    pub(super) async fn log_first_journal(
        &self,
        found: Found,
    ) -> Result<Vec<PinnedGroup>, FsError> {
        let new_groups: Vec<GroupNo> =
            found.groups.iter().filter(|g| g.is_new).map(|g| g.no).collect();
        let mut pinned = Vec::new();
        for found in found.groups {
            let group = PinnedGroup { group: self.group(found.no), pin: found.pin };
            self.settle(|| group.group.loaded(&self.layout)).await?;
            pinned.push((group, found.runs));
        }
        for (group, runs) in &pinned {
            if runs.is_empty() {
                continue;
            }
            let blocks = 2
                + as_usize(self.layout.chunk_table_blocks(group.group.no))
                + as_usize(self.layout.bitmap_blocks(group.group.no));
            self.transact(blocks, |tx| {
                runs.iter().try_for_each(|(first, count)| {
                    (*first..first + count).try_for_each(|chunk| group.take_journal(tx, chunk))
                })
            })
            .await?;
        }
        for no in new_groups {
            let leader_no = self.layout.map_leader(no);
            let leader = pinned.iter().map(|(g, _)| g).find(|g| g.group.no == leader_no);
            let leader = leader.expect("the leader is held with its group");
            self.transact(1, |tx| set_in_map(self, tx, &leader.group, &leader.pin, no)).await?;
        }
        self.journal.force(self.journal.last()).await?;
        Ok(pinned.into_iter().map(|(group, _)| group).collect())
    }
}

impl PinnedGroup {
    /// Takes a whole free chunk for a journal.
    fn take_journal(
        &self,
        tx: &mut crate::journal::Transaction,
        chunk: u64,
    ) -> crate::cache::Step<()> {
        let chunk_blocks = self.group.geometry.chunk_blocks;
        let mut entry: ChunkEntry = self.group.chunk(tx, chunk)?;
        assert!(self.group.is_whole(&entry), "found free under its lock");
        let was_free = entry.kind == ChunkKind::Free as u8;
        entry.kind = ChunkKind::Journal as u8;
        entry.set_claimant(None);
        self.group.set_chunk(tx, &self.pin, chunk, entry)?;
        self.group.add_free(tx, &self.pin, 0, -i64::from(was_free))?;
        self.mark_used(tx, chunk * chunk_blocks, chunk_blocks)
    }
}

fn set_in_map(
    fs: &Fs,
    tx: &mut crate::journal::Transaction,
    leader: &Arc<Group>,
    pin: &Pin,
    no: GroupNo,
) -> crate::cache::Step<()> {
    let expect = Expect { kind: Kind::GroupMap, owner: leader.owner() };
    let block = leader.set.expect(fs.layout.group_map(leader.no), expect)?;
    let map: &mut GroupMapBlock = tx.change(pin, &leader.set, &block).get_mut();
    bits::set(&mut map.bits, (no.0 % GROUPS_PER_MAP) as usize, 1);
    Ok(())
}
