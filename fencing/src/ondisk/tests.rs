//! The records on disk: golden bytes, what is not believed, and that no bytes make a decoder panic.

use std::collections::BTreeMap;

use super::heartbeat::{HeartbeatFlags, HeartbeatRecord};
use super::register::RegisterRecord;
use super::superblock::Superblock;
use super::*;
use crate::ballot::Ballot;
use crate::layout::{self, ConfigImage, CopyNo, PARTITION_BLOCKS};
use crate::node_set::NodeSet;
use crate::random::Random;
use crate::reg_val::{Author, ConfigPointer, Incarnations, Phase, RegVal};
use mx_base::{Duration, Incarnation, Member, NodeId, SanGeneration, ViewId};

const CLUSTER: ClusterId = ClusterId([0xC1; 16]);
const MP: MpIndex = MpIndex(2);

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn superblock() -> Superblock {
    Superblock {
        cluster: CLUSTER,
        partition_id: [0xD2; 16],
        index: MP,
        count: 3,
        set_epoch: 0x0102_0304_0506_0708,
        nodes_max: 64,
        unit: Duration::from_millis(100),
        sequence: 5,
    }
}

fn register() -> RegisterRecord {
    let mut incarnations = [0; 64];
    incarnations[2] = 0x0A0B_0C0D;
    incarnations[63] = 9;
    RegisterRecord {
        node: node(3),
        incarnation: Incarnation(0x0A0B_0C0D),
        sequence: 0x11,
        promised: Ballot::new(8, 0x2222_3333_4444_5555, node(3)),
        accepted: Ballot::new(7, 0x6666_7777_8888_9999, node(64)),
        value: RegVal {
            generation: SanGeneration(0x31),
            view: ViewId(0x21),
            phase: Phase::Fencing,
            administrator: Some(Member { node: node(3), incarnation: Incarnation(0x0A0B_0C0D) }),
            members: NodeSet::of(node(3)),
            victims: NodeSet::of(node(64)),
            incarnations: Incarnations::from_array(incarnations),
            config: Some(ConfigPointer { image: ConfigImage::B, len: 0x1234, blake3: [0xB3; 32] }),
            author: Some(Author { node: node(64), nonce: 0x0123_4567_89AB_CDEF, serial: 6 }),
        },
    }
}

fn heartbeat() -> HeartbeatRecord {
    HeartbeatRecord {
        node: node(3),
        incarnation: Incarnation(0x0A0B_0C0D),
        nonce: 0x0123_4567_89AB_CDEF,
        sequence: 0x11,
        generation_seen: SanGeneration(0x31),
        view: ViewId(0x21),
        reach: NodeSet::of(node(1)).with(node(3)),
        devices_usable: 0x5,
        flags: HeartbeatFlags { leaving: true, quiesced: false, wants_fence: true },
    }
}

fn register_place(copy: CopyNo) -> Place {
    super::register::place(CLUSTER, MP, node(3), copy)
}

fn heartbeat_place() -> Place {
    super::heartbeat::place(CLUSTER, MP, node(3))
}

/// Runs of bytes that are not zero: offset and hex.
fn hex_runs(block: &Block) -> Vec<(usize, String)> {
    let mut runs: Vec<(usize, String)> = Vec::new();
    let mut gap = 8;
    for (at, byte) in block.0.iter().enumerate() {
        if *byte == 0 {
            gap += 1;
            if gap >= 8 {
                continue;
            }
        } else if gap >= 8 {
            runs.push((at, String::new()));
            gap = 0;
        } else {
            gap = 0;
        }
        if let Some((_, run)) = runs.last_mut() {
            run.push_str(&format!("{byte:02x}"));
        }
    }
    for (_, run) in &mut runs {
        while run.ends_with("00") {
            run.truncate(run.len() - 2);
        }
    }
    runs
}

#[track_caller]
fn assert_golden(block: &Block, golden: &[(usize, &str)]) {
    let found = hex_runs(block);
    let found: Vec<(usize, &str)> = found.iter().map(|(at, run)| (*at, run.as_str())).collect();
    assert_eq!(found, golden);
}

#[test]
fn superblock_golden_bytes() {
    let head = concat!(
        "4d584d5053555052", // magic
        "01000200",         // version, partition
        "01000000",         // block
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
        "0500000000000000", // sequence
        "d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2",
        "0807060504030201", // set epoch
        "03004000",         // partitions, nodes
        "64",               // unit in ms
    );
    assert_golden(&superblock().encode(CopyNo::Second), &[(0, head), (508, "bc2b2527")]);
}

