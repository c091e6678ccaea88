//! open, read, write.

use fuser::{FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyData, ReplyOpen, ReplyWrite};
use mfs::ops::{self, ReadKind};

use crate::adapter::Shared;
use crate::entries::CACHED;
use crate::errno::errno;

impl Shared {
    pub(crate) async fn open(&self, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = open_flags(flags);
        match async { self.fs.open(self.file(node)?, flags).await }.await {
            Ok(open) => reply.opened(self.add_handle(open), fopen_flags(flags)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn read(
        &self,
        handle: FileHandle,
        offset: u64,
        size: u64,
        direct: bool,
        reply: ReplyData,
    ) {
        let kind = if direct { ReadKind::Direct } else { ReadKind::KernelPage };
        let data = async { self.fs.read(&*self.handle(handle)?, offset, size, kind).await };
        match data.await {
            // The pin in the data is dropped behind the answer.
            Ok(data) => reply.data(data.as_slice()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn write(
        &self,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        laundered: bool,
        reply: ReplyWrite,
    ) {
        let written = async {
            let open = self.handle(handle)?;
            if laundered {
                self.fs.write_laundered(&open, offset, data).await?;
                return Ok(data.len() as u64);
            }
            self.fs.write(&open, offset, data).await.map(|written| written.len)
        };
        match written.await {
            Ok(len) => {
                reply.written(u32::try_from(len).expect("a request has at most 1 MiB"));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}

/// The flags of open(2) as the file system sees them.
pub(crate) fn open_flags(flags: OpenFlags) -> ops::OpenFlags {
    let has = |flag: i32| flags.0 & flag != 0;
    ops::OpenFlags {
        write: flags.0 & libc::O_ACCMODE != libc::O_RDONLY,
        append: has(libc::O_APPEND),
        sync: has(libc::O_SYNC) || has(libc::O_DSYNC),
        truncate: has(libc::O_TRUNC),
    }
}

/// Opens that can write are direct: every write reaches the daemon before it is answered and before
/// anybody sees it (`kernel-cache.md`, section 2). Readers use the kernel's cache.
pub(crate) fn fopen_flags(flags: ops::OpenFlags) -> FopenFlags {
    if flags.write {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    } else {
        CACHED
    }
}
