//! Carries out what `fencing` decides: the fenced block server and its client, and the io_uring
//! engine that both it and a local mount write with.
//!
//! * [`arbiter`]: a block server that checks every write against the fenced set when it executes
//!   it, for devices that cannot fence by themselves; and its client.
//! * [`engine`]: asynchronous direct I/O on a file or block device of this machine.
//! * [`device`]: opening a shared device so that no second writer can, and no predecessor's I/O is
//!   still under way.
//!
//! A shell: threads, sockets and files are here, decisions are not.

pub mod arbiter;
pub mod completion;
pub mod device;
pub mod engine;
pub mod payload;
mod ring;

pub use completion::Completion;
pub use payload::{BlockBuffer, Payload};
