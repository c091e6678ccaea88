//! Many small files in one directory: create, stat, readdir, unlink.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat, unlinkat};

use super::{arbiter, timed};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{NODE, Place, Stage, forget_names};

pub(super) fn measure(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    for place in stage.places(run) {
        let dir = place.root.join(format!("entries{run}"));
        fs::create_dir(&dir)?;
        one_directory(stage, &place, &dir, samples)?;
        fs::remove_dir(&dir)?;
    }
    on_another_node(stage, run, samples)
}

fn one_directory(stage: &Stage, place: &Place, dir: &Path, samples: &mut Samples) -> Result<()> {
    let Place { side, root, .. } = place;
    let (side, count) = (*side, stage.scale.files);
    let names = names(count);
    // What the node counts, where there is one.
    let counted = || match side {
        Side::Ours => stage.usage(NODE).map(|usage| (usage.messages_sent, usage.requests)),
        Side::Floor(_) => Ok((0, 0)),
    };
    let before = counted()?;
    let (took, ()) = timed(|| create_all(&open(dir)?, &names))?;
    samples.add_time("create", side, took, count);
    let after = counted()?;
    if side == Side::Ours {
        samples.add_count("create_messages", side, after.0 - before.0, count);
    }

    forget_names(root)?;
    let directory = open(dir)?;
    let before = counted()?;
    let (took, ()) = timed(|| stat_all(&directory, &names))?;
    samples.add_time("stat", side, took, count);
    if side == Side::Floor(Floor::MemoryFuse) {
        samples.add_time("stat_other_node", side, took, count);
    }
    let between = counted()?;
    let (took, ()) = timed(|| stat_all(&directory, &names))?;
    samples.add_time("stat_cached", side, took, count);
    let after = counted()?;
    if side == Side::Ours {
        samples.add_count("stat_requests", side, between.1 - before.1, count);
        samples.add_count("stat_cached_requests", side, after.1 - between.1, count);
    }
    drop(directory);

    forget_names(root)?;
    let (took, listed) = timed(|| {
        let mut listed = 0;
        for entry in fs::read_dir(dir)? {
            entry?;
            listed += 1;
        }
        Ok(listed)
    })?;
    ensure!(listed == count, "{listed} of {count} entries are listed");
    samples.add_time("readdir", side, took, count);

    let before = counted()?;
    let (took, ()) = timed(|| {
        let directory = open(dir)?;
        for name in &names {
            unlinkat(&directory, name, AtFlags::empty())?;
        }
        Ok(())
    })?;
    samples.add_time("unlink", side, took, count);
    let after = counted()?;
    if side == Side::Ours {
        samples.add_count("unlink_messages", side, after.0 - before.0, count);
    }
    Ok(())
}

/// The first look of a second node at what the first has just made.
fn on_another_node(stage: &Stage, run: usize, samples: &mut Samples) -> Result<()> {
    let places = stage.places(run);
    let ours = places.iter().find(|place| place.side == Side::Ours).expect("ours is a place");
    let name = format!("looked-at{run}");
    let names = names(stage.scale.files_other_node);
    fs::create_dir(ours.root.join(&name))?;
    create_all(&open(&ours.root.join(&name))?, &names)?;
    let there = open(&ours.reader.join(&name))?;
    let arbiter = arbiter::connect(stage)?;
    let before = arbiter::device_writes(&arbiter)?;
    let (took, ()) = timed(|| stat_all(&there, &names))?;
    samples.add_time("stat_other_node", Side::Ours, took, names.len());
    let writes = arbiter::device_writes(&arbiter)? - before;
    samples.add_count("stat_other_node_writes", Side::Ours, writes, names.len());
    drop(there);
    fs::remove_dir_all(ours.root.join(&name))?;
    Ok(())
}

pub(super) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("file{number:06}")).collect()
}

pub(super) fn open(dir: &Path) -> Result<OwnedFd> {
    Ok(rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn create_all(directory: &OwnedFd, names: &[String]) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    for name in names {
        drop(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    }
    Ok(())
}

pub(super) fn stat_all(directory: &OwnedFd, names: &[impl AsRef<Path>]) -> Result<()> {
    for name in names {
        statat(directory, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
