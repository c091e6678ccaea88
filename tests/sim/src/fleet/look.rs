//! Looks at all nodes again and again, for the oracles that compare them.

use std::collections::BTreeMap;

use lcl::{Mode, ResourceName};
use mfs::locks::Resource;
use mx_base::{Duration, Member};

use super::Fleet;
use super::host::Living;
use super::oracle::{grants, homes};

/// Between two looks at what all nodes hold.
const LOOK_EVERY: Duration = Duration::from_millis(3);
/// Every so many looks, a longer one.
const LONGER: u32 = 60;

impl Fleet {
    pub(super) async fn look(self) {
        let mut looks = 0_u32;
        let mut shown = BTreeMap::new();
        loop {
            self.exec.sleep(LOOK_EVERY).await;
            looks = looks.wrapping_add(1);
            let living = self.living();
            grants::check(&self.oracle, &living);
            if tracing::enabled!(target: "sim::locks", tracing::Level::DEBUG) {
                show_locks(&living, &mut shown);
            }
            if looks.is_multiple_of(LONGER / 10) {
                self.views.check(&self.oracle, &living);
            }
            if looks.is_multiple_of(LONGER) {
                homes::check(&self.oracle, &living);
            }
        }
    }

    /// Whoever may use what it has cached.
    pub(super) fn living(&self) -> Vec<Living> {
        let may = self.lives().into_iter().flatten();
        let may = may.filter(|life| !self.oracle.is_lost(life.id) && life.is_permitted());
        may.filter_map(|life| life.node().map(|node| Living { life, node })).collect()
    }
}

/// What a member may use, and whether it is being given up.
type Shown = BTreeMap<(Member, ResourceName), (Mode, bool)>;

/// Logs what has changed since the last look: grants, callouts, and what was given up.
fn show_locks(living: &[Living], shown: &mut Shown) {
    for Living { life, node } in living {
        let column = life.member.node.get();
        node.table().for_each(|entry| {
            let now = (entry.mode(), entry.is_closing());
            let before = shown.insert((life.member, entry.name()), now);
            let before = before.unwrap_or((Mode::NL, false));
            if before == now {
                return;
            }
            let name = Resource::of_name(&entry.name());
            let name = name.map_or_else(|| format!("{:?}", entry.name()), |r| format!("{r:?}"));
            let what = match (before.0 == now.0, now.1) {
                (true, true) => "called out",
                (true, false) => "kept",
                (false, _) => "has",
            };
            tracing::debug!(target: "sim::locks", column, "{name}: {what} {}", now.0);
        });
    }
}
