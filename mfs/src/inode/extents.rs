//! The extent tree of a file: which device blocks hold which blocks of the file.
//!
//! A B+tree with its root in the inode. Keeps true: extents do not overlap and are in order; an
//! inner entry's key is not above any key below it, the first one's excepted, which stands for
//! everything smaller; no extent reaches over the key of the next node; nodes below the root are
//! never empty.
//!
//! Synchronous steps over cached blocks; changes go into a transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use lcl::pin::Pin;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::Inode;
use crate::alloc::PinnedGroup;
use crate::block::BlockNo;
use crate::cache::{CachedBlock, Expect, Step};
use crate::error::{Corruption, CorruptionKind};
use crate::journal::Transaction;
use crate::ondisk::alloc_group::BITS_PER_BLOCK;
use crate::ondisk::extent::{ExtentEntry, ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// The deepest tree that 2^52 blocks can need, with room to spare.
const DEPTH_MAX: u8 = 8;

/// Blocks freed together: those of a quarter of a block of the bitmap, so that a run has its bits in two
/// blocks at most.
const RUN_BLOCKS_MAX: u64 = BITS_PER_BLOCK / 4;

/// Stretches of the device, as long as a block of the bitmap reaches, that one transaction frees in, and
/// nodes that it frees. A stretch has two blocks of the bitmap and two of the chunk table at worst.
const STRETCHES_MAX: usize = 4;
const NODES_FREED_MAX: usize = 4;

/// A run of blocks of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    pub(crate) logical: u64,
    pub(crate) physical: BlockNo,
    pub(crate) blocks: u64,
    /// Allocated, but what is on the device is not the file's: reads as zeros (I10).
    pub(crate) unwritten: bool,
}

impl Extent {
    pub(crate) fn end(&self) -> u64 {
        self.logical + self.blocks
    }

    fn physical_end(&self) -> u64 {
        self.physical.0 + self.blocks
    }

    /// The part of the extent from block `from` up to `to` of the file.
    pub(crate) fn slice(&self, from: u64, to: u64) -> Extent {
        let (from, to) = (from.max(self.logical), to.min(self.end()));
        Extent {
            logical: from,
            physical: self.physical.plus(from - self.logical),
            blocks: to - from,
            ..*self
        }
    }

    /// Can the next one be joined to this one? The end of a group is never inside a joined one: the next
    /// group's own blocks follow it.
    pub(crate) fn continues(&self, next: &Extent) -> bool {
        self.end() == next.logical
            && self.physical_end() == next.physical.0
            && self.unwritten == next.unwritten
            && self.blocks + next.blocks <= u64::from(u32::MAX)
    }
}

impl From<&ExtentEntry> for Extent {
    fn from(entry: &ExtentEntry) -> Extent {
        Extent {
            logical: entry.logical.get(),
            physical: BlockNo(entry.physical.get()),
            blocks: u64::from(entry.blocks.get()),
            unwritten: entry.flags.get() & ExtentEntry::UNWRITTEN != 0,
        }
    }
}

impl From<&Extent> for ExtentEntry {
    fn from(extent: &Extent) -> ExtentEntry {
        ExtentEntry {
            logical: U64::new(extent.logical),
            physical: U64::new(extent.physical.0),
            blocks: U32::new(u32::try_from(extent.blocks).expect("extents stay below 2^32 blocks")),
            flags: U32::new(if extent.unwritten { ExtentEntry::UNWRITTEN } else { 0 }),
        }
    }
}

/// What a block of a file is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    Mapped(Extent),
    /// Nothing, up to this block of the file.
    Hole(u64),
}

/// The tree of one inode.
pub(crate) struct ExtentTree<'a> {
    pub(crate) inode: &'a Arc<Inode>,
    pub(crate) generation: u32,
}

/// A node on the way from the root to a leaf, and the entry taken in it.
struct Visit {
    node: Node,
    index: usize,
}

#[derive(Clone)]
enum Node {
    Root(Arc<CachedBlock>),
    Below(Arc<CachedBlock>),
}

