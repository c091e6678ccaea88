//! Makes a plan that fails smaller, as long as the same oracle finds it.
//!
//! Tried in turn until nothing helps any more: fewer faults, half of them first; fewer nodes; fewer
//! workers; shorter work; shorter faults; calm weather and true clocks.

use mx_base::Duration;

use super::{Fault, Plan, Weather, Workload};

/// The smallest plan found that still fails, and how many were tried. `fails` plays a plan and says
/// whether it fails in the same way.
pub fn shrink(
    plan: &Plan,
    tries_max: usize,
    mut fails: impl FnMut(&Plan) -> bool,
) -> (Plan, usize) {
    let (mut smallest, mut tries) = (plan.clone(), 0);
    loop {
        let mut smaller = None;
        for candidate in candidates(&smallest) {
            if tries == tries_max {
                return (smallest, tries);
            }
            tries += 1;
            if fails(&candidate) {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(plan) => smallest = plan,
            None => return (smallest, tries),
        }
    }
}

/// Plans that are a step smaller, the largest step first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    let count = plan.faults.len();
    let mut piece = count;
    while piece > 0 {
        for start in (0..count).step_by(piece) {
            let mut smaller = plan.clone();
            smaller.faults.drain(start..count.min(start + piece));
            all.push(smaller);
        }
        piece /= 2;
    }
    for nodes in [plan.nodes / 2, plan.nodes - 1] {
        if (1..plan.nodes).contains(&nodes) {
            all.push(with_nodes(plan, nodes));
        }
    }
    if plan.workers > 1 {
        all.push(Plan { workers: 1, ..plan.clone() });
        all.push(Plan { workers: plan.workers - 1, ..plan.clone() });
    }
    for (workload, _) in Workload::ALL {
        if plan.workload == Workload::Mixed && workload != Workload::Mixed {
            all.push(Plan { workload, ..plan.clone() });
        }
    }
    let last = plan.faults.last().map_or(Duration::ZERO, |(at, _)| *at);
    for length in [last + Duration::from_millis(50), plan.length / 2, plan.length * 3 / 4] {
        if length + Duration::from_millis(50) < plan.length {
            all.push(Plan { length, ..plan.clone() });
        }
    }
    if plan.drift > 0 {
        all.push(Plan { drift: 0, ..plan.clone() });
    }
    if plan.weather != Weather::CALM {
        all.push(Plan { weather: Weather::CALM, ..plan.clone() });
    }
    for i in 0..count {
        if let Some(shorter) = shorter(plan.faults[i].1) {
            let mut smaller = plan.clone();
            smaller.faults[i].1 = shorter;
            all.push(smaller);
        }
    }
    all
}

fn with_nodes(plan: &Plan, nodes: usize) -> Plan {
    let mut smaller = Plan { nodes, ..plan.clone() };
    smaller.faults.retain(|(_, fault)| fault.hosts().into_iter().flatten().all(|h| h < nodes));
    smaller
}

fn shorter(fault: Fault) -> Option<Fault> {
    let half = |length: Duration| (length > Duration::from_millis(100)).then_some(length / 2);
    Some(match fault {
        Fault::Crash { host, restart } => Fault::Crash { host, restart: half(restart)? },
        Fault::PowerOff { host, restart } => Fault::PowerOff { host, restart: half(restart)? },
        Fault::Pause { host, length } => Fault::Pause { host, length: half(length)? },
        Fault::Partition { mask, length } => Fault::Partition { mask, length: half(length)? },
        Fault::OneWay { from, to, length } => Fault::OneWay { from, to, length: half(length)? },
        Fault::CutStorage { host, length } => Fault::CutStorage { host, length: half(length)? },
        Fault::StuckWrite { host, length } => Fault::StuckWrite { host, length: half(length)? },
        Fault::Freeze { host, length } => Fault::Freeze { host, length: half(length)? },
        Fault::DeviceFull { host, length } => Fault::DeviceFull { host, length: half(length)? },
        Fault::Leave { host, restart } => Fault::Leave { host, restart: half(restart)? },
        Fault::LoseJournal { host, restart } => {
            Fault::LoseJournal { host, restart: half(restart)? }
        }
        Fault::HeadFlip { host, copy, bit, restart } => {
            Fault::HeadFlip { host, copy, bit, restart: half(restart)? }
        }
        Fault::CrashStep { host, steps, restart } => {
            Fault::CrashStep { host, steps, restart: half(restart)? }
        }
        Fault::SlowLink { from, to, extra, length } => {
            Fault::SlowLink { from, to, extra, length: half(length)? }
        }
        Fault::Reorder { spread, length } => Fault::Reorder { spread, length: half(length)? },
        Fault::HalfOpen { percent, late } => Fault::HalfOpen { percent, late: half(late)? },
        Fault::SlowStorage { host, extra, length } => {
            Fault::SlowStorage { host, extra, length: half(length)? }
        }
        Fault::Aimed { part, steps, blow, restart } => {
            Fault::Aimed { part, steps, blow, restart: half(restart)? }
        }
        Fault::LateWrite { host, hold, late, restart } => {
            Fault::LateWrite { host, hold, late: half(late)?, restart }
        }
        Fault::BreakConnections { .. }
        | Fault::ReadError { .. }
        | Fault::BitFlip { .. }
        | Fault::Check { .. }
        | Fault::WallJump { .. }
        | Fault::PowerFailure => return None,
    })
}

impl Fault {
    /// Whom it concerns; `None` where it is nobody in particular.
    pub fn hosts(self) -> [Option<usize>; 2] {
        match self {
            Fault::Crash { host, .. }
            | Fault::CrashStep { host, .. }
            | Fault::PowerOff { host, .. }
            | Fault::Pause { host, .. }
            | Fault::CutStorage { host, .. }
            | Fault::SlowStorage { host, .. }
            | Fault::StuckWrite { host, .. }
            | Fault::LateWrite { host, .. }
            | Fault::DeviceFull { host, .. }
            | Fault::Freeze { host, .. }
            | Fault::Check { host }
            | Fault::WallJump { host, .. }
            | Fault::LoseJournal { host, .. }
            | Fault::HeadFlip { host, .. }
            | Fault::Leave { host, .. } => [Some(host), None],
            Fault::OneWay { from, to, .. } | Fault::SlowLink { from, to, .. } => {
                [Some(from), Some(to)]
            }
            Fault::Partition { .. }
            | Fault::Reorder { .. }
            | Fault::BreakConnections { .. }
            | Fault::HalfOpen { .. }
            | Fault::ReadError { .. }
            | Fault::BitFlip { .. }
            | Fault::Aimed { .. }
            | Fault::PowerFailure => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::plan::Kind;

    #[test]
    fn only_what_is_needed_for_the_failure_is_left() {
        let plan = Plan::of_kind(9, Kind::Harsh);
        let crash = Fault::Crash { host: 1, restart: Duration::from_secs(3) };
        let mut plan = Plan { nodes: 9, workers: 3, ..plan };
        plan.faults.push((Duration::from_secs(7), crash));
        let fails = |plan: &Plan| {
            plan.nodes >= 3 && plan.faults.iter().any(|(_, f)| matches!(f, Fault::Crash { .. }))
        };
        let (smallest, tries) = shrink(&plan, 1_000, fails);
        assert!(tries < 200, "{tries}");
        assert_eq!((smallest.nodes, smallest.workers, smallest.faults.len()), (3, 1, 1));
        assert_eq!((smallest.drift, smallest.weather), (0, Weather::CALM));
    }
}
