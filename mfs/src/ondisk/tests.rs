//! The layout on disk, byte by byte: these numbers are `docs/spec/ondisk.md`.

use std::mem::offset_of;

use mx_base::{FsId, Incarnation, SlotId};

use super::alloc_group::{ChunkEntry, GroupHeaderBlock};
use super::directory::{BucketBlock, EntryHead, IndexBlock};
use super::extent::{ExtentEntry, ExtentNodeBlock};
use super::header::{self, Header, Kind, Owner, Writer};
use super::inode::{InodeBlock, InodeCore};
use super::journal::{JournalHeaderBlock, RecordHead, SegmentHead, TransactionHead};
use super::slot::{OrphanBlock, SlotBodyBlock, SlotHeadBlock};
use super::superblock::SuperblockBlock;
use super::xattr::{XattrBlock, XattrHead};
use crate::block::{Block, BlockNo};
use crate::error::CorruptionKind;

macro_rules! offsets {
    ($type:ty: $($field:ident = $at:literal),+ $(,)?) => {
        $(assert_eq!(offset_of!($type, $field), $at, concat!(stringify!($type), ".", stringify!($field)));)+
    };
}

#[test]
fn every_field_is_where_the_specification_says() {
    offsets!(Header: magic = 0, kind = 4, slot = 6, fs_id = 8, block = 24, owner = 32,
        owner_generation = 40, incarnation = 44, version = 48, bucket = 56, crc = 60);
    offsets!(SuperblockBlock: format_version = 64, block_size = 68, features_compat = 72,
        features_ro_compat = 80, features_incompat = 88, label = 96, created = 160,
        device_blocks = 176, group_blocks = 184, group_count = 192, group_start = 200,
        chunk_blocks = 208, slot_count = 212, node_count_max = 214, slot_start = 216,
        membership_start = 224, membership_blocks = 232, root_inode = 240, root_generation = 248,
        journal_blocks = 252, hash_key = 256, cluster_id = 272);
    offsets!(GroupHeaderBlock: group = 64, blocks = 72, free_blocks = 76, free_chunks = 80,
        isolated = 84);
    offsets!(ChunkEntry: kind = 0, free = 2, epoch = 4, claim_slot = 8, claim_node = 10,
        claim_incarnation = 12);
    offsets!(SlotHeadBlock: state = 64, node = 66, incarnation = 68, journal_extents_count = 72,
        journal_extents = 128);
    offsets!(SlotBodyBlock: used_blocks = 64, used_inodes = 72, orphans_count = 80,
        orphan_blocks_head = 88, orphans = 96);
    offsets!(OrphanBlock: next = 64, count = 72, orphans = 96);
    offsets!(InodeCore: mode = 0, uid = 4, gid = 8, links = 12, size = 16, blocks = 24, atime = 32,
        mtime = 44, ctime = 56, btime = 68, rdev = 80, flags = 84, generation = 88, area = 92,
        depth = 93, root_count = 94, parent = 96, parent_generation = 104, xattr_inline = 108,
        xattr_blocks = 110, xattr_kinds = 111, entries = 112, xattr_first = 120, xattr_len = 128);
    offsets!(InodeBlock: core = 64, area = 256);
    offsets!(ExtentEntry: logical = 0, physical = 8, blocks = 16, flags = 20);
    offsets!(ExtentNodeBlock: level = 64, count = 66, entries = 72);
    offsets!(EntryHead: cookie = 0, inode = 8, generation = 16, record_len = 20, name_len = 22,
        file_type = 23);
    offsets!(IndexBlock: level = 64, pointers = 72);
    offsets!(BucketBlock: prefix = 64, depth = 72, area = 80);
    offsets!(XattrHead: namespace = 0, name_len = 1, value_len = 4);
    offsets!(XattrBlock: next = 64, payload = 72);
    offsets!(JournalHeaderBlock: tail_sequence = 64, tail_position = 72, incarnation = 80,
        slot = 84, life = 88);
    offsets!(SegmentHead: magic = 0, crc = 4, fs_id = 8, sequence = 24, position = 32,
        incarnation = 40, slot = 44, blocks = 48, payload_len = 52, transactions = 56, life = 60);
    offsets!(TransactionHead: lsn = 0, records = 8, len = 12);
    offsets!(RecordHead: block = 0, old_version = 8, new_version = 16, lock = 24, lock_len = 48,
        kind = 49, runs = 50, len = 52);
}

fn sealed() -> Box<Block> {
    let mut block = Block::zeroed();
    let owner = Owner { id: 0x1122_3344, generation: 7 };
    *Header::of_mut(&mut block) =
        Header::new(FsId([0xab; 16]), Kind::Inode, BlockNo(0x55), owner, 3 << 32);
    header::seal(&mut block, Writer { slot: SlotId(2), incarnation: Incarnation(9) });
    block
}

#[test]
fn a_sealed_header_has_these_bytes() {
    let block = sealed();
    let hex: String = block.0[..64].iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "4d584642",
            "09000200",
            "abababababababababababababababab",
            "5500000000000000",
            "4433221100000000",
            "07000000",
            "09000000",
            "0000000003000000",
            "00000000",
            "1e646f73",
        )
    );
}

#[test]
fn a_changed_bit_a_wrong_place_and_a_foreign_file_system_are_told_apart() {
    let (fs, at) = (FsId([0xab; 16]), BlockNo(0x55));
    let block = sealed();
    assert!(header::check(&block, fs, at).is_ok());
    let kind_of =
        |block: &Block, fs, at| header::check(block, fs, at).map(|_| ()).map_err(|c| c.kind);
    let mut bad = block.clone();
    bad.0[4000] ^= 1;
    assert_eq!(kind_of(&bad, fs, at), Err(CorruptionKind::Checksum));
    assert_eq!(kind_of(&block, fs, BlockNo(0x56)), Err(CorruptionKind::Address));
    assert_eq!(kind_of(&block, FsId([1; 16]), at), Err(CorruptionKind::FileSystem));
    assert_eq!(kind_of(&Block::zeroed(), fs, at), Err(CorruptionKind::Magic));
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(header::crc32c(b"123456789"), 0xe306_9283);
    let mut bytes = *b"12345678901234";
    bytes[4..8].fill(0);
    assert_eq!(header::crc32c_with_hole(b"12345678901234", 4), header::crc32c(&bytes));
}
