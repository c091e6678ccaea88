//! Who waits for which lock of a file system on this node, for how long, and what a recovery has to do with it.
//!
//! Keeps true: a wait is in the list from its first to its last moment, whatever ends it; what is
//! kept of the past is bounded. Has a latch of its own, taken after the node's, never before it.
//! Changes nothing that anybody else relies on; a pin of a cached lock does not come here.

use std::collections::{BTreeMap, VecDeque};

use lcl::hot::HotResources;
use lcl::pin::Want;
use lcl::{Bucket, Lockspace, LockspaceCounters, ResourceName};
use mx_base::{Duration, Instant, Member};

use crate::file_system::{FsCore, Here};
use crate::node::Node;

/// Of each recovery so many waits are told of one by one, the longest.
pub(crate) const LONGEST_MAX: usize = 16;

/// As many recoveries as the cluster tells of.
const COURSES_MAX: usize = 32;

/// Why somebody waited, as far as this node knows; what says more is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Cause {
    /// Another node decides about the lock, and knows.
    Home(Member),
    /// The dead member decided about it; this one does now, and it may have to be rebuilt there.
    HomeDied(Member),
    /// This node decides, and has not heard from everybody who may hold it.
    Rebuild,
    /// The dead member may have cached it for reading.
    Caches,
    /// The dead member may have changed what it protects: its journal has to be replayed.
    Limbo,
}

/// One operation that waits.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) since: Instant,
    pub(crate) want: Want,
    pub(crate) bucket: Bucket,
    /// The process it is for.
    pub(crate) pid: Option<u32>,
    /// By dead member.
    causes: BTreeMap<Member, Cause>,
}

/// A wait that a recovery had to do with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Delay {
    pub(crate) name: ResourceName,
    pub(crate) want: Want,
    pub(crate) pid: Option<u32>,
    pub(crate) waited: Duration,
    pub(crate) cause: Cause,
    pub(crate) is_over: bool,
}

/// What one recovery did on this node, and to it.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    dead: Member,
    /// What the lock manager had counted when the member was lost.
    before: LockspaceCounters,
    /// Locks and buckets rebuilt here in the view without it.
    pub(crate) rebuilt: Option<(u64, u64)>,
    /// Resources in limbo here: freed without, and after, a replay.
    pub(crate) limbo: (u64, u64),
    /// Sent by this node to rebuild and to recover.
    pub(crate) messages: u64,
    pub(crate) is_over: bool,
    /// Longest first.
    longest: Vec<Delay>,
    count: u64,
    total: Duration,
}

/// All waits of a node in one file system.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<(ResourceName, u64), Wait>,
    courses: VecDeque<Course>,
    hot: HotResources,
}

/// Why `name` cannot be had because of `dead`, or perhaps because of it.
fn cause(space: &Lockspace, dead: Member, name: ResourceName, bucket: Bucket) -> Option<Cause> {
    let home = space.home(bucket)?;
    if home != space.me() {
        return Some(Cause::Home(home));
    }
    let state = space.explain(name, bucket).at_home?;
    match state.remnants.iter().find(|remnant| remnant.dead == dead) {
        Some(remnant) if remnant.is_limbo => Some(Cause::Limbo),
        Some(_) => Some(Cause::Caches),
        None => (!state.unreported.is_empty()).then_some(Cause::Rebuild),
    }
}

impl Waiters {
    /// Those who wait for a resource, oldest first.
    pub(crate) fn of(&self, name: ResourceName) -> Vec<Wait> {
        let range = self.waiting.range((name, 0)..=(name, u64::MAX));
        let mut waits: Vec<Wait> = range.map(|(_, wait)| wait.clone()).collect();
        waits.sort_by_key(|wait| wait.since);
        waits
    }

    pub(crate) fn hot(&self) -> &HotResources {
        &self.hot
    }

