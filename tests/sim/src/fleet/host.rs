//! One node in its lives: registered, started, mounted, at work, and ended in one way or another.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::heartbeat::FOR_EVER;
use cluster::{End, StartNonce, Unit};
use fencing::{Closed, Gate};
use futures_channel::{mpsc, oneshot};
use lcl::Mode;
use mfs::Options;
use mfs::env::Runtime;
use mx_base::{BoxFuture, Duration, Instant, Member, NodeId, Timestamp};
use mx_node::report::resource_text;
use mx_node::{Config, FileSystem, FileSystems, Node, World};
use parking_lot::Mutex;

use super::arbiter::{Way, Ways};
use super::clock::HostClock;
use super::kernel::{Kernel, Mount};
use super::lease::Lease;
use super::net::Incoming;
use super::plan::Kind;
use super::volume::Volume;
use super::work::{App, Glancer, aside};
use super::{Fleet, LifeId, WORLD};
use crate::exec::{Executor, Group};

/// In every so manieth seed somebody looks at what kernels have cached.
const GLANCES_EVERY: u64 = 4;

/// How a life came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    Crashed,
    Ended(End),
}

/// One life of a node.
pub struct Life {
    pub id: LifeId,
    pub member: Member,
    clock: HostClock,
    gate: Arc<Gate>,
    node: Mutex<Option<Arc<Node>>>,
    /// By volume.
    mounts: Vec<Mutex<Option<Mount>>>,
    workers: Mutex<usize>,
    over: Mutex<Option<oneshot::Sender<Over>>>,
    leaving: AtomicBool,
    /// Until when it could serve what it had cached, as far as its daemon knew last.
    permit: Mutex<Instant>,
    /// Something failed as it does when a life ends.
    expects_end: Mutex<Option<String>>,
}

/// A life that counts, and its node.
pub(crate) struct Living {
    pub(crate) life: Arc<Life>,
    pub(crate) node: Arc<Node>,
}

impl Life {
    /// Tasks of the daemon, and of those who wait for it.
    pub fn group(&self) -> Group {
        Group(self.id.0)
    }

    /// Tasks of the host that have its mounts open, and go on when the daemon is stopped or dead.
    fn processes(&self) -> Group {
        Group(1 << 31 | self.id.0)
    }

    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.lock().clone()
    }

    pub fn mount(&self, volume: usize) -> Option<Mount> {
        self.mounts[volume].lock().clone()
    }

    /// Everything there is.
    pub fn has_mounted(&self) -> bool {
        self.mounts.iter().all(|mount| mount.lock().is_some())
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    pub fn has_ended(&self) -> bool {
        self.over.lock().is_none()
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Until when it may serve what it has cached (R13); what it knew last when it has ended, and
    /// nobody holds it to anything any more.
    pub fn permit(&self) -> Instant {
        let permit = &mut *self.permit.lock();
        let until = self.node.lock().as_ref().map(|node| node.permit_until());
        if let Some(until) = until.filter(|until| *until != FOR_EVER) {
            *permit = until;
        }
        *permit
    }

    /// Is there a daemon? That of a life that has ended drops what its kernel has cached, and goes.
    pub fn has_daemon(&self) -> bool {
        self.node.lock().is_some()
    }

    /// May it serve what it has cached (R13)? A life that has ended by itself serves nothing, and
    /// needs no permit for that.
    pub fn is_permitted(&self) -> bool {
        if self.has_ended() {
            return false;
        }
        let until = self.node.lock().as_ref().map(|node| node.permit_until());
        until.is_some_and(|until| until > self.now())
    }

    pub fn expect_end(&self, why: String) {
        self.expects_end.lock().get_or_insert(why);
    }

    fn end(&self, over: Over) {
        if let Some(sender) = self.over.lock().take() {
            let _ = sender.send(over);
        }
    }
}

/// Time as a node sees it, and its tasks.
struct Clock {
    exec: Executor,
    group: Group,
    host: HostClock,
}

impl Runtime for Clock {
    fn now(&self) -> Instant {
        self.host.now()
    }

    fn wall_time(&self) -> Timestamp {
        self.host.wall_time()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.exec.sleep(self.host.in_true_time(duration)))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.exec.spawn(self.group, task);
    }
}

/// Options that make small runs write back and checkpoint often.
fn options() -> Options {
    Options {
        dirty_pages_max: 64,
        clean_pages_max: 64,
        checkpoint_interval: Duration::from_millis(700),
        runs_cut_at_once: 2,
        ..Options::default()
    }
}

