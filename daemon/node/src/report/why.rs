//! Who holds a resource, who waits for it, and what the holders are doing.

use serde::{Deserialize, Serialize};

use super::{FileLocks, Homed, Member, Viewer, milliseconds};
use crate::waiters::Wait;

/// `mxctl why`: what the viewer knows of each resource asked about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Why {
    pub viewer: Viewer,
    pub resources: Vec<WhyResource>,
    /// The part of a path that was got to, when the next name is in a directory whose lock cannot
    /// be had now: the resources are that directory's.
    pub stuck_at: Option<String>,
}

/// What the viewer knows of one resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WhyResource {
    pub resource: String,
    pub bucket: u16,
    pub home: Option<Member>,
    /// What the viewer has of it.
    pub here: Option<Here>,
    /// Everybody who holds it, where the viewer is its home; else the viewer only, if it does.
    pub holders: Vec<Holder>,
    /// Operations of the viewer that wait, oldest first, at most 64.
    pub waiters: Vec<Waiter>,
    pub waiters_total: u64,
    /// The home's account of it, where the viewer is the home.
    pub at_home: Option<Homed>,
    /// Locks of applications; `None` where there can be none: on what is no inode.
    #[serde(default)]
    pub file_locks: Option<FileLocks>,
    /// Nodes that know more: the home, the members who hold it or have locks of applications on it,
    /// those who wait.
    pub ask: Vec<Member>,
}

/// What the viewer has of a resource.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Here {
    pub mode: String,
    /// Since it was granted, or asked for.
    pub since_ms: Option<u64>,
    /// What is asked for.
    pub asked: Option<String>,
    /// Blocks of a file or directory that are not in place yet: what a surrender writes back.
    #[serde(default)]
    pub unwritten_blocks: Option<u64>,
    pub doing: Doing,
}

/// Somebody who holds a resource, or may.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    pub member: Member,
    pub mode: String,
    /// `None` for what a dead member may hold.
    pub since_ms: Option<u64>,
    pub doing: Doing,
    /// Nothing was heard of it for so long, and it is suspected.
    pub suspected_ms: Option<u64>,
}

/// What a holder does with it, as far as the viewer knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// The viewer has asked for it and holds nothing.
    Waiting,
    /// It is kept for the next who needs it.
    Cached,
    /// Operations rely on it, or pages that are being served to the kernel.
    Used { operations: u64, kernel_pages: u64 },
    /// Another node asked for it; first those have to end.
    Closing { to: String, operations: u64, kernel_pages: u64 },
    /// Nobody uses it any more; what it protects is written back, and dropped where it must be.
    WritingBack { to: String },
    /// It was asked to make room for a mode, and has not yet.
    CalledOut { for_mode: String },
    /// Another node, which nobody has asked for it.
    Elsewhere,
    /// Dead: its journal has to be replayed first.
    Limbo,
    /// Dead: what it cached may still be read there.
    CachesGone,
}

/// An operation of the viewer that waits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waiter {
    /// `None` for work of the kernel or the daemon on its own account.
    pub pid: Option<u32>,
    pub command: Option<String>,
    pub mode: String,
    pub since_ms: u64,
}

impl Waiter {
    pub(crate) fn of(wait: &Wait, now: mx_base::Instant) -> Waiter {
        Waiter {
            pid: wait.pid,
            command: None,
            mode: super::recovery::want_text(wait.want),
            since_ms: milliseconds(now.since(wait.since)),
        }
    }
}
