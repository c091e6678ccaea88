//! The register against scripted disks: each rule by itself. The random schedules are in `world`.

mod random_schedules;
mod slow_device;
mod world;

use super::*;
use crate::heartbeat::Observer;
use crate::layout::{self, CopyNo, RECORD_SIZE};
use crate::ondisk::register::{RegisterRecord, place};
use crate::reg_val::Phase;
use mx_base::{Member, SanGeneration};

pub(super) const CLUSTER: ClusterId = ClusterId([3; 16]);
pub(super) const U: Duration = Duration::from_millis(100);
const NODES_MAX: u16 = 4;

pub(super) fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

pub(super) fn member(id: u16, incarnation: u32) -> Member {
    Member { node: node(id), incarnation: Incarnation(incarnation) }
}

/// Register blocks of one partition.
#[derive(Clone)]
pub(super) struct Disk {
    index: MpIndex,
    blocks: Vec<Block>,
    /// Neither readable nor writable.
    bad: Option<MpBlock>,
}

impl Disk {
    pub(super) fn new(index: u8, nodes_max: u16) -> Disk {
        let index = MpIndex(index);
        let blocks = (1..=nodes_max)
            .flat_map(|id| {
                CopyNo::BOTH.map(|copy| {
                    let place = place(CLUSTER, index, node(id), copy);
                    *RegisterRecord::unused(node(id)).encode(place)
                })
            })
            .collect();
        Disk { index, blocks, bad: None }
    }

    pub(super) fn at(&mut self, block: MpBlock) -> &mut Block {
        let (first, _) = layout::register_run(1);
        &mut self.blocks[(block.0 - first.0) as usize]
    }

    fn record(&mut self, id: u16, copy: CopyNo) -> Option<RegisterRecord> {
        let place = place(CLUSTER, self.index, node(id), copy);
        RegisterRecord::decode(self.at(place.block), node(id), place).ok()
    }

    fn spoil(&mut self, id: u16, copy: CopyNo) {
        self.at(layout::register(node(id), copy)).0[100] ^= 0xFF;
    }

    fn read(&mut self, block: MpBlock, count: u32) -> Result<Vec<Block>, IoFailed> {
        let run = block.0..block.0 + count;
        if self.bad.is_some_and(|bad| run.contains(&bad.0)) {
            return Err(IoFailed);
        }
        Ok(run.map(|number| self.at(MpBlock(number)).clone()).collect())
    }
}

fn config(id: u16, partitions: u8) -> Config {
    Config {
        cluster: CLUSTER,
        node: node(id),
        nonce: u64::from(id) * 1000,
        partitions,
        nodes_max: NODES_MAX,
        unit: U,
        patience: U * 20,
        seed: u64::from(id),
    }
}

fn ready(id: u16, partitions: u8) -> Register {
    let mut register = Register::new(config(id, partitions));
    for partition in 0..partitions {
        register.handle_extinguished(MpIndex(partition), Instant(0));
    }
    register
}

/// Answers everything at once until the operation is done or nothing more is asked for.
fn run(register: &mut Register, disks: &mut [Disk], now: Instant) -> Option<Outcome> {
    while let Some(output) = register.poll_output() {
        match output {
            Output::Write { io, partition, block, data } => {
                let disk = &mut disks[usize::from(partition.0)];
                if disk.bad == Some(block) {
                    register.handle_written(io, Err(IoFailed), now);
                } else {
                    *disk.at(block) = *data;
                    register.handle_written(io, Ok(()), now);
                }
            }
            Output::Read { io, partition, block, count } => {
                let blocks = disks[usize::from(partition.0)].read(block, count);
                register.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), now);
            }
            Output::Done { outcome, .. } => return Some(outcome),
        }
    }
    None
}

fn must_commit(register: &mut Register, disks: &mut [Disk], change: Change) -> RegVal {
    register.change(change, Instant(0)).expect("idle");
    match run(register, disks, Instant(0)) {
        Some(Outcome::Committed { value }) => value,
        other => panic!("not committed: {other:?}"),
    }
}

pub(super) fn cold_start(id: u16, incarnation: u32, expected: u64, nodes_max: u16) -> Change {
    let mut observer = Observer::new(CLUSTER, None, 1, nodes_max);
    let blocks: Vec<Block> = vec![Block([0; layout::BLOCK_SIZE]); usize::from(nodes_max)];
    let (first, _) = layout::heartbeat_run(nodes_max);
    for unit in [0, 100] {
        let now = Instant(unit * 100_000_000);
        observer.handle_read(MpIndex(0), first, &blocks, now, now);
    }
    Change::ColdStart(crate::administrator::ColdStart {
        me: member(id, incarnation),
        expected: SanGeneration(expected),
        quiet: observer.quiet(U * 8),
    })
}

