//! Every row there is.
//!
//! Keeps true: name and floor together are unique; a group measures all rows of it, and no others.

use serde::{Deserialize, Serialize};

/// Rows that are measured together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    /// Many small files in one directory.
    Entries,
    /// Contents of files.
    Contents,
    Fsync,
    /// From one node to another.
    HandOver,
    /// Several nodes at the same.
    Sharing,
    /// In process: no mount, no daemon.
    LockCache,
    Arbiter,
    Recovery,
}

impl Group {
    /// Measured without any node.
    pub fn is_in_process(self) -> bool {
        self == Group::LockCache
    }

    /// In the order in which they are measured: the last one kills a node.
    pub const ALL: [Group; 8] = [
        Group::LockCache,
        Group::Arbiter,
        Group::Entries,
        Group::Contents,
        Group::Fsync,
        Group::HandOver,
        Group::Sharing,
        Group::Recovery,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Group::Entries => "entries",
            Group::Contents => "contents",
            Group::Fsync => "sync",
            Group::HandOver => "hand-over",
            Group::Sharing => "sharing",
            Group::LockCache => "lock-cache",
            Group::Arbiter => "arbiter",
            Group::Recovery => "recovery",
        }
    }
}

/// What the same work is compared with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    MemoryFuse,
    Ext4,
    RawDevice,
    PingPong,
    Atomics,
    MapLookUp,
    Counters,
    MapInsertion,
    FewerLocks,
    NoOtherLocks,
    FewerOthers,
    EndOfSocket,
    SumOfPhases,
    OneNode,
    None,
}

impl Floor {
    pub const ALL: [Floor; 15] = [
        Floor::MemoryFuse,
        Floor::Ext4,
        Floor::RawDevice,
        Floor::PingPong,
        Floor::Atomics,
        Floor::MapLookUp,
        Floor::Counters,
        Floor::MapInsertion,
        Floor::FewerLocks,
        Floor::NoOtherLocks,
        Floor::FewerOthers,
        Floor::EndOfSocket,
        Floor::SumOfPhases,
        Floor::OneNode,
        Floor::None,
    ];

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Floor::MemoryFuse => "in-memory FUSE",
            Floor::Ext4 => "ext4 through loop",
            Floor::RawDevice => "raw device",
            Floor::PingPong => "socket ping-pong",
            Floor::Atomics => "two atomic operations",
            Floor::MapLookUp => "look-up in a sharded map",
            Floor::Counters => "lock-free counters",
            Floor::MapInsertion => "map insertion",
            Floor::FewerLocks => "a quarter of the locks",
            Floor::NoOtherLocks => "no other locks",
            Floor::FewerOthers => "half the other locks",
            Floor::EndOfSocket => "end of a socket",
            Floor::SumOfPhases => "sum of the phases",
            Floor::OneNode => "one node alone",
            Floor::None => "nothing",
        }
    }

    pub fn about(self) -> &'static str {
        match self {
            Floor::MemoryFuse => {
                "a file system in the memory of one process, on the same version of fuser with the \
                 same threads, flags and mount options: what the kernel's FUSE alone costs"
            }
            Floor::Ext4 => {
                "ext4 on a loop device (direct I/O) over a file of the same size in the same folder"
            }
            Floor::RawDevice => {
                "the same bytes with O_DIRECT, one request after the other, on a file of the same \
                 size in the same folder; durable where ours is"
            }
            Floor::PingPong => "one message there and one back over a Unix socket",
            Floor::Atomics => "adding to a word in memory and subtracting again",
            Floor::MapLookUp => {
                "finding a name in a hash map in 64 shards, each under a mutex of its own"
            }
            Floor::Counters => {
                "two threads that add to a word each and subtract again; the words share no line \
                 of the processor's cache"
            }
            Floor::FewerLocks => "the same for a quarter of the locks",
            Floor::NoOtherLocks => "the same where nobody has any other lock",
            Floor::FewerOthers => "the same where the others have half as many other locks",
            Floor::MapInsertion => "inserting the name into an ordered map of as many names",
            Floor::EndOfSocket => {
                "from the SIGKILL of a process until the end of its socket is read by another"
            }
            Floor::SumOfPhases => "the floors of detection, fence and replay one after the other",
            Floor::OneNode => "the first node does its part of it, and no other does anything",
            Floor::None => "a count that could be zero",
        }
    }
}

