//! Cutting a file's blocks off, or out of it, in batches that fit a transaction.
//!
//! The size goes down in the first transaction. If blocks are left to cut, the same transaction
//! puts the file on the slot's list of orphans, and the last one takes it off: after a crash
//! whoever adopts the list cuts the rest, before anybody can make the file longer and see it
//! (I10).
//!
//! Behind the end of a file there may be blocks never written: those are the user's, and stay
//! (record 0016). Written ones are left over from a crash, and are cut before the file grows there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lcl::pin::Pin;

use super::extents::{Cut, ExtentEditor, ExtentTree, Grown, Mapping};
use super::flush::nodes_used;
use super::{Inode, State};
use crate::alloc::PinnedGroup;
use crate::block::{BLOCK_SIZE_U64, BlockNo};
use crate::cache::Step;
use crate::error::{Corruption, CorruptionKind, FsError};
use crate::file::FileId;
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::layout::GroupNo;
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// Groups that one transaction frees in.
const GROUPS_PER_TRANSACTION: usize = 8;
/// Blocks that it changes: inode, leaves, and of what it frees nodes, headers, bitmaps and tables.
const BLOCKS_PER_TRANSACTION: usize = 64;

/// How often groups are asked for without waiting for one while another is held.
const ATTEMPTS: usize = 3;

/// Groups whose blocks are freed.
pub(crate) type PinnedGroups = BTreeMap<GroupNo, PinnedGroup>;

impl Fs {
    /// Cuts everything mapped from byte `size` on. `first` adds to the first transaction. A file
    /// that is `listed` as an orphan is taken off the list in the last transaction. `pin` holds
    /// the inode exclusively.
    ///
    /// # Errors
    /// When a block is damaged or the journal fails; what was cut by then is consistent.
    pub(crate) async fn cut_blocks(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        size: u64,
        mut listed: bool,
        mut first: impl FnMut(&mut State, &mut Transaction) -> Step<()>,
    ) -> Result<(), FsError> {
        let from = size.div_ceil(BLOCK_SIZE_U64);
        let mut is_first = true;
        loop {
            let plan = self.plan_cut(inode, pin, from).await?;
            let (done, lists) = self
                .change(inode, BLOCKS_PER_TRANSACTION, |state, tx| {
                    // An unlinked file is on the list already, until it is freed.
                    let lists = state.core().links() > 0;
                    let done = self.cut_now(inode, pin, tx, &plan, from)?;
                    if is_first {
                        first(state, tx)?;
                    }
                    let file = state.core().file(inode.no);
                    match (listed, done) {
                        (false, false) if lists => tx.add_orphan(file),
                        (true, true) => tx.remove_orphan(file),
                        _ => {}
                    }
                    Ok((done, lists))
                })
                .await?;
            if done {
                return Ok(());
            }
            is_first = false;
            listed = lists;
        }
    }

    /// Is anything that was written mapped between the end of a file and `end`, where the file is about
    /// to reach to? Of a truncation that a crash cut short, or of data that was durable before the
    /// size that covers it. It would come back as contents (I10). `inode` is pinned in EX.
    pub(crate) async fn has_leftovers(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        end: u64,
    ) -> Result<bool, FsError> {
        let tree = ExtentTree { inode, generation: file.generation };
        self.settle(|| {
            let (area, size) =
                inode.with_file(file, |state| Ok((state.core().area(), state.core().size())))?;
            if area != AreaKind::Extents {
                return Ok(false);
            }
            let tx = self.transaction();
            let (mut at, to) = (size.div_ceil(BLOCK_SIZE_U64), end.div_ceil(BLOCK_SIZE_U64));
            while at < to {
                match tree.map(&tx, at)? {
                    Mapping::Mapped(extent) if !extent.unwritten => return Ok(true),
                    Mapping::Mapped(extent) => at = extent.end(),
                    Mapping::Hole(end) => at = end,
                }
            }
            Ok(false)
        })
        .await
    }

