//! Links between nodes, heartbeats, views, mount groups and the order of recovery.
//!
//! Pure: no clock, no randomness, no socket, no thread. One machine, [`Cluster`], takes what
//! happened together with the time, and gives back what is to be done, in order.
//!
//! Start reading at [`Cluster`], then [`membership`] for who is in, [`san`] for what happens after
//! a death, [`links`] for how messages get there. `docs/spec/wire.md` has every byte,
//! `docs/spec/recovery.md` every rule with the test that would break.
//!
//! What this crate never does: act on a suspicion, act in a view that the register has not
//! committed, or know what a lock or a file is.

mod cluster;
pub mod disk;
pub mod frame;
pub mod handshake;
pub mod heartbeat;
pub mod link;
pub mod links;
mod membership;
pub mod nodes;
pub mod output;
mod random;
pub mod register;
pub mod san;
pub mod suspicion;
mod timer;
pub mod wire;

pub use cluster::{Cluster, Config};
pub use disk::DiskHeartbeat;
pub use frame::{Frame, LockspaceId};
pub use handshake::{Refusal, StartNonce};
pub use heartbeat::Permit;
pub use links::{ConnectionId, Fault, SendError};
pub use nodes::NodeSet;
pub use output::{End, Installed, JoinBlob, Output, Step};
pub use register::{Change, Commit, CommitAnswer, CommitToken, Phase, RegisterValue, Regroup};
pub use san::{FILE_SYSTEMS_MAX, FsRecovery, MountError, Recovery};
pub use suspicion::{Cause, Suspected};
pub use timer::Unit;
pub use wire::{Ending, JoinRefusal, MountState, MountTable};
