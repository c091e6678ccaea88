//! What it costs to be sure.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::Result;

use super::{arbiter, timed};
use crate::floors::raw_device::{BLOCK, blocks};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{Place, Stage};

/// Blocks of the file that is overwritten.
const BLOCKS: usize = 256;

pub(super) fn measure(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    for place in stage.places(run) {
        // In memory nothing can be made durable.
        if place.side != Side::Floor(Floor::MemoryFuse) {
            file_system(stage, &place, run, samples)?;
        }
    }
    let block = blocks(BLOCK);
    let count = stage.scale.fsyncs;
    let (took, ()) = timed(|| {
        (0..count).try_for_each(|number| {
            stage.raw.write(number % BLOCKS, &block)?;
            stage.raw.flush()
        })
    })?;
    for name in ["fsync", "fsync_append", "fsync_create"] {
        samples.add_time(name, Side::Floor(Floor::RawDevice), took, count);
    }
    Ok(())
}

fn file_system(stage: &Stage, place: &Place, run: usize, samples: &mut Samples) -> Result<()> {
    let count = stage.scale.fsyncs;
    let dir = place.root.join(format!("sync{run}"));
    fs::create_dir(&dir)?;
    let block = vec![1; BLOCK];
    let at = |number: usize| (number * BLOCK) as u64;

    let arbiter = arbiter::connect(stage)?;
    let writes = || match place.side {
        Side::Ours => arbiter::device_writes(&arbiter),
        Side::Floor(_) => Ok(0),
    };
    let file = File::create_new(dir.join("overwritten"))?;
    file.write_all_at(&vec![0; BLOCKS * BLOCK], 0)?;
    file.sync_all()?;
    let before = writes()?;
    let (took, ()) = timed(|| {
        for number in 0..count {
            file.write_all_at(&block, at(number % BLOCKS))?;
            file.sync_all()?;
        }
        Ok(())
    })?;
    samples.add_time("fsync", place.side, took, count);
    let after = writes()?;
    if place.side == Side::Ours {
        samples.add_count("fsync_writes", place.side, after - before, count);
    }

    let file = File::create_new(dir.join("appended"))?;
    let before = writes()?;
    let (took, ()) = timed(|| {
        for number in 0..count {
            file.write_all_at(&block, at(number))?;
            file.sync_all()?;
        }
        Ok(())
    })?;
    samples.add_time("fsync_append", place.side, took, count);
    let after = writes()?;
    if place.side == Side::Ours {
        samples.add_count("fsync_append_writes", place.side, after - before, count);
    }
    drop(file);

    let directory = File::open(&dir)?;
    let (took, ()) = timed(|| {
        for number in 0..count {
            File::create_new(dir.join(format!("made{number}")))?;
            directory.sync_all()?;
        }
        Ok(())
    })?;
    samples.add_time("fsync_create", place.side, took, count);
    fs::remove_dir_all(&dir)?;
    Ok(())
}
