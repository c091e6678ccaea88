//! The lock-caching layer: keeps cluster locks after use and gives them up on request.
//!
//! [`pin`] is the concurrent table of the hot path, one atomic word per lock. A lock that is cached
//! in a sufficient mode is pinned and unpinned there: no message, no queue, no hand-off.
//!
//! Knows no inode: what a surrender means for the things a lock protects is a [`LockClass`].

pub mod class;
pub mod pin;
mod sync;

pub use class::LockClass;
pub use dlm::{Bucket, Mode, ResourceName, ValueBlock};
