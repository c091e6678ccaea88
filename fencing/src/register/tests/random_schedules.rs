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

fn must_hold(rules: Rules, seeds: u64) {
    let mut total = Tally::default();
    for seed in 0..seeds {
        let mut world = World::new(rules, seed);
        if let Err(violation) = world.run() {
            panic!("seed {seed}: {violation}");
        }
        total.add(&world.tally);
    }
    assert!(total.committed > seeds, "the schedules get somewhere: {total:?}");
}

/// The first seed that breaks the register, without a rule that it needs.
fn must_break(rules: Rules, seeds: u64) {
    let breaks = |seed: &u64| World::new(rules, *seed).run().is_err();
    assert!((0..seeds).find(breaks).is_some(), "a late write must be found to do harm");
}

#[test]
fn two_nodes_on_one_partition_agree_on_one_history() {
    must_hold(SOUND, 300);
}

#[test]
fn two_nodes_on_three_partitions_agree_on_one_history() {
    must_hold(Rules { partitions: 3, steps: 1200, ..SOUND }, 100);
}

#[test]
fn four_nodes_in_contention_agree_on_one_history() {
    must_hold(Rules { nodes: 4, steps: 1200, ..SOUND }, 80);
    must_hold(Rules { nodes: 4, partitions: 3, steps: 2000, ..SOUND }, 40);
}

#[test]
fn nodes_that_crash_all_the_time_agree_on_one_history() {
    must_hold(Rules { crash: 20, ..SOUND }, 200);
    must_hold(Rules { crash: 20, nodes: 3, partitions: 3, steps: 1500, ..SOUND }, 80);
}

#[test]
fn a_bad_sector_changes_nothing() {
    must_hold(Rules { bad_sector: true, ..SOUND }, 150);
    must_hold(Rules { bad_sector: true, partitions: 3, steps: 1200, ..SOUND }, 60);
}

#[test]
fn without_r4_the_checks_find_two_histories() {
    must_break(Rules { keep_r4: false, stuck: 250, crash: 0, steps: 1000, ..SOUND }, 1000);
}

#[test]
fn without_r5_the_checks_find_two_histories() {
    must_break(Rules { keep_r5: false, crash: 60, stuck: 300, ..SOUND }, 2000);
}
