//! Dirty data and attributes of a file to disk.
//!
//! Ordered data: blocks are first allocated as unwritten extents, then the data is written and
//! made durable, then the extents are marked written and at last the size covers them. A crash at
//! any point shows zeros or the data, never what the blocks held before (I10). No cluster lock
//! below the inode's is held while the data is on its way.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::pin::Pin;
use mx_base::rules::{Rule, is_kept};

use super::extents::{Extent, ExtentEditor, ExtentTree, Grown, Mapping};
use super::pages::PageOut;
use super::{Inode, State};
use crate::alloc::PinnedGroup;
use crate::alloc::claim::Use;
use crate::block::{BlockNo, SharedBlock, as_usize};
use crate::env::{Durability, WriteData};
use crate::error::{DiskError, FsError};
use crate::fs::Fs;
use crate::journal::Transaction;
use crate::layout::GroupNo;
use crate::ondisk::inode::{AreaKind, InodeBlock};
use crate::runs::Runs;

/// Pages written between two flushes of the device: 16 MiB.
const BATCH_PAGES: usize = 4096;
/// Runs of pages that one transaction maps.
const RUNS_PER_TRANSACTION: usize = 16;
/// Groups whose claims serve one transaction with nodes.
const NODE_GROUPS: usize = 8;

/// Where a page goes.
struct Target {
    out: PageOut,
    at: BlockNo,
}

impl Fs {
    /// Brings everything that was dirty when it was called to disk: data durable, attributes in
    /// the log. `pin` holds the inode in EX. What is dirtied meanwhile may or may not be included.
    ///
    /// # Errors
    /// The first failure; what could not be written is dirty still, and counted so that every open
    /// file is told once.
    pub(crate) async fn flush_inode(&self, inode: &Arc<Inode>, pin: &Pin) -> Result<(), FsError> {
        let turn = Turn::wait(inode).await;
        let result = self.flush_data_and_core(inode, pin).await;
        {
            let mut state = inode.state.lock();
            match &result {
                // What is left dirty has nothing mapped that is not marked written.
                Ok(()) => self.trim_nodes(&mut state),
                Err(_) => state.failures += 1,
            }
        }
        drop(turn);
        result
    }

    async fn flush_data_and_core(&self, inode: &Arc<Inode>, pin: &Pin) -> Result<(), FsError> {
        let size = {
            let state = inode.state.lock();
            let Some(core) = &state.core else { return Ok(()) };
            if state.pages.is_clean() && !core.dirty {
                return Ok(());
            }
            core.size()
        };
        self.sweep(inode, pin).await?;
        self.spill_empty(inode, pin, size).await?;
        self.flush_core(inode, pin, size).await
    }

    /// Writes dirty pages in order, once through the file.
    async fn sweep(&self, inode: &Arc<Inode>, pin: &Pin) -> Result<(), FsError> {
        let mut from = 0;
        loop {
            let batch = inode.state.lock().pages.take_dirty(from, BATCH_PAGES);
            let Some(last) = batch.last() else { return Ok(()) };
            from = last.page + 1;
            let mut writing = Writing { fs: self, inode, pages: batch };
            self.write_batch(inode, pin, &mut writing).await?;
            writing.done();
        }
    }

    async fn write_batch(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        writing: &mut Writing<'_>,
    ) -> Result<(), FsError> {
        let (area, size, inline_max) = {
            let state = inode.state.lock();
            (state.core().area(), state.core().size(), state.core().inline_bytes_max())
        };
        if area == AreaKind::Bytes {
            if size <= inline_max && self.write_inline(inode, pin).await? {
                return Ok(());
            }
            self.spill_inline(inode, pin, writing).await?;
        }
        self.map_pages(inode, pin, writing).await?;
        let targets = self.targets(inode, writing).await?;
        let unwritten = targets.unwritten;
        if !is_kept(Rule::DataBeforeExtents) {
            self.mark_written(inode, pin, &unwritten).await?;
        }
        self.write_pages(targets.pages).await?;
        self.mark_written(inode, pin, &unwritten).await?;
        Ok(())
    }

