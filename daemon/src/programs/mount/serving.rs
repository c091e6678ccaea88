//! Which daemon of this machine serves a mount.

use std::path::Path;

use super::table;
use crate::admin::Client;
use crate::admin::client::Process;
use crate::config::RUN_FOLDER;
use crate::programs::ctl::find;

/// A daemon that serves the mount.
pub(super) struct Daemon {
    pub(super) client: Client,
    pub(super) process: Process,
}

/// `None` when it is gone.
pub(super) fn daemon_of(dir: &Path) -> Option<Daemon> {
    let noted = table::noted_socket(dir).and_then(|socket| Client::connect(&socket).ok());
    let others = || find::running(Path::new(RUN_FOLDER)).unwrap_or_default();
    let mut clients = noted.into_iter().chain(others().into_iter().map(|(_, client)| client));
    clients.find_map(|mut client| {
        let status = client.status().ok()?;
        let here = |at: &Option<String>| at.as_ref().is_some_and(|at| Path::new(at) == dir);
        let serves = status.mounts.iter().any(|mount| here(&mount.directory));
        let process = client.process().ok()?;
        serves.then_some(Daemon { client, process })
    })
}
