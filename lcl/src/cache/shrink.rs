//! Making room: idle locks are given up, those that were not used for longest first.
//!
//! A hand goes round over the cached locks; one that was pinned since the hand last passed is
//! spared once (the clock algorithm).

use std::sync::Arc;

use dlm::Mode;

use super::{LockCache, Place, Request};
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
        if !self.is_cut_off
            && let Some(place) = entry.place().filter(|place| self.may_go(*place))
        {
            self.begin_surrender(place, Mode::NL);
        }
    }

    /// Is this a lock that nobody uses or waits for?
    fn may_go(&self, place: Place) -> bool {
        self.cached.get(place).is_some_and(|cached| {
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
        for _ in 0..u64::from(self.cached.places()) * 2 {
            if started == count {
                break;
            }
            self.hand = (self.hand + 1) % self.cached.places();
            let place = self.hand;
            let is_spared = |place| self.cached.get(place).is_some_and(|c| c.entry.take_accessed());
            if self.may_go(place) && !is_spared(place) {
                self.begin_surrender(place, Mode::NL);
                self.counters.shrunk += 1;
                started += 1;
            }
        }
    }
}
