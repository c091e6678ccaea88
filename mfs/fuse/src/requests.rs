//! How many requests of the kernel were answered, by operation: tests and administrators see what
//! the kernel's caches save.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the kernel asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Kind {
    Lookup,
    Getattr,
    Setattr,
    Readlink,
    Make,
    Unlink,
    Rmdir,
    Rename,
    Link,
    Open,
    Create,
    Read,
    Write,
    Flush,
    Fsync,
    Opendir,
    Readdir,
    Statfs,
    Getxattr,
    Setxattr,
    Fallocate,
    Seek,
    CopyRange,
    GetFlags,
    SetFlags,
    Trim,
    Getlk,
    Setlk,
}

impl Kind {
    const ALL: [(Kind, &'static str); 28] = [
        (Kind::Lookup, "lookup"),
        (Kind::Getattr, "getattr"),
        (Kind::Setattr, "setattr"),
        (Kind::Readlink, "readlink"),
        (Kind::Make, "make"),
        (Kind::Unlink, "unlink"),
        (Kind::Rmdir, "rmdir"),
        (Kind::Rename, "rename"),
        (Kind::Link, "link"),
        (Kind::Open, "open"),
        (Kind::Create, "create"),
        (Kind::Read, "read"),
        (Kind::Write, "write"),
        (Kind::Flush, "flush"),
        (Kind::Fsync, "fsync"),
        (Kind::Opendir, "opendir"),
        (Kind::Readdir, "readdir"),
        (Kind::Statfs, "statfs"),
        (Kind::Getxattr, "getxattr"),
        (Kind::Setxattr, "setxattr"),
        (Kind::Fallocate, "fallocate"),
        (Kind::Seek, "seek"),
        (Kind::CopyRange, "copy range"),
        (Kind::GetFlags, "get flags"),
        (Kind::SetFlags, "set flags"),
        (Kind::Trim, "trim"),
        (Kind::Getlk, "getlk"),
        (Kind::Setlk, "setlk"),
    ];

    /// Does a signal that its process handles end it? fcntl(2): F_SETLKW; flock(2).
    pub(crate) fn ends_by_any_signal(self) -> bool {
        self == Kind::Setlk
    }

    /// Can it be given up at any time? Nothing is changed by it, and what it has taken goes with it.
    pub(crate) fn only_looks(self) -> bool {
        match self {
            Kind::Lookup
            | Kind::Getattr
            | Kind::Readlink
            | Kind::Read
            | Kind::Opendir
            | Kind::Readdir
            | Kind::Statfs
            | Kind::Getxattr
            | Kind::Seek
            | Kind::GetFlags
            | Kind::Getlk => true,
            Kind::Setattr
            | Kind::Make
            | Kind::Unlink
            | Kind::Rmdir
            | Kind::Rename
            | Kind::Link
            | Kind::Open
            | Kind::Create
            | Kind::Write
            | Kind::Flush
            | Kind::Fsync
            | Kind::Setxattr
            | Kind::Fallocate
            | Kind::CopyRange
            | Kind::SetFlags
            | Kind::Trim
            | Kind::Setlk => false,
        }
    }
}

/// Since the mount was made; each grows only.
#[derive(Debug, Default)]
pub(crate) struct Requests([AtomicU64; Kind::ALL.len()]);

impl Requests {
    pub(crate) fn count(&self, kind: Kind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each operation that was asked for, and how often.
    pub(crate) fn by_operation(&self) -> Vec<(&'static str, u64)> {
        let count = |kind: Kind| self.0[kind as usize].load(Ordering::Relaxed);
        let all = Kind::ALL.into_iter().map(|(kind, name)| (name, count(kind)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name_and_a_counter_of_its_own() {
        let requests = Requests::default();
        for (at, (kind, name)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at, "{name}");
            requests.count(kind);
        }
        requests.count(Kind::Read);
        let counted = requests.by_operation();
        assert_eq!(counted.len(), Kind::ALL.len());
        assert_eq!(counted.iter().find(|(name, _)| *name == "read"), Some(&("read", 2)));
        assert_eq!(counted.iter().filter(|(_, count)| *count == 1).count(), Kind::ALL.len() - 1);
    }
}
