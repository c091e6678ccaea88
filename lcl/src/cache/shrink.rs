//! Making room: idle locks are given up, those that were not used for longest first.
//!
//! A hand goes round over the cached locks; one that was pinned since the hand last passed is
//! spared once (the clock algorithm).

use std::ops::Bound;
use std::sync::Arc;

use dlm::{Mode, ResourceName};

use super::{LockCache, Request};
use crate::pin::Entry;

impl LockCache {
    /// Surrenders begun to make room that may be under way at once: enough to keep the disk busy,
    /// few enough that a callout does not wait behind them.
    pub const SHRINK_AT_ONCE: usize = 64;

    /// Gives idle locks up until no more than `target` are left, a batch at a time: to be called
    /// again when surrenders have ended, for as long as it returns more than 0. Returns how many
    /// surrenders are under way.
    pub fn shrink(&mut self, target: usize) -> usize {
        if self.is_cut_off {
            return 0;
        }
        let going = self.surrenders_under_way;
        let excess = self.cached.len().saturating_sub(target).saturating_sub(going);
        self.surrender_idle(excess.min(LockCache::SHRINK_AT_ONCE.saturating_sub(going)));
        self.table.forget_unused();
        self.surrenders_under_way
    }

    /// The object that `entry` protects is not in use any more: its lock is given up, unless an
    /// operation relies on it, waits for it, or a surrender is under way.
    pub fn handle_idle(&mut self, entry: &Arc<Entry>) {
        if !self.is_cut_off && self.may_go(&entry.name()) {
            self.begin_surrender(entry.name(), Mode::NL);
        }
    }

    /// Is this a lock that nobody uses or waits for?
    fn may_go(&self, name: &ResourceName) -> bool {
        self.cached.get(name).is_some_and(|cached| {
            cached.surrender.is_none()
                && cached.request == Request::None
                && cached.called_out.is_none()
                && cached.entry.is_idle()
                && cached.entry.mode() != Mode::NL
        })
    }

    /// This node has as many locks as it may have.
    pub(super) fn make_room(&mut self) {
        if self.surrenders_under_way == 0 {
            self.surrender_idle(LockCache::SHRINK_AT_ONCE);
        }
    }

    /// Begins up to `count` surrenders of idle locks.
    fn surrender_idle(&mut self, count: usize) {
        let mut started = 0;
        // Two rounds: the first may only take the marks away.
        for _ in 0..self.cached.len() * 2 {
            if started == count {
                break;
            }
            let Some(name) = self.move_hand() else { break };
            if self.may_go(&name) && !self.cached[&name].entry.take_accessed() {
                self.begin_surrender(name, Mode::NL);
                self.counters.shrunk += 1;
                started += 1;
            }
        }
    }

    fn move_hand(&mut self) -> Option<ResourceName> {
        let after = match self.hand {
            Some(hand) => (Bound::Excluded(hand), Bound::Unbounded),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let next = self.cached.range(after).next().or_else(|| self.cached.first_key_value());
        self.hand = next.map(|(name, _)| *name);
        self.hand
    }
}
