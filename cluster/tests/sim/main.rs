//! Whole clusters of 2 to 6 nodes in one thread, from one seed.
//!
//! The machines are the real ones; network, register, fencing and layers above are simulated and
//! hostile: delay, broken connections, one-way cuts, pauses longer than every timer, crashes of
//! processes and hosts, register writes whose outcome is unknown or that land after their author's
//! death. The oracles are in [`oracle`]; every seed ends with all faults lifted, and then the
//! cluster must heal completely.
//!
//! `CLUSTER_SIM_SEEDS=A..B` runs other seeds, `CLUSTER_SIM_SEED=N` one seed with its event log.

mod faults;
mod layers;
mod net;
mod node;
mod oracle;
mod register;
mod rng;
mod scenarios;
mod storage;
mod wires;
mod world;

use std::ops::Range;

use world::World;

/// Few enough for the committed run; developing uses thousands.
const SEEDS: Range<u64> = 0..40;

#[expect(clippy::disallowed_methods, reason = "seeds to run by hand")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn seeds() -> Range<u64> {
    let Some(text) = setting("CLUSTER_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("CLUSTER_SIM_SEEDS=A..B");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn any_faults_leave_one_side_in_charge_and_a_cluster_that_heals() {
    for seed in seeds() {
        World::random(seed).run();
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..3 {
        assert_eq!(World::random(seed).run(), World::random(seed).run(), "seed {seed}");
    }
}

#[test]
fn one_seed_with_its_log() {
    let Some(seed) = setting("CLUSTER_SIM_SEED") else { return };
    let mut world = World::random(seed.parse().expect("a number"));
    world.log = true;
    world.run();
}
