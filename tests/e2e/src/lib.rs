//! Real processes, real mounts, real kills: what a user of MatrixFS has, made and judged.
//!
//! * [`Cluster`]: a device file, an arbiter and some nodes on this machine, each mounted.
//! * [`Fixture`]: a cluster for one test, gone when the test is, whatever became of it.
//! * [`locker`]: a process that locks files as a test says.
//! * [`load`]: programs that work on the mounts and tell what was acknowledged, and the judge of
//!   what must be there afterwards.
//! * [`coherence`]: whatever a node does, with whatever any node looks at.
//! * [`shared_file`] and [`cells`]: one file through several mounts, in turn and at once, every
//!   operation checked.
//!
//! Keeps true: what was started or mounted here is ended and unmounted here, by process id and by
//! path, unless a cluster is to be kept. Links no crate that it judges: it sees what a user sees.

pub mod admin;
mod aligned;
pub mod cells;
pub mod cluster;
pub mod coherence;
mod dice;
mod fixture;
pub mod fsck;
pub mod load;
pub mod locker;
pub mod loop_device;
mod mapping;
pub mod mounts;
pub mod process;
pub mod programs;
pub mod reports;
pub mod shared_file;
pub mod wait;

pub use cluster::{Cluster, Killed, Shape};
pub use fixture::Fixture;
pub use programs::Programs;
