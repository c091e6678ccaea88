//! What repeated reads of heartbeat blocks show, and the pace of the own ones.

use super::*;
use crate::layout::{self, MpIndex};
use crate::node_set::NodeSet;
use crate::ondisk::Block;
use crate::ondisk::heartbeat::{HeartbeatRecord, place};
use mx_base::{ClusterId, Duration, Instant, NodeId, SanGeneration};

const CLUSTER: ClusterId = ClusterId([7; 16]);
const U: Duration = Duration::from_millis(100);

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn at(units: u64) -> Instant {
    Instant(units * 100_000_000)
}

/// Heartbeat blocks of 4 nodes on one partition.
struct Disk(Vec<Block>);

impl Disk {
    fn new() -> Disk {
        Disk(
            (1..=4)
                .map(|id| {
                    let place = place(CLUSTER, MpIndex(0), node(id));
                    *HeartbeatRecord::unused(node(id)).encode(place)
                })
                .collect(),
        )
    }

    fn write(&mut self, id: u16, nonce: u64, sequence: u64) {
        let record = HeartbeatRecord {
            nonce,
            sequence,
            generation_seen: SanGeneration(sequence),
            ..HeartbeatRecord::unused(node(id))
        };
        self.0[usize::from(id) - 1] = *record.encode(place(CLUSTER, MpIndex(0), node(id)));
    }

    fn show(&self, observer: &mut Observer, started: u64) {
        let (first, _) = layout::heartbeat_run(4);
        observer.handle_read(MpIndex(0), first, &self.0, at(started), at(started) + U / 10);
    }
}

#[test]
fn a_heartbeat_that_moves_is_not_quiet() {
    let mut disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, None, 1, 4);
    for unit in 0..10 {
        disk.write(2, 5, unit);
        disk.show(&mut observer, unit);
    }
    let quiet = observer.quiet(U * 8);
    assert!(!quiet.nodes().contains(node(2)));
    assert!(quiet.nodes().contains(node(1)) && quiet.nodes().contains(node(3)));
    assert_eq!(observer.pulse(node(2)), Pulse::Moved(at(9) + U / 10));
    assert_eq!(observer.record(node(2)).map(|r| r.generation_seen), Some(SanGeneration(9)));
}

#[test]
fn stillness_is_counted_from_the_end_of_the_first_read_to_the_start_of_the_last() {
    let disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, None, 1, 4);
    assert_eq!(observer.pulse(node(1)), Pulse::Unseen);
    disk.show(&mut observer, 0);
    assert_eq!(observer.pulse(node(1)), Pulse::Still(Duration::ZERO));
    assert!(observer.quiet(U * 8).nodes().is_empty());
    disk.show(&mut observer, 8);
    // One read lasted a tenth of a unit, which does not count.
    assert!(observer.quiet(U * 8).nodes().is_empty());
    disk.show(&mut observer, 9);
    assert_eq!(observer.quiet(U * 8).nodes().len(), 4);
}

#[test]
fn a_movement_a_long_time_ago_does_not_count_after_the_window() {
    let mut disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, None, 1, 4);
    disk.show(&mut observer, 0);
    disk.write(1, 1, 1);
    disk.show(&mut observer, 1);
    assert!(matches!(observer.pulse(node(1)), Pulse::Moved(_)));
    disk.show(&mut observer, 5);
    assert!(!observer.quiet(U * 8).nodes().contains(node(1)));
    disk.show(&mut observer, 10);
    assert!(observer.quiet(U * 8).nodes().contains(node(1)));
}

#[test]
fn garbage_that_does_not_change_is_still_and_garbage_that_changes_is_not() {
    let mut disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, None, 1, 4);
    disk.0[0] = Block([0xA5; layout::BLOCK_SIZE]);
    disk.show(&mut observer, 0);
    disk.show(&mut observer, 9);
    assert!(observer.quiet(U * 8).nodes().contains(node(1)));
    disk.0[0].0[100] = 0;
    disk.show(&mut observer, 10);
    assert!(!observer.quiet(U * 8).nodes().contains(node(1)));
}

