//! Flags of files: lsattr(1) and chattr(1).
//!
//! The kernel has checked who asks, and that it may set these (`fs/file_attr.c`).

use mfs::FsError;
use mfs::file::FileFlags;

use crate::adapter::Shared;
use crate::errno::errno;
use crate::nodes::Node;
use crate::protocol::layout::{IoctlIn, IoctlOut};
use crate::transport::Reply;

/// `include/uapi/linux/fs.h`.
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NO_ATIME: u32 = 0x80;

/// The kernel passes flags as 32 bits, whatever the command says.
const FLAGS_SIZE: u32 = 4;

/// What of ioctl(2) is understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Get,
    Set(u32),
}

/// `None` for another command.
pub(crate) fn command(asked: &IoctlIn, data: &[u8]) -> Option<Command> {
    match u64::from(asked.command) {
        libc::FS_IOC_GETFLAGS if asked.out_size == FLAGS_SIZE => Some(Command::Get),
        libc::FS_IOC_SETFLAGS => data.try_into().ok().map(|b| Command::Set(u32::from_le_bytes(b))),
        _ => None,
    }
}

fn bits(flags: FileFlags) -> u32 {
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    bit(flags.immutable, IMMUTABLE)
        | bit(flags.append_only, APPEND)
        | bit(flags.no_atime, NO_ATIME)
}

/// `None` when there are others among them.
fn flags(bits: u32) -> Option<FileFlags> {
    let has = |bit| bits & bit != 0;
    (bits & !(IMMUTABLE | APPEND | NO_ATIME) == 0).then(|| FileFlags {
        immutable: has(IMMUTABLE),
        append_only: has(APPEND),
        no_atime: has(NO_ATIME),
    })
}

impl Shared {
    pub(crate) async fn get_flags(&self, node: Node, reply: Reply) {
        match async { self.fs.flags(self.file(node)?).await }.await {
            Ok(flags) => {
                let done = IoctlOut { result: 0, flags: 0, in_iovs: 0, out_iovs: 0 };
                reply.both(&done, &bits(flags).to_le_bytes());
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn set_flags(&self, node: Node, bits: u32, reply: Reply) {
        let set = async {
            let flags = flags(bits).ok_or(FsError::Unsupported)?;
            self.fs.set_flags(self.file(node)?, flags).await
        };
        match set.await {
            Ok(()) => {
                reply.structure(&IoctlOut { result: 0, flags: 0, in_iovs: 0, out_iovs: 0 });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: u64, out_size: u32) -> IoctlIn {
        let command = u32::try_from(command).expect("32 bits");
        IoctlIn { handle: 1, flags: 0, command, argument: 0, in_size: 0, out_size }
    }

    #[test]
    fn flags_are_what_chattr_sets_and_no_others() {
        for set in [0, IMMUTABLE, APPEND, NO_ATIME, IMMUTABLE | NO_ATIME] {
            assert_eq!(flags(set).map(bits), Some(set));
        }
        assert_eq!(flags(1), None, "secure deletion is not supported");
    }

    #[test]
    fn commands_of_another_size_are_not_understood() {
        assert_eq!(command(&asked(libc::FS_IOC_GETFLAGS, 4), &[]), Some(Command::Get));
        assert_eq!(command(&asked(libc::FS_IOC_GETFLAGS, 8), &[]), None);
        let set = asked(libc::FS_IOC_SETFLAGS, 0);
        assert_eq!(command(&set, &[0x10, 0, 0, 0]), Some(Command::Set(0x10)));
        assert_eq!(command(&set, &[0x10, 0]), None);
        assert_eq!(command(&asked(0x1234, 4), &[]), None);
    }
}
