//! What a peer may say that no correct peer says, and what stops a lock manager.

use mx_base::Member;

use crate::message::Kind;

/// A message that was not taken in. The state is as before; whoever runs the lock manager must not
/// go on with this peer, because from here on the two disagree about who holds what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandleError {
    #[error("{from} sent {kind:?}: {violation}")]
    Violation { from: Member, kind: Kind, violation: Violation },
    /// Messages of views that this node has not heard of fill the memory set aside for them: the
    /// node is too far behind to go on.
    #[error("more than {bytes_max} bytes of messages belong to views this node has not heard of")]
    TooFarBehind { bytes_max: usize },
    #[error("a message for another lockspace")]
    OtherLockspace,
}

/// A rule that a message breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    #[error("the epoch belongs to a view that both know, but is not the bucket's")]
    Epoch,
    #[error("this node is not the bucket's home")]
    NotHome,
    #[error("the sender is not the bucket's home")]
    NotFromHome,
    #[error("the lock is not known")]
    LockUnknown,
    #[error("the lock is known already")]
    LockKnown,
    #[error("something of the lock is queued")]
    LockBusy,
    #[error("nothing was asked for")]
    NothingAsked,
    #[error("a conversion that is not upwards")]
    NotUpwards,
    #[error("a lowering that is not downwards")]
    NotDownwards,
    #[error("a value block from a holder that could not write")]
    ValueOfReader,
    #[error("a report of a lock that conflicts with another survivor's")]
    Incompatible,
    #[error("a report after the end of the sender's reports")]
    ReportEnded,
    #[error("a search for a cycle that is longer than it may get")]
    PathTooLong,
    #[error("an answer about a recovery that this node does not carry out")]
    NotRecovering,
}
