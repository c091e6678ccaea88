//! The node: one latch around all machines, and what they say carried out in order.
//!
//! Keeps true between calls:
//! * every input is handled completely: what it means for one machine has been passed to the
//!   others until nothing is left, and what is to be done outside has been handed over;
//! * messages to one member leave in the order in which the machines made them;
//! * once the node has ended nothing of it reaches shared storage or other nodes.
//!
//! The latch is never held while waiting. A pin of a cached lock does not come here at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use cluster::{Cluster, ConnectionId, End};
use fencing::Closed;
use lcl::LockCache;
use mfs::env::Runtime;
use mx_base::{ClusterId, FsId, Instant, Member, NodeId};
use mx_latch::Latch;

use crate::backlog::Backlog;
use crate::file_system::{FsCore, Local};
use crate::file_systems::FileSystems;
use crate::storage::Storage;
use crate::world::{Network, Partition};

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: ClusterId,
    pub file_systems: FileSystems,
    /// This node in the life that it has registered with shared storage.
    pub me: Member,
    /// Drawn at random for this start.
    pub nonce: cluster::StartNonce,
    /// All other nodes that may be in the cluster.
    pub peers: BTreeSet<NodeId>,
    pub unit: cluster::Unit,
    /// Node ids 1 to this may be in use; from the superblock of the membership partition.
    pub nodes_max: u16,
    /// For the pauses between attempts.
    pub seed: u64,
}

/// What a node acts on.
#[derive(Clone)]
pub struct World {
    pub network: Arc<dyn Network>,
    pub partition: Arc<dyn Partition>,
    pub agent: Arc<dyn fencing::FenceAgent>,
    /// For heartbeats, timers and the membership partition: never behind the file system's work.
    pub control: Arc<dyn Runtime>,
    /// For the file systems.
    pub runtime: Arc<dyn Runtime>,
}

/// One node in one life. When it has ended, a new one is made to join again.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) world: World,
    pub(crate) locals: BTreeMap<FsId, Arc<Local>>,
    pub(crate) weak: Weak<Node>,
    core: Latch<Core>,
    pub(crate) caller: OnceLock<fn() -> Option<u32>>,
}

/// All machines, and what connects them.
pub(crate) struct Core {
    pub(crate) cluster: Cluster,
    pub(crate) storage: Storage,
    pub(crate) file_systems: BTreeMap<FsId, FsCore>,
    /// Members of the present view that have broken a rule of the locks.
    pub(crate) distrusted: BTreeSet<Member>,
    pub(crate) backlog: Backlog,
    /// When what a dead member cached is gone.
    pub(crate) caches_gone: BTreeMap<Member, Instant>,
    /// A look at the register is under way; another is wanted.
    pub(crate) looking: bool,
    pub(crate) look_again: bool,
    pub(crate) armed: Option<Instant>,
    pub(crate) ended: Option<End>,
    watchers: Vec<futures_channel::oneshot::Sender<()>>,
    pub(crate) violations: u64,
    pub(crate) is_leaving: bool,
}

impl Node {
    /// A node that looks for the others and joins them, or starts the cluster. Former lives of it
    /// are over (R5), and this one is registered with shared storage.
    pub fn start(config: Config, world: World) -> Arc<Node> {
        let now = world.control.now();
        let cluster = Cluster::new(
            cluster::Config {
                cluster: config.cluster,
                me: config.me.node,
                incarnation: config.me.incarnation,
                peers: config.peers.clone(),
                unit: config.unit,
                start: config.nonce,
                seed: config.seed,
            },
            now,
        );
        let storage = Storage::new(&config, now);
        let node = Arc::new_cyclic(|weak: &Weak<Node>| {
            let given = config.file_systems.with_lockspaces();
            let locals: BTreeMap<FsId, Arc<Local>> =
                given.map(|(fs, id)| (fs.id, Arc::new(Local::new(fs.clone(), id, weak)))).collect();
            let states = locals
                .iter()
                .map(|(id, local)| (*id, FsCore::new(Arc::clone(local), &config.file_systems)));
            let core = Core {
                cluster,
                storage,
                file_systems: states.collect(),
                distrusted: BTreeSet::new(),
                backlog: Backlog::default(),
                caches_gone: BTreeMap::new(),
                looking: false,
                look_again: false,
                armed: None,
                ended: None,
                watchers: Vec::new(),
                violations: 0,
                is_leaving: false,
            };
            Node {
                config,
                world,
                locals,
                weak: weak.clone(),
                core: Latch::new(core),
                caller: OnceLock::new(),
            }
        });
        node.spawn_watch();
        node.run(|_, _| {});
        node
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Hands an input to the machines and carries out all that follows from it.
    pub(crate) fn run<T>(&self, act: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let mut core = self.core.lock();
        // Not before: a thread that waits for the latch must not take what it then learns for old,
        // or a dead member's permit would seem to end too early.
        let now = self.world.control.now();
        let result = act(&mut core, now);
        self.carry_out(&mut core, now);
        self.arm(&mut core, now);
        result
    }

    /// Looks without changing anything.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.core.lock())
    }

