//! Rule: a home knows of every holder (I6): what a member may use was granted to it by the home of
//! the resource or reported to it, and the home keeps it in its table until the member has lowered
//! it. A home that has forgotten a holder grants what it must not.
//!
//! Looked at where both act in the same view and the home waits for no report.

use std::collections::BTreeMap;

use model::locks::Mode;
use mx_node::Surroundings;

use super::Oracle;
use crate::fleet::host::Living;

fn named(mode: &str) -> Option<Mode> {
    Mode::ALL.into_iter().find(|known| format!("{known:?}") == mode)
}

/// Does a grant of `granted` allow the use of `used`?
fn covers(granted: Mode, used: Mode) -> bool {
    // Whatever goes with the stronger one goes with the weaker one.
    Mode::ALL.into_iter().all(|m| !m.goes_with(granted) || m.goes_with(used))
}

pub(in crate::fleet) fn check(oracle: &Oracle, living: &[Living]) {
    let dumps: Vec<_> = living
        .iter()
        .map(|l| (l, l.node.view(), l.node.lock_dump(&Surroundings::default(), None, 10_000)))
        .collect();
    let mut homes = BTreeMap::new();
    for (home, view, dump) in &dumps {
        let Some(view) = view else { continue };
        let all = dump.file_systems.iter().flat_map(|of| of.homed.iter().map(|h| (&of.fs.id, h)));
        for (fs, homed) in all {
            if homed.unreported.is_empty() {
                homes.insert((view.id.0, fs, &homed.resource), (home.life.member, homed));
            }
        }
    }
    for (holder, view, dump) in &dumps {
        let Some(view) = view else { continue };
        let all = dump.file_systems.iter().flat_map(|of| of.locks.iter().map(|l| (&of.fs.id, l)));
        for (fs, lock) in all {
            let known = homes.get(&(view.id.0, fs, &lock.resource));
            let Some((home, homed)) = known else { continue };
            let me = holder.life.member;
            let granted = homed
                .granted
                .iter()
                .find(|g| {
                    g.member.node == me.node.get() && g.member.incarnation == me.incarnation.0
                })
                .and_then(|g| named(&g.mode))
                .unwrap_or(Mode::NL);
            let Some(used) = named(&lock.mode) else { continue };
            if !covers(granted, used) {
                let what = format!("{me} uses {lock:?}; its home {home} has {homed:?}");
                oracle.violation("home knows", what);
            }
        }
    }
}
