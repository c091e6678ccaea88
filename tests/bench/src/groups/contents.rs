//! Contents of files: sequential and at random places, written through and read where nothing is
//! cached.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::{shuffled, timed};
use crate::floors::raw_device::{BLOCK, blocks};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{OTHER, Place, Stage};

/// Of one sequential request.
const PIECE: usize = 1 << 20;

pub(super) fn measure(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let places = stage.places(run);
    for (index, place) in places.iter().enumerate() {
        sequential(stage, place, run, samples)?;
        random(stage, place, run, samples)?;
        if index == run % places.len() {
            raw(stage, run, samples)?;
        }
    }
    Ok(())
}

fn sequential(stage: &Stage, place: &Place, run: usize, samples: &mut Samples) -> Result<()> {
    let bytes = stage.scale.file_bytes;
    let name = format!("sequential{run}");
    let written = vec![mark(run); PIECE];
    let (took, ()) = timed(|| {
        let file = File::create_new(place.root.join(&name))?;
        for at in (0..bytes).step_by(PIECE) {
            file.write_all_at(&written, at as u64)?;
        }
        Ok(file.sync_all()?)
    })?;
    samples.add("write_sequential", place.side, throughput(bytes, took));

    let file = cold(place, &name, Advice::Sequential)?;
    let mut read = vec![0; PIECE];
    let (took, ()) = timed(|| {
        for at in (0..bytes).step_by(PIECE) {
            file.read_exact_at(&mut read, at as u64)?;
        }
        Ok(())
    })?;
    ensure!(read == written, "{name}: what is read is not what was written");
    samples.add("read_sequential", place.side, throughput(bytes, took));
    fs::remove_file(place.root.join(&name))?;
    Ok(())
}

fn random(stage: &Stage, place: &Place, run: usize, samples: &mut Samples) -> Result<()> {
    let name = format!("random{run}");
    let order = accesses(stage, run);
    let file = File::create_new(place.root.join(&name))?;
    for at in (0..stage.scale.file_bytes).step_by(PIECE) {
        file.write_all_at(&vec![0; PIECE], at as u64)?;
    }
    file.sync_all()?;
    let written = vec![mark(run); BLOCK];
    let (took, ()) = timed(|| {
        for block in &order {
            file.write_all_at(&written, offset(*block))?;
        }
        Ok(file.sync_all()?)
    })?;
    drop(file);
    samples.add_time("write_random", place.side, took, order.len());

    let file = cold(place, &name, Advice::Random)?;
    let read_all = || {
        let mut read = vec![0; BLOCK];
        for block in &order {
            file.read_exact_at(&mut read, offset(*block))?;
            ensure!(read == written, "{name}: what is read is not what was written");
        }
        Ok(())
    };
    let (took, ()) = timed(read_all)?;
    samples.add_time("read_random", place.side, took, order.len());
    let counted = || match place.side {
        Side::Ours => stage.usage(OTHER).map(|usage| usage.requests),
        Side::Floor(_) => Ok(0),
    };
    let before = counted()?;
    let (took, ()) = timed(read_all)?;
    samples.add_time("read_random_cached", place.side, took, order.len());
    if place.side == Side::Ours {
        let requests = counted()? - before;
        samples.add_count("read_random_cached_requests", place.side, requests, order.len());
    }
    fs::remove_file(place.root.join(&name))?;
    Ok(())
}

fn raw(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    const SIDE: Side = Side::Floor(Floor::RawDevice);
    let (device, bytes) = (&stage.raw, stage.scale.file_bytes);
    let mut piece = blocks(PIECE);
    let starts = || (0..bytes / BLOCK).step_by(PIECE / BLOCK);
    let (took, ()) = timed(|| {
        starts().try_for_each(|block| device.write(block, &piece))?;
        device.flush()
    })?;
    samples.add("write_sequential", SIDE, throughput(bytes, took));
    let (took, ()) = timed(|| starts().try_for_each(|block| device.read(block, &mut piece)))?;
    samples.add("read_sequential", SIDE, throughput(bytes, took));

    let order = accesses(stage, run);
    let mut block = blocks(BLOCK);
    let (took, ()) = timed(|| {
        order.iter().try_for_each(|at| device.write(*at, &block))?;
        device.flush()
    })?;
    samples.add_time("write_random", SIDE, took, order.len());
    let (took, ()) = timed(|| order.iter().try_for_each(|at| device.read(*at, &mut block)))?;
    samples.add_time("read_random", SIDE, took, order.len());
    Ok(())
}

/// Opened for reading where nothing of it is cached.
fn cold(place: &Place, name: &str, advice: Advice) -> Result<File> {
    let path: &Path = &place.reader.join(name);
    let file = File::open(path).with_context(|| path.display().to_string())?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    fadvise(&file, 0, None, advice)?;
    Ok(file)
}

fn accesses(stage: &Stage, run: usize) -> Vec<usize> {
    let mut order = shuffled(stage.scale.file_bytes / BLOCK, run);
    order.truncate(stage.scale.random_accesses);
    order
}

/// What a run writes; never 0.
fn mark(run: usize) -> u8 {
    u8::try_from(run % 255).expect("below 255") + 1
}

fn offset(block: usize) -> u64 {
    (block * BLOCK) as u64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn throughput(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()
}
