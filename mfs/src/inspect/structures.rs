//! Single blocks, decoded by their headers.

use zerocopy::FromBytes;

use super::{Value, header_fields, wrong_text};
use crate::block::{Block, BlockNo};
use crate::ondisk::alloc_group::{
    BitmapBlock, ChunkEntry, ChunkTableBlock, GroupHeaderBlock, GroupMapBlock,
};
use crate::ondisk::directory::{
    BucketBlock, ENTRY_HEAD_SIZE, EntryHead, IndexBlock, POINTER_TO_INDEX,
};
use crate::ondisk::extent::{ExtentEntry, ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::{self, Header, Kind};
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore, Time};
use crate::ondisk::journal::JournalHeaderBlock;
use crate::ondisk::slot::{OrphanBlock, OrphanEntry, SlotBodyBlock, SlotHeadBlock};
use crate::ondisk::superblock::SuperblockBlock;
use crate::ondisk::xattr::XattrBlock;
use crate::superblock::Superblock;

type Fields = Vec<(&'static str, Value)>;

pub(super) fn kind_name(kind: u8) -> String {
    match Kind::from_u8(kind) {
        Some(kind) => format!("{kind:?}"),
        None => format!("unknown ({kind})"),
    }
}

/// A block by its header; of one without a header the first bytes.
pub(super) fn block(block: &Block, at: BlockNo, sb: &Superblock) -> Value {
    let mut fields: Fields = vec![("block", at.0.into())];
    if let Some(group) = sb.layout.group_of(at) {
        fields.push(("group", group.0.into()));
    }
    if let Err(corruption) = header::check(block, sb.fs_id, at) {
        fields.push(("wrong", wrong_text(block, &corruption, sb, at).into()));
        if header::of_damaged(block, sb.fs_id, at).is_none() {
            let is_empty = block.0.iter().all(|byte| *byte == 0);
            let hex = hex(&block.0[..64]);
            let shown = if is_empty { "zeros".to_owned() } else { hex };
            fields.push(("bytes", shown.into()));
            return Value::Fields(fields);
        }
    }
    fields.extend(header_fields(Header::of(block)));
    fields.extend(body(block));
    Value::Fields(fields)
}

fn body(block: &Block) -> Fields {
    match Header::of(block).kind() {
        Some(Kind::Superblock) => superblock(block.get()),
        Some(Kind::GroupHeader) => group(block.get()),
        Some(Kind::Bitmap) => {
            let bits = &block.get::<BitmapBlock>().bits;
            let used: u32 = bits.iter().map(|byte| byte.count_ones()).sum();
            vec![("bits_set", u64::from(used).into())]
        }
        Some(Kind::ChunkTable) => {
            let table: &ChunkTableBlock = block.get();
            let entries = (0..).zip(&table.entries).map(|(place, entry)| chunk(place, entry));
            vec![("entries", Value::List(entries.collect()))]
        }
        Some(Kind::Free) | None => Vec::new(),
        Some(Kind::GroupMap) => {
            let bits = &block.get::<GroupMapBlock>().bits;
            let used = (0..bits.len() * 8).filter(|i| bits[i / 8] >> (i % 8) & 1 == 1);
            vec![("groups", Value::List(used.map(|i| (i as u64).into()).collect()))]
        }
        Some(Kind::SlotHead) => slot_head(block.get()),
        Some(Kind::SlotBody) => {
            let body: &SlotBodyBlock = block.get();
            vec![
                ("used_blocks", Value::Signed(body.used_blocks.get())),
                ("used_inodes", Value::Signed(body.used_inodes.get())),
                ("orphans_counted", u64::from(body.orphans_count.get()).into()),
                ("orphans", orphans(&body.orphans)),
                ("further_orphans", body.orphan_blocks_head.get().into()),
            ]
        }
        Some(Kind::Orphans) => {
            let body: &OrphanBlock = block.get();
            vec![
                ("next", body.next.get().into()),
                ("orphans_counted", u64::from(body.count.get()).into()),
                ("orphans", orphans(&body.orphans)),
            ]
        }
        Some(Kind::Inode) => inode(block.get()),
        Some(Kind::ExtentNode) => {
            let node: &ExtentNodeBlock = block.get();
            let count = usize::from(node.count.get());
            let shown = &node.entries[..count.min(NODE_ENTRIES_MAX)];
            vec![
                ("level", u64::from(node.level.get()).into()),
                ("count", (count as u64).into()),
                ("entries", Value::List(shown.iter().map(extent).collect())),
            ]
        }
        Some(Kind::DirIndex) => {
            let index: &IndexBlock = block.get();
            let pointers: Vec<u64> = index.pointers.iter().map(|p| p.get()).collect();
            vec![
                ("level", u64::from(index.level.get()).into()),
                ("pointers", pointers_of(&pointers)),
            ]
        }
        Some(Kind::DirBucket) => {
            let bucket: &BucketBlock = block.get();
            vec![
                ("prefix", format!("{:#x}", bucket.prefix.get()).into()),
                ("depth", u64::from(bucket.depth.get()).into()),
                ("entries", entries(&bucket.area)),
            ]
        }
        Some(Kind::Xattr) => vec![("next", block.get::<XattrBlock>().next.get().into())],
        Some(Kind::JournalHeader) => {
            let journal: &JournalHeaderBlock = block.get();
            vec![
                ("tail_sequence", journal.tail_sequence.get().into()),
                ("tail_position", journal.tail_position.get().into()),
                ("slot", u64::from(journal.slot.get()).into()),
                ("incarnation", u64::from(journal.incarnation.get()).into()),
                ("life", u64::from(journal.life.get()).into()),
            ]
        }
    }
}

fn superblock(sb: &SuperblockBlock) -> Fields {
    let label = sb.label.split(|byte| *byte == 0).next().unwrap_or_default();
    let hex = |bytes: &[u8]| -> Value { hex(bytes).into() };
    vec![
        ("file_system", hex(&sb.header.fs_id)),
        ("cluster", hex(&sb.cluster_id)),
        ("label", String::from_utf8_lossy(label).into_owned().into()),
        ("format_version", u64::from(sb.format_version.get()).into()),
        ("features_compatible", sb.features_compat.get().into()),
        ("features_read_only", sb.features_ro_compat.get().into()),
        ("features_incompatible", sb.features_incompat.get().into()),
        ("created", time(&sb.created)),
        ("device_blocks", sb.device_blocks.get().into()),
        ("group_start", sb.group_start.get().into()),
        ("group_blocks", sb.group_blocks.get().into()),
        ("group_count", sb.group_count.get().into()),
        ("chunk_blocks", u64::from(sb.chunk_blocks.get()).into()),
        ("slot_start", sb.slot_start.get().into()),
        ("slot_count", u64::from(sb.slot_count.get()).into()),
        ("membership_start", sb.membership_start.get().into()),
        ("membership_blocks", sb.membership_blocks.get().into()),
        ("journal_blocks", u64::from(sb.journal_blocks.get()).into()),
        ("root_inode", sb.root_inode.get().into()),
        ("root_generation", u64::from(sb.root_generation.get()).into()),
    ]
}

pub(super) fn group(header: &GroupHeaderBlock) -> Fields {
    vec![
        ("group", header.group.get().into()),
        ("blocks", u64::from(header.blocks.get()).into()),
        ("free_blocks", u64::from(header.free_blocks.get()).into()),
        ("free_chunks", u64::from(header.free_chunks.get()).into()),
        ("isolated", Value::Flag(header.isolated.get() != 0)),
    ]
}

pub(super) fn chunk(number: u64, entry: &ChunkEntry) -> Value {
    let kind = entry
        .chunk_kind()
        .map_or_else(|| format!("unknown ({})", entry.kind), |k| format!("{k:?}"));
    let mut fields: Fields = vec![
        ("chunk", number.into()),
        ("kind", kind.into()),
        ("free", u64::from(entry.free.get()).into()),
        ("epoch", u64::from(entry.epoch.get()).into()),
    ];
    if entry.claim_slot.get() != ChunkEntry::UNCLAIMED {
        let (slot, node) = (entry.claim_slot.get(), entry.claim_node.get());
        let incarnation = entry.claim_incarnation.get();
        fields
            .push(("claim", format!("slot {slot}, node {node}, incarnation {incarnation}").into()));
    }
    Value::Fields(fields)
}

fn slot_head(head: &SlotHeadBlock) -> Fields {
    let state = match head.state {
        0 => "free".to_owned(),
        1 => "live".to_owned(),
        2 => "clean".to_owned(),
        other => format!("unknown ({other})"),
    };
    let count = usize::from(head.journal_extents_count.get()).min(head.journal_extents.len());
    let extents = head.journal_extents[..count].iter().map(|extent| {
        Value::Text(format!("{} blocks from {}", extent.blocks.get(), extent.start.get()))
    });
    vec![
        ("state", state.into()),
        ("node", u64::from(head.node.get()).into()),
        ("incarnation", u64::from(head.incarnation.get()).into()),
        ("journal", Value::List(extents.collect())),
    ]
}

fn orphans(entries: &[OrphanEntry]) -> Value {
    let used = entries.iter().filter(|entry| entry.inode.get() != 0);
    let shown = used.map(|e| format!("{}.{}", e.inode.get(), e.generation.get()).into());
    Value::List(shown.collect())
}

fn time(time: &Time) -> Value {
    format!("{}.{:09}", time.seconds.get(), time.nanos.get()).into()
}

fn inode(inode: &InodeBlock) -> Fields {
    let core = &inode.core;
    let mut flags = Vec::new();
    for (bit, name) in [
        (InodeCore::IMMUTABLE, "immutable"),
        (InodeCore::APPEND_ONLY, "append-only"),
        (InodeCore::NO_ATIME, "no access times"),
        (InodeCore::ISOLATED, "isolated"),
        (InodeCore::DAMAGED, "damaged beyond repair"),
    ] {
        if core.flags.get() & bit != 0 {
            flags.push(Value::Text(name.into()));
        }
    }
    let area = AreaKind::from_u8(core.area)
        .map_or_else(|| format!("unknown ({})", core.area), |area| format!("{area:?}"));
    let mut fields: Fields = vec![
        ("mode", format!("{:o}", core.mode.get()).into()),
        ("uid", u64::from(core.uid.get()).into()),
        ("gid", u64::from(core.gid.get()).into()),
        ("links", u64::from(core.links.get()).into()),
        ("size", core.size.get().into()),
        ("blocks", core.blocks.get().into()),
        ("atime", time(&core.atime)),
        ("mtime", time(&core.mtime)),
        ("ctime", time(&core.ctime)),
        ("btime", time(&core.btime)),
        ("rdev", u64::from(core.rdev.get()).into()),
        ("flags", Value::List(flags)),
        ("generation", u64::from(core.generation.get()).into()),
        ("area", area.into()),
        ("depth", u64::from(core.depth).into()),
        ("root_entries", u64::from(core.root_count.get()).into()),
        ("parent", format!("{}.{}", core.parent.get(), core.parent_generation.get()).into()),
        ("entries", core.entries.get().into()),
        ("xattr_inline", u64::from(core.xattr_inline.get()).into()),
        ("xattr_blocks", u64::from(core.xattr_blocks).into()),
        ("xattr_first", core.xattr_first.get().into()),
        ("xattr_len", u64::from(core.xattr_len.get()).into()),
        ("xattr_kinds", u64::from(core.xattr_kinds).into()),
    ];
    if let Err(what) = crate::inode::check_core(core) {
        fields.push(("wrong_core", what.into()));
    }
    fields
}

pub(super) fn extent(entry: &ExtentEntry) -> Value {
    Value::Fields(vec![
        ("logical", entry.logical.get().into()),
        ("physical", entry.physical.get().into()),
        ("blocks", u64::from(entry.blocks.get()).into()),
        ("unwritten", Value::Flag(entry.flags.get() & ExtentEntry::UNWRITTEN != 0)),
    ])
}

/// Pointers of an index, equal neighbours together.
pub(super) fn pointers_of(pointers: &[u64]) -> Value {
    let mut runs: Vec<(usize, usize, u64)> = Vec::new();
    for (i, pointer) in pointers.iter().enumerate() {
        match runs.last_mut() {
            Some((_, last, same)) if same == pointer => *last = i,
            _ => runs.push((i, i, *pointer)),
        }
    }
    let shown = runs.into_iter().map(|(first, last, pointer)| {
        let kind = if pointer & POINTER_TO_INDEX != 0 { "index" } else { "bucket" };
        Value::Text(format!("{first}-{last}: {kind} {}", pointer & !POINTER_TO_INDEX))
    });
    Value::List(shown.collect())
}

/// Entries one behind the other, as far as they make sense.
pub(super) fn entries(area: &[u8]) -> Value {
    let (records, wrong) = records(area);
    let shown = records.into_iter().map(|(head, name)| {
        Value::Fields(vec![
            ("name", String::from_utf8_lossy(name).into_owned().into()),
            ("inode", head.inode.get().into()),
            ("generation", u64::from(head.generation.get()).into()),
            ("type", u64::from(head.file_type).into()),
            ("cookie", format!("{:#x}", head.cookie.get()).into()),
        ])
    });
    Value::List(shown.chain(wrong.map(Value::Text)).collect())
}

/// Entries one behind the other, with their names, as far as they make sense; and why no further.
pub(super) fn records(area: &[u8]) -> (Vec<(&EntryHead, &[u8])>, Option<String>) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Ok((head, rest)) = EntryHead::ref_from_prefix(&area[at.min(area.len())..]) {
        let len = usize::from(head.record_len.get());
        if len < ENTRY_HEAD_SIZE || at + len > area.len() {
            return (records, Some(format!("a record of impossible length {len} at {at}")));
        }
        if head.inode.get() != 0 {
            records.push((head, &rest[..usize::from(head.name_len).min(rest.len())]));
        }
        at += len;
    }
    (records, None)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
