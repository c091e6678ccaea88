//! The way to the kernel: messages read from /dev/fuse and answers written to it.
//!
//! Keeps true: every request that wants an answer gets exactly one, an error if whoever was to
//! answer is dropped; an answer goes to the descriptor that its request came from. Knows no
//! operations.
//!
//! * [`device`]: the descriptors, and the threads that read.
//! * [`buffer`]: the memory that messages are read into.
//! * [`reply`]: one answer.
//! * [`interrupt`]: requests whose process got a signal.
//! * [`signals`]: which signals end a process.

pub(crate) mod buffer;
pub(crate) mod device;
pub(crate) mod interrupt;
pub(crate) mod reply;
mod signals;

pub(crate) use buffer::Message;
pub(crate) use device::Channel;
pub(crate) use reply::{Errno, Reply};
