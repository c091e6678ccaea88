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

/// One flag, as `FS_IOC_GETFLAGS` and as `FS_IOC_FSGETXATTR` have it (`include/uapi/linux/fs.h`).
struct Bit {
    flag: u32,
    xflag: u32,
}

const IMMUTABLE: Bit = Bit { flag: 0x10, xflag: 0x8 };
const APPEND: Bit = Bit { flag: 0x20, xflag: 0x10 };
const NO_ATIME: Bit = Bit { flag: 0x80, xflag: 0x40 };

/// `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
const GET_XATTR: u64 = 0x801c_581f;
const SET_XATTR: u64 = 0x401c_5820;

/// Bytes of what is passed: the kernel passes flags as 32 bits, whatever the command says, and
/// `struct fsxattr`, which begins with its flags.
const FLAGS_SIZE: usize = 4;
const XATTR_SIZE: usize = 28;

/// What of ioctl(2) is understood. The kernel asks for both kinds, and sets either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Get(Form),
    /// `None`: others than are supported.
    Set(Option<FileFlags>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Flags,
    Xattr,
}

/// `None` for another command.
pub(crate) fn command(asked: &IoctlIn, data: &[u8]) -> Option<Command> {
    let out = asked.out_size as usize;
    match (u64::from(asked.command), data.len()) {
        (libc::FS_IOC_GETFLAGS, _) if out == FLAGS_SIZE => Some(Command::Get(Form::Flags)),
        (GET_XATTR, _) if out == XATTR_SIZE => Some(Command::Get(Form::Xattr)),
        (libc::FS_IOC_SETFLAGS, FLAGS_SIZE) => {
            let bits = u32::from_le_bytes(data.try_into().expect("four bytes"));
            Some(Command::Set(Form::Flags.read(bits)))
        }
        (SET_XATTR, XATTR_SIZE) => {
            let (bits, rest) = data.split_first_chunk().expect("28 bytes");
            let others = rest.iter().any(|byte| *byte != 0);
            let set = Form::Xattr.read(u32::from_le_bytes(*bits));
            Some(Command::Set(set.filter(|_| !others)))
        }
        _ => None,
    }
}

impl Form {
    fn bit(self, bit: &Bit) -> u32 {
        match self {
            Form::Flags => bit.flag,
            Form::Xattr => bit.xflag,
        }
    }

    fn bits(self, flags: FileFlags) -> u32 {
        let FileFlags { immutable, append_only, no_atime } = flags;
        let all = [(immutable, IMMUTABLE), (append_only, APPEND), (no_atime, NO_ATIME)];
        all.iter().filter(|(is_set, _)| *is_set).fold(0, |bits, (_, bit)| bits | self.bit(bit))
    }

    /// `None` when there are others among them.
    fn read(self, bits: u32) -> Option<FileFlags> {
        let has = |bit| bits & self.bit(bit) != 0;
        let flags = FileFlags {
            immutable: has(&IMMUTABLE),
            append_only: has(&APPEND),
            no_atime: has(&NO_ATIME),
        };
        (self.bits(flags) == bits).then_some(flags)
    }

    /// As an answer.
    fn write(self, flags: FileFlags) -> Vec<u8> {
        let mut bytes = self.bits(flags).to_le_bytes().to_vec();
        bytes.resize(if self == Form::Flags { FLAGS_SIZE } else { XATTR_SIZE }, 0);
        bytes
    }
}

const DONE: IoctlOut = IoctlOut { result: 0, flags: 0, in_iovs: 0, out_iovs: 0 };

impl Shared {
    pub(crate) async fn get_flags(&self, node: Node, form: Form, reply: Reply) {
        match async { self.fs.flags(self.file(node)?).await }.await {
            Ok(flags) => reply.both(&DONE, form.write(flags).as_slice()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn set_flags(&self, node: Node, flags: Option<FileFlags>, reply: Reply) {
        let set = async {
            let flags = flags.ok_or(FsError::Unsupported)?;
            self.fs.set_flags(self.file(node)?, flags).await
        };
        match set.await {
            Ok(()) => reply.structure(&DONE),
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
        for form in [Form::Flags, Form::Xattr] {
            let all = form.bit(&IMMUTABLE) | form.bit(&APPEND) | form.bit(&NO_ATIME);
            for bits in 0..=all {
                let read = form.read(bits).map(|flags| form.bits(flags));
                assert_eq!(read, (bits & !all == 0).then_some(bits));
            }
        }
    }

    #[test]
    fn commands_of_another_size_are_not_understood() {
        let immutable = FileFlags { immutable: true, ..FileFlags::default() };
        let get = |form| Some(Command::Get(form));
        assert_eq!(command(&asked(libc::FS_IOC_GETFLAGS, 4), &[]), get(Form::Flags));
        assert_eq!(command(&asked(libc::FS_IOC_GETFLAGS, 8), &[]), None);
        assert_eq!(command(&asked(GET_XATTR, 28), &[]), get(Form::Xattr));
        let set = asked(libc::FS_IOC_SETFLAGS, 0);
        assert_eq!(command(&set, &[0x10, 0, 0, 0]), Some(Command::Set(Some(immutable))));
        assert_eq!(command(&set, &[0x10, 0]), None);
        let mut structure = [0; 28];
        structure[0] = 8;
        assert_eq!(command(&asked(SET_XATTR, 0), &structure), Some(Command::Set(Some(immutable))));
        // A project.
        structure[12] = 1;
        assert_eq!(command(&asked(SET_XATTR, 0), &structure), Some(Command::Set(None)));
        assert_eq!(command(&asked(0x1234, 4), &[]), None);
    }
}