fn first_commit(disks: &mut [Disk]) -> RegVal {
    let partitions = u8::try_from(disks.len()).expect("few");
    must_commit(&mut ready(1, partitions), disks, cold_start(1, 1, 0, NODES_MAX))
}

#[test]
fn a_change_is_seen_by_every_node() {
    for partitions in [1, 3] {
        let mut disks: Vec<Disk> = (0..partitions).map(|i| Disk::new(i, NODES_MAX)).collect();
        let committed = first_commit(&mut disks);
        assert_eq!(committed.generation(), SanGeneration(1));
        assert_eq!(committed.phase(), Phase::Stable);
        let mut other = ready(2, partitions);
        other.read(Instant(0)).expect("idle");
        let outcome = run(&mut other, &mut disks, Instant(0));
        assert_eq!(outcome, Some(Outcome::Committed { value: committed }));
    }
}

#[test]
fn a_refusal_carries_the_committed_value() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let committed = first_commit(&mut disks);
    let mut other = ready(2, 1);
    other.change(cold_start(2, 1, 0, NODES_MAX), Instant(0)).expect("idle");
    match run(&mut other, &mut disks, Instant(0)) {
        Some(Outcome::Refused { refusal: Refusal::GenerationMoved(_), value, in_doubt: false }) => {
            assert_eq!(value, committed);
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn nothing_is_sent_before_former_lives_are_extinguished() {
    let mut register = Register::new(config(1, 1));
    register.read(Instant(0)).expect("idle");
    assert!(register.poll_output().is_none());
    register.handle_extinguished(MpIndex(0), Instant(0));
    assert!(matches!(register.poll_output(), Some(Output::Read { .. })));
}

#[test]
fn one_operation_is_under_way_at_a_time() {
    let mut register = ready(1, 1);
    register.read(Instant(0)).expect("idle");
    assert_eq!(register.read(Instant(0)), Err(Busy));
}

/// Answers reads, holds writes back; gives the writes.
fn hold_writes(register: &mut Register, disks: &mut [Disk], now: Instant) -> Vec<Output> {
    let mut held = Vec::new();
    while let Some(output) = register.poll_output() {
        match output {
            Output::Read { io, partition, block, count } => {
                let blocks = disks[usize::from(partition.0)].read(block, count);
                register.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), now);
            }
            Output::Write { .. } => held.push(output),
            Output::Done { outcome, .. } => panic!("{outcome:?}"),
        }
    }
    held
}

#[test]
fn a_write_that_does_not_end_keeps_its_partition_out_until_it_ends() {
    let mut disks: Vec<Disk> = (0..3).map(|i| Disk::new(i, NODES_MAX)).collect();
    let mut register = ready(1, 3);
    register.change(cold_start(1, 1, 0, NODES_MAX), Instant(0)).expect("idle");
    let held = hold_writes(&mut register, &mut disks, Instant(0));
    assert_eq!(held.len(), 3, "one write on each partition");
    let late = Instant(0) + U * 20;
    register.handle_timeout(late);
    assert!(matches!(
        register.poll_output(),
        Some(Output::Done { outcome: Outcome::NotDone { why: Trouble::Slow }, .. })
    ));
    register.read(late).expect("idle");
    assert!(register.poll_output().is_none(), "every partition still has a write outstanding");
    for output in held {
        let Output::Write { io, partition, block, data } = output else { unreachable!() };
        if partition == MpIndex(2) {
            continue;
        }
        *disks[usize::from(partition.0)].at(block) = *data;
        register.handle_written(io, Ok(()), late);
    }
    let outcome = run(&mut register, &mut disks, late);
    assert!(matches!(outcome, Some(Outcome::Committed { .. })), "{outcome:?}");
    assert_eq!(disks[2].record(1, CopyNo::First).map(|r| r.sequence), Some(0), "left alone");
}

