//! The file system's locks: what each resource is called and covers, and what a surrender of it
//! means.
//!
//! The fixed order in which locks are taken (`docs/spec/locks.md`): SB; OPEN; FREEZE; RENAME;
//! directories by inode number; other inodes by number; SPACE; AG ascending; SLOT. A surrender takes only locks that come
//! later; an AG's surrender takes none. A lock may be tried without waiting out of order.

mod classes;
pub mod resource;

pub(crate) use classes::Classes;

pub use resource::{Resource, covering};
