//! The program `mx-cells`: one file, used by several writers at the same time, each through a mount
//! of its own; no store is lost, nobody sees what is older than what was there when it began to
//! look, or than what anybody has seen before.
//!
//! The file is made of cells of 64 bytes, each with one owner, who alone changes it; the pages of
//! the file hold cells of all owners, but some that belong to one whole, for O_DIRECT. Eight words
//! of a cell say who wrote it, and as how manieth of its changes. Writes and reads go through
//! write(2), shared mappings and O_DIRECT, mixed at random.
//!
//! `mx-cells SEED OPERATIONS PAGES WAYS PATH...`: OPERATIONS are of each writer; WAYS is a list with
//! commas of what is used beside read(2) and write(2): `map-read`, `map-write`, `direct`, or `none`;
//! each PATH is the file through a mount, and may come again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::OFlags;

use crate::aligned::Aligned;
use crate::dice::Dice;
use crate::mapping::Mapping;

const PAGE: usize = 4096;
const CELL: usize = 64;
const WORD: usize = 8;
const CELLS_OF_PAGE: usize = PAGE / CELL;

/// Runs the writers and tells how it went.
///
/// # Errors
/// For wrong usage, and with the first thing that one of them should not have seen.
pub fn main(args: &[String], out: &mut impl Write) -> Result<()> {
    let [seed, operations, pages, ways, paths @ ..] = args else {
        bail!("usage: mx-cells SEED OPERATIONS PAGES WAYS PATH...");
    };
    let seed: u64 = seed.parse().context("SEED")?;
    let operations: u32 = operations.parse().context("OPERATIONS")?;
    let pages: usize = pages.parse().context("PAGES")?;
    ensure!(!paths.is_empty() && pages > 0, "no PATH, or no page");
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let file = File::create(&paths[0]).with_context(|| paths[0].display().to_string())?;
    file.set_len((pages * PAGE) as u64)?;
    drop(file);
    let has = |way| ways.split(',').any(|word| word == way);
    let shared = Shared {
        loads: has("map-read"),
        stores: has("map-write"),
        direct: has("direct"),
        owners: paths.len(),
        changes: (0..pages * CELLS_OF_PAGE).map(|_| Changes::default()).collect(),
        seen: (0..pages * PAGE / WORD).map(|_| AtomicU64::new(0)).collect(),
        failed: AtomicBool::new(false),
    };
    let results: Vec<Result<u64>> = thread::scope(|scope| {
        let mut writers = Vec::new();
        for (index, path) in paths.iter().enumerate() {
            let shared = &shared;
            writers.push(scope.spawn(move || {
                let done = Writer::open(shared, index, path, seed)
                    .and_then(|mut writer| writer.work(operations));
                shared.failed.fetch_or(done.is_err(), Ordering::Relaxed);
                done.with_context(|| format!("writer {} on {}", index + 1, path.display()))
            }));
        }
        writers.into_iter().map(|writer| writer.join().expect("a writer does not panic")).collect()
    });
    let mut changes = 0;
    for result in results {
        changes += result.with_context(|| format!("seed {seed}"))?;
    }
    // Everybody has stopped: all have the same, the last of every change.
    for (index, path) in paths.iter().enumerate() {
        let mut writer = Writer::open(&shared, index, path, seed)?;
        for cell in 0..shared.changes.len() {
            writer.look_at(cell).with_context(|| format!("at the end, on {}", path.display()))?;
        }
    }
    let (writers, total) = (paths.len(), paths.len() as u64 * u64::from(operations));
    writeln!(out, "{total} operations of {writers} writers, {changes} changes, none lost")?;
    Ok(())
}

/// For each word of a cell.
type Floors = [u64; CELL / WORD];

