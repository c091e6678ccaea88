//! Rules of time, all in virtual time:
//! * after the last fault everything that waits is granted, and everything that was begun ends,
//!   within [`HEALED_WITHIN`];
//! * beside nothing but one crash, no operation takes longer than [`RECOVERED_WITHIN`];
//! * who touches nothing of the dead waits on no phase of a recovery: not longer than
//!   [`UNAFFECTED_WITHIN`]; if it locks something for the first time of which a dead node was the
//!   home, not longer than until its buckets have new homes: [`REHOMED_WITHIN`].

use mx_base::Duration;

use super::Violation;
use crate::fleet::Fleet;
use crate::fleet::plan::Kind;

/// Joins, cold starts, fences, replays: all of it is over so long behind the last fault.
pub const HEALED_WITHIN: Duration = Duration::from_secs(40);

/// An operation may take so long when nothing else goes wrong than that one process crashes.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(2);

/// In calm weather an operation takes milliseconds. The shortest phase of a recovery in which
/// somebody could wait, the suspicion of a silent host, takes 500.
pub const UNAFFECTED_WITHIN: Duration = Duration::from_millis(100);

/// The view without a host that fell silent is committed within 10 U (`docs/spec/recovery.md`,
/// section 1), and what survivors hold is reported in a few round trips.
pub const REHOMED_WITHIN: Duration = Duration::from_millis(1_100);

impl Fleet {
    pub(in crate::fleet) fn check_times(&self) -> Result<(), Violation> {
        let (longest, what) = self.first().work.longest();
        if self.plan.kind == Kind::OneCrash && longest > RECOVERED_WITHIN {
            let what = format!("{what} took {longest:?}, beside nothing but one crash");
            return Err(Violation::new("recovery time", what));
        }
        Ok(())
    }
}
