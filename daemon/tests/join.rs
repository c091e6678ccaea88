//! What a start gets before it joins, from an arbiter and from the device itself.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::StartNonce;
use fencing::{Answer, Block, Closed, DeviceId, FenceRequest, MpBlock, Victim, layout};
use mfs::block::{Block as FsBlock, BlockNo, SharedRun};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mx_base::{Incarnation, Member, NodeId};
use mxd::join::{PrepareError, Prepared, prepare_local, prepare_shared};
use support::{Arbiter, Scratch};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

async fn prepare(socket: &Path, id: u16, start: u64) -> Result<Prepared, PrepareError> {
    let nonce = StartNonce::new(start).expect("not zero");
    prepare_shared(socket, node(id), nonce, PATIENCE).await
}

fn run(byte: u8, blocks: usize) -> SharedRun {
    vec![FsBlock([byte; 4096]); blocks].into_boxed_slice().into()
}

/// A block in the middle of the device, which nothing uses.
const SOMEWHERE: BlockNo = BlockNo(9000);

#[tokio::test]
async fn every_start_gets_a_life_of_its_own_and_ends_the_former_ones() {
    let scratch = Scratch::new("lives");
    let device = scratch.device();
    let _arbiter = Arbiter::start(&scratch, &device);
    let socket = scratch.path("socket");
    let first = prepare(&socket, 3, 1).await.expect("let in");
    assert_eq!(first.me, Member { node: node(3), incarnation: Incarnation(1) });
    let write = |prepared: &Prepared| {
        let data = WriteData::Run(run(1, 1));
        prepared.disk.write(SOMEWHERE, data, Durability::Durable)
    };
    write(&first).await.expect("it may write");
    let second = prepare(&socket, 3, 2).await.expect("let in");
    assert_eq!(second.me.incarnation, Incarnation(2));
    assert!(matches!(write(&first).await, Err(DiskError::Fenced)));
    assert!(first.gate.closed().is_some());
    write(&second).await.expect("it may write");
    let other = prepare(&socket, 4, 3).await.expect("let in");
    assert_eq!(other.me.incarnation, Incarnation(1), "each node counts for itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_of_one_node_at_the_same_time_get_different_lives() {
    let scratch = Scratch::new("race");
    let device = scratch.device();
    let _arbiter = Arbiter::start(&scratch, &device);
    let socket = Arc::new(scratch.path("socket"));
    let starts = (1..=4).map(|start| {
        let socket = Arc::clone(&socket);
        tokio::spawn(async move { prepare(&socket, 1, start).await })
    });
    let mut lives = Vec::new();
    for start in futures_util::future::join_all(starts).await {
        match start.expect("no panic") {
            Ok(prepared) => lives.push(prepared.me.incarnation),
            Err(PrepareError::Replaced { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let count = lives.len();
    lives.sort_unstable();
    lives.dedup();
    assert!(count > 0 && lives.len() == count, "{lives:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_an_arbiter_that_is_not_there_yet() {
    let scratch = Scratch::new("early");
    let device = scratch.device();
    let socket = scratch.path("socket");
    let early = tokio::spawn(async move { prepare(&socket, 1, 1).await });
    let arbiter = Arbiter::start(&scratch, &device);
    early.await.expect("no panic").expect("let in");
    assert_eq!(arbiter.stop(), Some(0));
    let socket = scratch.path("socket");
    let nonce = StartNonce::new(2).expect("not zero");
    let nobody = prepare_shared(&socket, node(1), nonce, Duration::ZERO).await;
    assert!(matches!(nobody, Err(PrepareError::Connect { .. })), "{nobody:?}");
}

#[tokio::test]
async fn who_was_fenced_is_known_after_the_arbiter_was_started_again() {
    let scratch = Scratch::new("again");
    let device = scratch.device();
    let socket = scratch.path("socket");
    let arbiter = Arbiter::start(&scratch, &device);
    let admin = prepare(&socket, 1, 1).await.expect("let in");
    let victim = Victim { node: node(2), up_to: Incarnation(7) };
    let device_id = admin.identity.device_id();
    let request = FenceRequest { victim, device: device_id };
    assert_eq!(admin.agent.fence(request).await, Answer::Verified);
    assert_eq!(arbiter.stop(), Some(0));
    let _arbiter = Arbiter::start(&scratch, &device);
    let back = prepare(&socket, 2, 2).await.expect("let in");
    assert_eq!(back.me.incarnation, Incarnation(8), "above what is fenced");
}

async fn try_disk(disk: &dyn Disk) {
    // More than two requests to the arbiter, the last one short.
    const BLOCKS: usize = 600;
    let mut blocks = vec![FsBlock([0; 4096]); BLOCKS];
    for (number, block) in blocks.iter_mut().enumerate() {
        block.0[..8].copy_from_slice(&(number as u64).to_le_bytes());
    }
    let data = WriteData::Run(blocks.into_boxed_slice().into());
    disk.write(SOMEWHERE, data, Durability::Volatile).await.expect("written");
    let singles = (0..300).map(|_| (*FsBlock::zeroed()).clone()).map(Box::new).map(Into::into);
    let data = WriteData::Blocks(singles.collect());
    disk.write(SOMEWHERE.plus(BLOCKS as u64), data, Durability::Durable).await.expect("written");
    disk.flush().await.expect("flushed");
    let read = disk.read(SOMEWHERE, BLOCKS).await.expect("read");
    assert_eq!(read.len(), BLOCKS);
    for (number, block) in read.iter().enumerate() {
        assert_eq!(block.0[..8], (number as u64).to_le_bytes());
    }
    let beyond = disk.read(BlockNo(disk.blocks()), 1).await;
    assert!(matches!(beyond, Err(DiskError::Failed { .. })), "{beyond:?}");
}

async fn try_partition(prepared: &Prepared) {
    let block = layout::heartbeat(node(1));
    let data = Box::new(Block([7; 4096]));
    prepared.partition.write(block, data).await.expect("written");
    let read = prepared.partition.read(block, 1).await.expect("read");
    assert_eq!(read[0].0, [7; 4096]);
    let start = prepared.identity.fs.layout.membership_start;
    let same = prepared.disk.read(BlockNo(start + u64::from(block.0)), 1).await.expect("read");
    assert_eq!(same[0].0, [7; 4096], "they are blocks of the device");
    let beyond = prepared.partition.read(MpBlock(u32::MAX), 1).await;
    assert!(beyond.is_err());
    prepared.partition.cut_off(Closed::Expelled);
    assert_eq!(prepared.gate.closed(), Some(Closed::Expelled));
    assert!(prepared.partition.read(block, 1).await.is_err());
    let refused = prepared.disk.read(BlockNo(0), 1).await;
    assert!(matches!(refused, Err(DiskError::Fenced)), "{refused:?}");
}

#[tokio::test]
async fn disk_and_partition_of_an_arbiter_are_the_device_until_they_are_cut_off() {
    let scratch = Scratch::new("shared");
    let device = scratch.device();
    let _arbiter = Arbiter::start(&scratch, &device);
    let prepared = prepare(&scratch.path("socket"), 1, 1).await.expect("let in");
    try_disk(&*prepared.disk).await;
    try_partition(&prepared).await;
}

#[tokio::test]
async fn disk_and_partition_of_a_local_device_are_its_own_until_they_are_cut_off() {
    let scratch = Scratch::new("local");
    let device = scratch.device();
    let prepared = prepare_local(&device, node(1), PATIENCE).await.expect("nobody has it");
    assert_eq!(prepared.me.incarnation, Incarnation(1));
    let second = prepare_local(&device, node(1), Duration::ZERO).await;
    assert!(matches!(second, Err(PrepareError::Open(_))), "{second:?}");
    try_disk(&*prepared.disk).await;
    let victim = Victim { node: node(2), up_to: Incarnation(1) };
    let own = FenceRequest { victim, device: prepared.identity.device_id() };
    assert_eq!(prepared.agent.fence(own).await, Answer::Verified);
    let foreign = FenceRequest { device: DeviceId([9; 16]), ..own };
    assert!(matches!(prepared.agent.fence(foreign).await, Answer::Unsupported { .. }));
    try_partition(&prepared).await;
    drop(prepared);
    prepare_local(&device, node(1), PATIENCE).await.expect("nobody has it any more");
}