    /// A small file goes into its inode, and so into the log; false when it has outgrown it.
    async fn write_inline(&self, inode: &Arc<Inode>, pin: &Pin) -> Result<bool, FsError> {
        self.change(inode, 1, |state, tx| {
            let size = state.core().size();
            if size > state.core().inline_bytes_max() || state.core().area() != AreaKind::Bytes {
                return Ok(false);
            }
            let block = inode.block()?;
            if let Some(data) = state.pages.get(0) {
                let on_disk: &mut InodeBlock = tx.change(pin, &inode.set, &block).get_mut();
                on_disk.body_mut().fill(0);
                on_disk.area[..as_usize(size)].copy_from_slice(&data.0[..as_usize(size)]);
            }
            state.core_mut().durable_size = size;
            inode.stage_core(tx, pin, state.core_mut())?;
            Ok(true)
        })
        .await
    }

    /// The first page of a file that has outgrown its inode gets a block of its own; in the same
    /// transaction the inline copy goes. The group stays pinned while the page is written.
    async fn spill_inline(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        writing: &mut Writing<'_>,
    ) -> Result<(), FsError> {
        let first = writing.pages.iter().find(|p| p.page == 0).cloned();
        let Some(first) = first else { return self.spill_empty(inode, pin, u64::MAX).await };
        self.spill_page(inode, pin, first.data).await?;
        writing.settle_promises(&[(0, 1)]);
        Ok(())
    }

    /// As [`Fs::spill_inline`], of a page that holds what the inode holds, and that was promised a
    /// block; the caller settles that.
    pub(crate) async fn spill_page(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        data: SharedBlock,
    ) -> Result<(), FsError> {
        let group = self.data_group(None).await?;
        let generation = inode.state.lock().core().attributes.generation.get();
        let at = {
            let mut scratch = self.transaction();
            self.settle(|| group.take_data(&mut scratch, 1, None)).await?
        };
        let Some((at, _)) = at else { return Err(FsError::NoSpace) };
        let write = WriteData::Blocks(vec![data]);
        self.env.disk.write(at, write, Durability::Durable).await?;

        let tree = ExtentTree { inode, generation };
        self.change(inode, 4, |_, tx| {
            let taken = group.take_data(tx, 1, Some(BlockNo(at.0 - 1)))?;
            assert_eq!(taken, Some((at, 1)), "the group was pinned all the time");
            let mut editor = ExtentEditor { tree: &tree, pin, nodes: &[], tx };
            let extent = Extent { logical: 0, physical: at, blocks: 1, unwritten: false };
            let grown = editor.insert(extent)?;
            assert!(matches!(grown, Grown::Done), "one extent fits the root");
            editor.add_blocks(1)
        })
        .await
    }

    /// A file that has outgrown its inode without anything in its first page (a write there makes
    /// that page dirty): only the kind of the area changes.
    pub(crate) async fn spill_empty(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        size: u64,
    ) -> Result<(), FsError> {
        {
            let state = inode.state.lock();
            let core = state.core();
            if size <= core.inline_bytes_max() || core.area() != AreaKind::Bytes {
                return Ok(());
            }
        }
        self.change(inode, 1, |_, tx| {
            let block = inode.block()?;
            let on_disk: &mut InodeBlock = tx.change(pin, &inode.set, &block).get_mut();
            on_disk.core.area = AreaKind::Extents as u8;
            on_disk.body_mut().fill(0);
            Ok(())
        })
        .await
    }

    /// Gives every page of the batch that has no block one, as an unwritten extent.
    async fn map_pages(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        writing: &mut Writing<'_>,
    ) -> Result<(), FsError> {
        let generation = inode.state.lock().core().attributes.generation.get();
        let tree = ExtentTree { inode, generation };
        let mut missing = self.unmapped(&tree, writing).await?;
        while !missing.is_empty() {
            let done = self.map_some(&tree, pin, &mut missing).await?;
            writing.settle_promises(&done);
        }
        Ok(())
    }

