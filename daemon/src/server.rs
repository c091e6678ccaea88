//! mxd: one node, from its start to its end.
//!
//! Keeps true:
//! * a start that was told of success serves; one that was told of an error has left nothing behind;
//! * heartbeats, views and the membership partition run on a thread of their own, which the file
//!   system's work never holds up;
//! * when this life of the node has ended nothing of it is mounted any more, and the process ends:
//!   a new start joins as a new life (R16).

mod administration;
mod control;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::{End, StartNonce};
use fencing::Closed;
use mfs::env::Runtime;
use mfs::layout::Layout;
use mfs_fuse::MountFlags;
use mx_base::{FsId, NodeId};
use mx_node::{FileSystem, FileSystems, MountError, Node, Place, Surroundings, World, report};
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::sync::Notify;

use crate::admin;
use crate::config::{Config, LabelNoName, name_of_local};
use crate::join::{self, PrepareError, Prepared};
use crate::mounts::{NotMounted, NotRemounted, Served, Wanted};
use crate::peers::{ListenError, Peers};
use crate::programs::mount::options::MountOptions;
use crate::runtime::now;

pub use administration::Administration;
pub use control::Control;

/// How long a start waits for the arbiter to be there.
const ARBITER_PATIENCE: Duration = Duration::from_secs(30);

/// How long a start waits for requests of a former user of a device of this machine.
const DEVICE_PATIENCE: Duration = Duration::from_millis(500);

/// How long a planned leave may take before this node is cut off instead.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);

/// What to serve.
#[derive(Clone, Debug)]
pub enum Role {
    /// A node of a cluster.
    Cluster(Box<Config>),
    /// A cluster of one, on a device of this machine.
    Local { device: PathBuf, dir: PathBuf },
}

