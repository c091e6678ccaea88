//! The search for owners that wait for each other (`docs/spec/locks.md`, 10).
//!
//! Keeps true: a wait ends only for a cycle of which every wait was there at one and the same time,
//! as far as each owner does nothing while it waits; every search ends, by the length of its path
//! and by its budget.

use mx_base::Member;

use super::Lockspace;
use crate::advisory::wait::victim_last;
use crate::advisory::{Family, Todo, Verdict, Wait};
use crate::message::{BucketEpoch, Message};
use crate::violation::Violation;

impl Lockspace {
    /// The search goes on at the home of the last wait of `path`.
    pub(super) fn follow(&mut self, path: Vec<Wait>, budget: u16) {
        let last = path.last().expect("a path has a wait");
        match self.homes.home(last.bucket) {
            Some(home) if home == self.me => {
                self.advisory.todo.push_back(Todo::Follow { path, budget });
            }
            Some(home) => {
                let at = self.at(last.bucket);
                self.send(home, Message::Follow { at, path, budget });
            }
            None => {}
        }
    }

    /// At the home of the last wait: asks those in its way what they wait for.
    pub(super) fn followed(&mut self, path: Vec<Wait>, budget: u16) {
        self.hear_of(&path);
        let last = *path.last().expect("a path has a wait");
        if !self.may_decide(last.bucket) {
            // Everything here is looked at anew when it may.
            return;
        }
        let blockers = self.advisory.home.blockers_of(&last);
        let first = path[0];
        let is_cycle = |(member, owner): &(Member, crate::advisory::Owner)| {
            owner.family == Family::Ranges && first.is_of(*member, owner.id)
        };
        if blockers.iter().any(is_cycle) {
            return self.confirm(victim_last(path), 0);
        }
        if path.len() == Wait::PATH_MAX {
            return;
        }
        let is_new = |(member, owner): &(Member, crate::advisory::Owner)| {
            self.view.contains(*member) && !path.iter().any(|wait| wait.is_of(*member, owner.id))
        };
        let next: Vec<_> = blockers.into_iter().filter(is_new).take(budget.into()).collect();
        let Ok(count) = u16::try_from(next.len()) else { return };
        for (member, owner) in next {
            let (path, owner, budget) = (path.clone(), owner.id, budget / count);
            if member == self.me {
                self.advisory.todo.push_back(Todo::Trace { path, member, owner, budget });
            } else {
                let view = self.view.id;
                self.send(member, Message::Trace { view, path, owner, budget });
            }
        }
    }

    /// At the member of `owner`, who is in the way of the last wait.
    pub(super) fn traced(&mut self, path: Vec<Wait>, member: Member, owner: u64, budget: u16) {
        debug_assert!(member == self.me, "an owner is looked for at its member");
        self.hear_of(&path);
        let waits = self.advisory.own.waits_of(self.me, owner);
        let waits: Vec<Wait> = waits.into_iter().take(budget.into()).collect();
        let Ok(count) = u16::try_from(waits.len()) else { return };
        for wait in waits {
            let mut path = path.clone();
            path.push(wait);
            self.follow(path, budget / count);
        }
    }

    /// Goes round the cycle once more: each of its waits has been seen, now all of them must be
    /// there still. The last one ends.
    fn confirm(&mut self, cycle: Vec<Wait>, at: u16) {
        let next = cycle[usize::from(at)];
        match self.homes.home(next.bucket) {
            Some(home) if home == self.me => {
                self.advisory.todo.push_back(Todo::Confirm { cycle, at });
            }
            Some(home) => {
                let bucket = self.at(next.bucket);
                self.send(home, Message::Confirm { at: bucket, cycle, position: at });
            }
            None => {}
        }
    }

    pub(super) fn confirmed(&mut self, cycle: Vec<Wait>, at: u16) {
        self.hear_of(&cycle);
        let position = usize::from(at);
        let (this, next) = (cycle[position], cycle[(position + 1) % cycle.len()]);
        let waits_for_it = self.may_decide(this.bucket)
            && self.advisory.home.blockers_of(&this).iter().any(|(member, owner)| {
                owner.family == Family::Ranges && next.is_of(*member, owner.id)
            });
        if !waits_for_it {
            return;
        }
        if position + 1 < cycle.len() {
            return self.confirm(cycle, at + 1);
        }
        self.end_wait_at_home(this.bucket, this.name, this.claim(), Verdict::Deadlock);
    }

    fn hear_of(&mut self, waits: &[Wait]) {
        waits.iter().for_each(|wait| self.advisory.own.hear(wait.stamp));
    }

    // --- messages of a search ---

    pub(super) fn take_in_trace(
        &mut self,
        path: Vec<Wait>,
        owner: u64,
        budget: u16,
    ) -> Result<(), Violation> {
        if path.len() >= Wait::PATH_MAX {
            return Err(Violation::PathTooLong);
        }
        let member = self.me;
        self.advisory.todo.push_back(Todo::Trace { path, member, owner, budget });
        self.carry_on();
        Ok(())
    }

    pub(super) fn take_in_follow(
        &mut self,
        at: BucketEpoch,
        path: Vec<Wait>,
        budget: u16,
    ) -> Result<(), Violation> {
        if path.last().is_none_or(|wait| wait.bucket != at.bucket) {
            return Err(Violation::NotHome);
        }
        self.advisory.todo.push_back(Todo::Follow { path, budget });
        self.carry_on();
        Ok(())
    }

    pub(super) fn take_in_confirm(
        &mut self,
        bucket: BucketEpoch,
        cycle: Vec<Wait>,
        at: u16,
    ) -> Result<(), Violation> {
        if cycle.get(usize::from(at)).is_none_or(|wait| wait.bucket != bucket.bucket) {
            return Err(Violation::NotHome);
        }
        self.advisory.todo.push_back(Todo::Confirm { cycle, at });
        self.carry_on();
        Ok(())
    }
}
