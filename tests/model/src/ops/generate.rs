//! Draws operations.

use mx_base::Timestamp;

use super::data::{Data, Value};
use super::op::{Among, Entry, Op, Pick, Place};
use super::profile::{Class, Profile, Shape};
use crate::Random;
use crate::posix::{Allocate, Caller, Change, Existing, Presence, Rename, Special, TimeChange};

/// An endless sequence of operations; the same seed and profile give the same ones.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    profile: Profile,
    shape: Shape,
    /// Seed of the next data; never 0, never used twice by one generator.
    next_data: u64,
}

impl Generator {
    pub fn new(seed: u64, profile: Profile) -> Generator {
        let mut random = Random::new(seed);
        let next_data = random.next_u64() << 24;
        Generator { random, profile, shape: profile.shape(), next_data }
    }

    fn op(&mut self) -> Op {
        match self.random.weighted(self.profile.weights()) {
            Class::Lookup => Op::Lookup { entry: self.entry(Among::All, 30) },
            Class::Getattr => Op::Getattr { object: self.any() },
            Class::SetMode => {
                let mode = self.random.pick(&[0o600, 0o644, 0o755, 0o000, 0o1777, 0o400]);
                self.setattr(Change { mode: Some(mode), ..Change::default() })
            }
            Class::SetOwner => {
                let Caller { uid, gid, .. } = self.caller();
                self.setattr(Change { uid: Some(uid), gid: Some(gid), ..Change::default() })
            }
            Class::SetTimes => {
                let (atime, mtime) = (Some(self.time()), Some(self.time()));
                self.setattr(Change { atime, mtime, ..Change::default() })
            }
            Class::Truncate => Op::Truncate { file: self.any(), size: self.place() },
            Class::Create => {
                let existing =
                    self.random.pick(&[Existing::Open, Existing::Truncate, Existing::Refuse]);
                let (dir, name, mode, caller) = self.new_entry();
                Op::Create { dir, name, mode, existing, caller }
            }
            Class::Mknod => {
                let special = self.special();
                let (dir, name, mode, caller) = self.new_entry();
                Op::Mknod { dir, name, special, mode, caller }
            }
            Class::Mkdir => {
                let (dir, name, _, caller) = self.new_entry();
                Op::Mkdir { dir, name, mode: 0o755, caller }
            }
            Class::Symlink => {
                let (dir, name, _, caller) = self.new_entry();
                Op::Symlink { dir, name, target: self.target(), caller }
            }
            Class::Readlink => Op::Readlink { object: self.any() },
            Class::Link => {
                let (dir, name, ..) = self.new_entry();
                Op::Link { among: self.among(Among::Others), object: self.any(), dir, name }
            }
            Class::Unlink => Op::Unlink { entry: self.mostly(Among::Others) },
            Class::Rmdir => Op::Rmdir { entry: self.mostly(Among::Directories) },
            Class::Rename => self.rename(Rename::Replace, 40),
            Class::NoReplace => self.rename(Rename::NoReplace, 70),
            Class::Exchange => self.rename(Rename::Exchange, 10),
            Class::Open => Op::Open { object: self.any() },
            Class::Release => Op::Release { handle: self.any() },
            Class::Read => Op::Read { file: self.any(), place: self.place(), len: self.len() },
            Class::Write => {
                let (file, place) = (self.any(), self.place());
                Op::Write { file, place, data: self.data() }
            }
            Class::Append => Op::Append { file: self.any(), data: self.data() },
            Class::Allocate => {
                let what = self.random.pick(&[
                    Allocate::Blocks { keep_size: false },
                    Allocate::Blocks { keep_size: true },
                    Allocate::Zeros { keep_size: false },
                    Allocate::Zeros { keep_size: true },
                    Allocate::Hole,
                    Allocate::Hole,
                ]);
                Op::Allocate { file: self.any(), what, place: self.place(), len: self.len() }
            }
            Class::Seek => {
                let hole = self.random.chance(50);
                Op::Seek { file: self.any(), place: self.place(), hole }
            }
            Class::CopyRange => {
                let (from, to) = ((self.any(), self.place()), (self.any(), self.place()));
                Op::CopyRange { from, to, len: self.len() }
            }
            Class::Tmpfile => {
                let (dir, _, mode, caller) = self.new_entry();
                Op::Tmpfile { dir, mode, linkable: self.random.chance(80), caller }
            }
            Class::Readdir => Op::Readdir { dir: self.dir() },
            Class::Statfs => Op::Statfs,
            Class::Fsync => Op::Fsync { object: self.any() },
            Class::Fdatasync => Op::Fdatasync { file: self.any() },
            Class::GetXattr => Op::GetXattr { object: self.any(), name: self.xattr_name() },
            Class::ListXattrs => Op::ListXattrs { object: self.any() },
            Class::SetXattr => {
                let presence = self.random.pick(&[Presence::Any, Presence::Any, Presence::Absent]);
                let presence = if self.random.chance(5) { Presence::Present } else { presence };
                let object = self.any();
                let name = self.xattr_name();
                // As an ACL hardly any bytes will do.
                let value = match name.starts_with(b"system.") {
                    true => Value::Acl(self.acl()),
                    false => Value::Data(self.xattr_data()),
                };
                Op::SetXattr { object, name, value, presence }
            }
            Class::RemoveXattr => Op::RemoveXattr { object: self.any(), name: self.xattr_name() },
            Class::SetAcl => {
                let name = self
                    .random
                    .pick(&[&b"system.posix_acl_access"[..], b"system.posix_acl_default"]);
                let object = match name.ends_with(b"default") {
                    true => self.dir(),
                    false => self.any(),
                };
                let (name, value) = (name.to_vec(), Value::Acl(self.acl()));
                Op::SetXattr { object, name, value, presence: Presence::Any }
            }
        }
    }