#[test]
fn a_change_that_was_proposed_and_not_confirmed_is_unknown() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let mut register = ready(1, 1);
    register.change(cold_start(1, 1, 0, NODES_MAX), Instant(0)).expect("idle");
    let mut accepting = None;
    for _ in 0..20 {
        for output in hold_writes(&mut register, &mut disks, Instant(0)) {
            let Output::Write { io, block, data, .. } = output else { unreachable!() };
            let place = Place { cluster: CLUSTER, partition: MpIndex(0), block };
            let record = RegisterRecord::decode(&data, node(1), place).expect("own record");
            if record.accepted == Ballot::ZERO {
                *disks[0].at(block) = *data;
                register.handle_written(io, Ok(()), Instant(0));
            } else {
                accepting = Some((io, block, data));
            }
        }
    }
    register.handle_timeout(Instant(0) + U * 20);
    assert!(matches!(
        register.poll_output(),
        Some(Output::Done { outcome: Outcome::Unknown { .. }, .. })
    ));
    // It lands after all; the next operation finds it and tells whose it is.
    let (io, block, data) = accepting.expect("found above");
    *disks[0].at(block) = *data;
    register.handle_written(io, Ok(()), Instant(0) + U * 21);
    register.read(Instant(0) + U * 21).expect("idle");
    match run(&mut register, &mut disks, Instant(0) + U * 21) {
        Some(Outcome::Committed { value }) => {
            assert_eq!(value.generation(), SanGeneration(1));
            assert!(register.is_own(&value));
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn one_damaged_copy_of_a_record_changes_nothing() {
    for copy in CopyNo::BOTH {
        let mut disks = [Disk::new(0, NODES_MAX)];
        let committed = first_commit(&mut disks);
        disks[0].spoil(1, copy);
        let mut other = ready(2, 1);
        other.read(Instant(0)).expect("idle");
        let outcome = run(&mut other, &mut disks, Instant(0));
        assert_eq!(outcome, Some(Outcome::Committed { value: committed }));
    }
}

#[test]
fn a_record_of_which_both_copies_are_damaged_stops_the_partition_and_rolls_nothing_back() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    first_commit(&mut disks);
    disks[0].spoil(1, CopyNo::First);
    disks[0].spoil(1, CopyNo::Second);
    let mut other = ready(2, 1);
    other.read(Instant(0)).expect("idle");
    assert_eq!(run(&mut other, &mut disks, Instant(0)), None, "it tries again later");
    other.handle_timeout(Instant(0) + U * 20);
    let why = Trouble::Damaged { node: node(1) };
    assert_eq!(run(&mut other, &mut disks, Instant(0) + U * 20), Some(Outcome::NotDone { why }));
}

#[test]
fn a_bad_sector_under_one_copy_does_not_stop_membership() {
    for copy in CopyNo::BOTH {
        for owner in [1, 2, 3] {
            let mut disks = [Disk::new(0, NODES_MAX)];
            disks[0].bad = Some(layout::register(node(owner), copy));
            let committed = first_commit(&mut disks);
            let mut other = ready(2, 1);
            other.read(Instant(0)).expect("idle");
            let outcome = run(&mut other, &mut disks, Instant(0));
            assert_eq!(outcome, Some(Outcome::Committed { value: committed }), "{owner} {copy:?}");
        }
    }
}

#[test]
fn a_partition_counts_only_without_a_stale_copy_of_the_own_record() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let mut register = ready(1, 1);
    register.read(Instant(0)).expect("idle");
    // The first copy can be read but not be written: would the second be lost, the first counted.
    let stale = layout::register(node(1), CopyNo::First);
    let mut writes = 0;
    while let Some(output) = register.poll_output() {
        match output {
            Output::Write { io, block, .. } if block == stale => {
                writes += 1;
                register.handle_written(io, Err(IoFailed), Instant(0));
            }
            Output::Write { io, block, data, .. } => {
                *disks[0].at(block) = *data;
                register.handle_written(io, Ok(()), Instant(0));
            }
            Output::Read { io, block, count, .. } => {
                let blocks = disks[0].read(block, count);
                register.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), Instant(0));
            }
            Output::Done { outcome, .. } => panic!("{outcome:?}"),
        }
    }
    assert_eq!(writes, 1);
    register.handle_timeout(Instant(0) + U * 20);
    assert!(matches!(
        register.poll_output(),
        Some(Output::Done { outcome: Outcome::NotDone { why: Trouble::StaleCopy }, .. })
    ));
}

#[test]
fn a_second_program_with_the_same_node_id_is_found_out() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let mut first = ready(1, 1);
    must_commit(&mut first, &mut disks, cold_start(1, 1, 0, NODES_MAX));
    let mut second = Register::new(Config { nonce: 77, ..config(1, 1) });
    second.handle_extinguished(MpIndex(0), Instant(0));
    second.read(Instant(0)).expect("idle");
    assert!(run(&mut second, &mut disks, Instant(0)).is_some());
    second.read(Instant(0)).expect("idle");
    assert!(run(&mut second, &mut disks, Instant(0)).is_some());
    // The first writes over it, and then the second finds its record changed by another.
    first.read(Instant(0)).expect("idle");
    run(&mut first, &mut disks, Instant(0));
    let third = disks[0].clone();
    second.read(Instant(0)).expect("idle");
    while let Some(output) = second.poll_output() {
        match output {
            Output::Write { io, .. } => second.handle_written(io, Ok(()), Instant(0)),
            Output::Read { io, block, count, .. } => {
                let mut disk = third.clone();
                let blocks = disk.read(block, count);
                second.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), Instant(0));
            }
            Output::Done { outcome, .. } => {
                assert!(matches!(outcome, Outcome::NotDone { .. }), "{outcome:?}");
            }
        }
    }
    assert!(second.partition_trouble(MpIndex(0)).is_some());
}

