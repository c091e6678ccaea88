//! An atomic change being put together: private copies of the blocks it touches.
//!
//! Nothing is visible before the commit; dropping a transaction undoes it. A transaction is built
//! without waiting for anything, between taking its pins and dropping them, so that no two
//! transactions ever hold copies of one block.

use std::ops::Deref;
use std::sync::Arc;

use lcl::Mode;
use lcl::pin::Pin;
use mx_base::FsId;

use crate::alloc::claim::Use;
use crate::alloc::{Freed, Group};
use crate::block::{Block, BlockNo, SharedBlock};
use crate::cache::{BlockSet, CachedBlock};
use crate::env::Usage;
use crate::file::FileId;
use crate::inode::{Core, Inode};
use crate::locks::Resource;
use crate::ondisk::header::{Header, Kind, Owner};

/// See the module.
#[derive(Debug)]
pub(crate) struct Transaction {
    fs_id: FsId,
    pub(super) staged: Vec<Staged>,
    slot: SlotChanges,
    /// Blocks that may be used again once the transaction is durable.
    pub(super) freed: Vec<Freed>,
    /// Free blocks that this mount's claims win or lose.
    claims: Vec<(Arc<Group>, Use, i64)>,
    /// Attributes as they are after the commit.
    cores: Vec<(Arc<Inode>, Core)>,
}

#[derive(Debug)]
pub(super) struct Staged {
    pub(super) cached: Arc<CachedBlock>,
    /// The block as the copy was taken from.
    pub(super) base: SharedBlock,
    pub(super) data: Box<Block>,
    /// The set in which the block is after the commit.
    pub(super) set: Arc<BlockSet>,
    /// The set in which it is before, when that differs.
    pub(super) leaves: Option<Arc<BlockSet>>,
}

/// What a transaction changes in the slot. Every transaction may, so these changes are laid over
/// the slot's block when it commits, under the journal's latch.
#[derive(Debug, Default)]
pub(crate) struct SlotChanges {
    pub(crate) usage: Usage,
    pub(crate) orphans_added: Vec<FileId>,
    pub(crate) orphans_removed: Vec<FileId>,
    /// A further block of orphans, already made by the transaction.
    pub(crate) orphan_block: Option<Arc<CachedBlock>>,
}

impl SlotChanges {
    fn is_empty(&self) -> bool {
        let SlotChanges { usage, orphans_added, orphans_removed, orphan_block } = self;
        *usage == Usage::default()
            && orphans_added.is_empty()
            && orphans_removed.is_empty()
            && orphan_block.is_none()
    }
}

/// A block as the transaction sees it.
pub(crate) enum Seen<'a> {
    Staged(&'a Block),
    Cached(SharedBlock),
}

impl Deref for Seen<'_> {
    type Target = Block;

    fn deref(&self) -> &Block {
        match self {
            Seen::Staged(block) => block,
            Seen::Cached(block) => block,
        }
    }
}

impl Transaction {
    pub(crate) fn new(fs_id: FsId) -> Transaction {
        Transaction {
            fs_id,
            staged: Vec::new(),
            slot: SlotChanges::default(),
            freed: Vec::new(),
            claims: Vec::new(),
            cores: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.slot.is_empty()
    }

    /// The block with the transaction's own changes.
    pub(crate) fn see(&self, block: &Arc<CachedBlock>) -> Seen<'_> {
        match self.find(block.number) {
            Some(staged) => Seen::Staged(&staged.data),
            None => Seen::Cached(block.data()),
        }
    }

    /// A copy to change. `pin` is the proof that the covering lock is held in EX (I2).
    pub(crate) fn change(
        &mut self,
        pin: &Pin,
        set: &Arc<BlockSet>,
        block: &Arc<CachedBlock>,
    ) -> &mut Block {
        assert_covers(pin, set);
        let index = match self.staged.iter().position(|s| s.cached.number == block.number) {
            Some(index) => index,
            None => {
                let base = block.data();
                let mut data = base.to_boxed();
                let header = Header::of_mut(&mut data);
                header.version.set(header.version() + 1);
                let (cached, set) = (Arc::clone(block), Arc::clone(set));
                self.staged.push(Staged { cached, base, data, set, leaves: None });
                self.staged.len() - 1
            }
        };
        let staged = &mut self.staged[index];
        assert!(Arc::ptr_eq(&staged.set, set), "a block is changed under its own lock (I1)");
        &mut staged.data
    }