    /// Cuts what [`Fs::has_leftovers`] finds. `pin` holds the inode exclusively.
    pub(crate) async fn cut_leftovers(
        &self,
        inode: &Arc<Inode>,
        file: FileId,
        pin: &Pin,
        end: u64,
    ) -> Result<(), FsError> {
        if !self.has_leftovers(inode, file, end).await? {
            return Ok(());
        }
        let size = self.settle(|| inode.with_file(file, |state| Ok(state.core().size()))).await?;
        let listed = self.journal.orphans().contains(&file);
        self.cut_blocks(inode, pin, size, listed, |_, _| Ok(())).await
    }

    /// Finds what the next transaction cuts, and pins the groups that lies in.
    async fn plan_cut(&self, inode: &Arc<Inode>, pin: &Pin, from: u64) -> Result<Plan, FsError> {
        self.make_orphan_places(1).await?;
        let mut runs = self.options.runs_cut_at_once;
        loop {
            let groups = self
                .settle(|| {
                    let mut scratch = self.transaction();
                    let cut = cut_tree(inode, pin, &mut scratch, from, runs)?;
                    Ok(self.groups_of(&cut)?)
                })
                .await?;
            if groups.len() > GROUPS_PER_TRANSACTION && runs > 1 {
                runs /= 2;
                continue;
            }
            return Ok(Plan { groups: self.pin_groups(groups).await?, runs });
        }
    }

    /// Gives the blocks `from..to` of a file back, in batches: they read as zeros, and whatever is
    /// cached of them goes with their mapping. A crash leaves some of them. `pin` holds the inode
    /// exclusively, and nothing of it is dirty.
    ///
    /// # Errors
    /// [`FsError::NoSpace`] when a node of the tree would be needed and there is none; nothing has
    /// changed then. Otherwise as [`Fs::cut_blocks`].
    pub(crate) async fn punch_blocks(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        (from, to): (u64, u64),
    ) -> Result<(), FsError> {
        let mut runs = self.options.runs_cut_at_once;
        // Nodes of the tree are needed only where a hole comes into the middle of an extent.
        let mut with_nodes = false;
        loop {
            let (mut groups, grown) = self
                .settle(|| {
                    let mut scratch = self.transaction();
                    let tree = tree_of(inode)?;
                    let mut editor =
                        ExtentEditor { tree: &tree, pin, nodes: &[], tx: &mut scratch };
                    let (cut, grown) = editor.remove(from, to, runs)?;
                    Ok((self.groups_of(&cut)?, grown))
                })
                .await?;
            if groups.len() > GROUPS_PER_TRANSACTION && runs > 1 {
                runs /= 2;
                continue;
            }
            if matches!(grown, Grown::NoRoom) {
                if !with_nodes {
                    self.promise_nodes(inode, 1).await?;
                    with_nodes = true;
                }
                groups.extend(self.node_groups());
            }
            let pinned = self.pin_groups(groups).await?;
            let sources: Vec<_> = if with_nodes { pinned.values().collect() } else { Vec::new() };
            let gains = self.nodes.gains();
            let done = self
                .change(inode, BLOCKS_PER_TRANSACTION, |state, tx| {
                    let tree = tree_of(inode)?;
                    let mut editor = ExtentEditor { tree: &tree, pin, nodes: &sources, tx };
                    let (cut, grown) = editor.remove(from, to, runs)?;
                    if let Grown::NoRoom = grown {
                        tx.abandon();
                        return Ok(None);
                    }
                    self.give_cut_back(inode, pin, tx, &pinned, &cut)?;
                    let promised = state.pages.drop_range(from, to);
                    self.space.settle(promised);
                    Ok(Some((cut.done, nodes_used(state, tx))))
                })
                .await?;
            let Some((done, nodes)) = done else {
                if self.nodes.gains() == gains {
                    return Err(FsError::NoSpace);
                }
                continue;
            };
            self.nodes.settle(nodes);
            if done {
                return Ok(());
            }
        }
    }

