//! Which daemon is meant.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::admin::{Client, ClientError};
use crate::config::{ADMIN_SOCKET, RUN_FOLDER, socket_of};

/// Why it is not clear, or there is none.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("no mxd is running on this machine: nothing answers in {}", .0.display())]
    None(PathBuf),
    #[error("several daemons run on this machine: {}; say which with --name", .0.join(", "))]
    Several(Vec<String>),
    #[error("{}: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Connects to the daemon at a socket, or with a name, or to the only one there is.
///
/// # Errors
/// [`FindError`].
pub(super) fn connect(socket: Option<&Path>, name: Option<&str>) -> Result<Client, FindError> {
    match (socket, name) {
        (Some(socket), _) => Ok(Client::connect(socket)?),
        (None, Some(name)) => Ok(Client::connect(&socket_of(name))?),
        (None, None) => only_one(Path::new(RUN_FOLDER)),
    }
}

/// Every daemon that answers, by name.
///
/// # Errors
/// When this user may not ask, or the folder cannot be read.
pub(in crate::programs) fn running(folder: &Path) -> Result<Vec<(String, Client)>, FindError> {
    let failed = |source| FindError::Folder { folder: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match Client::connect(&entry.path().join(ADMIN_SOCKET)) {
            Ok(client) => found.push((name, client)),
            // A folder of somebody who does not run.
            Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(found)
}

fn only_one(folder: &Path) -> Result<Client, FindError> {
    let mut found = running(folder)?;
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(FindError::None(folder.to_owned())),
        (Some((_, client)), true) => Ok(client),
        (Some((last, _)), false) => {
            let names = found.into_iter().map(|(name, _)| name).chain([last]);
            Err(FindError::Several(names.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_only_daemon_needs_no_name_and_of_several_one_must_be_named() {
        let folder = std::env::temp_dir().join(format!("mx-find-{}", std::process::id()));
        let none = only_one(&folder).expect_err("there is no folder");
        assert!(none.to_string().starts_with("no mxd is running on this machine"), "{none}");
        let listen = |name: &str| {
            fs::create_dir_all(folder.join(name)).expect("a folder of ours");
            UnixListener::bind(folder.join(name).join(ADMIN_SOCKET)).expect("nobody else is there")
        };
        drop(listen("killed"));
        let _a = listen("a");
        assert!(only_one(&folder).is_ok());
        let _b = listen("b");
        let several = only_one(&folder).expect_err("there are two").to_string();
        assert!(several.contains("machine: a, b; say which"), "{several}");
        fs::remove_dir_all(folder).expect("a folder of ours");
    }
}
