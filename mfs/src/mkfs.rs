//! Formatting a device.
//!
//! Writes as little as it can: groups are initialised when they are first used, journals are
//! allocated when a slot is. The superblock comes last, so a device is formatted or it is not.

use mx_base::{ClusterId, FsId, SlotId, Timestamp};
use zerocopy::little_endian::{U16, U32, U64};

use crate::alloc::bits;
use crate::alloc::chunk::first_version;
use crate::block::{Block, BlockNo, as_usize};
use crate::env::{Disk, Durability, WriteData};
use crate::error::DiskError;
use crate::file::FileType;
use crate::layout::{GroupNo, Layout, LayoutError};
use crate::ondisk::alloc_group::{
    BITS_PER_BLOCK, BitmapBlock, CHUNKS_PER_BLOCK, ChunkEntry, ChunkKind, ChunkTableBlock,
    GROUPS_PER_MAP, GroupHeaderBlock, GroupMapBlock,
};
use crate::ondisk::header::{self, Header, Kind, Owner, Writer};
use crate::ondisk::inode::{AreaKind, InodeBlock};
use crate::ondisk::superblock::{
    FEATURE_XATTR, FEATURES_COMPAT_KNOWN, FORMAT_VERSION, SUPERBLOCK_AT, SuperblockBlock,
};
use crate::slot::head::SlotHead;

/// Bytes of a label.
pub const LABEL_MAX: usize = 64;
/// Blocks that the device is told of at once: 1 GiB.
const DISCARD_AT_ONCE: u64 = 1 << 18;
/// Blocks and inodes in use on a new file system: the root directory.
pub(crate) const USED_BLOCKS: i64 = 1;
pub(crate) const USED_INODES: i64 = 1;
/// The epoch of the root's chunk, and so the root's generation.
const ROOT_EPOCH: u32 = 1;

/// What a new file system is to be.
#[derive(Clone, Debug)]
pub struct Format {
    pub fs_id: FsId,
    pub cluster_id: ClusterId,
    /// At most [`LABEL_MAX`] bytes.
    pub label: String,
    /// Random: the key of the hash of names.
    pub hash_key: [u8; 16],
    pub now: Timestamp,
    /// Tell the device first that nothing on it is needed, where it has a use for that.
    pub discard: bool,
    /// Contents of the membership partition, from whoever owns that format;
    /// [`crate::layout::MEMBERSHIP_BLOCKS`] at most.
    pub membership: Vec<Box<Block>>,
}

/// Why a device was not formatted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the label has {0} bytes, at most {LABEL_MAX} are possible")]
    Label(usize),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Formats the whole device. `progress` is told what is done of what, in steps.
///
/// # Errors
/// [`FormatError`]; the device is not a file system then, neither the new nor the old one.
pub async fn format(
    disk: &dyn Disk,
    format: &Format,
    mut progress: impl FnMut(u64, u64),
) -> Result<Layout, FormatError> {
    let layout = Layout::for_device(disk.blocks())?;
    if format.label.len() > LABEL_MAX {
        return Err(FormatError::Label(format.label.len()));
    }
    let leaders = layout.group_count.div_ceil(GROUPS_PER_MAP);
    let discards = if format.discard { disk.blocks().div_ceil(DISCARD_AT_ONCE) } else { 0 };
    let steps = discards + leaders + 4;
    let put = async |at: BlockNo, blocks: Box<[Block]>| {
        disk.write(at, WriteData::Run(blocks.into()), Durability::Volatile).await
    };

    // What was there before is gone from the first write on: superblocks, and signatures of others.
    put(BlockNo(0), Block::zeroed_many(as_usize(layout.membership_start))).await?;
    disk.flush().await?;
    for i in 0..discards {
        let at = (i * DISCARD_AT_ONCE).max(layout.membership_start);
        let end = ((i + 1) * DISCARD_AT_ONCE).min(disk.blocks());
        // Only the room is lost when it fails.
        if at < end && !matches!(disk.discard(BlockNo(at), end - at).await, Ok(true)) {
            break;
        }
        progress(i, steps);
    }
    progress(discards + 1, steps);

    if !format.membership.is_empty() {
        let membership = format.membership.iter().map(|b| Block::clone(b)).collect();
        put(BlockNo(layout.membership_start), membership).await?;
    }
    let slots = || (0..layout.slot_count).map(SlotId);
    let heads = slots().flat_map(|slot| SlotHead::unused(format.fs_id, &layout, slot));
    put(BlockNo(layout.slot_start), heads.map(|(_, block)| *block).collect()).await?;
    let bodies = slots().map(|slot| slot_body(format.fs_id, &layout, slot)).collect();
    put(layout.slot_body(SlotId(0)), bodies).await?;
    progress(discards + 2, steps);

    for leader in 0..leaders {
        let no = GroupNo(leader * GROUPS_PER_MAP);
        for (first, blocks) in leader_blocks(format.fs_id, &layout, no) {
            put(first, blocks).await?;
        }
        progress(discards + 3 + leader, steps);
    }
    let root = root_place(&layout);
    put(root.chunk_first, root_chunk(format, &layout, &root)).await?;
    disk.flush().await?;
    progress(steps - 1, steps);

    let copies: Vec<BlockNo> = layout.superblock_copies().collect();
    for at in copies.into_iter().rev() {
        let block = superblock(format, &layout, at, root.inode);
        let durability = if at.0 == SUPERBLOCK_AT {
            disk.flush().await?;
            Durability::Durable
        } else {
            Durability::Volatile
        };
        disk.write(at, WriteData::Blocks(vec![block.into()]), durability).await?;
    }
    progress(steps, steps);
    Ok(layout)
}

