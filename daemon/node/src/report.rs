//! What a node says about itself, for administrators and tests.
//!
//! Plain values, the same in the daemon's answers, in `--json` and in the tables of `mxctl`. Every
//! report names its viewer: what another node knows may differ, and times are by the viewer's
//! clock. Names of fields are an interface: they are added to, not changed.

mod file_locks;
mod recovery;
mod top;
mod why;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use lcl::cache::CachedLock;
use lcl::{Mode, ResourceName, explain};
use mfs::locks::Resource;
use mfs::mount::recover::Recovered;
use mx_base::{Duration, Instant, Timestamp};
use serde::{Deserialize, Serialize};

pub(crate) use file_locks::LockLook;
pub use file_locks::{FileLock, FileLocks};
pub use recovery::{Delay, Work};
pub use top::{Hot, LockTop};
pub use why::{Doing, Here, Holder, Waiter, Why, WhyResource};

/// Whose view a report is, and of when.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Viewer {
    pub node: u16,
    /// `None` while it has not joined.
    pub incarnation: Option<u32>,
    pub cluster: String,
    /// NAME of `mount -t matrixfs NAME DIR`.
    pub name: String,
    /// Wall clock of the viewer, milliseconds since 1970.
    pub at_ms: u64,
}

/// A node in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Member {
    pub node: u16,
    pub incarnation: u32,
}

/// `mxctl status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Status {
    pub viewer: Viewer,
    pub state: State,
    /// What the membership is doing, in words.
    pub activity: String,
    /// `None` before the first view.
    pub view: Option<View>,
    pub permit: Permit,
    pub peers: Vec<Peer>,
    pub mounts: Vec<Mount>,
    /// Dead members of whom something is left to be recovered.
    pub unrecovered: Vec<Member>,
    pub gate: Gate,
}

/// What this node is to the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Joining,
    Member,
    Leaving,
    Ended { reason: String },
}

/// The register as this node last knew it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct View {
    pub id: u64,
    pub generation: u64,
    pub members: Vec<Member>,
    pub administrator: Option<Member>,
    /// `stable`, `fencing`, `fenced` or `recovered`.
    pub phase: String,
}

/// How long this node may go on serving what it has cached (R13).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permit {
    /// It is no member, or has run out of it.
    None,
    /// Renewed all the time while others answer.
    Left { ms: u64 },
    /// Nobody else has to renew it.
    Unlimited,
}

/// Another node that may be in the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    pub node: u16,
    /// Frames of it arrive.
    pub connected: bool,
    /// `None` when it is not suspected.
    pub suspected: Option<Suspicion>,
    pub unacknowledged_bytes: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Suspicion {
    pub since_ms: u64,
    pub cause: String,
}

/// A file system that some member has mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mount {
    pub fs: FileSystem,
    pub lockspace: Option<u32>,
    /// Where it is mounted here.
    pub directory: Option<String>,
    pub slot: Option<u16>,
    pub members: Vec<Mounted>,
}

/// Which file system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FileSystem {
    pub id: String,
    pub label: String,
}

/// How far a member is with a mount.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mounted {
    pub member: Member,
    /// `asked`, `granted` or `ready`.
    pub state: String,
}

/// What passed the gate of this node's device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Gate {
    /// Why it is closed.
    pub closed: Option<String>,
    pub under_way: u64,
    pub admitted: u64,
    /// At submission.
    pub refused: u64,
    /// At completion.
    pub disowned: u64,
}

/// `mxctl lock dump`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LockDump {
    pub viewer: Viewer,
    pub file_systems: Vec<FsLocks>,
}

/// Locks of one file system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FsLocks {
    pub fs: FileSystem,
    /// What this node has cached or asked for.
    pub locks: Vec<Lock>,
    /// How many there are; more than are listed when the limit was reached.
    pub locks_total: u64,
    /// What this node decides about, as their home.
    pub homed: Vec<Homed>,
    pub homed_total: u64,
    /// Locks of applications on files that this node decides about, up to the limit.
    #[serde(default)]
    pub file_locks: Vec<FileLock>,
}

