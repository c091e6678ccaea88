//! What is aimed at a recovery hits it, and where it was aimed.

use std::collections::BTreeMap;

use mx_base::Duration;
use sim::fleet::aim::Phase;
use sim::fleet::plan::{Blow, Fault, Kind, Part, Plan, Weather, Workload};
use sim::fleet::run;

/// A host of five dies; then whoever plays the part, so many steps after it began to.
fn played(part: Part, steps: u64) -> BTreeMap<Phase, u32> {
    let ms = Duration::from_millis;
    let at = ms(2_500);
    let faults = vec![
        (at, Fault::Crash { host: 2, restart: ms(2_000) }),
        (at, Fault::Aimed { part, steps, blow: Blow::Crash, restart: ms(2_000) }),
    ];
    let plan = Plan {
        nodes: 5,
        weather: Weather::CALM,
        workload: Workload::Mixed,
        workers: 2,
        drift: 0,
        length: ms(4_500),
        faults,
        ..Plan::of_kind(3, Kind::Aimed)
    };
    let report = run(&plan).unwrap_or_else(|what| panic!("{what}\n{}", plan.to_json()));
    assert_eq!(report.hits, 1, "{part:?} is found: {}", plan.to_json());
    report.deaths_during_recovery
}

#[test]
fn whoever_plays_a_part_in_a_recovery_dies_while_it_does() {
    use Phase::{Scan, Unnoticed, Unproven};
    for (part, phases) in [
        (Part::Coordinator, vec![Unnoticed]),
        (Part::Candidate, vec![Unnoticed]),
        // The proof may be there by its next step.
        (Part::Administrator, vec![Unproven, Scan]),
        (Part::Heir, vec![Unproven, Scan]),
        (Part::Recoverer, vec![Scan]),
        (Part::Bystander, vec![Scan]),
    ] {
        let during = played(part, 1);
        let is_there = phases.iter().any(|phase| during == BTreeMap::from([(*phase, 1)]));
        assert!(is_there, "{part:?}: {during:?}");
    }
}

#[test]
fn the_more_steps_a_recoverer_takes_the_further_the_recovery_is() {
    let phases: Vec<Option<Phase>> = (0..16)
        .map(|steps| {
            let mut during = played(Part::Recoverer, 1 + 16 * steps);
            during.pop_first().map(|(phase, _)| phase)
        })
        .collect();
    let known: Vec<Phase> = phases.iter().copied().flatten().collect();
    assert!(known.is_sorted(), "{phases:?}");
    assert!(known.contains(&Phase::Scan) && known.contains(&Phase::Redo), "{phases:?}");
    assert_eq!(phases.last(), Some(&None), "it is over by then");
}
