//! Every state that small clusters of lock managers can get into: whatever the order of messages,
//! callouts, deaths, views and recoveries, nobody gets a mode that another may still use, and at
//! rest nobody waits.
//!
//! What is explored here takes seconds; `long.rs` goes further. With the feature `few-buckets`
//! only: the thousands of buckets that nothing happens in are left out.

mod cluster;
mod events;
mod explore;
mod model;
mod oracle;
mod steps;

use dlm::Mode;

use crate::cluster::Budget;
use crate::explore::visit_every_state;
use crate::model::{Bounds, Resource, calm, homed, member};
use crate::oracle::{CONVERTS, EARLY, GHOST, LIMBO, REBUILT};

#[test]
fn three_nodes_share_one_resource() {
    let budget = Budget { requests: 3, conversions: 1, releases: 1, cancels: 1, ..Budget::NONE };
    visit_every_state("three nodes", Bounds { budget, sights: &[CONVERTS], ..calm(3) });
}

#[test]
fn two_nodes_use_every_mode() {
    let budget = Budget {
        requests: 2,
        impatient: 1,
        conversions: 1,
        releases: 1,
        cancels: 1,
        ..Budget::NONE
    };
    visit_every_state("every mode", Bounds { modes: &Mode::ALL, budget, ..calm(2) });
}

#[test]
fn a_node_that_is_no_home_dies() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let sights = &[LIMBO, GHOST];
    visit_every_state("death of a user", Bounds { budget, mortal: &[3], sights, ..calm(3) });
}

#[test]
fn the_home_dies() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights = &[LIMBO, GHOST, REBUILT, EARLY];
    visit_every_state(
        "death of the home",
        Bounds { resources, budget, mortal: &[3], sights, ..calm(3) },
    );
}

#[test]
fn the_home_is_expelled_and_goes_on_for_a_while() {
    let budget = Budget { requests: 2, expulsions: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights = &[LIMBO, GHOST, REBUILT, EARLY];
    visit_every_state(
        "expulsion of the home",
        Bounds { resources, budget, mortal: &[3], sights, ..calm(3) },
    );
}

#[test]
fn what_no_kernel_caches_is_free_after_the_recovery() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[Resource { is_cached: false, ..homed(3, 1) }] };
    let sights = &[LIMBO, REBUILT];
    let users = &[1, 3];
    visit_every_state(
        "death of the home, uncached",
        Bounds { resources, budget, mortal: &[3], users, sights, ..calm(3) },
    );
}

#[test]
fn a_joiner_becomes_the_home() {
    let budget = Budget { requests: 2, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(1, 2) }] };
    let joiner = Some(member(3, 1));
    let sights = &[REBUILT, EARLY];
    visit_every_state("join", Bounds { joiner, resources, budget, sights, ..calm(2) });
}

#[test]
fn the_home_leaves() {
    let budget = Budget { requests: 3, leaves: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights = &[REBUILT];
    visit_every_state("leave", Bounds { resources, budget, mortal: &[3], sights, ..calm(3) });
}

#[test]
fn a_dead_node_comes_back_in_a_new_life() {
    let budget = Budget { requests: 1, stops: 1, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(2, 1) }] };
    let joiner = Some(member(2, 2));
    let sights = &[LIMBO];
    visit_every_state(
        "new life",
        Bounds { joiner, resources, budget, mortal: &[2], sights, ..calm(2) },
    );
}

#[test]
fn two_nodes_die_one_after_the_other() {
    let budget = Budget { stops: 2, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    visit_every_state("two deaths", Bounds { resources, budget, mortal: &[3, 1], ..calm(3) });
}

#[test]
fn two_resources_with_different_homes_are_rebuilt() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1), homed(1, 2)] };
    let users = &[3];
    visit_every_state(
        "two resources",
        Bounds { resources, budget, mortal: &[3], users, ..calm(3) },
    );
}
