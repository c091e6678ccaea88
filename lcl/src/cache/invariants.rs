//! What must be true between any two calls, checked at length for the simulator and the tests.

use std::sync::Arc;

use dlm::Mode;

use super::cached::{Cached, Request};
use super::{LockCache, Surrender};

impl LockCache {
    /// Walks everything this lock cache and its lock manager know. To be called while no other
    /// thread pins.
    ///
    /// # Panics
    /// When an invariant does not hold, with the invariant in words.
    pub fn check_invariants(&self) {
        if self.is_cut_off {
            return;
        }
        self.lockspace.check_invariants();
        let mut locks = 0;
        let mut under_way = 0;
        for cached in self.cached.iter() {
            let name = &cached.entry.name();
            let placed = cached.entry.place().and_then(|place| self.cached.get(place));
            assert!(
                placed.is_some_and(|placed| std::ptr::eq(placed, cached)),
                "an entry knows its place: {name:?}"
            );
            locks += usize::from(cached.lock.is_some());
            under_way += usize::from(cached.surrender.is_some());
            self.check_backing(cached);
            let found = self.table.find(name);
            assert!(
                found.is_some_and(|found| Arc::ptr_eq(&found, &cached.entry)),
                "the entry of a held lock is found: {name:?}"
            );
        }
        assert_eq!(locks, self.lockspace.locks_count(), "no lock without an entry (S3-038)");
        assert!(under_way <= self.surrenders_under_way, "every surrender is counted until it ends");
        self.table.for_each(|entry| {
            let is_kept = entry.place().is_some();
            assert!(is_kept || entry.mode() == Mode::NL, "a mode is backed (S3-039): {entry:?}");
        });
    }

    fn check_backing(&self, cached: &Cached) {
        let Cached { entry, lock, request, surrender, called_out } = cached;
        let backed = lock.and_then(|lock| self.lockspace.held(lock)).unwrap_or(Mode::NL);
        let usable = entry.mode();
        match (surrender, request) {
            (None, _) => {
                assert_eq!(usable, backed, "a mode is backed (S3-039): {entry:?}");
                assert!(!entry.is_closing(), "closing is surrendering: {entry:?}");
                let is_held = self.holds.is_timed(&entry.name());
                assert!(called_out.is_none() || is_held, "a callout is answered: {entry:?}");
                assert!(
                    !matches!(request, Request::Granted { .. }),
                    "a grant is kept only during a surrender: {entry:?}"
                );
            }
            (Some(Surrender { from, to }), Request::Granted { mode, .. }) => {
                assert!(entry.is_closing() && usable == *from && from.covers(*to), "{entry:?}");
                assert_eq!(backed, *mode, "what was granted backs what is kept: {entry:?}");
            }
            (
                Some(Surrender { from, to }),
                Request::None | Request::Deferred | Request::Asked { .. },
            ) => {
                assert!(entry.is_closing() && usable == *from && from.covers(*to), "{entry:?}");
                assert_eq!(backed, *from, "held until the surrender is over: {entry:?}");
            }
        }
        assert!(
            *request != Request::Deferred || self.deferred.contains(&entry.name()),
            "what is deferred is listed: {entry:?}"
        );
        assert!(
            lock.is_some() || matches!(request, Request::None | Request::Deferred),
            "what is asked for has a lock: {entry:?}"
        );
        if let (None, None) = (lock, surrender) {
            let name = entry.name();
            let waits = self.starved.contains(&name) || *request == Request::Deferred;
            assert!(waits, "what has no lock waits for one: {name:?}");
        }
    }
}
