//! Signs of life on the membership partition: this node's own, and the watch on the others'.
//!
//! A heartbeat that does not move proves nothing by itself; it is a condition of a cold start and a
//! hint for everything else. Only changes of contents count, timed by the observer's clock: no time
//! that another node wrote down is ever believed (R2).

mod observer;
mod own;

pub use observer::{Observer, OwnBlock, Pulse, Quiet};
pub use own::{Beat, BeatWrite, OwnHeartbeat};

#[cfg(test)]
mod tests;