#[test]
fn register_golden_bytes() {
    let head = concat!(
        "4d584d5052454731", // magic
        "01000200",         // version, partition
        "06000000",         // block
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
        "1100000000000000",                                 // sequence
        "03000000",                                         // node
        "0d0c0b0a",                                         // incarnation
        "080000000000000055554444333322220300000000000000", // promised
        "070000000000000099998888777766664000000000000000", // accepted
        "3100000000000000",                                 // generation
        "2100000000000000",                                 // view
        "04",                                               // members
    );
    let tail = concat!(
        "80",               // victims, last byte
        "01020300",         // phase, image, administrator
        "0d0c0b0a",         // its incarnation
        "34120000",         // config length
        "40000000",         // author
        "efcdab8967452301", // its nonce
        "0600000000000000", // serial
        "b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3b3",
    );
    let incarnations = [(200, "0d0c0b0a"), (444, "09")];
    let golden = [(0, head), (127, tail), incarnations[0], incarnations[1], (508, "e66579b8")];
    assert_golden(&register().encode(register_place(CopyNo::First)), &golden);
}

#[test]
fn heartbeat_golden_bytes() {
    let head = concat!(
        "4d584d5042454154", // magic
        "01000200",         // version, partition
        "84000000",         // block
        "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
        "1100000000000000", // sequence
        "03000000",         // node
        "0d0c0b0a",         // incarnation
        "efcdab8967452301", // nonce
        "3100000000000000", // generation seen
        "2100000000000000", // view
        "0500000000000000", // reach
        "0500000000000000", // devices usable
        "05",               // flags
    );
    assert_golden(&heartbeat().encode(heartbeat_place()), &[(0, head), (508, "0867a387")]);
}

#[test]
fn records_read_back_as_they_were_written() {
    for copy in CopyNo::BOTH {
        assert_eq!(Superblock::decode(&superblock().encode(copy), copy), Ok(superblock()));
        let place = register_place(copy);
        let block = register().encode(place);
        assert_eq!(RegisterRecord::decode(&block, node(3), place), Ok(register()));
    }
    let place = heartbeat_place();
    let block = heartbeat().encode(place);
    assert_eq!(HeartbeatRecord::decode(&block, node(3), place), Ok(heartbeat()));
}

