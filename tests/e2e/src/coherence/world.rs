//! The tree on a file system, as [`Tree::new`](super::model::Tree::new) says it is.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;

use anyhow::Result;
use nix::libc;
use rustix::fs::XattrFlags;

use super::model::{DIR_MODE, FILE_BYTES, FILE_MODE, INNER_BYTES, KEPT, OTHER_BYTES};

/// Makes it at a path where nothing is.
pub(super) fn make(dir: &Path) -> Result<()> {
    for path in [dir.to_owned(), dir.join("sub"), dir.join("empty")] {
        fs::DirBuilder::new().mode(DIR_MODE).create(path)?;
    }
    let files = [("file", FILE_BYTES), ("other", OTHER_BYTES), ("sub/inner", INNER_BYTES)];
    for ((name, len), letter) in files.into_iter().zip(*b"foi") {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(FILE_MODE).open(dir.join(name));
        file?.write_all(&vec![letter; len])?;
    }
    rustix::fs::setxattr(dir.join("file"), KEPT, b"old", XattrFlags::CREATE)?;
    Ok(symlink("file", dir.join("link"))?)
}

/// An access list: all for the owner and for user 1234, nothing for the group and others; version
/// 2, and entries of tag, permissions and id (include/uapi/linux/posix_acl_xattr.h).
pub(super) fn acl() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut bytes = vec![2, 0, 0, 0];
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, NOBODY), (2, 7, 1234), (4, 0, NOBODY), (0x10, 7, NOBODY), (0x20, 0, NOBODY)];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// For fcntl(2).
pub(super) fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