/// Why a node did not start, or ended other than as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the unit of time-outs on the device, {0:?}, is below 50 ms")]
    Unit(Duration),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    Name(#[from] LabelNoName),
    #[error(transparent)]
    Mount(#[from] NotMounted),
    #[error("no thread, memory or random numbers: {0}")]
    System(#[from] std::io::Error),
    #[error("this node is out of the cluster: {0}")]
    Ended(End),
}

/// One node that runs in this process.
pub struct Server {
    node: Arc<Node>,
    runtime: Arc<dyn Runtime>,
    gate: Arc<fencing::Gate>,
    fs: FsId,
    layout: Layout,
    root: mfs::FileId,
    label: String,
    name: String,
    /// What the mount is shown to come from.
    source: String,
    is_cluster: bool,
    here: Mutex<Here>,
    /// Told whenever `here` has changed.
    changed: Notify,
    /// Told when the process is to end.
    stopping: Notify,
    peers: Option<Arc<Peers>>,
}

/// What is mounted on this machine.
#[derive(Default)]
struct Here {
    served: Option<Arc<Served>>,
    /// The kernel has let the mount go, and what was written is being put in place.
    is_ending: bool,
}

impl Server {
    /// Starts a node; it goes on joining when this returns.
    ///
    /// # Errors
    /// [`ServerError`]; nothing is left behind.
    pub async fn start(
        role: &Role,
        control: &Control,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Arc<Server>, ServerError> {
        let nonce = random_nonce()?;
        let (node, prepared, peers) = match role {
            Role::Cluster(config) => {
                let shared =
                    join::prepare_shared(&config.arbiter, config.node, nonce, ARBITER_PATIENCE);
                (config.node, shared.await?, config.peers.clone())
            }
            Role::Local { device, .. } => {
                let node = NodeId::new(1).expect("1 is a node id");
                (node, join::prepare_local(device, node, DEVICE_PATIENCE).await?, BTreeMap::new())
            }
        };
        let Prepared { disk, partition, agent, gate, identity, me } = prepared;
        let name = match role {
            Role::Cluster(config) => config.name(&identity.fs.label)?.to_owned(),
            Role::Local { dir, .. } => name_of_local(dir),
        };
        let unit = identity.membership.unit;
        let unit = cluster::Unit::new(unit).ok_or(ServerError::Unit(unit))?;
        let listen = match role {
            Role::Cluster(config) => Some(config.listen.clone()),
            Role::Local { .. } => None,
        };
        let config = mx_node::Config {
            cluster: identity.fs.cluster_id,
            file_systems: FileSystems::one(FileSystem {
                id: identity.fs.fs_id,
                device: identity.device_id(),
                layout: identity.fs.layout,
                disk,
            }),
            me,
            nonce,
            peers: peers.keys().copied().collect::<BTreeSet<_>>(),
            unit,
            nodes_max: identity.membership.nodes_max,
            seed: random_nonce()?.get(),
        };
        debug_assert!(!config.peers.contains(&node), "a configuration lists the others only");
        let (network, peers) = control.network(listen, peers)?;
        let world = World {
            network,
            partition,
            agent,
            control: control.runtime(),
            runtime: Arc::clone(&runtime),
        };
        let started = Node::start(config, world);
        started.name_callers(mfs_fuse::caller::pid);
        if let Some(peers) = &peers {
            peers.start(control::events_of(&started));
        }
        Ok(Arc::new(Server {
            node: started,
            runtime,
            gate,
            fs: identity.fs.fs_id,
            layout: identity.fs.layout,
            root: identity.fs.root,
            label: identity.fs.label.clone(),
            source: match role {
                Role::Cluster(_) => name.clone(),
                Role::Local { device, .. } => device.display().to_string(),
            },
            name,
            is_cluster: matches!(role, Role::Cluster(_)),
            here: Mutex::default(),
            changed: Notify::new(),
            stopping: Notify::new(),
            peers,
        }))
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// NAME of `mount -t matrixfs NAME DIR`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file system that this node serves.
    pub(crate) fn fs(&self) -> FsId {
        self.fs
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The root directory of the file system.
    pub(crate) fn root(&self) -> mfs::FileId {
        self.root
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    /// Mounts the file system on a directory of this machine; usable when it returns.
    ///
    /// # Errors
    /// [`NotMounted`].
    pub async fn mount(
        self: &Arc<Self>,
        dir: PathBuf,
        options: MountOptions,
    ) -> Result<(), NotMounted> {
        let MountOptions { read_only, no_atime, submounts, .. } = options;
        let wanted = Wanted {
            source: self.source.clone(),
            dir,
            flags: flags_of(options),
            options: mfs::Options { read_only, no_atime, ..mfs::Options::default() },
            cluster: self.is_cluster,
            keeps_names: submounts != Some(true),
            fs: self.fs,
            device_blocks: self.layout.device_blocks,
            root: self.root,
        };
        let mount = Served::mount(Arc::clone(&self.node), Arc::clone(&self.runtime), wanted);
        let served = Arc::new(mount.await?);
        tracing::info!(dir = %served.session().dir().display(), "mounted");
        self.here.lock().served = Some(Arc::clone(&served));
        self.changed.notify_waiters();
        if self.is_cluster {
            let unit = self.node.config().unit.get();
            tokio::spawn(Arc::clone(&served).keep_lease(unit, now));
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            served.session().ended().await;
            // The one here and the one in the server are the last.
            drop(served);
            server.unmounted().await;
        });
        Ok(())
    }

    /// Changes the options of what is mounted on a directory.
    ///
    /// # Errors
    /// [`NotRemounted`]; they are as they were then.
    pub async fn remount(&self, dir: &Path, options: MountOptions) -> Result<(), NotRemounted> {
        let served = self.here.lock().served.clone();
        let served = served.filter(|served| served.session().dir() == dir);
        let served = served.ok_or(NotRemounted::NotMounted)?;
        served.remount(flags_of(options), options.submounts).await?;
        tracing::info!(dir = %dir.display(), %options, "options changed");
        Ok(())
    }

    /// The kernel has let the mount go: everything of it is put in place.
    async fn unmounted(&self) {
        let served = {
            let here = &mut *self.here.lock();
            here.is_ending = true;
            here.served.take()
        };
        if let Some(served) = served
            && let Err(error) = served.until_unmounted().await
            && !matches!(error, MountError::NotMounted)
        {
            tracing::error!(%error, "unmounted");
        }
        self.here.lock().is_ending = false;
        self.changed.notify_waiters();
    }

    /// Completes when nothing is mounted here any more, and everything of what was is in place.
    pub async fn until_unmounted(&self) {
        loop {
            let changed = self.changed.notified();
            let is_here = {
                let here = self.here.lock();
                here.served.is_some() || here.is_ending
            };
            if !is_here && self.node.fs(self.fs).is_none() {
                return;
            }
            changed.await;
        }
    }

    pub fn mounted_on(&self) -> Option<PathBuf> {
        self.here.lock().served.as_ref().map(|served| served.session().dir().to_owned())
    }

    /// Takes the mount out of the tree.
    ///
    /// # Errors
    /// When somebody uses it.
    pub fn unmount(&self) -> std::io::Result<()> {
        match &self.here.lock().served {
            Some(served) => served.session().unmount(false),
            None => Ok(()),
        }
    }

    /// Takes the mount out of the tree, whoever uses it.
    pub fn detach(&self) {
        if let Some(served) = &self.here.lock().served {
            served.detach();
        }
    }

    /// Leaves the cluster in good order, after everything is unmounted.
    pub async fn leave(&self) -> End {
        self.node.leave();
        match tokio::time::timeout(LEAVE_PATIENCE, self.node.ended()).await {
            Ok(end) => end,
            Err(_) => {
                tracing::error!("the others did not let this node go; cutting it off");
                self.node.cut_off(Closed::SelfFenced);
                self.node.ended().await
            }
        }
    }

    /// Completes when this life has ended; what was mounted is detached then.
    pub async fn ended(&self) -> End {
        let end = self.node.ended().await;
        let served = self.here.lock().served.clone();
        if let Some(served) = served {
            served.give_up().await;
        }
        if let Some(peers) = &self.peers {
            peers.shut_down();
        }
        end
    }

    /// Tells whoever runs this server to end the process.
    pub fn stop(&self) {
        self.stopping.notify_one();
    }

    pub async fn stop_asked(&self) {
        self.stopping.notified().await;
    }

    pub(crate) fn surroundings(&self) -> Surroundings {
        let served = self.here.lock().served.clone();
        let place = Place {
            label: self.label.clone(),
            directory: served.as_ref().map(|s| s.session().dir().display().to_string()),
            requests: served
                .iter()
                .flat_map(|served| served.session().requests())
                .map(|(operation, count)| (operation.to_owned(), count))
                .collect(),
        };
        Surroundings {
            name: self.name.clone(),
            file_systems: BTreeMap::from([(self.fs, place)]),
            gate: report::Gate::of(&self.gate),
        }
    }
}

/// Never 0.
fn random_nonce() -> std::io::Result<StartNonce> {
    let mut bytes = [0; 8];
    loop {
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        if let Some(nonce) = StartNonce::new(u64::from_le_bytes(bytes)) {
            return Ok(nonce);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the kernel is told of them.
fn flags_of(options: MountOptions) -> MountFlags {
    let MountOptions { read_only, no_suid, no_dev, no_exec, no_atime, submounts: _ } = options;
    MountFlags { read_only, no_suid, no_dev, no_exec, no_atime }
}
