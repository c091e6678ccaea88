//! The clocks of one host: ahead of true time, at a rate of their own; the one of the wall jumps.
//!
//! True time is the executor's. Nobody but the simulator sees it.

use std::fmt;
use std::sync::Arc;

use mx_base::{Duration, Instant, Timestamp};
use parking_lot::Mutex;

use crate::exec::Executor;

/// Parts in a whole rate.
const MILLION: u64 = 1_000_000;

/// The clocks of one host. Clones are the same ones.
#[derive(Clone)]
pub struct HostClock {
    exec: Executor,
    ahead: Duration,
    /// Ticks in a million true ones.
    rate: u64,
    /// Nanoseconds by which the wall clock is ahead.
    wall_ahead: Arc<Mutex<i128>>,
}

impl HostClock {
    /// `rate`: ticks in a million true ones.
    pub fn new(exec: &Executor, ahead: Duration, wall_ahead: Duration, rate: u64) -> HostClock {
        let wall_ahead = i128::try_from(wall_ahead.as_nanos()).expect("short");
        let wall_ahead = Arc::new(Mutex::new(wall_ahead));
        HostClock { exec: exec.clone(), ahead, rate, wall_ahead }
    }

    pub fn now(&self) -> Instant {
        let now = self.exec.now();
        if self.rate == MILLION {
            return now + self.ahead;
        }
        let ticks = u128::from(now.0) * u128::from(self.rate) / u128::from(MILLION);
        Instant(u64::try_from(ticks).expect("a short run")) + self.ahead
    }

    pub fn wall_time(&self) -> Timestamp {
        let time = self.exec.wall_time();
        let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        let nanos = nanos + *self.wall_ahead.lock();
        Timestamp {
            seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).expect("near"),
            nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).expect("below a second"),
        }
    }

    /// How long it truly takes until so much has passed on this clock, at least.
    pub fn in_true_time(&self, duration: Duration) -> Duration {
        if self.rate == MILLION {
            return duration;
        }
        let nanos = duration.as_nanos() * u128::from(MILLION) / u128::from(self.rate) + 2;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Puts the wall clock forward or back.
    pub fn jump(&self, seconds: i64) {
        *self.wall_ahead.lock() += i128::from(seconds) * 1_000_000_000;
    }
}

impl fmt::Debug for HostClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostClock").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Group;

    #[test]
    fn what_is_slept_by_a_clock_has_passed_on_it() {
        for rate in [960_000, 999_500, MILLION, 1_040_000] {
            let exec = Executor::new(1);
            let clock = HostClock::new(&exec, Duration::from_secs(7), Duration::ZERO, rate);
            let before = clock.now();
            let wait = Duration::from_millis(500);
            let slept = exec.sleep(clock.in_true_time(wait));
            assert_eq!(exec.run(Group(0), Duration::from_secs(9), slept), Ok(()));
            let passed = clock.now().since(before);
            assert!(passed >= wait && passed < wait + Duration::from_micros(1), "{passed:?}");
        }
    }

    #[test]
    fn a_wall_clock_that_is_put_back_goes_on_from_there() {
        let exec = Executor::new(1);
        let clock = HostClock::new(&exec, Duration::ZERO, Duration::from_millis(700), MILLION);
        let before = clock.wall_time();
        clock.jump(-3_600);
        assert_eq!(clock.wall_time().seconds, before.seconds - 3_600);
        assert_eq!(clock.wall_time().nanos, before.nanos);
    }
}
