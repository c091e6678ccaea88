//! Control messages: what the membership and recovery of two nodes say to each other.
//!
//! Encoded by postcard, byte by byte in `docs/spec/wire.md`; the order of the variants and of
//! their fields is the format, so new ones are added at the end only. Decoding never panics and
//! holds at most a small multiple of the bytes it was given.

pub(crate) mod raw;

use std::collections::BTreeMap;

use mx_base::{FsId, Incarnation, Member, SanGeneration, SlotId, ViewId};
use serde::{Deserialize, Serialize};

use crate::frame::LockspaceId;
use crate::handshake::StartNonce;
use crate::register::{RegisterValue, Regroup};

/// Names one proposal of one coordinator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct RoundId {
    #[serde(with = "raw")]
    pub coordinator: Member,
    pub number: u64,
}

/// A change of the members that the coordinator asks everybody concerned to agree to (R10).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    pub round: RoundId,
    /// The committed value that the change is made from.
    pub base: RegisterValue,
    pub regroup: Regroup,
    /// Which start each member after the change is.
    #[serde(with = "raw")]
    pub starts: BTreeMap<Member, StartNonce>,
}

/// Why a member does not agree to a proposal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Objection {
    /// It has seen a newer committed value: this one.
    Behind(Box<RegisterValue>),
    /// It does not reach these nodes, which the proposal wants to keep or add.
    Unreachable(#[serde(with = "raw")] crate::nodes::NodeSet),
    /// A lower node that it reaches should propose.
    OtherCoordinator(#[serde(with = "raw")] Member),
    /// Another start of the joiner was offered the same incarnation.
    IncarnationOffered(#[serde(with = "raw")] Member),
    /// It has agreed to more proposals than it keeps in mind.
    Busy,
}

/// Why a node may not join now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// Fig. 10: it does not reach the membership partition.
    #[error("the node has no access to the membership partition")]
    NotHealthy,
    /// Fig. 10: it has read another generation of the register than the members act in.
    #[error("the node has read generation {theirs}, the members are in {ours}")]
    GenerationMismatch { theirs: u64, ours: u64 },
    /// What its former life left is not fenced yet; it may ask again.
    #[error("the former life of the node is not proven fenced yet")]
    FormerLifeNotFenced,
    /// It does not reach every member, or not every member reaches it.
    #[error("the node and a member do not reach each other")]
    NotConnected,
    /// Its incarnation is not above the newest of the node, or was offered to another start: this
    /// start never joins.
    #[error("the incarnation was used before; incarnation {newest} of the node is known")]
    LifeUsed {
        #[serde(with = "raw")]
        newest: Incarnation,
    },
}

/// How an order to commit ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OrderOutcome {
    Committed(Box<RegisterValue>),
    Refused(Box<RegisterValue>),
    /// It may still happen; a final outcome follows.
    Unknown,
    /// Not even tried: no storage, or another change is under way.
    NotTried,
}

/// How far a member is with mounting one file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MountState {
    /// It wants to.
    Asked,
    /// It may. The first one replays whatever journals are dirty before anybody follows.
    Granted {
        #[serde(with = "raw")]
        lockspace: LockspaceId,
        first: bool,
    },
    /// It uses the file system.
    Ready {
        #[serde(with = "raw")]
        lockspace: LockspaceId,
        #[serde(with = "raw")]
        slot: SlotId,
    },
}

impl MountState {
    /// The lock space of this mount, once it has one.
    pub fn lockspace(self) -> Option<LockspaceId> {
        match self {
            MountState::Asked => None,
            MountState::Granted { lockspace, .. } | MountState::Ready { lockspace, .. } => {
                Some(lockspace)
            }
        }
    }

    pub fn is_ready(self) -> bool {
        matches!(self, MountState::Ready { .. })
    }
}

/// How the replay of one dead member's journal in one file system ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ending {
    /// Everything was replayed.
    Replayed,
    /// Some objects could not be; they are isolated, everything else is in order.
    Isolated,
    /// No member has the file system mounted any more: the next one to mount it replays.
    Deferred,
}

/// How far the recovery of one dead member is in one file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// Where the dead member had mounted it, if that is known.
    #[serde(with = "raw")]
    pub slot: Option<SlotId>,
    /// Who replays; stays the same until it dies or gives the file system up.
    #[serde(with = "raw")]
    pub recoverer: Option<Member>,
    /// How often a recoverer was named.
    pub attempt: u32,
    /// Every member has rebuilt its lock tables in the present view.
    pub rebuilt: bool,
    pub ending: Option<Ending>,
    /// Nothing of the dead member is left in this file system.
    pub resumed: bool,
}

/// How far the recovery of one dead member is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadRecord {
    #[serde(with = "raw")]
    pub member: Member,
    /// The first view without it.
    #[serde(with = "raw")]
    pub dropped_in: ViewId,
    /// Proven.
    pub fenced: bool,
    /// `file_systems` is complete.
    pub scoped: bool,
    #[serde(with = "raw")]
    pub file_systems: BTreeMap<FsId, ProgressRecord>,
}

/// Where everybody has what mounted.
pub type MountTable = BTreeMap<FsId, BTreeMap<Member, MountState>>;

/// What a member tells the coordinator of a new view.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SanReport {
    #[serde(with = "raw")]
    pub view: ViewId,
    /// Its own mounts.
    #[serde(with = "raw")]
    pub mounts: BTreeMap<FsId, MountState>,
    /// The highest lock space number it knows of.
    pub lockspace_high: u32,
    pub dead: Vec<DeadRecord>,
    /// Replays that it is carrying out.
    #[serde(with = "raw")]
    pub replaying: Vec<(Member, FsId)>,
}