/// How a change of the tree ended.
#[derive(Debug)]
#[must_use]
pub(crate) enum Grown {
    Done,
    /// A node was needed and there was no room for one. The transaction must not be committed.
    NoRoom,
}

/// The changing half: a tree, the right to change it, and a source of nodes.
pub(crate) struct ExtentEditor<'a, 'b> {
    pub(crate) tree: &'a ExtentTree<'a>,
    pub(crate) pin: &'a Pin,
    /// Where new nodes come from, if any may be needed: this mount's claims in these groups.
    pub(crate) nodes: &'a [&'a PinnedGroup],
    pub(crate) tx: &'b mut Transaction,
}

impl<'a> ExtentTree<'a> {
    /// What block `logical` of the file is mapped to.
    pub(crate) fn map(&self, tx: &Transaction, logical: u64) -> Step<Mapping> {
        let path = self.descend(tx, logical)?;
        let leaf = path.last().expect("a path has a leaf");
        let entries = self.entries(tx, &leaf.node)?;
        let after = entries.partition_point(|e| e.logical.get() <= logical);
        if let Some(entry) = after.checked_sub(1).map(|i| Extent::from(&entries[i]))
            && logical < entry.end()
        {
            return Ok(Mapping::Mapped(entry));
        }
        if let Some(next) = entries.get(after) {
            return Ok(Mapping::Hole(next.logical.get()));
        }
        // The next leaf's first extent, if there is one.
        match self.next_key(tx, &path)? {
            Some(next) => Ok(Mapping::Hole(next)),
            None => Ok(Mapping::Hole(u64::MAX)),
        }
    }

    /// The last extent of the file.
    pub(crate) fn last(&self, tx: &Transaction) -> Step<Option<Extent>> {
        let path = self.descend(tx, u64::MAX)?;
        let leaf = path.last().expect("a path has a leaf");
        Ok(self.entries(tx, &leaf.node)?.last().map(Extent::from))
    }

    fn root(&self, tx: &Transaction) -> Step<Node> {
        Ok(Node::Root(self.inode.own_block(tx)?))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a node whose level is not its parent's less one is refused when it is read"
    )]
    fn level(&self, tx: &Transaction, node: &Node) -> u8 {
        match node {
            Node::Root(block) => tx.see(block).get::<InodeBlock>().core.depth,
            Node::Below(block) => tx.see(block).get::<ExtentNodeBlock>().level.get() as u8,
        }
    }

    fn entries(&self, tx: &Transaction, node: &Node) -> Step<Vec<ExtentEntry>> {
        let (block, entries): (_, Vec<ExtentEntry>) = match node {
            Node::Root(block) => {
                let seen = tx.see(block);
                let inode: &InodeBlock = seen.get();
                if inode.core.area != AreaKind::Extents as u8 {
                    return Ok(Vec::new());
                }
                let max = inode.core.root_entries_max();
                let count = usize::from(inode.core.root_count.get()).min(max);
                (block, read_entries(&inode.area, count))
            }
            Node::Below(block) => {
                let seen = tx.see(block);
                let node: &ExtentNodeBlock = seen.get();
                let count = usize::from(node.count.get());
                if count > NODE_ENTRIES_MAX || count == 0 {
                    return Err(contents(block, "entries in an extent node", count as u64));
                }
                (block, node.entries[..count].to_vec())
            }
        };
        let ordered = entries.windows(2).all(|w| w[0].logical.get() < w[1].logical.get());
        if !ordered {
            return Err(contents(block, "extents out of order", 0));
        }
        Ok(entries)
    }

    fn child(&self, block: BlockNo, level: u8) -> Step<Node> {
        let expect = Expect { kind: Kind::ExtentNode, owner: self.inode.owner(self.generation) };
        let child = self.inode.set.expect(block, expect)?;
        let found = child.data().get::<ExtentNodeBlock>().level.get();
        if u32::from(found) != u32::from(level) {
            return Err(contents(&child, "level of an extent node", u64::from(found)));
        }
        Ok(Node::Below(child))
    }

    /// From the root to the leaf that `logical` belongs to.
    fn descend(&self, tx: &Transaction, logical: u64) -> Step<Vec<Visit>> {
        let mut node = self.root(tx)?;
        let mut level = self.level(tx, &node);
        if level > DEPTH_MAX {
            let Node::Root(block) = &node else { unreachable!("the walk begins at the root") };
            return Err(contents(block, "depth of the extent tree", u64::from(level)));
        }
        let mut path = Vec::new();
        while level > 0 {
            let entries = self.entries(tx, &node)?;
            let index = entries.partition_point(|e| e.logical.get() <= logical).saturating_sub(1);
            let Some(entry) = entries.get(index) else {
                let (Node::Root(block) | Node::Below(block)) = &node;
                return Err(contents(block, "an inner node without children", 0));
            };
            let child = BlockNo(entry.physical.get());
            path.push(Visit { node, index });
            level -= 1;
            node = self.child_seen(tx, child, level)?;
        }
        path.push(Visit { node, index: 0 });
        Ok(path)
    }

    /// As [`ExtentTree::child`]; a node that the transaction itself has made is found by its block.
    fn child_seen(&self, tx: &Transaction, block: BlockNo, level: u8) -> Step<Node> {
        match tx.staged_block(block) {
            Some(cached) => Ok(Node::Below(cached)),
            None => self.child(block, level),
        }
    }

    /// The first key behind the leaf at the end of a path.
    fn next_key(&self, tx: &Transaction, path: &[Visit]) -> Step<Option<u64>> {
        for visit in path[..path.len() - 1].iter().rev() {
            let entries = self.entries(tx, &visit.node)?;
            if let Some(next) = entries.get(visit.index + 1) {
                return Ok(Some(next.logical.get()));
            }
        }
        Ok(None)
    }
}