#[expect(clippy::cast_possible_truncation, reason = "a block has 4096 bytes")]
fn superblock(format: &Format, layout: &Layout, at: BlockNo, root: BlockNo) -> Box<Block> {
    let mut block = Block::zeroed();
    let sb: &mut SuperblockBlock = block.get_mut();
    sb.header = Header::new(format.fs_id, Kind::Superblock, at, Owner::plain(0), 1);
    sb.format_version = U32::new(FORMAT_VERSION);
    sb.block_size = U32::new(crate::block::BLOCK_SIZE as u32);
    sb.features_compat = U64::new(FEATURES_COMPAT_KNOWN);
    sb.features_incompat = U64::new(FEATURE_XATTR);
    sb.label[..format.label.len()].copy_from_slice(format.label.as_bytes());
    sb.created = format.now.into();
    sb.device_blocks = U64::new(layout.device_blocks);
    sb.group_blocks = U64::new(layout.group_blocks);
    sb.group_count = U64::new(layout.group_count);
    sb.group_start = U64::new(layout.group_start);
    sb.chunk_blocks = U32::new(layout.chunk_blocks);
    sb.slot_count = U16::new(layout.slot_count);
    sb.node_count_max = U16::new(mx_base::NodeId::MAX);
    sb.slot_start = U64::new(layout.slot_start);
    sb.membership_start = U64::new(layout.membership_start);
    sb.membership_blocks = U64::new(crate::layout::MEMBERSHIP_BLOCKS);
    sb.root_inode = U64::new(root.0);
    sb.root_generation = U32::new(ROOT_EPOCH);
    sb.journal_blocks = U32::new(layout.journal_blocks);
    sb.hash_key = format.hash_key;
    sb.cluster_id = format.cluster_id.0;
    header::seal(&mut block, Writer::MKFS);
    block
}

fn slot_body(fs_id: FsId, layout: &Layout, slot: SlotId) -> Block {
    let mut block = Block::zeroed();
    let at = layout.slot_body(slot);
    let owner = Owner::plain(slot.0.into());
    *Header::of_mut(&mut block) = Header::new(fs_id, Kind::SlotBody, at, owner, 1);
    header::seal(&mut block, Writer::MKFS);
    *block
}

/// Where the root directory goes: the first chunk of group 0 that the group itself leaves free.
struct RootPlace {
    chunk: u64,
    chunk_first: BlockNo,
    inode: BlockNo,
}

fn root_place(layout: &Layout) -> RootPlace {
    let group = GroupNo(0);
    let chunk_blocks = u64::from(layout.chunk_blocks);
    let chunk = layout.fixed_blocks(group).div_ceil(chunk_blocks);
    let chunk_first = layout.group_first(group).plus(chunk * chunk_blocks);
    RootPlace { chunk, chunk_first, inode: chunk_first }
}

/// The chunk of the root directory: its inode, then free blocks.
fn root_chunk(format: &Format, layout: &Layout, root: &RootPlace) -> Box<[Block]> {
    let mut blocks = Block::zeroed_many(layout.chunk_blocks as usize);
    for (i, block) in blocks.iter_mut().enumerate() {
        let at = root.chunk_first.plus(i as u64);
        let owner = Owner { id: 0, generation: ROOT_EPOCH };
        *Header::of_mut(block) =
            Header::new(format.fs_id, Kind::Free, at, owner, first_version(ROOT_EPOCH));
    }
    let inode: &mut InodeBlock = blocks[0].get_mut();
    let owner = Owner { id: root.inode.0, generation: ROOT_EPOCH };
    let version = first_version(ROOT_EPOCH) + 1;
    inode.header = Header::new(format.fs_id, Kind::Inode, root.inode, owner, version);
    let core = &mut inode.core;
    core.mode = U32::new(FileType::Directory.mode_bits() | 0o755);
    core.links = U32::new(2);
    let now = format.now.into();
    (core.atime, core.mtime, core.ctime, core.btime) = (now, now, now, now);
    core.generation = U32::new(ROOT_EPOCH);
    core.area = AreaKind::Entries as u8;
    core.parent = U64::new(root.inode.0);
    core.parent_generation = U32::new(ROOT_EPOCH);
    crate::dir::area::clear(&mut inode.area);
    for block in &mut blocks {
        header::seal(block, Writer::MKFS);
    }
    blocks
}

