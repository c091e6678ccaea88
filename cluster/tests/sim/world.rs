//! The world: hosts, network, register, fencing, virtual time, and the loop that runs them.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    Cluster, Config, ConnectionId, DiskHeartbeat, End, JoinBlob, LockspaceId, Output, StartNonce,
    Unit,
};
use mx_base::{ClusterId, FsId, Incarnation, Member, NodeId, ViewId};

use crate::faults::Fault;
use crate::net::Net;
use crate::node::{Host, Mount, Process};
use crate::oracle::Oracle;
use crate::register::Register;
use crate::rng::Rng;
use crate::storage::{Request, RequestKind};

/// One unit, in virtual nanoseconds.
pub(crate) const U: u64 = 100_000_000;

pub(crate) const FILE_SYSTEMS: [FsId; 2] = [FsId([0xa; 16]), FsId([0xb; 16])];

pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::new(u16::try_from(index).expect("few nodes") + 1).expect("in range")
}

pub(crate) fn index_of(node: NodeId) -> usize {
    node.index()
}

/// What a run may do, apart from faults.
#[derive(Clone, Copy)]
pub(crate) struct Weather {
    /// Longest delay of a message, and of one step of disk or register.
    pub(crate) network_delay: u64,
    pub(crate) storage_delay: u64,
    /// What a change of the register takes beyond that.
    pub(crate) commit_delay: u64,
    /// In percent: a change of the register is answered as unknown first.
    pub(crate) unknown: u64,
    /// In percent: a replay isolates something; a mount fails.
    pub(crate) mishap: u64,
    /// The layers above mount, unmount and talk.
    pub(crate) work: bool,
}

impl Weather {
    pub(crate) const CALM: Weather = Weather {
        network_delay: 2_000_000,
        storage_delay: 5_000_000,
        commit_delay: 0,
        unknown: 0,
        mishap: 0,
        work: true,
    };
    /// Messages take most of a unit now and then, and the disk more than one.
    pub(crate) const STORM: Weather = Weather {
        network_delay: 70_000_000,
        storage_delay: 150_000_000,
        commit_delay: 0,
        unknown: 40,
        mishap: 20,
        work: true,
    };
    pub(crate) const ROUGH: Weather = Weather {
        network_delay: 20_000_000,
        storage_delay: 60_000_000,
        commit_delay: 0,
        unknown: 10,
        mishap: 10,
        work: true,
    };
}

pub(crate) enum Event {
    Start {
        host: usize,
    },
    Timer {
        host: usize,
        token: u64,
    },
    Dial {
        from: usize,
        to: usize,
        life: u64,
    },
    DialFailed {
        host: usize,
        life: u64,
        to: usize,
        refused: bool,
    },
    Connected {
        connection: ConnectionId,
    },
    Bytes {
        connection: ConnectionId,
        side: usize,
        bytes: Vec<u8>,
    },
    Closed {
        connection: ConnectionId,
        side: usize,
    },
    /// The moment at which the register is read or changed.
    Register {
        request: u64,
    },
    RegisterAnswer {
        request: u64,
    },
    /// The disk thread of a host: reads the register and all heartbeats, writes its own.
    Poll {
        host: usize,
    },
    JoinState {
        host: usize,
        life: u64,
        view: ViewId,
    },
    FenceWorks {
        host: usize,
        life: u64,
        dead: Member,
    },
    Fenced {
        host: usize,
        life: u64,
        dead: Member,
    },
    Rebuilt {
        host: usize,
        life: u64,
        view: ViewId,
        fs: FsId,
    },
    Replayed {
        host: usize,
        life: u64,
        dead: Member,
        fs: FsId,
    },
    Mounted {
        host: usize,
        life: u64,
        fs: FsId,
        lockspace: LockspaceId,
    },
    /// The layers above do something.
    Work {
        host: usize,
    },
    PermitMustBeOver {
        member: Member,
    },
    Fault(Fault),
}

