//! A message of the kernel, parsed.

use std::ops::Range;

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::layout::{
    BatchForgetIn, CopyRangeIn, CreateIn, FallocateIn, FlushIn, ForgetIn, ForgetOne, FsyncIn,
    GetattrIn, GetxattrIn, InHeader, InitIn, InterruptIn, IoctlIn, LinkIn, LockIn, LseekIn,
    MkdirIn, MknodIn, OpenIn, ReadIn, ReleaseIn, Rename2In, RenameIn, SetattrIn, SetxattrIn,
    StatxIn, WriteIn, flag, opcode,
};

/// Why a message is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("{0} bytes are no message")]
    Header(usize),
    #[error("a message of {got} bytes says that it has {said}")]
    Length { said: u32, got: usize },
    /// The request can be answered.
    #[error("operation {opcode} with an argument that ends early")]
    Argument { unique: u64, opcode: u32 },
    #[error("operation {opcode} with a name that does not end")]
    Name { unique: u64, opcode: u32 },
}

impl Malformed {
    /// Which request is to be answered with an error, if it is known.
    pub fn unique(&self) -> Option<u64> {
        match self {
            Malformed::Header(_) | Malformed::Length { .. } => None,
            Malformed::Argument { unique, .. } | Malformed::Name { unique, .. } => Some(*unique),
        }
    }
}

/// What the kernel asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    pub unique: u64,
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    pub operation: Operation<'a>,
}

/// An operation and its arguments. Data is given by its place in the message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation<'a> {
    Init(InitIn),
    Destroy,
    Interrupt {
        unique: u64,
    },
    /// Node and lookups.
    Forget(Vec<(u64, u64)>),
    Lookup {
        name: &'a [u8],
    },
    Getattr,
    Statx(StatxIn),
    Setattr(SetattrIn),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    Mknod {
        name: &'a [u8],
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Mkdir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_parent: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    /// The node of the request is the directory.
    Link {
        node: u64,
        name: &'a [u8],
    },
    Open {
        flags: u32,
        kill_privileges: bool,
    },
    Create {
        name: &'a [u8],
        flags: u32,
        mode: u32,
        umask: u32,
        kill_privileges: bool,
    },
    Tmpfile {
        flags: u32,
        mode: u32,
        umask: u32,
    },
    /// `direct`: by a read(2) of a direct open, not for the page cache.
    Read {
        handle: u64,
        offset: u64,
        size: u32,
        direct: bool,
    },
    /// `laundered`: dirty pages of a mapping.
    Write {
        handle: u64,
        offset: u64,
        data: Range<usize>,
        laundered: bool,
        kill_privileges: bool,
    },
    Flush {
        handle: u64,
        lock_owner: u64,
    },
    Release {
        handle: u64,
    },
    Fsync {
        handle: u64,
        data_only: bool,
    },
    Fallocate(FallocateIn),
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyRange(CopyRangeIn),
    Ioctl {
        command: IoctlIn,
        data: &'a [u8],
    },
    Opendir,
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Readdirplus {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Releasedir {
        handle: u64,
    },
    Fsyncdir,
    Statfs,
    Syncfs,
    Setxattr {
        name: &'a [u8],
        value: Range<usize>,
        flags: u32,
        kill_sgid: bool,
    },
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Getlk(LockIn),
    Setlk {
        lock: LockIn,
        wait: bool,
    },
    Unknown(u32),
}

impl Request<'_> {
    /// Parses one message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(message: &[u8]) -> Result<Request<'_>, Malformed> {
        let Ok((header, body)) = InHeader::read_from_prefix(message) else {
            return Err(Malformed::Header(message.len()));
        };
        if usize::try_from(header.len) != Ok(message.len()) {
            return Err(Malformed::Length { said: header.len, got: message.len() });
        }
        // Extensions follow the arguments; none was asked for.
        let extensions = usize::from(header.extension_len) * 8;
        let Some(len) = body.len().checked_sub(extensions) else {
            return Err(Malformed::Argument { unique: header.unique, opcode: header.opcode });
        };
        let mut arguments = Arguments { header, message, rest: &body[..len] };
        let operation = arguments.operation()?;
        let InHeader { unique, node, uid, gid, pid, .. } = header;
        Ok(Request { unique, node, uid, gid, pid, operation })
    }
}

