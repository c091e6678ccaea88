//! Mounting, serving, and the end of a mount.
//!
//! The daemon mounts the descriptor itself, so that a duplicate of it stays for notifications (and,
//! later, with the guard). It never touches a path below its own mount.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_channel::oneshot;
use futures_util::future::{self, FutureExt};
use mfs::Fs;
use mfs::env::{FileLocks, Runtime};
use mfs::file::FileId;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::adapter::{self, Adapter, Shared};
use crate::lease::Lease;
use crate::nodes::Nodes;
use crate::notify::Notifier;
use crate::transport::device::{self, Device};

/// Threads that read requests.
const THREADS: usize = 2;

/// Why a file system was not mounted.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("cannot open /dev/fuse: {0}")]
    Device(#[source] io::Error),
    #[error("cannot mount on {}: {source}", dir.display())]
    Mount { dir: PathBuf, source: io::Error },
    #[error("the kernel's FUSE did not answer: {0}")]
    Handshake(#[source] io::Error),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Options that the kernel itself acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MountFlags {
    pub read_only: bool,
    pub no_suid: bool,
    pub no_dev: bool,
    pub no_exec: bool,
    pub no_atime: bool,
}

/// What is mounted where.
#[derive(Clone, Debug)]
pub struct Mounting {
    /// Shown as the source: the device, or the cluster's name for the file system.
    pub source: String,
    pub dir: PathBuf,
    pub flags: MountFlags,
    /// Other nodes may have it mounted too.
    pub cluster: bool,
    /// May the kernel keep names? To forget one that another node has changed it has to forget all,
    /// and that detaches what is mounted on a directory of this file system (`kernel-cache.md`,
    /// fact 2).
    pub keeps_names: bool,
}

/// A connection to the kernel that nothing is mounted on yet.
#[derive(Debug)]
pub struct Connection {
    device: File,
    duplicate: File,
    nodes: Arc<Nodes>,
    notifier: Arc<Notifier>,
}

impl Connection {
    /// Opens one, for a file system with this root on a device of so many blocks.
    ///
    /// # Errors
    /// [`SessionError::Device`], [`SessionError::Thread`].
    pub fn open(root: FileId, device_blocks: u64) -> Result<Connection, SessionError> {
        let device = device::open().map_err(SessionError::Device)?;
        let duplicate = device.try_clone().map_err(SessionError::Device)?;
        let nodes = Arc::new(Nodes::new(root, device_blocks));
        let notifier =
            Notifier::start(&duplicate, Arc::clone(&nodes)).map_err(SessionError::Thread)?;
        Ok(Connection { device, duplicate, nodes, notifier })
    }

    /// What the file system tells to forget.
    pub fn kernel(&self) -> Arc<Notifier> {
        Arc::clone(&self.notifier)
    }

    /// Mounts and serves until the file system is unmounted.
    ///
    /// # Errors
    /// [`SessionError`]; nothing is mounted then.
    pub fn serve(
        self,
        fs: Arc<Fs>,
        locks: Arc<dyn FileLocks>,
        runtime: Arc<dyn Runtime>,
        lease: Arc<Lease>,
        mounting: &Mounting,
    ) -> Result<Session, SessionError> {
        mount_device(&self.device, mounting)
            .map_err(|source| SessionError::Mount { dir: mounting.dir.clone(), source })?;
        let unmount = Unmount(Some(mounting.dir.clone()));
        let Connection { device, duplicate, nodes, notifier } = self;
        let shared = Shared::new(fs, nodes, Arc::clone(&notifier), locks, runtime, lease);
        let (device, features) = Device::greet(device, adapter::features(mounting.cluster))
            .map_err(SessionError::Handshake)?;
        tracing::debug!(features = format_args!("{:#x}", features.0), "agreed with the kernel");
        if mounting.keeps_names {
            notifier.connected(&duplicate);
        }
        let adapter = Adapter { shared: Arc::clone(&shared) };
        let threads = device
            .serve(THREADS, move |message, channel, all| adapter.handle(message, channel, all))
            .map_err(SessionError::Thread)?;
        let (serving, over) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("fuse".to_owned())
            .spawn(move || {
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a FUSE thread panicked");
                    }
                }
                notifier.disconnected();
                drop(serving);
            })
            .map_err(SessionError::Thread)?;
        unmount.disarm();
        Ok(Session { dir: mounting.dir.clone(), shared, thread, over: over.shared() })
    }
}

/// A mounted file system that is being served.
pub struct Session {
    dir: PathBuf,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Ready when serving has ended.
    over: future::Shared<oneshot::Receiver<()>>,
}

impl Session {
    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Requests answered so far, by operation; those that never came are left out.
    pub fn requests(&self) -> Vec<(&'static str, u64)> {
        self.shared.requests.by_operation()
    }

    /// Nodes that the kernel knows at present.
    pub fn nodes(&self) -> usize {
        self.shared.nodes.len()
    }

    /// Takes the mount out of the tree; serving ends when nobody uses it any more.
    ///
    /// # Errors
    /// What umount2(2) says, EBUSY unless `lazy`.
    pub fn unmount(&self, lazy: bool) -> io::Result<()> {
        let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        umount2(&self.dir, flags).map_err(io::Error::from)
    }

    /// Changes how it is mounted. Blocks until the kernel has had everything written, which is asked
    /// of this session.
    ///
    /// # Errors
    /// `EBUSY` when it is to be read-only while files are open for writing, or are open and have no
    /// name any more; nothing is changed then.
    pub fn remount(&self, flags: MountFlags) -> io::Result<()> {
        let mut change = ms_flags(flags) | MsFlags::MS_REMOUNT;
        // Else the kernel keeps what it had.
        change.set(MsFlags::MS_RELATIME, !flags.no_atime);
        let nothing = None::<&str>;
        mount(nothing, &self.dir, nothing, change, nothing).map_err(io::Error::from)
    }

    /// Completes when the file system is unmounted and no request comes any more.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let over = self.over.clone();
        async move {
            // The sender only ever goes.
            let _ = over.await;
        }
    }

    /// Returns when the file system is unmounted and the last request is answered.
    pub fn wait(self) {
        if self.thread.join().is_err() {
            tracing::error!("a FUSE thread panicked");
        }
    }
}

fn mount_device(device: &File, mounting: &Mounting) -> io::Result<()> {
    let flags = ms_flags(mounting.flags);
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    mount(
        Some(mounting.source.as_str()),
        &mounting.dir,
        Some("fuse.matrixfs"),
        flags,
        Some(options.as_str()),
    )
    .map_err(io::Error::from)
}

fn ms_flags(flags: MountFlags) -> MsFlags {
    let MountFlags { read_only, no_suid, no_dev, no_exec, no_atime } = flags;
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, read_only);
    flags.set(MsFlags::MS_NOSUID, no_suid);
    flags.set(MsFlags::MS_NODEV, no_dev);
    flags.set(MsFlags::MS_NOEXEC, no_exec);
    flags.set(MsFlags::MS_NOATIME, no_atime);
    flags
}

/// Unmounts when the mount could not be served.
struct Unmount(Option<PathBuf>);

impl Unmount {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take() {
            let _ = umount2(&dir, MntFlags::MNT_DETACH);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("dir", &self.dir).finish_non_exhaustive()
    }
}
