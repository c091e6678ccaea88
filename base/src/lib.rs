//! The vocabulary that every part of MatrixFS shares.
//!
//! Plain values only: ids, views, time, bounded queues, sizes. Uses nothing but the standard
//! library, does no I/O, reads no clock and draws no random number; both come in as arguments.

pub mod bounded;
pub mod future;
pub mod id;
pub mod rules;
pub mod size;
pub mod time;
pub mod view;

pub use future::BoxFuture;
pub use id::{ClusterId, FsId, Incarnation, Member, NodeId, SlotId};
pub use time::{Duration, Instant, Timestamp};
pub use view::{SanGeneration, View, ViewId};
