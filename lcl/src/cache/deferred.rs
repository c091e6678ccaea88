//! What a home has denied because too much of this node waits there.
//!
//! Keeps true: each is asked for again when something of this node has ended at its home, one for
//! one, so that a home which is full is not asked in vain; and whenever the homes change.

use std::collections::{BTreeMap, VecDeque};

use dlm::ResourceName;
use mx_base::{Instant, Member};

use super::cached::{CachedLocks, Place, Request};
use super::{LockCache, PLACED};

/// By home, in the order in which they were denied. May list what is not wanted any more.
#[derive(Default)]
pub(super) struct Deferred(BTreeMap<Option<Member>, VecDeque<ResourceName>>);

impl Deferred {
    pub(super) fn contains(&self, name: &ResourceName) -> bool {
        self.0.values().any(|names| names.contains(name))
    }
}

impl LockCache {
    /// The home of what is at `place` has denied it: its turn comes again.
    pub(super) fn defer(&mut self, place: Place) {
        let cached = self.cached.get_mut(place).expect(PLACED);
        cached.request = Request::Deferred;
        self.counters.deferrals += 1;
        let home = self.lockspace.home(cached.entry.bucket());
        self.deferred.0.entry(home).or_default().push_back(cached.entry.name());
    }

    /// Something of this node has ended at `home`.
    pub(super) fn feed_deferred(&mut self, home: Option<Member>, now: Instant) {
        while let Some(names) = self.deferred.0.get_mut(&home) {
            let next = names.pop_front();
            if names.is_empty() {
                self.deferred.0.remove(&home);
            }
            if next.is_some_and(|name| self.ask_again(&name, now)) {
                return;
            }
        }
    }

    /// The homes have changed.
    pub(super) fn feed_all_deferred(&mut self, now: Instant) {
        for name in std::mem::take(&mut self.deferred.0).into_values().flatten() {
            self.ask_again(&name, now);
        }
    }

    /// Tells whether it still was deferred.
    fn ask_again(&mut self, name: &ResourceName, now: Instant) -> bool {
        let Some(place) = CachedLocks::find(&self.table, name) else { return false };
        let cached = self.cached.get_mut(place).expect(PLACED);
        let is_deferred = cached.request == Request::Deferred;
        if is_deferred {
            cached.request = Request::None;
            self.advance(place, now);
        }
        is_deferred
    }
}
