//! Keeping for a moment what others want while operations of this node use it again and again.
//!
//! Nodes that work on one object would exchange it for every operation otherwise, and an exchange
//! takes as long as many operations (`docs/decisions/0022-holding.md`).
//!
//! Keeps true: a callout is answered within [`HOLD`] of the grant that it is about; a lock is kept so
//! only if operations waited for it when it was given up last, only while more of them come, and
//! never when one of them needs more than is held.

use std::collections::BTreeMap;
use std::sync::Arc;

use dlm::ResourceName;
use mx_base::{Duration, Instant};

use super::cached::Place;
use super::{LockCache, Output, PLACED};
use crate::pin::Entry;

/// From a grant on, a lock that others want is kept so long at most.
pub const HOLD: Duration = Duration::from_millis(4);

/// What was not used for so long is given up before.
const UNUSED: Duration = Duration::from_millis(1);

/// Locks that others wanted while operations of this node waited for them.
#[derive(Default)]
pub(super) struct Holds(BTreeMap<ResourceName, Hold>);

#[derive(Clone, Copy, Default)]
struct Hold {
    /// None until it is granted, and when it was not used.
    until: Option<Instant>,
    /// [`LockCache::handle_held`] will be called.
    is_timed: bool,
}

impl Holds {
    /// It is given up now: does somebody here want it already?
    pub(super) fn surrendered(&mut self, entry: &Entry) {
        if entry.waiters() > 0 {
            self.0.entry(entry.name()).or_default().until = None;
        } else {
            self.0.remove(&entry.name());
        }
    }

    pub(super) fn granted(&mut self, name: &ResourceName, now: Instant) {
        if let Some(hold) = self.0.get_mut(name) {
            hold.until = Some(now + HOLD);
        }
    }

    pub(super) fn forget(&mut self, name: &ResourceName) {
        self.0.remove(name);
    }

    pub(super) fn is_timed(&self, name: &ResourceName) -> bool {
        self.0.get(name).is_some_and(|hold| hold.is_timed)
    }
}

impl LockCache {
    /// The time of [`Output::Hold`] has come.
    pub fn handle_held(&mut self, entry: &Arc<Entry>, now: Instant) {
        if self.is_cut_off {
            return;
        }
        if let Some(hold) = self.holds.0.get_mut(&entry.name()) {
            hold.is_timed = false;
            let is_used = entry.pins().0 > 0 || entry.take_accessed();
            hold.until = hold.until.filter(|until| is_used && now < *until);
        }
        let Some(place) = entry.place() else { return };
        self.advance(place, now);
        self.pump(now);
    }

    /// Is what others want kept for a moment?
    pub(super) fn holds(&mut self, place: Place, now: Instant) -> bool {
        let entry = &self.cached.get(place).expect(PLACED).entry;
        let Some(hold) = self.holds.0.get_mut(&entry.name()) else { return false };
        let Some(until) = hold.until.filter(|until| now < *until) else { return false };
        if entry.wanted().is_some() {
            return false;
        }
        if !hold.is_timed {
            hold.is_timed = true;
            entry.take_accessed();
            let until = until.min(now + UNUSED);
            self.counters.holds += 1;
            self.outputs.push_back(Output::Hold { entry: Arc::clone(entry), until });
        }
        true
    }
}