impl Fleet {
    /// A new life of the node on a host, from registration on.
    pub(crate) async fn start_life(&self, host: usize) -> (Arc<Life>, oneshot::Receiver<Over>) {
        let node = node_id(host);
        self.hosts[host].is_starting.store(true, Ordering::SeqCst);
        let member = self.first().arbiter.register(node).await;
        for volume in &self.volumes[1..] {
            volume.arbiter.let_in(member).await;
        }
        let host_clock = self.clocks[host].clone();
        let life = {
            let mut next = self.next_life.lock();
            *next += 1;
            LifeId(*next)
        };
        self.oracle.born(life, member);
        let (over, ends) = oneshot::channel();
        let life = Arc::new(Life {
            id: life,
            member,
            clock: host_clock.clone(),
            gate: Gate::new(),
            node: Mutex::default(),
            mounts: self.volumes.iter().map(|_| Mutex::default()).collect(),
            workers: Mutex::new(0),
            over: Mutex::new(Some(over)),
            leaving: AtomicBool::new(false),
            permit: Mutex::new(Instant(0)),
            expects_end: Mutex::default(),
        });
        let incoming = self.net.listen(node, life.id);
        let way_to = |volume: &Volume| Way {
            arbiter: volume.arbiter.clone(),
            life: life.id,
            key: member,
            gate: Arc::clone(&life.gate),
            membership_start: volume.layout.membership_start,
            clock: host_clock.clone(),
        };
        let file_systems = FileSystems::new(self.volumes.iter().map(|volume| FileSystem {
            id: volume.fs,
            device: volume.device_id(),
            layout: volume.layout,
            disk: Arc::new(way_to(volume)),
        }));
        let ways = self.volumes.iter().map(|volume| (volume.device_id(), way_to(volume)));
        let (way, ways) = (way_to(self.first()), Ways(ways.collect()));
        let clock =
            Clock { exec: self.exec.clone(), group: life.group(), host: host_clock.clone() };
        let clock: Arc<dyn Runtime> = Arc::new(clock);
        let world = World {
            network: Arc::new(self.net.of(node, life.id)),
            partition: Arc::new(way),
            agent: Arc::new(ways),
            control: Arc::clone(&clock),
            runtime: clock,
        };
        let (nonce, seed) = self.exec.draw(|r| (r.next_u64() | 1, r.next_u64()));
        let config = Config {
            cluster: self.cluster_id,
            file_systems: file_systems.expect("they can be told apart"),
            me: member,
            nonce: StartNonce::new(nonce).expect("not zero"),
            peers: (0..self.plan.nodes).filter(|h| *h != host).map(node_id).collect(),
            unit: Unit::DEFAULT,
            nodes_max: super::nodes_max(&self.plan),
            seed,
        };
        crate::exec::show_in_column(life.group(), node.get());
        crate::exec::show_in_column(life.processes(), node.get());
        tracing::info!(column = node.get(), %member, "starts");
        *self.hosts[host].life.lock() = Some(Arc::clone(&life));
        self.hosts[host].is_starting.store(false, Ordering::SeqCst);
        let (fleet, of) = (self.clone(), Arc::clone(&life));
        self.exec.spawn(life.group(), async move {
            let node = Node::start(config, world);
            *of.node.lock() = Some(Arc::clone(&node));
            fleet.grants.watch(&of, &node, fleet.volumes.len());
            let (end, inbox) = (Arc::clone(&of), Arc::clone(&node));
            fleet.exec.spawn(of.group(), receive(inbox, incoming));
            let ended = Arc::clone(&node);
            fleet.exec.spawn(end.group(), {
                let end = Arc::clone(&end);
                async move { end.end(Over::Ended(ended.ended().await)) }
            });
            for volume in 1..fleet.volumes.len() {
                let working =
                    fleet.clone().mount_and_work(volume, Arc::clone(&of), Arc::clone(&node));
                fleet.exec.spawn(of.group(), working);
            }
            fleet.mount_and_work(0, of, node).await;
        });
        (life, ends)
    }

