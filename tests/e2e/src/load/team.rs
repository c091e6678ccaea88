//! Writers on all nodes of a cluster, over the deaths of nodes: who has written what so far.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::judge::{Verdict, judge};
use super::process::{Progress, Writer};
use super::step::{FOLDER, Mix};
use crate::cluster::Cluster;
use crate::wait;

/// How long a judge may read.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct Team {
    mix: Mix,
    pause: Duration,
    working: BTreeMap<u16, Writer>,
    finished: Vec<Progress>,
    writer_next: u32,
}

impl Team {
    /// Nobody works yet. `pause` is made after every operation.
    pub fn new(mix: Mix, pause: Duration) -> Team {
        Team { mix, pause, working: BTreeMap::new(), finished: Vec::new(), writer_next: 1 }
    }

    /// Starts a writer on a node, under a new number.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(&mut self, cluster: &Cluster, node: u16) -> Result<()> {
        let mount = cluster.mount(node);
        let folder = mount.join(FOLDER);
        wait::within("making the directory", PATIENCE, move || match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => Ok(result?),
        })?;
        let writer =
            Writer::start(cluster.programs(), self.mix, &mount, self.writer_next, self.pause)?;
        self.writer_next += 1;
        self.working.insert(node, writer);
        Ok(())
    }

    /// How far all are that ever worked.
    pub fn progress(&self) -> Vec<Progress> {
        let working = self.working.values().map(Writer::progress);
        self.finished.iter().cloned().chain(working).collect()
    }

    /// The progress of the writer that works on a node.
    pub fn on(&self, node: u16) -> Option<Progress> {
        self.working.get(&node).map(Writer::progress)
    }

    /// Waits until every writer has `more` operations acknowledged than now.
    ///
    /// # Errors
    /// When one fails or hangs.
    pub fn until_all_go_on(&self, more: u64) -> Result<()> {
        let goals: Vec<(&u16, &Writer, u64)> = self
            .working
            .iter()
            .map(|(node, writer)| (node, writer, writer.progress().acknowledged + more))
            .collect();
        for (node, writer, goal) in goals {
            writer.until_acknowledged(goal).with_context(|| format!("on node {node}"))?;
        }
        Ok(())
    }

    /// The writer of a node that was killed has nothing more to say.
    ///
    /// # Errors
    /// When it hangs.
    pub fn stop(&mut self, node: u16) -> Result<Option<Progress>> {
        let Some(writer) = self.working.remove(&node) else { return Ok(None) };
        let progress = writer.stop().with_context(|| format!("on node {node}"))?;
        self.finished.push(progress.clone());
        Ok(Some(progress))
    }

    /// Stops all; those that failed by themselves are errors.
    ///
    /// # Errors
    /// When one failed or hangs.
    pub fn stop_all(&mut self) -> Result<()> {
        let nodes: Vec<u16> = self.working.keys().copied().collect();
        for node in nodes {
            if let Some(Progress { failure: Some(why), writer, .. }) = self.stop(node)? {
                anyhow::bail!("writer {writer} on node {node} failed: {why}");
            }
        }
        Ok(())
    }

    /// Judges what a node shows; nobody may work now.
    ///
    /// # Errors
    /// When it cannot be read, or not in time.
    pub fn judge(&self, cluster: &Cluster, node: u16) -> Result<Verdict> {
        let (mount, progress) = (cluster.mount(node), self.progress());
        wait::within(&format!("reading on node {node}"), PATIENCE, move || judge(&mount, &progress))
    }
}
