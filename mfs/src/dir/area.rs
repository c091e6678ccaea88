//! Entries tiled over a piece of a block: inside an inode, or in a bucket.
//!
//! Records follow each other without gaps up to the end; a free one has inode 0. A removed entry
//! becomes free and joins a free neighbour before it, so a change touches few bytes (and logs few).

use std::collections::BTreeSet;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use super::hash;
use super::{Dirent, NamedDirent};
use crate::block::BlockNo;
use crate::cache::Fault;
use crate::error::{Corruption, CorruptionKind};
use crate::file::{FileId, FileType, InodeNo};
use crate::ondisk::directory::{ENTRY_HEAD_SIZE, EntryHead};

/// Entries to look at; checked when made.
pub(crate) struct Area<'a>(&'a [u8]);

/// Entries to change; checked when made.
pub(crate) struct AreaMut<'a>(&'a mut [u8]);

/// Bytes that an entry with such a name takes.
pub(crate) fn record_len(name_len: usize) -> usize {
    (ENTRY_HEAD_SIZE + name_len).next_multiple_of(8)
}

/// An area without entries: one free record, or several if it is larger than a record can be.
#[expect(clippy::cast_possible_truncation, reason = "records and their names lie inside a block")]
pub(crate) fn clear(area: &mut [u8]) {
    area.fill(0);
    let len = area.len();
    write_head(area, 0, &EntryHead { record_len: U16::new(len as u16), ..FREE });
}

const FREE: EntryHead = EntryHead {
    cookie: U64::ZERO,
    inode: U64::ZERO,
    generation: U32::ZERO,
    record_len: U16::ZERO,
    name_len: 0,
    file_type: 0,
};

/// One record: where it is, and its head.
struct Record<'a> {
    at: usize,
    head: &'a EntryHead,
    name: &'a [u8],
}

impl Record<'_> {
    fn is_free(&self) -> bool {
        self.head.inode.get() == 0
    }

    /// Bytes behind what the entry itself needs.
    fn slack(&self) -> usize {
        let len = usize::from(self.head.record_len.get());
        if self.is_free() { len } else { len - record_len(self.name.len()) }
    }

    fn entry(&self) -> Dirent {
        Dirent {
            file: FileId {
                inode: InodeNo(self.head.inode.get()),
                generation: self.head.generation.get(),
            },
            file_type: FileType::from_u8(self.head.file_type).expect("checked"),
            cookie: self.head.cookie.get(),
        }
    }
}

fn records(area: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= area.len() {
            return None;
        }
        let (head, rest) = EntryHead::ref_from_prefix(&area[at..]).ok()?;
        let record = Record { at, head, name: &rest[..usize::from(head.name_len)] };
        at += usize::from(head.record_len.get());
        Some(record)
    })
}

/// # Errors
/// The first record that makes no sense.
fn check(area: &[u8], block: BlockNo) -> Result<(), Corruption> {
    let wrong = |what, found: usize| {
        let kind = CorruptionKind::Contents(what);
        Err(Corruption { block, kind, expected: 0, found: found as u64 })
    };
    let mut at = 0;
    while at < area.len() {
        let Ok((head, _)) = EntryHead::ref_from_prefix(&area[at..]) else {
            return wrong("a directory entry is cut off", at);
        };
        let len = usize::from(head.record_len.get());
        if len < ENTRY_HEAD_SIZE || !len.is_multiple_of(8) || at + len > area.len() {
            return wrong("a directory record of impossible length", at);
        }
        if head.inode.get() != 0 {
            if head.name_len == 0 || record_len(usize::from(head.name_len)) > len {
                return wrong("a name that does not fit its record", at);
            }
            if FileType::from_u8(head.file_type).is_none() {
                return wrong("a directory entry of unknown type", at);
            }
        }
        at += len;
    }
    Ok(())
}