    async fn mount_and_work(self, volume: usize, life: Arc<Life>, node: Arc<Node>) {
        let of = &self.volumes[volume];
        let kernel = Kernel::new(&self.exec);
        let fs = loop {
            match node.mount(of.fs, options(), Arc::new(kernel.clone())).await {
                Ok(fs) => break fs,
                Err(error) => {
                    tracing::info!(member = %life.member, %error, "not mounted");
                    self.exec.sleep(Duration::from_millis(200)).await;
                }
            }
        };
        tracing::info!(member = %life.member, slot = ?fs.slot(), "mounted");
        let locks = node.file_locks(of.fs).expect("it has just been mounted");
        let lease = Lease::new(&self.exec, &life.clock, node.permit_until());
        let (served, cached) = (Arc::clone(&life), kernel.clone());
        let keeping = self.clone().keep_lease(served, Arc::clone(&node), cached, lease.clone());
        self.exec.spawn(life.group(), keeping);
        let mount = Mount { fs, locks, kernel, lease };
        of.set_up(&mount, &self.oracle).await;
        *life.mounts[volume].lock() = Some(mount.clone());
        while !of.is_ready() {
            self.exec.sleep(Duration::from_millis(1)).await;
        }
        if self.plan.kind == Kind::Bystanders {
            self.spawn_at_work(&life, self.app(volume, &life, &mount).stand_by());
        }
        if self.plan.seed % GLANCES_EVERY == GLANCES_EVERY - 1 {
            self.glance(volume, &life, &mount);
        }
        if self.counts_leaves() && volume == 0 {
            let asking = self.clone().ask_beside_leaves(Arc::clone(&life), Arc::clone(&node));
            self.spawn_at_work(&life, asking);
        }
        let host = host_of(life.member.node);
        if self.plan.kind == Kind::Apart && volume == 0 && !self.loses_journal(host) {
            for i in 0..aside::COUNT {
                self.spawn_at_work(&life, self.app(volume, &life, &mount).stand_aside(i));
            }
        }
        for _ in 0..self.plan.workers {
            self.spawn_at_work(&life, self.app(volume, &life, &mount).work());
        }
    }

    pub(super) fn app(&self, volume: usize, life: &Arc<Life>, mount: &Mount) -> App {
        let work = Arc::clone(&self.volumes[volume].work);
        let (life, mount) = (Arc::clone(life), mount.clone());
        App { step: Arc::default(), work, life, mount }
    }

    /// Lives of a host, one after the other, until the run is over.
    pub(crate) async fn run_host(self, host: usize) {
        let pause = self.exec.draw(|r| r.below(2_000));
        self.exec.sleep(Duration::from_millis(pause)).await;
        loop {
            while !self.hosts[host].is_wanted.load(Ordering::SeqCst) {
                if self.hosts[host].is_done.load(Ordering::SeqCst) {
                    return;
                }
                self.exec.sleep(Duration::from_millis(5)).await;
            }
            let (life, ends) = self.start_life(host).await;
            let over = ends.await.unwrap_or(Over::Crashed);
            tracing::info!(column = life.member.node.get(), ?over, "over");
            if let Over::Ended(end) = over {
                self.clean_up(&life, end).await;
            }
            *self.hosts[host].life.lock() = None;
            self.exec.sleep(Duration::from_millis(5)).await;
        }
    }

    /// A life that has ended by itself: what was under way fails, then its process goes.
    async fn clean_up(&self, life: &Arc<Life>, end: End) {
        self.expect_reason(life, end);
        self.give_up(life).await;
        let began = self.exec.now();
        loop {
            let works = self.volumes.iter().map(|volume| &volume.work);
            let left: Vec<_> = works.flat_map(|work| work.under_way(Some(life.id))).collect();
            if left.is_empty() || self.oracle.is_lost(life.id) && !life.has_daemon() {
                break;
            }
            let passed = self.exec.now().since(began);
            if !self.exec.is_paused(life.group()) && self.outlasts(life, passed, &left) {
                break;
            }
            self.exec.sleep(Duration::from_millis(20)).await;
        }
        self.kill(life, false);
    }

    /// Does something with a mount of a life, which is not unmounted meanwhile: its kernel sees to
    /// that.
    pub(super) fn spawn_at_work(
        &self,
        life: &Arc<Life>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        *life.workers.lock() += 1;
        let of = Arc::clone(life);
        self.exec.spawn(life.group(), async move {
            work.await;
            *of.workers.lock() -= 1;
        });
    }

    /// Somebody looks at what the kernel has cached, whatever becomes of the daemon.
    fn glance(&self, volume: usize, life: &Arc<Life>, mount: &Mount) {
        let host = host_of(life.member.node);
        self.hosts[host].processes.lock().push(life.processes());
        let work = Arc::clone(&self.volumes[volume].work);
        let glancer = Glancer::new(work, Arc::clone(life), mount);
        *life.workers.lock() += 1;
        let of = Arc::clone(life);
        self.exec.spawn(life.processes(), async move {
            glancer.glance().await;
            *of.workers.lock() -= 1;
        });
    }

    /// The host stops where it stands, and with it its kernel and all that runs under it but the
    /// daemon, if there is one.
    pub(super) fn stop_host(&self, host: usize) {
        self.hosts[host].processes.lock().drain(..).for_each(|group| self.exec.kill(group));
    }

