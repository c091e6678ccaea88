//! What an inode that is damaged beyond repair leads to.
//!
//! Whatever the bytes, it ends: no node is followed twice. What is said here counts for nothing but
//! that blocks stay reserved, as far as nobody else uses them.

use std::collections::BTreeSet;

use crate::block::{Block, BlockNo};
use crate::env::Disk;
use crate::file::FileId;
use crate::fsck::media::{Seen, read_one};
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::extent::{ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::{Header, Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock};
use crate::ondisk::xattr::{XATTR_BLOCKS_MAX, XattrBlock};
use crate::superblock::Superblock;

/// Blocks that such an inode leads to at most: a larger file has room for no more in its root and a
/// level of nodes.
const BLOCKS_MAX: usize = 1 << 26;

/// Blocks inside groups, each once, and what they would be used as.
pub(crate) async fn blocks_of(
    disk: &dyn Disk,
    sb: &Superblock,
    file: FileId,
    on_disk: &InodeBlock,
) -> Vec<(BlockNo, ChunkKind)> {
    let mut found = BTreeSet::new();
    let mut blocks = Vec::new();
    let core = &on_disk.core;
    let owner = Owner { id: file.inode.0, generation: file.generation };
    if core.area == AreaKind::Extents as u8 && core.depth <= 8 {
        let mut entries = on_disk.root_extents().to_vec();
        for _ in 0..core.depth {
            let mut below = Vec::new();
            for entry in &entries {
                let at = BlockNo(entry.physical.get());
                let Some(node) = whole(disk, sb, at, Kind::ExtentNode, owner).await else {
                    continue;
                };
                if !found.insert(at) {
                    continue;
                }
                blocks.push((at, ChunkKind::Tree));
                let node: &ExtentNodeBlock = node.get();
                let count = usize::from(node.count.get()).min(NODE_ENTRIES_MAX);
                below.extend_from_slice(&node.entries[..count]);
            }
            entries = below;
        }
        for entry in &entries {
            let first = BlockNo(entry.physical.get());
            let Some(group) = sb.layout.group_of(first) else { continue };
            let end = sb.layout.group_first(group).0 + sb.layout.group_len(group);
            let count = u64::from(entry.blocks.get()).min(end - first.0);
            for at in first.0..first.0 + count {
                if blocks.len() < BLOCKS_MAX && found.insert(BlockNo(at)) {
                    blocks.push((BlockNo(at), ChunkKind::Data));
                }
            }
        }
    }
    let mut next = BlockNo(core.xattr_first.get());
    for _ in 0..XATTR_BLOCKS_MAX {
        let Some(block) = whole(disk, sb, next, Kind::Xattr, owner).await else { break };
        if !found.insert(next) {
            break;
        }
        blocks.push((next, ChunkKind::Tree));
        next = BlockNo(block.get::<XattrBlock>().next.get());
    }
    blocks
}

async fn whole(
    disk: &dyn Disk,
    sb: &Superblock,
    at: BlockNo,
    kind: Kind,
    owner: Owner,
) -> Option<Box<Block>> {
    sb.layout.group_of(at)?;
    let seen = Seen::of(read_one(disk, at).await, sb.fs_id, at);
    let block = seen.whole()?;
    let header = Header::of(block);
    let fits = header.kind() == Some(kind) && header.owner() == owner;
    fits.then(|| Box::new(block.clone()))
}
