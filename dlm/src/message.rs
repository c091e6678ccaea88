//! What lock managers say to each other, and its exact form in bytes (`docs/spec/locks.md`).
//!
//! A message travels over the ordered, exactly-once link between two incarnations; the frame names
//! the sender. What one member is told in one step may share a payload ([`Bundle`]). Every message about a bucket carries the bucket's epoch, every other one the view
//! it was sent under (I6). Decoding never panics and never allocates more than the input's size
//! calls for.

mod bundle;
mod codec;
mod layout;

use mx_base::{Member, ViewId};

use crate::advisory::{Access, Claim, ClaimId, Owner, ReportedClaim, Span, Verdict, Wait};
use crate::lock::{Denial, LockId};
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::value_block::ValueBlock;

pub use bundle::{Bundle, Messages};
pub use codec::DecodeError;

/// Tells the lock managers of several file systems on one link apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LockspaceId(pub u32);

/// The bucket a message is about, and since which view its home is the one addressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BucketEpoch {
    pub bucket: Bucket,
    pub epoch: ViewId,
}

/// One message. The first five go from a lock's owner to the home of its resource, the next three
/// back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// A new lock in `wanted`.
    Request {
        at: BucketEpoch,
        lock: LockId,
        name: ResourceName,
        wanted: Mode,
        no_queue: bool,
    },
    /// A granted lock asks for a mode that its present one does not cover.
    Convert {
        at: BucketEpoch,
        lock: LockId,
        name: ResourceName,
        wanted: Mode,
        no_queue: bool,
    },
    /// The owner uses no more than `to` from the moment of sending. `grants` counts the grants it
    /// had received for this lock by then: a grant that crosses this message supersedes it.
    Lower {
        at: BucketEpoch,
        lock: LockId,
        name: ResourceName,
        to: Mode,
        grants: u32,
        value: Option<Box<ValueBlock>>,
    },
    /// The owner is done with the lock.
    Unlock {
        at: BucketEpoch,
        lock: LockId,
        name: ResourceName,
        value: Option<Box<ValueBlock>>,
    },
    /// Take what is queued for the lock out of the queue, if it still is there.
    Cancel {
        at: BucketEpoch,
        lock: LockId,
        name: ResourceName,
    },

    /// `lowers` counts the Lowers of this lock that the home had taken in by then: the value is
    /// from before the others.
    Granted {
        at: BucketEpoch,
        lock: LockId,
        mode: Mode,
        lowers: u32,
        value: Option<Box<ValueBlock>>,
    },
    Denied {
        at: BucketEpoch,
        lock: LockId,
        reason: Denial,
    },
    /// Somebody waits for `wanted`, which the lock's mode forbids; `waiters` wait in all.
    Callout {
        at: BucketEpoch,
        lock: LockId,
        wanted: Mode,
        waiters: u32,
    },

    /// To an heir: what the sender holds and waits for in buckets of this epoch, which moved to it.
    Report {
        epoch: ViewId,
        locks: Vec<ReportedLock>,
    },
    /// The sender has reported everything it has to report for `view` and all views before.
    ReportEnd {
        view: ViewId,
    },

    /// From the recoverer of `dead` to a home: the names in its buckets that have live records.
    LiveNames {
        view: ViewId,
        dead: Member,
        names: Vec<BucketName>,
        last: bool,
    },
    /// The answer: which of them are in limbo. After the last one, each of them that somebody begins to
    /// wait for, never as the last one.
    InLimbo {
        view: ViewId,
        dead: Member,
        names: Vec<LimboName>,
        last: bool,
    },
    /// Their records are durable in place.
    Released {
        view: ViewId,
        dead: Member,
        names: Vec<BucketName>,
    },
    /// Nothing of `dead` is left to recover.
    Recovered {
        view: ViewId,
        dead: Member,
    },
    /// The sender knows it. Sent under the sender's view, so that a recoverer which counts the
    /// answers of its own view's members cannot be done before it has told those who joined in a
    /// view that some of them answered under.
    RecoveredSeen {
        view: ViewId,
        dead: Member,
    },

    /// An owner claims a range; `claim.via` does not go with it. `stamp` as in [`Wait`].
    Claim {
        at: BucketEpoch,
        id: ClaimId,
        name: ResourceName,
        claim: Claim,
        stamp: u64,
    },
    /// An owner relies on no more than `to` of the span from the moment of sending.
    ClaimLower {
        at: BucketEpoch,
        id: ClaimId,
        name: ResourceName,
        owner: Owner,
        span: Span,
        to: Option<Access>,
    },
    /// Take the claim out of the queue, if it still is there.
    ClaimCancel {
        at: BucketEpoch,
        id: ClaimId,
        name: ResourceName,
    },
    /// To a Claim, once; to a ClaimLower that it has been taken in.
    ClaimAnswer {
        at: BucketEpoch,
        id: ClaimId,
        verdict: Verdict,
    },
    /// To an heir: what the owners of the sender hold and wait for in buckets of this epoch.
    ClaimReport {
        epoch: ViewId,
        claims: Vec<ReportedClaim>,
    },
    /// To a member: what does this owner of yours wait for? It is in the way of the last of `path`.
    Trace {
        view: ViewId,
        path: Vec<Wait>,
        owner: u64,
        budget: u16,
    },
    /// To the home of the last of `path`: who is in its way?
    Follow {
        at: BucketEpoch,
        path: Vec<Wait>,
        budget: u16,
    },
    /// To the home of the wait at `position`: is it there still, and the next one's owner in its
    /// way? If it is the last one it ends.
    Confirm {
        at: BucketEpoch,
        cycle: Vec<Wait>,
        position: u16,
    },
}

