//! What kernel and daemon tell each other they can do.

use super::layout::{InitIn, InitOut};

/// The version spoken here.
pub const MAJOR: u32 = 7;
const MINOR: u32 = 45;
/// EXPLICIT_INVAL_DATA, which coherence rests on, came with it (Linux 5.1).
pub const MINOR_MIN: u32 = 30;

/// One request carries at most this much data; more brings nothing (`kernel-cache.md`, fact 13).
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Read-aheads and other requests that nobody waits for, at once.
const BACKGROUND_MAX: u16 = 64;
const PAGE_SIZE: u32 = 4096;

/// Features, as bits of `flags` and, from 32 on, `flags2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Features(pub u64);

impl Features {
    pub const ASYNC_READ: Features = Features(1);
    pub const POSIX_LOCKS: Features = Features(1 << 1);
    pub const ATOMIC_O_TRUNC: Features = Features(1 << 3);
    /// Lookups of `.` and `..`, for NFS.
    pub const EXPORT_SUPPORT: Features = Features(1 << 4);
    pub const BIG_WRITES: Features = Features(1 << 5);
    /// The umask comes with the request, for us to apply.
    pub const DONT_MASK: Features = Features(1 << 6);
    pub const FLOCK_LOCKS: Features = Features(1 << 10);
    pub const DO_READDIRPLUS: Features = Features(1 << 13);
    pub const READDIRPLUS_AUTO: Features = Features(1 << 14);
    pub const ASYNC_DIO: Features = Features(1 << 15);
    pub const PARALLEL_DIROPS: Features = Features(1 << 18);
    pub const POSIX_ACL: Features = Features(1 << 20);
    pub const MAX_PAGES: Features = Features(1 << 22);
    pub const CACHE_SYMLINKS: Features = Features(1 << 23);
    pub const EXPLICIT_INVAL_DATA: Features = Features(1 << 25);
    pub const HANDLE_KILLPRIV_V2: Features = Features(1 << 28);
    pub const SETXATTR_EXT: Features = Features(1 << 29);
    pub const INIT_EXT: Features = Features(1 << 30);
    pub const DIRECT_IO_ALLOW_MMAP: Features = Features(1 << 36);
    pub const HAS_RESEND: Features = Features(1 << 39);

    pub const fn and(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }

    pub const fn without(self, other: Features) -> Features {
        Features(self.0 & !other.0)
    }

    pub const fn has(self, other: Features) -> bool {
        self.0 & other.0 == other.0
    }

    /// What the kernel offers.
    pub fn offered(init: &InitIn) -> Features {
        let low = Features(u64::from(init.flags));
        if low.has(Features::INIT_EXT) {
            low.and(Features(u64::from(init.flags2) << 32))
        } else {
            low
        }
    }
}

/// The answer to INIT: of `wanted`, what the kernel offers. Also which that is.
pub fn answer(init: &InitIn, wanted: Features) -> (InitOut, Features) {
    let offered = Features::offered(init);
    let basic = Features::INIT_EXT.and(Features::MAX_PAGES).and(Features::BIG_WRITES);
    let agreed = Features(wanted.and(basic).0 & offered.0);
    let [low, high] = halves(agreed.0);
    let pages = REQUEST_BYTES_MAX / PAGE_SIZE;
    let answer = InitOut {
        major: MAJOR,
        minor: MINOR.min(init.minor),
        max_readahead: REQUEST_BYTES_MAX.min(init.max_readahead),
        flags: low,
        max_background: BACKGROUND_MAX,
        congestion_threshold: BACKGROUND_MAX / 4 * 3,
        max_write: REQUEST_BYTES_MAX,
        time_granularity: 1,
        max_pages: u16::try_from(pages).expect("1 MiB are 256 pages"),
        map_alignment: 0,
        flags2: high,
        max_stack_depth: 0,
        request_timeout: 0,
        reserved: [0; 11],
    };
    (answer, agreed)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(flags: u32, flags2: u32) -> InitIn {
        InitIn { major: 7, minor: 45, max_readahead: 1 << 17, flags, flags2, reserved: [0; 11] }
    }

    #[test]
    fn only_what_both_sides_know_is_agreed_on() {
        let wanted = Features::ASYNC_DIO.and(Features::DIRECT_IO_ALLOW_MMAP);
        let (answer, agreed) = answer(&init(u32::MAX, 1 << 4), wanted);
        assert!(agreed.has(wanted) && !agreed.has(Features::POSIX_LOCKS));
        assert_eq!((answer.flags2, answer.max_readahead), (1 << 4, 1 << 17));
    }

    #[test]
    fn an_old_kernel_says_nothing_in_the_second_word() {
        let (answer, agreed) = answer(&init(1 << 15, u32::MAX), Features(u64::MAX));
        assert_eq!((agreed, answer.flags2), (Features::ASYNC_DIO, 0));
    }
}
