//! The lines that go over the administration socket.
//!
//! `{"version":1,"request":"status"}` is answered by `{"version":1,"answer":{"status":{..}}}`,
//! anything that cannot be done by `{"version":1,"answer":{"error":"why"}}`. Several requests may
//! follow each other on one connection; each is answered before the next is read.

use std::path::PathBuf;

use mx_node::report::{
    CheckCursor, FsCheck, FsDamage, FsTrim, FsUsage, LockDump, LockTop, RecoveryReport, Status, Why,
};
use serde::{Deserialize, Serialize};

use crate::programs::mount::options::MountOptions;

/// Grows when an old program could misunderstand a new daemon, or the reverse.
pub const VERSION: u32 = 1;

/// Bytes of a request with its end of line: the longest path, escaped, fits.
pub const REQUEST_MAX: usize = 64 * 1024;

/// Bytes of an answer with its end of line: [`LOCKS_MAX`] locks fit.
pub const ANSWER_MAX: usize = 64 * 1024 * 1024;

/// The most entries of each list in a dump of locks.
pub const LOCKS_MAX: u32 = 10_000;

/// A line to the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Call<R = Request> {
    pub version: u32,
    pub request: R,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Ping,
    Status,
    LockDump {
        /// As `mx_node::report::ResourceFilter` is written; `None` for all.
        resource: Option<String>,
        /// Up to [`LOCKS_MAX`].
        limit: u32,
    },
    RecoveryLast,
    LockTop,
    Why(Subject),
    FsUsage,
    FsDamage,
    /// Some groups; the answer tells where to go on.
    FsTrim {
        from: u64,
        /// Shorter free runs are left alone.
        minimum_bytes: u64,
    },
    /// A piece; the answer tells where to go on.
    FsCheck {
        from: CheckCursor,
        /// Read the blocks of files, too.
        data: bool,
    },
    /// Suspends changes on all nodes.
    FsFreeze {
        /// How long they may take to come to rest.
        patience_ms: u64,
        /// Thawed by itself behind that.
        lasts_ms: u64,
    },
    FsThaw,
    Mount {
        directory: PathBuf,
        options: MountOptions,
    },
    /// The options that what is mounted there has from now on.
    Remount {
        directory: PathBuf,
        options: MountOptions,
    },
    Unmount {
        directory: PathBuf,
    },
    Leave,
    Stop,
}

/// What `mxctl why` asks about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Subject {
    /// As `mx_node::report::ResourceFilter` is written, of one resource.
    Resource(String),
    /// Absolute.
    Path(PathBuf),
}

/// A line from the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply<A = Answer> {
    pub version: u32,
    pub answer: A,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done; there is nothing to report.
    Done,
    Status(Box<Status>),
    LockDump(LockDump),
    RecoveryLast(RecoveryReport),
    LockTop(LockTop),
    Why(Box<Why>),
    FsUsage(FsUsage),
    FsDamage(FsDamage),
    FsTrim(FsTrim),
    FsCheck(FsCheck),
    /// It was not done.
    Error(String),
}

/// What every version has in its lines.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}
