//! Locks of applications in a report: who holds what of a file, and who waits for whom.

use cluster::Cluster;
use lcl::advisory::explain::{ClaimHolder, ClaimWaiter};
use lcl::advisory::{Access, Family, How};
use lcl::{Bucket, Lockspace, ResourceName};
use mx_base::Instant;
use serde::{Deserialize, Serialize};

use super::{Member, milliseconds, resource_text};

/// So many of those who hold anything of a file are listed, and so many of those who wait.
const FILE_LOCKS_MAX: usize = 64;

/// A range that a process has locked or waits for, as the home of its file knows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileLock {
    pub resource: String,
    pub member: Member,
    /// On that member's machine: who took it, or asks for it.
    pub pid: u32,
    /// Of a process of the viewer's machine that is still there.
    #[serde(default)]
    pub command: Option<String>,
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
    /// `None` when it is held; how long it has waited. Of another member: for how long the viewer
    /// knows.
    #[serde(default)]
    pub waits_ms: Option<u64>,
    /// Nothing was heard of the member for so long, and it is suspected.
    #[serde(default)]
    pub suspected_ms: Option<u64>,
    /// The member is in no view any more: what it holds is held until it is known to be fenced.
    #[serde(default)]
    pub is_dead: bool,
}

/// What applications have locked of a file and wait for, as far as the viewer knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileLocks {
    /// The viewer decides about the file: this is everything. Else it is what the viewer's own
    /// processes have to do with it, and what others hold only the home knows.
    pub is_all: bool,
    /// At most 64: first what is in the way of those who wait.
    pub held: Vec<FileLock>,
    pub held_total: u64,
    /// The first 64, in the order in which they are looked at.
    pub waiting: Vec<FileLock>,
    pub waiting_total: u64,
    /// Nothing is decided before these members have reported what they hold.
    pub unreported: Vec<Member>,
    /// Nothing is decided before these dead members are fenced: nobody knows what they hold.
    pub unfenced: Vec<Member>,
}

/// Where and when locks of applications are looked at.
#[derive(Clone, Copy)]
pub(crate) struct LockLook<'a> {
    pub(crate) space: &'a Lockspace,
    pub(crate) cluster: &'a Cluster,
    pub(crate) now: Instant,
}

impl LockLook<'_> {
    fn held(&self, claim: &ClaimHolder) -> FileLock {
        let member = claim.member;
        let suspected = self.cluster.suspected(member.node);
        FileLock {
            resource: resource_text(&claim.name),
            member: member.into(),
            pid: claim.pid,
            command: None,
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
            waits_for: None,
            waits_ms: None,
            suspected_ms: suspected.map(|s| milliseconds(self.now.since(s.since))),
            is_dead: !self.space.view().contains(member),
        }
    }

    fn waiting(&self, waiter: &ClaimWaiter) -> FileLock {
        let mut members: Vec<Member> =
            waiter.waits_for.iter().map(|(member, _)| (*member).into()).collect();
        members.dedup();
        FileLock {
            waits_for: Some(members),
            waits_ms: Some(milliseconds(self.now.since(waiter.since))),
            ..self.held(&waiter.wanted)
        }
    }

    /// At most `limit` of what this node decides about; what is waited for comes last.
    pub(crate) fn list(
        &self,
        wanted: impl Fn(&ResourceName) -> bool,
        limit: usize,
    ) -> Vec<FileLock> {
        let held = self.space.claims_held().filter(|claim| wanted(&claim.name));
        let waiting = self
            .space
            .claims_waiting()
            .filter(|waiter| matches!(waiter.how, How::Wait { .. }) && wanted(&waiter.wanted.name));
        let held = held.map(|claim| self.held(&claim));
        held.chain(waiting.map(|waiter| self.waiting(&waiter))).take(limit).collect()
    }

    /// What there is to be known here of one file.
    pub(crate) fn of_file(&self, name: ResourceName, bucket: Bucket) -> FileLocks {
        let known = self.space.claims_of(name, bucket, FILE_LOCKS_MAX);
        let members = |list: &[mx_base::Member]| list.iter().copied().map(Member::from).collect();
        FileLocks {
            is_all: known.is_all,
            held: known.held.iter().map(|claim| self.held(claim)).collect(),
            held_total: known.held_total as u64,
            waiting: known.waiting.iter().map(|waiter| self.waiting(waiter)).collect(),
            waiting_total: known.waiting_total as u64,
            unreported: members(&known.unreported),
            unfenced: members(&known.unfenced),
        }
    }
}

impl FileLocks {
    /// All that is listed.
    pub fn listed_mut(&mut self) -> impl Iterator<Item = &mut FileLock> {
        self.held.iter_mut().chain(&mut self.waiting)
    }
}