    fn setattr(&mut self, change: Change) -> Op {
        Op::Setattr { object: self.any(), change }
    }

    fn rename(&mut self, how: Rename, named_percent: u64) -> Op {
        Op::Rename {
            from: self.entry(Among::All, 4),
            to: self.entry(Among::All, named_percent),
            how,
        }
    }

    fn any(&mut self) -> Pick {
        Pick::Any(self.number())
    }

    fn dir(&mut self) -> Pick {
        if self.random.chance(self.shape.newest) {
            Pick::Newest(u32::try_from(self.random.below(3)).expect("below 3"))
        } else {
            self.any()
        }
    }

    fn number(&mut self) -> u32 {
        u32::try_from(self.random.below(1 << 32)).expect("32 bits")
    }

    /// An entry; so many percent of them by any name, the rest by one that exists.
    fn entry(&mut self, among: Among, named_percent: u64) -> Entry {
        if self.random.chance(named_percent) {
            Entry::Named { dir: self.dir(), name: self.name() }
        } else {
            Entry::Existing { among, object: self.any(), name: self.number() }
        }
    }

    /// An entry that suits the operation, with exceptions.
    fn mostly(&mut self, among: Among) -> Entry {
        let among = self.among(among);
        self.entry(among, 8)
    }

    fn among(&mut self, among: Among) -> Among {
        if self.random.chance(8) { Among::All } else { among }
    }

    fn new_entry(&mut self) -> (Pick, Vec<u8>, u16, Caller) {
        let mode = self.random.pick(&[0o644, 0o600, 0o666]);
        (self.dir(), self.name(), mode, self.caller())
    }

    /// One of the profile's names: most are short, some long, some hardly readable, and now and
    /// then one that no directory takes.
    fn name(&mut self) -> Vec<u8> {
        let number = self.random.below(self.shape.names);
        match self.random.below(200) {
            0 => vec![b'x'; 256],
            1 => self.random.pick(&[&b"."[..], b".."]).to_vec(),
            _ => match number % 8 {
                5 => format!("{number:0>255}").into_bytes(),
                6 => [&b"\xff \xc3("[..], number.to_string().as_bytes()].concat(),
                7 => format!("{number}...").into_bytes(),
                _ => format!("n{number}").into_bytes(),
            },
        }
    }

    fn target(&mut self) -> Vec<u8> {
        let len = self.random.pick(&[1, 20, 59, 60, 1_000, 4_000, 4_095, 4_096]);
        vec![b't'; len]
    }

    fn caller(&mut self) -> Caller {
        self.random.pick(&[
            Caller { uid: 0, gid: 0, umask: 0o022 },
            Caller { uid: 1_000, gid: 1_001, umask: 0o077 },
        ])
    }