/// A group's own blocks as they are before anything is allocated in it, in runs.
pub(crate) fn group_blocks(
    fs_id: FsId,
    layout: &Layout,
    no: GroupNo,
    writer: Writer,
) -> Vec<(BlockNo, Box<[Block]>)> {
    let mut image = GroupImage::new(fs_id, layout, no);
    image.use_blocks(0, layout.fixed_blocks(no));
    vec![image.seal(writer)]
}

/// As [`group_blocks`] for a leader: with its map; group 0 also with the root's chunk.
fn leader_blocks(fs_id: FsId, layout: &Layout, no: GroupNo) -> Vec<(BlockNo, Box<[Block]>)> {
    let mut image = GroupImage::new(fs_id, layout, no);
    image.use_blocks(0, layout.fixed_blocks(no));
    if no == GroupNo(0) {
        let root = root_place(layout);
        image.use_blocks(root.chunk * u64::from(layout.chunk_blocks), 1);
        image.set_kind(root.chunk, ChunkKind::Inode, ROOT_EPOCH);
    }
    let at = layout.group_map(no);
    let mut map = Block::zeroed();
    let body: &mut GroupMapBlock = map.get_mut();
    body.header = Header::new(fs_id, Kind::GroupMap, at, Owner::plain(no.0), 1);
    bits::set(&mut body.bits, 0, 1);
    header::seal(&mut map, Writer::MKFS);
    vec![image.seal(Writer::MKFS), (at, Box::new([*map]))]
}

/// Header, bitmap and table of a group, being put together.
struct GroupImage<'a> {
    layout: &'a Layout,
    no: GroupNo,
    /// Header, then bitmap, then table, as they follow each other on disk.
    blocks: Box<[Block]>,
}

impl GroupImage<'_> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a group has at most 2^22 blocks, a chunk 256"
    )]
    fn new(fs_id: FsId, layout: &Layout, no: GroupNo) -> GroupImage<'_> {
        let bitmaps = as_usize(layout.bitmap_blocks(no));
        let tables = as_usize(layout.chunk_table_blocks(no));
        let mut blocks = Block::zeroed_many(1 + bitmaps + tables);
        let kinds = std::iter::once(Kind::GroupHeader)
            .chain(std::iter::repeat_n(Kind::Bitmap, bitmaps))
            .chain(std::iter::repeat_n(Kind::ChunkTable, tables));
        for ((i, block), kind) in blocks.iter_mut().enumerate().zip(kinds) {
            let at = layout.group_header(no).plus(i as u64);
            *Header::of_mut(block) = Header::new(fs_id, kind, at, Owner::plain(no.0), 1);
        }
        let header: &mut GroupHeaderBlock = blocks[0].get_mut();
        header.group = U64::new(no.0);
        header.blocks = U32::new(layout.group_len(no) as u32);
        header.free_blocks = header.blocks;
        header.free_chunks = U32::new(layout.chunk_count(no) as u32);
        let mut image = GroupImage { layout, no, blocks };
        for chunk in 0..layout.chunk_count(no) {
            let free = layout.chunk_blocks as u16;
            let entry = image.entry(chunk);
            entry.free = U16::new(free);
            entry.set_claimant(None);
        }
        image
    }

    fn header(&mut self) -> &mut GroupHeaderBlock {
        self.blocks[0].get_mut()
    }

    fn entry(&mut self, chunk: u64) -> &mut ChunkEntry {
        let tables_at = 1 + as_usize(self.layout.bitmap_blocks(self.no));
        let (block, at) = (as_usize(chunk) / CHUNKS_PER_BLOCK, as_usize(chunk) % CHUNKS_PER_BLOCK);
        &mut self.blocks[tables_at + block].get_mut::<ChunkTableBlock>().entries[at]
    }

    /// Marks blocks used; chunks they lie in become data chunks, or fixed ones if they are full.
    fn use_blocks(&mut self, first: u64, count: u64) {
        let chunk_blocks = u64::from(self.layout.chunk_blocks);
        for index in first..first + count {
            let (block, bit) = (index / BITS_PER_BLOCK, index % BITS_PER_BLOCK);
            let bitmap: &mut BitmapBlock = self.blocks[1 + as_usize(block)].get_mut();
            bits::set(&mut bitmap.bits, as_usize(bit), 1);
            let entry = self.entry(index / chunk_blocks);
            let was_free = entry.kind == ChunkKind::Free as u8;
            entry.free.set(entry.free.get() - 1);
            let kind = if entry.free.get() == 0 { ChunkKind::Fixed } else { ChunkKind::Data };
            entry.kind = kind as u8;
            let header = self.header();
            header.free_blocks.set(header.free_blocks.get() - 1);
            if was_free {
                header.free_chunks.set(header.free_chunks.get() - 1);
            }
        }
    }

    fn set_kind(&mut self, chunk: u64, kind: ChunkKind, epoch: u32) {
        let entry = self.entry(chunk);
        entry.kind = kind as u8;
        entry.epoch = U32::new(epoch);
    }

    fn seal(mut self, writer: Writer) -> (BlockNo, Box<[Block]>) {
        for block in &mut self.blocks {
            header::seal(block, writer);
        }
        (self.layout.group_header(self.no), self.blocks)
    }
}
