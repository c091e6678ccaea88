//! How many requests of the kernel were answered, by operation: tests and administrators see what
//! the kernel's caches save.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the kernel asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Operation {
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
}

impl Operation {
    const ALL: [(Operation, &'static str); 18] = [
        (Operation::Lookup, "lookup"),
        (Operation::Getattr, "getattr"),
        (Operation::Setattr, "setattr"),
        (Operation::Readlink, "readlink"),
        (Operation::Make, "make"),
        (Operation::Unlink, "unlink"),
        (Operation::Rmdir, "rmdir"),
        (Operation::Rename, "rename"),
        (Operation::Link, "link"),
        (Operation::Open, "open"),
        (Operation::Create, "create"),
        (Operation::Read, "read"),
        (Operation::Write, "write"),
        (Operation::Flush, "flush"),
        (Operation::Fsync, "fsync"),
        (Operation::Opendir, "opendir"),
        (Operation::Readdir, "readdir"),
        (Operation::Statfs, "statfs"),
    ];
}

/// Since the mount was made; each grows only.
#[derive(Debug, Default)]
pub(crate) struct Requests([AtomicU64; Operation::ALL.len()]);

impl Requests {
    pub(crate) fn count(&self, operation: Operation) {
        self.0[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Each operation that was asked for, and how often.
    pub(crate) fn by_operation(&self) -> Vec<(&'static str, u64)> {
        let count = |operation: Operation| self.0[operation as usize].load(Ordering::Relaxed);
        let all = Operation::ALL.into_iter().map(|(operation, name)| (name, count(operation)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name_and_a_counter_of_its_own() {
        let requests = Requests::default();
        for (at, (operation, name)) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at, "{name}");
            requests.count(operation);
        }
        requests.count(Operation::Read);
        let counted = requests.by_operation();
        assert_eq!(counted.len(), Operation::ALL.len());
        assert_eq!(counted.iter().find(|(name, _)| *name == "read"), Some(&("read", 2)));
        assert_eq!(counted.iter().filter(|(_, count)| *count == 1).count(), 17);
    }
}
