//! Time as the cores see it: always an argument, never read from a clock.
//!
//! [`Instant`] is monotonic and means something on one node only (`CLOCK_BOOTTIME` in the daemon,
//! virtual time in the simulator); instants of two nodes are never compared (R2). [`Timestamp`] is
//! the wall time that files carry.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use crate::rules::{Rule, is_kept};

pub use std::time::Duration;

/// Nanoseconds since an arbitrary start, on one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// Time that has passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}

/// Wall time with nanoseconds, as POSIX keeps it for files; seconds may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    pub const NANOS_PER_SECOND: u32 = 1_000_000_000;

    /// The next representable time.
    pub fn successor(self) -> Timestamp {
        if self.nanos + 1 < Timestamp::NANOS_PER_SECOND {
            Timestamp { seconds: self.seconds, nanos: self.nanos + 1 }
        } else {
            Timestamp { seconds: self.seconds.saturating_add(1), nanos: 0 }
        }
    }

    /// What an object changed at `now` gets when it last changed at `stored`: never back, never
    /// the same (I8).
    pub fn advance(stored: Timestamp, now: Timestamp) -> Timestamp {
        if is_kept(Rule::AdvanceTimes) { now.max(stored.successor()) } else { now }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}.{:09}", self.seconds, self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_time_never_goes_back_and_never_stands_still() {
        let stored = Timestamp { seconds: 5, nanos: 999_999_999 };
        assert_eq!(
            Timestamp::advance(stored, Timestamp { seconds: 3, nanos: 0 }),
            Timestamp { seconds: 6, nanos: 0 }
        );
        let now = Timestamp { seconds: 9, nanos: 1 };
        assert_eq!(Timestamp::advance(stored, now), now);
    }

    #[test]
    fn an_instant_saturates_instead_of_wrapping() {
        assert_eq!(Instant(5) - Duration::from_secs(1), Instant(0));
        assert_eq!(Instant(u64::MAX) + Duration::from_secs(1), Instant(u64::MAX));
    }
}
