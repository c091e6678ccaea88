//! Which group an allocation turns to.
//!
//! Groups homed on this node first: what is made there is locked without a message. Then groups
//! that nobody else holds, at last those of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use lcl::pin::{PinError, Want};
use parking_lot::Mutex;

use super::claim::Use;
use super::group::{Group, PinnedGroup};
use crate::block::as_usize;
use crate::cache::Step;
use crate::env::{Durability, WriteData};
use crate::error::{DiskError, FsError};
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::layout::GroupNo;
use crate::locks::Resource;
use crate::mkfs;
use crate::ondisk::alloc_group::{ChunkKind, GROUPS_PER_MAP, GroupMapBlock};
use crate::ondisk::header::Kind;

/// What an operation may need in one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) inodes: u64,
    /// Extent nodes, directory blocks, blocks of orphans.
    pub(crate) tree: u64,
    /// Blocks for data, promised before.
    pub(crate) data: u64,
}

impl Needs {
    pub(crate) fn tree(tree: u64) -> Needs {
        Needs { tree, ..Needs::default() }
    }
}

/// All groups this mount has dealt with, and where it allocates at present.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    known: Mutex<BTreeMap<GroupNo, Arc<Group>>>,
    /// Groups whose bit in the map was seen set; it is never cleared.
    initialised: Mutex<std::collections::BTreeSet<GroupNo>>,
    /// The group that served last.
    current: Mutex<Option<GroupNo>>,
}

/// What an allocation looks for.
#[derive(Clone, Copy)]
enum Ask {
    Metadata(Needs),
    /// So many blocks to be promised.
    Space(Use, u64),
}

/// How a candidate's lock is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Only groups homed here.
    Home,
    /// Only groups that no other node holds.
    Idle,
    Any,
}

/// Why groups do not suit that may have what is asked for.
#[derive(Default)]
struct Trouble {
    unreadable: Option<FsError>,
    damaged: Option<FsError>,
    /// There was one that is whole.
    looked_into: bool,
}

impl Trouble {
    fn told(self) -> FsError {
        let damaged = self.damaged.filter(|_| !self.looked_into);
        self.unreadable.or(damaged).unwrap_or(FsError::NoSpace)
    }
}

impl Fs {
    pub(crate) fn group(&self, no: GroupNo) -> Arc<Group> {
        let mut known = self.groups.known.lock();
        let group = known.entry(no).or_insert_with(|| {
            let resource = Resource::Group(no);
            let entry = self.env.locks.entry(resource.name(), resource.bucket(&self.layout));
            Group::new(no, &self.layout, entry, Arc::clone(&self.env.group))
        });
        Arc::clone(group)
    }

    pub(crate) fn known_groups(&self) -> Vec<Arc<Group>> {
        self.groups.known.lock().values().cloned().collect()
    }

    /// Pins a group for itself, initialised and loaded.
    pub(crate) async fn pin_group(&self, no: GroupNo) -> Result<PinnedGroup, FsError> {
        self.initialise(no).await?;
        let group = self.group(no);
        let pin = group.entry.pin(Want::write()).await?;
        self.loaded(PinnedGroup { group, pin }).await
    }

