//! From one node to another: how long until what one has done is seen by the next.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{arbiter, timed};
use crate::floors::raw_device::{BLOCK, blocks};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{NODE, OTHER, Stage};

pub(super) fn measure(stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let name = format!("handed-over{run}");
    let [here, there] = [NODE, OTHER].map(|node| stage.cluster.mount(node).join(&name));
    fs::create_dir(&here)?;
    let count = stage.scale.hand_overs;
    let arbiter = arbiter::connect(stage)?;
    let before = arbiter::device_writes(&arbiter)?;
    written_and_read(&here, &there, count, samples)?;
    let writes = arbiter::device_writes(&arbiter)? - before;
    samples.add_count("read_after_write_writes", Side::Ours, writes, count);
    written_by_turns(&here, &there, count, samples)?;
    created_and_seen(&here, &there, count, samples)?;
    fs::remove_dir_all(&here)?;
    floors(stage, samples)
}

fn written_and_read(here: &Path, there: &Path, count: usize, samples: &mut Samples) -> Result<()> {
    let writer = File::create_new(here.join("file"))?;
    writer.write_all_at(&[0; BLOCK], 0)?;
    let reader = File::open(there.join("file"))?;
    let (mut reads, mut writes) = (Duration::ZERO, Duration::ZERO);
    let mut seen = vec![0; BLOCK];
    reader.read_exact_at(&mut seen, 0)?;
    for number in 0..count {
        let block = vec![mark(number); BLOCK];
        writes += timed(|| Ok(writer.write_all_at(&block, 0)?))?.0;
        reads += timed(|| Ok(reader.read_exact_at(&mut seen, 0)?))?.0;
        ensure!(seen == block, "the other node reads what was there before");
    }
    samples.add_time("read_after_write", Side::Ours, reads, count);
    samples.add_time("write_after_read", Side::Ours, writes, count);
    Ok(())
}

fn written_by_turns(here: &Path, there: &Path, count: usize, samples: &mut Samples) -> Result<()> {
    let first = File::create_new(here.join("shared"))?;
    first.write_all_at(&[0; BLOCK], 0)?;
    let second = File::options().write(true).open(there.join("shared"))?;
    let (took, ()) = timed(|| {
        for number in 0..count {
            first.write_all_at(&[mark(number); BLOCK], 0)?;
            second.write_all_at(&[mark(number); BLOCK], 0)?;
        }
        Ok(())
    })?;
    samples.add_time("write_after_write", Side::Ours, took, 2 * count);
    Ok(())
}

fn created_and_seen(here: &Path, there: &Path, count: usize, samples: &mut Samples) -> Result<()> {
    let mut stats = Duration::ZERO;
    for number in 0..count {
        let name = format!("new{number}");
        File::create_new(here.join(&name))?;
        let path = there.join(&name);
        stats += timed(|| Ok(fs::symlink_metadata(&path)?))?.0;
    }
    samples.add_time("stat_after_create", Side::Ours, stats, count);
    Ok(())
}

fn floors(stage: &mut Stage, samples: &mut Samples) -> Result<()> {
    let pings = stage.scale.pings;
    let (took, ()) = timed(|| (0..pings).try_for_each(|_| stage.partner.ping()))?;
    let names = ["read_after_write", "write_after_read", "write_after_write", "stat_after_create"];
    for name in names {
        samples.add_time(name, Side::Floor(Floor::PingPong), took, pings);
    }
    let block = blocks(BLOCK);
    let count = stage.scale.hand_overs;
    let (took, ()) = timed(|| {
        (0..count).try_for_each(|number| {
            stage.raw.write(number % 256, &block)?;
            stage.raw.flush()
        })
    })?;
    for name in ["read_after_write", "write_after_write", "stat_after_create"] {
        samples.add_time(name, Side::Floor(Floor::RawDevice), took, count);
    }
    Ok(())
}

/// What is written; another one than before, never 0.
fn mark(number: usize) -> u8 {
    u8::try_from(number % 255).expect("below 255") + 1
}
