//! Several nodes that read through a device that is slow, at the same time.

use std::collections::BTreeMap;

use super::{Disk, NODES_MAX, U, first_commit, ready};
use crate::layout::MpBlock;
use crate::ondisk::Block;
use crate::random::Random;
use crate::register::{IoId, Outcome, Output, Register};
use mx_base::{Duration, Instant};

/// What takes effect, and is answered, at a time.
enum Due {
    Written { io: IoId, block: MpBlock, data: Box<Block> },
    Read { io: IoId, block: MpBlock, count: u32 },
    Again,
}

/// Reads that were answered, by node, of `nodes` that read every 30 U for `length`, again at once when
/// that fails, with requests that take `latency` to twice as long.
fn answered(nodes: u16, latency: Duration, length: Duration, seed: u64) -> Vec<u32> {
    let mut disks = [Disk::new(0, NODES_MAX)];
    first_commit(&mut disks);
    let [mut disk] = disks;
    let mut random = Random::new(seed);
    let mut registers: Vec<Register> = (1..=nodes).map(|id| ready(id, 1)).collect();
    let mut due: BTreeMap<(Instant, u64), (usize, Due)> = BTreeMap::new();
    let mut answered = vec![0; usize::from(nodes)];
    let mut order = 0;
    for index in 0..registers.len() {
        due.insert((Instant(0), order), (index, Due::Again));
        order += 1;
    }
    let mut now = Instant(0);
    while now < Instant(0) + length {
        let event = due.keys().next().map(|(at, _)| *at);
        let timers = registers.iter().filter_map(|r| r.poll_timeout()).map(|(at, _)| at);
        now = timers.chain(event).min().expect("somebody waits for something");
        for register in &mut registers {
            if register.poll_timeout().is_some_and(|(at, _)| at <= now) {
                register.handle_timeout(now);
            }
        }
        while let Some(entry) = due.first_entry().filter(|entry| entry.key().0 <= now) {
            let (index, what) = entry.remove();
            let register = &mut registers[index];
            match what {
                Due::Written { io, block, data } => {
                    *disk.at(block) = *data;
                    register.handle_written(io, Ok(()), now);
                }
                Due::Read { io, block, count } => {
                    let blocks = disk.read(block, count).expect("readable");
                    register.handle_read(io, Ok(&blocks), now);
                }
                Due::Again => {
                    register.read(now).expect("idle");
                }
            }
        }
        for (index, register) in registers.iter_mut().enumerate() {
            while let Some(output) = register.poll_output() {
                let more = random.below(u64::try_from(latency.as_nanos()).expect("short"));
                let took = latency + Duration::from_nanos(more);
                let (at, what) = match output {
                    Output::Write { io, block, data, .. } => {
                        (now + took, Due::Written { io, block, data })
                    }
                    Output::Read { io, block, count, .. } => {
                        (now + took, Due::Read { io, block, count })
                    }
                    Output::Done { outcome, .. } => {
                        let is_read = matches!(outcome, Outcome::Committed { .. });
                        answered[index] += u32::from(is_read);
                        (now + if is_read { U * 30 } else { U }, Due::Again)
                    }
                };
                due.insert((at, order), (index, what));
                order += 1;
            }
        }
    }
    answered
}

#[test]
fn several_nodes_read_through_a_slow_device_and_do_not_overtake_each_other_for_ever() {
    for seed in 0..8 {
        let answered = answered(4, U, U * 600, seed);
        assert!(answered.iter().all(|count| *count > 0), "seed {seed}: {answered:?}");
        // One attempt takes some six units: there is time for ninety.
        assert!(answered.iter().sum::<u32>() > 20, "seed {seed}: {answered:?}");
    }
}
