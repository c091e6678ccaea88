//! Values of a configuration file, each with its own rule and its own words when it is broken.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use mx_base::NodeId;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// What `sun_path` of a Unix socket address holds, without its final zero.
const SOCKET_PATH_MAX: usize = 107;

/// Where a node takes connections.
///
/// Connections are not encrypted, so addresses of a network are refused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Address {
    Unix(PathBuf),
    /// On the loopback interface.
    Tcp(SocketAddr),
}

/// Why a text is no address.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressError {
    #[error("`{0}` is no address: expected `unix:/path` or `127.0.0.1:port`")]
    Neither(String),
    #[error(
        "`{0}` is not on the loopback interface: connections are not encrypted yet, so only \
         `unix:/path` and `127.0.0.1:port` are allowed"
    )]
    NotLoopback(SocketAddr),
    #[error("`{0}` has no port to connect to: 1 to 65535 are allowed")]
    NoPort(SocketAddr),
    #[error(transparent)]
    Path(#[from] SocketPathError),
}

/// Why a text is no path of a socket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SocketPathError {
    #[error("`{0}` is no absolute path")]
    Relative(String),
    #[error(
        "`{path}` has {length} bytes: the path of a socket has at most {SOCKET_PATH_MAX}",
        length = path.len()
    )]
    TooLong { path: String },
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Address::Unix(socket_path(path)?));
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            return Err(AddressError::Neither(text.to_owned()));
        };
        if !address.ip().is_loopback() {
            return Err(AddressError::NotLoopback(address));
        }
        if address.port() == 0 {
            return Err(AddressError::NoPort(address));
        }
        Ok(Address::Tcp(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(address) => write!(f, "{address}"),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn socket_path(path: &str) -> Result<PathBuf, SocketPathError> {
    if !path.starts_with('/') {
        return Err(SocketPathError::Relative(path.to_owned()));
    }
    if path.len() > SOCKET_PATH_MAX {
        return Err(SocketPathError::TooLong { path: path.to_owned() });
    }
    Ok(PathBuf::from(path))
}

/// The path of a Unix socket.
pub(super) struct SocketPath(pub(super) PathBuf);

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SocketPath, D::Error> {
        let text = String::deserialize(deserializer)?;
        socket_path(&text).map(SocketPath).map_err(D::Error::custom)
    }
}

/// May it be the name of a folder, and of a file system in `mount -t matrixfs NAME DIR`?
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&name.len()) && !name.starts_with(['.', '-']) && name.chars().all(allowed)
}

/// A name that is also a folder's.
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let name = String::deserialize(deserializer)?;
        if !is_name(&name) {
            return Err(D::Error::custom(format!(
                "`{name}` is no name: 1 to 64 letters, digits, `.`, `_` and `-` are allowed, not \
                 beginning with `.` or `-`"
            )));
        }
        Ok(Name(name))
    }
}

/// A node id, as a number or as the key of a table.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) NodeId);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct NodeVisitor;

        impl Visitor<'_> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a node id from 1 to {}", NodeId::MAX)
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Node, E> {
                let found = || E::invalid_value(Unexpected::Signed(id), &self);
                let node = u16::try_from(id).ok().and_then(NodeId::new);
                node.map(Node).ok_or_else(found)
            }

            fn visit_str<E: Error>(self, id: &str) -> Result<Node, E> {
                let found = || E::invalid_value(Unexpected::Str(id), &self);
                // One spelling for each node: `01` would be a second key for node 1.
                let node = id.parse().ok().and_then(NodeId::new);
                node.filter(|n| n.get().to_string() == id).map(Node).ok_or_else(found)
            }
        }

        deserializer.deserialize_any(NodeVisitor)
    }
}

/// The least important messages that are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As the filter of the log takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
