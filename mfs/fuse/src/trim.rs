//! Free space given back to the device: fstrim(8).

use mfs::block::BLOCK_SIZE_U64;
use mfs::ops::TrimError;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::adapter::Shared;
use crate::errno::errno;
use crate::protocol::layout::{IoctlIn, IoctlOut};
use crate::transport::{Errno, Reply};

/// `FITRIM` (`include/uapi/linux/fs.h`).
const TRIM: u32 = 0xc018_5879;

/// `struct fstrim_range`, all in bytes. Groups are trimmed as a whole: those that begin in the range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct TrimRange {
    start: u64,
    /// In the answer, what was trimmed.
    len: u64,
    /// The shortest free run that is worth it.
    minimum: u64,
}

pub(crate) fn is_asked(asked: &IoctlIn) -> bool {
    asked.command == TRIM && asked.out_size as usize == size_of::<TrimRange>()
}

/// `None` when it is no range.
pub(crate) fn range(data: &[u8]) -> Option<TrimRange> {
    TrimRange::read_from_bytes(data).ok()
}

const DONE: IoctlOut = IoctlOut { result: 0, flags: 0, in_iovs: 0, out_iovs: 0 };

impl Shared {
    pub(crate) async fn trim(&self, range: TrimRange, reply: Reply) {
        let layout = self.fs.layout();
        let begins_before = |bytes: u64| {
            let block = bytes.div_ceil(BLOCK_SIZE_U64).saturating_sub(layout.group_start);
            block.div_ceil(layout.group_blocks).min(layout.group_count)
        };
        let end = range.start.saturating_add(range.len);
        let groups = begins_before(range.start)..begins_before(end);
        // What was just removed is what the caller has in mind.
        if let Err(error) = self.fs.sync().await {
            return reply.error(errno(&error));
        }
        match self.fs.trim(groups, range.minimum.div_ceil(BLOCK_SIZE_U64)).await {
            Ok(trimmed) => {
                let len = trimmed.blocks * BLOCK_SIZE_U64;
                reply.both(&DONE, &TrimRange { len, ..range });
            }
            Err(TrimError::Fs(error)) => reply.error(errno(&error)),
            Err(TrimError::NotSupported) => reply.error(Errno(libc::EOPNOTSUPP)),
            Err(error @ TrimError::NotReplayed(_)) => {
                tracing::warn!(%error, "nothing is trimmed");
                reply.error(Errno(libc::EBUSY));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fstrim_asks_for_is_understood_and_nothing_else() {
        let asked = |command, out_size| IoctlIn {
            handle: 1,
            flags: 0,
            command,
            argument: 0,
            in_size: 24,
            out_size,
        };
        assert!(is_asked(&asked(TRIM, 24)));
        assert!(!is_asked(&asked(TRIM, 0)) && !is_asked(&asked(TRIM + 1, 24)));
        let all = TrimRange { start: 0, len: u64::MAX, minimum: 4096 };
        assert_eq!(range(all.as_bytes()), Some(all));
        assert_eq!(range(&all.as_bytes()[1..]), None);
    }
}
