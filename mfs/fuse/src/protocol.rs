//! The messages between the kernel's FUSE and a daemon (include/uapi/linux/fuse.h, version 7.31 and
//! later): what comes in is parsed here, what goes out is laid out here.
//!
//! Keeps true: nothing is read outside a message, whatever its lengths say; no message makes the
//! daemon panic. Does no I/O and knows no file system.
//!
//! * [`layout`]: the structures, in the machine's byte order, as everything between kernel and daemon.
//! * [`request`]: a message from the kernel, parsed.
//! * [`init`]: what both sides can do.

pub mod init;
pub mod layout;
pub mod request;

pub use layout::{Attr, EntryOut};
pub use request::{Malformed, Operation, Request};
