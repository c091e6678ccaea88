//! The operations, chosen, carried out and checked one after another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use rustix::io::Errno;

use super::kind::Kind;
use super::model::{Model, pattern};
use super::node::Node;
use crate::aligned::Aligned;
use crate::dice::Dice;
use crate::mapping::Mapping;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub operations: u32,
    /// Bytes that the file may have at most.
    pub length: usize,
    pub kinds: BTreeSet<Kind>,
    /// fstat(2) before every use of a mapping and every copy: the kernel learns how long the file is.
    pub size_first: bool,
    pub log: PathBuf,
    /// The file, as each node has it.
    pub paths: Vec<PathBuf>,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub by_kind: BTreeMap<Kind, u32>,
    /// How often all nodes were asked for all of it.
    pub compared: u32,
}

/// After so many operations every node is asked for the whole file.
const COMPARE_EVERY: u32 = 500;

/// Bytes of an operation, at most.
const OPERATION_MAX: u64 = 64 << 10;

const PAGE: u64 = 4096;

/// Makes the file, or empties it, and works on it.
///
/// # Errors
/// With the operation that failed or returned something else than it must have.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let first = plan.paths.first().context("no path")?;
    File::create(first).with_context(|| first.display().to_string())?;
    let is_direct = |kind: &Kind| matches!(kind, Kind::DirectRead | Kind::DirectWrite);
    let direct = plan.kinds.iter().any(is_direct);
    let open = |path: &PathBuf| Node::open(path, plan.length, direct);
    let nodes: io::Result<Vec<Node>> = plan.paths.iter().map(open).collect();
    let mut running = Running {
        plan,
        dice: Dice::new(plan.seed),
        nodes: nodes?,
        model: Model::empty(),
        aligned: Aligned::new(usize::try_from(OPERATION_MAX)?),
        log: fs::File::create(&plan.log).with_context(|| plan.log.display().to_string())?,
        outcome: Outcome { by_kind: BTreeMap::new(), compared: 0 },
    };
    for number in 1..=plan.operations {
        if let Err(error) = running.operation(number) {
            let elsewhere = running.everywhere();
            let of = |paths: usize| if paths == 1 { "one node" } else { "several nodes" };
            return Err(error.context(format!(
                "seed {}, operation {number}, {}; the whole file now: {elsewhere}",
                plan.seed,
                of(plan.paths.len()),
            )));
        }
    }
    running.compare()?;
    Ok(running.outcome)
}

struct Running<'a> {
    plan: &'a Plan,
    dice: Dice,
    nodes: Vec<Node>,
    model: Model,
    aligned: Aligned,
    log: File,
    outcome: Outcome,
}

/// A range of the file.
#[derive(Clone, Copy)]
struct Range {
    at: usize,
    len: usize,
}

impl Range {
    fn end(self) -> usize {
        self.at + self.len
    }
}

