//! Random schedules: with the rules there is one history, and without R4 or R5 the checks find two.

use super::world::{Rules, Tally, World};

const SOUND: Rules = Rules {
    nodes: 2,
    partitions: 1,
    keep_r4: true,
    keep_r5: true,
    stuck: 30,
    crash: 5,
    bad_sector: false,
    steps: 600,
};

/// Runs `seeds` schedules; gives those that broke the register.
fn run(rules: Rules, seeds: std::ops::Range<u64>) -> (Vec<(u64, String)>, Tally) {
    let mut broken = Vec::new();
    let mut total = Tally::default();
    for seed in seeds {
        let mut world = World::new(rules, seed);
        if let Err(violation) = world.run() {
            broken.push((seed, violation));
        }
        total.committed += world.tally.committed;
        total.refused += world.tally.refused;
        total.unknown += world.tally.unknown;
        total.not_done += world.tally.not_done;
    }
    (broken, total)
}

fn must_hold(rules: Rules, seeds: u64) {
    let (broken, tally) = run(rules, 0..seeds);
    assert!(broken.is_empty(), "{} of {seeds}, first {:?}", broken.len(), broken[0]);
    assert!(tally.committed > seeds, "the schedules get somewhere: {tally:?}");
}

#[test]
fn two_nodes_on_one_partition_agree_on_one_history() {
    must_hold(SOUND, 400);
}

#[test]
fn two_nodes_on_three_partitions_agree_on_one_history() {
    must_hold(Rules { partitions: 3, steps: 1200, ..SOUND }, 150);
}

#[test]
fn four_nodes_in_contention_agree_on_one_history() {
    must_hold(Rules { nodes: 4, steps: 1200, ..SOUND }, 150);
    must_hold(Rules { nodes: 4, partitions: 3, steps: 2000, ..SOUND }, 60);
}

#[test]
fn nodes_that_crash_all_the_time_agree_on_one_history() {
    must_hold(Rules { crash: 20, ..SOUND }, 300);
    must_hold(Rules { crash: 20, nodes: 3, partitions: 3, steps: 1500, ..SOUND }, 80);
}

#[test]
fn a_bad_sector_changes_nothing() {
    must_hold(Rules { bad_sector: true, ..SOUND }, 200);
    must_hold(Rules { bad_sector: true, partitions: 3, steps: 1200, ..SOUND }, 60);
}

#[test]
fn without_r4_the_checks_find_two_histories() {
    let (broken, tally) =
        run(Rules { keep_r4: false, stuck: 250, crash: 0, steps: 1000, ..SOUND }, 0..1000);
    assert!(!broken.is_empty(), "a late write must be found to do harm: {tally:?}");
}

#[test]
fn without_r5_the_checks_find_two_histories() {
    let rules = Rules { keep_r5: false, crash: 60, stuck: 300, ..SOUND };
    let (broken, tally) = run(rules, 0..2000);
    assert!(!broken.is_empty(), "a late write must be found to do harm: {tally:?}");
}