    /// What is known of the recovery of `dead`: its course, and the delays, the longest first,
    /// their number and sum.
    pub(crate) fn course(
        &self,
        dead: Member,
        now: Instant,
    ) -> Option<(&Course, Vec<Delay>, u64, Duration)> {
        let course = self.courses.iter().rev().find(|course| course.dead == dead)?;
        let mut course_now = course.clone();
        for ((name, _), wait) in &self.waiting {
            course_now.take_in(*name, wait, now, false);
        }
        Some((course, course_now.longest, course_now.count, course_now.total))
    }

    /// The dead members whose recovery is not over.
    fn under_way(&self) -> Vec<Member> {
        self.courses.iter().filter(|course| !course.is_over).map(|course| course.dead).collect()
    }

    fn begin(&mut self, name: ResourceName, ticket: u64, wait: Wait) {
        self.waiting.insert((name, ticket), wait);
    }

    fn end(&mut self, name: ResourceName, ticket: u64, now: Instant) {
        let Some(wait) = self.waiting.remove(&(name, ticket)) else { return };
        let micros = u64::try_from(now.since(wait.since).as_micros()).unwrap_or(u64::MAX);
        self.hot.count(name, |heat| {
            heat.waits += 1;
            heat.waited_us = heat.waited_us.saturating_add(micros);
        });
        for course in &mut self.courses {
            course.take_in(name, &wait, now, true);
        }
    }

    /// Members are lost, and the lock manager has not followed yet.
    pub(crate) fn lose(&mut self, lost: &[Member], space: &Lockspace) {
        for dead in lost {
            if self.courses.len() == COURSES_MAX {
                self.courses.pop_front();
            }
            self.courses.push_back(Course::new(*dead, *space.counters()));
            for wait in self.waiting.values_mut() {
                if space.home(wait.bucket) == Some(*dead) {
                    wait.causes.insert(*dead, Cause::HomeDied(*dead));
                }
            }
        }
    }

    /// The lock manager knows more about why those wait who do.
    pub(crate) fn look_again(&mut self, space: &Lockspace) {
        for dead in self.under_way() {
            for ((name, _), wait) in &mut self.waiting {
                let Some(found) = cause(space, dead, *name, wait.bucket) else { continue };
                let known = wait.causes.entry(dead).or_insert(found);
                let is_same_home = matches!(known, Cause::HomeDied(_));
                if let (true, Cause::Home(heir)) = (is_same_home, found) {
                    *known = Cause::HomeDied(heir);
                }
                *known = found.max(*known);
            }
        }
    }

    /// Everything homed here is rebuilt for the view without those who are lost.
    pub(crate) fn rebuilt(&mut self, space: &Lockspace) {
        let counters = space.counters();
        for course in self.courses.iter_mut().filter(|course| course.rebuilt.is_none()) {
            course.rebuilt = Some((
                counters.locks_rebuilt - course.before.locks_rebuilt,
                counters.buckets_rebuilt - course.before.buckets_rebuilt,
            ));
        }
        self.look_again(space);
    }

    /// Nothing of them is left, where `is_over` says so.
    pub(crate) fn recovered(&mut self, space: &Lockspace, is_over: impl Fn(Member) -> bool) {
        let counters = space.counters();
        for course in self.courses.iter_mut().filter(|course| !course.is_over) {
            course.limbo = (
                counters.limbo_freed - course.before.limbo_freed,
                counters.limbo_redone - course.before.limbo_redone,
            );
            course.messages = counters.sent_for_recovery() - course.before.sent_for_recovery();
            course.is_over = is_over(course.dead);
        }
    }
}

impl Course {
    fn new(dead: Member, before: LockspaceCounters) -> Course {
        let (rebuilt, limbo, messages, is_over) = (None, (0, 0), 0, false);
        let (longest, count, total) = (Vec::new(), 0, Duration::ZERO);
        Course { dead, before, rebuilt, limbo, messages, is_over, longest, count, total }
    }

