//! Rule: a home knows of every holder (I6): what a member may use was granted to it by the home of
//! the resource or reported to it, and the home keeps it in its table until the member has lowered
//! it. A home that has forgotten a holder, or the resource with it, grants what it must not.
//!
//! Looked at where both act in the same view and the home waits for no report.

use model::locks::Mode;
use mx_base::{FsId, Member};
use mx_node::Surroundings;
use mx_node::report::{Homed, Lock};

use super::Oracle;
use crate::fleet::host::Living;

/// What one member has to say of a file system.
struct Told {
    member: Member,
    view: u64,
    locks: Vec<Lock>,
    homed: Vec<Homed>,
    /// It is the home of nothing for which it waits for reports.
    has_rebuilt: bool,
}

fn named(mode: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|known| format!("{known:?}") == mode)
}

/// Does a grant of `granted` allow the use of `used`?
fn covers(granted: Mode, used: Mode) -> bool {
    // Whatever goes with the stronger one goes with the weaker one.
    Mode::ALL.into_iter().all(|m| !m.goes_with(granted) || m.goes_with(used))
}

pub(in crate::fleet) fn check(oracle: &Oracle, fs: FsId, living: &[Living]) {
    let told = |Living { life, node }: &Living| {
        let view = node.view()?.id.0;
        let dump = node.lock_dump(&Surroundings::default(), None, usize::MAX);
        let of = dump.file_systems.into_iter().find(|of| of.fs.id == fs.to_string())?;
        let (locks, homed, has_rebuilt) = (of.locks, of.homed, node.has_rebuilt(fs));
        Some(Told { member: life.member, view, locks, homed, has_rebuilt })
    };
    let mut all: Vec<Told> = living.iter().filter_map(told).collect();
    all.iter_mut().for_each(|told| told.homed.sort_by(|a, b| a.resource.cmp(&b.resource)));
    judge(oracle, &all);
}

fn judge(oracle: &Oracle, all: &[Told]) {
    for holder in all {
        for lock in &holder.locks {
            let Some(used) = named(&lock.mode).filter(|used| *used != Mode::NL) else { continue };
            let is_home = |of: &&Told| lock.home == Some(of.member.into());
            let Some(home) = all.iter().find(is_home).filter(|home| home.view == holder.view)
            else {
                continue;
            };
            let homed = home.homed.binary_search_by(|homed| homed.resource.cmp(&lock.resource));
            let homed = homed.ok().map(|at| &home.homed[at]);
            if homed.map_or(!home.has_rebuilt, |homed| !homed.unreported.is_empty()) {
                continue;
            }
            let granted = homed.into_iter().flat_map(|homed| &homed.granted);
            let mine = granted.into_iter().find(|g| g.member == holder.member.into());
            let granted = mine.and_then(|granted| named(&granted.mode)).unwrap_or(Mode::NL);
            if !covers(granted, used) {
                let what = format!(
                    "{} uses {lock:?}; its home {} has {homed:?}",
                    holder.member, home.member
                );
                oracle.violation("home knows", what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};
    use mx_node::report::Granted;

    use super::*;
    use crate::exec::Executor;

    fn member(node: u16) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(1) }
    }

    /// Is it found that member 1 uses PR where its home 2 says this?
    fn is_found(homed: Option<&str>, has_rebuilt: bool, home_is_in_view: u64) -> bool {
        let lock = Lock {
            resource: "rename".to_owned(),
            bucket: 0,
            home: Some(member(2).into()),
            mode: "PR".to_owned(),
            pins: 0,
            kernel_pages: 0,
            waiters: 0,
            asked: None,
            called_out: None,
            surrendering_to: None,
        };
        let granted = |mode: &str| Granted {
            member: member(1).into(),
            mode: mode.to_owned(),
            called_out: None,
            since_ms: 0,
        };
        let homed = homed.map(|mode| Homed {
            resource: "rename".to_owned(),
            bucket: 0,
            granted: vec![granted(mode)],
            converting: Vec::new(),
            waiting: Vec::new(),
            remnants: Vec::new(),
            unreported: Vec::new(),
            value_is_valid: false,
        });
        let holder = Told {
            member: member(1),
            view: 7,
            locks: vec![lock],
            homed: Vec::new(),
            has_rebuilt: true,
        };
        let home = Told {
            member: member(2),
            view: home_is_in_view,
            locks: Vec::new(),
            homed: homed.into_iter().collect(),
            has_rebuilt,
        };
        let oracle = Oracle::new(&Executor::new(1));
        judge(&oracle, &[holder, home]);
        oracle.first_violation().is_some()
    }

    #[test]
    fn a_home_that_has_forgotten_a_holder_is_found() {
        assert!(!is_found(Some("PR"), true, 7) && !is_found(Some("EX"), true, 7));
        assert!(is_found(Some("CR"), true, 7) && is_found(Some("NL"), true, 7));
    }

    #[test]
    fn a_home_that_has_forgotten_the_resource_is_found_once_it_waits_for_no_report() {
        assert!(is_found(None, true, 7));
        assert!(!is_found(None, false, 7));
        assert!(!is_found(None, true, 8), "one of them is behind");
    }
}