#[test]
fn a_device_that_loses_an_acknowledged_write_is_ruled_out() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let mut register = ready(1, 1);
    register.read(Instant(0)).expect("idle");
    while let Some(output) = register.poll_output() {
        match output {
            Output::Write { io, .. } => register.handle_written(io, Ok(()), Instant(0)),
            Output::Read { io, block, count, .. } => {
                let blocks = disks[0].read(block, count);
                register.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), Instant(0));
            }
            Output::Done { outcome, .. } => {
                assert_eq!(outcome, Outcome::NotDone { why: Trouble::WriteLost });
            }
        }
    }
    assert_eq!(register.partition_trouble(MpIndex(0)), Some(Trouble::WriteLost));
}

#[test]
fn a_survey_finds_the_next_life_without_a_ballot() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    let value = first_commit(&mut disks);
    let join = Change::join(member(1, 1), value.generation(), member(2, 7));
    let mut first = ready(3, 1);
    must_commit(&mut first, &mut disks, join);
    // The newest record is damaged in one copy; the other one tells.
    disks[0].spoil(3, CopyNo::First);
    let mut survey = Survey::new(CLUSTER, NODES_MAX);
    let (at, _) = layout::register_run(NODES_MAX);
    survey.add(MpIndex(0), at, &disks[0].blocks);
    assert_eq!(survey.next_life(node(2), Incarnation(0)), Some(member(2, 8)));
    assert_eq!(survey.next_life(node(2), Incarnation(9)), Some(member(2, 10)));
    assert_eq!(survey.next_life(node(4), Incarnation(0)), Some(member(4, 1)));
    assert_eq!(survey.next_life(node(4), Incarnation(u32::MAX - 1)), None);
    assert_eq!(survey.generation(), SanGeneration(2));
    assert_eq!(survey.members(), [member(1, 1), member(2, 7)]);
}

#[test]
fn a_failing_device_ends_in_an_outcome_and_a_minority_of_them_does_not_matter() {
    let mut disks: Vec<Disk> = (0..3).map(|i| Disk::new(i, NODES_MAX)).collect();
    let mut register = ready(1, 3);
    register.change(cold_start(1, 1, 0, NODES_MAX), Instant(0)).expect("idle");
    let mut outcome = None;
    while let Some(output) = register.poll_output() {
        match output {
            Output::Write { io, partition: MpIndex(1), .. } => {
                register.handle_written(io, Err(IoFailed), Instant(0));
            }
            Output::Read { io, partition: MpIndex(1), .. } => {
                register.handle_read(io, Err(IoFailed), Instant(0));
            }
            Output::Write { io, partition, block, data } => {
                *disks[usize::from(partition.0)].at(block) = *data;
                register.handle_written(io, Ok(()), Instant(0));
            }
            Output::Read { io, partition, block, count } => {
                let blocks = disks[usize::from(partition.0)].read(block, count);
                register.handle_read(io, blocks.as_deref().map_err(|_| IoFailed), Instant(0));
            }
            Output::Done { outcome: done, .. } => outcome = Some(done),
        }
    }
    assert!(matches!(outcome, Some(Outcome::Committed { .. })), "{outcome:?}");
}

#[test]
fn a_record_of_a_newer_format_stops_the_partition_by_name() {
    let mut disks = [Disk::new(0, NODES_MAX)];
    for copy in CopyNo::BOTH {
        let block = disks[0].at(layout::register(node(3), copy));
        block.0[8] = 9;
        let crc =
            crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &block.0[..RECORD_SIZE - 4]);
        let crc = zerocopy::little_endian::U32::new(u32::try_from(crc).expect("32 bits"));
        block.0[RECORD_SIZE - 4..RECORD_SIZE].copy_from_slice(zerocopy::IntoBytes::as_bytes(&crc));
    }
    let mut register = ready(1, 1);
    register.read(Instant(0)).expect("idle");
    assert_eq!(run(&mut register, &mut disks, Instant(0)), None);
    register.handle_timeout(Instant(0) + U * 20);
    let why = Trouble::NewerFormat { node: node(3), version: 9 };
    assert_eq!(run(&mut register, &mut disks, Instant(0) + U * 20), Some(Outcome::NotDone { why }));
}

use crate::ondisk::Place;