impl ExtentEditor<'_, '_> {
    /// Adds an extent where nothing is mapped yet. It is divided where the next leaf begins, which may
    /// be below the first extent there.
    pub(crate) fn insert(&mut self, mut new: Extent) -> Step<Grown> {
        loop {
            let path = self.tree.descend(self.tx, new.logical)?;
            let end = self.tree.next_key(self.tx, &path)?.unwrap_or(u64::MAX).min(new.end());
            let part = new.slice(new.logical, end);
            let mut extents = self.leaf(&path)?;
            let at = extents.partition_point(|e| e.logical < part.logical);
            let clear = at.checked_sub(1).is_none_or(|i| extents[i].end() <= part.logical)
                && extents.get(at).is_none_or(|e| e.logical >= part.end());
            assert!(clear, "an extent is added where nothing is mapped: {part:?}");
            extents.insert(at, part);
            merge_around(&mut extents, at);
            if let Grown::NoRoom = self.store_leaf(path, &extents)? {
                return Ok(Grown::NoRoom);
            }
            if end == new.end() {
                return Ok(Grown::Done);
            }
            new = new.slice(end, new.end());
        }
    }

    /// Marks what is mapped in `from..to` as written, or as not.
    pub(crate) fn mark(&mut self, from: u64, to: u64, unwritten: bool) -> Step<Grown> {
        let mut at = from;
        while at < to {
            let path = self.tree.descend(self.tx, at)?;
            let leaf_end = self.tree.next_key(self.tx, &path)?.unwrap_or(u64::MAX);
            let extents = self.leaf(&path)?;
            let mut changed = Vec::with_capacity(extents.len() + 2);
            for extent in &extents {
                let is_so = extent.unwritten == unwritten;
                if is_so || extent.end() <= at || extent.logical >= to {
                    changed.push(*extent);
                    continue;
                }
                if extent.logical < at {
                    changed.push(extent.slice(extent.logical, at));
                }
                changed.push(Extent { unwritten, ..extent.slice(at, to) });
                if extent.end() > to {
                    changed.push(extent.slice(to, extent.end()));
                }
            }
            merge_all(&mut changed);
            if changed != extents
                && let Grown::NoRoom = self.store_leaf(path, &changed)?
            {
                return Ok(Grown::NoRoom);
            }
            at = leaf_end;
        }
        Ok(Grown::Done)
    }

