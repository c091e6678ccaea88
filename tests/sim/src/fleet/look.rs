//! Looks at all nodes again and again, for the oracles that compare them and need not do so with every
//! step.

use std::collections::{BTreeMap, BTreeSet};

use lcl::{Mode, ResourceName};
use mfs::block::BlockNo;
use mfs::layout::GroupNo;
use mfs::locks::Resource;
use mx_base::{Duration, FsId};
use mx_node::Surroundings;
use mx_node::report::{Homed, Lock, Member, ResourceFilter};

use super::host::Living;
use super::oracle::bounds::UNAFFECTED_WITHIN;
use super::oracle::homes;
use super::plan::Workload;
use super::work::bystanders::Needs;
use super::{Fleet, LifeId};

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
            if tracing::enabled!(target: "sim::locks", tracing::Level::DEBUG) {
                for volume in &self.volumes {
                    show_locks(volume.fs, &living, &mut shown);
                }
            }
            self.excuse_bystanders(&living);
            if looks.is_multiple_of(LONGER) {
                let each = self.volumes.iter();
                each.for_each(|volume| homes::check(&self.oracle, volume.fs, &living));
            }
        }
    }

    /// Looks for whom bystanders wait that do.
    fn excuse_bystanders(&self, living: &[Living]) {
        let bystanders = &self.first().work.bystanders;
        let waiting = bystanders.waiting(self.exec.now(), UNAFFECTED_WITHIN / 2);
        if waiting.is_empty() {
            return;
        }
        let left = self.resources_left(living);
        for (life, groups) in waiting {
            let Some(Living { node, .. }) = living.iter().find(|l| l.life.id == life) else {
                if self.has_lost_its_majority(life) {
                    bystanders.excuse(life, Needs::Home);
                }
                continue;
            };
            let dump = node.lock_dump(&Surroundings::default(), None, 10_000);
            for lock in dump.file_systems.iter().flat_map(|fs| &fs.locks) {
                if lock.waiters == 0 {
                    continue;
                }
                let column = node.config().me.node.get();
                tracing::debug!(target: "sim::locks", column, ?lock, "waits");
                let is_theirs = self.may_be_of(lock, &groups);
                // Where others make and remove files, a new one may get the place of one of theirs.
                let is_held =
                    self.dead_held.lock().contains(&lock.resource) || left.contains(&lock.resource);
                if is_held && (is_theirs || self.plan.workload == Workload::Mixed) {
                    bystanders.excuse(life, Needs::Held);
                } else if is_theirs && lock.home.is_none_or(|home| self.is_dead(home)) {
                    bystanders.excuse(life, Needs::Home);
                }
            }
        }
    }

    /// Are half of the members of its view dead? Then nobody serves what it has cached before there
    /// is another view (R13).
    fn has_lost_its_majority(&self, life: LifeId) -> bool {
        let lives: Vec<_> = self.lives().into_iter().flatten().collect();
        let node = lives.iter().find(|l| l.id == life).and_then(|l| l.node());
        let Some(view) = node.and_then(|node| node.view()) else { return false };
        let is_alive = |member: &mx_base::Member| {
            lives.iter().any(|l| l.member == *member && !self.oracle.is_lost(l.id))
        };
        let alive = view.members().iter().filter(|member| is_alive(member)).count();
        2 * alive <= view.members().len()
    }

    /// May it be a bystander that wants the lock, whose files lie in these groups?
    fn may_be_of(&self, lock: &Lock, groups: &BTreeSet<GroupNo>) -> bool {
        let resource = lock.resource.parse::<ResourceFilter>().ok();
        match resource.and_then(|filter| filter.resource()) {
            Some(Resource::Group(_)) => true,
            Some(Resource::Inode(inode) | Resource::Open(inode)) => {
                let group = self.first().layout.group_of(BlockNo(inode.0));
                group.is_some_and(|group| groups.contains(&group))
            }
            Some(
                Resource::Superblock
                | Resource::Freeze
                | Resource::Slot(_)
                | Resource::Rename
                | Resource::Space,
            )
            | None => false,
        }
    }

    fn is_dead(&self, home: Member) -> bool {
        let lives = self.lives().into_iter().flatten();
        let of = lives.filter(|life| !self.oracle.is_lost(life.id)).map(|life| life.member);
        !of.into_iter().any(|m| m.node.get() == home.node && m.incarnation.0 == home.incarnation)
    }

    /// What a dead node holds as its home sees it, before the view without it and after: also what
    /// was granted while it died, or given up, and no message has told of.
    fn resources_left(&self, living: &[Living]) -> BTreeSet<String> {
        let dump = |l: &Living| l.node.lock_dump(&Surroundings::default(), None, usize::MAX);
        let dumps = living.iter().map(dump);
        let homed = dumps.flat_map(|dump| dump.file_systems).flat_map(|locks| locks.homed);
        let is_left = |homed: &Homed| {
            !homed.remnants.is_empty() || homed.granted.iter().any(|of| self.is_dead(of.member))
        };
        homed.filter(is_left).map(|homed| homed.resource).collect()
    }

    /// Whoever may use what it has cached.
    pub(super) fn living(&self) -> Vec<Living> {
        let may = self.lives().into_iter().flatten();
        let may = may.filter(|life| !self.oracle.is_lost(life.id) && life.is_permitted());
        let living = may.filter_map(|life| life.node().map(|node| Living { life, node }));
        living.filter(|living| !living.node.has_ended()).collect()
    }
}

/// What a member may use, and whether it is being given up.
type Shown = BTreeMap<(mx_base::Member, FsId, ResourceName), (Mode, bool)>;

/// Logs what has changed since the last look: grants, callouts, and what was given up.
fn show_locks(fs: FsId, living: &[Living], shown: &mut Shown) {
    for Living { life, node } in living {
        let column = life.member.node.get();
        let Some(table) = node.table(fs) else { continue };
        table.for_each(|entry| {
            let now = (entry.mode(), entry.is_closing());
            let before = shown.insert((life.member, fs, entry.name()), now);
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
