//! Files and process of one node.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::process::Process;

/// What the path of a Unix socket may have.
const SOCKET_PATH_MAX: usize = 107;

/// See the module.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: u16,
    pub(super) config: PathBuf,
    pub(super) admin: PathBuf,
    pub(super) peer: PathBuf,
    pub(super) log: PathBuf,
    pub(super) mount: PathBuf,
    /// `None` while it is known not to run.
    pub(super) process: Option<Process>,
}

impl Node {
    pub(super) fn of(folder: &Path, id: u16) -> Node {
        let file = |ending: &str| folder.join(format!("node{id}.{ending}"));
        Node {
            id,
            config: file("toml"),
            admin: file("admin"),
            peer: file("peer"),
            log: file("log"),
            mount: folder.join(format!("mnt{id}")),
            process: None,
        }
    }

    /// Writes its configuration and makes the directory to mount on.
    pub(super) fn prepare(folder: &Path, id: u16, nodes: u16, log: &str) -> Result<Node> {
        let node = Node::of(folder, id);
        if node.admin.as_os_str().len() > SOCKET_PATH_MAX {
            bail!("{}: too long for the path of a socket; choose another", folder.display());
        }
        let mut text = String::new();
        writeln!(text, "node = {id}")?;
        writeln!(text, "listen = \"unix:{}\"", node.peer.display())?;
        writeln!(text, "arbiter = \"{}\"", folder.join("arbiter.sock").display())?;
        writeln!(text, "name = \"matrix{id}\"")?;
        writeln!(text, "admin = \"{}\"", node.admin.display())?;
        writeln!(text, "log = \"{log}\"")?;
        writeln!(text, "\n[peers]")?;
        for peer in (1..=nodes).filter(|peer| *peer != id) {
            writeln!(text, "{peer} = \"unix:{}\"", Node::of(folder, peer).peer.display())?;
        }
        fs::write(&node.config, text).context("the configuration of a node")?;
        fs::create_dir_all(&node.mount).context("the directory of a mount")?;
        Ok(node)
    }
}
