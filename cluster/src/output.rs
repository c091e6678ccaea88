//! What the machine wants done, and what it tells: the values of [`crate::Cluster::poll_output`].
//!
//! The order is part of the protocol: a caller carries outputs out in the order they come, except
//! that frames of different connections may overtake each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use mx_base::{FsId, Incarnation, Instant, Member, NodeId, SlotId, View, ViewId};

use crate::frame::{Frame, LockspaceId};
use crate::handshake::Refusal;
use crate::links::{ConnectionId, Fault};
use crate::register::{Commit, RegisterValue};
use crate::suspicion::Cause;
use crate::wire::{Ending, JoinRefusal, MountState};

/// One thing to do or to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Dial `peer`; answered by `handle_connected` or `handle_connect_failed`.
    Connect { peer: NodeId },
    /// Put the frame on the connection. [`Frame::is_urgent`] ones go before what waits there.
    Send { connection: ConnectionId, frame: Frame },
    /// Close it after what was sent before. No `handle_closed` is expected, one does no harm.
    Close { connection: ConnectionId },
    /// Lock traffic of a member of the installed view, in order and once.
    DeliverLock { from: Member, lockspace: LockspaceId, payload: Arc<[u8]> },
    /// The same between members of a mount group.
    DeliverGroup { from: Member, lockspace: LockspaceId, payload: Arc<[u8]> },
    /// Read the register soon and pass it to `handle_register`.
    ReadRegister,
    /// Change the register; answered by `handle_commit_answer`.
    CommitView(Commit),
    /// A view is committed and this node acts in it from here on (R11).
    ViewInstalled(Box<Installed>),
    /// The register has moved on within the view: what is recorded of the victims.
    PhaseChanged(Box<RegisterValue>),
    /// A joiner of `view` needs the state of the layers above as of this view; answered by
    /// `handle_join_state`.
    CollectJoinState { view: ViewId },
    /// A step of recovery that this node executes.
    Step(Step),
    /// This node may mount; see [`MountState::Granted`].
    MountGranted { fs: FsId, lockspace: LockspaceId, first: bool },
    /// A member died before the mount was complete. Nothing may be written under this grant any
    /// more when the next output is carried out; the mount starts over with the next grant.
    MountRevoked { fs: FsId, lockspace: LockspaceId },
    /// Who has a file system mounted where, after a change.
    MountGroupChanged { fs: FsId, members: BTreeMap<Member, MountState> },
    /// A dead member is fenced, and it is known in which file systems its recovery is under way: in
    /// all others nothing of it is left to do, see [`Cluster::is_recovered`](crate::Cluster::is_recovered).
    Scoped { dead: Member },
    /// Everything that a dead member left is recovered, as far as this node knows.
    Recovered { dead: Member },
    /// A peer is suspected, or no longer.
    Suspected { peer: NodeId, cause: Option<Cause> },
    /// A member does not let this joiner in yet; it goes on asking.
    JoinRefused { by: NodeId, reason: JoinRefusal },
    /// A peer does not speak with this node; it goes on trying.
    TurnedAway { peer: NodeId, refusal: Refusal },
    /// A connection was closed because of what came over it.
    PeerFault { peer: Option<NodeId>, fault: Fault },
    /// The last output but `Close`: this start is out of the cluster. Cut off everything that uses
    /// shared storage or cached state (R16), then make a new machine with a new incarnation to join
    /// again.
    Ended(End),
}

/// Why a machine has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum End {
    #[error("left in good order")]
    Left,
    #[error("expelled: the register has moved on without this node")]
    Expelled,
    /// The incarnation of this start is not above `newest`, or is meant for another start. To be
    /// started over with a higher one.
    #[error("the incarnation of this start was used before; incarnation {newest} is known")]
    LifeUsed { newest: Incarnation },
    /// The cold start of this start was refused. To be started over with a new incarnation.
    #[error("somebody else changed the register before this node could start the cluster")]
    ColdStartRefused,
    /// Cannot happen between nodes that keep the rules.
    #[error("the register is more than one view ahead")]
    MissedViews,
}

/// A view from which on this node acts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installed {
    pub me: Member,
    pub view: View,
    pub administrator: Member,
    /// The view before on this node; `None` for a joiner.
    pub previous: Option<View>,
    /// Members of the view before that died or were dropped.
    pub lost: Vec<Member>,
    /// Members of the view before that left in good order.
    pub left: Vec<Member>,
    /// All dead members of which something may be left, the lost among them.
    pub unrecovered: Vec<Member>,
    /// By the clock of this node: from here on nothing renews the read permit of the lost, so it
    /// ends 5 U later at the latest (R13).
    pub quiet_from: Instant,
    /// What the layers above are given on joining; `None` for those who were members before.
    pub join_state: Option<Vec<JoinBlob>>,
}

/// State that a layer above gives a joiner: opaque here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinBlob {
    /// Which layer; the daemon gives the numbers.
    pub layer: u16,
    /// Which part of it, a lock space for example. Each pair of `layer` and `id` once.
    pub id: u32,
    pub bytes: Vec<u8>,
}

impl JoinBlob {
    /// Sent in pieces of so many bytes.
    pub(crate) const PIECE: usize = 512 << 10;
}

/// A step of the recovery of a dead member; see `docs/spec/recovery.md`. Every step may come
/// again after another death and must then end the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// On every member: what the dead member held in this file system is held until it is
    /// recovered; its queued requests are gone. Nothing else waits.
    Hold { dead: Member, fs: FsId },
    /// On the administrator: prove that no write of this life or an earlier one of its node
    /// reaches shared storage any more; answered by `handle_fenced`.
    Fence { dead: Member },
    /// On every member: rebuild the lock tables whose home was dead; answered by
    /// `handle_rebuilt`.
    Rebuild { view: ViewId, fs: FsId },
    /// On the one recoverer: replay the journal of the dead member; answered by
    /// `handle_replayed`. Its fence is proven.
    Replay { dead: Member, fs: FsId, slot: Option<SlotId> },
    /// On every member: nothing of the dead member is left in this file system.
    Resume { dead: Member, fs: FsId, ending: Ending },
}
