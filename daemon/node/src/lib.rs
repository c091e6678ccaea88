//! One node of a cluster: links and views, fencing, cached locks and mounted file systems, put
//! together.
//!
//! Pure but for the traits it is made with ([`world`], `mfs::env`): the daemon and the simulator
//! run the same wiring. Holds no protocol of its own.

pub mod report;
pub mod world;

mod backlog;
mod bundles;
mod carry_out;
mod describe;
mod file_locks;
mod file_system;
mod file_systems;
mod fs_locks;
mod group;
mod inspect;
mod lock_traffic;
mod mount;
mod node;
mod recovery;
mod revocable;
mod storage;
mod timers;
mod values;
mod waiters;
mod watch;
mod why;

pub use describe::{Place, Surroundings};
pub use file_system::FileSystem;
pub use file_systems::{FileSystems, FileSystemsError};
pub use mount::MountError;
pub use node::{Config, Node, World};
