//! One report of each kind, as it is printed.

use mx_node::report::{
    Damage, FileSystem, FsRecovery, Granted, Mount, Mounted, Peer, Remnant, Replay, Suspicion, View,
};

use super::*;

fn viewer() -> Viewer {
    let (cluster, name) = ("c1".to_owned(), "vol".to_owned());
    Viewer { node: 2, incarnation: Some(7), cluster, name, at_ms: 1_709_210_096_007 }
}

const SEEN: &str =
    "as seen by node 2 (life 7) of \"vol\", cluster c1, at 2024-02-29 12:34:56.007 UTC\n";

fn fs() -> FileSystem {
    FileSystem { id: "f1".to_owned(), label: "data".to_owned() }
}

fn member(node: u16, incarnation: u32) -> Member {
    Member { node, incarnation }
}

/// For writing, by fcntl; held.
fn file_lock(member: Member, pid: u32, start: u64, end: u64) -> FileLock {
    FileLock {
        resource: "inode 0x12".to_owned(),
        member,
        pid,
        command: None,
        family: "fcntl".to_owned(),
        access: "write".to_owned(),
        start,
        end,
        waits_for: None,
        waits_ms: None,
        suspected_ms: None,
        is_dead: false,
    }
}

#[test]
fn a_status_names_members_peers_and_mounts() {
    let text = status(&Status {
        viewer: viewer(),
        state: State::Member,
        activity: "at rest".to_owned(),
        view: Some(View {
            id: 4,
            generation: 9,
            members: vec![member(1, 3), member(2, 7)],
            administrator: Some(member(1, 3)),
            phase: "fencing".to_owned(),
        }),
        permit: Permit::Left { ms: 340 },
        peers: vec![
            Peer { node: 1, connected: true, suspected: None, unacknowledged_bytes: 0 },
            Peer {
                node: 3,
                connected: false,
                suspected: Some(Suspicion { since_ms: 12, cause: "silence".to_owned() }),
                unacknowledged_bytes: 2048,
            },
        ],
        mounts: vec![Mount {
            fs: fs(),
            lockspace: Some(1),
            directory: Some("/mnt".to_owned()),
            slot: Some(0),
            members: vec![Mounted { member: member(2, 7), state: "ready".to_owned() }],
        }],
        unrecovered: vec![member(3, 5)],
        gate: Gate { admitted: 5, ..Gate::default() },
    });
    let expected = "\
state        member (at rest)
view         4, register generation 9, fencing
members      n1.3 n2.7
admin        n1.3
permit       340 ms left, renewed all the time
gate         open; 0 requests under way, 5 admitted, 0 refused, 0 disowned
unrecovered  n3.5

PEER  CONNECTION     SUSPECTED           UNACKNOWLEDGED
n1    connected      no                  0 bytes
n3    not connected  for 12 ms: silence  2 KiB

LABEL  FILE SYSTEM  LOCKSPACE  HERE ON  SLOT  MEMBERS
data   f1           1          /mnt     0     n2.7 ready
";
    assert_eq!(text, format!("{SEEN}{expected}"));
}

