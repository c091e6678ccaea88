//! The shell between the kernel's FUSE and the file system.
//!
//! Translates requests to operations of [`mfs`] and invalidations of the file system to
//! notifications of the kernel, and decides nothing. The only place that knows numbers of `errno`.
//!
//! * [`protocol`]: the messages; [`transport`]: the way they come and go.
//! * [`adapter`]: what is asked for, as operations; [`names`], [`entries`], [`data`], [`attributes`]
//!   and [`listing`]
//!   carry out and answer.
//! * [`file_locks`]: flock and fcntl.
//! * [`caller`]: for which process a request is being answered.
//! * [`lease`]: until when requests may be served from what is cached.
//! * [`notify`]: what the kernel is told to forget.
//! * [`nodes`]: what the kernel knows, and by which number.
//! * [`session`]: mounting, serving, the end.

mod adapter;
mod attributes;
pub mod caller;
mod data;
mod entries;
mod errno;
mod file_locks;
mod flags;
mod lease;
mod listing;
mod names;
mod nodes;
mod notify;
pub mod protocol;
mod ranges;
mod ready;
mod requests;
pub mod session;
mod transport;
mod trim;

pub use lease::Lease;
pub use notify::Notifier;
pub use session::{Connection, MountFlags, Mounting, Session, SessionError};