/// A lock that this node has cached or asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    pub resource: String,
    pub bucket: u16,
    pub home: Option<Member>,
    pub mode: String,
    /// Operations that rely on it at this moment.
    pub pins: u64,
    /// Pages that are being served to the kernel.
    pub kernel_pages: u64,
    /// Operations that wait.
    pub waiters: u64,
    pub asked: Option<String>,
    /// What others wait for, beyond the surrender that is under way.
    pub called_out: Option<String>,
    /// What will be left of the surrender that is under way.
    pub surrendering_to: Option<String>,
}

/// A resource that this node is the home of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Homed {
    pub resource: String,
    pub bucket: u16,
    pub granted: Vec<Granted>,
    pub converting: Vec<Waiting>,
    pub waiting: Vec<Waiting>,
    /// What dead members may hold.
    pub remnants: Vec<Remnant>,
    /// Members whose reports are waited for before anything is granted.
    pub unreported: Vec<Member>,
    pub value_is_valid: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Granted {
    pub member: Member,
    pub mode: String,
    pub called_out: Option<String>,
    pub since_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waiting {
    pub member: Member,
    pub wanted: String,
    pub since_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remnant {
    pub dead: Member,
    pub modes: String,
    /// Until its journal is replayed; if not, until its caches are gone.
    pub is_limbo: bool,
}

/// `mxctl recovery last`: under way, and the last ones that ended, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoveryReport {
    pub viewer: Viewer,
    pub recoveries: Vec<Recovery>,
}

/// The recovery of one dead member. Times are milliseconds since it was suspected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    pub dead: Member,
    /// How long ago it was suspected.
    pub suspected_ago_ms: u64,
    /// The view without it was committed.
    pub dropped_ms: u64,
    pub fenced_ms: Option<u64>,
    /// The register says that nothing of it is left.
    pub ended_ms: Option<u64>,
    pub file_systems: Vec<FsRecovery>,
}

/// The recovery of one dead member in one file system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsRecovery {
    pub fs: FileSystem,
    pub recoverer: Option<Member>,
    /// Every member had rebuilt its lock tables.
    pub rebuilt_ms: Option<u64>,
    pub replayed_ms: Option<u64>,
    pub resumed_ms: Option<u64>,
    /// `replayed`, `isolated` or `deferred`.
    pub ending: Option<String>,
    /// Known where it was carried out.
    pub replay: Option<Replay>,
    /// On the viewer.
    #[serde(default)]
    pub work: Work,
}

/// What a replay did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replay {
    pub segments: u64,
    /// Locks that the journal speaks of.
    pub locks: u64,
    /// Those of them with blocks not in place.
    pub locks_live: u64,
    pub blocks_replayed: u64,
    /// Locks whose objects had to be isolated.
    pub locks_damaged: u64,
    pub orphans_adopted: u64,
}

/// `mxctl fs usage`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsUsage {
    pub viewer: Viewer,
    pub file_systems: Vec<Usage>,
}

/// `mxctl fs trim`, so far.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsTrim {
    pub viewer: Viewer,
    pub fs: FileSystem,
    pub directory: String,
    pub groups: u64,
    /// The group to go on with; `None` when all are done.
    pub next: Option<u64>,
    /// What the device was told of.
    pub bytes: u64,
    /// Groups that could not be had soon, or are damaged.
    pub groups_skipped: u64,
}

/// `mxctl fs check --online`, so far.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsCheck {
    pub viewer: Viewer,
    pub fs: FileSystem,
    pub directory: String,
    pub groups: u64,
    /// Where to go on; `None` when all is done.
    pub next: Option<CheckCursor>,
    pub problems: Vec<Problem>,
    pub inodes: u64,
    pub directories: u64,
    pub entries: u64,
    /// Of files, read.
    pub data_bytes: u64,
    /// Groups, inodes and names that could not be had soon.
    pub skipped: u64,
}

/// Where a check goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckCursor {
    pub group: u64,
    pub chunk: u64,
}

/// Something that is not as it has to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub object: String,
    pub what: String,
}

/// `mxctl fs damage`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FsDamage {
    pub viewer: Viewer,
    pub file_systems: Vec<Damage>,
}