/// A resource and its bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BucketName {
    pub bucket: Bucket,
    pub name: ResourceName,
}

/// A resource in limbo.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LimboName {
    pub bucket: Bucket,
    pub name: ResourceName,
    /// Somebody waits for it: to be redone first.
    pub waited: bool,
}

/// One lock as its owner reports it to the heir of its bucket.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReportedLock {
    pub bucket: Bucket,
    pub name: ResourceName,
    pub lock: LockId,
    /// The mode its owner may use; `None` when it was never granted.
    pub held: Option<Mode>,
    /// What it waits for, if it does.
    pub wanted: Option<Mode>,
    pub no_queue: bool,
    /// The owner's copy, when it holds PR or stronger.
    pub value: Option<Box<ValueBlock>>,
}

/// To whom a message speaks, and under which epoch or view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    ToHome(BucketEpoch),
    FromHome(BucketEpoch),
    View(ViewId),
}

impl Message {
    /// The longest encoded message, in bytes.
    pub const MAX: usize = 64 * 1024;

    pub(crate) fn scope(&self) -> Scope {
        match self {
            Message::Request { at, .. }
            | Message::Convert { at, .. }
            | Message::Lower { at, .. }
            | Message::Unlock { at, .. }
            | Message::Cancel { at, .. }
            | Message::Claim { at, .. }
            | Message::ClaimLower { at, .. }
            | Message::ClaimCancel { at, .. }
            | Message::Follow { at, .. }
            | Message::Confirm { at, .. } => Scope::ToHome(*at),
            Message::Granted { at, .. }
            | Message::Denied { at, .. }
            | Message::Callout { at, .. }
            | Message::ClaimAnswer { at, .. } => Scope::FromHome(*at),
            Message::Report { epoch: view, .. }
            | Message::ClaimReport { epoch: view, .. }
            | Message::Trace { view, .. }
            | Message::ReportEnd { view, .. }
            | Message::LiveNames { view, .. }
            | Message::InLimbo { view, .. }
            | Message::Released { view, .. }
            | Message::Recovered { view, .. }
            | Message::RecoveredSeen { view, .. } => Scope::View(*view),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Message::Request { .. } => Kind::Request,
            Message::Convert { .. } => Kind::Convert,
            Message::Lower { .. } => Kind::Lower,
            Message::Unlock { .. } => Kind::Unlock,
            Message::Cancel { .. } => Kind::Cancel,
            Message::Granted { .. } => Kind::Granted,
            Message::Denied { .. } => Kind::Denied,
            Message::Callout { .. } => Kind::Callout,
            Message::Report { .. } => Kind::Report,
            Message::ReportEnd { .. } => Kind::ReportEnd,
            Message::LiveNames { .. } => Kind::LiveNames,
            Message::InLimbo { .. } => Kind::InLimbo,
            Message::Released { .. } => Kind::Released,
            Message::Recovered { .. } => Kind::Recovered,
            Message::RecoveredSeen { .. } => Kind::RecoveredSeen,
            Message::Claim { .. } => Kind::Claim,
            Message::ClaimLower { .. } => Kind::ClaimLower,
            Message::ClaimCancel { .. } => Kind::ClaimCancel,
            Message::ClaimAnswer { .. } => Kind::ClaimAnswer,
            Message::ClaimReport { .. } => Kind::ClaimReport,
            Message::Trace { .. } => Kind::Trace,
            Message::Follow { .. } => Kind::Follow,
            Message::Confirm { .. } => Kind::Confirm,
        }
    }
}

/// The first byte of an encoded message; names the counters, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    Request = 1,
    Convert = 2,
    Lower = 3,
    Unlock = 4,
    Cancel = 5,
    Granted = 6,
    Denied = 7,
    Callout = 8,
    Report = 9,
    ReportEnd = 10,
    LiveNames = 11,
    InLimbo = 12,
    Released = 13,
    Recovered = 14,
    RecoveredSeen = 15,
    Claim = 16,
    ClaimLower = 17,
    ClaimCancel = 18,
    ClaimAnswer = 19,
    ClaimReport = 20,
    Trace = 21,
    Follow = 22,
    Confirm = 23,
}

impl Kind {
    pub const ALL: [Kind; 23] = [
        Kind::Request,
        Kind::Convert,
        Kind::Lower,
        Kind::Unlock,
        Kind::Cancel,
        Kind::Granted,
        Kind::Denied,
        Kind::Callout,
        Kind::Report,
        Kind::ReportEnd,
        Kind::LiveNames,
        Kind::InLimbo,
        Kind::Released,
        Kind::Recovered,
        Kind::RecoveredSeen,
        Kind::Claim,
        Kind::ClaimLower,
        Kind::ClaimCancel,
        Kind::ClaimAnswer,
        Kind::ClaimReport,
        Kind::Trace,
        Kind::Follow,
        Kind::Confirm,
    ];

    /// Position in a table with one place for each kind, 0 to 22.
    pub const fn index(self) -> usize {
        self as usize - 1
    }

    pub(crate) fn from_u8(byte: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests;
