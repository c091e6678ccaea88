//! fallocate, lseek for holes and data, copy_file_range.
//!
//! The kernel brings what mappings have stored in a range before it asks to copy or to clear it, and
//! drops its pages of it behind the answer (`fs/fuse/file.c`, `fuse_file_fallocate`,
//! `__fuse_copy_file_range`).

use mfs::FsError;
use mfs::ops::{Allocate, SeekFor};

use crate::adapter::Shared;
use crate::errno::errno;
use crate::protocol::layout::{CopyRangeIn, LseekOut, WriteOut};
use crate::transport::{Errno, Reply};

/// A mode of fallocate(2); `None` for one that is not supported.
pub(crate) fn allocate(mode: u32) -> Option<Allocate> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode.cast_signed() {
        0 => Some(Allocate::Blocks { keep_size: false }),
        libc::FALLOC_FL_KEEP_SIZE => Some(Allocate::Blocks { keep_size: true }),
        ZERO => Some(Allocate::Zeros { keep_size: false }),
        ZERO_KEEP => Some(Allocate::Zeros { keep_size: true }),
        PUNCH => Some(Allocate::Hole),
        _ => None,
    }
}

/// `None` for what the kernel sees to itself.
pub(crate) fn seek_for(whence: u32) -> Option<SeekFor> {
    match whence.cast_signed() {
        libc::SEEK_DATA => Some(SeekFor::Data),
        libc::SEEK_HOLE => Some(SeekFor::Hole),
        _ => None,
    }
}

impl Shared {
    pub(crate) async fn allocate(
        &self,
        handle: u64,
        what: Allocate,
        (offset, len): (u64, u64),
        reply: Reply,
    ) {
        let done =
            async { self.fs.allocate(&*self.handle(handle)?, what, offset, len).await }.await;
        match done {
            // The pin is dropped behind the answer.
            Ok(_pin) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn seek(&self, handle: u64, offset: u64, what: SeekFor, reply: Reply) {
        match async { self.fs.seek(&*self.handle(handle)?, offset, what).await }.await {
            Ok(Some(offset)) => reply.structure(&LseekOut { offset }),
            Ok(None) => reply.error(Errno(libc::ENXIO)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn copy_range(&self, range: &CopyRangeIn, reply: Reply) {
        let copied = async {
            if range.flags != 0 {
                return Err(FsError::Invalid("no flags are known"));
            }
            let (from, to) = (self.handle(range.handle_in)?, self.handle(range.handle_out)?);
            let (from, to) = ((&*from, range.offset_in), (&*to, range.offset_out));
            self.fs.copy_range(from, to, range.len).await
        };
        match copied.await {
            Ok(len) => {
                let size = u32::try_from(len).expect("at most 16 MiB are copied at once");
                reply.structure(&WriteOut { size, reserved: 0 });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_are_not_supported_are_told_from_those_that_are() {
        let supported = [0, 1, 3, 16, 17];
        for mode in 0..256 {
            assert_eq!(allocate(mode).is_some(), supported.contains(&mode), "mode {mode:#x}");
        }
        assert_eq!(allocate(3), Some(Allocate::Hole));
    }
}
