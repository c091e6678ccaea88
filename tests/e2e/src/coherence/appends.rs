//! Appends of many to one file: each is there whole, once, in the order in which its writer made
//! them, and nothing else is.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::SeekFrom;

use crate::dice::Dice;

/// Of a record: who wrote it, as its how manieth, and how long it is.
const HEADER: usize = 12;
const LONGEST: u64 = 9000;

/// A writer on each path.
///
/// # Errors
/// With the first append that is not as it was made.
pub(super) fn run(count: u32, dirs: &[PathBuf], dice: &mut Dice) -> Result<String> {
    let name = format!("appends-{:x}", dice.number());
    let paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(&name)).collect();
    File::create_new(&paths[0])?;
    let moved = thread::scope(|scope| {
        let mut running = Vec::new();
        for (who, path) in (0..).zip(&paths) {
            let dice = Dice::new(dice.number());
            running.push(scope.spawn(move || append(who, path.clone(), count, dice)));
        }
        let mut moved = 0;
        for (who, one) in running.into_iter().enumerate() {
            let one = one.join().expect("no writer panics");
            moved += one.with_context(|| format!("writer {who}"))?;
        }
        anyhow::Ok(moved)
    })?;
    offsets_in_turn(&paths).context("in turn")?;
    let mut bytes = 0;
    for path in &paths {
        let content = fs::read(path)?;
        check(&content, count, paths.len()).with_context(|| path.display().to_string())?;
        bytes = content.len();
    }
    let all = count as usize * paths.len();
    Ok(format!("{all} appends, {bytes} bytes, {moved} offsets of other nodes' ends"))
}

/// The kernel counts the offset from the end that it knows: it is right behind a look at the size.
fn offsets_in_turn(paths: &[PathBuf]) -> Result<()> {
    let path = paths[0].with_extension("turns");
    File::create_new(&path)?;
    let name = path.file_name().context("a name")?;
    let mut end = 0;
    for round in 0..5 * paths.len() {
        let path = paths[round % paths.len()].with_file_name(name);
        let mut file = OpenOptions::new().append(true).open(path)?;
        for _ in 0..2 {
            file.metadata()?;
            file.write_all(&vec![b't'; round + 1])?;
            end += round as u64 + 1;
            let found = rustix::fs::seek(&file, SeekFrom::Current(0))?;
            ensure!(found == end, "round {round}: the offset is {found} behind an append to {end}");
        }
    }
    Ok(())
}

fn record(who: u32, number: u32, len: usize) -> Vec<u8> {
    let fill = number.wrapping_mul(7).wrapping_add(who).to_le_bytes()[0];
    let mut bytes = vec![fill; len];
    let words = [who, number, u32::try_from(len).unwrap_or(u32::MAX)];
    for (at, word) in bytes.chunks_exact_mut(4).zip(words) {
        at.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn append(who: u32, path: PathBuf, count: u32, mut dice: Dice) -> Result<u32> {
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    let mut moved = 0;
    for number in 0..count {
        let len = HEADER + usize::try_from(dice.below(LONGEST))?;
        let written = record(who, number, len);
        let done = file.write(&written)?;
        ensure!(done == len, "{done} of {len} bytes appended");
        let end = rustix::fs::seek(&file, SeekFrom::Current(0))?;
        let mut found = vec![0; len];
        let start = end.saturating_sub(len as u64);
        let read = file.read_exact_at(&mut found, start);
        moved += u32::from(read.is_err() || found != written);
    }
    Ok(moved)
}

fn check(content: &[u8], count: u32, writers: usize) -> Result<()> {
    let mut next = vec![0; writers];
    let mut rest = content;
    while !rest.is_empty() {
        let at = content.len() - rest.len();
        ensure!(rest.len() >= HEADER, "torn at {at}");
        let word = |number: usize| {
            let bytes = rest[number * 4..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let (who, number, len) = (word(0), word(1), usize::try_from(word(2))?);
        let due = next.get_mut(who as usize).with_context(|| format!("no record at {at}"))?;
        ensure!(number == *due, "record {number} of writer {who} at {at}, {due} was due");
        *due += 1;
        let found = rest.get(..len).with_context(|| format!("torn at {at}"))?;
        ensure!(found == record(who, number, len), "torn at {at}");
        rest = &rest[len..];
    }
    ensure!(next.iter().all(|due| *due == count), "of {count} each are there: {next:?}");
    Ok(())
}
