//! Advisory locks: what applications claim of ranges of a resource, for owners within a member.
//!
//! They go by the homes, epochs, reports and recoveries of every other lock, and beside them: they
//! forbid nothing to the modes of the resource, and no mode forbids anything to them. A [`Claim`] is
//! decided by the home ([`home`]); each member keeps what its own owners hold and wait for
//! ([`own`]), and that is what a home is rebuilt from.
//!
//! Keeps true:
//!   * no two owners hold, in one family, ranges that overlap and of which one is for writing;
//!   * what a member keeps of an owner is lowered from the moment that it sends so, and raised from
//!     the moment that the grant arrives (I6): a home knows at least what the owners may rely on;
//!   * in a bucket nothing is decided before every member has reported, nor while a dead member
//!     may hold anything that is not known here: only its recovery ends that, which begins behind
//!     the proof that it is fenced;
//!   * a claim is answered once.
//!
//! No value block, nothing on disk: what is claimed lives as long as the member does.

pub mod explain;
pub(crate) mod home;
pub(crate) mod own;
pub mod pieces;
pub(crate) mod wait;

use std::collections::VecDeque;
use std::fmt;

use mx_base::Member;

use crate::name::{Bucket, ResourceName};
use home::HomeClaims;
use own::OwnClaims;
pub use pieces::{Access, Pieces, Span};
pub use wait::Wait;

/// One claim of this node; never used twice in one incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimId(pub u64);

impl fmt::Debug for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{:x}", self.0)
    }
}

/// Two kinds of locks that do not see each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// flock(2): of an open file, on all of it. A conversion gives the old lock up first.
    Whole = 0,
    /// fcntl(2): of a process or of an open file, on ranges. A conversion is one step.
    Ranges = 1,
}

/// Whose a lock is, among those of one member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    pub family: Family,
    pub id: u64,
}

/// What becomes of a claim that cannot be granted at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum How {
    /// It would not be granted in any case: who is in the way?
    Test,
    /// It is refused.
    Try,
    /// It waits.
    Wait {
        /// ... unless it would wait for ever: its owner does nothing else meanwhile.
        detect: bool,
    },
}

/// What an application asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Claim {
    pub owner: Owner,
    /// The open file through which it is asked for ([`crate::Lockspace::release_via`]). Known to the
    /// member only.
    pub via: u64,
    /// The process that asks.
    pub pid: u32,
    pub span: Span,
    pub access: Access,
    pub how: How,
}

/// Somebody in the way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Conflict {
    pub holder: Member,
    /// Of that member's processes.
    pub pid: u32,
    pub span: Span,
    pub access: Access,
}

/// How a claim ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It is held, or given up where that was asked for; every node knows.
    Granted,
    /// It would have had to wait.
    WouldWait,
    /// It was taken back before it was granted.
    Cancelled,
    /// It would have waited for owners that wait for it.
    Deadlock,
    /// As many claims of its member wait at its home as may.
    TooMany,
    /// Nobody is in the way of what was tested.
    Free,
    /// Somebody is.
    Held(Conflict),
}

/// More claims, or more ranges, than this node may have at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this node has {} advisory locks or {} claims already",
    OwnClaims::PIECES_MAX,
    OwnClaims::ASKED_MAX
)]
pub struct TooManyClaims;

/// A claim and the member whose it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimRef {
    pub member: Member,
    pub id: ClaimId,
}

/// Something that a member reports to the heir of a bucket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReportedClaim {
    pub bucket: Bucket,
    pub name: ResourceName,
    pub owner: Owner,
    pub pid: u32,
    pub span: Span,
    pub access: Access,
    /// `None` for what is held.
    pub asked: Option<AskedClaim>,
}

/// What a member says of a claim beside what is claimed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct AskedClaim {
    pub id: ClaimId,
    pub how: How,
    /// See [`Wait::stamp`].
    pub stamp: u64,
}

/// All that a lock manager knows of advisory locks.
#[derive(Clone, Hash, Default)]
pub(crate) struct Advisory {
    pub(crate) own: OwnClaims,
    pub(crate) home: HomeClaims,
    /// What homes on this node have to tell, to whom, and where searches go on here.
    pub(crate) todo: VecDeque<Todo>,
}

/// A step that follows from another, on this node.
#[derive(Clone, Hash, Debug)]
pub(crate) enum Todo {
    Tell {
        bucket: Bucket,
        to: ClaimRef,
        verdict: Verdict,
    },
    /// Look what the last of these waits for.
    Follow {
        path: Vec<Wait>,
        budget: u16,
    },
    /// Look what `owner`, who is in the way of the last of these, waits for.
    Trace {
        path: Vec<Wait>,
        member: Member,
        owner: u64,
        budget: u16,
    },
    /// Is the wait at `at` of the cycle still there?
    Confirm {
        cycle: Vec<Wait>,
        at: u16,
    },
}
