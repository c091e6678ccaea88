//! The SAN register: one value that a majority of the membership partitions agrees on, changed by
//! any node, without any node having to be up (R3).
//!
//! Disk Paxos with a value that changes: each partition is one acceptor, made of one record per
//! node that only that node writes. A ballot is prepared, and later accepted, on a partition when
//! this node's record is written there and all records that are then read promise nothing higher.
//! Two nodes write, then read; so at least one of them sees the other.
//!
//! Keeps true between calls:
//! * **R4** at most one request of this node is outstanding on a partition. A write that does not
//!   end keeps its partition out of everything until it is known to have ended: landing later, it
//!   would take back what was accepted since.
//! * **R5** nothing is sent to a partition before the caller has said that requests of this node's
//!   former lives have ended there ([`Register::handle_extinguished`]).
//! * A record counts as written only when every copy of it that can be read back holds it, and at
//!   least one does. So losing any one copy later loses nothing, and losing both stops the
//!   partition rather than rolling it back.
//! * What a record has accepted stays in it until this node accepts a higher ballot there.
//! * An outcome other than [`Outcome::Unknown`] and [`Outcome::NotDone`] rests on a value that is
//!   committed: reading and refusing are committed like changes.
//!
//! A poll machine: no clock, no I/O; the only randomness is the seed that it is made with.

mod attempt;
mod glimpse;
mod partition;
mod scan;
mod survey;

use std::collections::VecDeque;

use mx_base::{ClusterId, Duration, Incarnation, Instant, NodeId};

use crate::administrator::{Change, Refusal};
use crate::ballot::Ballot;
use crate::layout::{MpBlock, MpIndex};
use crate::ondisk::Block;
use crate::random::Random;
use crate::reg_val::{Author, RegVal};
use attempt::Stage;
use partition::Partition;

pub use glimpse::glimpse;
pub use survey::Survey;

/// What the machine is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Drawn at random by every start of the daemon, never used again.
    pub nonce: u64,
    /// Membership partitions of the cluster, 1 or 3, usable or not.
    pub partitions: u8,
    /// Node ids that may be in use; from the superblock.
    pub nodes_max: u16,
    /// The time unit U; a loser waits 1 to 4 U.
    pub unit: Duration,
    /// How long an operation may take before it ends without a result; 20 U.
    pub patience: Duration,
    /// For spreading the waits.
    pub seed: u64,
}

/// Names an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names one read or write of blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoId(pub u64);

/// A request ended without success. It is not under way any more and will never land; as long as
/// that is not certain, the caller says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoFailed;

/// What the caller carries out, in order.
#[derive(Debug)]
pub enum Output {
    /// Write one block, durable when it completes; then [`Register::handle_written`].
    Write {
        io: IoId,
        partition: MpIndex,
        block: MpBlock,
        data: Box<Block>,
    },
    /// Read blocks from the device itself, not from a cache; then [`Register::handle_read`].
    Read {
        io: IoId,
        partition: MpIndex,
        block: MpBlock,
        count: u32,
    },
    Done {
        request: RequestId,
        outcome: Outcome,
    },
}

/// How an operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The value is committed; for a change it includes the change.
    Committed { value: RegVal },
    /// The change is not legal on the committed value. `in_doubt`: an earlier attempt of the same
    /// operation may have been committed before others changed the value again.
    Refused { refusal: Refusal, value: RegVal, in_doubt: bool },
    /// The change may be committed, now or by a later ballot of anybody. Read to find out.
    Unknown { why: Trouble },
    /// No majority was reached, and the change was proposed nowhere.
    NotDone { why: Trouble },
}

/// What stands in the way on a partition, or of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Trouble {
    #[error("requests have not ended in time, or were lost to competing changes")]
    Slow,
    #[error("writing or reading fails")]
    Io,
    #[error("both copies of the record of {node} are damaged")]
    Damaged { node: NodeId },
    #[error("the record of {node} has format version {version}, newer than this software")]
    NewerFormat { node: NodeId, version: u16 },
    #[error("a stale copy of this node's own record could not be overwritten")]
    StaleCopy,
    #[error("this node's own record is older than what was written: the device loses writes")]
    WriteLost,
    #[error("another program writes this node's record: is the node id in use twice?")]
    ForeignWriter,
    #[error("one ballot has two values")]
    Contradiction,
}

impl Trouble {
    /// Does it rule the partition out for the rest of this life of the node?
    fn is_final(self) -> bool {
        match self {
            Trouble::WriteLost | Trouble::ForeignWriter | Trouble::Contradiction => true,
            Trouble::Slow
            | Trouble::Io
            | Trouble::Damaged { .. }
            | Trouble::NewerFormat { .. }
            | Trouble::StaleCopy => false,
        }
    }
}

/// An operation is under way already; there is one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an operation on the register is under way")]
pub struct Busy;

#[derive(Debug)]
struct Operation {
    request: RequestId,
    /// `None` to read.
    change: Option<Change>,
    author: Author,
    deadline: Instant,
    /// A value with this operation's change was written somewhere.
    proposed: bool,
    stage: Stage,
    last_trouble: Option<Trouble>,
}

