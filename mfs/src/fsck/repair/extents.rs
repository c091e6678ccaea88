//! Maps of blocks as they are found: what is beyond doubt, what has to go, what somebody else has too.
//!
//! Keeps true: a map that is not whole is not believed at all. What it says is either taken over block
//! for block, less what record 0016 lets go, or the file is isolated.

use std::collections::BTreeSet;

use super::item::{Item, Tree};
use super::work::Work;
use crate::block::{BLOCK_SIZE_U64, BlockNo};
use crate::file::FileId;
use crate::inode::extents::Extent;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::extent::{ExtentEntry, ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::InodeBlock;

/// The deepest extent tree.
const DEPTH_MAX: u8 = 8;

impl Work<'_> {
    pub(super) async fn examine_extents(
        &mut self,
        item: &mut Item,
        on_disk: &InodeBlock,
        listed: bool,
    ) -> Result<(), Option<String>> {
        let tree = match self.read_tree(item.file, on_disk).await {
            Ok(tree) => tree,
            Err(None) => return Err(None),
            Err(Some(why)) => return Err(Some(why)),
        };
        let end = on_disk.core.size.get().div_ceil(BLOCK_SIZE_U64);
        let mut kept = Vec::new();
        let mut cut = 0;
        for extent in &tree.extents {
            if extent.logical < end {
                kept.push(extent.slice(0, end));
            }
            if extent.end() > end {
                let behind = extent.slice(end, u64::MAX);
                if behind.unwritten && !listed {
                    kept.push(behind);
                } else {
                    cut += behind.blocks;
                }
            }
        }
        if cut > 0 {
            self.did(item.name(), format!("{cut} blocks behind its end are cut"));
        }
        let claimed = self.claim_extents(item, &kept).map_err(Some)?;
        item.blocks += claimed;
        if let Some(odd) = &tree.odd {
            self.did(item.name(), format!("{odd}; its tree is made anew"));
        }
        for node in &tree.nodes {
            self.claim(*node, ChunkKind::Tree);
        }
        if cut > 0 || tree.odd.is_some() || !item.fix.shared.is_empty() {
            item.fix.extents = Some(kept);
            item.fix.old_nodes = tree.nodes;
        } else {
            item.own.extend(tree.nodes);
        }
        Ok(())
    }

    /// Claims the blocks of a file; runs that somebody else has claimed are noted as shared. Returns
    /// how many.
    fn claim_extents(&mut self, item: &mut Item, extents: &[Extent]) -> Result<u64, String> {
        for extent in extents {
            let last = extent.physical.0.checked_add(extent.blocks - 1).map(BlockNo);
            let group = self.sb.layout.group_of(extent.physical);
            let is_inside = last.is_some_and(|last| {
                group.is_some_and(|no| self.groups.contains_key(&no))
                    && self.sb.layout.group_of(last) == group
            });
            if !is_inside {
                return Err(format!("an extent at block {} crosses groups", extent.physical));
            }
            for i in 0..extent.blocks {
                let at = extent.physical.plus(i);
                let fixed = self.sb.layout.fixed_blocks(group.expect("inside"));
                let first = self.sb.layout.group_first(group.expect("inside"));
                if !self.fits(at, ChunkKind::Data) || at.0 - first.0 < fixed {
                    return Err(format!("an extent leads to block {at}, which is not for data"));
                }
            }
        }
        let mut count = 0;
        for extent in extents {
            for i in 0..extent.blocks {
                let at = extent.physical.plus(i);
                count += 1;
                if !self.is_used(at) {
                    self.claim(at, ChunkKind::Data);
                    continue;
                }
                let logical = extent.logical + i;
                match item.fix.shared.last_mut() {
                    Some(run) if run.end() == logical && run.physical.plus(run.blocks) == at => {
                        run.blocks += 1;
                    }
                    _ => {
                        let unwritten = extent.unwritten;
                        item.fix.shared.push(Extent {
                            logical,
                            physical: at,
                            blocks: 1,
                            unwritten,
                        });
                    }
                }
            }
        }
        Ok(count)
    }

    /// The map of blocks of a file; what is wrong with it if it is not whole, or nothing when everything
    /// is to be read again.
    pub(super) async fn read_tree(
        &mut self,
        file: FileId,
        on_disk: &InodeBlock,
    ) -> Result<Tree, Option<String>> {
        let core = &on_disk.core;
        let owner = Owner { id: file.inode.0, generation: file.generation };
        if core.depth > DEPTH_MAX {
            return Err(Some(format!("extent tree of depth {}", core.depth)));
        }
        let mut entries = on_disk.root_extents().to_vec();
        let mut tree = Tree { nodes: Vec::new(), extents: Vec::new(), odd: None };
        let mut seen = BTreeSet::new();
        for level in (0..core.depth).rev() {
            let mut below = Vec::new();
            for (i, entry) in entries.iter().enumerate() {
                let at = BlockNo(entry.physical.get());
                let node = self.find(at, Kind::ExtentNode, owner).await;
                let Some(node) = node.filter(|_| !self.is_used(at) && seen.insert(at)) else {
                    return Err(Some(format!("the extents in block {at} are lost")));
                };
                if !self.fits(at, ChunkKind::Tree) {
                    if self.suspect(at, ChunkKind::Tree).await {
                        return Err(None);
                    }
                    return Err(Some(format!("extent node {at} in a chunk of another kind")));
                }
                let node: &ExtentNodeBlock = node.get();
                let count = usize::from(node.count.get());
                if u16::from(level) != node.level.get() || count == 0 || count > NODE_ENTRIES_MAX {
                    return Err(Some(format!("extent node {at} of wrong level or size")));
                }
                let last = &node.entries[count - 1];
                let end = last.logical.get().saturating_add(last.blocks.get().into());
                let next = entries.get(i + 1);
                if i > 0 && node.entries[0].logical.get() < entry.logical.get()
                    || level == 0 && next.is_some_and(|next| end > next.logical.get())
                {
                    tree.odd = Some(format!("extent node {at} does not fit its key"));
                }
                tree.nodes.push(at);
                below.extend_from_slice(&node.entries[..count]);
            }
            entries = below;
        }
        let mut last_end = 0;
        for entry in &entries {
            let extent = Extent::from(entry);
            if extent.blocks == 0 {
                tree.odd = Some(format!("an empty extent at block {} of the file", extent.logical));
                continue;
            }
            if entry.flags.get() & !ExtentEntry::UNWRITTEN != 0 {
                // Is it written or not? Its data is shown or hidden by that.
                return Err(Some(format!("unknown flags {:#x} of an extent", entry.flags.get())));
            }
            let last = extent.physical.0.checked_add(extent.blocks);
            let end = extent.logical.checked_add(extent.blocks).filter(|_| last.is_some());
            let Some(end) = end else {
                return Err(Some(format!("an extent behind all files, at {}", extent.logical)));
            };
            if extent.logical < last_end {
                return Err(Some(format!(
                    "extents overlap at block {} of the file",
                    extent.logical
                )));
            }
            last_end = end;
            tree.extents.push(extent);
        }
        Ok(tree)
    }
}
