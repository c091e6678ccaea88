//! The distributed lock manager: an instance on every node, all peers.
//!
//! Pure: no clock, no randomness, no socket, no thread. A resource name is opaque bytes plus a
//! bucket number; what the locks protect is unknown here.

pub mod mode;
pub mod name;
pub mod value_block;

pub use mode::Mode;
pub use name::{Bucket, ResourceName};
pub use value_block::ValueBlock;
