//! A file that one node makes longer while readers on all of them follow: whatever a write has left
//! when it returns, a read that begins then reaches, through the cache and with the file going from
//! node to node all the time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};

use crate::dice::Dice;

/// Longest of the writes, and how far back a reader begins.
const LONGEST: u64 = 9000;
/// Of a read: more than there ever is to be read.
const ROOM: usize = 64 << 10;

struct Growing {
    /// What the writes that have returned have left.
    end: AtomicU64,
    is_over: AtomicBool,
}

/// A writer on the first path, a reader on each.
///
/// # Errors
/// With the first read that ends too early, or shows what was not written there.
pub(super) fn run(writes: u32, dirs: &[PathBuf], dice: &mut Dice) -> Result<String> {
    let name = format!("follows-{:x}", dice.number());
    let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(&name)).collect();
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&paths[0])?;
    let growing = Growing { end: AtomicU64::new(0), is_over: AtomicBool::new(false) };
    let reads = thread::scope(|scope| {
        let mut readers = Vec::new();
        for path in &paths {
            let (growing, dice) = (&growing, Dice::new(dice.number()));
            readers.push(scope.spawn(move || follow(path, growing, dice)));
        }
        let written = grow(&file, writes, &growing, dice);
        growing.is_over.store(true, Ordering::SeqCst);
        let mut reads = 0;
        for (number, reader) in readers.into_iter().enumerate() {
            let Ok(read) = reader.join() else { bail!("a thread panicked") };
            reads += read.with_context(|| format!("mount {}", number + 1))?;
        }
        written.map(|()| reads)
    })?;
    Ok(format!("{writes} writes, {reads} reads"))
}

fn byte_at(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 13).to_le_bytes()[0] | 1
}

fn grow(file: &File, writes: u32, growing: &Growing, dice: &mut Dice) -> Result<()> {
    for _ in 0..writes {
        let start = growing.end.load(Ordering::SeqCst);
        let end = start + 1 + dice.below(LONGEST);
        let bytes: Vec<u8> = (start..end).map(byte_at).collect();
        file.write_all_at(&bytes, start)?;
        growing.end.store(end, Ordering::SeqCst);
    }
    Ok(())
}

fn follow(path: &Path, growing: &Growing, mut dice: Dice) -> Result<u32> {
    let file = File::open(path)?;
    let mut bytes = vec![0; ROOM];
    let (mut reads, mut seen) = (0, 0);
    loop {
        let is_over = growing.is_over.load(Ordering::SeqCst);
        let least = growing.end.load(Ordering::SeqCst);
        let start = u64::saturating_sub(seen, dice.below(LONGEST));
        let len = file.read_at(&mut bytes, start)?;
        reads += 1;
        let end = start + len as u64;
        let due = least.min(start + ROOM as u64);
        ensure!(end >= due, "read {reads}, from {start}, ends at {end}; {least} bytes were there");
        for (offset, found) in (start..end).zip(&bytes) {
            ensure!(*found == byte_at(offset), "read {reads}: {found:#x} at {offset}");
        }
        seen = end;
        if is_over && end == least {
            return Ok(reads);
        }
    }
}
