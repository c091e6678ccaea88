//! The file system of a node in the tree of this machine: from the request to the last close.
//!
//! Keeps true: a mount is usable when its making returns, and when it is gone everything of it is
//! in place and its locks are given up, or this life of the node has ended.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mfs::env::Runtime;
use mfs::file::FileId;
use mfs::{Fs, FsError};
use mfs_fuse::{Connection, Lease, MountFlags, Mounting, Notifier, Session, SessionError};
use mx_base::{FsId, Instant};
use mx_node::{MountError, Node};
use nix::mount::{MntFlags, umount2};
use tokio::time::timeout;

/// How something is to be mounted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Shown as the source.
    pub source: String,
    pub dir: PathBuf,
    pub flags: MountFlags,
    pub options: mfs::Options,
    /// Other nodes may have it mounted too.
    pub cluster: bool,
    /// May the kernel keep names?
    pub keeps_names: bool,
    pub fs: FsId,
    pub device_blocks: u64,
    pub root: FileId,
}

/// Why something is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum NotMounted {
    #[error(transparent)]
    Node(#[from] MountError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("{}: {source}", dir.display())]
    Directory { dir: PathBuf, source: io::Error },
    #[error("{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
}

/// Why the options of a mount are not changed.
#[derive(Debug, thiserror::Error)]
pub enum NotRemounted {
    #[error("not mounted here")]
    NotMounted,
    #[error("it is served read-only: unmount it and mount it again")]
    ReadOnly,
    #[error("option `submounts` holds from mount to unmount")]
    Submounts,
    #[error("files are open for writing, or were unlinked and are still open")]
    Busy,
    #[error(transparent)]
    Kernel(#[from] io::Error),
    #[error("it is read-only, and what was written before is not on the device: {0}")]
    NotWritten(#[from] FsError),
}

/// How long the kernel may take to be done with files that were closed.
const CLOSED_FILES: Duration = Duration::from_secs(1);

/// How often it is asked meanwhile.
const RETRY: Duration = Duration::from_millis(20);

/// How long it may take to drop what it has cached of all files.
const DROPPED: Duration = Duration::from_secs(10);

/// A file system that is mounted and served.
pub struct Served {
    node: Arc<Node>,
    fs: FsId,
    keeps_names: bool,
    session: Session,
    source: String,
    lease: Arc<Lease>,
    kernel: Arc<Notifier>,
}

impl Served {
    /// Mounts. Waits until the cluster lets this node.
    ///
    /// # Errors
    /// [`NotMounted`]; nothing is mounted then.
    pub async fn mount(
        node: Arc<Node>,
        runtime: Arc<dyn Runtime>,
        wanted: Wanted,
    ) -> Result<Served, NotMounted> {
        let Wanted {
            source,
            dir,
            flags,
            options,
            cluster,
            keeps_names,
            fs: id,
            device_blocks,
            root,
        } = wanted;
        let dir = match dir.canonicalize() {
            Ok(found) if found.is_dir() => found,
            Ok(_) => return Err(NotMounted::NotADirectory(dir)),
            Err(source) => return Err(NotMounted::Directory { dir, source }),
        };
        let connection = Connection::open(root, device_blocks)?;
        let (kernel, lease) = (connection.kernel(), Arc::new(Lease::unlimited()));
        let as_cache = Arc::clone(&kernel) as Arc<dyn mfs::env::KernelCache>;
        let fs = node.mount(id, options, as_cache).await?;
        if cluster {
            lease.set(node.permit_until());
        }
        let mounting = Mounting { source: source.clone(), dir, flags, cluster, keeps_names };
        let locks = node.file_locks(id).expect("what is mounted is one of the node's");
        match connection.serve(fs, locks, runtime, Arc::clone(&lease), &mounting) {
            Ok(session) => Ok(Served { node, fs: id, keeps_names, session, source, lease, kernel }),
            Err(error) => {
                node.unmount(id).await?;
                Err(error.into())
            }
        }
    }

    /// Keeps the lease as long as the node's permit, and drops the kernel's caches when it has run
    /// out (R13), for as long as the mount is there. For a mount beside others.
    pub async fn keep_lease(self: Arc<Self>, unit: Duration, clock: impl Fn() -> Instant) {
        let served = Arc::downgrade(&self);
        let over = self.session.ended();
        drop(self);
        let keeping = async {
            let mut is_dropped = false;
            while let Some(served) = served.upgrade() {
                let until = served.node.permit_until();
                served.lease.set(until);
                let runs_out = until <= clock();
                if runs_out && !is_dropped {
                    tracing::warn!("no permit: what the kernel has cached is dropped");
                    // Pages that the kernel is reading wait for the permit, and this for them.
                    let kernel = Arc::clone(&served.kernel);
                    tokio::spawn(async move { kernel.forget_everything().await });
                }
                is_dropped = runs_out;
                drop(served);
                tokio::time::sleep(unit / 2).await;
            }
        };
        tokio::select! {
            () = keeping => {}
            () = over => {}
        }
    }

    /// Changes how it is mounted; what is said of `submounts` has to be what holds.
    ///
    /// # Errors
    /// [`NotRemounted`]; nothing is changed then, but by `NotWritten`.
    pub async fn remount(
        self: Arc<Self>,
        flags: MountFlags,
        submounts: Option<bool>,
    ) -> Result<(), NotRemounted> {
        if submounts.is_some_and(|submounts| submounts == self.keeps_names) {
            return Err(NotRemounted::Submounts);
        }
        let is_read_only = |fs: Arc<Fs>| fs.options().read_only;
        if !flags.read_only && self.fs().map(is_read_only).ok_or(NotRemounted::NotMounted)? {
            return Err(NotRemounted::ReadOnly);
        }
        let deadline = tokio::time::Instant::now() + CLOSED_FILES;
        loop {
            // The kernel writes its pages first, and waits for us to take them.
            let served = Arc::clone(&self);
            let changing = tokio::task::spawn_blocking(move || served.session.remount(flags));
            match changing.await.map_err(io::Error::other)? {
                Ok(()) => break,
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    return Err(error.into());
                }
                Err(_) if tokio::time::Instant::now() >= deadline => {
                    return Err(NotRemounted::Busy);
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        if let Some(fs) = self.fs() {
            fs.keep_access_times(!flags.read_only && !flags.no_atime);
            if flags.read_only {
                // It asks nobody but virtiofs to make that durable (`fuse_sync_fs`, fs/fuse/inode.c).
                fs.sync().await?;
            }
        }
        Ok(())
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn fs(&self) -> Option<Arc<Fs>> {
        self.node.fs(self.fs)
    }

    /// Waits until somebody has unmounted it and leaves it in order.
    ///
    /// # Errors
    /// When not everything could be written: this life of the node has ended then.
    pub async fn until_unmounted(self: Arc<Self>) -> Result<(), MountError> {
        self.session.ended().await;
        tracing::info!(dir = %self.session.dir().display(), "unmounted");
        let (node, fs) = (Arc::clone(&self.node), self.fs);
        drop(self);
        node.unmount(fs).await
    }

    /// This life of the node is over: drops what the kernel has cached, which it would go on showing
    /// without anybody who serves it, and takes it out of the tree, whoever uses it.
    pub async fn give_up(&self) {
        // Pages that are being read would hold that up: whoever waits for a permit fails now.
        self.lease.set(self.node.permit_until());
        if timeout(DROPPED, self.kernel.forget_everything()).await.is_err() {
            tracing::error!("the kernel goes on showing some of what it has cached");
        }
        self.detach();
    }

    /// Takes it out of the tree, whoever uses it.
    pub fn detach(&self) {
        if let Err(error) = umount2(self.session.dir(), MntFlags::MNT_DETACH) {
            tracing::debug!(%error, "detach");
        }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("session", &self.session).finish_non_exhaustive()
    }
}
