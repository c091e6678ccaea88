//! A cluster for one test.
//!
//! Keeps true: one at a time on this machine, whatever runs the tests; and when a test fails its
//! logs stay, in `e2e-failed` beside the programs, and what the nodes warned of last is printed: a
//! node that was lost shows in the test only as errors of what used its mount.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::cluster::{Cluster, Shape};
use crate::programs::Programs;

/// A test's own cluster.
#[derive(Debug)]
pub struct Fixture {
    name: String,
    cluster: Cluster,
    /// Held until the cluster is gone: fields are dropped in this order.
    _alone: File,
}

/// Sparse, so that size costs nothing.
const BYTES: u64 = 2 << 30;

/// Of time-outs, in milliseconds: four times the usual. A virtual machine may take one processor away
/// for longer than a second, from real-time threads too (measured while a compiler ran: 0.44, 0.93 and
/// 0.43 s with a moment between them), and whoever is silent for five units is expelled. How fast
/// silence is found the simulator tells.
const UNIT: u16 = 400;

impl Fixture {
    /// Nodes 1 to `nodes`, all mounted.
    ///
    /// # Panics
    /// When they do not come up: the test has failed.
    #[track_caller]
    pub fn of(name: &str, nodes: u16) -> Fixture {
        Fixture::sized(name, nodes, BYTES)
    }

    /// As [`Fixture::of`], with a device of a size.
    ///
    /// # Panics
    /// As [`Fixture::of`].
    #[track_caller]
    pub fn sized(name: &str, nodes: u16, bytes: u64) -> Fixture {
        let mut fixture = Fixture::prepared(name, nodes, bytes);
        for node in fixture.nodes() {
            if let Err(error) = fixture.start(node) {
                panic!("the cluster does not start: {error:#}");
            }
        }
        fixture
    }

    /// As [`Fixture::sized`], but no node runs yet.
    ///
    /// # Panics
    /// As [`Fixture::of`].
    #[track_caller]
    pub fn prepared(name: &str, nodes: u16, bytes: u64) -> Fixture {
        match try_prepare(name, nodes, bytes) {
            Ok(fixture) => fixture,
            Err(error) => panic!("the cluster cannot be prepared: {error:#}"),
        }
    }

    /// Stops everything in order and checks the device, as every test should end that has not
    /// broken it on purpose.
    ///
    /// # Panics
    /// When something does not end in order, or the device is not clean.
    #[track_caller]
    pub fn finish(mut self) {
        let finished = self.cluster.stop_all();
        let checked = finished.and_then(|()| self.cluster.fsck()?.expect_clean());
        if let Err(error) = checked {
            panic!("at the end: {error:#}");
        }
    }
}

fn try_prepare(name: &str, nodes: u16, bytes: u64) -> Result<Fixture> {
    let alone = alone()?;
    let programs = Programs::beside_test()?;
    let folder = env::temp_dir().join("matrixfs-e2e");
    let log = if env::var_os("MATRIXFS_E2E_LOG").is_some() { "debug" } else { "info" };
    let shape = Shape { nodes, bytes, folder, is_kept: false, log, unit: Some(UNIT) };
    let cluster = Cluster::prepare(&programs, &shape)?;
    Ok(Fixture { name: name.to_owned(), cluster, _alone: alone })
}

/// Waits until no other test of this machine has a cluster.
fn alone() -> Result<File> {
    let path = env::temp_dir().join("matrixfs-e2e.lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if thread::panicking() {
            // Failing to keep them must not hide why the test failed.
            let _ = keep_logs(&self.cluster, &self.name);
            let _ = tell_warnings(&self.cluster, &mut io::stderr());
        }
    }
}

fn keep_logs(cluster: &Cluster, name: &str) -> Result<PathBuf> {
    let kept = cluster.programs().folder().join("e2e-failed").join(name);
    fs::create_dir_all(&kept)?;
    for node in cluster.running() {
        let locks = cluster.admin(node).locks_text();
        fs::write(kept.join(format!("node{node}.locks.json")), locks.unwrap_or_default())?;
    }
    for (name, path) in logs(cluster)? {
        fs::copy(path, kept.join(name))?;
    }
    Ok(kept)
}

/// Warnings of one log that are printed.
const WARNINGS: usize = 12;

fn tell_warnings(cluster: &Cluster, out: &mut impl Write) -> Result<()> {
    for (name, path) in logs(cluster)? {
        let text = fs::read_to_string(path)?;
        let is_warning = |line: &&str| !line.contains(" INFO ") && !line.contains(" DEBUG ");
        let warnings: Vec<&str> = text.lines().filter(is_warning).collect();
        for line in &warnings[warnings.len().saturating_sub(WARNINGS)..] {
            writeln!(out, "{}: {line}", name.display())?;
        }
    }
    Ok(())
}

/// By name.
fn logs(cluster: &Cluster) -> Result<BTreeMap<OsString, PathBuf>> {
    let mut logs = BTreeMap::new();
    for entry in fs::read_dir(cluster.folder())? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|ending| ending == "log") {
            logs.insert(entry.file_name(), entry.path());
        }
    }
    Ok(logs)
}

impl Deref for Fixture {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Fixture {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}
