//! Lock payloads on their way to links, and those that a link would not take yet.
//!
//! Keeps true: payloads for one member leave in the order in which they were made, whichever lock
//! space they belong to. Bounded by what the lock caches have under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluster::{Cluster, SendError};
use mx_base::{Member, View};

use crate::bundles::Bundles;
use crate::file_systems::Lockspace;

#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: BTreeMap<Member, Waiting>,
    /// Handed to links since this life began.
    sent: u64,
}

/// For one member, in order.
type Waiting = VecDeque<(Lockspace, Arc<[u8]>)>;

/// Whether a link has taken a message.
#[derive(PartialEq, Eq)]
enum Taken {
    Yes,
    NotYet,
    /// The view without the member is on its way, and rebuilds what it was told.
    Never,
}

fn give(cluster: &mut Cluster, to: Member, lockspace: Lockspace, payload: &Arc<[u8]>) -> Taken {
    match cluster.send_lock(to, lockspace.for_frames(), Arc::clone(payload)) {
        Ok(()) => Taken::Yes,
        Err(SendError::Full(_)) => Taken::NotYet,
        Err(SendError::Gone { .. }) => Taken::Never,
        Err(error @ SendError::TooLong { .. }) => {
            unreachable!("lock messages fit a frame: {error}")
        }
    }
}

impl Backlog {
    /// Payloads handed to links since this life began.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// What a step of a lock manager has said.
    pub(crate) fn send_all(
        &mut self,
        cluster: &mut Cluster,
        lockspace: Lockspace,
        bundles: &mut Bundles,
    ) {
        while let Some((to, payload)) = bundles.pop() {
            self.send(cluster, to, lockspace, payload);
        }
    }

    /// In order with what is waiting for the same member.
    pub(crate) fn send(
        &mut self,
        cluster: &mut Cluster,
        to: Member,
        lockspace: Lockspace,
        payload: Arc<[u8]>,
    ) {
        if let Some(waiting) = self.waiting.get_mut(&to) {
            return waiting.push_back((lockspace, payload));
        }
        match give(cluster, to, lockspace, &payload) {
            Taken::Yes => self.sent += 1,
            Taken::NotYet => {
                self.waiting.entry(to).or_default().push_back((lockspace, payload));
            }
            Taken::Never => {}
        }
    }

    /// True when anything has left.
    pub(crate) fn flush(&mut self, cluster: &mut Cluster) -> bool {
        let before = self.sent;
        self.waiting.retain(|to, waiting| {
            while let Some((lockspace, payload)) = waiting.front() {
                match give(cluster, *to, *lockspace, payload) {
                    Taken::Yes => {
                        self.sent += 1;
                        waiting.pop_front();
                    }
                    Taken::NotYet => return true,
                    Taken::Never => return false,
                }
            }
            false
        });
        self.sent > before
    }

    /// Whoever is in the view.
    pub(crate) fn retain(&mut self, view: &View) {
        self.waiting.retain(|member, _| view.contains(*member));
    }
}