    /// Maps some of the missing runs (first page, length), as unwritten extents in what this mount has
    /// claimed, and takes them out of the list. The caller settles their promises.
    pub(crate) async fn map_some(
        &self,
        tree: &ExtentTree<'_>,
        pin: &Pin,
        missing: &mut Vec<(u64, u64)>,
    ) -> Result<Vec<(u64, u64)>, FsError> {
        let near = self.settle(|| tree.last(&self.transaction())).await?;
        let near = near.map(|e| e.physical.plus(e.blocks - 1));
        let gains = self.nodes.gains();
        let data = self.data_group(near).await?;
        let mut done = self.map_runs(tree, pin, &data, &[&data], near, missing).await?;
        if done.is_none() {
            // The group has no room for nodes of the tree: those come from other ones.
            let no = data.group.no;
            drop(data);
            let mut groups = self.node_groups();
            groups.insert(no);
            let pinned = self.pin_groups(groups).await?;
            let nodes: Vec<&PinnedGroup> = pinned.values().collect();
            done = self.map_runs(tree, pin, &pinned[&no], &nodes, near, missing).await?;
            if done.is_none() && self.nodes.gains() == gains {
                return Err(FsError::NoSpace);
            }
        }
        // None, when others have taken what was found in the group: what is promised is elsewhere.
        let done = done.unwrap_or_default();
        for (first, len) in &done {
            let run = missing.iter_mut().find(|(f, _)| f == first).expect("from the list");
            run.0 += len;
            run.1 -= len;
        }
        missing.retain(|(_, len)| *len > 0);
        Ok(done)
    }

    /// Groups in which this mount has claims with room for nodes, those with most first chosen.
    pub(crate) fn node_groups(&self) -> BTreeSet<GroupNo> {
        let groups = self.known_groups().into_iter();
        let mut free: Vec<_> = groups.map(|g| (g.claimed_free(Use::Nodes), g.no)).collect();
        free.retain(|(free, _)| *free > 0);
        free.sort_unstable_by(|a, b| b.cmp(a));
        free.into_iter().take(NODE_GROUPS).map(|(_, no)| no).collect()
    }

    /// Runs of pages of the batch that are not mapped: first page, length.
    async fn unmapped(
        &self,
        tree: &ExtentTree<'_>,
        writing: &Writing<'_>,
    ) -> Result<Vec<(u64, u64)>, FsError> {
        let tx = self.transaction();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut known: Option<Mapping> = None;
        for out in &writing.pages {
            let mapping = match known {
                Some(mapping) if covers(&mapping, out.page) => mapping,
                _ => self.settle(|| tree.map(&tx, out.page)).await?,
            };
            known = Some(mapping);
            if let Mapping::Hole(_) = mapping {
                match runs.last_mut() {
                    Some((first, len)) if *first + *len == out.page => *len += 1,
                    _ => runs.push((out.page, 1)),
                }
            }
        }
        Ok(runs)
    }

    /// Maps as many of the missing runs as one transaction and one group allow, and returns them;
    /// `None` when there is no room for the nodes that would take.
    async fn map_runs(
        &self,
        tree: &ExtentTree<'_>,
        pin: &Pin,
        data: &PinnedGroup,
        nodes: &[&PinnedGroup],
        near: Option<BlockNo>,
        missing: &[(u64, u64)],
    ) -> Result<Option<Vec<(u64, u64)>>, FsError> {
        // Inode, nodes on the path and new ones, headers, bitmap and table blocks.
        let mapped = self.change(tree.inode, 64, |state, tx| {
            let mut near = near;
            let mut done = Vec::new();
            for (first, len) in missing.iter().take(RUNS_PER_TRANSACTION) {
                let Some((physical, got)) = data.take_data(tx, *len, near)? else { break };
                near = Some(physical.plus(got - 1));
                let extent = Extent { logical: *first, physical, blocks: got, unwritten: true };
                let mut editor = ExtentEditor { tree, pin, nodes, tx };
                if let Grown::NoRoom = editor.insert(extent)? {
                    tx.abandon();
                    return Ok(None);
                }
                editor.add_blocks(i64::try_from(got).expect("a run is short"))?;
                done.push((*first, got));
                if got < *len || tx.len() > 40 {
                    break;
                }
            }
            Ok(Some((done, nodes_used(state, tx))))
        });
        let Some((done, nodes)) = mapped.await? else { return Ok(None) };
        self.nodes.settle(nodes);
        Ok(Some(done))
    }

