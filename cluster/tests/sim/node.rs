//! A simulated host with its process: the machine and what stands for the layers above it.

use std::collections::BTreeMap;

use cluster::{Cluster, LockspaceId};
use mx_base::{FsId, Instant, Member, ViewId};

/// A start of the process.
pub(crate) struct Process {
    pub(crate) machine: Cluster,
    /// Numbers the starts of all processes.
    pub(crate) life: u64,
    pub(crate) me: Option<Member>,
    pub(crate) view: Option<ViewId>,
    /// What it has mounted or is mounting, as the layer above sees it.
    pub(crate) mounts: BTreeMap<FsId, Mount>,
    /// The next message number to each member, and the one expected from each.
    pub(crate) sent: BTreeMap<Member, u64>,
    pub(crate) received: BTreeMap<Member, u64>,
    pub(crate) leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mount {
    Asked,
    Granted(LockspaceId),
    Ready(LockspaceId),
}

pub(crate) struct Host {
    pub(crate) up: bool,
    pub(crate) process: Option<Process>,
    /// Its process is stopped: what comes waits until then.
    pub(crate) paused_until: u64,
    pub(crate) storage_cut: bool,
    /// Its clock runs this much fast, in millionths, and is ahead by so much.
    pub(crate) drift_ppm: u64,
    pub(crate) offset: u64,
    pub(crate) timer: Option<u64>,
    pub(crate) timer_token: u64,
}

impl Host {
    pub(crate) fn new(drift_ppm: u64, offset: u64) -> Host {
        Host {
            up: true,
            process: None,
            paused_until: 0,
            storage_cut: false,
            drift_ppm,
            offset,
            timer: None,
            timer_token: 0,
        }
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: u64) -> Instant {
        Instant(self.offset + now + now / 1_000_000 * self.drift_ppm)
    }

    /// When its clock will show `at`.
    pub(crate) fn when(&self, at: Instant, now: u64) -> u64 {
        let ahead = at.0.saturating_sub(self.clock(now).0);
        (now + ahead - ahead / 1_000_000 * self.drift_ppm).max(now + 1_000)
    }
}