#[test]
fn a_dump_of_locks_shows_both_sides() {
    let text = locks(&LockDump {
        viewer: viewer(),
        file_systems: vec![FsLocks {
            fs: fs(),
            locks: vec![Lock {
                resource: "inode 0x12".to_owned(),
                bucket: 7,
                home: Some(member(1, 3)),
                mode: "EX".to_owned(),
                pins: 1,
                kernel_pages: 0,
                waiters: 2,
                asked: None,
                called_out: Some("EX".to_owned()),
                surrendering_to: Some("PR".to_owned()),
            }],
            locks_total: 3,
            homed: vec![Homed {
                resource: "rename".to_owned(),
                bucket: 8,
                granted: vec![Granted {
                    member: member(1, 3),
                    mode: "PR".to_owned(),
                    called_out: Some("EX".to_owned()),
                    since_ms: 5,
                }],
                converting: Vec::new(),
                waiting: vec![Waiting {
                    member: member(2, 7),
                    wanted: "EX".to_owned(),
                    since_ms: 4,
                }],
                remnants: vec![Remnant {
                    dead: member(3, 5),
                    modes: "{EX}".to_owned(),
                    is_limbo: true,
                }],
                unreported: Vec::new(),
                value_is_valid: true,
            }],
            homed_total: 1,
            file_locks: vec![FileLock {
                waits_for: Some(vec![member(3, 5)]),
                waits_ms: Some(12),
                ..file_lock(member(2, 7), 77, 10, 19)
            }],
        }],
    });
    let expected = "
file system \"data\" f1
1 of 3 locks cached or asked for here:
RESOURCE    MODE  HOME  BUCKET  PINS  PAGES  WAITERS  DOING
inode 0x12  EX    n1.3  7       1     0      2        surrenders to PR, called out for EX

1 resources that this node decides about:
rename (bucket 8, value valid)
  granted    PR to n1.3 for 5 ms, called out for EX
  waiting    n2.7 for EX, since 4 ms
  dead       n3.5 may hold {EX} until its journal is replayed

locks of applications that this node decides about:
RESOURCE    BY    PID  KIND   FOR    BYTES  STATE
inode 0x12  n2.7  77   fcntl  write  10-19  waits for n3.5
";
    assert_eq!(text, format!("{SEEN}{expected}"));
}

#[test]
fn a_recovery_is_shown_by_phase() {
    let replay = Replay { blocks_replayed: 4, locks: 9, locks_live: 2, ..Replay::default() };
    let text = recoveries(&RecoveryReport {
        viewer: viewer(),
        recoveries: vec![Recovery {
            dead: member(3, 5),
            suspected_ago_ms: 900,
            dropped_ms: 20,
            fenced_ms: Some(25),
            ended_ms: None,
            file_systems: vec![FsRecovery {
                fs: fs(),
                recoverer: Some(member(1, 3)),
                rebuilt_ms: Some(30),
                replayed_ms: Some(80),
                resumed_ms: None,
                ending: Some("replayed".to_owned()),
                replay: Some(replay),
                work: Work {
                    locks_rebuilt: Some(7),
                    buckets_rebuilt: Some(3),
                    messages: 12,
                    limbo_redone: 1,
                    waits: 2,
                    waited_ms: 95,
                    longest: vec![Delay {
                        resource: "inode 0x12".to_owned(),
                        mode: "EX alone".to_owned(),
                        pid: Some(71),
                        command: Some("cp".to_owned()),
                        waited_ms: 90,
                        is_over: true,
                        cause: "limbo".to_owned(),
                        home: None,
                    }],
                    ..Work::default()
                },
            }],
        }],
    });
    let expected = "
n3.5: under way, suspected 900 ms ago; times since then:
  dropped    20 ms (view without it committed)
  fenced     25 ms
  file system \"data\" f1
    rebuilt  30 ms
    replayed 80 ms by n1.3 (replayed)
    resumed  not yet
    replay   4 blocks; 9 locks in the journal, 2 of them live, 0 damaged; 0 segments, 0 orphans adopted
    here     7 locks rebuilt in 3 buckets, 12 messages
    limbo    0 freed unchanged, 1 redone
    waits    2, 95 ms in all
      90 ms: process 71 (cp) for inode 0x12 EX alone: in limbo until the journal was replayed
  ended      not yet
";
    assert_eq!(text, format!("{SEEN}{expected}"));
}

