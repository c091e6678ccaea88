//! What a kept cluster leaves in its folder, so that a later run finds it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::node::Node;
use crate::process::{Id, Process};
use crate::programs::Programs;

/// Its name in the folder.
pub(super) const FILE: &str = "cluster.json";

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    nodes: Vec<(u16, Option<Id>)>,
    arbiter: Option<Id>,
}

impl State {
    pub(super) fn of(cluster: &Cluster) -> State {
        let id = |process: &Option<Process>| process.as_ref().map(Process::id);
        State {
            nodes: cluster.nodes.iter().map(|node| (node.id, id(&node.process))).collect(),
            arbiter: id(&cluster.arbiter),
        }
    }

    pub(super) fn read(folder: &Path) -> Result<State> {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("{}: no kept cluster", folder.display()))?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Written beside and then renamed: whoever reads it reads all of it.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let beside = folder.join("cluster.new");
        fs::write(&beside, serde_json::to_string_pretty(self)? + "\n")?;
        fs::rename(&beside, folder.join(FILE)).context("the state of the cluster")
    }

    /// Processes that have ended since are not among those that run.
    pub(super) fn open(self, programs: &Programs, folder: PathBuf) -> Result<Cluster> {
        let open = |id: Option<Id>| id.map_or(Ok(None), Process::open);
        let mut nodes = Vec::new();
        for (id, process) in self.nodes {
            nodes.push(Node { process: open(process)?, ..Node::of(&folder, id) });
        }
        let arbiter = open(self.arbiter)?;
        Ok(Cluster { programs: programs.clone(), folder, nodes, arbiter, is_kept: true })
    }
}

/// Takes away what a cluster made, and the folder if nothing else is in it.
pub(super) fn remove(folder: &Path) -> Result<()> {
    const OURS: [&str; 5] = ["node", "arbiter", "cluster.", "device", "fenced"];
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let path = entry.path();
        if name.starts_with("mnt") {
            // What is not empty holds what a user put there while nothing was mounted.
            fs::remove_dir(&path).with_context(|| path.display().to_string())?;
        } else if OURS.iter().any(|ours| name.starts_with(ours)) {
            let removed = match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.with_context(|| path.display().to_string())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result.with_context(|| folder.display().to_string()),
    }
}