    /// Ends a process where it stands.
    pub(crate) fn kill(&self, life: &Arc<Life>, is_silent: bool) {
        self.exec.note(u64::from(life.id.0));
        // The last that its processes learn of it.
        life.permit();
        self.arbiters().for_each(|arbiter| arbiter.process_died(life.id));
        self.net.process_died(life.id, is_silent);
        self.exec.kill(life.group());
        self.oracle.lost(life.id);
        let node = life.node.lock().take();
        self.grants.died(life);
        life.mounts.iter().for_each(|mount| drop(mount.lock().take()));
        if self.plan.kind == Kind::Bystanders
            && let Some(node) = &node
            && let Some(table) = node.table(self.first().fs)
        {
            let held = &mut self.dead_held.lock();
            table.for_each(|entry| {
                // Or was granted, and the news is on its way.
                if entry.mode() != Mode::NL || entry.wanted().is_some() {
                    held.insert(resource_text(&entry.name()));
                }
            });
        }
        if let Some(node) = node {
            self.count_violations(life, &node);
            // Nothing of it is heard any more; this only takes it apart.
            node.cut_off(Closed::SelfFenced);
        }
        life.end(Over::Crashed);
    }

    /// Ends the work on a node in good order: unmounts and leaves. That it does so is known at once,
    /// or whoever looks in the same moment would take it for one that stays.
    pub(crate) fn leave(&self, life: Arc<Life>) {
        if life.leaving.swap(true, Ordering::SeqCst) {
            return;
        }
        let fleet = self.clone();
        self.exec.spawn(WORLD, async move { fleet.leave_after_work(&life).await });
    }

    async fn leave_after_work(&self, life: &Arc<Life>) {
        let node = loop {
            if self.oracle.is_lost(life.id) {
                return;
            }
            match life.node() {
                Some(node) if *life.workers.lock() == 0 => break node,
                // It has work, or is only being started.
                Some(_) | None => self.exec.sleep(Duration::from_millis(2)).await,
            }
        };
        let (fleet, of) = (self.clone(), Arc::clone(life));
        self.exec.spawn(life.group(), async move {
            for (volume, mount) in fleet.volumes.iter().zip(&of.mounts) {
                drop(mount.lock().take());
                match node.unmount(volume.fs).await {
                    Ok(()) => {
                        volume.work.unmounted(of.id);
                        fleet.expect_no_locks(&of, &node, volume);
                    }
                    Err(mx_node::MountError::NotMounted) => {}
                    Err(error) => of.expect_end(format!("unmount: {error}")),
                }
            }
            tracing::info!(member = %of.member, "unmounted");
            node.leave();
        });
    }
}

async fn receive(node: Arc<Node>, mut incoming: mpsc::UnboundedReceiver<Incoming>) {
    loop {
        match incoming.recv().await.ok() {
            Some(Incoming::Accepted(id)) => node.handle_accepted(id),
            Some(Incoming::Connected(peer, id)) => node.handle_connected(peer, id),
            Some(Incoming::ConnectFailed { peer, refused }) => {
                node.handle_connect_failed(peer, refused);
            }
            Some(Incoming::Bytes(id, bytes)) => node.handle_bytes(id, &bytes),
            Some(Incoming::Closed(id)) => node.handle_closed(id),
            None => return,
        }
    }
}

/// Where a node lives; the reverse of [`node_id`].
pub(crate) fn host_of(node: NodeId) -> usize {
    usize::from(node.get()) - 1
}

/// Node ids count from 1.
pub(crate) fn node_id(host: usize) -> NodeId {
    NodeId::new(u16::try_from(host).expect("few hosts") + 1).expect("in range")
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.member)
    }
}

impl Life {
    /// For people, when something does not end.
    pub fn describe(&self) -> String {
        let node = self.node.lock();
        let (activity, view) = node.as_ref().map_or(("gone", String::new()), |node| {
            (node.activity(), node.view().map_or(String::new(), |v| format!("{:?}", v.members())))
        });
        let mount = if self.has_mounted() { "mounted" } else { "not mounted" };
        let expected = self.expects_end.lock();
        format!("{} {activity} {view} {mount} {:?}", self.member, *expected)
    }

    /// Logs what anybody waits for.
    pub fn log_waits(&self) {
        let Some(node) = self.node() else { return };
        let dump = node.lock_dump(&mx_node::Surroundings::default(), None, 10_000);
        for locks in dump.file_systems {
            for lock in locks.locks {
                if lock.waiters > 0 || lock.asked.is_some() || lock.surrendering_to.is_some() {
                    tracing::warn!(of = %self.member, ?lock, "waits");
                }
            }
            for homed in locks.homed {
                if !homed.waiting.is_empty() || !homed.converting.is_empty() {
                    tracing::warn!(of = %self.member, ?homed, "waits");
                }
            }
        }
        let recoveries = node.recovery_report(&mx_node::Surroundings::default()).recoveries;
        for recovery in recoveries.iter().filter(|r| r.ended_ms.is_none()) {
            tracing::warn!(of = %self.member, ?recovery, "not recovered");
        }
    }
}