#[test]
fn recoveries_are_listed_one_on_a_line_with_the_sums_of_their_file_systems() {
    let of = |locks, blocks: Option<u64>| FsRecovery {
        fs: fs(),
        recoverer: Some(member(1, 3)),
        rebuilt_ms: Some(30),
        replayed_ms: blocks.map(|blocks| 70 + blocks),
        resumed_ms: None,
        ending: None,
        replay: blocks.map(|blocks_replayed| Replay { blocks_replayed, ..Replay::default() }),
        work: Work {
            locks_rebuilt: Some(locks),
            limbo_freed: 2,
            limbo_redone: 1,
            waits: 4,
            waited_ms: 95,
            ..Work::default()
        },
    };
    let recovery = |dead, ended_ms, file_systems| Recovery {
        dead,
        suspected_ago_ms: 61_000,
        dropped_ms: 20,
        fenced_ms: Some(25),
        ended_ms,
        file_systems,
    };
    let text = recovery_list(&RecoveryReport {
        viewer: viewer(),
        recoveries: vec![
            recovery(member(3, 5), Some(90), vec![of(7, Some(4)), of(8, Some(6))]),
            recovery(member(4, 12), None, vec![of(9, None)]),
        ],
    });
    let expected = "\
DEAD   SUSPECTED     FENCED  REBUILT  REPLAYED  ENDED    LOCKS  LIMBO  BLOCKS     WAITS  WAITED MS
n3.5   61000 ms ago  25 ms   30 ms    76 ms     90 ms    15     6      10         8      190
n4.12  61000 ms ago  25 ms   30 ms    not yet   not yet  9      3      elsewhere  4      95
";
    assert_eq!(text, format!("{SEEN}{expected}"));
    let none = recovery_list(&RecoveryReport { viewer: viewer(), recoveries: Vec::new() });
    assert_eq!(none, format!("{SEEN}no recovery since this daemon started\n"));
}

#[test]
fn usage_has_units() {
    let text = usage(&FsUsage {
        viewer: viewer(),
        file_systems: vec![Usage {
            fs: fs(),
            directory: "/mnt".to_owned(),
            block_bytes: 4096,
            blocks: 1024,
            blocks_free: 768,
            requests: 3,
            requests_by_operation: BTreeMap::from([
                ("read".to_owned(), 3),
                ("write".to_owned(), 0),
            ]),
            ..Usage::default()
        }],
    });
    assert!(text.starts_with(SEEN), "{text}");
    assert!(text.contains("space        1 MiB used, 3 MiB free of 4 MiB\n"), "{text}");
    assert!(text.contains("requests     3: read 3\n"), "{text}");
}

#[test]
fn damage_names_what_answers_eio_and_why() {
    let objects = vec![Isolated { resource: "inode 0x1e9".to_owned(), why: "torn".to_owned() }];
    let of = |objects| Damage { fs: fs(), directory: "/mnt".to_owned(), objects };
    let text =
        damage(&FsDamage { viewer: viewer(), file_systems: vec![of(objects), of(Vec::new())] });
    assert!(text.starts_with(SEEN), "{text}");
    assert!(text.contains("inode 0x1e9  torn\n"), "{text}");
    assert!(text.ends_with("  no damage met since it was mounted\n"), "{text}");
}

#[test]
fn days_are_counted_right() {
    assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
    assert_eq!(utc(951_782_399_999), "2000-02-28 23:59:59.999 UTC");
    assert_eq!(utc(951_868_800_000), "2000-03-01 00:00:00.000 UTC");
    assert_eq!(utc(4_102_444_799_000), "2099-12-31 23:59:59.000 UTC");
}

#[test]
fn an_account_names_holders_waiters_and_who_knows_more() {
    let text = why(&Why {
        viewer: viewer(),
        resources: vec![WhyResource {
            resource: "inode 0x12".to_owned(),
            bucket: 7,
            home: Some(member(2, 7)),
            here: Some(mx_node::report::Here {
                mode: "NL".to_owned(),
                since_ms: Some(40),
                asked: Some("PR".to_owned()),
                unwritten_blocks: Some(2),
                doing: Doing::Waiting,
            }),
            holders: vec![mx_node::report::Holder {
                member: member(1, 3),
                mode: "EX".to_owned(),
                since_ms: Some(900),
                doing: Doing::CalledOut { for_mode: "PR".to_owned() },
                suspected_ms: Some(12),
            }],
            waiters: vec![mx_node::report::Waiter {
                pid: Some(71),
                command: Some("cat".to_owned()),
                mode: "PR".to_owned(),
                since_ms: 41,
            }],
            waiters_total: 3,
            at_home: None,
            file_locks: None,
            ask: vec![member(1, 3)],
        }],
        stuck_at: None,
    });
    let expected = "
inode 0x12 (bucket 7, home n2.7)
  held       EX by n1.3 for 900 ms: called out for PR, not surrendered yet; not heard of, suspected for 12 ms
  here       NL, asks for PR for 40 ms: holds nothing yet, 2 blocks not in place yet
  waits      process 71 (cat) for PR, since 41 ms
  waits      2 more
  ask        n1.3 for more
";
    assert_eq!(text, format!("{SEEN}{expected}"));
}