impl Event {
    /// Whose process it needs; it waits while that is paused.
    fn host(&self, world: &World) -> Option<usize> {
        match self {
            Event::Timer { host, .. }
            | Event::DialFailed { host, .. }
            | Event::JoinState { host, .. }
            | Event::Fenced { host, .. }
            | Event::Rebuilt { host, .. }
            | Event::Replayed { host, .. }
            | Event::Mounted { host, .. }
            | Event::Work { host }
            | Event::Poll { host } => Some(*host),
            Event::Bytes { connection, side, .. } | Event::Closed { connection, side } => {
                Some(world.net.connections.get(connection)?.ends[*side])
            }
            Event::RegisterAnswer { request } => Some(world.requests.get(request)?.host),
            Event::Start { .. }
            | Event::Dial { .. }
            | Event::Connected { .. }
            | Event::Register { .. }
            | Event::FenceWorks { .. }
            | Event::PermitMustBeOver { .. }
            | Event::Fault(_) => None,
        }
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) now: u64,
    pub(crate) weather: Weather,
    queue: BTreeMap<(u64, u64), Event>,
    ordinal: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) net: Net,
    pub(crate) register: Register,
    pub(crate) requests: BTreeMap<u64, Request>,
    pub(crate) next_request: u64,
    pub(crate) disk: BTreeMap<NodeId, DiskHeartbeat>,
    /// The newest incarnation that a start of each node has registered.
    registered: BTreeMap<NodeId, Incarnation>,
    lives: u64,
    pub(crate) oracle: Oracle,
    /// Nobody starts, leaves or breaks anything any more.
    pub(crate) calm: bool,
    pub(crate) log: bool,
    hash: u64,
}

impl World {
    pub(crate) fn new(seed: u64, nodes: usize, weather: Weather) -> World {
        let mut rng = Rng::new(seed);
        let hosts = (0..nodes)
            .map(|_| Host::new(rng.between(0, 10_000), rng.between(U, 1000 * U)))
            .collect();
        World {
            seed,
            rng,
            now: 0,
            weather,
            queue: BTreeMap::new(),
            ordinal: 0,
            hosts,
            net: Net::new(nodes),
            register: Register::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            disk: BTreeMap::new(),
            registered: BTreeMap::new(),
            lives: 0,
            oracle: Oracle::default(),
            calm: false,
            log: false,
            hash: 0,
        }
    }

