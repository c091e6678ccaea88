//! What a kept cluster leaves in its folder, so that a later run finds it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::Cluster;
use super::node::Node;
use crate::mounts;
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
        Ok(Cluster {
            programs: programs.clone(),
            folder,
            nodes,
            arbiter,
            is_kept: true,
            was_kept: true,
        })
    }
}

/// Says that everything in a folder was made here.
const MARK: &str = "matrixfs-cluster";

/// Makes the folder of a cluster. What a cluster left there whose maker was killed is taken away;
/// its processes ended with the maker.
pub(super) fn make_folder(folder: &Path) -> Result<PathBuf> {
    let at = || folder.display().to_string();
    let mut made = fs::DirBuilder::new();
    made.recursive(true).mode(0o700).create(folder).with_context(at)?;
    let folder = folder.canonicalize().with_context(at)?;
    if folder.join(FILE).exists() {
        bail!("{}: there is a cluster already; stop it first", folder.display());
    }
    if folder.join(MARK).exists() {
        for place in mounts::below(&folder)? {
            mounts::detach(&place)?;
        }
        remove(&folder, false)?;
        fs::DirBuilder::new().mode(0o700).create(&folder).with_context(at)?;
    } else if fs::read_dir(&folder).with_context(at)?.next().is_some() {
        bail!("{}: there is something else in it; choose an empty or new folder", folder.display());
    }
    fs::write(folder.join(MARK), "made by a test or a demo of MatrixFS, and removed by it\n")?;
    Ok(folder)
}

/// Takes a folder away that a cluster was made in. What is in the directories of mounts was put
/// there while nothing was mounted; of a kept cluster it stays, and so does the folder.
pub(super) fn remove(folder: &Path, is_kept: bool) -> Result<()> {
    let mark = folder.join(MARK);
    if !mark.exists() {
        bail!("{}: no folder of a cluster", folder.display());
    }
    if let Some(place) = mounts::below(folder)?.first() {
        bail!("{}: something is mounted", place.display());
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_mount = name.to_string_lossy().starts_with("mnt");
        let removed = match entry.file_type()?.is_dir() {
            true if is_mount && is_kept => fs::remove_dir(&path),
            true => fs::remove_dir_all(&path),
            false if path == mark => Ok(()),
            false => fs::remove_file(&path),
        };
        removed.with_context(|| path.display().to_string())?;
    }
    // The last: until then it can be tried again.
    fs::remove_file(&mark)?;
    fs::remove_dir(folder).with_context(|| folder.display().to_string())
}
