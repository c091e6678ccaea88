//! Whole clusters, by seed: what ships of one node, put into a world that loses, delays, cuts and
//! kills. `cargo xtask sim --seeds A..B` plays more, `cargo xtask replay SEED` shows one.

use std::ops::Range;

use mx_base::Duration;
use sim::fleet::aim::Phase;
use sim::fleet::plan::{Fault, FaultName, Kind, Plan, Weather, Wishes, Workload};
use sim::fleet::run;

/// Deaths in the middle of a recovery that is under way, in a hundred runs: 60 in the thousand.
const INTERRUPTED_MIN: u32 = 6;

/// Plays a hundred seeds until one fails.
fn play(seeds: Range<u64>) {
    let mut interrupted = 0;
    for seed in seeds {
        match run(&Plan::of(seed)) {
            Ok(report) => {
                let mut during = report.deaths_during_recovery;
                during.remove(&Phase::Unnoticed);
                interrupted += during.values().sum::<u32>();
            }
            Err(what) => panic!("seed {seed}: {what}\nwith a log: cargo xtask replay {seed}"),
        }
    }
    assert!(interrupted >= INTERRUPTED_MIN, "only {interrupted} died during a recovery");
}

// Several tests, so that they run beside each other.

#[test]
fn clusters_of_seeds_from_0_lose_nothing_and_hang_nowhere() {
    play(0..100);
}

#[test]
fn clusters_of_seeds_from_100_lose_nothing_and_hang_nowhere() {
    play(100..200);
}

#[test]
fn clusters_of_seeds_from_200_lose_nothing_and_hang_nowhere() {
    play(200..300);
}

#[test]
fn clusters_of_seeds_from_300_lose_nothing_and_hang_nowhere() {
    play(300..400);
}

#[test]
fn clusters_of_seeds_from_400_lose_nothing_and_hang_nowhere() {
    play(400..500);
}

#[test]
fn clusters_of_seeds_from_500_lose_nothing_and_hang_nowhere() {
    play(500..600);
}

#[test]
fn clusters_of_seeds_from_600_lose_nothing_and_hang_nowhere() {
    play(600..700);
}

#[test]
fn clusters_of_seeds_from_700_lose_nothing_and_hang_nowhere() {
    play(700..800);
}

#[test]
fn clusters_of_seeds_from_800_lose_nothing_and_hang_nowhere() {
    play(800..900);
}

#[test]
fn clusters_of_seeds_from_900_lose_nothing_and_hang_nowhere() {
    play(900..1000);
}