    // The loop

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.ordinal += 1;
        self.queue.insert((time.max(self.now), self.ordinal), event);
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let (time, ordinal) = *entry.key();
            if time > end {
                break;
            }
            let event = entry.remove();
            self.now = time;
            if let Some(host) = event.host(self)
                && self.hosts[host].paused_until > time
            {
                self.queue.insert((self.hosts[host].paused_until, ordinal), event);
                continue;
            }
            self.step(event);
            self.check();
        }
        self.now = end;
    }

    pub(crate) fn run_while(&mut self, longest: u64, mut go_on: impl FnMut(&World) -> bool) {
        let end = self.now + longest;
        while self.now < end && go_on(self) {
            self.run_until((self.now + U / 20).min(end));
        }
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let what = what();
        if self.log {
            println_log(self.now, &what);
        }
        for byte in what.bytes().chain(self.now.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start(host),
            Event::Timer { host, token } => {
                if self.hosts[host].timer_token == token {
                    self.hosts[host].timer = None;
                    self.with(host, |machine, now| machine.handle_timeout(now));
                }
            }
            Event::Dial { from, to, life } => self.dial(from, to, life),
            Event::DialFailed { host, life, to, refused } => {
                if self.is_life(host, life) {
                    self.with(host, |machine, now| {
                        machine.handle_connect_failed(node_id(to), refused, now);
                    });
                }
            }
            Event::Connected { connection } => self.connected(connection),
            Event::Bytes { connection, side, bytes } => {
                if let Some(host) = self.open_end(connection, side) {
                    self.with(host, |machine, now| {
                        machine.handle_bytes(connection, &bytes, now);
                    });
                }
            }
            Event::Closed { connection, side } => {
                if let Some(host) = self.open_end(connection, side) {
                    self.close_end(connection, side);
                    self.with(host, |machine, now| machine.handle_closed(connection, now));
                }
            }
            Event::Register { request } => self.register_works(request),
            Event::RegisterAnswer { request } => self.register_answers(request),
            Event::Poll { host } => self.poll_disk(host),
            Event::JoinState { host, life, view } => {
                if self.is_life(host, life) {
                    let blob = JoinBlob { layer: 1, id: 7, bytes: view.0.to_le_bytes().to_vec() };
                    let empty = JoinBlob { layer: 2, id: 0, bytes: Vec::new() };
                    self.with(host, |machine, now| {
                        machine.handle_join_state(view, &[blob, empty], now);
                    });
                }
            }
            Event::FenceWorks { host, life, dead } => {
                self.oracle.fence(dead);
                let delay = self.rng.between(1, self.weather.storage_delay);
                self.after(delay, Event::Fenced { host, life, dead });
            }
            Event::Fenced { host, life, dead } => {
                if self.is_life(host, life) {
                    self.with(host, |machine, now| machine.handle_fenced(dead, now));
                }
            }
            Event::Rebuilt { host, life, view, fs } => {
                if self.is_life(host, life) {
                    self.with(host, |machine, now| machine.handle_rebuilt(view, fs, now));
                }
            }
            Event::Replayed { host, life, dead, fs } => {
                if self.is_life(host, life) {
                    let isolated = self.rng.chance(self.weather.mishap);
                    self.oracle.end_replay(dead, fs, life);
                    self.with(host, |machine, now| {
                        machine.handle_replayed(dead, fs, isolated, now);
                    });
                }
            }
            Event::Mounted { host, life, fs, lockspace } => self.mounted(host, life, fs, lockspace),
            Event::Work { host } => self.work(host),
            Event::PermitMustBeOver { member } => self.check_permit(member),
            Event::Fault(fault) => self.fault(fault),
        }
    }

    // Processes

    pub(crate) fn start(&mut self, host: usize) {
        if self.hosts[host].process.is_some() || !self.hosts[host].up {
            return;
        }
        self.lives += 1;
        let life = self.lives;
        // R5: what the former process had under way to the register is extinguished.
        self.requests.retain(|_, request| request.host != host);
        let now = self.hosts[host].clock(self.now);
        let peers: BTreeSet<NodeId> =
            (0..self.hosts.len()).filter(|h| *h != host).map(node_id).collect();
        let incarnation = self.next_life(node_id(host));
        let config = Config {
            cluster: ClusterId([7; 16]),
            me: node_id(host),
            incarnation,
            peers,
            unit: Unit::DEFAULT,
            start: StartNonce::new(life * 1000 + self.seed + 1).expect("not zero"),
            seed: self.rng.next(),
        };
        self.note(|| format!("{}.{} starts as life {life}", node_id(host), incarnation.0));
        self.hosts[host].process = Some(Process {
            machine: Cluster::new(config, now),
            life,
            me: None,
            view: None,
            mounts: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            leaving: false,
        });
        let phase = self.rng.between(0, 2 * U);
        self.after(phase, Event::Poll { host });
        if self.weather.work {
            self.after(U, Event::Work { host });
        }
        self.drain(host);
    }

    /// The number of a new start, above all that were seen. Now and then the one of the start
    /// before: whoever chooses by the register alone takes it again when that start never joined.
    fn next_life(&mut self, node: NodeId) -> Incarnation {
        let newest = self.register.value.newest(node);
        let registered = self.registered.entry(node).or_insert(newest);
        *registered = newest.max(*registered);
        if registered.0 == 0 || !self.rng.chance(self.weather.mishap) {
            registered.0 += 1;
        }
        *registered
    }

    /// The process ends; its host closes its connections unless it is gone itself.
    pub(crate) fn kill(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.take() else { return };
        self.note(|| format!("{} ends, life {}", node_id(host), process.life));
        let host_is_up = self.hosts[host].up;
        let ids: Vec<ConnectionId> = self.net.connections.keys().copied().collect();
        for id in ids {
            let connection = &self.net.connections[&id];
            if !connection.ends.contains(&host) {
                continue;
            }
            let side = connection.side(host);
            self.close_end(id, side);
            if host_is_up {
                self.tell_closed(id, side);
            }
        }
    }

    pub(crate) fn is_life(&self, host: usize, life: u64) -> bool {
        self.hosts[host].process.as_ref().is_some_and(|p| p.life == life)
    }

    /// Calls the machine of a host and carries out what it wants.
    pub(crate) fn with(&mut self, host: usize, call: impl FnOnce(&mut Cluster, mx_base::Instant)) {
        let now = self.hosts[host].clock(self.now);
        let Some(process) = &mut self.hosts[host].process else { return };
        call(&mut process.machine, now);
        self.drain(host);
    }

    pub(crate) fn drain(&mut self, host: usize) {
        while let Some(output) =
            self.hosts[host].process.as_mut().and_then(|p| p.machine.poll_output())
        {
            self.carry_out(host, output);
        }
        self.arm_timer(host);
    }

    fn arm_timer(&mut self, host: usize) {
        let now = self.now;
        let state = &mut self.hosts[host];
        let wanted = state.process.as_ref().and_then(|p| p.machine.poll_timeout());
        let Some((at, _)) = wanted else { return };
        let at = state.when(at, now);
        if state.timer.is_none_or(|armed| at < armed) {
            state.timer = Some(at);
            state.timer_token += 1;
            let token = state.timer_token;
            self.at(at, Event::Timer { host, token });
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        let life = self.hosts[host].process.as_ref().expect("it has just spoken").life;
        let me = node_id(host);
        match output {
            Output::Connect { peer } => {
                let delay = self.delay();
                self.after(delay, Event::Dial { from: host, to: index_of(peer), life });
            }
            Output::Send { connection, frame } => self.send(host, connection, &frame),
            Output::Close { connection } => self.close(host, connection),
            Output::DeliverLock { from, payload, .. } => self.deliver(host, from, &payload),
            Output::DeliverGroup { from, payload, .. } => self.deliver(host, from, &payload),
            Output::ReadRegister => {
                let request = Request {
                    host,
                    life,
                    issued: self.now,
                    kind: RequestKind::Read { value: None },
                };
                self.request(request);
            }
            Output::CommitView(commit) => {
                self.note(|| format!("{me} commits {commit:?}"));
                let unknown = self.rng.chance(self.weather.unknown);
                let kind = RequestKind::Commit { commit, done: None, unknown };
                self.request(Request { host, life, issued: self.now, kind });
            }
            Output::ViewInstalled(installed) => {
                self.note(|| {
                    format!("{me} installs {:?} lost {:?}", installed.view, installed.lost)
                });
                self.installed(host, &installed);
            }
            Output::PhaseChanged(value) => {
                self.note(|| format!("{me} learns {:?} {:?}", value.generation, value.phase));
            }
            Output::CollectJoinState { view } => {
                let delay = self.rng.between(1, self.weather.storage_delay);
                self.after(delay, Event::JoinState { host, life, view });
            }
            Output::Step(step) => self.execute(host, life, step),
            Output::MountGranted { fs, lockspace, first } => {
                self.granted(host, life, fs, lockspace, first);
            }
            Output::MountRevoked { fs, lockspace } => {
                self.note(|| format!("{me} stops mounting {fs} in {lockspace:?}"));
                let process = self.hosts[host].process.as_mut().expect("it has just spoken");
                assert_eq!(
                    process.mounts.insert(fs, Mount::Asked),
                    Some(Mount::Granted(lockspace))
                );
                let member = process.me.expect("only members mount");
                self.oracle.unmounted(member, fs);
            }
            Output::Scoped { dead } => {
                assert!(self.oracle.is_fenced(dead), "{dead} is scoped but not fenced");
            }
            Output::Recovered { dead } => {
                self.note(|| format!("{me} has recovered {dead}"));
                assert!(self.oracle.is_fenced(dead), "{dead} is recovered but not fenced");
            }
            Output::Ended(end) => self.ended(host, end),
            Output::Suspected { peer, cause } => {
                self.note(|| format!("{me} suspects {peer}: {cause:?}"));
            }
            Output::TurnedAway { peer, refusal } => {
                self.note(|| format!("{me} turned away by {peer}: {refusal}"));
            }
            Output::PeerFault { peer, fault } => {
                self.note(|| format!("{me} fault of {peer:?}: {fault}"));
                self.oracle.check_fault(&fault);
            }
            Output::JoinRefused { by, reason } => {
                self.note(|| format!("{me} refused by {by}: {reason}"));
            }
            Output::MountGroupChanged { .. } => {}
        }
    }

    fn ended(&mut self, host: usize, end: End) {
        let me = node_id(host);
        self.note(|| format!("{me} ended: {end}"));
        assert_ne!(end, End::MissedViews, "nobody misses a view");
        if let End::LifeUsed { newest } = end {
            let registered = self.registered.entry(node_id(host)).or_insert(newest);
            *registered = newest.max(*registered);
        }
        let process = self.hosts[host].process.as_ref().expect("it has just spoken");
        if end == End::Left {
            assert!(process.leaving, "{me} left without having wanted to");
            if let Some(member) = process.me {
                self.oracle.left(member);
            }
        }
        self.kill(host);
        let delay = self.rng.between(U, 30 * U);
        self.after(delay, Event::Start { host });
    }

    pub(crate) fn delay(&mut self) -> u64 {
        self.rng.between(100_000, self.weather.network_delay)
    }

    fn check(&mut self) {
        if self.oracle.due(self.now) {
            self.oracle.check_sides(&self.hosts, &self.register.value, self.now);
        }
    }
}

impl Drop for World {
    #[expect(clippy::print_stderr, reason = "a failure names its seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("CLUSTER_SIM_SEED={} at {:.3} U", self.seed, self.now as f64 / U as f64);
        }
    }
}

#[expect(clippy::print_stdout, reason = "the log of one seed is asked for by hand")]
fn println_log(now: u64, what: &str) {
    println!("{:10.3} U  {what}", now as f64 / U as f64);
}