    /// As [`Fs::pin_group`], unless another node has to give the lock up first, or its home is silent:
    /// a dead one answers when it has an heir.
    pub(crate) async fn try_pin_group(&self, no: GroupNo) -> Result<Option<PinnedGroup>, FsError> {
        self.initialise(no).await?;
        let group = self.group(no);
        match self.pin_soon(&group.entry, Want::write().no_queue()).await {
            Ok(Some(pin)) => Ok(Some(self.loaded(PinnedGroup { group, pin }).await?)),
            Ok(None) | Err(PinError::Busy) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn loaded(&self, group: PinnedGroup) -> Result<PinnedGroup, FsError> {
        self.settle(|| group.group.loaded(&self.layout)).await?;
        group.group.wake(self.journal.durable());
        for of in [Use::Data, Use::Nodes] {
            self.account(of).change(self.settle_now(group.group.recount_claims(of))?);
        }
        Ok(group)
    }

    /// A group with room for metadata, pinned; new metadata chunks are made as needed.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when no group of the device has the room.
    pub(crate) async fn metadata_group(&self, needs: Needs) -> Result<PinnedGroup, FsError> {
        self.pick(Ask::Metadata(needs)).await
    }

    /// Claims chunks until `blocks` can be promised, and promises them.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when the device has not that much left.
    pub(crate) async fn promise_space(&self, of: Use, blocks: u64) -> Result<(), FsError> {
        if self.account(of).try_promise(blocks) {
            return Ok(());
        }
        self.pick(Ask::Space(of, blocks)).await.map(|_| ())
    }

    /// Does the pinned group give what is asked for?
    async fn suits(&self, group: &PinnedGroup, ask: Ask) -> Result<bool, FsError> {
        match ask {
            Ask::Metadata(needs) => self.provide(group, needs).await,
            Ask::Space(of, blocks) => {
                let short = self.account(of).shortage(blocks);
                match of {
                    _ if short == 0 => {}
                    Use::Data => self.claim_space(group, short).await?,
                    Use::Nodes => self.claim_nodes(group, short, blocks).await?,
                }
                Ok(self.account(of).try_promise(blocks))
            }
        }
    }

    /// Claims somewhat more than is needed, so that not every write goes to a group; less than a
    /// small part of the device, so that no mount sits on what others need.
    async fn claim_space(&self, group: &PinnedGroup, short: u64) -> Result<(), FsError> {
        let ahead = (self.layout.usable_blocks() / 256).clamp(64, 16_384);
        let free = self.settle(|| group.group.counters(&self.transaction())).await?;
        if free.free_blocks == 0 {
            return Ok(());
        }
        self.claim_chunks(group, Use::Data, short.max(ahead)).await
    }

    /// Claims blocks for nodes, `short` of them if there are: in tree chunks that are there, then in
    /// new ones.
    async fn claim_nodes(
        &self,
        group: &PinnedGroup,
        short: u64,
        blocks: u64,
    ) -> Result<(), FsError> {
        self.claim_chunks(group, Use::Nodes, short).await?;
        while self.nodes.shortage(blocks) > 0 {
            if !self.claim_metadata(group, ChunkKind::Tree, true).await? {
                break;
            }
        }
        Ok(())
    }

    async fn claim_chunks(&self, group: &PinnedGroup, of: Use, want: u64) -> Result<(), FsError> {
        let tables = as_usize(self.layout.chunk_table_blocks(group.group.no));
        let reservation = self.journal.reserve(1 + tables).await?;
        let (tx, claimed) = self
            .settle(|| {
                let mut tx = self.transaction();
                let claimed = group.claim(self, &mut tx, of, want)?;
                Ok((tx, claimed))
            })
            .await?;
        self.commit(tx, reservation);
        for (chunk, free) in claimed {
            self.count_claim(&group.group, of, chunk, free);
        }
        Ok(())
    }

    /// Makes sure that the group has what is needed; false when it cannot.
    pub(crate) async fn provide(&self, group: &PinnedGroup, needs: Needs) -> Result<bool, FsError> {
        for (kind, need) in [(ChunkKind::Inode, needs.inodes), (ChunkKind::Tree, needs.tree)] {
            if need == 0 {
                continue;
            }
            loop {
                let tx = self.transaction();
                let free = self.settle(|| group.free_metadata(&tx, kind, need)).await?;
                if free >= need {
                    // Where the next one is damaged, another group is taken.
                    self.settle(|| group.next_metadata(&tx, kind)).await?;
                    break;
                }
                if !self.claim_metadata(group, kind, false).await? {
                    return Ok(false);
                }
            }
        }
        if needs.data > 0 && !self.has_data(group).await? {
            self.claim_space(group, needs.data).await?;
            return self.has_data(group).await;
        }
        Ok(true)
    }

    /// Has this mount a claimed block in the group that could be taken now?
    pub(crate) async fn has_data(&self, group: &PinnedGroup) -> Result<bool, FsError> {
        let mut scratch = self.transaction();
        Ok(self.settle(|| group.take_data(&mut scratch, 1, None)).await?.is_some())
    }

    /// Finds a group that suits; it stays pinned. When there is none, the others are asked once for
    /// what they have claimed and do not need.
    async fn pick(&self, ask: Ask) -> Result<PinnedGroup, FsError> {
        let claims = match ask {
            Ask::Space(..) => true,
            Ask::Metadata(needs) => needs.data > 0,
        };
        {
            let _claiming = if claims { Some(self.pin_to_claim().await?) } else { None };
            match self.look_through(ask).await {
                Err(FsError::NoSpace) => {}
                found => return found,
            }
        }
        self.free_own().await?;
        let everything = self.take_back().await?;
        if !matches!(ask, Ask::Space(Use::Data, _)) {
            self.give_back_surplus().await?;
        }
        let found = self.look_through(ask).await;
        drop(everything);
        self.let_others_claim();
        found
    }

    /// Goes through the groups, the best first, until one suits; it stays pinned.
    async fn look_through(&self, ask: Ask) -> Result<PinnedGroup, FsError> {
        let mut trouble = Trouble::default();
        let current = *self.groups.current.lock();
        if let Some(current) = current
            && let Some(group) = self.suiting(current, ask, true, &mut trouble).await?
        {
            return Ok(group);
        }
        for effort in [Effort::Home, Effort::Idle, Effort::Any] {
            for no in self.candidates() {
                let bucket = Resource::Group(no).bucket(&self.layout);
                if self.env.locks.is_home(bucket) != (effort == Effort::Home) {
                    continue;
                }
                let waits = effort == Effort::Any;
                if let Some(group) = self.suiting(no, ask, waits, &mut trouble).await? {
                    *self.groups.current.lock() = Some(no);
                    return Ok(group);
                }
            }
        }
        // Groups homed here that another node held at first.
        for no in self.candidates() {
            if let Some(group) = self.suiting(no, ask, true, &mut trouble).await? {
                *self.groups.current.lock() = Some(no);
                return Ok(group);
            }
        }
        Err(trouble.told())
    }

    /// The group, pinned, if it suits; `None` also when another node has it and nobody `waits`. One
    /// that is damaged does not suit, nor one that cannot be read: the others are there still.
    async fn suiting(
        &self,
        no: GroupNo,
        ask: Ask,
        waits: bool,
        trouble: &mut Trouble,
    ) -> Result<Option<PinnedGroup>, FsError> {
        let mut looked_into = false;
        let found = async {
            let group = match waits {
                true => Some(self.pin_group(no).await?),
                false => self.try_pin_group(no).await?,
            };
            let Some(group) = group else { return Ok(None) };
            looked_into = true;
            Ok(self.suits(&group, ask).await?.then_some(group))
        };
        let found = found.await;
        trouble.looked_into |= looked_into;
        match found {
            Err(error @ (FsError::Damaged | FsError::Corrupt(_))) => {
                trouble.damaged.get_or_insert(error);
                Ok(None)
            }
            Err(error @ FsError::Disk(DiskError::Failed { .. })) if !self.journal.has_failed() => {
                tracing::warn!(group = no.0, %error, "no allocation from this group");
                trouble.unreadable.get_or_insert(error);
                Ok(None)
            }
            found => found,
        }
    }

    /// All groups, from one that depends on the slot, so that mounts spread.
    fn candidates(&self) -> impl Iterator<Item = GroupNo> + use<> {
        let count = self.layout.group_count;
        let start = u64::from(self.journal.slot().0).wrapping_mul(0x9e37_79b9) % count;
        (0..count).map(move |i| GroupNo((start + i) % count))
    }

    /// Has the group been used since the file system was made?
    pub(crate) async fn is_initialised(&self, no: GroupNo) -> Result<bool, FsError> {
        if self.groups.initialised.lock().contains(&no) {
            return Ok(true);
        }
        let leader = self.group(self.layout.map_leader(no));
        let _pin = leader.entry.pin(Want::read()).await?;
        let is_there = self.settle(|| is_in_map(self, &leader, bit_in_map(no))).await?;
        if is_there {
            self.groups.initialised.lock().insert(no);
        }
        Ok(is_there)
    }

    /// Writes a group's own blocks when it is used for the first time in the file system's life.
    pub(crate) async fn initialise(&self, no: GroupNo) -> Result<(), FsError> {
        if self.is_initialised(no).await? {
            return Ok(());
        }
        let leader_no = self.layout.map_leader(no);
        let leader = self.group(leader_no);
        let bit = bit_in_map(no);
        if no == leader_no {
            let what = "a group that mkfs has initialised is not in the map";
            return Err(leader.contradiction(no.0, what));
        }
        let leader_pin = leader.entry.pin(Want::write()).await?;
        if !self.settle(|| is_in_map(self, &leader, bit)).await? {
            // An isolated map may have forgotten groups that are in use.
            self.settle(|| leader.loaded(&self.layout)).await?;
            let group = self.group(no);
            let pin = group.entry.pin(Want::write()).await?;
            let blocks = mkfs::group_blocks(self.fs_id, &self.layout, no, self.journal.writer());
            for (first, blocks) in blocks {
                let data = WriteData::Run(blocks.into());
                self.env.disk.write(first, data, Durability::Volatile).await?;
            }
            // The bit may only be found by others, or by a replay, when the group is there.
            self.env.disk.flush().await?;
            let reservation = self.journal.reserve(1).await?;
            let mut tx = self.transaction();
            self.settle_now(set_in_map(self, &mut tx, &leader, &leader_pin, bit))?;
            self.commit(tx, reservation);
            drop(pin);
        }
        self.groups.initialised.lock().insert(no);
        Ok(())
    }
}

fn bit_in_map(no: GroupNo) -> usize {
    as_usize(no.0 % GROUPS_PER_MAP)
}

fn map_block(fs: &Fs, leader: &Arc<Group>) -> Step<Arc<crate::cache::CachedBlock>> {
    let expect = crate::cache::Expect { kind: Kind::GroupMap, owner: leader.owner() };
    leader.set.expect(fs.layout.group_map(leader.no), expect)
}

fn is_in_map(fs: &Fs, leader: &Arc<Group>, bit: usize) -> Step<bool> {
    let block = map_block(fs, leader)?.data();
    Ok(super::bits::get(&block.get::<GroupMapBlock>().bits, bit))
}

fn set_in_map(
    fs: &Fs,
    tx: &mut Transaction,
    leader: &Arc<Group>,
    pin: &lcl::pin::Pin,
    bit: usize,
) -> Step<()> {
    let block = map_block(fs, leader)?;
    let map: &mut GroupMapBlock = tx.change(pin, &leader.set, &block).get_mut();
    super::bits::set(&mut map.bits, bit, 1);
    Ok(())
}