struct Arguments<'a> {
    header: InHeader,
    message: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Arguments<'a> {
    fn ends_early(&self) -> Malformed {
        Malformed::Argument { unique: self.header.unique, opcode: self.header.opcode }
    }

    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Malformed> {
        let Ok((value, rest)) = T::read_from_prefix(self.rest) else {
            return Err(self.ends_early());
        };
        self.rest = rest;
        Ok(value)
    }

    /// Up to the next zero byte.
    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let InHeader { unique, opcode, .. } = self.header;
        let Some(end) = self.rest.iter().position(|byte| *byte == 0) else {
            return Err(Malformed::Name { unique, opcode });
        };
        let (name, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        Ok(name)
    }

    fn data(&mut self, len: u32) -> Result<&'a [u8], Malformed> {
        let Some((data, rest)) =
            usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len))
        else {
            return Err(self.ends_early());
        };
        self.rest = rest;
        Ok(data)
    }

    /// As [`Arguments::data`], as a place in the message.
    fn place(&mut self, len: u32) -> Result<Range<usize>, Malformed> {
        let data = self.data(len)?;
        // From the end, where extensions may stand: they are as long as they were cut off.
        let behind = usize::from(self.header.extension_len) * 8 + self.rest.len();
        let end = self.message.len() - behind;
        Ok(end - data.len()..end)
    }

    fn forgotten(&mut self) -> Result<Vec<(u64, u64)>, Malformed> {
        let BatchForgetIn { count, .. } = self.take()?;
        // Never more than the message holds, whatever it says.
        let holds = self.rest.len() / size_of::<ForgetOne>();
        if usize::try_from(count).map_or(true, |count| count > holds) {
            return Err(self.ends_early());
        }
        (0..count).map(|_| self.take::<ForgetOne>().map(|one| (one.node, one.lookups))).collect()
    }

    fn operation(&mut self) -> Result<Operation<'a>, Malformed> {
        Ok(match self.header.opcode {
            opcode::INIT => Operation::Init(self.init()?),
            opcode::DESTROY => Operation::Destroy,
            opcode::INTERRUPT => {
                let InterruptIn { unique } = self.take()?;
                Operation::Interrupt { unique }
            }
            opcode::FORGET => {
                let ForgetIn { lookups } = self.take()?;
                Operation::Forget(vec![(self.header.node, lookups)])
            }
            opcode::BATCH_FORGET => Operation::Forget(self.forgotten()?),
            opcode::LOOKUP => Operation::Lookup { name: self.name()? },
            opcode::GETATTR => {
                let GetattrIn { .. } = self.take()?;
                Operation::Getattr
            }
            opcode::STATX => Operation::Statx(self.take()?),
            opcode::SETATTR => Operation::Setattr(self.take()?),
            opcode::READLINK => Operation::Readlink,
            opcode::STATFS => Operation::Statfs,
            opcode::SYNCFS => Operation::Syncfs,
            opcode::SYMLINK
            | opcode::MKNOD
            | opcode::MKDIR
            | opcode::UNLINK
            | opcode::RMDIR
            | opcode::RENAME
            | opcode::RENAME2
            | opcode::LINK
            | opcode::CREATE
            | opcode::TMPFILE => self.of_names()?,
            opcode::SETXATTR | opcode::GETXATTR | opcode::LISTXATTR | opcode::REMOVEXATTR => {
                self.of_attributes()?
            }
            _ => self.of_open_files()?,
        })
    }

    /// Grew over time: what an older kernel does not send is zero.
    fn init(&mut self) -> Result<InitIn, Malformed> {
        const OLD: usize = 16;
        let full = size_of::<InitIn>();
        if self.rest.len() < OLD {
            return Err(self.ends_early());
        }
        let mut bytes = vec![0; full];
        let len = self.rest.len().min(full);
        bytes[..len].copy_from_slice(&self.rest[..len]);
        InitIn::read_from_bytes(&bytes).map_err(|_| self.ends_early())
    }

    fn of_names(&mut self) -> Result<Operation<'a>, Malformed> {
        Ok(match self.header.opcode {
            opcode::SYMLINK => Operation::Symlink { name: self.name()?, target: self.name()? },
            opcode::MKNOD => {
                let MknodIn { mode, rdev, umask, .. } = self.take()?;
                Operation::Mknod { name: self.name()?, mode, rdev, umask }
            }
            opcode::MKDIR => {
                let MkdirIn { mode, umask } = self.take()?;
                Operation::Mkdir { name: self.name()?, mode, umask }
            }
            opcode::UNLINK => Operation::Unlink { name: self.name()? },
            opcode::RMDIR => Operation::Rmdir { name: self.name()? },
            opcode::RENAME => {
                let RenameIn { new_parent } = self.take()?;
                self.rename(new_parent, 0)?
            }
            opcode::RENAME2 => {
                let Rename2In { new_parent, flags, .. } = self.take()?;
                self.rename(new_parent, flags)?
            }
            opcode::LINK => {
                let LinkIn { node } = self.take()?;
                Operation::Link { node, name: self.name()? }
            }
            opcode::CREATE => {
                let CreateIn { flags, mode, umask, open_flags } = self.take()?;
                let kill_privileges = open_flags & flag::OPEN_KILL_PRIVILEGES != 0;
                Operation::Create { name: self.name()?, flags, mode, umask, kill_privileges }
            }
            opcode::TMPFILE => {
                let CreateIn { flags, mode, umask, .. } = self.take()?;
                Operation::Tmpfile { flags, mode, umask }
            }
            unknown => Operation::Unknown(unknown),
        })
    }

    fn rename(&mut self, new_parent: u64, flags: u32) -> Result<Operation<'a>, Malformed> {
        Ok(Operation::Rename { name: self.name()?, new_parent, new_name: self.name()?, flags })
    }

    fn of_attributes(&mut self) -> Result<Operation<'a>, Malformed> {
        Ok(match self.header.opcode {
            opcode::SETXATTR => {
                let SetxattrIn { size, flags, setxattr_flags, .. } = self.take()?;
                let kill_sgid = setxattr_flags & flag::SETXATTR_KILL_SGID != 0;
                let name = self.name()?;
                Operation::Setxattr { name, value: self.place(size)?, flags, kill_sgid }
            }
            opcode::GETXATTR => {
                let GetxattrIn { size, .. } = self.take()?;
                Operation::Getxattr { name: self.name()?, size }
            }
            opcode::LISTXATTR => {
                let GetxattrIn { size, .. } = self.take()?;
                Operation::Listxattr { size }
            }
            opcode::REMOVEXATTR => Operation::Removexattr { name: self.name()? },
            unknown => Operation::Unknown(unknown),
        })
    }

    fn of_open_files(&mut self) -> Result<Operation<'a>, Malformed> {
        Ok(match self.header.opcode {
            opcode::OPEN => {
                let OpenIn { flags, open_flags } = self.take()?;
                let kill_privileges = open_flags & flag::OPEN_KILL_PRIVILEGES != 0;
                Operation::Open { flags, kill_privileges }
            }
            opcode::READ => {
                let ReadIn { handle, offset, size, read_flags, .. } = self.take()?;
                let direct = read_flags & flag::READ_LOCK_OWNER != 0;
                Operation::Read { handle, offset, size, direct }
            }
            opcode::WRITE => {
                let WriteIn { handle, offset, size, write_flags, .. } = self.take()?;
                let laundered = write_flags & flag::WRITE_CACHE != 0;
                let kill_privileges = write_flags & flag::WRITE_KILL_PRIVILEGES != 0;
                let data = self.place(size)?;
                Operation::Write { handle, offset, data, laundered, kill_privileges }
            }
            opcode::FLUSH => {
                let FlushIn { handle, lock_owner, .. } = self.take()?;
                Operation::Flush { handle, lock_owner }
            }
            opcode::RELEASE => {
                let ReleaseIn { handle, .. } = self.take()?;
                Operation::Release { handle }
            }
            opcode::FSYNC => {
                let FsyncIn { handle, flags, .. } = self.take()?;
                Operation::Fsync { handle, data_only: flags & flag::FSYNC_DATA_ONLY != 0 }
            }
            opcode::FALLOCATE => Operation::Fallocate(self.take()?),
            opcode::LSEEK => {
                let LseekIn { handle, offset, whence, .. } = self.take()?;
                Operation::Lseek { handle, offset, whence }
            }
            opcode::COPY_FILE_RANGE => Operation::CopyRange(self.take()?),
            opcode::IOCTL => {
                let command: IoctlIn = self.take()?;
                Operation::Ioctl { command, data: self.data(command.in_size)? }
            }
            opcode::OPENDIR => Operation::Opendir,
            opcode::READDIR => {
                let ReadIn { handle, offset, size, .. } = self.take()?;
                Operation::Readdir { handle, offset, size }
            }
            opcode::READDIRPLUS => {
                let ReadIn { handle, offset, size, .. } = self.take()?;
                Operation::Readdirplus { handle, offset, size }
            }
            opcode::RELEASEDIR => {
                let ReleaseIn { handle, .. } = self.take()?;
                Operation::Releasedir { handle }
            }
            opcode::FSYNCDIR => Operation::Fsyncdir,
            opcode::GETLK => Operation::Getlk(self.take()?),
            opcode::SETLK => Operation::Setlk { lock: self.take()?, wait: false },
            opcode::SETLKW => Operation::Setlk { lock: self.take()?, wait: true },
            unknown => Operation::Unknown(unknown),
        })
    }
}

#[cfg(test)]
mod tests;