impl Running<'_> {
    fn operation(&mut self, number: u32) -> Result<()> {
        let kind = self.choose();
        let index = usize::try_from(self.dice.below(self.nodes.len() as u64))?;
        *self.outcome.by_kind.entry(kind).or_default() += 1;
        self.act(number, kind, index).with_context(|| format!("{kind} on node {}", index + 1))?;
        if self.dice.once_in(4) {
            let index = usize::try_from(self.dice.below(self.nodes.len() as u64))?;
            self.check_size(index)?;
        }
        if number.is_multiple_of(COMPARE_EVERY) {
            self.compare()?;
        }
        Ok(())
    }

    fn choose(&mut self) -> Kind {
        let total: u64 = self.plan.kinds.iter().map(|kind| kind.weight()).sum();
        let mut left = self.dice.below(total);
        for kind in &self.plan.kinds {
            match left.checked_sub(kind.weight()) {
                None => return *kind,
                Some(less) => left = less,
            }
        }
        unreachable!("a number below the sum of the weights is in one of them")
    }

    fn act(&mut self, number: u32, kind: Kind, index: usize) -> Result<()> {
        match kind {
            Kind::Read => self.read(number, index),
            Kind::Write => self.write(number, index),
            Kind::Append => self.append(number, index),
            Kind::Truncate => self.truncate(number, index),
            Kind::MapRead => self.map_read(number, index),
            Kind::MapWrite => self.map_write(number, index),
            Kind::DirectRead => self.direct_read(number, index),
            Kind::DirectWrite => self.direct_write(number, index),
            Kind::Sync => self.sync(number, index),
            Kind::Stat => {
                self.note(number, kind, index, "")?;
                self.check_size(index)
            }
            Kind::Reopen => {
                self.note(number, kind, index, "")?;
                Ok(self.nodes[index].reopen()?)
            }
            Kind::Allocate => self.allocate(number, index),
            Kind::Punch => self.punch(number, index),
            Kind::Zero => self.zero(number, index),
            Kind::Copy => self.copy(number, index),
            Kind::Seek => self.seek(number, index),
        }
    }

    /// One write(2), so that it is there whatever becomes of this process.
    fn note(&mut self, number: u32, kind: Kind, index: usize, what: &str) -> Result<()> {
        let line = format!("{number} node {} {kind} {what}\n", index + 1);
        Ok(self.log.write_all(line.as_bytes())?)
    }

    fn note_range(&mut self, number: u32, kind: Kind, index: usize, range: Range) -> Result<()> {
        let Range { at, len } = range;
        let size = self.model.size();
        self.note(number, kind, index, &format!("{at:#x}+{len:#x} of {size:#x}"))
    }

    /// Small and large ones, some that begin and end with pages; inside the first `end` bytes.
    fn range(&mut self, end: usize) -> Range {
        let end = end as u64;
        let mut at = self.dice.below(end.max(1));
        let max = if self.dice.once_in(2) { PAGE } else { OPERATION_MAX };
        let mut len = 1 + self.dice.below(max);
        if self.dice.once_in(4) {
            at -= at % PAGE;
            len = len.next_multiple_of(PAGE);
        }
        let len = len.min(end - at.min(end));
        let narrow = |n: u64| usize::try_from(n).expect("inside the file");
        Range { at: narrow(at), len: narrow(len) }
    }

    fn expect(&self, range: Range, found: &[u8]) -> Result<()> {
        match self.model.difference(range.at, range.len, found) {
            None => Ok(()),
            Some(difference) => bail!("{difference}"),
        }
    }

    fn check_size(&self, index: usize) -> Result<()> {
        let size = self.nodes[index].file.metadata()?.len();
        let expected = self.model.size() as u64;
        ensure!(size == expected, "size {size:#x} on node {}, expected {expected:#x}", index + 1);
        Ok(())
    }

    fn compare(&mut self) -> Result<()> {
        self.outcome.compared += 1;
        for index in 0..self.nodes.len() {
            self.compare_on(index)?;
        }
        Ok(())
    }

    fn compare_on(&self, index: usize) -> Result<()> {
        let range = Range { at: 0, len: self.plan.length };
        let on = || format!("comparing on node {}", index + 1);
        let mut found = vec![0; self.plan.length + 1];
        let count = read_at(&self.nodes[index].file, &mut found, 0).with_context(on)?;
        self.expect(range, &found[..count]).with_context(on)?;
        let mut mapped = vec![0; self.model.size()];
        if self.plan.size_first {
            self.check_size(index)?;
        }
        self.nodes[index].mapping.load(0, &mut mapped);
        self.expect(range, &mapped).context("through the mapping").with_context(on)
    }

    /// What is wrong with the file on each node, to be told with an error. Not by mappings: the
    /// size may be what is wrong.
    fn everywhere(&self) -> String {
        let on = |(index, node): (usize, &Node)| {
            let mut found = vec![0; self.plan.length + 1];
            let what = match read_at(&node.file, &mut found, 0) {
                Err(error) => error.to_string(),
                Ok(count) => {
                    let difference = self.model.difference(0, self.plan.length, &found[..count]);
                    difference.unwrap_or_else(|| "right".to_owned())
                }
            };
            format!("node {}: {what}", index + 1)
        };
        self.nodes.iter().enumerate().map(on).collect::<Vec<_>>().join("; ")
    }

    fn read(&mut self, number: u32, index: usize) -> Result<()> {
        // Some beyond the end.
        let range = self.range(self.plan.length);
        self.note_range(number, Kind::Read, index, range)?;
        let mut found = vec![0; range.len];
        let count = self.nodes[index].file.read_at(&mut found, range.at as u64)?;
        self.expect(range, &found[..count])
    }

    fn write(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.plan.length);
        self.note_range(number, Kind::Write, index, range)?;
        let bytes = pattern(number, range.at, range.len);
        let count = self.nodes[index].file.write_at(&bytes, range.at as u64)?;
        ensure!(count == range.len, "{count} of {} bytes were written", range.len);
        self.model.write(number, range.at, &bytes);
        Ok(())
    }

    fn append(&mut self, number: u32, index: usize) -> Result<()> {
        let (at, max) = (self.model.size(), OPERATION_MAX.min(PAGE * 2));
        let len = usize::try_from(1 + self.dice.below(max))?.min(self.plan.length - at);
        let range = Range { at, len };
        self.note_range(number, Kind::Append, index, range)?;
        let bytes = pattern(number, at, len);
        let count = io::Write::write(&mut &self.nodes[index].append, &bytes)?;
        ensure!(count == len, "{count} of {len} bytes were written");
        self.model.write(number, at, &bytes);
        Ok(())
    }

    fn truncate(&mut self, number: u32, index: usize) -> Result<()> {
        let size = match self.dice.below(8) {
            0 => 0,
            // Near to where it ends.
            1..=3 => (self.model.size() as u64 + self.dice.below(PAGE)).saturating_sub(PAGE / 2),
            _ => self.dice.below(self.plan.length as u64 + 1),
        };
        let size = usize::try_from(size)?.min(self.plan.length);
        let what = format!("to {size:#x} from {:#x}", self.model.size());
        self.note(number, Kind::Truncate, index, &what)?;
        self.nodes[index].file.set_len(size as u64)?;
        self.model.resize(size);
        Ok(())
    }

    /// Runs with the mapping that is kept, or with one made for this.
    fn mapped(&mut self, index: usize, act: impl FnOnce(&Mapping) -> Result<()>) -> Result<()> {
        if self.plan.size_first {
            self.check_size(index)?;
        }
        let node = &self.nodes[index];
        if self.dice.once_in(4) {
            act(&Mapping::new(&node.file, self.plan.length)?)
        } else {
            act(&node.mapping)
        }
    }

    fn map_read(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.model.size());
        self.note_range(number, Kind::MapRead, index, range)?;
        let mut found = vec![0; range.len];
        self.mapped(index, |mapping| {
            mapping.load(range.at, &mut found);
            Ok(())
        })?;
        self.expect(range, &found)
    }

    fn map_write(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.model.size());
        self.note_range(number, Kind::MapWrite, index, range)?;
        if range.len == 0 {
            return Ok(());
        }
        let bytes = pattern(number, range.at, range.len);
        let syncs = self.dice.once_in(4);
        self.mapped(index, |mapping| {
            mapping.store(range.at, &bytes);
            if syncs { Ok(mapping.sync(range.at, range.len)?) } else { Ok(()) }
        })?;
        self.model.write(number, range.at, &bytes);
        Ok(())
    }

    /// As O_DIRECT wants it.
    fn direct_range(&mut self) -> Range {
        let unit = Aligned::UNIT;
        let Range { at, len } = self.range(self.plan.length);
        let at = at - at % unit;
        let max = (self.plan.length - at) / unit * unit;
        let narrow = usize::try_from(OPERATION_MAX).expect("64 KiB");
        Range { at, len: len.next_multiple_of(unit).min(max).min(narrow) }
    }

    fn direct_read(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.direct_range();
        self.note_range(number, Kind::DirectRead, index, range)?;
        let file = self.nodes[index].direct.as_ref().context("opened with O_DIRECT")?;
        let found = self.aligned.get(range.len);
        let count = file.read_at(found, range.at as u64)?;
        let found = found[..count].to_vec();
        self.expect(range, &found)
    }

    fn direct_write(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.direct_range();
        self.note_range(number, Kind::DirectWrite, index, range)?;
        let bytes = pattern(number, range.at, range.len);
        let file = self.nodes[index].direct.as_ref().context("opened with O_DIRECT")?;
        let from = self.aligned.get(range.len);
        from.copy_from_slice(&bytes);
        let count = file.write_at(from, range.at as u64)?;
        ensure!(count == range.len, "{count} of {} bytes were written", range.len);
        self.model.write(number, range.at, &bytes);
        Ok(())
    }

    fn sync(&mut self, number: u32, index: usize) -> Result<()> {
        let data_only = self.dice.once_in(2);
        self.note(number, Kind::Sync, index, if data_only { "of data" } else { "" })?;
        let file = &self.nodes[index].file;
        let synced = if data_only { file.sync_data() } else { file.sync_all() };
        Ok(synced?)
    }

    fn allocate(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.plan.length);
        let keeps = self.dice.once_in(2);
        self.note_range(number, Kind::Allocate, index, range)?;
        let flags = if keeps { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        fallocate(&self.nodes[index].file, flags, range.at as u64, range.len as u64)?;
        if !keeps && range.end() > self.model.size() {
            self.model.resize(range.end());
        }
        Ok(())
    }

    fn punch(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.plan.length);
        self.note_range(number, Kind::Punch, index, range)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.nodes[index].file, flags, range.at as u64, range.len as u64)?;
        self.model.zero(number, range.at, range.len);
        Ok(())
    }

    fn zero(&mut self, number: u32, index: usize) -> Result<()> {
        let range = self.range(self.plan.length);
        let keeps = self.dice.once_in(2);
        self.note_range(number, Kind::Zero, index, range)?;
        let keep = if keeps { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        let flags = FallocateFlags::ZERO_RANGE | keep;
        fallocate(&self.nodes[index].file, flags, range.at as u64, range.len as u64)?;
        if !keeps && range.end() > self.model.size() {
            self.model.resize(range.end());
        }
        self.model.zero(number, range.at, range.len);
        Ok(())
    }

    fn copy(&mut self, number: u32, index: usize) -> Result<()> {
        let from = self.range(self.model.size());
        let room = self.plan.length - from.len;
        let to = usize::try_from(self.dice.below(room as u64 + 1))?;
        let what = format!("{:#x}+{:#x} to {to:#x} of {:#x}", from.at, from.len, self.model.size());
        self.note(number, Kind::Copy, index, &what)?;
        // A range onto itself is refused.
        if from.len == 0 || (to < from.end() && from.at < to + from.len) {
            return Ok(());
        }
        if self.plan.size_first {
            self.check_size(index)?;
        }
        let file = &self.nodes[index].file;
        let (mut source, mut target) = (from.at as u64, to as u64);
        let mut left = from.len;
        while left > 0 {
            let count = copy_file_range(file, Some(&mut source), file, Some(&mut target), left)?;
            ensure!(count > 0, "{left} of {} bytes were not copied", from.len);
            left -= count;
        }
        let bytes = self.model.range(from.at, from.len).to_vec();
        self.model.write(number, to, &bytes);
        Ok(())
    }

    fn seek(&mut self, number: u32, index: usize) -> Result<()> {
        let at = usize::try_from(self.dice.below(self.plan.length as u64))?;
        let for_data = self.dice.once_in(2);
        let what = if for_data { "data" } else { "a hole" };
        let size = self.model.size();
        self.note(number, Kind::Seek, index, &format!("{what} from {at:#x} of {size:#x}"))?;
        let from = if for_data { SeekFrom::Data(at as u64) } else { SeekFrom::Hole(at as u64) };
        let found = match seek(&self.nodes[index].file, from) {
            Ok(found) => Some(usize::try_from(found)?),
            Err(Errno::NXIO) => None,
            Err(errno) => return Err(errno.into()),
        };
        let is_zero = |range: &[u8]| range.iter().all(|byte| *byte == 0);
        match found {
            None if at >= size => Ok(()),
            None => {
                ensure!(for_data && is_zero(&self.model.bytes()[at..]), "there is some");
                Ok(())
            }
            Some(found) => {
                ensure!(at <= found && found <= size, "found at {found:#x} of {size:#x}");
                let skipped = if for_data { at..found } else { found..(found + 1).min(size) };
                let is_hole = is_zero(&self.model.bytes()[skipped]);
                ensure!(is_hole, "found at {found:#x}, where a hole would be are data");
                Ok(())
            }
        }
    }
}

/// As much as there is.
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < bytes.len() {
        match file.read_at(&mut bytes[count..], at + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}
