//! A node dies: how long each step takes until nothing of it is left.

use std::fs::{self, File};
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use e2e::cluster::Killed;
use e2e::reports::Recovery;
use e2e::wait;

use super::timed;
use crate::floors::partner::Partner;
use crate::floors::raw_device::{BLOCK, blocks};
use crate::samples::{Samples, Side};
use crate::spec::Floor;
use crate::stage::{NODE, Stage, VICTIM};

/// Files that the node that dies has just written.
const FILES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of one request when the journal is read.
const PIECE: usize = 1 << 20;

pub(super) fn measure(stage: &mut Stage, run: usize, samples: &mut Samples) -> Result<()> {
    // A start that failed in an earlier run is not hidden by this one.
    stage.cluster.until_member(VICTIM, PATIENCE)?;
    let name = format!("left{run}");
    let dir = stage.cluster.mount(VICTIM).join(&name);
    fs::create_dir(&dir)?;
    for number in 0..FILES {
        File::create_new(dir.join(format!("file{number}")))?.write_all(&[1; BLOCK])?;
    }
    let journal = usize::try_from(stage.usage(VICTIM)?.journal_bytes)?;

    let killed = stage.cluster.kill(VICTIM)?;
    let path = stage.cluster.mount(NODE).join(&name);
    let answered = wait::within("a stat on a survivor", PATIENCE, move || {
        // The directory was fsynced by nobody: that it is gone is an answer as well.
        let _ = fs::symlink_metadata(path.join("file0"));
        Ok(Instant::now())
    })?;
    samples.add_time("recovery_blocked", Side::Ours, answered - killed.at, 1);
    stage.cluster.until_recovered(&killed, PATIENCE)?;
    report(stage, &killed, samples)?;
    stage.cluster.start(VICTIM)?;
    stage.cluster.until_member(VICTIM, PATIENCE)?;
    floors(stage, journal, samples)
}

/// Of a survivor that knows all of it.
fn report(stage: &Stage, killed: &Killed, samples: &mut Samples) -> Result<()> {
    for survivor in stage.cluster.running() {
        let report = stage.admin(survivor).recoveries()?;
        let is_it = |recovery: &&Recovery| {
            recovery.dead.node == killed.node
                && Some(recovery.dead.incarnation) == killed.incarnation
        };
        let Some(recovery) = report.recoveries.iter().rev().find(is_it) else { continue };
        let suspected = report.viewer.at_ms.saturating_sub(recovery.suspected_ago_ms);
        let suspected = suspected.saturating_sub(killed.wall_ms);
        if add(recovery, suspected, samples).is_some() {
            return Ok(());
        }
    }
    anyhow::bail!("no survivor reports every step of the recovery of node {}", killed.node)
}

/// `suspected`: ms after the kill.
fn add(recovery: &Recovery, suspected: u64, samples: &mut Samples) -> Option<()> {
    let fs = recovery.file_systems.first()?;
    let (dropped, fenced) = (recovery.dropped_ms, recovery.fenced_ms?);
    let (rebuilt, replayed, resumed) = (fs.rebuilt_ms?, fs.replayed_ms?, fs.resumed_ms?);
    let phases = [
        ("recovery_suspected", suspected),
        ("recovery_dropped", dropped),
        ("recovery_fenced", fenced.saturating_sub(dropped)),
        ("recovery_rebuilt", rebuilt.saturating_sub(dropped)),
        ("recovery_replayed", replayed.saturating_sub(fenced)),
        ("recovery_resumed", suspected + resumed),
    ];
    for (name, ms) in phases {
        samples.add_count(name, Side::Ours, ms, 1);
    }
    Some(())
}

fn floors(stage: &mut Stage, journal: usize, samples: &mut Samples) -> Result<()> {
    let partner = Partner::start(&stage.program).context("a process to be killed")?;
    let ended = partner.kill()?;
    samples.add_time("recovery_suspected", Side::Floor(Floor::EndOfSocket), ended, 1);
    let block = blocks(BLOCK);
    let (written, ()) = timed(|| {
        stage.raw.write(0, &block)?;
        stage.raw.flush()
    })?;
    for name in ["recovery_dropped", "recovery_fenced"] {
        samples.add_time(name, Side::Floor(Floor::RawDevice), written, 1);
    }
    let (pinged, ()) = timed(|| stage.partner.ping())?;
    samples.add_time("recovery_rebuilt", Side::Floor(Floor::PingPong), pinged, 1);
    let mut piece = blocks(PIECE);
    let (read, ()) = timed(|| {
        let starts = (0..journal / BLOCK).step_by(PIECE / BLOCK);
        starts.into_iter().try_for_each(|at| stage.raw.read(at, &mut piece))
    })?;
    samples.add_time("recovery_replayed", Side::Floor(Floor::RawDevice), read, 1);
    let sum = ended + 2 * written + read;
    for name in ["recovery_resumed", "recovery_blocked"] {
        samples.add_time(name, Side::Floor(Floor::SumOfPhases), sum, 1);
    }
    Ok(())
}