impl<'a> Area<'a> {
    pub(crate) fn new(area: &'a [u8], block: BlockNo) -> Result<Area<'a>, Fault> {
        check(area, block)?;
        Ok(Area(area))
    }

    pub(crate) fn find(&self, hash: u64, name: &[u8]) -> Option<Dirent> {
        find(self.0, hash, name).map(|record| record.entry())
    }

    /// Entries with cookies above `after`, in order.
    pub(crate) fn after(&self, after: u64) -> Vec<NamedDirent> {
        let mut entries: Vec<NamedDirent> = records(self.0)
            .filter(|r| !r.is_free() && r.head.cookie.get() > after)
            .map(|r| NamedDirent { name: r.name.to_vec(), entry: r.entry() })
            .collect();
        entries.sort_unstable_by_key(|e| e.entry.cookie);
        entries
    }
}

impl<'a> AreaMut<'a> {
    pub(crate) fn new(area: &'a mut [u8], block: BlockNo) -> Result<AreaMut<'a>, Fault> {
        check(area, block)?;
        Ok(AreaMut(area))
    }

    /// The first cookie of `hash` that no entry here has; all entries with one hash are in one
    /// area.
    pub(crate) fn free_cookie(&self, hash: u64) -> Option<u64> {
        let used: BTreeSet<u64> = records(self.0)
            .filter(|r| !r.is_free())
            .map(|r| r.head.cookie.get())
            .filter(|c| hash::of_cookie(*c) == hash)
            .collect();
        let first = hash::first_cookie(hash);
        (first..first + (1 << hash::ORDINAL_BITS)).find(|c| !used.contains(c))
    }

    /// Adds an entry; false when there is no room.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "records and their names lie inside a block"
    )]
    pub(crate) fn insert(&mut self, name: &[u8], entry: Dirent) -> bool {
        let need = record_len(name.len());
        let place = records(self.0).find(|r| r.slack() >= need).map(|r| {
            let len = usize::from(r.head.record_len.get());
            (r.at, len - r.slack(), len)
        });
        let Some((at, used, len)) = place else { return false };
        if used > 0 {
            // Behind an entry that does not need all of its record.
            let (head, _) = EntryHead::mut_from_prefix(&mut self.0[at..]).expect("checked");
            head.record_len = U16::new(used as u16);
        }
        let (at, len) = (at + used, len - used);
        let head = EntryHead {
            cookie: U64::new(entry.cookie),
            inode: U64::new(entry.file.inode.0),
            generation: U32::new(entry.file.generation),
            record_len: U16::new(len as u16),
            name_len: name.len() as u8,
            file_type: entry.file_type as u8,
        };
        write_head(self.0, at, &head);
        self.0[at + ENTRY_HEAD_SIZE..at + ENTRY_HEAD_SIZE + name.len()].copy_from_slice(name);
        true
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "records and their names lie inside a block"
    )]
    pub(crate) fn remove(&mut self, hash: u64, name: &[u8]) -> Option<Dirent> {
        let (at, len, entry) = find(self.0, hash, name)
            .map(|r| (r.at, usize::from(r.head.record_len.get()), r.entry()))?;
        let before = records(self.0)
            .take_while(|r| r.at < at)
            .last()
            .filter(Record::is_free)
            .map(|r| (r.at, usize::from(r.head.record_len.get())));
        match before {
            Some((free, free_len)) => {
                let (head, _) = EntryHead::mut_from_prefix(&mut self.0[free..]).expect("checked");
                head.record_len = U16::new((free_len + len) as u16);
                self.0[at..at + ENTRY_HEAD_SIZE].fill(0);
            }
            None => {
                write_head(self.0, at, &EntryHead { record_len: U16::new(len as u16), ..FREE });
            }
        }
        Some(entry)
    }

    pub(crate) fn replace(
        &mut self,
        hash: u64,
        name: &[u8],
        file: FileId,
        file_type: FileType,
    ) -> Option<Dirent> {
        let (at, old) = find(self.0, hash, name).map(|r| (r.at, r.entry()))?;
        let (head, _) = EntryHead::mut_from_prefix(&mut self.0[at..]).expect("checked");
        head.inode = U64::new(file.inode.0);
        head.generation = U32::new(file.generation);
        head.file_type = file_type as u8;
        Some(old)
    }
}

fn find<'a>(area: &'a [u8], hash: u64, name: &[u8]) -> Option<Record<'a>> {
    records(area)
        .find(|r| hash::of_cookie(r.head.cookie.get()) == hash && !r.is_free() && r.name == name)
}

fn write_head(area: &mut [u8], at: usize, head: &EntryHead) {
    area[at..at + ENTRY_HEAD_SIZE].copy_from_slice(head.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, cookie: u64) -> Dirent {
        let file = FileId { inode: InodeNo(n), generation: 1 };
        Dirent { file, file_type: FileType::Regular, cookie }
    }

    #[test]
    fn an_area_fills_empties_and_fills_again() {
        let mut bytes = [0; 512];
        clear(&mut bytes);
        let name = |i: u64| format!("name-{i}").into_bytes();
        for round in 0..3 {
            let mut count = 0;
            loop {
                let mut area = AreaMut::new(&mut bytes, BlockNo(1)).expect("whole");
                let n = count + 1;
                if !area.insert(&name(n), entry(n, hash::first_cookie(n + round))) {
                    break;
                }
                count += 1;
            }
            assert_eq!(count, 512 / record_len(6) as u64);
            // Every other one first, so that free records have to join.
            for n in (1..=count).step_by(2).chain((2..=count).step_by(2)) {
                let mut area = AreaMut::new(&mut bytes, BlockNo(1)).expect("whole");
                let removed = area.remove(n + round, &name(n)).expect("present");
                assert_eq!(removed.file.inode, InodeNo(n));
            }
            assert!(Area::new(&bytes, BlockNo(1)).expect("whole").after(0).is_empty());
        }
    }

    #[test]
    fn entries_with_one_hash_get_cookies_of_their_own() {
        let mut bytes = [0; 512];
        clear(&mut bytes);
        let mut area = AreaMut::new(&mut bytes, BlockNo(1)).expect("whole");
        for name in [b"a", b"b", b"c"] {
            let cookie = area.free_cookie(9).expect("room");
            assert!(area.insert(name, entry(5, cookie)));
        }
        assert!(area.remove(9, b"b").is_some());
        assert_eq!(area.free_cookie(9), Some(hash::first_cookie(9) + 1));
        let listed = Area::new(&bytes, BlockNo(1)).expect("whole").after(hash::first_cookie(9));
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].name, b"c");
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = [0; 512];
        assert!(Area::new(&bytes, BlockNo(1)).is_err(), "a record of length 0");
        clear(&mut bytes);
        bytes[22] = 200;
        bytes[8] = 1;
        bytes[20] = 64;
        assert!(Area::new(&bytes, BlockNo(1)).is_err());
    }
}
