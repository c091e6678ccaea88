//! mxd: the daemon of a node.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use cluster::End;
use tokio::signal::unix::{SignalKind, signal};

use super::mount::options::{MountOptions, Parsed};
use super::service::{log_to_stderr, notify_ready};
use crate::admin;
use crate::config::{Config, name_of_local, socket_of};
use crate::ready::Ready;
use crate::runtime::TokioRuntime;
use crate::server::{Administration, Control, Role, Server, ServerError};

/// Threads for the operations of the file system.
const THREADS: usize = 4;

/// Serve a node of a MatrixFS cluster, or a file system of this machine alone.
#[derive(Parser, Clone, Debug)]
#[command(name = "mxd", version)]
pub struct Options {
    /// Configuration file of the node (TOML).
    #[arg(long, value_name = "FILE", required_unless_present_any = ["local", "check_config"])]
    pub config: Option<PathBuf>,

    /// Check a configuration file and end.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "local"])]
    pub check_config: Option<PathBuf>,

    /// Serve the file system on a device of this machine, as a cluster of one.
    #[arg(long, value_name = "DEVICE", conflicts_with = "config", requires = "dir")]
    pub local: Option<PathBuf>,

    /// Mount on this directory, and end when it is unmounted.
    #[arg(long, value_name = "DIR", requires = "local")]
    pub dir: Option<PathBuf>,

    /// Options of the mount, as mount(8) takes them.
    #[arg(long, value_name = "LIST", default_value = "", requires = "local")]
    pub options: String,

    /// Descriptor on which one line says whether the node, or the mount, can be used.
    #[arg(long, value_name = "FD")]
    pub ready_fd: Option<RawFd>,

    /// What to log: error, warn, info, debug, trace, or a filter of tracing-subscriber. The
    /// configuration file says so for a node of a cluster.
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Runs the daemon to its end.
///
/// # Errors
/// Why it did not start or ended, for people.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut ready = match options.ready_fd {
        Some(fd) => Ready::on(fd)?,
        None => Ready::none(),
    };
    let outcome = serve(options, &mut ready);
    if let Err(error) = &outcome {
        ready.failed(&format!("{error:#}"));
    }
    outcome
}

fn serve(options: &Options, ready: &mut Ready) -> anyhow::Result<()> {
    let role = match (&options.config, options.local.as_ref().zip(options.dir.as_ref())) {
        (Some(file), _) => Role::Cluster(Box::new(Config::read(file)?)),
        (None, Some((device, dir))) => Role::Local { device: device.clone(), dir: dir.clone() },
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    let filter = match (&options.log, &role) {
        (Some(filter), _) => filter.clone(),
        (None, Role::Cluster(config)) => config.log.to_string(),
        (None, Role::Local { .. }) => "info".to_owned(),
    };
    let _log = log_to_stderr(&filter)?;
    protect_from_memory_pressure();
    let mounting = match &options.dir {
        Some(dir) => Some((dir.clone(), Parsed::parse(&options.options, false)?.options)),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("mx-fs")
        .enable_all()
        .build()?;
    let control = Control::start()?;
    let outcome = runtime.block_on(async {
        loop {
            let for_fs = TokioRuntime::new(tokio::runtime::Handle::current());
            let server = Server::start(&role, &control, for_fs).await?;
            let outcome = match &mounting {
                Some((dir, options)) => local(&server, dir.clone(), *options, ready).await,
                None => cluster(&server, &role, ready).await,
            };
            match outcome {
                // Nothing of this life was ever in the cluster: the next one may be let in.
                Err(ServerError::Ended(end @ (End::LifeUsed { .. } | End::ColdStartRefused))) => {
                    tracing::info!(%end, "starting over with a new life");
                }
                outcome => return outcome,
            }
        }
    });
    // Threads that wait for the kernel or a device that does not answer are not waited for.
    runtime.shutdown_background();
    Ok(outcome?)
}

/// A mount that brings its own daemon.
async fn local(
    server: &Arc<Server>,
    dir: PathBuf,
    options: MountOptions,
    ready: &mut Ready,
) -> Result<(), ServerError> {
    let listener = admin::Server::bind(&socket_of(&name_of_local(&dir)))?;
    tokio::select! {
        mounted = server.mount(dir, options) => mounted?,
        end = server.ended() => return Err(ServerError::Ended(end)),
    }
    let source = Arc::new(Administration(Arc::clone(server)));
    let answering = tokio::spawn(async move { listener.run(source).await });
    ready.ok();
    notify_ready();
    let mut signals = Signals::new()?;
    tokio::select! {
        () = server.until_unmounted() => {}
        () = signals.stop() => stop(server).await,
        end = server.ended() => return Err(ServerError::Ended(end)),
        () = server.stop_asked() => {}
    }
    let end = server.leave().await;
    answering.abort();
    end_of(end)
}

/// How a node ends that was told to.
fn end_of(end: End) -> Result<(), ServerError> {
    if end == End::Left { Ok(()) } else { Err(ServerError::Ended(end)) }
}

/// A node of a cluster: mounts when it is told to.
async fn cluster(server: &Arc<Server>, role: &Role, ready: &mut Ready) -> Result<(), ServerError> {
    let Role::Cluster(config) = role else { unreachable!("only a cluster has no directory") };
    let listener = admin::Server::bind(&config.admin_socket(server.label())?)?;
    let source = Arc::new(Administration(Arc::clone(server)));
    let answering = tokio::spawn(async move { listener.run(source).await });
    ready.ok();
    notify_ready();
    let mut signals = Signals::new()?;
    let ended = async {
        let end = server.ended().await;
        if end == End::Left {
            // It goes on answering until it is told to stop.
            server.stop_asked().await;
        }
        end
    };
    let outcome = tokio::select! {
        () = signals.stop() => {
            stop(server).await;
            let end = server.leave().await;
            if end == End::Left { Ok(()) } else { Err(ServerError::Ended(end)) }
        }
        end = ended => end_of(end),
        () = server.stop_asked() => Ok(()),
    };
    answering.abort();
    outcome
}

/// Unmounts for a service manager that stops the daemon: who still uses the mount keeps what is
/// open and finds it gone.
async fn stop(server: &Arc<Server>) {
    if server.unmount().is_err() {
        tracing::warn!("the mount is in use: taken out of the tree; waiting for the last user");
        server.detach();
    }
    tokio::select! {
        () = server.until_unmounted() => {}
        _ = server.ended() => {}
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Memory that this process needs while the kernel writes back through it must not wait for that
/// writing (prctl(2), `PR_SET_IO_FLUSHER`), and a node is the last to be killed for want of memory.
fn protect_from_memory_pressure() {
    const PR_SET_IO_FLUSHER: i32 = 57;
    // SAFETY: no memory is passed.
    if unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "writing back may wait for itself when memory is short");
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "-1000") {
        tracing::warn!(%error, "this node may be killed when memory is short");
    }
}
