//! open, read, write.

use mfs::FsError;
use mfs::ops::{OpenFlags, ReadKind};

use crate::adapter::Shared;
use crate::errno::errno;
use crate::protocol::layout::{OpenOut, WriteOut, open};
use crate::transport::Reply;

impl Reply {
    /// Answers a request that returns nothing.
    pub(crate) fn empty(self, result: Result<(), FsError>) {
        match result {
            Ok(()) => self.ok(),
            Err(error) => self.error(errno(&error)),
        }
    }

    pub(crate) fn opened(self, handle: u64, flags: u32) {
        self.structure(&OpenOut { handle, flags, backing: 0 });
    }
}

impl Shared {
    pub(crate) async fn read(
        &self,
        handle: u64,
        offset: u64,
        size: u64,
        direct: bool,
        reply: Reply,
    ) {
        let kind = if direct { ReadKind::Direct } else { ReadKind::KernelPage };
        let data = async { self.fs.read(&*self.handle(handle)?, offset, size, kind).await };
        match data.await {
            // The pin in the data is dropped behind the answer.
            Ok(data) => reply.bytes(data.as_slice()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn write(
        &self,
        handle: u64,
        offset: u64,
        data: &[u8],
        kind: WriteKind,
        reply: Reply,
    ) {
        let written = async {
            let open = self.handle(handle)?;
            let written = match kind {
                WriteKind::Laundered => {
                    self.fs.write_laundered(&open, offset, data).await?;
                    return Ok(data.len() as u64);
                }
                WriteKind::Privileged => self.fs.write(&open, offset, data).await?,
                WriteKind::Unprivileged => self.fs.write_unprivileged(&open, offset, data).await?,
            };
            Ok::<u64, FsError>(written.len)
        };
        match written.await {
            Ok(len) => {
                let size = u32::try_from(len).expect("a request has at most 1 MiB");
                reply.structure(&WriteOut { size, reserved: 0 });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}

/// Who writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteKind {
    /// The kernel: dirty pages of a mapping.
    Laundered,
    /// Somebody who may leave set-user-ID and set-group-ID as they are.
    Privileged,
    Unprivileged,
}

/// As libc has the flags of open(2).
pub(crate) fn flags_of(flags: u32) -> i32 {
    flags.cast_signed()
}

/// The flags of open(2) as the file system sees them.
pub(crate) fn open_flags(flags: u32, kill_privileges: bool) -> OpenFlags {
    let flags = flags_of(flags);
    let has = |flag: i32| flags & flag != 0;
    OpenFlags {
        write: flags & libc::O_ACCMODE != libc::O_RDONLY,
        append: has(libc::O_APPEND),
        sync: has(libc::O_SYNC) || has(libc::O_DSYNC),
        truncate: has(libc::O_TRUNC),
        kill_privileges,
    }
}

/// Opens that can write are direct: every write reaches the daemon before it is answered and before
/// anybody sees it (`kernel-cache.md`, section 2). Readers use the kernel's cache.
pub(crate) fn fopen_flags(flags: OpenFlags) -> u32 {
    if flags.write { open::DIRECT_IO | open::PARALLEL_DIRECT_WRITES } else { open::KEEP_CACHE }
}