/// In what a row is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Unit {
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "MiB/s")]
    Throughput,
    /// How many times as much two threads get done as one.
    #[serde(rename = "times")]
    SpeedUp,
    /// Of the mean.
    #[serde(rename = "share")]
    Share,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "count")]
    Count,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::Throughput => "MiB/s",
            Unit::SpeedUp => "times",
            Unit::Share => "share",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        }
    }

    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::Throughput | Unit::SpeedUp | Unit::Share)
    }
}

/// A row before it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub group: Group,
    pub unit: Unit,
    pub floor: Floor,
    /// What is done, once for each name.
    pub about: &'static str,
}

const fn spec(
    group: Group,
    name: &'static str,
    unit: Unit,
    floor: Floor,
    about: &'static str,
) -> Spec {
    Spec { name, group, unit, floor, about }
}

use Floor::{
    Atomics, Counters, EndOfSocket, Ext4, FewerLocks, FewerOthers, MapInsertion, MapLookUp,
    MemoryFuse, NoOtherLocks, OneNode, PingPong, RawDevice, SumOfPhases,
};
use Group::{Arbiter, Contents, Entries, Fsync, HandOver, LockCache, Recovery, Sharing};
use Unit::{Bytes, Count, Microseconds, Milliseconds, Nanoseconds, Share, SpeedUp, Throughput};

