//! Faults that tests ask for. A server accepts none unless it was started to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mx_base::NodeId;
use rustix::io::Errno;

use crate::arbiter::protocol::Fault;

/// What becomes of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Normal,
    /// It begins later.
    Delayed(Duration),
    /// It begins when the faults are cleared.
    Stalled,
    Failed(Errno),
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    delays: BTreeMap<NodeId, Duration>,
    stalls: BTreeSet<NodeId>,
    failures: BTreeMap<NodeId, Errno>,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        match fault {
            Fault::DelayWrites { node, ms } => {
                self.delays.insert(node, Duration::from_millis(ms.into()));
            }
            Fault::StallWrites { node } => {
                self.stalls.insert(node);
            }
            Fault::FailWrites { node, errno } => {
                let errno = i32::try_from(errno).expect("checked when the request was read");
                self.failures.insert(node, Errno::from_raw_os_error(errno));
            }
            Fault::Clear => *self = Faults::default(),
        }
    }

    pub(super) fn of_write(&self, node: NodeId) -> Fate {
        if let Some(errno) = self.failures.get(&node) {
            Fate::Failed(*errno)
        } else if self.stalls.contains(&node) {
            Fate::Stalled
        } else if let Some(delay) = self.delays.get(&node) {
            Fate::Delayed(*delay)
        } else {
            Fate::Normal
        }
    }
}
