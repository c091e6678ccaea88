//! One node of a cluster: links and views, fencing, cached locks and mounted file systems, put
//! together.
//!
//! Pure but for the traits it is made with ([`world`], `mfs::env`): the daemon and the simulator
//! run the same wiring. Holds no protocol of its own.

pub mod report;
pub mod world;

mod bundles;
mod describe;
mod fs_locks;
mod group;
mod inspect;
mod mount;
mod node;
mod recovery;
mod revocable;
mod storage;
mod values;
mod waiters;
mod watch;
mod why;

pub use describe::Surroundings;
pub use mount::MountError;
pub use node::{Config, Node, World};
