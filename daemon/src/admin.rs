//! How a running daemon is asked and told: a Unix socket, one JSON object per line each way.
//!
//! * [`protocol`]: requests and answers.
//! * [`server`]: the daemon's side; [`Source`] is what it asks.
//! * [`client`]: the side of `mxctl` and of the mount helpers.

pub mod client;
pub mod protocol;
pub mod server;

use std::path::PathBuf;
use std::time::Duration;

use mx_base::BoxFuture;
use mx_node::report::{
    CheckCursor, FsCheck, FsDamage, FsTrim, FsUsage, LockDump, LockTop, RecoveryReport,
    ResourceFilter, Status, Why,
};

pub use client::{Client, ClientError};
pub use protocol::{Answer, Request, Subject};
pub use server::{BindError, Server};

use crate::programs::mount::options::MountOptions;

/// What the administration socket of a daemon stands for. Errors are texts for the administrator.
pub trait Source: Send + Sync {
    fn status(&self) -> BoxFuture<'_, Result<Status, String>>;

    /// At most `limit` entries in each list; the totals count all that match.
    fn lock_dump(
        &self,
        resource: Option<ResourceFilter>,
        limit: usize,
    ) -> BoxFuture<'_, Result<LockDump, String>>;

    fn recovery_last(&self) -> BoxFuture<'_, Result<RecoveryReport, String>>;

    /// Counts of the hottest resources so far.
    fn lock_top(&self) -> BoxFuture<'_, Result<LockTop, String>>;

    /// What this node knows of a resource, or of those of a file.
    fn why(&self, subject: Subject) -> BoxFuture<'_, Result<Why, String>>;

    fn fs_usage(&self) -> BoxFuture<'_, Result<FsUsage, String>>;
    fn fs_damage(&self) -> BoxFuture<'_, Result<FsDamage, String>>;

    /// Tells the device of free runs of at least `minimum_bytes` in some groups from `from` on.
    fn fs_trim(&self, from: u64, minimum_bytes: u64) -> BoxFuture<'_, Result<FsTrim, String>>;

    /// Checks a piece of the file system while it is used, with the blocks of files if `data`.
    fn fs_check(&self, from: CheckCursor, data: bool) -> BoxFuture<'_, Result<FsCheck, String>>;

    /// Suspends changes on all nodes for up to `lasts`, if they come to rest within `patience`.
    fn fs_freeze(&self, patience: Duration, lasts: Duration) -> BoxFuture<'_, Result<(), String>>;
    fn fs_thaw(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Completes when the mount is usable. Goes on when whoever asked is gone.
    fn mount(&self, directory: PathBuf, options: MountOptions)
    -> BoxFuture<'_, Result<(), String>>;

    /// Completes when the options hold.
    fn remount(
        &self,
        directory: PathBuf,
        options: MountOptions,
    ) -> BoxFuture<'_, Result<(), String>>;

    /// Unmounts if that has not happened yet, and completes when everything is in place on the
    /// device and the slot is clean; at once when nothing is mounted there by this daemon.
    fn unmount(&self, directory: PathBuf) -> BoxFuture<'_, Result<(), String>>;

    /// Completes when this node is no member any more; the daemon goes on, to answer.
    fn leave(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Completes when the end of the daemon is certain: unmounted, left, only the process is to
    /// end.
    fn stop(&self) -> BoxFuture<'_, Result<(), String>>;
}

#[cfg(test)]
mod tests;
