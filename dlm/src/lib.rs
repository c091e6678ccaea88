//! The distributed lock manager: an instance on every node, all peers.
//!
//! Pure: no clock, no randomness, no socket, no thread. A resource name is opaque bytes plus a
//! bucket number; what the locks protect is unknown here.
//!
//! Start reading at [`Lockspace`], the machine that a node runs; the rules are in
//! `docs/spec/locks.md`.

pub mod advisory;
pub mod counters;
mod early;
pub mod explain;
mod home;
mod homes;
mod invariants;
pub mod lock;
pub mod lockspace;
pub mod message;
pub mod mode;
pub mod mode_set;
pub mod name;
pub mod rebuild;
mod requester;
mod resource;
pub mod value_block;
pub mod violation;

pub use counters::Counters;
pub use lock::{Ast, Denial, LockId, LockRef};
pub use lockspace::{Lockspace, Output};
pub use message::{BucketName, Bundle, DecodeError, LockspaceId, Message};
pub use mode::Mode;
pub use mode_set::ModeSet;
pub use name::{Bucket, ResourceName};
pub use requester::TooManyLocks;
pub use value_block::ValueBlock;
pub use violation::{HandleError, Violation};