    /// A group in which this mount has claims with blocks to take, pinned; the one near a block
    /// first. What was freed lately rests until that is durable, so the log may have to be forced.
    async fn data_group(&self, near: Option<BlockNo>) -> Result<PinnedGroup, FsError> {
        let near = near.and_then(|block| self.layout.group_of(block));
        let mut groups = self.known_groups();
        groups.sort_by_key(|group| Some(group.no) != near);
        loop {
            let gains = self.space.gains();
            for forced in [false, true] {
                if forced {
                    self.journal.force(self.journal.last()).await?;
                }
                for known in groups.iter().filter(|group| !group.claimed(Use::Data).is_empty()) {
                    let group = self.pin_group(known.no).await?;
                    if self.has_data(&group).await? {
                        return Ok(group);
                    }
                }
            }
            // Meanwhile blocks may have come to groups that had none when they were looked at.
            if self.space.gains() == gains {
                return Err(FsError::NoSpace);
            }
            groups = self.known_groups();
        }
    }

    /// Where each page of the batch is written, all of them being mapped, and which runs are marked
    /// written afterwards.
    async fn targets(&self, inode: &Arc<Inode>, writing: &Writing<'_>) -> Result<Targets, FsError> {
        let generation = inode.state.lock().core().attributes.generation.get();
        let tree = ExtentTree { inode, generation };
        let tx = self.transaction();
        let mut targets = Targets::default();
        let mut known: Option<Mapping> = None;
        for out in &writing.pages {
            let mapping = match known {
                Some(mapping) if covers(&mapping, out.page) => mapping,
                _ => self.settle(|| tree.map(&tx, out.page)).await?,
            };
            known = Some(mapping);
            let Mapping::Mapped(extent) = mapping else {
                unreachable!("page {} was mapped before", out.page)
            };
            if extent.unwritten {
                match targets.unwritten.last_mut() {
                    Some((_, to)) if *to == out.page => *to += 1,
                    _ => targets.unwritten.push((out.page, out.page + 1)),
                }
            }
            let at = extent.physical.plus(out.page - extent.logical);
            targets.pages.push(Target { out: out.clone(), at });
        }
        Ok(targets)
    }

    async fn write_pages(&self, mut targets: Vec<Target>) -> Result<(), DiskError> {
        targets.sort_by_key(|t| t.at);
        let mut runs = Runs::default();
        for Target { out, at } in targets {
            runs.push(at, out.data);
        }
        runs.write(&*self.env.disk).await
    }

    async fn mark_written(
        &self,
        inode: &Arc<Inode>,
        pin: &Pin,
        runs: &[(u64, u64)],
    ) -> Result<(), FsError> {
        let generation = inode.state.lock().core().attributes.generation.get();
        let tree = ExtentTree { inode, generation };
        for runs in runs.chunks(RUNS_PER_TRANSACTION) {
            self.mark_some(&tree, pin, runs, false).await?;
        }
        Ok(())
    }

    /// Marks what is mapped in some runs as written or as not, in one transaction.
    pub(crate) async fn mark_some(
        &self,
        tree: &ExtentTree<'_>,
        pin: &Pin,
        runs: &[(u64, u64)],
        unwritten: bool,
    ) -> Result<(), FsError> {
        let mut grown = self.mark_runs(tree, pin, &[], runs, unwritten).await?;
        while let Grown::NoRoom = grown {
            let gains = self.nodes.gains();
            let pinned = self.pin_groups(self.node_groups()).await?;
            let nodes: Vec<&PinnedGroup> = pinned.values().collect();
            grown = self.mark_runs(tree, pin, &nodes, runs, unwritten).await?;
            if matches!(grown, Grown::NoRoom) && self.nodes.gains() == gains {
                return Err(FsError::NoSpace);
            }
        }
        Ok(())
    }