/// What is isolated of one mounted file system, as far as this node has met it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    pub fs: FileSystem,
    pub directory: String,
    pub objects: Vec<Isolated>,
}

/// An object that answers EIO.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Isolated {
    /// As [`ResourceFilter`] is written.
    pub resource: String,
    pub why: String,
}

/// Space and work of one mounted file system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub fs: FileSystem,
    pub directory: String,
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub inodes: u64,
    pub inodes_free: u64,
    pub groups: u64,
    /// Groups whose free space this node knows.
    pub groups_known: u64,
    pub journal_bytes: u64,
    pub journal_used_bytes: u64,
    pub cached_inodes: u64,
    pub locks_cached: u64,
    /// Since when this node has it frozen, in milliseconds since 1970.
    #[serde(default)]
    pub frozen_at_ms: Option<u64>,
    /// Requests of the kernel since the mount.
    pub requests: u64,
    /// The same by operation, as far as they are counted so.
    pub requests_by_operation: BTreeMap<String, u64>,
    pub messages_sent: u64,
    /// What they left in, of all file systems: many to one member leave together.
    #[serde(default)]
    pub payloads_sent: u64,
    /// Lock messages by kind.
    pub messages_by_kind: BTreeMap<String, u64>,
    /// Log forces.
    pub forces: u64,
    pub surrenders: u64,
    pub callouts: u64,
    /// Grants by this node as home.
    pub grants_local: u64,
    /// Grants by other homes.
    pub grants_remote: u64,
}

/// Which resources a dump is about: `inode 0x1234`, `inode 4660`, or all of a kind, `inode`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceFilter {
    kind: String,
    number: Option<u64>,
}

/// A text that is no [`ResourceFilter`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` names no resource: expected superblock, slot, group, inode, open, freeze or rename, and \
     perhaps a number, as in `inode 0x1234`"
)]
pub struct FilterError(String);

const KINDS: [&str; 6] = ["superblock", "slot", "group", "inode", "open", "rename"];

impl FromStr for ResourceFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<ResourceFilter, FilterError> {
        let refused = || FilterError(text.to_owned());
        let mut words = text.split_whitespace();
        let kind = words.next().ok_or_else(refused)?.to_ascii_lowercase();
        let number = words.next().map(|word| match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => word.parse(),
        });
        let number = number.transpose().map_err(|_| refused())?;
        if words.next().is_some() || !KINDS.contains(&kind.as_str()) {
            return Err(refused());
        }
        Ok(ResourceFilter { kind, number })
    }
}

impl fmt::Display for ResourceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        self.number.map_or(Ok(()), |number| write!(f, " {number:#x}"))
    }
}

impl ResourceFilter {
    /// The one resource that is meant, with its number if its kind has numbers.
    pub fn resource(&self) -> Option<Resource> {
        let number = self.number;
        Some(match (self.kind.as_str(), number) {
            ("superblock", None) => Resource::Superblock,
            ("rename", None) => Resource::Rename,
            ("freeze", None) => Resource::Freeze,
            ("space", None) => Resource::Space,
            ("slot", Some(slot)) => Resource::Slot(mx_base::SlotId(u16::try_from(slot).ok()?)),
            ("group", Some(group)) => Resource::Group(mfs::layout::GroupNo(group)),
            ("inode", Some(inode)) => Resource::Inode(mfs::file::InodeNo(inode)),
            ("open", Some(inode)) => Resource::Open(mfs::file::InodeNo(inode)),
            _ => return None,
        })
    }

    pub fn matches(&self, name: &ResourceName) -> bool {
        kind_and_number(name).is_some_and(|(kind, number)| {
            kind == self.kind && self.number.is_none_or(|wanted| number == Some(wanted))
        })
    }
}

fn kind_and_number(name: &ResourceName) -> Option<(&'static str, Option<u64>)> {
    Some(match Resource::of_name(name)? {
        Resource::Superblock => ("superblock", None),
        Resource::Slot(slot) => ("slot", Some(u64::from(slot.0))),
        Resource::Group(group) => ("group", Some(group.0)),
        Resource::Inode(inode) => ("inode", Some(inode.0)),
        Resource::Open(inode) => ("open", Some(inode.0)),
        Resource::Rename => ("rename", None),
        Resource::Freeze => ("freeze", None),
        Resource::Space => ("space", None),
    })
}

