//! The composition root: the only place with sockets, disks, clocks and threads.
//!
//! * [`disk`]: devices behind the gate, as the file system sees them.
//! * [`runtime`]: clocks and the threads that run operations.


pub mod disk;

pub mod runtime;
