//! Clusters with two file systems.

use sim::fleet::plan::{Kind, Plan};
use sim::fleet::run;

fn play(plan: &Plan) {
    if let Err(what) = run(plan) {
        panic!("{what}\nwith a log: cargo xtask replay --plan FILE, of: {}", plan.to_json());
    }
}

/// A member dies, and its journal in the first file system cannot be read for seconds. What is
/// checked meanwhile is in `fleet::apart`; afterwards everything ends, and nothing is lost in
/// either.
#[test]
fn a_replay_that_does_not_end_leaves_the_other_file_system_granting() {
    for seed in 0..5 {
        play(&Plan::of_kind(seed, Kind::Apart));
    }
}

/// The rules of one file system hold in each of two, whatever goes wrong.
#[test]
fn two_file_systems_lose_nothing_and_hang_nowhere() {
    for seed in 0..2 {
        for kind in [Kind::OneCrash, Kind::Coming, Kind::Any, Kind::Harsh, Kind::Aimed] {
            let plan = Plan { file_systems: 2, ..Plan::of_kind(seed, kind) };
            play(&plan);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_two_file_systems() {
    let trace = || run(&Plan::of_kind(1, Kind::Apart)).expect("a seed that passes").trace;
    assert_eq!(trace(), trace());
}