/// How often a cell was changed.
#[derive(Debug, Default)]
struct Changes {
    begun: AtomicU64,
    done: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    /// Through mappings.
    loads: bool,
    stores: bool,
    direct: bool,
    owners: usize,
    changes: Vec<Changes>,
    /// The newest that anybody has seen of every word.
    seen: Vec<AtomicU64>,
    failed: AtomicBool,
}

impl Shared {
    /// Every fourth page belongs to one of them.
    fn owner_of_page(&self, page: usize) -> Option<usize> {
        (page % 4 == 3).then_some(page / 4 % self.owners)
    }

    fn owner(&self, cell: usize) -> usize {
        self.owner_of_page(cell / CELLS_OF_PAGE).unwrap_or(cell % self.owners)
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    index: usize,
    dice: Dice,
    file: File,
    direct: File,
    mapping: Mapping,
    aligned: Aligned,
}

impl<'a> Writer<'a> {
    fn open(shared: &'a Shared, index: usize, path: &Path, seed: u64) -> Result<Writer<'a>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let flags = i32::try_from(OFlags::DIRECT.bits())?;
        let direct = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let mapping = Mapping::new(&file, shared.changes.len() * CELL)?;
        let dice = Dice::new(seed.wrapping_mul(1000).wrapping_add(index as u64));
        Ok(Writer { shared, index, dice, file, direct, mapping, aligned: Aligned::new(PAGE) })
    }

    /// How often it changed something.
    fn work(&mut self, operations: u32) -> Result<u64> {
        let mut changes = 0;
        for number in 0..operations {
            if self.shared.failed.load(Ordering::Relaxed) {
                break;
            }
            let changed = self.operation().with_context(|| format!("operation {number}"))?;
            changes += u64::from(changed);
        }
        Ok(changes)
    }

    fn operation(&mut self) -> Result<bool> {
        let cell = self.below(self.shared.changes.len());
        let page = cell / CELLS_OF_PAGE;
        if self.shared.owner(cell) != self.index || self.dice.once_in(4) {
            if self.shared.direct && self.dice.once_in(8) {
                self.look_at_page(page)?
            } else {
                self.look_at(cell)?
            }
            return Ok(false);
        }
        if self.shared.direct && self.shared.owner_of_page(page).is_some() && self.dice.once_in(2) {
            self.change_page(page)?;
        } else {
            self.change(cell)?;
        }
        Ok(true)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).expect("below a usize")
    }

    fn stamp(&self, count: u64) -> u64 {
        (self.index as u64 + 1) << 48 | count
    }

    fn change(&mut self, cell: usize) -> Result<()> {
        let changes = &self.shared.changes[cell];
        let count = changes.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let stamp = self.stamp(count);
        if !self.shared.stores || self.dice.once_in(2) {
            self.file
                .write_all_at(&stamp.to_le_bytes().repeat(CELL / WORD), (cell * CELL) as u64)?;
        } else {
            for word in 0..CELL / WORD {
                self.mapping.word(cell * CELL + word * WORD).store(stamp.to_le(), Ordering::SeqCst);
            }
            if self.dice.once_in(16) {
                self.mapping.sync(cell * CELL, CELL)?;
            }
        }
        changes.done.store(count, Ordering::SeqCst);
        Ok(())
    }

    fn change_page(&mut self, page: usize) -> Result<()> {
        let cells = page * CELLS_OF_PAGE..(page + 1) * CELLS_OF_PAGE;
        let changes = &self.shared.changes[cells];
        let counts: Vec<u64> =
            changes.iter().map(|c| c.begun.fetch_add(1, Ordering::SeqCst) + 1).collect();
        let stamps: Vec<u64> = counts.iter().map(|count| self.stamp(*count)).collect();
        let bytes = self.aligned.get(PAGE);
        for (cell, stamp) in bytes.chunks_exact_mut(CELL).zip(stamps) {
            cell.copy_from_slice(&stamp.to_le_bytes().repeat(CELL / WORD));
        }
        self.direct.write_all_at(bytes, (page * PAGE) as u64)?;
        for (changes, count) in changes.iter().zip(counts) {
            changes.done.store(count, Ordering::SeqCst);
        }
        Ok(())
    }

