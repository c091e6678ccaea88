//! The matrix file system: a shared disk format, a journal per mount, caches under cluster locks,
//! and the operations of a POSIX file system as async functions over the traits of [`env`].
//!
//! Knows no FUSE, no peers and no membership.

pub mod block;
pub mod env;
pub mod error;
pub mod file;
pub mod freeze;
pub mod fs;
pub mod fsck;
pub mod inspect;
pub mod journal;
pub mod layout;
pub mod locks;
pub mod mkfs;
pub mod mount;
pub mod ondisk;
pub mod ops;
pub mod superblock;
pub mod xattr;

mod acl;
mod alloc;
mod cache;
mod dir;
mod inode;
mod runs;
mod slot;
mod writeback;

pub use error::FsError;
pub use file::{Attributes, FileId, FileType, InodeNo};
pub use fs::{Fs, Options};
pub use mount::{MountError, Mounted, mount};