#[rustfmt::skip]
pub const SPECS: &[Spec] = &[
    spec(LockCache, "cached_pin", Nanoseconds, MapLookUp, "pin a cached lock and let it go, in process"),
    spec(LockCache, "cached_pin", Nanoseconds, Atomics, ""),
    spec(LockCache, "cached_pin_threads", SpeedUp, Counters, "how many times as much two threads get done as one, each with a cached lock of its own"),
    spec(LockCache, "local_grant", Nanoseconds, MapInsertion, "a lock never asked for before, this node being its home, in process"),
    spec(LockCache, "remote_grant", Microseconds, PingPong, "the same with another home: two lock caches on two threads, each on a processor of its own, joined by a Unix socket; as many bytes"),
    spec(LockCache, "remote_grant_one_processor", Microseconds, PingPong, "the same with both threads on one processor, for ours and the floor: nothing of the work is hidden by waiting"),
    spec(LockCache, "contended_ex", Microseconds, PingPong, "two nodes, one of them the home, take a lock in EX by turns, nothing being behind it: each turn; all on one processor"),
    spec(LockCache, "lock_memory", Bytes, Floor::None, "a lock that is held, at its holder and another home together"),
    spec(LockCache, "rebuild", Nanoseconds, Floor::None, "one of three nodes dies: processor time of the others in all, for each lock that it held or was the home of"),
    spec(LockCache, "rebuild_messages", Count, Floor::None, "lock messages of the others for each of these"),
    spec(LockCache, "rebuild_many", Nanoseconds, FewerLocks, "the same for four times as many locks"),
    spec(LockCache, "rebuild_beside_others", Nanoseconds, NoOtherLocks, "the same while the others have ten times as many locks that have nothing to do with it"),
    spec(LockCache, "rebuild_beside_more", Nanoseconds, FewerOthers, "the same beside twice as many: what others have is not gone through, only less of it fits into the processor's cache"),

    spec(Arbiter, "arbiter_ping", Microseconds, PingPong, "a request to mxarbiter that does nothing"),
    spec(Arbiter, "arbiter_read", Microseconds, RawDevice, "a random read of 4 KiB through mxarbiter"),

    spec(Entries, "create", Microseconds, MemoryFuse, "create and close an empty file, for all files of one new directory"),
    spec(Entries, "create", Microseconds, Ext4, ""),
    spec(Entries, "create_messages", Count, Floor::None, "lock messages of the node for each of these"),
    spec(Entries, "stat", Microseconds, MemoryFuse, "stat each of them when the kernel has forgotten it"),
    spec(Entries, "stat", Microseconds, Ext4, ""),
    spec(Entries, "stat_requests", Count, Floor::None, "requests of the kernel to the daemon for each of these"),
    spec(Entries, "stat_cached", Microseconds, MemoryFuse, "stat each of them once more"),
    spec(Entries, "stat_cached", Microseconds, Ext4, ""),
    spec(Entries, "stat_cached_requests", Count, Floor::None, "requests of the kernel to the daemon for each of these"),
    spec(Entries, "readdir", Microseconds, MemoryFuse, "list the directory when the kernel has forgotten it, for each entry"),
    spec(Entries, "readdir", Microseconds, Ext4, ""),
    spec(Entries, "unlink", Microseconds, MemoryFuse, "unlink each of them"),
    spec(Entries, "unlink", Microseconds, Ext4, ""),
    spec(Entries, "unlink_messages", Count, Floor::None, "lock messages of the node for each of these"),
    spec(Entries, "stat_other_node", Microseconds, MemoryFuse, "stat, on a second node, of files that the first has just made and still has the locks of"),
    spec(Entries, "stat_other_node_writes", Count, Floor::None, "writes and flushes at the device for each of these"),

    spec(Contents, "write_sequential", Throughput, MemoryFuse, "write a new file, 1 MiB at a time, and fsync it once"),
    spec(Contents, "write_sequential", Throughput, RawDevice, ""),
    spec(Contents, "write_sequential", Throughput, Ext4, ""),
    spec(Contents, "read_sequential", Throughput, MemoryFuse, "read it, 1 MiB at a time, where it is not cached (ours: on a second node)"),
    spec(Contents, "read_sequential", Throughput, RawDevice, ""),
    spec(Contents, "read_sequential", Throughput, Ext4, ""),
    spec(Contents, "write_random", Microseconds, MemoryFuse, "overwrite 4 KiB at random places, and fsync once at the end; for each write"),
    spec(Contents, "write_random", Microseconds, RawDevice, ""),
    spec(Contents, "write_random", Microseconds, Ext4, ""),
    spec(Contents, "read_random", Microseconds, MemoryFuse, "read 4 KiB at random places where nothing is cached (ours: on a second node)"),
    spec(Contents, "read_random", Microseconds, RawDevice, ""),
    spec(Contents, "read_random", Microseconds, Ext4, ""),
    spec(Contents, "read_random_cached", Microseconds, MemoryFuse, "read the same places once more"),
    spec(Contents, "read_random_cached", Microseconds, Ext4, ""),
    spec(Contents, "read_random_cached_requests", Count, Floor::None, "requests of the kernel to the daemon for each of these"),

    spec(Fsync, "fsync", Microseconds, RawDevice, "overwrite 4 KiB and fsync"),
    spec(Fsync, "fsync", Microseconds, Ext4, ""),
    spec(Fsync, "fsync_writes", Count, Floor::None, "writes and flushes at the device for each of these"),
    spec(Fsync, "fsync_append", Microseconds, RawDevice, "append 4 KiB and fsync"),
    spec(Fsync, "fsync_append", Microseconds, Ext4, ""),
    spec(Fsync, "fsync_append_writes", Count, Floor::None, "writes and flushes at the device for each of these"),
    spec(Fsync, "fsync_create", Microseconds, RawDevice, "create a file and fsync its directory"),
    spec(Fsync, "fsync_create", Microseconds, Ext4, ""),

    spec(HandOver, "read_after_write", Microseconds, PingPong, "write 4 KiB on one node, then read it on another: time of the read"),
    spec(HandOver, "read_after_write", Microseconds, RawDevice, ""),
    spec(HandOver, "read_after_write_writes", Count, Floor::None, "writes and flushes at the device for each of these"),
    spec(HandOver, "write_after_read", Microseconds, PingPong, "write again on the first: time of the write"),
    spec(HandOver, "write_after_write", Microseconds, PingPong, "two nodes overwrite the same 4 KiB by turns: time of a write"),
    spec(HandOver, "write_after_write", Microseconds, RawDevice, ""),
    spec(HandOver, "stat_after_create", Microseconds, PingPong, "create a file on one node, then stat it on another: time of the stat"),
    spec(HandOver, "stat_after_create", Microseconds, RawDevice, ""),

    spec(Sharing, "shared_create", Microseconds, OneNode, "three nodes create files in one directory that has many already: each file"),
    spec(Sharing, "shared_create_least", Share, Floor::None, "what the node that got the fewest has of the mean"),
    spec(Sharing, "shared_write", Microseconds, OneNode, "three nodes write 4 KiB again and again in one file, each in a part of its own: each write"),
    spec(Sharing, "shared_write_least", Share, Floor::None, "what the node that got the fewest has of the mean"),
    spec(Sharing, "shared_append", Microseconds, OneNode, "three nodes append 100 bytes again and again to one file: each append"),
    spec(Sharing, "shared_append_least", Share, Floor::None, "what the node that got the fewest has of the mean"),
    spec(Sharing, "locks_one_node", Microseconds, MemoryFuse, "two processes of one node chase each other through the bytes of a file (ping_pong of ctdb): from one lock that is had to the next"),
    spec(Sharing, "locks_two_nodes", Microseconds, PingPong, "the same, one process on each of two nodes"),
    spec(Sharing, "list_other_node", Microseconds, MemoryFuse, "`ls -l` on a second node, in a directory that the first has just filled: each entry"),
    spec(Sharing, "list_other_node_payloads", Count, Floor::None, "payloads of lock messages, of both, for each of these"),

    spec(Recovery, "recovery_suspected", Milliseconds, EndOfSocket, "from the SIGKILL of a node until another suspects it"),
    spec(Recovery, "recovery_dropped", Milliseconds, RawDevice, "from there until a view without it is committed on the device"),
    spec(Recovery, "recovery_fenced", Milliseconds, RawDevice, "from there until it is proven that it cannot write any more"),
    spec(Recovery, "recovery_rebuilt", Milliseconds, PingPong, "from the commit until all have rebuilt their lock tables"),
    spec(Recovery, "recovery_replayed", Milliseconds, RawDevice, "from the fence until its journal is replayed; floor: the journal read once"),
    spec(Recovery, "recovery_resumed", Milliseconds, SumOfPhases, "from the SIGKILL until nothing of it is left"),
    spec(Recovery, "recovery_blocked", Milliseconds, SumOfPhases, "from the SIGKILL until a survivor's stat of a file that the dead node was writing is answered"),
];

