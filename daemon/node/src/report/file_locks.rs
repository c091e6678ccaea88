//! Locks of applications in a report: who holds what of a file, and who waits for whom.

use lcl::advisory::{Access, Family, How, explain::ClaimHolder};
use lcl::{Lockspace, ResourceName};
use serde::{Deserialize, Serialize};

use super::{Member, resource_text};

/// A range that a process has locked or waits for, as the home of its file knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileLock {
    pub resource: String,
    pub member: Member,
    /// On that member's machine.
    pub pid: u32,
    /// `flock` or `fcntl`.
    pub family: String,
    /// `read` or `write`.
    pub access: String,
    pub start: u64,
    /// The last byte, included.
    pub end: u64,
    /// `None` when it is held; the members whose owners are in its way. Of nobody, when nothing is
    /// decided at the moment.
    pub waits_for: Option<Vec<Member>>,
}

impl FileLock {
    fn of(claim: &ClaimHolder, waits_for: Option<Vec<Member>>) -> FileLock {
        FileLock {
            resource: resource_text(&claim.name),
            member: claim.member.into(),
            pid: claim.pid,
            family: match claim.owner.family {
                Family::Whole => "flock".to_owned(),
                Family::Ranges => "fcntl".to_owned(),
            },
            access: match claim.access {
                Access::Read => "read".to_owned(),
                Access::Write => "write".to_owned(),
            },
            start: claim.span.start(),
            end: claim.span.end(),
            waits_for,
        }
    }

    /// At most `limit` of what this node decides about; what is waited for comes last.
    pub(crate) fn list(
        space: &Lockspace,
        wanted: impl Fn(&ResourceName) -> bool,
        limit: usize,
    ) -> Vec<FileLock> {
        let held = space.claims_held().map(|claim| (claim, None));
        let waiting =
            space.claims_waiting().filter(|waiter| matches!(waiter.how, How::Wait { .. }));
        let waiting = waiting.map(|waiter| {
            let waits_for = waiter.waits_for.iter().map(|(member, _)| (*member).into()).collect();
            (waiter.wanted, Some(waits_for))
        });
        let all = held.chain(waiting).filter(|(claim, _)| wanted(&claim.name));
        all.take(limit).map(|(claim, waits_for)| FileLock::of(&claim, waits_for)).collect()
    }
}