    /// Unmaps the file's blocks from `from` up to `to`, from the front, at most `pieces_max` runs. What
    /// is left of an extent on both sides takes one more entry.
    pub(crate) fn remove(&mut self, from: u64, to: u64, pieces_max: usize) -> Step<(Cut, Grown)> {
        let mut cut = Cut::default();
        let mut at = from;
        while cut.has_room(pieces_max) {
            let extent = loop {
                if at >= to {
                    cut.done = true;
                    return Ok((cut, Grown::Done));
                }
                match self.tree.map(self.tx, at)? {
                    Mapping::Mapped(extent) => break extent,
                    Mapping::Hole(end) => at = end,
                }
            };
            let gone = extent.slice(at, to.min(at.saturating_add(RUN_BLOCKS_MAX)));
            at = gone.end();
            cut.push(&gone);
            let path = self.tree.descend(self.tx, gone.logical)?;
            let mut extents = self.leaf(&path)?;
            let i = extents.partition_point(|e| e.logical < extent.logical);
            let mut left = Vec::new();
            if extent.logical < gone.logical {
                left.push(extent.slice(extent.logical, gone.logical));
            }
            if gone.end() < extent.end() {
                left.push(extent.slice(gone.end(), extent.end()));
            }
            let splits = left.len() == 2;
            extents.splice(i..=i, left);
            if !splits {
                self.store_shrunk_leaf(path, &extents, &mut cut)?;
            } else if let Grown::NoRoom = self.store_leaf(path, &extents)? {
                return Ok((cut, Grown::NoRoom));
            }
        }
        Ok((cut, Grown::Done))
    }

    /// Cuts the file's blocks from `from` on, from the end, at most `pieces_max` runs.
    pub(crate) fn cut(&mut self, from: u64, pieces_max: usize) -> Step<Cut> {
        let mut cut = Cut::default();
        while cut.has_room(pieces_max) {
            let path = self.tree.descend(self.tx, u64::MAX)?;
            let mut extents = self.leaf(&path)?;
            let Some(last) = extents.last().copied() else {
                cut.done = true;
                break;
            };
            if last.end() <= from {
                cut.done = true;
                break;
            }
            extents.pop();
            let gone = last.slice(from.max(last.end().saturating_sub(RUN_BLOCKS_MAX)), last.end());
            if gone.blocks < last.blocks {
                extents.push(last.slice(last.logical, gone.logical));
            }
            cut.push(&gone);
            self.store_shrunk_leaf(path, &extents, &mut cut)?;
        }
        Ok(cut)
    }

    fn leaf(&self, path: &[Visit]) -> Step<Vec<Extent>> {
        let leaf = path.last().expect("a path has a leaf");
        let entries = self.tree.entries(self.tx, &leaf.node)?;
        Ok(entries.iter().map(Extent::from).collect())
    }

    fn store_leaf(&mut self, path: Vec<Visit>, extents: &[Extent]) -> Step<Grown> {
        let entries: Vec<ExtentEntry> = extents.iter().map(ExtentEntry::from).collect();
        self.store(path, entries)
    }

