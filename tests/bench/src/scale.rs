//! How much is done in a run.

use std::time::Duration;

/// Counts of one run of every group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    pub runs: usize,
    pub runs_of_recovery: usize,
    /// Of the device and of what stands beside it.
    pub device_bytes: u64,
    /// Write all of the device before: a sparse file is slower where it is written first.
    pub is_filled: bool,
    /// In one directory.
    pub files: usize,
    pub files_other_node: usize,
    pub file_bytes: usize,
    pub random_accesses: usize,
    pub fsyncs: usize,
    pub hand_overs: usize,
    /// Entries that the directory has in which several nodes create files.
    pub crowd: usize,
    /// How long several nodes are at the same.
    pub window: Duration,
    pub pins: usize,
    pub grants: usize,
    /// Locks that are held at once.
    pub locks: usize,
    pub pings: usize,
}

impl Scale {
    /// What `docs/performance.md` tells of.
    pub fn full(runs: usize) -> Scale {
        Scale {
            runs,
            runs_of_recovery: runs,
            device_bytes: 3 << 30,
            is_filled: true,
            files: 10_000,
            files_other_node: 1000,
            file_bytes: 64 << 20,
            random_accesses: 2000,
            fsyncs: 200,
            hand_overs: 200,
            crowd: 100_000,
            window: Duration::from_secs(2),
            pins: 1_000_000,
            grants: 10_000,
            locks: 1_000_000,
            pings: 2000,
        }
    }

    /// Everything once, in seconds; the times say little.
    pub fn quick(runs: usize) -> Scale {
        Scale {
            runs,
            runs_of_recovery: 1,
            device_bytes: 512 << 20,
            is_filled: false,
            files: 100,
            files_other_node: 20,
            file_bytes: 2 << 20,
            random_accesses: 20,
            fsyncs: 5,
            hand_overs: 5,
            crowd: 100,
            window: Duration::from_millis(100),
            pins: 10_000,
            grants: 100,
            locks: 2000,
            pings: 50,
        }
    }

    /// For the document.
    pub fn describe(&self) -> String {
        let mib = |bytes: u64| bytes >> 20;
        format!(
            "{} files in a directory, {} on a second node; files of {} MiB, {} random accesses; {} \
             fsyncs; {} hand-overs; {} entries and {} ms of several nodes; {} grants, {} locks held at once; a device of {} MiB",
            self.files,
            self.files_other_node,
            mib(self.file_bytes as u64),
            self.random_accesses,
            self.fsyncs,
            self.hand_overs,
            self.crowd,
            self.window.as_millis(),
            self.grants,
            self.locks,
            mib(self.device_bytes),
        )
    }
}
