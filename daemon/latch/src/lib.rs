//! A mutex whose holder is run as urgently as the most urgent thread that waits for it.
//!
//! Heartbeats go from a thread of real-time priority, which needs the latch of the node like every
//! other one. Were a thread of ordinary priority to hold it while something else has the processor,
//! heartbeats would wait as long as that does (priority inversion), and a healthy node on a busy
//! server would be expelled for silence.
//!
//! Keeps true: whoever holds it is lent the priority of whoever waits (futex(2), `FUTEX_LOCK_PI`);
//! taking and giving back one that nobody waits for is no system call.
//!
//! Never for what is held long or while waiting: the loan does not reach what the holder waits for.

use std::fmt;
use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use lock_api::{GuardNoSend, RawMutex};
use rustix::thread::{futex, gettid};

/// Looks at one that is held before the kernel is asked: most are given back within this.
const SPINS: u32 = 100;

/// Between attempts where the kernel does not help.
const AGAIN: Duration = Duration::from_micros(50);

/// See the module.
pub type Latch<T> = lock_api::Mutex<RawLatch, T>;

/// The number of the thread that holds it, as the kernel wants it, or 0.
pub struct RawLatch(AtomicU32);

// SAFETY: the word goes from 0 to the number of a living thread by an exchange that one thread alone
// can win, or by the kernel on behalf of one that waits; it goes back by its holder alone, who is in
// `unlock`, and whose guard cannot be sent to another thread.
unsafe impl RawMutex for RawLatch {
    const INIT: RawLatch = RawLatch(AtomicU32::new(0));

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        for _ in 0..SPINS {
            if self.0.load(Ordering::Relaxed) == 0 && self.try_lock() {
                return;
            }
            hint::spin_loop();
        }
        // Interrupted; a kernel without it answers so every time.
        while futex::lock_pi(&self.0, futex::Flags::PRIVATE, None).is_err() {
            if self.try_lock() {
                return;
            }
            // An urgent thread that only yielded would keep the holder off this processor.
            thread::sleep(AGAIN);
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(0, me(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        // The kernel marks a word that somebody waits for, and alone may give that one on.
        let is_given =
            self.0.compare_exchange(me(), 0, Ordering::Release, Ordering::Relaxed).is_ok()
                || futex::unlock_pi(&self.0, futex::Flags::PRIVATE).is_ok();
        debug_assert!(is_given, "it is its holder who gives it back");
    }
}

impl fmt::Debug for RawLatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawLatch(..)")
    }
}

/// The number of this thread; a system call only the first time.
fn me() -> u32 {
    thread_local!(static ME: u32 = gettid().as_raw_nonzero().get().cast_unsigned());
    ME.with(|me| *me)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Milliseconds after which no loan comes any more.
    const PATIENCE: u32 = 10_000;

    /// What the scheduler goes by: below 0 is real-time.
    fn priority() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("there is /proc");
        let (_, fields) = stat.rsplit_once(')').expect("the name of the program");
        fields.split_whitespace().nth(15).and_then(|field| field.parse().ok()).expect("a number")
    }

    fn become_urgent() {
        let parameters = libc::sched_param { sched_priority: 1 };
        // SAFETY: the parameters are read during the call only; 0 is the calling thread.
        let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
        assert_eq!(result, 0, "this test needs the right to real-time priority");
    }

    #[test]
    fn one_at_a_time_holds_it() {
        let count = Arc::new(Latch::new(0_u64));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    for _ in 0..20_000 {
                        let mut count = count.lock();
                        let before = *count;
                        if before.is_multiple_of(64) {
                            thread::yield_now();
                        }
                        *count = before + 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        assert_eq!(*count.lock(), 80_000);
        assert!(count.try_lock().is_some(), "nobody has it");
    }

    #[test]
    fn whoever_holds_it_is_lent_the_priority_of_whoever_waits() {
        let latch = Arc::new(Latch::new(()));
        let guard = latch.lock();
        let before = priority();
        let urgent = thread::spawn({
            let latch = Arc::clone(&latch);
            move || {
                become_urgent();
                let _guard = latch.lock();
            }
        });
        let mut lent = before;
        for _ in 0..PATIENCE {
            if lent != before || urgent.is_finished() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
            lent = priority();
        }
        drop(guard);
        urgent.join().expect("it does not panic");
        assert_ne!(lent, before, "nothing was lent");
        assert_eq!(priority(), before, "the loan is given back");
    }
}