    fn take_in(&mut self, name: ResourceName, wait: &Wait, now: Instant, is_over: bool) {
        let Some(cause) = wait.causes.get(&self.dead) else { return };
        let waited = now.since(wait.since);
        self.count += 1;
        self.total = self.total.saturating_add(waited);
        let at = self.longest.partition_point(|delay| delay.waited >= waited);
        let Wait { want, pid, .. } = *wait;
        self.longest.insert(at, Delay { name, want, pid, waited, cause: *cause, is_over });
        self.longest.truncate(LONGEST_MAX);
    }
}

impl Node {
    /// Names the process on whose behalf the calling thread acts, so that whoever waits can be
    /// told; said once, before anything is mounted.
    pub fn name_callers(&self, pid: fn() -> Option<u32>) {
        let _ = self.caller.set(pid);
    }
}

impl FsCore {
    /// The lock manager has followed a view.
    pub(crate) fn look_at_waiters(&self) {
        if let Some(locks) = &self.locks {
            self.local.waiters.lock().look_again(locks.lockspace());
        }
    }
}

impl Here {
    pub(crate) fn begins_to_wait(
        &self,
        name: ResourceName,
        bucket: Bucket,
        ticket: u64,
        want: Want,
    ) {
        let Here { node, local } = self;
        let pid = node.caller.get().and_then(|pid| pid());
        let dead = local.waiters.lock().under_way();
        let (since, causes) = if dead.is_empty() {
            (node.world.control.now(), BTreeMap::new())
        } else {
            self.look(|fs| {
                let locks = fs.locks.as_ref();
                let causes = dead.iter().filter_map(|dead| {
                    Some((*dead, cause(locks?.lockspace(), *dead, name, bucket)?))
                });
                (node.world.control.now(), causes.collect())
            })
        };
        local.waiters.lock().begin(name, ticket, Wait { since, want, bucket, pid, causes });
    }

    pub(crate) fn has_waited(&self, name: ResourceName, ticket: u64) {
        let now = self.node.world.control.now();
        self.local.waiters.lock().end(name, ticket, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mx_base::{Incarnation, NodeId};

    fn member(node: u16) -> Member {
        Member { node: NodeId::new(node).expect("valid"), incarnation: Incarnation(1) }
    }

    fn name(number: u64) -> ResourceName {
        ResourceName::new(&number.to_le_bytes()).expect("short")
    }

    fn wait(since: u64, causes: &[(Member, Cause)]) -> Wait {
        let causes = causes.iter().copied().collect();
        let bucket = Bucket::of(1);
        Wait { since: Instant(since), want: Want::write(), bucket, pid: Some(9), causes }
    }

    #[test]
    fn of_many_waits_of_a_recovery_the_longest_are_told_and_all_are_counted() {
        let dead = member(3);
        let mut waiters = Waiters::default();
        waiters.courses.push_back(Course::new(dead, LockspaceCounters::default()));
        for number in 0..100 {
            waiters.begin(name(number), number, wait(number, &[(dead, Cause::Limbo)]));
        }
        waiters.begin(name(500), 0, wait(0, &[]));
        for number in 0..99 {
            waiters.end(name(number), number, Instant(1000));
        }
        waiters.end(name(500), 0, Instant(1_000_000));
        let (_, longest, count, total) = waiters.course(dead, Instant(1000)).expect("a course");
        assert_eq!((longest.len(), count), (LONGEST_MAX, 100));
        let all: u64 = (0..100).map(|number| 1000 - number).sum();
        assert_eq!(total, Duration::from_nanos(all));
        assert_eq!(longest[0].waited, Duration::from_nanos(1000));
        assert!(longest.iter().all(|delay| delay.is_over && delay.pid == Some(9)));
        assert_eq!(waiters.of(name(99)).len(), 1, "it still waits");
        assert!(waiters.course(member(4), Instant(1000)).is_none());
        let heat = waiters.hot().iter().find(|(found, _)| **found == name(500));
        assert_eq!(heat.map(|(_, heat)| (heat.waits, heat.waited_us)), Some((1, 1000)));
    }
}