/// What the coordinator of a view tells its members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SanState {
    #[serde(with = "raw")]
    pub view: ViewId,
    /// Grows within one view.
    pub sequence: u64,
    #[serde(with = "raw")]
    pub mounts: MountTable,
    pub lockspace_high: u32,
    pub dead: Vec<DeadRecord>,
}

/// What happened at one member, for the coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SanEvent {
    Fenced {
        #[serde(with = "raw")]
        dead: Member,
    },
    Rebuilt {
        #[serde(with = "raw")]
        fs: FsId,
    },
    Replayed {
        #[serde(with = "raw")]
        dead: Member,
        #[serde(with = "raw")]
        fs: FsId,
        ending: Ending,
    },
    MountAsked {
        #[serde(with = "raw")]
        fs: FsId,
    },
    Mounted {
        #[serde(with = "raw")]
        fs: FsId,
        #[serde(with = "raw")]
        lockspace: LockspaceId,
        #[serde(with = "raw")]
        slot: SlotId,
    },
    Unmounted {
        #[serde(with = "raw")]
        fs: FsId,
    },
}

/// Everything that goes in frames of kind `Control`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Control {
    /// To all: the sender wants to become a member (Fig. 10).
    JoinRequest {
        #[serde(with = "raw")]
        generation: SanGeneration,
        storage_ok: bool,
        /// In which life; registered with shared storage for this start.
        #[serde(with = "raw")]
        incarnation: Incarnation,
    },
    JoinRefused(JoinRefusal),
    Propose(Box<Proposal>),
    Agree {
        round: RoundId,
        storage_ok: bool,
    },
    Object {
        round: RoundId,
        objection: Objection,
    },
    /// The proposal was not committed and never will be.
    Withdraw {
        round: RoundId,
    },
    /// The coordinator to the candidate (Fig. 11): commit this and administer.
    Order {
        order: u64,
        #[serde(with = "raw")]
        base_view: ViewId,
        regroup: Regroup,
    },
    OrderDone {
        order: u64,
        outcome: OrderOutcome,
    },
    /// The register holds this.
    Committed(Box<RegisterValue>),
    /// A piece of what a layer above gives a new member; see [`crate::JoinBlob`].
    JoinState {
        #[serde(with = "raw")]
        view: ViewId,
        layer: u16,
        id: u32,
        #[serde(with = "raw::bytes")]
        bytes: Vec<u8>,
    },
    /// The last message of an admission: from here on the receiver is a member.
    Welcome {
        value: Box<RegisterValue>,
        #[serde(with = "raw")]
        starts: BTreeMap<Member, StartNonce>,
        state: Box<SanState>,
    },
    SanReport(Box<SanReport>),
    SanState(Box<SanState>),
    SanEvent {
        #[serde(with = "raw")]
        view: ViewId,
        event: SanEvent,
    },
    /// The member may mount; see [`MountState::Granted`].
    MountGranted {
        #[serde(with = "raw")]
        view: ViewId,
        #[serde(with = "raw")]
        fs: FsId,
        #[serde(with = "raw")]
        lockspace: LockspaceId,
        first: bool,
    },
}

/// A control message that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    #[error("bytes that are no control message")]
    Encoding,
    #[error("{rest} bytes after the end of a control message")]
    Rest { rest: usize },
    #[error("a control message that contradicts itself")]
    Contradiction,
}

impl Control {
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("postcard writes every control message")
    }

    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Control, ControlError> {
        let (control, rest) =
            postcard::take_from_bytes::<Control>(bytes).map_err(|_| ControlError::Encoding)?;
        if !rest.is_empty() {
            return Err(ControlError::Rest { rest: rest.len() });
        }
        if !control.is_consistent() {
            return Err(ControlError::Contradiction);
        }
        Ok(control)
    }

    fn is_consistent(&self) -> bool {
        match self {
            Control::Propose(proposal) => proposal.is_consistent(),
            Control::Object { objection: Objection::Behind(value), .. }
            | Control::OrderDone {
                outcome: OrderOutcome::Committed(value) | OrderOutcome::Refused(value),
                ..
            }
            | Control::Committed(value) => value.is_consistent(),
            Control::Welcome { value, starts, state } => {
                value.is_consistent()
                    && value.members.iter().all(|m| starts.contains_key(m))
                    && state.is_consistent()
            }
            Control::SanState(state) => state.is_consistent(),
            Control::SanReport(report) => dead_are_distinct(&report.dead),
            Control::Object { .. }
            | Control::OrderDone { .. }
            | Control::JoinRequest { .. }
            | Control::JoinRefused(_)
            | Control::Agree { .. }
            | Control::Withdraw { .. }
            | Control::Order { .. }
            | Control::JoinState { .. }
            | Control::SanEvent { .. }
            | Control::MountGranted { .. } => true,
        }
    }
}

impl Proposal {
    fn is_consistent(&self) -> bool {
        let after = self.regroup.members_after(&self.base);
        let base = self.base.nodes();
        self.base.is_consistent()
            && self.base.contains(self.round.coordinator)
            && self.regroup.leaves.union(self.regroup.victims).minus(base).is_empty()
            && self.regroup.leaves.intersection(self.regroup.victims).is_empty()
            && after.windows(2).all(|pair| pair[0].node < pair[1].node)
            && after.iter().all(|member| self.starts.contains_key(member))
            && self.regroup.joins.iter().all(|m| m.incarnation > self.base.newest(m.node))
    }
}

impl SanState {
    fn is_consistent(&self) -> bool {
        dead_are_distinct(&self.dead)
    }
}

fn dead_are_distinct(dead: &[DeadRecord]) -> bool {
    dead.windows(2).all(|pair| pair[0].member < pair[1].member)
}

#[cfg(test)]
mod tests;