/// Of a file, its home being `home`.
fn why_locked(home: Member, file_locks: FileLocks) -> String {
    why(&Why {
        viewer: viewer(),
        resources: vec![WhyResource {
            resource: "inode 0x12".to_owned(),
            bucket: 7,
            home: Some(home),
            here: None,
            holders: Vec::new(),
            waiters: Vec::new(),
            waiters_total: 0,
            at_home: None,
            file_locks: Some(file_locks),
            ask: Vec::new(),
        }],
        stuck_at: None,
    })
}

#[test]
fn at_the_home_an_account_names_every_lock_of_programs_and_who_waits_for_whom() {
    let text = why_locked(
        member(2, 7),
        FileLocks {
            is_all: true,
            held: vec![
                FileLock {
                    command: Some("sqlite3".to_owned()),
                    ..file_lock(member(2, 7), 71, 10, 19)
                },
                FileLock {
                    access: "read".to_owned(),
                    suspected_ms: Some(30),
                    ..file_lock(member(1, 3), 80, 20, i64::MAX.cast_unsigned())
                },
                FileLock {
                    family: "flock".to_owned(),
                    is_dead: true,
                    ..file_lock(member(3, 5), 90, 0, u64::MAX)
                },
            ],
            held_total: 5,
            waiting: vec![
                FileLock {
                    waits_for: Some(vec![member(1, 3), member(2, 7)]),
                    waits_ms: Some(41),
                    ..file_lock(member(3, 6), 72, 19, 20)
                },
                FileLock {
                    waits_for: Some(Vec::new()),
                    waits_ms: Some(2),
                    ..file_lock(member(3, 6), 73, 5, 5)
                },
            ],
            waiting_total: 3,
            unreported: vec![member(1, 3)],
            unfenced: vec![member(3, 5)],
        },
    );
    let expected = "
inode 0x12 (bucket 7, home n2.7)
  fcntl      write, bytes 10-19, by process 71 (sqlite3) of n2.7
  fcntl      read, bytes 20 to the end, by process 80 of n1.3, not heard of, suspected for 30 ms
  flock      write, all of it, by process 90 of n3.5, dead, until it is known to be fenced
  locked     2 more ranges
  waits      process 72 of n3.6 for fcntl write, bytes 19-20, since 41 ms, for n1.3, n2.7
  waits      process 73 of n3.6 for fcntl write, bytes 5-5, since 2 ms, until it can be decided
  waits      1 more for locks of ranges
  undecided  no report yet from n1.3 of what is locked there
  undecided  until n3.5, dead, is known to be fenced: what it locked is unknown
";
    assert_eq!(text, format!("{SEEN}{expected}"));
    let text = why_locked(member(2, 7), FileLocks { is_all: true, ..FileLocks::default() });
    let expected =
        "  unlocked   no program has any of it locked\n  nobody holds it or waits for it\n";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn elsewhere_an_account_says_that_it_knows_of_its_own_programs_only() {
    let own = FileLocks {
        held: vec![file_lock(member(2, 7), 71, 10, 19)],
        held_total: 1,
        waiting: vec![FileLock {
            waits_for: Some(Vec::new()),
            waits_ms: Some(41),
            ..file_lock(member(2, 7), 72, 0, 3)
        }],
        waiting_total: 1,
        ..FileLocks::default()
    };
    let text = why_locked(member(1, 3), own);
    let expected = "
inode 0x12 (bucket 7, home n1.3)
  fcntl      write, bytes 10-19, by process 71 of n2.7
  waits      process 72 of n2.7 for fcntl write, bytes 0-3, since 41 ms; for whom, n1.3 knows
  unknown    what programs of other nodes have locked: n1.3 knows
";
    assert_eq!(text, format!("{SEEN}{expected}"));
}
