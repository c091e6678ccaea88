//! Extended attributes.

use mfs::FsError;
use mfs::ops::SetXattr;

use crate::adapter::Shared;
use crate::errno::errno;
use crate::protocol::layout::GetxattrOut;
use crate::transport::{Errno, Reply};

/// Flags of setxattr(2), and of a SETXATTR.
pub(crate) fn set_xattr(flags: u32, clear_sgid: bool) -> SetXattr {
    let has = |flag: i32| flags.cast_signed() & flag != 0;
    SetXattr { create: has(libc::XATTR_CREATE), replace: has(libc::XATTR_REPLACE), clear_sgid }
}

/// Of a list of names, each with a zero behind it, those that the caller may see: `trusted` ones are
/// for root (xattr(7)).
pub(crate) fn names_for(uid: u32, names: Vec<u8>) -> Vec<u8> {
    if uid == 0 {
        return names;
    }
    let names = names.split_inclusive(|byte| *byte == 0);
    names.filter(|name| !name.starts_with(b"trusted.")).flatten().copied().collect()
}

impl Shared {
    /// Answers GETXATTR and LISTXATTR: with the length, if the caller has no room, else the bytes.
    pub(crate) fn answer_xattr(&self, reply: Reply, room: u32, found: Result<Vec<u8>, FsError>) {
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(error) => return reply.error(errno(&error)),
        };
        let size = u32::try_from(bytes.len()).expect("a value or list has at most 64 KiB");
        if room == 0 {
            reply.structure(&GetxattrOut { size, reserved: 0 });
        } else if size > room {
            reply.error(Errno(libc::ERANGE));
        } else {
            reply.bytes(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_sees_names_that_are_trusted() {
        let names = b"trusted.a\0user.b\0trusted.c\0".to_vec();
        assert_eq!(names_for(0, names.clone()), names);
        assert_eq!(names_for(1, names), b"user.b\0");
    }
}
