//! What the disk heartbeats say: who is alive on storage, and whom each of them reaches (R12).
//!
//! Evidence only for waiting: a moving block delays what this side would do, a silent one never
//! expels anybody.

use std::collections::BTreeMap;

use mx_base::{Duration, Incarnation, Instant, Member, NodeId};

use crate::nodes::NodeSet;
use crate::timer::{self, Unit};

/// One node's block on the membership partition, as last read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskHeartbeat {
    pub node: NodeId,
    /// The life that wrote it.
    pub incarnation: Incarnation,
    /// Grows with every write.
    pub sequence: u64,
    /// The nodes its writer heard lately ([`crate::Cluster::reach`] there).
    pub reach: NodeSet,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    heartbeat: DiskHeartbeat,
    /// `None` until it was seen to change: the first sight of a block proves nothing.
    moved: Option<Instant>,
    first_read: Instant,
}

/// Watches the blocks move.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    seen: BTreeMap<NodeId, Seen>,
    /// When the blocks were first read, and last, without a gap in between.
    unbroken: Option<(Instant, Instant)>,
}

impl DiskWatch {
    /// All blocks were read.
    pub(crate) fn handle_read(&mut self, blocks: &[DiskHeartbeat], unit: Unit, now: Instant) {
        self.unbroken = match self.unbroken {
            Some((first, last)) if now.since(last) <= unit.times(timer::DISK_SILENT) => {
                Some((first, now))
            }
            Some(_) | None => Some((now, now)),
        };
        for heartbeat in blocks {
            let seen = self.seen.entry(heartbeat.node).or_insert(Seen {
                heartbeat: *heartbeat,
                moved: None,
                first_read: now,
            });
            let same_life = seen.heartbeat.incarnation == heartbeat.incarnation;
            if !same_life || seen.heartbeat.sequence != heartbeat.sequence {
                seen.moved = Some(now);
            }
            seen.heartbeat = *heartbeat;
        }
    }

    /// The blocks have been read again and again for so long, up to `now`.
    pub(crate) fn watched_for(&self, unit: Unit, now: Instant) -> Duration {
        match self.unbroken {
            Some((first, last)) if now.since(last) <= unit.times(timer::DISK_SILENT) => {
                last.since(first)
            }
            Some(_) | None => Duration::ZERO,
        }
    }

    /// When the block of `member` was last seen to change. A block that was first read a moment
    /// ago may be moving; it counts from then.
    pub(crate) fn last_sign(&self, member: Member) -> Option<Instant> {
        let seen = self.seen.get(&member.node)?;
        let alive = seen.heartbeat.incarnation == member.incarnation;
        alive.then_some(seen.moved.unwrap_or(seen.first_read))
    }

    /// Whom `member` reached when it last wrote its block.
    pub(crate) fn reach(&self, member: Member) -> Option<NodeSet> {
        let seen = self.seen.get(&member.node)?;
        (seen.heartbeat.incarnation == member.incarnation).then_some(seen.heartbeat.reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_moves_when_its_sequence_or_its_life_changes() {
        let node = NodeId::new(2).expect("in range");
        let member = Member { node, incarnation: Incarnation(1) };
        let block = |sequence| DiskHeartbeat {
            node,
            incarnation: Incarnation(1),
            sequence,
            reach: NodeSet::EMPTY,
        };
        let unit = Unit::DEFAULT;
        let at = |units: u32| Instant(0) + unit.times(units);
        let mut watch = DiskWatch::default();
        watch.handle_read(&[block(5)], unit, at(0));
        watch.handle_read(&[block(5)], unit, at(2));
        assert_eq!(watch.last_sign(member), Some(at(0)));
        watch.handle_read(&[block(6)], unit, at(4));
        assert_eq!(watch.last_sign(member), Some(at(4)));
        let other_life = Member { incarnation: Incarnation(2), ..member };
        assert_eq!(watch.last_sign(other_life), None);
    }

    #[test]
    fn a_gap_in_the_readings_starts_the_watch_anew() {
        let unit = Unit::DEFAULT;
        let at = |units: u32| Instant(0) + unit.times(units);
        let mut watch = DiskWatch::default();
        for units in [0, 2, 4] {
            watch.handle_read(&[], unit, at(units));
        }
        assert_eq!(watch.watched_for(unit, at(5)), unit.times(4));
        assert_eq!(watch.watched_for(unit, at(20)), Duration::ZERO);
        watch.handle_read(&[], unit, at(20));
        assert_eq!(watch.watched_for(unit, at(20)), Duration::ZERO);
    }
}
