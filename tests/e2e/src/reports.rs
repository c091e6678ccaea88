//! What the daemon reports, as far as it is looked at here (`docs` of `mxctl --json`). Fields that
//! are not named are passed over: reports may grow.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A node in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
pub struct Member {
    pub node: u16,
    pub incarnation: u32,
}

/// Whose view it is, and of when, in milliseconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Viewer {
    pub node: u16,
    pub incarnation: Option<u32>,
    pub cluster: String,
    pub at_ms: u64,
}

/// `mxctl status`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Status {
    pub viewer: Viewer,
    pub state: State,
    pub activity: String,
    pub view: Option<View>,
    pub mounts: Vec<Mount>,
    pub unrecovered: Vec<Member>,
    pub gate: Gate,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Joining,
    Member,
    Leaving,
    Ended { reason: String },
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct View {
    pub id: u64,
    pub members: Vec<Member>,
    pub administrator: Option<Member>,
    pub phase: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Mount {
    pub fs: FileSystem,
    pub directory: Option<String>,
    pub slot: Option<u16>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FileSystem {
    pub id: String,
    pub label: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Gate {
    pub closed: Option<String>,
    pub refused: u64,
    pub disowned: u64,
}

/// `mxctl recovery last`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Recoveries {
    pub viewer: Viewer,
    pub recoveries: Vec<Recovery>,
}

/// Times are milliseconds since it was suspected.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Recovery {
    pub dead: Member,
    pub suspected_ago_ms: u64,
    pub dropped_ms: u64,
    pub fenced_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    pub file_systems: Vec<FsRecovery>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FsRecovery {
    pub recoverer: Option<Member>,
    pub rebuilt_ms: Option<u64>,
    pub replayed_ms: Option<u64>,
    pub resumed_ms: Option<u64>,
    pub ending: Option<String>,
    pub replay: Option<Replay>,
    pub work: Work,
}

/// What a recovery did on the viewer.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Work {
    pub locks_rebuilt: Option<u64>,
    pub messages: u64,
    pub waits: u64,
    pub longest: Vec<Delay>,
}

/// Who waited for what because of it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Delay {
    pub resource: String,
    /// `None` when the daemon waited on its own account.
    pub pid: Option<u32>,
    pub cause: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Replay {
    pub segments: u64,
    pub locks: u64,
    pub locks_live: u64,
    pub blocks_replayed: u64,
    pub locks_damaged: u64,
}

/// `mxctl fs usage`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FsUsage {
    pub file_systems: Vec<Usage>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Usage {
    pub block_bytes: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub journal_bytes: u64,
    pub journal_used_bytes: u64,
    pub requests: u64,
    pub requests_by_operation: BTreeMap<String, u64>,
    pub messages_sent: u64,
    /// What they left in.
    pub payloads_sent: u64,
    pub messages_by_kind: BTreeMap<String, u64>,
    pub locks_cached: u64,
    pub surrenders: u64,
    pub callouts: u64,
    pub grants_local: u64,
    pub grants_remote: u64,
}

/// `mxctl lock dump`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct LockDump {
    pub file_systems: Vec<FsLocks>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FsLocks {
    pub locks: Vec<Lock>,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Lock {
    pub resource: String,
    pub home: Option<Member>,
    pub mode: String,
}
