//! Every state that small clusters of lock managers can get into: whatever the order of messages,
//! callouts, deaths, views and recoveries, nobody gets a mode that another may still use, and at
//! rest nobody waits.
//!
//! What is explored here takes seconds; `long.rs` goes further. With the feature `few-buckets`
//! only: the thousands of buckets that nothing happens in are left out.

mod bounds;
mod cluster;
mod events;
mod explore;
mod model;
mod oracle;
mod steps;
mod visit;

use dlm::Mode;

use crate::cluster::Budget;
use crate::model::{Bounds, Resource, Sight, calm, homed};
use crate::oracle::{EARLY, GHOST, LIMBO, REBUILT};
use crate::visit::visit_every_state;

#[test]
fn three_nodes_share_one_resource() {
    visit_every_state("three nodes", bounds::three_nodes());
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
    let bounds = Bounds { modes: &Mode::ALL, budget, ..calm(2) };
    visit_every_state("every mode", bounds);
}

#[test]
fn a_node_that_is_no_home_dies() {
    visit_every_state("death of a user", bounds::death_of_a_user());
}

#[test]
fn the_home_dies() {
    visit_every_state("death of the home", bounds::death_of_the_home());
}

#[test]
fn the_home_is_expelled_and_goes_on_for_a_while() {
    let budget = Budget { requests: 2, expulsions: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights: &[Sight] = &[LIMBO, GHOST, REBUILT, EARLY];
    let bounds = Bounds { resources, budget, mortal: &[3], sights, ..calm(3) };
    visit_every_state("expulsion of the home", bounds);
}

#[test]
fn what_no_kernel_caches_is_free_after_the_recovery() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[Resource { is_cached: false, ..homed(3, 1) }] };
    let sights: &[Sight] = &[LIMBO, REBUILT];
    let users: &[u16] = &[1, 3];
    let bounds = Bounds { resources, budget, mortal: &[3], users, sights, ..calm(3) };
    visit_every_state("death of the home, uncached", bounds);
}

#[test]
fn a_joiner_becomes_the_home() {
    visit_every_state("join", bounds::join());
}

#[test]
fn the_home_leaves() {
    visit_every_state("leave", bounds::leave());
}

#[test]
fn a_dead_node_comes_back_in_a_new_life() {
    let budget = Budget { requests: 1, stops: 1, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(2, 1) }] };
    let joiner = Some((2, 2));
    let sights: &[Sight] = &[LIMBO];
    let bounds = Bounds { joiner, resources, budget, mortal: &[2], sights, ..calm(2) };
    visit_every_state("new life", bounds);
}

#[test]
fn two_nodes_die_one_after_the_other() {
    visit_every_state("two deaths", bounds::two_deaths());
}

#[test]
fn two_resources_with_different_homes_are_rebuilt() {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1), homed(1, 2)] };
    let users: &[u16] = &[3];
    let bounds = Bounds { resources, budget, mortal: &[3], users, ..calm(3) };
    visit_every_state("two resources", bounds);
}