    async fn mark_runs(
        &self,
        tree: &ExtentTree<'_>,
        pin: &Pin,
        nodes: &[&PinnedGroup],
        runs: &[(u64, u64)],
        unwritten: bool,
    ) -> Result<Grown, FsError> {
        let marked = self.change(tree.inode, 64, |state, tx| {
            let mut editor = ExtentEditor { tree, pin, nodes, tx };
            for (from, to) in runs {
                if let Grown::NoRoom = editor.mark(*from, *to, unwritten)? {
                    tx.abandon();
                    return Ok(None);
                }
            }
            Ok(Some(nodes_used(state, tx)))
        });
        let Some(nodes) = marked.await? else { return Ok(Grown::NoRoom) };
        self.nodes.settle(nodes);
        Ok(Grown::Done)
    }

    /// Attributes into the log; the size as far as data up to `size` is durable by now.
    async fn flush_core(&self, inode: &Arc<Inode>, pin: &Pin, size: u64) -> Result<(), FsError> {
        self.change(inode, 1, |state, tx| {
            inode.block()?;
            let core = state.core_mut();
            core.durable_size = core.durable_size.max(size.min(core.size()));
            if core.dirty { inode.stage_core(tx, pin, core) } else { Ok(()) }
        })
        .await
    }
}

/// Nodes that the transaction takes out of the inode's promise.
pub(crate) fn nodes_used(state: &mut State, tx: &Transaction) -> u64 {
    let used = tx.nodes_taken().min(state.nodes_promised);
    state.nodes_promised -= used;
    used
}

/// The right to flush an inode: one flush at a time, so that pages go out in the order in which
/// they were written and an inline file spills once.
pub(crate) struct Turn<'a>(&'a Inode);

impl Turn<'_> {
    pub(crate) async fn wait(inode: &Inode) -> Turn<'_> {
        loop {
            let listener = inode.flushed.listen();
            if !std::mem::replace(&mut inode.state.lock().flushing, true) {
                return Turn(inode);
            }
            listener.await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state.lock().flushing = false;
        self.0.flushed.notify(1);
    }
}

#[derive(Default)]
struct Targets {
    pages: Vec<Target>,
    /// First page and the one behind the last.
    unwritten: Vec<(u64, u64)>,
}

/// Pages taken from an inode to be written. Whatever happens, they go back.
struct Writing<'a> {
    fs: &'a Fs,
    inode: &'a Arc<Inode>,
    pages: Vec<PageOut>,
}

impl Writing<'_> {
    /// All are on disk.
    fn done(mut self) {
        self.give_back(false);
    }

    /// These runs of pages have got their blocks.
    fn settle_promises(&mut self, runs: &[(u64, u64)]) {
        for out in &mut self.pages {
            let mapped = runs.iter().any(|(first, len)| (*first..first + len).contains(&out.page));
            if mapped && std::mem::take(&mut out.promised) {
                self.fs.space.settle(1);
            }
        }
    }

    fn give_back(&mut self, failed: bool) {
        let mut state = self.inode.state.lock();
        let mut surplus = 0;
        for out in self.pages.drain(..) {
            surplus += u64::from(state.pages.written(out.page, failed, out.promised));
        }
        drop(state);
        self.fs.space.settle(surplus);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.pages.is_empty() {
            self.give_back(true);
        }
    }
}

fn covers(mapping: &Mapping, page: u64) -> bool {
    match mapping {
        Mapping::Mapped(extent) => (extent.logical..extent.end()).contains(&page),
        Mapping::Hole(end) => page < *end,
    }
}