#[test]
fn a_record_in_another_place_is_not_believed() {
    let place = register_place(CopyNo::First);
    let block = register().encode(place);
    let at = |place, id| RegisterRecord::decode(&block, node(id), place).expect_err("misplaced");
    let other_copy = register_place(CopyNo::Second);
    assert!(matches!(at(other_copy, 3), DecodeError::Place { .. }));
    let other_partition = Place { partition: MpIndex(0), ..place };
    assert!(matches!(at(other_partition, 3), DecodeError::Place { .. }));
    let other_cluster = Place { cluster: ClusterId([1; 16]), ..place };
    assert_eq!(at(other_cluster, 3), DecodeError::Cluster { found: CLUSTER });
    assert!(matches!(at(place, 4), DecodeError::Contents(_)));
    assert!(matches!(
        HeartbeatRecord::decode(&block, node(3), heartbeat_place()),
        Err(DecodeError::Magic { .. })
    ));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let place = register_place(CopyNo::First);
    let good = register().encode(place);
    for at in 0..RECORD_SIZE {
        for bit in 0..8 {
            let mut block = good.clone();
            block.0[at] ^= 1 << bit;
            assert!(RegisterRecord::decode(&block, node(3), place).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn what_lies_behind_the_record_does_not_matter() {
    let place = register_place(CopyNo::First);
    let mut block = register().encode(place);
    block.0[RECORD_SIZE..].fill(0xEE);
    assert_eq!(RegisterRecord::decode(&block, node(3), place), Ok(register()));
}

/// S2-028, with an even number two halves could each do without the other.
#[test]
fn an_odd_number_of_partitions_is_believed_and_no_other() {
    let whole = Superblock { index: MpIndex(0), count: 1, ..superblock() }.encode(CopyNo::First);
    for count in 0..=5 {
        let mut block = whole.clone();
        block.0[64] = count;
        let sum = checksum(&block.0[..RECORD_SIZE]);
        block.0[CHECKSUM_AT..RECORD_SIZE].copy_from_slice(&sum.to_le_bytes());
        let read = Superblock::decode(&block, CopyNo::First);
        assert_eq!(read.is_ok(), count == 1 || count == 3, "{count}: {read:?}");
    }
}

#[test]
fn the_newer_readable_superblock_counts() {
    let old = superblock();
    let new = Superblock { sequence: 6, nodes_max: 8, ..old };
    let (first, second) = (new.encode(CopyNo::First), old.encode(CopyNo::Second));
    assert_eq!(Superblock::newest(&first, &second), Ok(new));
    let mut torn = first.clone();
    torn.0[40] ^= 1;
    assert_eq!(Superblock::newest(&torn, &second), Ok(old));
    let errors = Superblock::newest(&torn, &Block::zeroed()).expect_err("neither is readable");
    assert!(matches!(errors, [DecodeError::Checksum { .. }, DecodeError::Magic { .. }]));
}

/// A record with a right checksum and random contents: an old or malicious writer.
fn resealed(block: &Block) -> Box<Block> {
    let mut block = Box::new(block.clone());
    let crc = checksum(&block.0[..RECORD_SIZE]);
    block.0[CHECKSUM_AT..RECORD_SIZE].copy_from_slice(U32::new(crc).as_bytes());
    block
}

#[test]
fn no_bytes_make_a_decoder_panic_and_what_it_takes_it_can_write_again() {
    let mut random = Random::new(1);
    let place = register_place(CopyNo::First);
    let goods = [
        register().encode(place),
        heartbeat().encode(heartbeat_place()),
        superblock().encode(CopyNo::First),
    ];
    let mut taken = 0;
    for round in 0..30_000 {
        let mut block = goods[round % 3].clone();
        for _ in 0..=random.below(3) {
            let at = 32 + random.index(RECORD_SIZE - 36);
            block.0[at] = match random.below(3) {
                0 => 0,
                1 => 0xFF,
                _ => u8::try_from(random.below(256)).expect("a byte"),
            };
        }
        let block = resealed(&block);
        if let Ok(record) = RegisterRecord::decode(&block, node(3), place) {
            taken += 1;
            let again = record.encode(place);
            assert_eq!(RegisterRecord::decode(&again, node(3), place), Ok(record));
        }
        if let Ok(superblock) = Superblock::decode(&block, CopyNo::First) {
            taken += 1;
            let again = superblock.encode(CopyNo::First);
            assert_eq!(Superblock::decode(&again, CopyNo::First), Ok(superblock));
        }
        if let Ok(record) = HeartbeatRecord::decode(&block, node(3), heartbeat_place()) {
            taken += 1;
            let again = record.encode(heartbeat_place());
            assert_eq!(HeartbeatRecord::decode(&again, node(3), heartbeat_place()), Ok(record));
        }
    }
    assert!(taken > 1000, "{taken}");
}

#[test]
fn a_formatted_partition_has_every_block_once_and_the_superblocks_last() {
    let blocks: Vec<(MpBlock, Box<Block>)> = format::format(superblock()).collect();
    let last: Vec<MpBlock> = blocks[blocks.len() - 2..].iter().map(|(at, _)| *at).collect();
    assert_eq!(last, [MpBlock(0), MpBlock(1)]);
    let blocks: BTreeMap<MpBlock, Box<Block>> = blocks.into_iter().collect();
    assert_eq!(blocks.len(), PARTITION_BLOCKS as usize);
    assert_eq!(Superblock::newest(&blocks[&MpBlock(0)], &blocks[&MpBlock(1)]), Ok(superblock()));
    for id in 1..=64 {
        for copy in CopyNo::BOTH {
            let place = super::register::place(CLUSTER, MP, node(id), copy);
            let record = RegisterRecord::decode(&blocks[&place.block], node(id), place);
            assert_eq!(record, Ok(RegisterRecord::unused(node(id))));
        }
        let place = super::heartbeat::place(CLUSTER, MP, node(id));
        let record = HeartbeatRecord::decode(&blocks[&place.block], node(id), place);
        assert_eq!(record, Ok(HeartbeatRecord::unused(node(id))));
    }
    assert!(blocks[&layout::config_image(ConfigImage::A)].0.iter().all(|byte| *byte == 0));
}
