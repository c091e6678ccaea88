//! Structures of more than one block: trees, directories, journals.

use std::collections::BTreeSet;

use mx_base::SlotId;

use super::{InspectError, Look, Value, structures};
use crate::block::BlockNo;
use crate::file::{FileId, InodeNo};
use crate::layout::GroupNo;
use crate::locks::Resource;
use crate::ondisk::alloc_group::{
    CHUNKS_PER_BLOCK, ChunkTableBlock, GROUPS_PER_MAP, GroupMapBlock,
};
use crate::ondisk::directory::{BucketBlock, IndexBlock, POINTER_TO_INDEX};
use crate::ondisk::extent::{ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::Kind;
use crate::ondisk::inode::{AreaKind, InodeBlock};
use crate::ondisk::journal::RecordKind;
use crate::ondisk::xattr::{XATTR_BLOCKS_MAX, XattrBlock};
use crate::slot::head::SlotHead;
use crate::xattr::Xattrs;

/// Blocks of one object that are shown, at most.
const BLOCKS_MAX: usize = 1 << 20;

/// One entry of a directory.
pub(super) struct Named {
    pub(super) name: Vec<u8>,
    pub(super) file: FileId,
}

impl Look {
    pub(super) async fn superblocks(&self) -> Value {
        let mut shown = vec![Value::Fields(vec![("counts", self.sb.copy.0.into())])];
        for at in self.sb.layout.superblock_copies() {
            shown.push(self.block(at).await);
        }
        Value::List(shown)
    }

    pub(super) async fn groups(&self, one: Option<u64>) -> Result<Value, InspectError> {
        let layout = &self.sb.layout;
        if let Some(number) = one {
            if number >= layout.group_count {
                return Err(InspectError::OutOfRange { what: "group", number });
            }
            let no = GroupNo(number);
            let mut shown = Vec::new();
            for i in 0..layout.fixed_blocks(no) {
                shown.push(self.block(layout.group_first(no).plus(i)).await);
            }
            return Ok(Value::List(shown));
        }
        let mut shown = Vec::new();
        for leader in layout.groups().filter(|no| layout.map_leader(*no) == *no) {
            let at = layout.group_map(leader);
            let Some(map) = self.read(at).await else { continue };
            if let Some(wrong) = self.wrong(&map, at, Kind::GroupMap, leader.0) {
                shown.push(Value::Fields(vec![("map", at.0.into()), ("wrong", wrong.into())]));
            }
            let map: &GroupMapBlock = map.get();
            for no in leader.0..(leader.0 + GROUPS_PER_MAP).min(layout.group_count) {
                if crate::alloc::bits::get(&map.bits, crate::block::as_usize(no - leader.0)) {
                    shown.push(self.block(layout.group_header(GroupNo(no))).await);
                }
            }
        }
        Ok(Value::List(shown))
    }

    pub(super) async fn chunks(&self, number: u64) -> Result<Value, InspectError> {
        let layout = &self.sb.layout;
        if number >= layout.group_count {
            return Err(InspectError::OutOfRange { what: "group", number });
        }
        let no = GroupNo(number);
        let mut shown = Vec::new();
        for i in 0..layout.chunk_table_blocks(no) {
            let at = layout.chunk_table_first(no).plus(i);
            let block = self.read(at).await.ok_or(InspectError::Unreadable(at))?;
            if let Some(wrong) = self.wrong(&block, at, Kind::ChunkTable, number) {
                shown.push(Value::Fields(vec![("block", at.0.into()), ("wrong", wrong.into())]));
            }
            let first = i * CHUNKS_PER_BLOCK as u64;
            let table: &ChunkTableBlock = block.get();
            let entries = (first..layout.chunk_count(no)).zip(&table.entries);
            shown.extend(entries.map(|(chunk, entry)| structures::chunk(chunk, entry)));
        }
        Ok(Value::List(shown))
    }

    pub(super) async fn extents(&self, no: InodeNo) -> Result<Value, InspectError> {
        let (block, file, wrong) = self.inode(no).await?;
        let inode: &InodeBlock = block.get();
        let mut shown = Vec::new();
        note(&mut shown, BlockNo(no.0), wrong);
        if inode.core.area != AreaKind::Extents as u8 {
            shown.push(Value::Text("it has no extent tree".into()));
            return Ok(Value::List(shown));
        }
        let mut entries = inode.root_extents().to_vec();
        let mut seen = BTreeSet::new();
        for level in (0..inode.core.depth.min(8)).rev() {
            let mut below = Vec::new();
            for entry in &entries {
                let at = BlockNo(entry.physical.get());
                if !seen.insert(at) || seen.len() > BLOCKS_MAX {
                    note(&mut shown, at, Some("it was shown already".into()));
                    continue;
                }
                let Some(node) = self.read(at).await else {
                    note(&mut shown, at, Some("the device cannot read it".into()));
                    continue;
                };
                note(&mut shown, at, self.wrong(&node, at, Kind::ExtentNode, file.inode.0));
                let node: &ExtentNodeBlock = node.get();
                let count = usize::from(node.count.get()).min(NODE_ENTRIES_MAX);
                shown.push(Value::Fields(vec![
                    ("node", at.0.into()),
                    ("level", u64::from(level).into()),
                    ("key", entry.logical.get().into()),
                    ("count", (count as u64).into()),
                ]));
                below.extend_from_slice(&node.entries[..count]);
            }
            entries = below;
        }
        shown.extend(entries.iter().map(structures::extent));
        Ok(Value::List(shown))
    }

    pub(super) async fn directory(&self, no: InodeNo) -> Result<Value, InspectError> {
        let (block, _, wrong) = self.inode(no).await?;
        let inode: &InodeBlock = block.get();
        let mut shown = Vec::new();
        note(&mut shown, BlockNo(no.0), wrong);
        if inode.core.area == AreaKind::Index as u8 {
            let pointers = inode.root_pointers();
            shown.push(Value::Fields(vec![("index", structures::pointers_of(&pointers))]));
            for at in self.directory_blocks(no, &pointers).await {
                shown.push(self.block(at).await);
            }
        } else {
            shown.push(structures::entries(inode.body()));
        }
        Ok(Value::List(shown))
    }

    /// Indexes and buckets, each once.
    async fn directory_blocks(&self, no: InodeNo, root: &[u64]) -> Vec<BlockNo> {
        let mut blocks = Vec::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<u64> =
            root.iter().rev().copied().filter(|pointer| *pointer != 0).collect();
        while let Some(pointer) = todo.pop() {
            let at = BlockNo(pointer & !POINTER_TO_INDEX);
            if !seen.insert(at) || seen.len() > BLOCKS_MAX {
                continue;
            }
            blocks.push(at);
            if pointer & POINTER_TO_INDEX != 0
                && let Some(block) = self.read(at).await
                && self.wrong(&block, at, Kind::DirIndex, no.0).is_none()
            {
                let index: &IndexBlock = block.get();
                todo.extend(index.pointers.iter().rev().map(|p| p.get()).filter(|p| *p != 0));
            }
        }
        blocks
    }

    pub(super) async fn entries(&self, dir: InodeNo) -> Result<Vec<Named>, InspectError> {
        let (block, ..) = self.inode(dir).await?;
        let inode: &InodeBlock = block.get();
        if inode.core.area != AreaKind::Index as u8 {
            return Ok(named(inode.body()));
        }
        let mut all = Vec::new();
        for at in self.directory_blocks(dir, &inode.root_pointers()).await {
            let Some(block) = self.read(at).await else { continue };
            if self.wrong(&block, at, Kind::DirBucket, dir.0).is_none() {
                all.extend(named(&block.get::<BucketBlock>().area));
            }
        }
        Ok(all)
    }

    pub(super) async fn xattrs(&self, no: InodeNo) -> Result<Value, InspectError> {
        let (block, _, wrong) = self.inode(no).await?;
        let inode: &InodeBlock = block.get();
        let mut shown = Vec::new();
        note(&mut shown, BlockNo(no.0), wrong);
        let mut stream = Vec::new();
        let mut next = inode.core.xattr_first.get();
        let mut blocks = 0;
        while next != 0 && blocks < XATTR_BLOCKS_MAX {
            let at = BlockNo(next);
            shown.push(Value::Fields(vec![("chain", next.into())]));
            let Some(block) = self.read(at).await else {
                note(&mut shown, at, Some("the device cannot read it".into()));
                break;
            };
            let wrong = self.wrong(&block, at, Kind::Xattr, no.0);
            let is_wrong = wrong.is_some();
            note(&mut shown, at, wrong);
            if is_wrong {
                break;
            }
            stream.extend_from_slice(&block.get::<XattrBlock>().payload);
            next = block.get::<XattrBlock>().next.get();
            blocks += 1;
        }
        stream.truncate(inode.core.xattr_len.get() as usize);
        let inline = &inode.area[inode.core.room()..];
        for (place, bytes) in [("inode", inline), ("blocks", &stream)] {
            match Xattrs::parse(bytes) {
                Ok(xattrs) => shown.extend(xattrs.names().map(|name| {
                    let value = xattrs.get(name).unwrap_or_default();
                    let hex = structures::hex(&value[..value.len().min(64)]);
                    Value::Fields(vec![
                        ("name", String::from_utf8_lossy(&name.whole()).into_owned().into()),
                        ("in", place.into()),
                        ("bytes", (value.len() as u64).into()),
                        ("value", hex.into()),
                    ])
                })),
                Err(what) => {
                    shown.push(Value::Fields(vec![("in", place.into()), ("wrong", what.into())]))
                }
            }
        }
        Ok(Value::List(shown))
    }

    pub(super) async fn slots(&self) -> Value {
        let mut shown = Vec::new();
        for slot in (0..self.sb.layout.slot_count).map(SlotId) {
            let mut copies = Vec::new();
            let mut is_used = false;
            for at in self.sb.layout.slot_heads(slot) {
                let Some(block) = self.read(at).await else {
                    copies.push(self.block(at).await);
                    is_used = true;
                    continue;
                };
                let head: &crate::ondisk::slot::SlotHeadBlock = block.get();
                is_used |= head.state != 0
                    || self.wrong(&block, at, Kind::SlotHead, slot.0.into()).is_some();
                copies.push(structures::block(&block, at, &self.sb));
            }
            if is_used {
                copies.push(self.block(self.sb.layout.slot_body(slot)).await);
                shown.push(Value::Fields(vec![
                    ("slot", u64::from(slot.0).into()),
                    ("blocks", Value::List(copies)),
                ]));
            }
        }
        Value::List(shown)
    }

    pub(super) async fn journal(&self, slot: u16) -> Result<Value, InspectError> {
        if slot >= self.sb.layout.slot_count {
            return Err(InspectError::OutOfRange { what: "slot", number: slot.into() });
        }
        let slot = SlotId(slot);
        let layout = &self.sb.layout;
        let mut shown = Vec::new();
        let head = match SlotHead::read(&*self.disk, self.sb.fs_id, layout, slot).await {
            Ok(head) if head.extents.blocks() > 2 => head,
            Ok(_) => return Ok("it has no journal".into()),
            Err(error) => return Ok(error.to_string().into()),
        };
        for at in head.extents.headers() {
            shown.push(self.block(at).await);
        }
        let of = head.journal(self.sb.fs_id);
        let (scan, damage) = match of.scan_prefix(&*self.disk).await {
            Ok(found) => found,
            Err(error) => {
                shown.push(Value::Fields(vec![("wrong", error.to_string().into())]));
                return Ok(Value::List(shown));
            }
        };
        shown.push(Value::Fields(vec![
            ("ring_blocks", head.extents.ring_blocks().into()),
            ("segments", scan.segments.into()),
            ("transactions", (scan.transactions.len() as u64).into()),
            ("next_segment", scan.next_segment.0.into()),
            ("next_position", scan.next_position.into()),
        ]));
        for transaction in &scan.transactions {
            let records = transaction.records.iter().map(|record| {
                let kind = match record.kind {
                    RecordKind::Image => "image",
                    RecordKind::Delta => "delta",
                };
                let lock = match Resource::of_name(&record.lock) {
                    Some(resource) => format!("{resource:?}"),
                    None => format!("{:?}", record.lock),
                };
                Value::Fields(vec![
                    ("block", record.block.0.into()),
                    ("kind", kind.into()),
                    ("from", record.old_version.into()),
                    ("to", record.new_version.into()),
                    ("lock", lock.into()),
                ])
            });
            shown.push(Value::Fields(vec![
                ("transaction", transaction.lsn.0.into()),
                ("records", Value::List(records.collect())),
            ]));
        }
        if let Some(damage) = damage {
            shown.push(Value::Fields(vec![("wrong", damage.error.to_string().into())]));
        }
        Ok(Value::List(shown))
    }
}

fn note(shown: &mut Vec<Value>, at: BlockNo, wrong: Option<String>) {
    if let Some(wrong) = wrong {
        shown.push(Value::Fields(vec![("block", at.0.into()), ("wrong", wrong.into())]));
    }
}

/// The entries of an area, as far as they make sense.
fn named(area: &[u8]) -> Vec<Named> {
    let (records, _) = structures::records(area);
    let named = records.into_iter().map(|(head, name)| Named {
        name: name.to_vec(),
        file: FileId { inode: InodeNo(head.inode.get()), generation: head.generation.get() },
    });
    named.collect()
}
