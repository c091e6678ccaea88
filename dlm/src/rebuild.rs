//! What happens to locks when members come and go.
//!
//! A bucket whose home changed is *rebuilt*: its heir collects from every member what that member
//! holds and waits for ([`report`]), and grants nothing in it before all have reported. What a dead
//! member held stays in force as a [`remnant`] until its journal is replayed ([`limbo`],
//! [`recovery`]) and its kernel's caches are known to be gone.

pub(crate) mod dead;
pub(crate) mod limbo;
pub(crate) mod recovery;
pub(crate) mod remnant;
pub(crate) mod report;
pub mod welcome;

pub use dead::Dead;
pub use recovery::{RecoveryError, RecoveryStep};
pub use remnant::Lingers;