    fn look_at(&mut self, cell: usize) -> Result<()> {
        let floors = self.floors(cell);
        let mut words = [0; CELL / WORD];
        let how = if !self.shared.loads || self.dice.once_in(2) {
            let mut bytes = [0; CELL];
            self.file.read_exact_at(&mut bytes, (cell * CELL) as u64)?;
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(WORD)) {
                *word = u64::from_le_bytes(bytes.try_into()?);
            }
            "read"
        } else {
            for (index, word) in words.iter_mut().enumerate() {
                let at = cell * CELL + index * WORD;
                *word = u64::from_le(self.mapping.word(at).load(Ordering::SeqCst));
            }
            "loaded"
        };
        self.judge(cell, &words, &floors, how)
    }

    fn look_at_page(&mut self, page: usize) -> Result<()> {
        let cells = page * CELLS_OF_PAGE..(page + 1) * CELLS_OF_PAGE;
        let floors: Vec<Floors> = cells.clone().map(|cell| self.floors(cell)).collect();
        let bytes = self.aligned.get(PAGE);
        self.direct.read_exact_at(bytes, (page * PAGE) as u64)?;
        let bytes = bytes.to_vec();
        for ((cell, floor), bytes) in cells.zip(floors).zip(bytes.chunks_exact(CELL)) {
            let words =
                bytes.chunks_exact(WORD).map(|word| Ok(u64::from_le_bytes(word.try_into()?)));
            let words: Result<Vec<u64>> = words.collect();
            self.judge(cell, &words?, &floor, "read with O_DIRECT")?;
        }
        Ok(())
    }

    /// What of each word has to be there for whoever begins to look now.
    fn floors(&self, cell: usize) -> Floors {
        let done = self.shared.changes[cell].done.load(Ordering::SeqCst);
        let seen = &self.shared.seen[cell * CELL / WORD..(cell + 1) * CELL / WORD];
        std::array::from_fn(|word| done.max(seen[word].load(Ordering::SeqCst)))
    }

    fn judge(&self, cell: usize, words: &[u64], floors: &Floors, how: &str) -> Result<()> {
        let ceiling = self.shared.changes[cell].begun.load(Ordering::SeqCst);
        let owner = self.shared.owner(cell);
        for (index, word) in words.iter().enumerate() {
            let (by, count) = (word >> 48, word & ((1 << 48) - 1));
            let is_nobodys = *word == 0;
            let floor = floors[index];
            let at = cell * CELL + index * WORD;
            ensure!(
                is_nobodys || by == owner as u64 + 1,
                "{how} at {at:#x}: {word:#x}, which is not of writer {}",
                owner + 1
            );
            ensure!(
                floor <= count && count <= ceiling,
                "{how} at {at:#x}: change {count} of writer {}, when {floor} was done or seen, \
                 {ceiling} begun",
                owner + 1
            );
            let seen = &self.shared.seen[cell * CELL / WORD + index];
            seen.fetch_max(count, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_one_owner_and_some_pages_have_one_whole() {
        let changes = (0..16 * CELLS_OF_PAGE).map(|_| Changes::default()).collect();
        let (loads, stores, direct) = (true, true, true);
        let failed = AtomicBool::new(false);
        let seen = Vec::new();
        let shared = Shared { loads, stores, direct, owners: 3, changes, seen, failed };
        assert_eq!([3, 7, 11, 15].map(|page| shared.owner_of_page(page)), [0, 1, 2, 0].map(Some));
        let of_page = |page: usize| {
            let cells = page * CELLS_OF_PAGE..(page + 1) * CELLS_OF_PAGE;
            cells.map(|cell| shared.owner(cell)).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!([0, 1, 2, 3].map(of_page), [3, 3, 3, 1]);
    }
}