    /// Stores the entries of the last node of the path, splitting upwards as needed.
    fn store(&mut self, mut path: Vec<Visit>, mut entries: Vec<ExtentEntry>) -> Step<Grown> {
        loop {
            let Visit { node, .. } = path.pop().expect("the root never splits upwards");
            let level = self.tree.level(self.tx, &node);
            match &node {
                Node::Root(block) if entries.len() <= self.root_entries_max(block) => {
                    self.write_root(level, &entries)?;
                    return Ok(Grown::Done);
                }
                Node::Root(_) => {
                    // The root's entries move into nodes of their own, the tree gets deeper.
                    let mut above = Vec::new();
                    for part in entries.chunks(NODE_ENTRIES_MAX / 2 + 1) {
                        let Some(block) = self.new_node(level, part)? else {
                            return Ok(Grown::NoRoom);
                        };
                        above.push(inner_entry(part[0].logical.get(), block));
                    }
                    self.write_root(level + 1, &above)?;
                    return Ok(Grown::Done);
                }
                Node::Below(block) if entries.len() <= NODE_ENTRIES_MAX => {
                    self.write_node(block, &entries);
                    return Ok(Grown::Done);
                }
                Node::Below(block) => {
                    // A node that grows at its end stays full: files mostly grow at theirs.
                    let grows_at_end = self.is_last(&path)?;
                    let keep = if grows_at_end { NODE_ENTRIES_MAX - 1 } else { entries.len() / 2 };
                    let right = entries.split_off(keep);
                    self.write_node(block, &entries);
                    let Some(new) = self.new_node(level, &right)? else {
                        return Ok(Grown::NoRoom);
                    };
                    let parent = path.last().expect("a node below the root has a parent");
                    let mut above = self.tree.entries(self.tx, &parent.node)?;
                    above.insert(parent.index + 1, inner_entry(right[0].logical.get(), new));
                    entries = above;
                }
            }
        }
    }