#[test]
fn on_three_partitions_a_move_on_any_and_silence_on_a_minority_both_count_against_quiet() {
    let disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, None, 3, 4);
    let (first, _) = layout::heartbeat_run(4);
    let show = |observer: &mut Observer, partition: u8, blocks: &[Block], unit: u64| {
        observer.handle_read(MpIndex(partition), first, blocks, at(unit), at(unit));
    };
    show(&mut observer, 0, &disk.0, 0);
    show(&mut observer, 0, &disk.0, 8);
    assert!(observer.quiet(U * 8).nodes().is_empty(), "one of three is no majority");
    show(&mut observer, 1, &disk.0, 0);
    show(&mut observer, 1, &disk.0, 8);
    assert_eq!(observer.quiet(U * 8).nodes().len(), 4);
    show(&mut observer, 2, &disk.0, 7);
    let mut moved = disk.0.clone();
    moved[1].0[40] ^= 1;
    show(&mut observer, 2, &moved, 8);
    show(&mut observer, 2, &moved, 10);
    assert!(!observer.quiet(U * 8).nodes().contains(node(2)));
    assert!(observer.quiet(U * 8).nodes().contains(node(1)));
}

#[test]
fn the_own_writing_does_not_count_and_a_second_start_of_the_same_node_does() {
    let mut disk = Disk::new();
    let mut observer = Observer::new(CLUSTER, Some((node(1), 42)), 1, 4);
    assert_eq!(observer.own_block(), OwnBlock::Unknown);
    disk.write(1, 17, 3);
    disk.show(&mut observer, 0);
    assert_eq!(observer.own_block(), OwnBlock::Foreign { nonce: 17, after_ours: false });
    for unit in 1..=10 {
        disk.write(1, 42, unit);
        disk.show(&mut observer, unit);
    }
    assert_eq!(observer.own_block(), OwnBlock::Ours);
    assert!(observer.quiet(U * 8).nodes().contains(node(1)));
    disk.write(1, 99, 1);
    disk.show(&mut observer, 11);
    assert_eq!(observer.own_block(), OwnBlock::Foreign { nonce: 99, after_ours: true });
    assert!(!observer.quiet(U * 8).nodes().contains(node(1)));
}

#[test]
fn only_one_heartbeat_write_is_outstanding_and_it_is_confirmed_from_its_start() {
    let mut own = OwnHeartbeat::new(CLUSTER, node(3), 9, 1, U * 2, at(0));
    let write = own.poll_write(at(0)).expect("due at once");
    assert_eq!(write.block, layout::heartbeat(node(3)));
    assert!(own.poll_write(at(50)).is_none(), "one is outstanding");
    assert_eq!(own.poll_timeout(), None);
    own.handle_written(MpIndex(0), true, at(1));
    assert_eq!(own.confirmed(MpIndex(0)), Some(at(0)));
    assert_eq!(own.poll_timeout(), Some((at(2), "own heartbeat")));
    assert!(own.poll_write(at(1)).is_none());
    let beat = Beat { reach: NodeSet::of(node(1)), ..Beat::default() };
    own.set_beat(beat, at(1));
    let write = own.poll_write(at(1)).expect("news is written at once");
    let place = place(CLUSTER, MpIndex(0), node(3));
    let record = HeartbeatRecord::decode(&write.data, node(3), place).expect("own record");
    assert_eq!((record.sequence, record.nonce, record.reach), (2, 9, NodeSet::of(node(1))));
    own.handle_written(MpIndex(0), false, at(9));
    assert_eq!(own.confirmed(MpIndex(0)), Some(at(0)), "a failed write confirms nothing");
    assert_eq!(own.poll_timeout(), Some((at(9), "own heartbeat")));
}