    fn special(&mut self) -> Option<Special> {
        self.random.pick(&[
            None,
            Some(Special::Fifo),
            Some(Special::Socket),
            Some(Special::CharDevice { major: 1, minor: 3 }),
            Some(Special::BlockDevice { major: 259, minor: 70_000 }),
        ])
    }

    fn time(&mut self) -> TimeChange {
        let seconds = self.random.pick(&[-1, 0, 1, 1_500_000_000, 4_500_000_000]);
        let nanos = self.random.pick(&[0, 1, 999_999_999]);
        self.random.pick(&[TimeChange::Now, TimeChange::At(Timestamp { seconds, nanos })])
    }

    /// Mostly anywhere, often at a border of a page, sometimes by the end.
    fn place(&mut self) -> Place {
        let offset = self.random.below(self.shape.offset_max + 1);
        let near = self.random.pick(&[0, 1, 511, 4_095, 4_096, 4_097, 70_000]);
        match self.random.below(10) {
            0..4 => Place::At(offset),
            4..7 => Place::At((offset & !0xfff) + self.random.below(2)),
            7 => Place::AfterEnd(near),
            _ => Place::BeforeEnd(near),
        }
    }

    fn len(&mut self) -> usize {
        let max = self.shape.len_max;
        let len = match self.random.below(10) {
            0 => 0,
            1..4 => 1 + self.random.below(100),
            4..7 => (1 + self.random.below(max.div_ceil(4096))) * 4096,
            _ => 1 + self.random.below(max),
        };
        usize::try_from(len.min(max)).expect("a few hundred KiB")
    }

    fn xattr_name(&mut self) -> Vec<u8> {
        let long = [&b"user."[..], &[b'l'; 250]].concat();
        let name: &[u8] = match self.random.below(40) {
            0 => b"user.",
            1 => b"system.other",
            2 => &[&long[..], b"x"].concat(),
            3..6 => b"security.capability",
            6..9 => b"trusted.t",
            9..12 => b"system.posix_acl_access",
            12..14 => b"system.posix_acl_default",
            14..17 => &long,
            17..24 => b"user.b",
            24..30 => b"user.c",
            _ => b"user.a",
        };
        name.to_vec()
    }

    /// Mostly small; now and then as large as any may be, or too large.
    fn xattr_data(&mut self) -> Data {
        self.next_data += 1;
        let len = match self.random.below(40) {
            0 => 65_536,
            1 => 65_537,
            2 => self.random.below(65_536),
            3..7 => self.random.below(9_000),
            7..16 => self.random.below(1_100),
            16 => 0,
            _ => self.random.below(80),
        };
        Data { seed: self.next_data, len: usize::try_from(len).expect("64 KiB") }
    }

    /// Mostly a valid list, some of which say no more than a mode.
    fn acl(&mut self) -> Vec<(u16, u16, u32)> {
        const NOBODY: u32 = u32::MAX;
        let mut draw =
            |tag: u16, id: u32| (tag, u16::try_from(self.random.below(8)).expect("below 8"), id);
        let (owner, group) = (draw(0x01, NOBODY), draw(0x04, NOBODY));
        let (mask, other) = (draw(0x10, NOBODY), draw(0x20, NOBODY));
        let users = [draw(0x02, 1_000), draw(0x02, 1_002)];
        let groups: Vec<_> = (0..500).map(|id| draw(0x08, 2_000 + id)).collect();
        match self.random.below(20) {
            0 => Vec::new(),
            1 => vec![owner, other, group],
            2 => vec![owner, users[0], group, other],
            3..8 => vec![owner, group, other],
            8..10 => vec![owner, group, mask, other],
            10 => [&[owner, group][..], &groups, &[mask, other]].concat(),
            11..15 => vec![owner, users[0], users[1], group, groups[0], mask, other],
            _ => vec![owner, users[0], group, mask, other],
        }
    }

    fn data(&mut self) -> Data {
        self.next_data += 1;
        let seed = if self.random.chance(3) { 0 } else { self.next_data };
        Data { seed, len: self.len() }
    }
}

impl Iterator for Generator {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        Some(self.op())
    }
}