    /// Pins groups, none while it waits for another: who needs one of them would wait as well, and as
    /// long as a recovery if a dead node had the other. A few times, since two nodes that want the
    /// same could take turns for ever; then in the order of locks, holding those it has.
    pub(crate) async fn pin_groups(
        &self,
        groups: BTreeSet<GroupNo>,
    ) -> Result<PinnedGroups, FsError> {
        // That may take the lock of a group's leader, which comes before those of the others or is
        // one of them.
        for no in &groups {
            self.initialise(*no).await?;
        }
        let mut awaited = None;
        for attempt in 1..=ATTEMPTS {
            let mut pinned: PinnedGroups = awaited.take().into_iter().collect();
            let mut missing = None;
            for no in &groups {
                if pinned.contains_key(no) {
                    continue;
                }
                match self.try_pin_group(*no).await? {
                    Some(group) => _ = pinned.insert(*no, group),
                    None => {
                        missing = Some(*no);
                        break;
                    }
                }
            }
            let Some(no) = missing else { return Ok(pinned) };
            drop(pinned);
            if attempt < ATTEMPTS {
                awaited = Some((no, self.pin_group(no).await?));
            }
        }
        let mut pinned = PinnedGroups::new();
        for no in groups {
            pinned.insert(no, self.pin_group(no).await?);
        }
        Ok(pinned)
    }

    fn groups_of(&self, cut: &Cut) -> Result<BTreeSet<GroupNo>, FsError> {
        let runs = cut.runs.iter().map(|(first, _)| *first);
        let nodes = cut.nodes.iter().map(|n| n.number);
        runs.chain(nodes).map(|block| self.group_of_block(block)).collect()
    }

    pub(crate) fn group_of_block(&self, block: BlockNo) -> Result<GroupNo, FsError> {
        let kind = CorruptionKind::Contents("a pointer leads out of all groups");
        let corruption = Corruption { block, kind, expected: 0, found: block.0 };
        self.layout.group_of(block).ok_or(FsError::Corrupt(corruption))
    }

    /// Cuts one batch inside a transaction; true when nothing is left.
    fn cut_now(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        tx: &mut Transaction,
        plan: &Plan,
        from: u64,
    ) -> Step<bool> {
        let cut = cut_tree(inode, pin, tx, from, plan.runs)?;
        self.give_cut_back(inode, pin, tx, &plan.groups, &cut)?;
        Ok(cut.done)
    }

    /// What was cut off the tree becomes free.
    fn give_cut_back(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        tx: &mut Transaction,
        groups: &PinnedGroups,
        cut: &Cut,
    ) -> Step<()> {
        let mut freed = 0;
        for (first, count) in &cut.runs {
            groups[&self.group_of_block(*first)?].give_back(tx, *first, *count)?;
            freed += count;
        }
        for node in &cut.nodes {
            groups[&self.group_of_block(node.number)?].release(tx, pin, &inode.set, node)?;
            freed += 1;
        }
        if freed > 0 {
            let freed = i64::try_from(freed).expect("a transaction frees little");
            let tree = ExtentTree { inode, generation: 0 };
            ExtentEditor { tree: &tree, pin, nodes: &[], tx }.add_blocks(-freed)?;
        }
        Ok(())
    }
}

/// What one transaction cuts: so many runs, in these groups.
struct Plan {
    groups: PinnedGroups,
    runs: usize,
}

/// Cuts runs off the extent tree, if the inode has one.
fn cut_tree(
    inode: &Arc<Inode>,
    pin: &Pin,
    tx: &mut Transaction,
    from: u64,
    runs: usize,
) -> Step<Cut> {
    let block = inode.block()?.data();
    if block.get::<InodeBlock>().core.area != AreaKind::Extents as u8 {
        return Ok(Cut::nothing());
    }
    let tree = tree_of(inode)?;
    ExtentEditor { tree: &tree, pin, nodes: &[], tx }.cut(from, runs)
}

fn tree_of(inode: &Arc<Inode>) -> Step<ExtentTree<'_>> {
    let block = inode.block()?.data();
    let generation = block.get::<InodeBlock>().core.generation.get();
    Ok(ExtentTree { inode, generation })
}
