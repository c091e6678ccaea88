//! The composition root: the only place with sockets, disks, clocks and threads.
//!
//! * [`disk`]: devices behind the gate, as the file system sees them.
//! * [`mounts`]: the file system in the tree of this machine.
//! * [`join`]: what a start does before it may join.
//! * [`partition`]: whose device it is.
//! * [`peers`]: connections to the other nodes.
//! * [`runtime`]: clocks and the threads that run operations.
//! * [`server`]: one node, from its start to its end.
//! * [`programs`]: what mkfs and fsck do.

pub mod admin;
pub mod config;
pub mod disk;
pub mod join;
pub mod mounts;
pub mod partition;
pub mod peers;
pub mod programs;
pub mod ready;
pub mod runtime;
pub mod server;

const _: () = assert!(!mx_base::rules::CAN_BE_BROKEN, "what ships keeps all its rules");