/// A resource in words: `inode 0x1234`.
pub fn resource_text(name: &ResourceName) -> String {
    match kind_and_number(name) {
        Some((kind, Some(number))) if matches!(kind, "inode" | "open") => {
            format!("{kind} {number:#x}")
        }
        Some((kind, Some(number))) => format!("{kind} {number}"),
        Some((kind, None)) => kind.to_owned(),
        None => format!("{name:?}"),
    }
}

/// Milliseconds, as reports carry them.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; 0 before.
pub fn wall_milliseconds(at: Timestamp) -> u64 {
    let seconds = u64::try_from(at.seconds).unwrap_or(0);
    seconds.saturating_mul(1000) + u64::from(at.nanos) / 1_000_000
}

fn mode_text(mode: Option<Mode>) -> Option<String> {
    mode.map(|mode| mode.to_string())
}

impl From<mx_base::Member> for Member {
    fn from(member: mx_base::Member) -> Member {
        Member { node: member.node.get(), incarnation: member.incarnation.0 }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{}", self.node, self.incarnation)
    }
}

impl From<&mx_base::View> for View {
    /// Without what only the register says.
    fn from(view: &mx_base::View) -> View {
        View {
            id: view.id.0,
            generation: view.generation.0,
            members: view.members().iter().copied().map(Member::from).collect(),
            administrator: None,
            phase: "stable".to_owned(),
        }
    }
}

impl From<&cluster::RegisterValue> for View {
    fn from(value: &cluster::RegisterValue) -> View {
        let phase = match value.phase {
            cluster::Phase::Stable => "stable",
            cluster::Phase::Fencing => "fencing",
            cluster::Phase::Fenced => "fenced",
            cluster::Phase::Recovered => "recovered",
        };
        View {
            administrator: value.administrator.map(Member::from),
            phase: phase.to_owned(),
            ..View::from(&value.view())
        }
    }
}

impl Permit {
    /// [`cluster::Cluster::permit_until`], and whether there is a permit at all.
    pub fn of(until: Option<Instant>, now: Instant) -> Permit {
        match until {
            Some(cluster::heartbeat::FOR_EVER) => Permit::Unlimited,
            Some(until) if until > now => Permit::Left { ms: milliseconds(until.since(now)) },
            Some(_) | None => Permit::None,
        }
    }
}

impl Mounted {
    pub fn of(member: mx_base::Member, state: cluster::MountState) -> Mounted {
        let state = match state {
            cluster::MountState::Asked => "asked",
            cluster::MountState::Granted { .. } => "granted",
            cluster::MountState::Ready { .. } => "ready",
        };
        Mounted { member: member.into(), state: state.to_owned() }
    }
}

impl Gate {
    pub fn of(gate: &fencing::Gate) -> Gate {
        let counts = gate.counts();
        Gate {
            closed: gate.closed().map(|why| why.to_string()),
            under_way: gate.under_way(),
            admitted: counts.admitted,
            refused: counts.refused,
            disowned: counts.disowned,
        }
    }
}

impl Lock {
    pub fn of(cached: &CachedLock, home: Option<mx_base::Member>) -> Lock {
        Lock {
            resource: resource_text(&cached.name),
            bucket: cached.bucket.get(),
            home: home.map(Member::from),
            mode: cached.mode.to_string(),
            pins: cached.operations,
            kernel_pages: cached.kernel_pages,
            waiters: cached.waiters as u64,
            asked: mode_text(cached.asked),
            called_out: mode_text(cached.called_out),
            surrendering_to: mode_text(cached.surrendering_to),
        }
    }
}

