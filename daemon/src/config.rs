//! The configuration file of a node: TOML, read once at start.
//!
//! Keeps true: a [`Config`] obeys every rule that can be checked without the other nodes. What
//! breaks one is named with the file, the line and what would be allowed; nothing is guessed.

mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use mx_base::NodeId;
use serde::Deserialize;
use toml::Spanned;

pub use value::{Address, LogLevel};
use value::{Name, Node, SocketPath};

/// Where the daemons of this machine have their sockets, each in a folder named for it.
pub const RUN_FOLDER: &str = "/run/matrixfs";

/// The file name of a daemon's administration socket.
pub const ADMIN_SOCKET: &str = "mxd.sock";

/// What one node is told by its administrator (`docs/mxd.toml.example`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    pub node: NodeId,
    /// Where this node takes connections of the others.
    pub listen: Address,
    /// All other nodes that may be in the cluster.
    pub peers: BTreeMap<NodeId, Address>,
    /// The socket of the arbiter that serves the device.
    pub arbiter: PathBuf,
    /// NAME in `mount -t matrixfs NAME DIR`; `None` for the label of the file system.
    pub name: Option<String>,
    admin: Option<PathBuf>,
    pub log: LogLevel,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}:{line}: {message}", file.display())]
    Line { file: PathBuf, line: usize, message: String },
    #[error("{}: {message}", file.display())]
    Whole { file: PathBuf, message: String },
}

/// The label of the file system cannot serve as its name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the file system's label {0:?} is no name for `mount -t matrixfs NAME DIR`: give `name`")]
pub struct LabelNoName(String);

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    node: Node,
    listen: Spanned<Address>,
    #[serde(default)]
    peers: BTreeMap<Node, Spanned<Address>>,
    arbiter: SocketPath,
    #[serde(default)]
    name: Option<Name>,
    #[serde(default)]
    admin: Option<SocketPath>,
    #[serde(default)]
    log: LogLevel,
}

impl Config {
    /// Reads and checks a file; what `mxd --check-config FILE` does.
    ///
    /// # Errors
    /// [`ConfigError`], with the line where there is one.
    pub fn read(file: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        Config::parse(file, &text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let at = |offset: usize, message: String| {
            let line = text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count() + 1;
            ConfigError::Line { file: file.to_owned(), line, message }
        };
        let written: Written = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            match error.span() {
                // A key that is missing is on no line.
                Some(span) if !message.starts_with("missing field") => at(span.start, message),
                _ => ConfigError::Whole { file: file.to_owned(), message },
            }
        })?;
        let node = written.node.0;
        let mut taken: BTreeMap<Address, NodeId> = BTreeMap::new();
        taken.insert(written.listen.into_inner(), node);
        let mut peers = BTreeMap::new();
        for (Node(peer), address) in written.peers {
            let line = address.span().start;
            let address = address.into_inner();
            if peer == node {
                let id = node.get();
                let message = format!("node {id} is this node itself: list the others in [peers]");
                return Err(at(line, message));
            }
            if let Some(other) = taken.insert(address.clone(), peer) {
                let (peer, other) = (peer.get(), other.get());
                let message = format!("nodes {other} and {peer} have the same address {address}");
                return Err(at(line, message));
            }
            peers.insert(peer, address);
        }
        let listen = taken.into_iter().find(|(_, of)| *of == node).map(|(address, _)| address);
        Ok(Config {
            node,
            listen: listen.expect("a peer with the same address is refused"),
            peers,
            arbiter: written.arbiter.0,
            name: written.name.map(|name| name.0),
            admin: written.admin.map(|path| path.0),
            log: written.log,
        })
    }

    /// What the file system is called here, given its label.
    ///
    /// # Errors
    /// When the file gives no name and the label cannot be one.
    pub fn name<'a>(&'a self, label: &'a str) -> Result<&'a str, LabelNoName> {
        match &self.name {
            Some(name) => Ok(name),
            None if value::is_name(label) => Ok(label),
            None => Err(LabelNoName(label.to_owned())),
        }
    }

    /// Where `mxctl` and mount(8) find this daemon, given the label of its file system.
    ///
    /// # Errors
    /// As [`Config::name`], where the file gives no path either.
    pub fn admin_socket(&self, label: &str) -> Result<PathBuf, LabelNoName> {
        match &self.admin {
            Some(path) => Ok(path.clone()),
            None => Ok(socket_of(self.name(label)?)),
        }
    }
}

/// The administration socket of the daemon with a name, where its configuration does not say
/// otherwise.
pub fn socket_of(name: &str) -> PathBuf {
    Path::new(RUN_FOLDER).join(name).join(ADMIN_SOCKET)
}

/// The name of a daemon that serves one local mount: its directory, as a file name.
pub fn name_of_local(dir: &Path) -> String {
    /// Leaves room in the 107 bytes that a socket's path may have.
    const LENGTH_MAX: usize = 64;
    let text: String = dir
        .to_string_lossy()
        .trim_matches('/')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' })
        .collect();
    let name = format!("local_{text}");
    if name.len() <= LENGTH_MAX {
        return name;
    }
    // Two directories that begin alike must not meet.
    let sum = dir.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}_{sum:016x}", &name[..LENGTH_MAX - 17])
}

/// What `mxd --check-config` prints.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node     {} of {}", self.node.get(), self.peers.len() + 1)?;
        writeln!(f, "listen   {}", self.listen)?;
        for (peer, address) in &self.peers {
            writeln!(f, "peer {:<3} {address}", peer.get())?;
        }
        writeln!(f, "arbiter  {}", self.arbiter.display())?;
        writeln!(f, "name     {}", self.name.as_deref().unwrap_or("the file system's label"))?;
        match (&self.admin, &self.name) {
            (Some(path), _) => writeln!(f, "admin    {}", path.display())?,
            (None, Some(name)) => writeln!(f, "admin    {}", socket_of(name).display())?,
            (None, None) => writeln!(f, "admin    {}", socket_of("LABEL").display())?,
        }
        write!(f, "log      {}", self.log)
    }
}

#[cfg(test)]
mod tests;