/// This node's part in the register.
#[derive(Debug)]
pub struct Register {
    config: Config,
    incarnation: Incarnation,
    partitions: Vec<Partition>,
    operation: Option<Operation>,
    /// The highest ballot seen anywhere, or used.
    ballot_max: Ballot,
    /// Grows with every stage of every attempt; answers to questions of former stages are old.
    stage_no: u64,
    request_no: u64,
    io_no: u64,
    serial: u32,
    random: Random,
    attempt_began: Instant,
    /// When the next one is due, after one that was overtaken.
    next_attempt: Option<Instant>,
    outputs: VecDeque<Output>,
    /// Only for showing that the checks find what happens without the rule.
    #[cfg(test)]
    without_r4: bool,
    /// What was made of what, for the chain that the tests check.
    #[cfg(test)]
    lineage: Vec<(RegVal, RegVal)>,
}

impl Register {
    /// # Panics
    /// For a number of partitions other than 1 or 3, or a node beyond `nodes_max`.
    pub fn new(config: Config) -> Register {
        assert!(matches!(config.partitions, 1 | 3), "a cluster has 1 or 3 membership partitions");
        assert!(config.node.get() <= config.nodes_max, "node id beyond the nodes of the cluster");
        Register {
            config,
            incarnation: Incarnation(0),
            partitions: (0..config.partitions)
                .map(|i| Partition::new(config.cluster, config.node, MpIndex(i), config.nodes_max))
                .collect(),
            operation: None,
            ballot_max: Ballot::ZERO,
            stage_no: 0,
            request_no: 0,
            io_no: 0,
            serial: 0,
            random: Random::new(config.seed),
            attempt_began: Instant(0),
            next_attempt: None,
            outputs: VecDeque::new(),
            #[cfg(test)]
            without_r4: false,
            #[cfg(test)]
            lineage: Vec::new(),
        }
    }

    /// R5: every request of this node's former lives on `partition` has ended, and none of them
    /// can begin any more. Until then the partition is left alone.
    pub fn handle_extinguished(&mut self, partition: MpIndex, now: Instant) {
        self.partitions[usize::from(partition.0)].extinguish();
        self.advance(now);
    }

    /// The life in which this node has joined, for people who look at its record.
    pub fn set_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
    }

    /// Reads the committed value.
    ///
    /// # Errors
    /// [`Busy`] while another operation is under way.
    pub fn read(&mut self, now: Instant) -> Result<RequestId, Busy> {
        self.begin(None, now)
    }

    /// Makes a change, if it is legal on the committed value.
    ///
    /// # Errors
    /// [`Busy`] while another operation is under way.
    pub fn change(&mut self, change: Change, now: Instant) -> Result<RequestId, Busy> {
        self.begin(Some(change), now)
    }

    /// Did this start of this node make `value`? After [`Outcome::Unknown`] it tells whether a
    /// change was made after all.
    pub fn is_own(&self, value: &RegVal) -> bool {
        let own =
            |author: Author| (author.node, author.nonce) == (self.config.node, self.config.nonce);
        value.author().is_some_and(own)
    }

    /// What keeps `partition` from being used, if something does for good.
    pub fn partition_trouble(&self, partition: MpIndex) -> Option<Trouble> {
        self.partitions[usize::from(partition.0)].ruled_out()
    }

    /// # Panics
    /// When `io` is no write that is outstanding: the caller answers each once.
    pub fn handle_written(&mut self, io: IoId, result: Result<(), IoFailed>, now: Instant) {
        let Some(index) = self.partition_of(io) else { return };
        let stage_no = self.stage_no;
        self.partitions[index].handle_written(result.is_ok(), stage_no);
        self.advance(now);
    }

    /// # Panics
    /// When `io` is no read that is outstanding, or the number of blocks is not what was asked for.
    pub fn handle_read(&mut self, io: IoId, result: Result<&[Block], IoFailed>, now: Instant) {
        let Some(index) = self.partition_of(io) else { return };
        let stage_no = self.stage_no;
        if let Some(seen) = self.partitions[index].handle_read(result.ok(), stage_no) {
            self.ballot_max = self.ballot_max.max(seen);
        }
        self.advance(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let operation = self.operation.as_ref()?;
        match operation.stage {
            Stage::Waiting { until } if until < operation.deadline => {
                Some((until, "register: next attempt"))
            }
            Stage::Waiting { .. }
            | Stage::Survey
            | Stage::Prepare { .. }
            | Stage::Accept { .. } => Some((operation.deadline, "register: patience")),
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn begin(&mut self, change: Option<Change>, now: Instant) -> Result<RequestId, Busy> {
        if self.operation.is_some() {
            return Err(Busy);
        }
        self.request_no += 1;
        self.serial += 1;
        let request = RequestId(self.request_no);
        let Config { node, nonce, .. } = self.config;
        self.operation = Some(Operation {
            request,
            change,
            author: Author { node, nonce, serial: self.serial },
            deadline: now + self.config.patience,
            proposed: false,
            stage: Stage::Waiting { until: self.next_attempt.unwrap_or(now) },
            last_trouble: None,
        });
        self.advance(now);
        Ok(request)
    }

    fn partition_of(&self, io: IoId) -> Option<usize> {
        let found = self.partitions.iter().position(|partition| partition.awaits(io));
        #[cfg(test)]
        if self.without_r4 {
            return found;
        }
        assert!(found.is_some(), "{io:?} is not outstanding: every request is answered once");
        found
    }

    fn majority(&self) -> usize {
        self.partitions.len() / 2 + 1
    }

    #[cfg(not(test))]
    const fn keeps_r4(&self) -> bool {
        true
    }

    #[cfg(test)]
    const fn keeps_r4(&self) -> bool {
        !self.without_r4
    }
}

#[cfg(test)]
mod tests;
