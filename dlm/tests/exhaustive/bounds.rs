//! Explorations of seconds, by which broken rules are found, too.

use crate::cluster::Budget;
use crate::model::{Bounds, Resource, Sight, calm, homed};
use crate::oracle::{CONVERTS, EARLY, GHOST, LIMBO, REBUILT};

pub(crate) const fn three_nodes() -> Bounds {
    let budget = Budget { requests: 3, conversions: 1, releases: 1, cancels: 1, ..Budget::NONE };
    Bounds { budget, sights: &[CONVERTS], ..calm(3) }
}

pub(crate) const fn death_of_a_user() -> Bounds {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let sights: &[Sight] = &[LIMBO, GHOST];
    Bounds { budget, mortal: &[3], sights, ..calm(3) }
}

pub(crate) const fn death_of_the_home() -> Bounds {
    let budget = Budget { requests: 2, stops: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights: &[Sight] = &[LIMBO, GHOST, REBUILT, EARLY];
    Bounds { resources, budget, mortal: &[3], sights, ..calm(3) }
}

pub(crate) const fn join() -> Bounds {
    let budget = Budget { requests: 2, joins: 1, ..Budget::NONE };
    let resources = const { &[Resource { goes_to_joiner: true, ..homed(1, 2) }] };
    let joiner = Some((3, 1));
    let sights: &[Sight] = &[REBUILT, EARLY];
    Bounds { joiner, resources, budget, sights, ..calm(2) }
}

pub(crate) const fn leave() -> Bounds {
    let budget = Budget { requests: 3, leaves: 1, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    let sights: &[Sight] = &[REBUILT];
    Bounds { resources, budget, mortal: &[3], sights, ..calm(3) }
}

pub(crate) const fn two_deaths() -> Bounds {
    let budget = Budget { stops: 2, ..Budget::NONE };
    let resources = const { &[homed(3, 1)] };
    Bounds { resources, budget, mortal: &[3, 1], ..calm(3) }
}
