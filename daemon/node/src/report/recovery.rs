//! What a recovery did on the viewer, and who was delayed there.

use lcl::pin::Want;
use serde::{Deserialize, Serialize};

use super::{Member, milliseconds, resource_text};
use crate::waiters::{self, Cause};

/// What the recovery of one dead member did on the viewer, and to it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Work {
    /// Locks taken in by this node as heir; of all members lost with that view together. `None`
    /// while it is not rebuilt here.
    pub locks_rebuilt: Option<u64>,
    pub buckets_rebuilt: Option<u64>,
    /// Lock messages of this node for the rebuild and the recovery, for all that were under way
    /// together. None of them is about a single lock's request.
    pub messages: u64,
    /// Resources homed here that were in limbo while this recovery was under way, and were freed
    /// because the journal has nothing live for them.
    pub limbo_freed: u64,
    /// The same, freed because their records were redone.
    pub limbo_redone: u64,
    /// Waits of operations of this node for locks that the dead member may have had, or that are
    /// decided about elsewhere.
    pub waits: u64,
    pub waited_ms: u64,
    /// The longest of them, at most 16, longest first.
    pub longest: Vec<Delay>,
}

/// One wait that a recovery had to do with, as far as the viewer knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Delay {
    pub resource: String,
    pub mode: String,
    /// `None` for work of the kernel or the daemon on its own account.
    pub pid: Option<u32>,
    /// Of the process, if it is still there when asked.
    pub command: Option<String>,
    pub waited_ms: u64,
    pub is_over: bool,
    /// `limbo`, `caches`, `rebuild`, `home_died` or `home`.
    pub cause: String,
    /// Who decides about the lock, and so knows more; `None` for the viewer.
    pub home: Option<Member>,
}

impl Work {
    pub(crate) fn of(
        course: &waiters::Course,
        delays: &[waiters::Delay],
        waits: u64,
        waited_ms: u64,
    ) -> Work {
        Work {
            locks_rebuilt: course.rebuilt.map(|(locks, _)| locks),
            buckets_rebuilt: course.rebuilt.map(|(_, buckets)| buckets),
            messages: course.messages,
            limbo_freed: course.limbo.0,
            limbo_redone: course.limbo.1,
            waits,
            waited_ms,
            longest: delays.iter().map(Delay::of).collect(),
        }
    }
}

impl Delay {
    fn of(delay: &waiters::Delay) -> Delay {
        let (cause, home) = match delay.cause {
            Cause::Limbo => ("limbo", None),
            Cause::Caches => ("caches", None),
            Cause::Rebuild => ("rebuild", None),
            Cause::HomeDied(home) => ("home_died", Some(home.into())),
            Cause::Home(home) => ("home", Some(home.into())),
        };
        Delay {
            resource: resource_text(&delay.name),
            mode: want_text(delay.want),
            pid: delay.pid,
            command: None,
            waited_ms: milliseconds(delay.waited),
            is_over: delay.is_over,
            cause: cause.to_owned(),
            home,
        }
    }
}

/// `EX alone`, `PR`.
pub(super) fn want_text(want: Want) -> String {
    if want.exclusive { format!("{} alone", want.mode) } else { want.mode.to_string() }
}
