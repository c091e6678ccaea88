//! The primitives on which threads meet in [`pin`](crate::pin).
//!
//! In one place so that `tests/races.rs` can compile the same sources over primitives that try
//! interleavings out.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

pub(crate) use parking_lot::Mutex;