#[test]
fn the_same_seed_gives_the_same_cluster_and_another_one_does_not() {
    let trace = |seed| run(&Plan::of(seed)).expect("a seed that passes").trace;
    // One of each kind of run.
    for seed in [0, 1, 3, 4, 5, 7, 8] {
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
    assert_ne!(trace(1), trace(2));
}

/// Plays a plan that was written down.
fn play_plan(json: &str) {
    let plan = Plan::from_json(json).expect("a plan");
    if let Err(what) = run(&plan) {
        panic!("{what}\nwith a log: cargo xtask replay --plan FILE, of: {}", plan.to_json());
    }
}

/// Plays a seed or two with nothing but one fault.
fn play_fault(fault: FaultName) {
    for seed in 0..2 {
        let wishes = Wishes { nodes: Some(3), workload: None, fault: Some(fault) };
        if let Err(what) = run(&Plan::wished(seed, wishes)) {
            panic!("seed {seed} with {fault:?}: {what}");
        }
    }
}

#[test]
fn writes_that_arrive_after_the_death_of_their_sender_change_nothing_behind_its_fence() {
    play_fault(FaultName::LateWrite);
}

#[test]
fn a_fence_waits_for_writes_that_are_stuck() {
    play_fault(FaultName::StuckWrite);
}

#[test]
fn clocks_that_drift_let_nobody_serve_what_is_out_of_date() {
    play_fault(FaultName::Drift);
}

#[test]
fn a_damaged_block_costs_one_file_and_never_gives_wrong_data() {
    play_fault(FaultName::BitFlip);
    play_fault(FaultName::ReadError);
}

#[test]
fn a_device_that_is_full_refuses_changes_as_a_whole_and_has_room_again() {
    play_fault(FaultName::DeviceFull);
}

#[test]
fn what_was_on_its_way_on_a_broken_connection_and_comes_late_is_not_taken_twice() {
    play_fault(FaultName::HalfOpen);
    play_fault(FaultName::Reorder);
}

#[test]
fn registers_that_all_write_are_linearizable_whatever_fails() {
    for seed in [5, 17] {
        let mut plan = Plan::of_kind(seed, Kind::Harsh);
        plan.workload = Workload::Registers;
        if let Err(what) = run(&plan) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn sixteen_nodes_recover_from_a_death() {
    let wishes = Wishes { nodes: Some(16), workload: None, fault: Some(FaultName::Crash) };
    if let Err(what) = run(&Plan::wished(1, wishes)) {
        panic!("{what}");
    }
}

/// Otherwise its processes see what others have changed behind their wait for its caches.
#[test]
fn a_node_without_permit_that_learns_nothing_drops_what_its_kernel_has_cached() {
    play_plan(include_str!("plans/cut-off.json"));
}

/// Nobody drops what its kernel has cached; it is right until others may change it.
#[test]
fn what_the_kernel_of_a_paused_daemon_has_cached_is_right_until_its_permit_is_over() {
    play_plan(include_str!("plans/paused.json"));
}

/// Rule "online check": everything that is checked is being changed by three nodes.
#[test]
fn a_check_of_what_three_nodes_change_finds_nothing_wrong() {
    let mut checks = 0;
    for seed in 0..4 {
        let check = |(number, host): (u64, usize)| {
            (Duration::from_millis(1_000 + 900 * number), Fault::Check { host })
        };
        let faults = (0..6).zip([0, 1, 2, 0, 1, 2]).map(check).collect();
        let plan = Plan {
            nodes: 3,
            weather: Weather::CALM,
            workers: 3,
            length: Duration::from_millis(7_000),
            faults,
            ..Plan::of_kind(10 * seed, Kind::Calm)
        };
        let report = run(&plan).unwrap_or_else(|what| panic!("{what}\n{}", plan.to_json()));
        assert!(report.operations > 500, "{}", report.operations);
        checks += report.checks;
    }
    assert!(checks >= 12, "of 24: {checks}");
}

// What seeds have found, as the smallest plan that showed it.

#[test]
fn a_new_mount_finds_room_for_its_journal_when_a_full_device_was_emptied() {
    play_plan(include_str!("plans/full-device.json"));
    play_full_device(&[26, 34, 51]);
}

#[test]
fn a_write_that_was_answered_finds_its_room_on_a_device_that_is_full() {
    play_full_device(&[25, 45, 89, 99, 106, 137]);
}

#[test]
fn everybody_finds_room_again_whoever_filled_and_emptied_the_device() {
    play_full_device(&[8, 24]);
}

#[test]
fn a_group_is_not_held_while_a_dead_node_has_the_lock_of_a_free_place_in_it() {
    play_plan(include_str!("plans/bystander.json"));
}

#[test]
fn a_group_is_not_held_while_a_dead_node_has_another_that_is_freed_in_as_well() {
    play_plan(include_str!("plans/two-groups.json"));
}

/// Whose home is dead, and silent until it has an heir (seed 726513).
#[test]
fn a_group_is_not_held_while_the_home_of_another_is_silent() {
    play_plan(include_str!("plans/two-die.json"));
}

/// The simulator waited for it (seed 680167).
#[test]
fn an_operation_that_the_end_of_its_machine_cut_short_is_over() {
    play_plan(include_str!("plans/cut-short.json"));
}

/// The simulator took it for one that stays (seed 705886).
#[test]
fn a_node_that_leaves_in_the_last_moment_is_waited_for_when_it_comes_back() {
    play_plan(include_str!("plans/leaves-last.json"));
}

/// The simulator looked at the life that was being expelled (seed 711447).
#[test]
fn a_node_that_is_expelled_for_the_last_fault_is_looked_at_in_its_next_life() {
    play_plan(include_str!("plans/expelled-late.json"));
}

#[test]
fn what_a_dead_node_wrote_is_durable_before_its_slot_is_clean() {
    play_plan(include_str!("plans/power-behind-death.json"));
}

/// The simulated kernel is what did (seed 624889).
#[test]
fn an_answer_from_before_a_write_that_is_taken_in_behind_it_does_not_shorten_the_file() {
    play_plan(include_str!("plans/late-answer.json"));
}

/// What the simulator excuses there (docs/semantics.md, section 6) lasts until the last page that was asked for beside
/// the writer has come (seed 280 of blobs).
#[test]
fn a_page_that_was_asked_for_beside_a_writer_counts_as_one() {
    play_plan(include_str!("plans/old-end.json"));
}

/// The simulator took it for a life that ends for nothing (seed 749681).
#[test]
fn a_life_that_has_not_mounted_when_another_dies_may_start_over() {
    play_plan(include_str!("plans/starts-over.json"));
}

/// Who left last overlooked it (seed 801079).
#[test]
fn a_node_that_is_being_registered_when_everybody_leaves_leaves_too() {
    play_plan(include_str!("plans/being-registered.json"));
}

/// It was told of locks of a member that it had just ceased to compare, and never of their end (seed 802095).
#[test]
fn a_member_that_may_use_nothing_for_a_while_is_compared_again_with_what_it_holds_then() {
    play_plan(include_str!("plans/set-aside.json"));
}

/// It has not heard yet that it is no member any more (seed 805426).
#[test]
fn cr_of_a_member_that_is_expelled_stands_in_nobodys_way_though_its_permit_lasts() {
    play_plan(include_str!("plans/gone-with-cr.json"));
}

/// Each time one of its two names led elsewhere than before it let go of what the other one leads to, and
/// so for ever, without waiting for anything.
#[test]
fn a_rename_of_names_that_others_change_meanwhile_comes_to_an_end() {
    play_plan(include_str!("plans/two-names.json"));
}

/// Plays seeds in which nothing goes wrong but that the device fills up.
fn play_full_device(seeds: &[u64]) {
    for seed in seeds {
        let fault = Some(FaultName::DeviceFull);
        let wishes = Wishes { nodes: None, workload: None, fault };
        if let Err(what) = run(&Plan::wished(*seed, wishes)) {
            panic!(
                "seed {seed}: {what}\nwith a log: cargo xtask replay {seed} --fault device-full"
            );
        }
    }
}

/// A file with a flipped bit, which could not be written back, kept its node from emptying its journal
/// (seed 911297).
#[test]
fn a_damaged_file_keeps_nothing_else_from_coming_to_rest_before_a_freeze() {
    play_plan(include_str!("plans/freeze-beside-damage.json"));
}
