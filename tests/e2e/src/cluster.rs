//! A cluster on this machine: a device file, an arbiter, and nodes that have it mounted.
//!
//! Keeps true: everything lies in one folder; dropping a cluster ends all of it and takes the
//! folder away, unless it is to be kept. A kept one is found again through its folder.

mod node;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::admin::Admin;
use crate::fsck::{self, Findings};
use crate::process::{Process, Terms};
use crate::programs::Programs;
use crate::reports::{Recoveries, Recovery, State};
use crate::{mounts, wait};

use node::Node;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);

/// How long a node may take to end in order.
const STOP: Duration = Duration::from_secs(60);

/// What kind of cluster is wanted.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Nodes 1 to this one; at most 64.
    pub nodes: u16,
    /// Of the device.
    pub bytes: u64,
    /// Made for it, and taken away with it.
    pub folder: PathBuf,
    /// It goes on when whoever started it is gone.
    pub is_kept: bool,
    /// What the daemons log.
    pub log: &'static str,
    /// Of all time-outs, in milliseconds, 50 to 1000; `None` for what `mkfs.matrixfs` takes by itself.
    pub unit: Option<u16>,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    programs: Programs,
    folder: PathBuf,
    nodes: Vec<Node>,
    arbiter: Option<Process>,
    is_kept: bool,
    /// A user may have had it to work with.
    was_kept: bool,
}

/// When a node was killed.
#[derive(Clone, Copy, Debug)]
pub struct Killed {
    pub node: u16,
    pub at: Instant,
    /// The same on the clock that reports are dated by.
    pub wall: SystemTime,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The life that ended; `None` when it had not joined.
    pub incarnation: Option<u32>,
}

impl Cluster {
    /// Formats a device and starts the arbiter; no node runs yet.
    ///
    /// # Errors
    /// When something does not start; nothing is left then.
    pub fn prepare(programs: &Programs, shape: &Shape) -> Result<Cluster> {
        let Shape { nodes, bytes, folder, is_kept, log, unit } = shape;
        let folder = state::make_folder(folder)?;
        let mut cluster = Cluster {
            programs: programs.clone(),
            nodes: Vec::new(),
            arbiter: None,
            is_kept: false,
            was_kept: false,
            folder,
        };
        // From here on dropping it cleans up.
        for id in 1..=*nodes {
            cluster.nodes.push(Node::prepare(&cluster.folder, id, *nodes, log)?);
        }
        let device = fs::File::create(cluster.device()).context("the device")?;
        device.set_len(*bytes).context("the device")?;
        drop(device);
        cluster.format(*unit)?;
        cluster.is_kept = *is_kept;
        let started = cluster.start_arbiter().and_then(|()| cluster.save());
        if let Err(error) = started {
            cluster.is_kept = false;
            return Err(error);
        }
        Ok(cluster)
    }

    /// A cluster with all nodes started and mounted.
    ///
    /// # Errors
    /// As [`Cluster::prepare`].
    pub fn start_all(programs: &Programs, shape: &Shape) -> Result<Cluster> {
        let mut cluster = Cluster::prepare(programs, shape)?;
        for node in cluster.nodes() {
            if let Err(error) = cluster.start(node) {
                cluster.is_kept = false;
                return Err(error);
            }
        }
        Ok(cluster)
    }

