//! Whole clusters, by seed: what ships of one node, put into a world that loses, delays, cuts and
//! kills. `cargo xtask sim --seeds A..B` plays more, `cargo xtask replay SEED` shows one.

use std::ops::Range;

use sim::fleet::plan::Plan;
use sim::fleet::run;

/// Plays seeds until one fails.
fn play(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(what) = run(&Plan::of(seed)) {
            panic!("seed {seed}: {what}\nwith a log: cargo xtask replay {seed}");
        }
    }
}

// Several tests, so that they run beside each other.

#[test]
fn clusters_of_seeds_from_0_lose_nothing_and_hang_nowhere() {
    play(0..20);
}

#[test]
fn clusters_of_seeds_from_20_lose_nothing_and_hang_nowhere() {
    play(20..40);
}

#[test]
fn clusters_of_seeds_from_40_lose_nothing_and_hang_nowhere() {
    play(40..60);
}

#[test]
fn clusters_of_seeds_from_60_lose_nothing_and_hang_nowhere() {
    play(60..80);
}

#[test]
fn clusters_of_seeds_from_80_lose_nothing_and_hang_nowhere() {
    play(80..100);
}

#[test]
fn clusters_of_seeds_from_100_lose_nothing_and_hang_nowhere() {
    play(100..120);
}

#[test]
fn clusters_of_seeds_from_120_lose_nothing_and_hang_nowhere() {
    play(120..140);
}

#[test]
fn clusters_of_seeds_from_140_lose_nothing_and_hang_nowhere() {
    play(140..160);
}

#[test]
fn clusters_of_seeds_from_160_lose_nothing_and_hang_nowhere() {
    play(160..180);
}

#[test]
fn clusters_of_seeds_from_180_lose_nothing_and_hang_nowhere() {
    play(180..200);
}

#[test]
fn the_same_seed_gives_the_same_cluster_and_another_one_does_not() {
    let trace = |seed| run(&Plan::of(seed)).expect("a seed that passes").trace;
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}
