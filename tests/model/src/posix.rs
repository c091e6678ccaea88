//! A POSIX tree in memory: every operation of the file system with the result that Linux gives.
//!
//! Operations take inode numbers and names, as the kernel hands them to a file system; the last
//! component of a path may be `.` or `..`. Checks come in the order in which Linux makes them, so
//! that of two possible errors the right one is expected. Permissions are not checked: the mounts
//! of MatrixFS leave them to the kernel (`default_permissions`), as they do clearing set-user-id
//! bits.
//!
//! Keeps true between calls:
//!   * every directory but the root has one entry in one other directory that lives;
//!   * a node without names lives as long as a handle on it is open, and no longer;
//!   * link count of a directory: 2 + its directories, 0 once removed; of others: their names;
//!   * change times of an object grow with every change of it (I8).
//!
//! Cloning is cheap enough to keep a version per operation: nodes and pages are shared.

mod acl;
mod attributes;
mod content;
mod create;
mod data;
mod diff;
mod errno;
mod handle;
mod node;
mod range;
mod remove;
mod rename;
mod tree;
mod xattr;

pub use attributes::{Attributes, Change, TimeChange};
pub use content::Content;
pub use create::{Caller, Existing, Special};
pub use diff::{Compare, Difference, Found, Snapshot, diff};
pub use errno::Errno;
pub use handle::Handle;
pub use node::{Ino, Kind};
pub use range::{Allocate, Sought};
pub use rename::Rename;
pub use tree::{Counts, Tree};
pub use xattr::{Presence, Xattrs};

/// The longest name of an entry, in bytes.
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes (PATH_MAX without the final NUL).
pub const TARGET_MAX: usize = 4095;
/// The largest size of a file, in bytes: what an `off_t` can say.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests;
