//! The node: one latch around all machines, and what they say carried out in order.
//!
//! Keeps true between calls:
//! * every input is handled completely: what it means for one machine has been passed to the
//!   others until nothing is left, and what is to be done outside has been handed over;
//! * messages to one member leave in the order in which the machines made them;
//! * once the node has ended nothing of it reaches shared storage or other nodes.
//!
//! The latch is never held while waiting. A pin of a cached lock does not come here at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use cluster::{Cluster, ConnectionId, End, Installed, JoinBlob, Output, Step};
use fencing::{Closed, DeviceId};
use lcl::pin::Table;
use lcl::{LockCache, LockspaceId, Welcome};
use mfs::env::Runtime;
use mfs::layout::Layout;
use mfs::locks::Resource;
use mx_base::rules::{Rule, is_kept};
use mx_base::{ClusterId, FsId, Instant, Member, NodeId, ViewId};
use parking_lot::Mutex;

use crate::bundles::Bundles;
use crate::fs_locks::{LockClasses, NodeRequester};
use crate::group::Announced;
use crate::mount::{Interrupted, Mounting};
use crate::recovery::Waits;
use crate::storage::Storage;
use crate::waiters::Waiters;
use crate::world::{Network, Partition};

/// The lock space of the one file system on the device: all members enter it with their first view.
pub(crate) const LOCKSPACE: LockspaceId = LockspaceId(1);

/// The lock space's part of what a joiner is given.
const LAYER_LOCKS: u16 = 1;

/// From the moment nothing renews a dead member's read permit until nothing it cached is in use,
/// in units: 5 for the permit, 1 for dropping the caches, 1 for the drift of clocks (R13).
const CACHES_GONE: u32 = 7;

/// Locks that are kept for objects that nobody uses.
const LOCKS_KEPT: usize = 1 << 18;

/// What a node is made with.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: ClusterId,
    pub fs: FsId,
    pub device: DeviceId,
    pub layout: Layout,
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
    pub disk: Arc<dyn mfs::env::Disk>,
    /// For heartbeats, timers and the membership partition: never behind the file system's work.
    pub control: Arc<dyn Runtime>,
    /// For the file system.
    pub runtime: Arc<dyn Runtime>,
}

/// One node in one life. When it has ended, a new one is made to join again.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) world: World,
    pub(crate) table: Arc<Table>,
    pub(crate) classes: Arc<LockClasses>,
    pub(crate) weak: Weak<Node>,
    /// The entries keep a weak reference only.
    _requester: Arc<NodeRequester>,
    core: Mutex<Core>,
    /// Taken after `core`, never before it.
    pub(crate) waiters: Mutex<Waiters>,
    pub(crate) caller: OnceLock<fn() -> Option<u32>>,
}