    /// Turns a free block of a group into a block of `kind` that belongs to `owner` and is covered
    /// by another lock from now on. The rest of the block is zero.
    #[expect(clippy::too_many_arguments, reason = "who gives and who gets, each with pin and set")]
    pub(crate) fn adopt(
        &mut self,
        group_pin: &Pin,
        group: &Arc<BlockSet>,
        block: &Arc<CachedBlock>,
        owner_pin: &Pin,
        owner_set: &Arc<BlockSet>,
        kind: Kind,
        owner: Owner,
    ) -> &mut Block {
        assert_covers(owner_pin, owner_set);
        let fs_id = self.fs_id;
        let data = self.change(group_pin, group, block);
        let version = Header::of(data).version();
        data.0.fill(0);
        *Header::of_mut(data) = Header::new(fs_id, kind, block.number, owner, version);
        let staged = self.staged_mut(block.number);
        staged.set = Arc::clone(owner_set);
        staged.leaves = Some(Arc::clone(group));
        &mut staged.data
    }

    /// Gives a metadata block back to its group. The header stays, as kind free, with the owner's
    /// generation so that the next inode in this place gets a later one.
    pub(crate) fn release(
        &mut self,
        owner_pin: &Pin,
        owner_set: &Arc<BlockSet>,
        block: &Arc<CachedBlock>,
        group_pin: &Pin,
        group: &Arc<BlockSet>,
        group_owner: Owner,
    ) {
        assert_covers(group_pin, group);
        let fs_id = self.fs_id;
        let data = self.change(owner_pin, owner_set, block);
        let header = Header::of(data);
        let (version, generation) = (header.version(), header.owner().generation);
        data.0.fill(0);
        let owner = Owner { id: group_owner.id, generation };
        *Header::of_mut(data) = Header::new(fs_id, Kind::Free, block.number, owner, version);
        let staged = self.staged_mut(block.number);
        staged.set = Arc::clone(group);
        // An inode's own block stays in the inode's set as well: whoever gets INODE(i) next looks
        // at it, and has to find it free.
        let own_block = matches!(owner_set.resource(), Resource::Inode(i) if i.0 == block.number.0);
        staged.leaves = (!own_block).then(|| Arc::clone(owner_set));
    }

    /// A block that this transaction changes or has made.
    pub(crate) fn staged_block(&self, number: BlockNo) -> Option<Arc<CachedBlock>> {
        self.find(number).map(|staged| Arc::clone(&staged.cached))
    }

    pub(crate) fn use_blocks(&mut self, blocks: i64) {
        self.slot.usage.blocks += blocks;
    }

    pub(crate) fn use_inodes(&mut self, inodes: i64) {
        self.slot.usage.inodes += inodes;
    }

    pub(crate) fn add_orphan(&mut self, file: FileId) {
        self.slot.orphans_added.push(file);
    }

    pub(crate) fn remove_orphan(&mut self, file: FileId) {
        self.slot.orphans_removed.push(file);
    }

    pub(crate) fn freed(&mut self, freed: Freed) {
        self.freed.push(freed);
    }

    pub(crate) fn claims_change(&mut self, group: &Arc<Group>, of: Use, blocks: i64) {
        self.claims.push((Arc::clone(group), of, blocks));
    }

    /// An inode's attributes as this transaction has changed them.
    pub(crate) fn pending_core(&self, inode: &Arc<Inode>) -> Option<Core> {
        self.cores.iter().find(|(i, _)| Arc::ptr_eq(i, inode)).map(|(_, core)| core.clone())
    }

    pub(crate) fn set_pending_core(&mut self, inode: &Arc<Inode>, core: Core) {
        self.cores.retain(|(i, _)| !Arc::ptr_eq(i, inode));
        self.cores.push((Arc::clone(inode), core));
    }

    pub(crate) fn take_cores(&mut self) -> Vec<(Arc<Inode>, Core)> {
        std::mem::take(&mut self.cores)
    }

    /// Blocks for nodes that were taken out of claims.
    pub(crate) fn nodes_taken(&self) -> u64 {
        let taken = self.claims.iter().filter(|(_, of, blocks)| *of == Use::Nodes && *blocks < 0);
        taken.map(|(_, _, blocks)| blocks.unsigned_abs()).sum()
    }

    pub(crate) fn take_claims(&mut self) -> Vec<(Arc<Group>, Use, i64)> {
        std::mem::take(&mut self.claims)
    }

    /// Blocks changed so far.
    pub(crate) fn len(&self) -> usize {
        self.staged.len()
    }

    /// Forgets everything: the commit that follows does nothing.
    pub(crate) fn abandon(&mut self) {
        *self = Transaction::new(self.fs_id);
    }

    pub(crate) fn change_slot(&mut self) -> &mut SlotChanges {
        &mut self.slot
    }

    fn find(&self, number: BlockNo) -> Option<&Staged> {
        self.staged.iter().find(|s| s.cached.number == number)
    }

    fn staged_mut(&mut self, number: BlockNo) -> &mut Staged {
        let found = self.staged.iter_mut().find(|s| s.cached.number == number);
        found.expect("just staged")
    }
}

fn assert_covers(pin: &Pin, set: &BlockSet) {
    assert!(
        pin.mode() == Mode::EX && pin.entry().name() == set.resource().name(),
        "a block changes only under EX on its covering lock (I2): {pin:?} for {:?}",
        set.resource()
    );
}
