//! mxarbiter: serves a device to the nodes of its cluster, and cuts off those that are fenced.
//!
//! Keeps true: the fenced set of a device is always sought in the same place, whatever path the
//! device and the socket have; a new one would let fenced nodes in again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use fencing::gate::Gate;
use fencing_agents::arbiter::server::{self, Server, StartError, Stop};
use fencing_agents::device::{Device, OpenError};
use fencing_agents::engine::Engine;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::disk::LocalDisk;
use crate::partition::{Identity, IdentityError, identify};

/// Serve a MatrixFS device to the nodes of its cluster, as the one program that writes to it.
///
/// Nodes on this machine connect to the socket. Runs in the foreground until SIGTERM or SIGINT, and
/// prints "ready" when nodes can connect (also told to a service manager by sd_notify). Exit
/// status: 0 stopped, 1 failed, 2 wrong usage, 3 the device, the socket or the state is in use.
#[derive(Parser, Debug)]
#[command(name = "mxarbiter", version)]
pub struct Options {
    /// Socket that the nodes connect to; made with mode 0600.
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,
    /// Directory with the set of fenced nodes. It belongs to the device and must outlive it: with
    /// another one fenced nodes are let in again. [default: /var/lib/matrixfs/arbiter/UUID, with the
    /// UUID of the file system]
    #[arg(long, value_name = "PATH")]
    pub state: Option<PathBuf>,
    /// How long to wait for a former arbiter's requests to end, in seconds, at most 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub patience: u64,
    /// What to log to standard error: error, warn, info, debug or trace, or a filter of
    /// tracing-subscriber.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// For tests: let clients inject faults.
    #[arg(long, hide = true)]
    pub accept_faults: bool,
    /// Block device or regular file, formatted by mkfs.matrixfs.
    pub device: PathBuf,
}

/// Exit status, as the help has it.
pub const STOPPED: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const IN_USE: u8 = 3;

/// Where the fenced sets of all devices are.
const STATE: &str = "/var/lib/matrixfs/arbiter";

/// Why the arbiter does not serve, or serves no more.
#[derive(Debug, thiserror::Error)]
pub enum ArbiterError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {source}", device.display())]
    Identity { device: PathBuf, source: IdentityError },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the kernel gives no io_uring, thread or descriptor")]
    System(#[from] io::Error),
}

impl ArbiterError {
    pub fn exit_status(&self) -> u8 {
        let in_use = match self {
            ArbiterError::Open(error) | ArbiterError::Start(StartError::Device(error)) => {
                matches!(error, OpenError::InUse { .. })
            }
            ArbiterError::Start(StartError::State(error)) => {
                matches!(error, server::StoreError::InUse { .. })
            }
            ArbiterError::Start(StartError::SocketInUse { .. }) => true,
            ArbiterError::Start(StartError::Socket { .. } | StartError::System(_))
            | ArbiterError::Identity { .. }
            | ArbiterError::System(_) => false,
        };
        if in_use { IN_USE } else { FAILED }
    }
}

/// Serves until a signal comes. `ready` is called when nodes can connect.
///
/// # Errors
/// [`ArbiterError`].
pub fn run(options: &Options, ready: impl FnOnce()) -> Result<(), ArbiterError> {
    let patience = Duration::from_secs(options.patience);
    let identity = identify_device(&options.device, patience)?;
    let device_id = identity.device_id();
    let state =
        options.state.clone().unwrap_or_else(|| Path::new(STATE).join(device_id.to_string()));
    let server = Server::start(server::Config {
        device: options.device.clone(),
        socket: options.socket.clone(),
        state,
        cluster: identity.fs.cluster_id,
        device_id,
        patience,
        accept_faults: options.accept_faults,
    })?;
    let stop = Stop::new()?;
    // Not before there is a server to stop: until then a signal may end the process at once.
    let _signals = stop_on_signals(stop.clone())?;
    ready();
    server.run(&stop)?;
    Ok(())
}

/// Reads whose device it is, and lets go of it: the server takes it anew.
fn identify_device(path: &Path, patience: Duration) -> Result<Identity, ArbiterError> {
    let device = Device::open(path, patience)?;
    let disk = LocalDisk::new(Arc::new(Engine::start(device)?), Gate::new());
    super::block_on(identify(&disk))?
        .map_err(|source| ArbiterError::Identity { device: path.to_owned(), source })
}

fn stop_on_signals(stop: Stop) -> io::Result<Runtime> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let signals = {
        let _entered = runtime.enter();
        [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?]
    };
    for mut signal in signals {
        let stop = stop.clone();
        runtime.spawn(async move {
            if signal.recv().await.is_some() {
                stop.raise();
            }
        });
    }
    Ok(runtime)
}