/// The groups that a name stands for: `all`, a group, or a row. Empty when there is none.
pub fn groups_of(name: &str) -> Vec<Group> {
    let is_meant = |group: &Group| {
        let has_row = || SPECS.iter().any(|spec| spec.group == *group && spec.name == name);
        name == "all" || group.name() == name || has_row()
    };
    Group::ALL.into_iter().filter(is_meant).collect()
}

/// The rows that a name stands for.
pub fn rows_of(name: &str) -> impl Iterator<Item = &'static Spec> {
    SPECS.iter().filter(move |spec| name == "all" || spec.group.name() == name || spec.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_row_is_there_twice_and_every_name_is_described_once() {
        let mut pairs = BTreeSet::new();
        let mut names = BTreeSet::new();
        for spec in SPECS {
            assert!(pairs.insert((spec.name, spec.floor)), "{} twice", spec.name);
            assert_eq!(names.insert(spec.name), !spec.about.is_empty(), "{}", spec.name);
        }
    }

    #[test]
    fn a_name_is_a_row_or_a_group_or_all_and_never_two_of_them() {
        for group in Group::ALL {
            assert_eq!(groups_of(group.name()), [group]);
            assert!(SPECS.iter().all(|spec| spec.name != group.name()));
            assert!(rows_of(group.name()).next().is_some());
        }
        assert_eq!(groups_of("create"), [Group::Entries]);
        assert_eq!(rows_of("create").count(), 2);
        assert_eq!(groups_of("all").len(), Group::ALL.len());
        assert!(groups_of("no such row").is_empty());
    }
}
