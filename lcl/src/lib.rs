//! The lock-caching layer: keeps cluster locks after use and gives them up on request.
//!
//! [`pin`] is the concurrent table of the hot path, one atomic word per lock. A lock that is cached
//! in a sufficient mode is pinned and unpinned there: no message, no queue, no hand-off.
//! [`LockCache`] is the machine behind it, in which every change of a mode is decided, and
//! [`surrender`] what happens before a mode is given up.
//!
//! Knows no inode: what a surrender means for the things a lock protects is a [`LockClass`].

pub mod cache;
pub mod class;
pub mod hot;
pub mod pin;
pub mod surrender;
mod sync;

pub use cache::{LockCache, Output};
pub use class::{ClassTable, LockClass};
pub use dlm::advisory;
pub use dlm::lockspace::EnterError;
pub use dlm::message::Kind as MessageKind;
pub use dlm::rebuild::welcome::{Welcome, WelcomeError};
pub use dlm::rebuild::{Dead, Lingers, RecoveryError, RecoveryStep};
pub use dlm::{
    Bucket, BucketName, Bundle, Counters as LockspaceCounters, DecodeError, Denial, HandleError,
    LockId, Lockspace, LockspaceId, Message, Mode, ResourceName, ValueBlock, explain,
};
pub use surrender::{Surrendered, surrender};
