//! The operations, one file each.
//!
//! An operation takes its pins in the fixed order of locks, does its work as transactions, and
//! returns what the kernel is to be told together with the pins that make it true: whoever answers
//! drops them behind the answer.

pub(crate) mod ahead;
pub mod allocate;
mod atime;
pub mod copy;
pub mod create;
mod end;
pub mod flags;
pub mod fsync;
pub mod link;
pub(crate) mod locking;
pub mod lookup;
mod new_inode;
pub mod open;
pub mod read;
pub mod readdir;
pub mod rename;
pub mod seek;
pub mod setattr;
pub mod statfs;
pub mod statistics;
pub mod symlink;
pub mod trim;
pub mod unlink;
mod unnamed;
pub mod write;
pub mod xattr;

pub use allocate::Allocate;
pub use create::{NewFile, NewKind};
pub use lookup::{Entry, Keep, Lookup};
pub use open::{OpenFile, OpenFlags};
pub use read::{ReadData, ReadKind};
pub use readdir::{Listed, Listing};
pub use rename::RenameKind;
pub use seek::SeekFor;
pub use setattr::{SetAttributes, SetTime};
pub use statfs::Statfs;
pub use statistics::Statistics;
pub use trim::{NotReplayed, TrimError, Trimmed};
pub use xattr::SetXattr;

use crate::error::FsError;
use crate::ondisk::directory::NAME_MAX;

/// Can this be the name of an entry?
fn check_name(name: &[u8]) -> Result<(), FsError> {
    if name.len() > NAME_MAX {
        return Err(FsError::NameTooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(FsError::Invalid("not a name"));
    }
    Ok(())
}
