//! Maps of blocks made anew: without what was cut, with copies of what two files had in common.
//!
//! Keeps true: of two files that lead to one block, both keep readable data: the first the block, the
//! second a copy of it. The nodes of a new map lie where nothing lay; the inode leads to it with one
//! change.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

use super::item::{Item, Items, State};
use super::work::Work;
use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::inode::extents::Extent;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::extent::{ExtentEntry, ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::Kind;
use crate::ondisk::inode::{AreaKind, InodeBlock};

impl Work<'_> {
    /// Files that use blocks of others get their own. One for which there is no room is isolated.
    pub(super) async fn part_shared(&mut self, items: &mut Items) {
        let mut second: BTreeMap<BlockNo, String> = BTreeMap::new();
        for item in items.values() {
            for run in &item.fix.shared {
                second.extend((0..run.blocks).map(|i| (run.physical.plus(i), item.name())));
            }
        }
        if second.is_empty() {
            return;
        }
        let first = self.first_users(items, &second).await;
        let inodes: Vec<_> = items.values().filter(|item| !item.fix.shared.is_empty()).collect();
        let inodes: Vec<_> = inodes.iter().map(|item| item.file.inode).collect();
        for no in inodes {
            let mut item = items.remove(&no).expect("of the list");
            let others: BTreeSet<&String> = item
                .fix
                .shared
                .iter()
                .flat_map(|run| (0..run.blocks).filter_map(|i| first.get(&run.physical.plus(i))))
                .collect();
            let others: Vec<&str> = others.into_iter().map(String::as_str).collect();
            let others = if others.is_empty() { "itself".to_owned() } else { others.join(", ") };
            let count: u64 = item.fix.shared.iter().map(|run| run.blocks).sum();
            if self.copy_shared(&mut item).await {
                let what =
                    format!("shared {count} blocks with {others}; has copies of its own now");
                self.did(item.name(), what);
            } else {
                let why =
                    format!("shares {count} blocks with {others}, and there is no room to copy");
                item.state = State::Isolated(Some(why));
            }
            items.insert(no, item);
        }
    }

    /// Who was the first to claim blocks that a second one uses too.
    async fn first_users(
        &mut self,
        items: &Items,
        second: &BTreeMap<BlockNo, String>,
    ) -> BTreeMap<BlockNo, String> {
        let mut first = BTreeMap::new();
        for item in items.values().filter(|item| item.state == State::Good) {
            let block = self.look(BlockNo(item.file.inode.0)).await.whole().cloned();
            let Some(block) = block else { continue };
            for extent in self.extents_of(item, block.get()).await {
                let (from, to) = (extent.physical, extent.physical.plus(extent.blocks));
                for (at, name) in second.range(from..to) {
                    if *name != item.name() {
                        first.entry(*at).or_insert_with(|| item.name());
                    }
                }
            }
        }
        first
    }

    /// The map of a file as it is on the device; it has been read before, and is whole.
    pub(super) async fn extents_of(&mut self, item: &Item, on_disk: &InodeBlock) -> Vec<Extent> {
        if on_disk.core.area != AreaKind::Extents as u8 {
            return Vec::new();
        }
        let mut entries = on_disk.root_extents().to_vec();
        for _ in 0..on_disk.core.depth {
            let mut below = Vec::new();
            for entry in &entries {
                let at = BlockNo(entry.physical.get());
                if let Some(node) = self.find(at, Kind::ExtentNode, item.owner()).await {
                    let node: &ExtentNodeBlock = node.get();
                    below.extend_from_slice(&node.entries[..usize::from(node.count.get())]);
                }
            }
            entries = below;
        }
        entries.iter().map(Extent::from).collect()
    }

    /// False when there is no room; nothing has changed then.
    async fn copy_shared(&mut self, item: &mut Item) -> bool {
        let extents = item.fix.extents.take().unwrap_or_default();
        let mut copies: Vec<(BlockNo, BlockNo, bool)> = Vec::new();
        let mut places = BTreeMap::new();
        let shared = std::mem::take(&mut item.fix.shared);
        let mut full = false;
        'all: for run in &shared {
            for i in 0..run.blocks {
                let Some(to) = self.take(ChunkKind::Data) else {
                    full = true;
                    break 'all;
                };
                copies.push((run.physical.plus(i), to, run.unwritten));
                places.insert(run.logical + i, to);
            }
        }
        if full {
            for (_, to, _) in &copies {
                self.release(*to);
                self.fresh.remove(to);
            }
            // What it has for itself stays reserved.
            return false;
        }
        for (from, to, unwritten) in copies {
            let block = self.disk.read(from, 1).await;
            let block = match block {
                Ok(blocks) if !unwritten => Box::new(blocks.into_vec().remove(0)),
                Ok(_) => Block::zeroed(),
                Err(error) => {
                    self.report.left(item.name(), format!("{error}; zeros in its place"));
                    Block::zeroed()
                }
            };
            self.disk.put(to, block);
        }
        item.fix.extents = Some(with_copies(&extents, &places));
        true
    }

    /// A new map of blocks, if there is to be one.
    pub(super) async fn write_extents(&mut self, item: &mut Item, on_disk: &mut InodeBlock) {
        let Some(extents) = item.fix.extents.take() else { return };
        let mut entries: Vec<ExtentEntry> =
            joined(&extents).iter().map(ExtentEntry::from).collect();
        let root_max = on_disk.core.root_entries_max();
        let mut nodes: Vec<(BlockNo, Box<Block>)> = Vec::new();
        let mut depth: u8 = 0;
        while entries.len() > root_max {
            let mut above = Vec::new();
            for piece in entries.chunks(NODE_ENTRIES_MAX) {
                let Some(at) = self.take(ChunkKind::Tree) else {
                    nodes.iter().for_each(|(at, _)| self.release(*at));
                    self.report.left(item.name(), "no room for a new map of its blocks");
                    return;
                };
                let mut block = Block::zeroed();
                let node: &mut ExtentNodeBlock = block.get_mut();
                node.level = U16::new(depth.into());
                node.count = U16::new(u16::try_from(piece.len()).expect("as many as fit"));
                node.entries[..piece.len()].copy_from_slice(piece);
                nodes.push((at, block));
                above.push(ExtentEntry {
                    logical: piece[0].logical,
                    physical: U64::new(at.0),
                    blocks: 0.into(),
                    flags: 0.into(),
                });
            }
            entries = above;
            depth += 1;
        }
        item.blocks += nodes.len() as u64;
        for (at, block) in nodes {
            self.put(at, Kind::ExtentNode, item.owner(), block).await;
        }
        for at in std::mem::take(&mut item.fix.old_nodes) {
            self.release(at);
        }
        on_disk.core.depth = depth;
        on_disk.core.root_count = U16::new(u16::try_from(entries.len()).expect("it fits the root"));
        let body = on_disk.body_mut();
        body.fill(0);
        let bytes = entries.as_bytes();
        body[..bytes.len()].copy_from_slice(bytes);
    }
}

/// The same extents with some blocks of the file somewhere else.
fn with_copies(extents: &[Extent], copies: &BTreeMap<u64, BlockNo>) -> Vec<Extent> {
    let mut all = Vec::with_capacity(extents.len() + 2);
    for extent in extents {
        let mut from = extent.logical;
        for (logical, to) in copies.range(extent.logical..extent.end()) {
            if from < *logical {
                all.push(extent.slice(from, *logical));
            }
            all.push(Extent { physical: *to, ..extent.slice(*logical, *logical + 1) });
            from = *logical + 1;
        }
        if from < extent.end() {
            all.push(extent.slice(from, extent.end()));
        }
    }
    all
}

/// Neighbours in the file and on the device together. None crosses a group: no two are joined at
/// the end of one, where the next one's own blocks begin.
fn joined(extents: &[Extent]) -> Vec<Extent> {
    let mut all: Vec<Extent> = Vec::new();
    for extent in extents {
        match all.last_mut() {
            Some(last) if last.continues(extent) => last.blocks += extent.blocks,
            _ => all.push(*extent),
        }
    }
    all
}