/// All machines, and what connects them.
pub(crate) struct Core {
    pub(crate) cluster: Cluster,
    pub(crate) storage: Storage,
    /// From the first view on.
    pub(crate) locks: Option<LockCache>,
    /// Members of the present view that have broken a rule of the locks.
    distrusted: BTreeSet<Member>,
    /// Lock payloads that a link would not take yet, in order.
    backlog: BTreeMap<Member, VecDeque<Arc<[u8]>>>,
    /// Lock payloads handed to links since this life began.
    pub(crate) payloads: u64,
    /// The view for which every bucket homed here is rebuilt.
    rebuilt: Option<ViewId>,
    rebuild_asked: Option<ViewId>,
    /// When what a dead member cached is gone.
    caches_gone: BTreeMap<Member, Instant>,
    pub(crate) recoveries: BTreeMap<Member, Waits>,
    pub(crate) mounting: Mounting,
    pub(crate) announced: Announced,
    /// A look at the register is under way; another is wanted.
    looking: bool,
    look_again: bool,
    armed: Option<Instant>,
    /// Outputs of the cluster are held back until writes under a revoked grant have ended.
    pub(crate) held_back: bool,
    pub(crate) ended: Option<End>,
    pub(crate) watchers: Vec<futures_channel::oneshot::Sender<()>>,
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
        let core = Core {
            cluster,
            storage: Storage::new(&config, now),
            locks: None,
            distrusted: BTreeSet::new(),
            backlog: BTreeMap::new(),
            payloads: 0,
            rebuilt: None,
            rebuild_asked: None,
            caches_gone: BTreeMap::new(),
            recoveries: BTreeMap::new(),
            mounting: Mounting::default(),
            announced: Announced::default(),
            looking: false,
            look_again: false,
            armed: None,
            held_back: false,
            ended: None,
            watchers: Vec::new(),
            violations: 0,
            is_leaving: false,
        };
        let node = Arc::new_cyclic(|weak: &Weak<Node>| {
            let requester = Arc::new(NodeRequester::new(weak.clone()));
            let as_requester: Weak<NodeRequester> = Arc::downgrade(&requester);
            Node {
                config,
                world,
                table: Arc::new(Table::new(as_requester)),
                classes: Arc::new(LockClasses::default()),
                weak: weak.clone(),
                _requester: requester,
                core: Mutex::new(core),
                waiters: Mutex::default(),
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
            core.mounting.leaving();
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

    // Timers

    fn arm(&self, core: &mut Core, now: Instant) {
        if core.ended.is_some() {
            return;
        }
        let is_member = core.cluster.me().is_some();
        let due = [
            core.cluster.poll_timeout().map(|(at, _)| at),
            core.storage.poll_timeout(is_member),
            core.caches_gone.values().min().copied(),
        ];
        let Some(due) = due.into_iter().flatten().min() else { return };
        if core.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        core.armed = Some(due);
        let sleep = self.world.control.sleep(due.since(now));
        let weak = self.weak.clone();
        self.world.control.spawn(Box::pin(async move {
            sleep.await;
            if let Some(node) = weak.upgrade() {
                node.handle_timeout(due);
            }
        }));
    }

    fn handle_timeout(&self, due: Instant) {
        self.run(|core, now| {
            if core.armed == Some(due) {
                core.armed = None;
            }
            if core.ended.is_some() {
                return;
            }
            core.cluster.handle_timeout(now);
            core.storage.handle_timeout(now);
            let gone: Vec<Member> = core
                .caches_gone
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(dead, _)| *dead)
                .collect();
            for dead in gone {
                core.caches_gone.remove(&dead);
                if let Some(locks) = &mut core.locks {
                    locks.caches_gone(dead, now);
                }
            }
        });
    }

    // Carrying out

    fn carry_out(&self, core: &mut Core, now: Instant) {
        loop {
            let mut moved = false;
            while !core.held_back
                && core.ended.is_none()
                && let Some(output) = core.cluster.poll_output()
            {
                moved = true;
                self.carry_out_cluster(core, output, now);
            }
            moved |= self.carry_out_locks(core, now);
            moved |= self.carry_out_storage(core, now);
            moved |= Node::flush_backlog(core);
            if !moved || core.ended.is_some() {
                break;
            }
        }
    }

    fn carry_out_cluster(&self, core: &mut Core, output: Output, now: Instant) {
        let network = &self.world.network;
        match output {
            Output::Connect { peer } => network.connect(peer),
            Output::Send { connection, frame } => network.send(connection, frame),
            Output::Close { connection } => network.close(connection),
            Output::DeliverLock { from, lockspace, payload } => {
                self.deliver_lock(core, from, lockspace, &payload, now);
            }
            Output::DeliverGroup { from, payload, .. } => core.announced.hear(from, &payload),
            Output::ReadRegister => self.look_at_register(core),
            Output::CommitView(commit) => core.storage.commit(commit),
            Output::ViewInstalled(installed) => self.install(core, *installed, now),
            Output::PhaseChanged(value) => {
                tracing::info!(phase = ?value.phase, generation = value.generation.0, "register");
                self.mark_recovered(core, now);
            }
            Output::CollectJoinState { view } => {
                let locks = core.locks.as_ref().expect("a member has a lock space");
                let bytes = locks.welcome().encode();
                let blob = JoinBlob { layer: LAYER_LOCKS, id: LOCKSPACE.0, bytes };
                core.cluster.handle_join_state(view, &[blob], now);
            }
            Output::Step(step) => self.take_step(core, step, now),
            Output::MountGranted { fs, lockspace, first } => {
                tracing::info!(lockspace = lockspace.0, first, "may mount");
                core.mounting.granted(fs, lockspace, first);
            }
            Output::MountRevoked { .. } => {
                let interrupted = core.mounting.revoked();
                tracing::info!(?interrupted, "may not mount after all");
                core.held_back |= interrupted == Interrupted::Writes;
                if interrupted == Interrupted::Slot {
                    self.end(core, End::Expelled, Closed::SelfFenced);
                }
            }
            Output::MountGroupChanged { members, .. } => core.mounting.group = members,
            Output::Recovered { dead } => {
                tracing::info!(%dead, "recovered");
                self.mark_recovered(core, now);
            }
            Output::Suspected { peer, cause } => match cause {
                Some(cause) => tracing::warn!(%peer, ?cause, "suspected"),
                None => tracing::info!(%peer, "heard again"),
            },
            Output::JoinRefused { by, reason } => tracing::warn!(%by, %reason, "not let in yet"),
            Output::TurnedAway { peer, refusal } => {
                tracing::warn!(%peer, %refusal, "turned away");
            }
            Output::PeerFault { peer, fault } => {
                tracing::error!(?peer, %fault, "connection closed");
            }
            Output::Ended(end) => {
                // What was to be sent before, closing words among them, is on its way.
                while let Some(output) = core.cluster.poll_output() {
                    if let Output::Send { connection, frame } = output {
                        network.send(connection, frame);
                    } else if let Output::Close { connection } = output {
                        network.close(connection);
                    }
                }
                let why = if end == End::Left { Closed::Left } else { Closed::Expelled };
                self.end(core, end, why);
            }
        }
    }

    fn install(&self, core: &mut Core, installed: Installed, now: Instant) {
        let Installed { me, view, previous, lost, left, unrecovered, quiet_from, .. } = installed;
        tracing::info!(view = view.id.0, members = ?view.members(), ?lost, ?left, "view");
        core.storage.set_member(me);
        core.rebuilt = None;
        core.rebuild_asked = None;
        core.backlog.retain(|member, _| view.contains(*member));
        core.distrusted.retain(|member| view.contains(*member));
        core.announced.retain(|member| view.contains(member));
        if let Some(locks) = &core.locks {
            self.waiters.lock().lose(&lost, locks.lockspace());
        }
        let outcome = match &mut core.locks {
            Some(locks) => locks.handle_view(view.clone(), &left, now).map_err(|e| e.to_string()),
            None => {
                let classes = Arc::clone(&self.classes) as Arc<dyn lcl::ClassTable>;
                let table = Arc::clone(&self.table);
                let mut locks =
                    LockCache::new(LOCKSPACE, me, table, classes, Resource::is_cached_by_kernels);
                let told = installed.join_state.iter().flatten();
                let blob = told.into_iter().find(|blob| blob.layer == LAYER_LOCKS);
                let welcome = match blob {
                    Some(blob) => Welcome::decode(&blob.bytes).map_err(|e| e.to_string()),
                    None if view.members() == [me] => Ok(Welcome::cold(&view, &unrecovered, false)),
                    None => Err("nobody has told this node about the locks".to_owned()),
                };
                let entered = welcome.and_then(|welcome| {
                    locks.enter(view.clone(), &welcome, now).map_err(|e| e.to_string())
                });
                core.locks = Some(locks);
                entered
            }
        };
        if let Err(error) = outcome {
            // Going on with locks that others see differently could grant what is held.
            tracing::error!(error, "locks cannot follow the view");
            return self.end(core, End::Expelled, Closed::Contradiction);
        }
        let locks = core.locks.as_ref().expect("entered above");
        let unit = self.config.unit.get();
        for (dead, facts) in locks.lockspace().dead() {
            if !facts.caches_gone {
                // Of those who were lost earlier a joiner only knows that it was before now.
                let quiet =
                    if previous.is_some() && lost.contains(&dead) { quiet_from } else { now };
                let patience = if is_kept(Rule::AwaitCachesOfDead) { CACHES_GONE } else { 0 };
                core.caches_gone.entry(dead).or_insert(quiet + unit * patience);
            }
        }
        self.waiters.lock().look_again(locks.lockspace());
        self.mark_recovered(core, now);
    }

    fn take_step(&self, core: &mut Core, step: Step, now: Instant) {
        match step {
            // The lock space holds what the dead held since it has followed the view.
            Step::Hold { .. } => {}
            Step::Fence { dead } => {
                tracing::info!(%dead, "fencing");
                core.storage.fence(dead, now);
            }
            Step::Rebuild { view, .. } => {
                core.rebuild_asked = Some(view);
                self.tell_rebuilt(core, now);
            }
            Step::Replay { dead, slot, .. } => {
                tracing::info!(%dead, ?slot, "replaying");
                self.spawn_replay(core, dead);
            }
            Step::Resume { dead, .. } => {
                if let Some(locks) = &mut core.locks {
                    locks.mark_recovered(dead, now);
                }
            }
        }
    }

    fn tell_rebuilt(&self, core: &mut Core, now: Instant) {
        if let Some(view) = core.rebuild_asked
            && core.rebuilt == Some(view)
        {
            core.rebuild_asked = None;
            core.cluster.handle_rebuilt(view, self.config.fs, now);
        }
    }

    // Locks

    fn deliver_lock(
        &self,
        core: &mut Core,
        from: Member,
        lockspace: cluster::LockspaceId,
        payload: &[u8],
        now: Instant,
    ) {
        if core.distrusted.contains(&from) {
            return;
        }
        let outcome = match (lcl::Bundle::decode(payload), &mut core.locks) {
            (Ok((id, messages)), Some(locks)) if id.0 == lockspace.0 => {
                let mut messages = messages.into_iter();
                match messages.try_for_each(|message| locks.handle_message(from, id, message, now))
                {
                    Err(error @ lcl::HandleError::TooFarBehind { .. }) => {
                        tracing::error!(%from, %error, "locks cannot follow the views");
                        return self.end(core, End::Expelled, Closed::Contradiction);
                    }
                    outcome => outcome.map_err(|error| error.to_string()),
                }
            }
            (Ok(_), _) => Err("a message of another lock space".to_owned()),
            (Err(error), _) => Err(error.to_string()),
        };
        if let Err(error) = outcome {
            core.violations += 1;
            tracing::error!(%from, error, "lock message not taken in; the sender is not spoken with any more");
            // The two do not agree about who holds what. Nothing later counts that it says, so what
            // this node holds it to have it keeps, until a view without one of the two: that one is
            // dead to the other's lock manager.
            core.distrusted.insert(from);
            core.cluster.handle_distrusted(from, now);
        }
    }

    fn carry_out_locks(&self, core: &mut Core, now: Instant) -> bool {
        let mut moved = false;
        let mut bundles = Bundles::default();
        while let Some(output) = core.locks.as_mut().and_then(LockCache::poll_output) {
            moved = true;
            let is_message =
                matches!(output, lcl::Output::Send { .. } | lcl::Output::Surrender { .. });
            if !is_message {
                // What follows may speak to members, too: not before what was said until now.
                self.send_bundles(core, &mut bundles);
            }
            match output {
                lcl::Output::Send { to, message } => {
                    if let Some(full) = bundles.add(to, LOCKSPACE, &message) {
                        self.send_lock(core, to, full);
                    }
                }
                lcl::Output::Surrender { entry, to, class, .. } => {
                    let weak = self.weak.clone();
                    self.world.runtime.spawn(Box::pin(async move {
                        let surrendered = lcl::surrender(Arc::clone(&entry), to, class).await;
                        if let Some(node) = weak.upgrade() {
                            node.run(|core, now| {
                                if let Some(locks) = &mut core.locks {
                                    locks.handle_surrendered(&entry, surrendered, now);
                                }
                                core.keep_locks_few();
                            });
                        }
                    }));
                }
                lcl::Output::Rebuilt { view } => {
                    core.rebuilt = Some(view);
                    let locks = core.locks.as_ref().expect("it has just rebuilt");
                    self.waiters.lock().rebuilt(locks.lockspace());
                    self.tell_rebuilt(core, now);
                }
                lcl::Output::Redo { dead, names } => core.redo(dead, names),
                lcl::Output::Wanted { dead, names } => core.wanted(dead, names),
                lcl::Output::Recovered { dead } => core.lock_space_recovered(dead),
            }
        }
        self.send_bundles(core, &mut bundles);
        moved
    }

    fn send_bundles(&self, core: &mut Core, bundles: &mut Bundles) {
        while let Some((to, payload)) = bundles.pop() {
            self.send_lock(core, to, payload);
        }
    }

    /// In order with what is waiting for the same member.
    fn send_lock(&self, core: &mut Core, to: Member, payload: Arc<[u8]>) {
        if let Some(waiting) = core.backlog.get_mut(&to) {
            waiting.push_back(payload);
            return;
        }
        let lockspace = cluster::LockspaceId(LOCKSPACE.0);
        match core.cluster.send_lock(to, lockspace, Arc::clone(&payload)) {
            Ok(()) => core.payloads += 1,
            Err(cluster::SendError::Full(_)) => {
                core.backlog.entry(to).or_default().push_back(payload);
            }
            // The view without it is on its way, and rebuilds what it was told.
            Err(cluster::SendError::Gone { .. }) => {}
            Err(error @ cluster::SendError::TooLong { .. }) => {
                unreachable!("lock messages fit a frame: {error}")
            }
        }
    }

    fn flush_backlog(core: &mut Core) -> bool {
        let mut moved = false;
        let members: Vec<Member> = core.backlog.keys().copied().collect();
        for to in members {
            let mut waiting = core.backlog.remove(&to).expect("just listed");
            while let Some(payload) = waiting.pop_front() {
                let lockspace = cluster::LockspaceId(LOCKSPACE.0);
                match core.cluster.send_lock(to, lockspace, Arc::clone(&payload)) {
                    Ok(()) => {
                        core.payloads += 1;
                        moved = true;
                    }
                    Err(cluster::SendError::Full(_)) => {
                        waiting.push_front(payload);
                        break;
                    }
                    Err(_) => waiting.clear(),
                }
            }
            if !waiting.is_empty() {
                core.backlog.insert(to, waiting);
            }
        }
        moved
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
        if let Some(locks) = &mut core.locks {
            locks.cut_off();
        }
        self.table.cut_off();
        core.recoveries.clear();
        if let Some(mounted) = core.mounting.take_mounted() {
            // Its pins go without the latch.
            self.world.runtime.spawn(Box::pin(async move { mounted.cut_off() }));
        }
        core.watchers.clear();
    }

    pub(crate) fn look_at_register(&self, core: &mut Core) {
        if std::mem::replace(&mut core.looking, true) {
            core.look_again = true;
            return;
        }
        let Some(node) = self.weak.upgrade() else { return };
        self.world.control.spawn(Box::pin(async move { node.look_until_settled().await }));
    }

    /// True when another look was asked for meanwhile.
    pub(crate) fn looked(core: &mut Core) -> bool {
        if std::mem::take(&mut core.look_again) {
            return true;
        }
        core.looking = false;
        false
    }
}

impl Core {
    /// Gives up locks that were not used for longest, with what is cached under them, as long as
    /// there are too many.
    pub(crate) fn keep_locks_few(&mut self) {
        if let Some(locks) = &mut self.locks
            && locks.cached_count() > LOCKS_KEPT
        {
            locks.shrink(LOCKS_KEPT);
        }
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
