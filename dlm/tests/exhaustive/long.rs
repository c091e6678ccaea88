//! As `main.rs`, further: minutes for each, in a release build. `cargo xtask exhaustive`.

mod cluster;
mod events;
mod explore;
mod model;
mod oracle;
mod steps;
mod visit;

use dlm::Mode;

use crate::cluster::Budget;
use crate::model::{Bounds, Resource, calm, homed};
use crate::oracle::{CONVERTS, EARLY, GHOST, LIMBO, REBUILT};
use crate::visit::visit_every_state;

#[test]
fn three_nodes_use_three_modes() {
    let budget = Budget {
        requests: 3,
        impatient: 1,
        conversions: 1,
        releases: 1,
        cancels: 1,
        ..Budget::NONE
    };
    let modes = &[Mode::CR, Mode::PR, Mode::EX];
    visit_every_state("three modes", Bounds { modes, budget, sights: &[CONVERTS], ..calm(3) });
}

#[test]
fn three_nodes_use_every_mode() {
    let budget = Budget { requests: 3, conversions: 1, releases: 1, ..Budget::NONE };
    visit_every_state("every mode", Bounds { modes: &Mode::ALL, budget, ..calm(3) });
}

#[test]
fn the_home_dies_and_everybody_converts() {
    let budget = Budget { requests: 3, conversions: 1, stops: 1, ..Budget::NONE };
    let sights = &[CONVERTS, EARLY, GHOST, LIMBO, REBUILT];
    visit_every_state(
        "death of the home",
        Bounds { resources: const { &[homed(3, 1)] }, budget, mortal: &[3], sights, ..calm(3) },
    );
}

#[test]
fn the_home_is_expelled_while_locks_are_given_up() {
    let budget = Budget { requests: 3, releases: 1, cancels: 1, expulsions: 1, ..Budget::NONE };
    let sights = &[EARLY, GHOST, LIMBO, REBUILT];
    visit_every_state(
        "expulsion of the home",
        Bounds { resources: const { &[homed(3, 1)] }, budget, mortal: &[3], sights, ..calm(3) },
    );
}

#[test]
fn two_resources_of_which_one_is_cached() {
    let budget = Budget { requests: 3, stops: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1), Resource { is_cached: false, ..homed(1, 2) }] };
    let sights = &[EARLY, GHOST, LIMBO, REBUILT];
    visit_every_state(
        "two resources",
        Bounds { resources, budget, mortal: &[3], users: &[1, 3], sights, ..calm(3) },
    );
}

#[test]
fn a_node_joins_while_another_dies() {
    let budget = Budget { requests: 1, stops: 1, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(2, 1) }] };
    visit_every_state(
        "join and death",
        Bounds {
            joiner: Some((3, 1)),
            resources,
            budget,
            mortal: &[2],
            sights: &[EARLY, LIMBO, REBUILT],
            ..calm(2)
        },
    );
}

#[test]
fn a_dead_node_comes_back_in_a_new_life_and_asks_again() {
    let budget = Budget { requests: 2, stops: 1, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(2, 1) }] };
    visit_every_state(
        "new life",
        Bounds {
            joiner: Some((2, 2)),
            resources,
            budget,
            mortal: &[2],
            sights: &[EARLY, LIMBO, REBUILT],
            ..calm(2)
        },
    );
}

#[test]
fn the_recoverer_dies_too() {
    let budget = Budget { requests: 1, stops: 2, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    visit_every_state(
        "two deaths",
        Bounds { resources, budget, mortal: &[3, 1], users: &[3], sights: &[EARLY], ..calm(3) },
    );
}