impl Homed {
    pub fn of(state: &explain::ResourceState, now: Instant) -> Homed {
        let granted = |holder: &explain::HolderState| Granted {
            member: holder.owner.into(),
            mode: holder.mode.to_string(),
            called_out: mode_text(holder.called_out),
            since_ms: milliseconds(now.since(holder.since)),
        };
        let waiting = |waiter: &explain::WaiterState| Waiting {
            member: waiter.owner.into(),
            wanted: waiter.wanted.to_string(),
            since_ms: milliseconds(now.since(waiter.since)),
        };
        let remnant = |remnant: &explain::RemnantState| Remnant {
            dead: remnant.dead.into(),
            modes: format!("{:?}", remnant.modes),
            is_limbo: remnant.is_limbo,
        };
        Homed {
            resource: resource_text(&state.name),
            bucket: state.bucket.get(),
            granted: state.granted.iter().map(granted).collect(),
            converting: state.converting.iter().map(waiting).collect(),
            waiting: state.waiting.iter().map(waiting).collect(),
            remnants: state.remnants.iter().map(remnant).collect(),
            unreported: state.unreported.iter().copied().map(Member::from).collect(),
            value_is_valid: state.value_is_valid,
        }
    }
}

impl Recovery {
    /// `file_system` says what a file system is called, where this node replayed what that did, and
    /// what else was done on this node.
    pub fn of(
        course: &cluster::Recovery,
        now: Instant,
        mut file_system: impl FnMut(mx_base::FsId) -> (FileSystem, Option<Replay>, Work),
    ) -> Recovery {
        let after = |at: Instant| milliseconds(at.since(course.suspected));
        let file_systems = course.file_systems.iter().map(|(id, of)| {
            let (fs, replay, work) = file_system(*id);
            let ending = of.ending.map(|ending| match ending {
                cluster::Ending::Replayed => "replayed",
                cluster::Ending::Isolated => "isolated",
                cluster::Ending::Deferred => "deferred",
            });
            FsRecovery {
                fs,
                recoverer: of.recoverer.map(Member::from),
                rebuilt_ms: of.rebuilt.map(after),
                replayed_ms: of.replayed.map(after),
                resumed_ms: of.resumed.map(after),
                ending: ending.map(str::to_owned),
                replay,
                work,
            }
        });
        Recovery {
            dead: course.dead.into(),
            suspected_ago_ms: milliseconds(now.since(course.suspected)),
            dropped_ms: after(course.dropped),
            fenced_ms: course.fenced.map(after),
            ended_ms: course.ended.map(after),
            file_systems: file_systems.collect(),
        }
    }
}

impl From<Recovered> for Replay {
    fn from(recovered: Recovered) -> Replay {
        Replay {
            segments: recovered.segments,
            locks: recovered.locks,
            locks_live: recovered.locks_live,
            blocks_replayed: recovered.blocks_replayed,
            locks_damaged: recovered.locks_damaged,
            orphans_adopted: recovered.orphans_adopted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfs::file::InodeNo;

    #[test]
    fn a_resource_is_named_in_words_and_found_by_them() {
        let inode = Resource::Inode(InodeNo(0x1234)).name();
        assert_eq!(resource_text(&inode), "inode 0x1234");
        let matches = |filter: &str| {
            let filter: ResourceFilter = filter.parse().expect("a filter");
            filter.matches(&inode)
        };
        assert!(matches("inode 0x1234") && matches("INODE 4660") && matches("inode"));
        assert!(!matches("inode 0x123") && !matches("open 0x1234"));
        assert_eq!(resource_text(&Resource::Rename.name()), "rename");
        let foreign = ResourceName::new(b"application").expect("short");
        assert_eq!(resource_text(&foreign), "application");
        for wrong in ["", "file 1", "inode x", "inode 1 2"] {
            assert!(wrong.parse::<ResourceFilter>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_permit_is_what_is_left_of_it() {
        let now = Instant(5_000_000);
        assert_eq!(Permit::of(None, now), Permit::None);
        assert_eq!(Permit::of(Some(now), now), Permit::None);
        assert_eq!(Permit::of(Some(Instant(8_500_000)), now), Permit::Left { ms: 3 });
        assert_eq!(Permit::of(Some(cluster::heartbeat::FOR_EVER), now), Permit::Unlimited);
    }
}
