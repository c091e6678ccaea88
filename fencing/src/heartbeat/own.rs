//! This node's own heartbeat blocks.
//!
//! Keeps true between calls:
//! * at most one write of the own block is outstanding on each partition, so that an old heartbeat
//!   never lands over a newer one;
//! * a confirmed time is one *before* the write was issued (R2).

use mx_base::{ClusterId, Duration, Incarnation, Instant, NodeId, SanGeneration, ViewId};

use crate::layout::{self, MpBlock, MpIndex};
use crate::node_set::NodeSet;
use crate::ondisk::Block;
use crate::ondisk::heartbeat::{HeartbeatFlags, HeartbeatRecord, place};

/// What the node has to say; the rest of the record is kept by [`OwnHeartbeat`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beat {
    pub generation_seen: SanGeneration,
    pub view: ViewId,
    pub reach: NodeSet,
    pub devices_usable: u64,
    pub flags: HeartbeatFlags,
}

/// A block to be written, with the data durable when it completes.
#[derive(Debug)]
pub struct BeatWrite {
    pub partition: MpIndex,
    pub block: MpBlock,
    pub data: Box<Block>,
}

#[derive(Clone, Copy, Debug)]
enum Write {
    Idle { due: Instant },
    Outstanding { issued: Instant },
}

/// Writes the own heartbeat on every partition, each at its own pace.
#[derive(Debug)]
pub struct OwnHeartbeat {
    cluster: ClusterId,
    node: NodeId,
    incarnation: Incarnation,
    nonce: u64,
    interval: Duration,
    sequence: u64,
    beat: Beat,
    writes: Vec<Write>,
    confirmed: Vec<Option<Instant>>,
}

impl OwnHeartbeat {
    /// `nonce` is drawn at random by every start; `interval` is 2 U. The first beat is due at
    /// `now`.
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        nonce: u64,
        partitions: u8,
        interval: Duration,
        now: Instant,
    ) -> OwnHeartbeat {
        OwnHeartbeat {
            cluster,
            node,
            incarnation: Incarnation(0),
            nonce,
            interval,
            sequence: 0,
            beat: Beat::default(),
            writes: vec![Write::Idle { due: now }; usize::from(partitions)],
            confirmed: vec![None; usize::from(partitions)],
        }
    }

    /// The node has joined.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    /// What to say from the next write on; a change is written at once.
    pub fn set_beat(&mut self, beat: Beat, now: Instant) {
        if self.beat != beat {
            self.beat = beat;
            for write in &mut self.writes {
                if let Write::Idle { due } = write {
                    *due = now;
                }
            }
        }
    }

    /// The next block that is due, if one is.
    pub fn poll_write(&mut self, now: Instant) -> Option<BeatWrite> {
        let due = |write: &Write| matches!(write, Write::Idle { due } if *due <= now);
        let index = self.writes.iter().position(due)?;
        self.writes[index] = Write::Outstanding { issued: now };
        self.sequence += 1;
        let partition = MpIndex(u8::try_from(index).expect("at most 3 partitions"));
        let record = HeartbeatRecord {
            node: self.node,
            incarnation: self.incarnation,
            nonce: self.nonce,
            sequence: self.sequence,
            generation_seen: self.beat.generation_seen,
            view: self.beat.view,
            reach: self.beat.reach,
            devices_usable: self.beat.devices_usable,
            flags: self.beat.flags,
        };
        let data = record.encode(place(self.cluster, partition, self.node));
        Some(BeatWrite { partition, block: layout::heartbeat(self.node), data })
    }

    /// The write on `partition` has ended; it is not under way any more, whatever the result.
    ///
    /// # Panics
    /// When none was outstanding.
    pub fn handle_written(&mut self, partition: MpIndex, written: bool, now: Instant) {
        let index = usize::from(partition.0);
        let Write::Outstanding { issued } = self.writes[index] else {
            panic!("no heartbeat write is outstanding on {partition}");
        };
        if written {
            self.confirmed[index] = Some(issued);
        }
        self.writes[index] = Write::Idle { due: (issued + self.interval).max(now) };
    }

    /// When the last write that succeeded on `partition` was issued.
    pub fn confirmed(&self, partition: MpIndex) -> Option<Instant> {
        self.confirmed[usize::from(partition.0)]
    }

    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = self.writes.iter().filter_map(|write| match write {
            Write::Idle { due } => Some(*due),
            Write::Outstanding { .. } => None,
        });
        due.min().map(|due| (due, "own heartbeat"))
    }
}