    /// Is the child at the end of this path (of parents) the last of its level?
    fn is_last(&self, parents: &[Visit]) -> Step<bool> {
        for visit in parents {
            if visit.index + 1 < self.tree.entries(self.tx, &visit.node)?.len() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stores a leaf that has shrunk; empty nodes are cut off.
    fn store_shrunk_leaf(
        &mut self,
        mut path: Vec<Visit>,
        extents: &[Extent],
        cut: &mut Cut,
    ) -> Step<()> {
        let mut entries: Vec<ExtentEntry> = extents.iter().map(ExtentEntry::from).collect();
        loop {
            let Visit { node, .. } = path.pop().expect("the root ends the walk");
            match node {
                Node::Root(_) => {
                    let level =
                        if entries.is_empty() { 0 } else { self.tree.level(self.tx, &node) };
                    return self.write_root(level, &entries);
                }
                Node::Below(block) if !entries.is_empty() => {
                    self.write_node(&block, &entries);
                    return Ok(());
                }
                Node::Below(block) => {
                    cut.stretches.insert(block.number.0 / BITS_PER_BLOCK);
                    cut.nodes.push(block);
                    let parent = path.last().expect("a node below the root has a parent");
                    entries = self.tree.entries(self.tx, &parent.node)?;
                    let gone = entries.remove(parent.index);
                    // What the nodes above lead here with the key of the first child is still found, and
                    // may come back.
                    if parent.index == 0
                        && let Some(first) = entries.first_mut()
                    {
                        first.logical = gone.logical;
                    }
                }
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a block holds less than 2^16 entries")]
    fn write_root(&mut self, level: u8, entries: &[ExtentEntry]) -> Step<()> {
        let inode = self.tree.inode;
        let block = inode.own_block(self.tx)?;
        let data: &mut InodeBlock = self.tx.change(self.pin, &inode.set, &block).get_mut();
        data.core.area = AreaKind::Extents as u8;
        data.core.depth = level;
        data.core.root_count = U16::new(entries.len() as u16);
        write_entries(data.body_mut(), entries);
        Ok(())
    }

    fn root_entries_max(&self, root: &Arc<CachedBlock>) -> usize {
        self.tx.see(root).get::<InodeBlock>().core.root_entries_max()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a block holds less than 2^16 entries")]
    fn write_node(&mut self, block: &Arc<CachedBlock>, entries: &[ExtentEntry]) {
        let set = &self.tree.inode.set;
        let node: &mut ExtentNodeBlock = self.tx.change(self.pin, set, block).get_mut();
        node.count = U16::new(entries.len() as u16);
        write_entries(node.entries.as_mut_bytes(), entries);
    }

    #[expect(clippy::cast_possible_truncation, reason = "a block holds less than 2^16 entries")]
    fn new_node(&mut self, level: u8, entries: &[ExtentEntry]) -> Step<Option<BlockNo>> {
        let mut found = None;
        for group in self.nodes {
            if let Some(block) = group.take_node(self.tx)? {
                found = Some((*group, block));
                break;
            }
        }
        let Some((group, block)) = found else { return Ok(None) };
        let inode = self.tree.inode;
        let owner: Owner = inode.owner(self.tree.generation);
        let data = self.tx.adopt(
            &group.pin,
            &group.group.set,
            &block,
            self.pin,
            &inode.set,
            Kind::ExtentNode,
            owner,
        );
        let node: &mut ExtentNodeBlock = data.get_mut();
        node.level = U16::new(u16::from(level));
        node.count = U16::new(entries.len() as u16);
        write_entries(node.entries.as_mut_bytes(), entries);
        self.add_blocks(1)?;
        Ok(Some(block.number))
    }

    /// Keeps the inode's count of blocks.
    pub(crate) fn add_blocks(&mut self, blocks: i64) -> Step<()> {
        let inode = self.tree.inode;
        let block = inode.own_block(self.tx)?;
        let data: &mut InodeBlock = self.tx.change(self.pin, &inode.set, &block).get_mut();
        let count = data.core.blocks.get().checked_add_signed(blocks);
        data.core.blocks.set(count.ok_or_else(|| contents(&block, "count of blocks", 0))?);
        Ok(())
    }
}

/// What was cut off a tree.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    /// Data that is not mapped any more.
    pub(crate) runs: Vec<(BlockNo, u64)>,
    /// Nodes that became empty.
    pub(crate) nodes: Vec<Arc<CachedBlock>>,
    /// Nothing is mapped from there on any more.
    pub(crate) done: bool,
    /// Stretches of the device that all these lie in.
    stretches: BTreeSet<u64>,
}

impl Cut {
    /// Of what has no tree.
    pub(crate) fn nothing() -> Cut {
        Cut { done: true, ..Cut::default() }
    }

    fn push(&mut self, gone: &Extent) {
        self.runs.push((gone.physical, gone.blocks));
        let last = gone.physical_end() - 1;
        self.stretches.extend([gone.physical.0, last].map(|block| block / BITS_PER_BLOCK));
    }

    /// May one transaction free another run?
    fn has_room(&self, runs_max: usize) -> bool {
        self.runs.len() < runs_max
            && self.stretches.len() < STRETCHES_MAX
            && self.nodes.len() < NODES_FREED_MAX
    }
}

fn inner_entry(key: u64, child: BlockNo) -> ExtentEntry {
    ExtentEntry {
        logical: U64::new(key),
        physical: U64::new(child.0),
        blocks: U32::ZERO,
        flags: U32::ZERO,
    }
}

fn read_entries(bytes: &[u8], count: usize) -> Vec<ExtentEntry> {
    let bytes = &bytes[..count * ExtentEntry::SIZE];
    match <[ExtentEntry]>::ref_from_bytes(bytes) {
        Ok(entries) => entries.to_vec(),
        Err(_) => unreachable!("whole entries"),
    }
}

/// Writes entries; what was behind them becomes zero.
fn write_entries(bytes: &mut [u8], entries: &[ExtentEntry]) {
    let len = std::mem::size_of_val(entries);
    bytes[..len].copy_from_slice(entries.as_bytes());
    bytes[len..].fill(0);
}

fn merge_around(extents: &mut Vec<Extent>, at: usize) {
    if at + 1 < extents.len() && extents[at].continues(&extents[at + 1]) {
        extents[at].blocks += extents[at + 1].blocks;
        extents.remove(at + 1);
    }
    if at > 0 && extents[at - 1].continues(&extents[at]) {
        extents[at - 1].blocks += extents[at].blocks;
        extents.remove(at);
    }
}

fn merge_all(extents: &mut Vec<Extent>) {
    let mut merged: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents.drain(..) {
        match merged.last_mut() {
            Some(last) if last.continues(&extent) => last.blocks += extent.blocks,
            _ => merged.push(extent),
        }
    }
    *extents = merged;
}

fn contents(block: &CachedBlock, what: &'static str, found: u64) -> crate::cache::Fault {
    let kind = CorruptionKind::Contents(what);
    Corruption { block: block.number, kind, expected: 0, found }.into()
}