    /// Finds a kept cluster again.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(programs: &Programs, folder: &Path) -> Result<Cluster> {
        let folder = folder.canonicalize();
        let folder = folder.context("there is no kept cluster")?;
        state::State::read(&folder)?.open(programs, folder)
    }

    fn save(&self) -> Result<()> {
        if self.is_kept { state::State::of(self).write(&self.folder) } else { Ok(()) }
    }

    fn format(&self, unit: Option<u16>) -> Result<()> {
        let mut command = self.programs.command("mkfs-matrixfs");
        command.args(["--quiet", "-L", "matrix"]);
        if let Some(unit) = unit {
            command.args(["--unit", &unit.to_string()]);
        }
        let output = command.arg(self.device()).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn device(&self) -> PathBuf {
        self.folder.join("device")
    }

    pub fn arbiter_socket(&self) -> PathBuf {
        self.folder.join("arbiter.sock")
    }

    /// All nodes, whether they run or not.
    pub fn nodes(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Those that run.
    pub fn running(&self) -> Vec<u16> {
        self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect()
    }

    /// Where a node has it mounted.
    pub fn mount(&self, node: u16) -> PathBuf {
        self.node(node).mount.clone()
    }

    pub fn admin(&self, node: u16) -> Admin {
        Admin::at(&self.node(node).admin)
    }

    /// What `mxctl --json` tells of a node.
    ///
    /// # Errors
    /// With its own words, when it does not.
    pub fn mxctl(&self, node: u16, words: &[&str]) -> Result<serde_json::Value> {
        let mut command = self.programs().command("mxctl");
        command.arg("--socket").arg(self.admin(node).socket()).arg("--json").args(words);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mxctl {words:?}: {said}");
        let text = String::from_utf8(output.stdout)?;
        serde_json::from_str(&text).with_context(|| text)
    }

    pub fn peer_socket(&self, node: u16) -> PathBuf {
        self.node(node).peer.clone()
    }

    pub fn log(&self, node: u16) -> PathBuf {
        self.node(node).log.clone()
    }

    pub fn config(&self, node: u16) -> PathBuf {
        self.node(node).config.clone()
    }

    /// Its process, while it runs.
    pub fn process(&self, node: u16) -> Option<&Process> {
        self.node(node).process.as_ref()
    }

    fn node(&self, id: u16) -> &Node {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    fn node_mut(&mut self, id: u16) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("the cluster has no node {id}"))
    }

    /// # Errors
    /// When it does not start.
    pub fn start_arbiter(&mut self) -> Result<()> {
        let mut command = self.programs.command("mxarbiter");
        command.arg("--socket").arg(self.arbiter_socket());
        command.arg("--state").arg(self.folder.join("fenced")).arg(self.device());
        let log = self.folder.join("arbiter.log");
        let terms = Terms { log: &log, is_kept: self.is_kept };
        let process = Process::start_printing(command, terms, START).context("the arbiter")?;
        self.arbiter = Some(process);
        self.save()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it does not go.
    pub fn kill_arbiter(&mut self) -> Result<()> {
        match self.arbiter.take() {
            Some(mut arbiter) => arbiter.end(Signal::KILL),
            None => Ok(()),
        }
    }

    /// SIGSTOP: the device does not answer.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause_arbiter(&self) -> Result<()> {
        self.arbiter.as_ref().context("it does not run")?.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume_arbiter(&self) -> Result<()> {
        self.arbiter.as_ref().context("it does not run")?.signal(Signal::CONT)
    }

    /// SIGTERM, when no node runs any more.
    ///
    /// # Errors
    /// When it does not go.
    pub fn stop_arbiter(&mut self) -> Result<()> {
        match self.arbiter.take() {
            Some(mut arbiter) => arbiter.end(Signal::TERM).context("the arbiter"),
            None => Ok(()),
        }
    }

    /// Starts the process of a node and mounts.
    ///
    /// # Errors
    /// When it does not come up; its process is gone then.
    pub fn start(&mut self, id: u16) -> Result<()> {
        self.start_daemon(id)?;
        let node = self.node(id);
        let mounted = Admin::at(&node.admin).mount(&node.mount, false);
        if let Err(error) = mounted {
            let log = node.log.clone();
            self.kill(id)?;
            return Err(error).with_context(|| format!("node {id}; see {}", log.display()));
        }
        Ok(())
    }

    /// Starts the process of a node; it joins, but mounts nothing.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_daemon(&mut self, id: u16) -> Result<()> {
        let (command, is_kept) = (self.programs.command("mxd"), self.is_kept);
        let node = self.node_mut(id);
        if node.process.is_some() {
            bail!("node {id} runs already");
        }
        mounts::detach(&node.mount)?;
        let mut command = command;
        command.arg("--config").arg(&node.config);
        let terms = Terms { log: &node.log, is_kept };
        let process = Process::start_ready(command, terms, START);
        node.process = Some(process.with_context(|| format!("node {id}"))?);
        self.save()
    }

    /// Mounts the device on this machine alone, without a cluster, in the place of a node. The
    /// arbiter is stopped first: it has the device.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_local(&mut self, id: u16) -> Result<()> {
        self.stop_arbiter()?;
        let (mut command, is_kept) = (self.programs.command("mxd"), self.is_kept);
        let device = self.device();
        let node = self.node_mut(id);
        if node.process.is_some() {
            bail!("node {id} runs already");
        }
        mounts::detach(&node.mount)?;
        command.arg("--local").arg(device).arg("--dir").arg(&node.mount);
        let terms = Terms { log: &node.log, is_kept };
        let process = Process::start_ready(command, terms, START);
        node.process = Some(process.context("a local mount")?);
        self.save()
    }

    /// Unmounts what [`Cluster::start_local`] mounted and waits for the end of the process.
    ///
    /// # Errors
    /// When somebody uses it, or it does not end in order.
    pub fn stop_local(&mut self, id: u16) -> Result<()> {
        mounts::unmount(&self.node(id).mount)?;
        match self.until_ended(id, STOP)? {
            Some(status) if !status.success() => bail!("the local mount ended with {status}"),
            Some(_) | None => Ok(()),
        }
    }

    /// SIGKILL, and its mount, of which only the place is left, out of the tree.
    ///
    /// # Errors
    /// When it does not run, or does not go.
    pub fn kill(&mut self, id: u16) -> Result<Killed> {
        let incarnation = self.admin(id).status().ok().and_then(|s| s.viewer.incarnation);
        let node = self.node_mut(id);
        let Some(mut process) = node.process.take() else { bail!("node {id} does not run") };
        let (at, wall) = (Instant::now(), SystemTime::now());
        process.signal(Signal::KILL)?;
        mounts::detach(&node.mount)?;
        process.end(Signal::KILL)?;
        self.save()?;
        let wall_ms = wall.duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
        Ok(Killed { node: id, at, wall, wall_ms: u64::try_from(wall_ms)?, incarnation })
    }

    /// SIGSTOP: it does nothing, and is not dead.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, id: u16) -> Result<()> {
        self.process(id).context("it does not run")?.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, id: u16) -> Result<()> {
        self.process(id).context("it does not run")?.signal(Signal::CONT)
    }

    /// Waits until a process that ends by itself has ended, and takes its mount out of the tree.
    /// How it ended, where that is known.
    ///
    /// # Errors
    /// When it goes on.
    pub fn until_ended(&mut self, id: u16, patience: Duration) -> Result<Option<ExitStatus>> {
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(None) };
        if !process.ends_within(patience)? {
            bail!("node {id} goes on after {} s", patience.as_secs());
        }
        let status = process.status();
        node.process = None;
        mounts::detach(&node.mount)?;
        self.save()?;
        Ok(status)
    }

    /// Unmounts, leaves, and waits for the end of the process.
    ///
    /// # Errors
    /// When it does not do so in order; it goes on then.
    pub fn stop(&mut self, id: u16) -> Result<()> {
        self.admin(id).stop().with_context(|| format!("node {id}"))?;
        match self.until_ended(id, STOP)? {
            Some(status) if !status.success() => {
                let log = self.node(id).log.clone();
                let log = fs::read_to_string(&log).unwrap_or_default();
                bail!("node {id} ended with {status}: {}", log.lines().last().unwrap_or_default())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Stops all nodes that run, in order, and then the arbiter.
    ///
    /// # Errors
    /// As [`Cluster::stop`].
    pub fn stop_all(&mut self) -> Result<()> {
        for id in self.running() {
            self.stop(id)?;
        }
        self.stop_arbiter()
    }

    /// Checks the device; nothing may run any more.
    ///
    /// # Errors
    /// When the check cannot be done.
    pub fn fsck(&self) -> Result<Findings> {
        fsck::check(&self.programs, &self.device())
    }

    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Waits until a survivor reports that nothing is left of a dead life, and returns its report,
    /// with the time of the report on its clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the time is over.
    pub fn until_recovered(&self, killed: &Killed, patience: Duration) -> Result<(u64, Recovery)> {
        let what = format!("the recovery of node {}", killed.node);
        wait::until(&what, patience, || {
            for survivor in self.running() {
                let Recoveries { viewer, recoveries } = self.admin(survivor).recoveries()?;
                let of_dead = |recovery: &&Recovery| {
                    let suspected = viewer.at_ms.saturating_sub(recovery.suspected_ago_ms);
                    let is_it = match killed.incarnation {
                        Some(incarnation) => recovery.dead.incarnation == incarnation,
                        // Clocks of reports are read a little apart.
                        None => suspected + 1000 >= killed.wall_ms,
                    };
                    recovery.dead.node == killed.node && is_it
                };
                let found = recoveries.iter().rev().find(of_dead);
                let is_whole = |recovery: &&Recovery| {
                    recovery.ended_ms.is_some()
                        && recovery.file_systems.iter().all(|fs| fs.resumed_ms.is_some())
                };
                if let Some(recovery) = found.filter(is_whole) {
                    return Ok(Some((viewer.at_ms, recovery.clone())));
                }
            }
            Ok(None)
        })
    }

    /// Waits until a node is a member and all in its view are mounted with it.
    ///
    /// # Errors
    /// When the time is over.
    pub fn until_member(&self, id: u16, patience: Duration) -> Result<()> {
        wait::until(&format!("node {id} to be a member"), patience, || {
            Ok((self.admin(id).status()?.state == State::Member).then_some(()))
        })
    }

    /// It is not to be kept any more: dropping it ends it.
    pub fn give_up(&mut self) {
        self.was_kept |= self.is_kept;
        self.is_kept = false;
    }

    fn clean_up(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        let mut note = |result: Result<()>| problems.extend(result.err());
        for node in &mut self.nodes {
            let process = node.process.take();
            if let Some(process) = &process {
                // It may have ended by itself.
                let _ = process.signal(Signal::KILL);
            }
            note(mounts::detach(&node.mount));
            if let Some(mut process) = process {
                note(process.end(Signal::KILL));
            }
        }
        note(self.kill_arbiter());
        note(state::remove(&self.folder, self.was_kept));
        match problems.into_iter().next() {
            Some(first) => Err(first),
            None => Ok(()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.clean_up() {
            // A destructor has nobody else to tell.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("{}: not cleaned up: {error:#}\n", self.folder.display()),
            );
        }
    }
}
