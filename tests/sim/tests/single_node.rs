//! One node alone: every answer is the model's, and a crash after any write leaves only what the
//! model explains.

use model::ops::Profile;
use sim::single::{Plan, crash_everywhere, run_to_the_end};

/// How many seeds each test runs; `SIM_SEEDS` overrides it.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("SIM_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    let first = std::env::var("SIM_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    first..first + count
}

fn plan(seed: u64, operations: usize) -> Plan {
    let profile = Profile::ALL[usize::try_from(seed).expect("small") % Profile::ALL.len()];
    Plan { seed, profile, operations, device_blocks: 64 << 8 }
}

#[test]
fn every_answer_is_the_models() {
    for seed in seeds(16) {
        let plan = plan(seed, 400);
        run_to_the_end(&plan).unwrap_or_else(|f| panic!("{plan:?}: {}", f.0));
    }
}

#[test]
fn a_crash_after_any_write_leaves_what_the_model_explains() {
    for seed in seeds(8) {
        let plan = plan(seed, 60);
        crash_everywhere(&plan, 7).unwrap_or_else(|f| panic!("{plan:?}: {}", f.0));
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let plan = plan(3, 100);
    let trace = || run_to_the_end(&plan).map(|c| c.trace).map_err(|f| f.0);
    assert_eq!(trace(), trace());
}