    // Connections

    pub fn handle_accepted(&self, connection: ConnectionId) {
        self.run(|core, now| core.cluster.handle_accepted(connection, now));
    }

    pub fn handle_connected(&self, peer: NodeId, connection: ConnectionId) {
        self.run(|core, now| core.cluster.handle_connected(peer, connection, now));
    }

    /// `refused`: the peer's host answered, and no process listens there.
    pub fn handle_connect_failed(&self, peer: NodeId, refused: bool) {
        self.run(|core, now| core.cluster.handle_connect_failed(peer, refused, now));
    }

    pub fn handle_bytes(&self, connection: ConnectionId, bytes: &[u8]) {
        self.run(|core, now| core.cluster.handle_bytes(connection, bytes, now));
    }

    pub fn handle_closed(&self, connection: ConnectionId) {
        self.run(|core, now| core.cluster.handle_closed(connection, now));
    }

    // Going

    /// Leaves the cluster in good order; what is mounted has to be unmounted first. A mount that
    /// is not complete is given up.
    pub fn leave(&self) {
        self.run(|core, now| {
            core.is_leaving = true;
            core.file_systems.values_mut().for_each(|fs| fs.mounting.leaving());
            core.cluster.handle_leave(now);
        });
    }

    /// Completes when this life is over.
    pub async fn ended(&self) -> End {
        let (sender, over) = futures_channel::oneshot::channel();
        let end = self.run(|core, _| {
            core.watchers.push(sender);
            core.ended
        });
        if let Some(end) = end {
            return end;
        }
        // Dropping the senders says the same.
        let _ = over.await;
        self.look(|core| core.ended).unwrap_or(End::Expelled)
    }

    /// Stops at once, as if this node had died: nothing it has not made durable survives, and the
    /// others recover it.
    pub fn cut_off(&self, why: Closed) {
        self.run(|core, _| self.end(core, End::Expelled, why));
    }

    /// Until when this node may serve what it has cached (R13). Unlimited once it has ended: what
    /// waits then is to fail, not to wait.
    pub fn permit_until(&self) -> Instant {
        self.look(|core| match core.ended {
            Some(_) => cluster::heartbeat::FOR_EVER,
            None => core.cluster.permit_until(),
        })
    }

    // The end

    /// R16: nothing of this life is used any more.
    pub(crate) fn end(&self, core: &mut Core, end: End, why: Closed) {
        if core.ended.is_some() {
            return;
        }
        if end == End::Left {
            tracing::info!(%why, "this life of the node has ended");
        } else {
            tracing::warn!(%end, %why, "this life of the node has ended");
        }
        core.ended = Some(end);
        self.world.partition.cut_off(why);
        for fs in core.file_systems.values_mut() {
            fs.locks.iter_mut().for_each(LockCache::cut_off);
            fs.local.table.cut_off();
            fs.recoveries.clear();
            fs.claims.clear();
            if let Some(mounted) = fs.mounting.take_mounted() {
                // Its pins go without the latch.
                self.world.runtime.spawn(Box::pin(async move { mounted.cut_off() }));
            }
        }
        core.watchers.clear();
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World(..)")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("me", &self.config.me).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
