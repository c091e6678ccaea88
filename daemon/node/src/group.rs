//! What mounts of the file system tell each other: how much each has taken from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fencing::Closed;
use mfs::env::{JournalPosition, MountGroup, Usage};
use mfs::fs::Fs;
use mx_base::{Duration, Member, SlotId};

use crate::file_system::Here;

/// Between two announcements.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// Slot, blocks and inodes: 2 + 8 + 8 bytes, little-endian.
const ANNOUNCEMENT: usize = 18;

/// What the others have told last.
#[derive(Debug, Default)]
pub(crate) struct Announced(BTreeMap<Member, (SlotId, Usage)>);

impl Announced {
    /// Bytes of later versions that follow are ignored; fewer are of no use.
    pub(crate) fn hear(&mut self, from: Member, payload: &[u8]) {
        let Some((bytes, _)) = payload.split_first_chunk::<ANNOUNCEMENT>() else {
            return tracing::warn!(%from, "an announcement that is too short");
        };
        let slot = u16::from_le_bytes([bytes[0], bytes[1]]);
        let number = |at: usize| {
            i64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes were taken"))
        };
        let usage = Usage { blocks: number(2), inodes: number(10) };
        // A slot that another mount had before is this one's now.
        self.0.retain(|_, (of, _)| of.0 != slot);
        self.0.insert(from, (SlotId(slot), usage));
    }

    pub(crate) fn retain(&mut self, is_member: impl Fn(Member) -> bool) {
        self.0.retain(|member, _| is_member(*member));
    }
}

fn announcement(slot: SlotId, usage: Usage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ANNOUNCEMENT);
    bytes.extend(slot.0.to_le_bytes());
    bytes.extend(usage.blocks.to_le_bytes());
    bytes.extend(usage.inodes.to_le_bytes());
    bytes
}

impl Here {
    /// Tells the other mounts what this one uses, for as long as it is there.
    pub(crate) fn spawn_announcements(&self, fs: &Arc<Fs>) {
        let (weak, id, of) = (self.node.weak.clone(), self.id(), Arc::downgrade(fs));
        let runtime = Arc::clone(&self.node.world.runtime);
        let task = async move {
            let mut told = None;
            loop {
                let here = weak.upgrade().and_then(|node| node.here(id));
                let (Some(here), Some(fs)) = (here, of.upgrade()) else { break };
                if fs.is_closing() {
                    break;
                }
                let usage = fs.usage();
                let others = here.look(|fs| fs.mounting.group.keys().copied().collect());
                if told != Some((usage, others)) {
                    let others: Vec<Member> = here.announce(fs.slot(), usage);
                    told = Some((usage, others));
                }
                drop((here, fs));
                runtime.sleep(ANNOUNCE_EVERY).await;
            }
        };
        self.node.world.runtime.spawn(Box::pin(task));
    }

    fn announce(&self, slot: SlotId, usage: Usage) -> Vec<Member> {
        let payload: Arc<[u8]> = announcement(slot, usage).into();
        let (me, lockspace) = (self.node.config().me, self.local.lockspace.for_frames());
        self.node.run(|core, _| {
            let group: Vec<Member> = core.of(self.id()).mounting.group.keys().copied().collect();
            for member in group.iter().filter(|member| **member != me) {
                // Who cannot be told now is told the next time something changes.
                let _ = core.cluster.send_group(*member, lockspace, Arc::clone(&payload));
            }
            group
        })
    }
}

/// The other mounts of a file system, for that of this node.
pub(crate) struct NodeGroup(pub(crate) Here);

impl MountGroup for NodeGroup {
    fn me(&self) -> Member {
        self.0.node.config().me
    }

    fn is_member(&self, member: Member) -> bool {
        self.0.node.look(|core| core.cluster.view().is_some_and(|view| view.contains(member)))
    }

    fn announced_usage(&self) -> Vec<(SlotId, Usage)> {
        self.0.look(|fs| fs.announced.0.values().copied().collect())
    }

    fn journal_positions(&self) -> Option<Vec<(SlotId, JournalPosition)>> {
        None
    }

    fn slot_begun(&self) {
        self.0.run(|fs, _| fs.mounting.slot_begun());
    }

    fn journal_failed(&self) {
        self.0.node.cut_off(Closed::SelfFenced);
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn what_is_announced_is_heard_and_what_is_too_short_is_not() {
        let node = NodeId::new(3).expect("in range");
        let from = Member { node, incarnation: Incarnation(1) };
        let usage = Usage { blocks: -5, inodes: 1 << 40 };
        let mut bytes = announcement(SlotId(9), usage);
        let mut announced = Announced::default();
        announced.hear(from, &bytes[..17]);
        assert!(announced.0.is_empty());
        bytes.push(0xff);
        announced.hear(from, &bytes);
        assert_eq!(announced.0[&from], (SlotId(9), usage));
    }
}
