//! The world: hosts, network, register, fencing, virtual time, and the loop that runs them.

use std::collections::{BTreeMap, BTreeSet};

use cluster::{
    Change, Cluster, Commit, CommitAnswer, Config, ConnectionId, DiskHeartbeat, End, Frame,
    JoinBlob, LockspaceId, Output, RegisterValue, StartNonce, Step, Unit,
};
use mx_base::{ClusterId, FsId, Incarnation, Member, NodeId, SlotId, ViewId};

use crate::faults::Fault;
use crate::net::{Connection, Direction, Net};
use crate::node::{Host, Mount, Process};
use crate::oracle::Oracle;
use crate::register::{Register, Verdict};
use crate::rng::Rng;

/// One unit, in virtual nanoseconds.
pub(crate) const U: u64 = 100_000_000;

pub(crate) const FILE_SYSTEMS: [FsId; 2] = [FsId([0xa; 16]), FsId([0xb; 16])];

pub(crate) fn node_id(index: usize) -> NodeId {
    NodeId::new(u16::try_from(index).expect("few nodes") + 1).expect("in range")
}

fn index_of(node: NodeId) -> usize {
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

/// A request to the register that is under way.
pub(crate) struct Request {
    pub(crate) host: usize,
    life: u64,
    issued: u64,
    kind: RequestKind,
}

enum RequestKind {
    Read { value: Option<RegisterValue> },
    Commit { commit: Commit, done: Option<CommitAnswer>, unknown: bool },
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
    next_request: u64,
    disk: BTreeMap<NodeId, DiskHeartbeat>,
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
        let config = Config {
            cluster: ClusterId([7; 16]),
            me: node_id(host),
            peers,
            unit: Unit::DEFAULT,
            start: StartNonce::new(life * 1000 + self.seed + 1).expect("not zero"),
            seed: self.rng.next(),
        };
        self.note(|| format!("{} starts as life {life}", node_id(host)));
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

    fn drain(&mut self, host: usize) {
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

    fn installed(&mut self, host: usize, installed: &cluster::Installed) {
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        let view = &installed.view;
        let committed = self.register.members_of.get(&view.id);
        assert_eq!(
            committed.map(Vec::as_slice),
            Some(view.members()),
            "{:?} was never committed",
            view.id
        );
        assert!(view.contains(installed.me), "{} acts in {view:?}", installed.me);
        assert!(process.me.is_none_or(|me| me == installed.me), "one start has one incarnation");
        if let Some(former) = process.view {
            assert_eq!(former.0 + 1, view.id.0, "views are installed one after the other");
            assert_eq!(installed.join_state, None);
        } else if let Some(blobs) = &installed.join_state {
            assert_eq!(blobs.len(), 2, "both blobs arrive: {blobs:?}");
            assert_eq!(blobs[0].bytes, view.id.0.to_le_bytes(), "the state is that of the view");
        }
        let is_new = process.view.is_none();
        let alone = view.members().len() == 1;
        assert!(!is_new || alone || installed.join_state.is_some(), "a joiner is welcomed");
        process.me = Some(installed.me);
        process.view = Some(view.id);
        self.oracle.member(installed.me, process.life);
        self.oracle.agree_on(view);
        // R13: five units, and one for clocks that run at different rates.
        let quiet = self.hosts[host].clock(self.now).since(installed.quiet_from);
        let quiet = u64::try_from(quiet.as_nanos()).expect("short");
        let at = (self.now + 6 * U).saturating_sub(quiet);
        let mut lost = installed.lost.clone();
        if installed.previous.is_none() && installed.unrecovered.len() == 1 {
            // A cold start. Several that lost storage together vouch for each other until their
            // keys are found to be fenced, which is not part of this crate.
            lost.extend(&installed.unrecovered);
        }
        for member in lost {
            self.at(at, Event::PermitMustBeOver { member });
        }
    }

    /// A member that the others have dropped must not serve from its caches any more, even if it
    /// has not heard of it.
    fn check_permit(&mut self, member: Member) {
        let host = &self.hosts[index_of(member.node)];
        let Some(process) = host.process.as_ref().filter(|p| p.me == Some(member)) else { return };
        let until = process.machine.permit_until();
        assert!(until <= host.clock(self.now), "{member} was dropped and still has a permit");
    }

    // Layers above

    fn execute(&mut self, host: usize, life: u64, step: Step) {
        let me = node_id(host);
        self.note(|| format!("{me} {step:?}"));
        match step {
            Step::Hold { .. } => {}
            Step::Fence { dead } => {
                let delay = self.rng.between(1, 3 * self.weather.storage_delay);
                self.after(delay, Event::FenceWorks { host, life, dead });
            }
            Step::Rebuild { view, fs } => {
                let delay = self.rng.between(1, 3 * self.weather.storage_delay);
                self.after(delay, Event::Rebuilt { host, life, view, fs });
            }
            Step::Replay { dead, fs, .. } => {
                let mounts = &self.hosts[host].process.as_ref().expect("just spoke").mounts;
                assert!(matches!(mounts.get(&fs), Some(Mount::Ready(_))), "{me} uses {fs}");
                self.oracle.begin_replay(dead, fs, life);
                let delay = self.rng.between(1, 3 * U);
                self.after(delay, Event::Replayed { host, life, dead, fs });
            }
            Step::Resume { dead, .. } => {
                assert!(self.oracle.is_fenced(dead), "{dead} is resumed but not fenced");
            }
        }
    }

    fn granted(&mut self, host: usize, life: u64, fs: FsId, lockspace: LockspaceId, first: bool) {
        let me = node_id(host);
        self.note(|| format!("{me} may mount {fs} in {lockspace:?}, first: {first}"));
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        process.mounts.insert(fs, Mount::Granted(lockspace));
        let member = process.me.expect("only members mount");
        self.oracle.grant(member, fs, lockspace, first);
        let delay = self.rng.between(1, U);
        self.after(delay, Event::Mounted { host, life, fs, lockspace });
    }

    fn mounted(&mut self, host: usize, life: u64, fs: FsId, lockspace: LockspaceId) {
        if !self.is_life(host, life) {
            return;
        }
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        if process.mounts.get(&fs) != Some(&Mount::Granted(lockspace)) {
            return;
        }
        let member = process.me.expect("only members mount");
        if self.rng.chance(self.weather.mishap) {
            self.unmount(host, fs);
            return;
        }
        let slot = SlotId(member.node.get());
        let clock = self.hosts[host].clock(self.now);
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        match process.machine.handle_mounted(fs, lockspace, slot, clock) {
            Ok(()) => {
                process.mounts.insert(fs, Mount::Ready(lockspace));
                self.oracle.mounted(member, fs, lockspace);
            }
            Err(error) => panic!("{member} was granted {fs}: {error}"),
        }
        self.drain(host);
    }

    pub(crate) fn unmount(&mut self, host: usize, fs: FsId) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.mounts.remove(&fs);
        if let Some(member) = process.me {
            self.oracle.unmounted(member, fs);
            self.oracle.give_up_replays(fs, process.life);
        }
        self.with(host, |machine, now| machine.handle_unmounted(fs, now));
    }

    /// The layers above mount, unmount, leave and talk at random.
    fn work(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let (life, leaving, me) = (process.life, process.leaving, process.me);
        let pause = self.rng.between(U / 2, 4 * U);
        self.after(pause, Event::Work { host });
        let Some(me) = me else { return };
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let members: Vec<Member> =
            process.machine.view().map(|view| view.members().to_vec()).unwrap_or_default();
        for to in members {
            if to != me && self.rng.chance(50) {
                self.talk(host, to);
            }
        }
        if leaving {
            self.give_up_mounts(host, life);
            return;
        }
        let fs = FILE_SYSTEMS[usize::try_from(self.rng.between(0, 2)).expect("small")];
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let is_mounted = process.mounts.get(&fs).copied();
        // The last act of every run needs every node to mount what it can.
        if is_mounted.is_none() {
            let clock = self.hosts[host].clock(self.now);
            let process = self.hosts[host].process.as_mut().expect("just looked at");
            if process.machine.handle_mount(fs, clock).is_ok() {
                process.mounts.insert(fs, Mount::Asked);
            }
            self.drain(host);
        } else if !self.calm && self.rng.chance(4) && !self.oracle.replays(fs, life) {
            self.unmount(host, fs);
        }
    }

    pub(crate) fn leave(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else { return };
        process.leaving = true;
        let life = process.life;
        self.note(|| format!("{} wants to leave", node_id(host)));
        self.give_up_mounts(host, life);
        self.with(host, |machine, now| machine.handle_leave(now));
    }

    /// What it replays it unmounts later.
    fn give_up_mounts(&mut self, host: usize, life: u64) {
        let process = self.hosts[host].process.as_ref().expect("just looked at");
        let mounted: Vec<FsId> = process.mounts.keys().copied().collect();
        for fs in mounted {
            if !self.oracle.replays(fs, life) {
                self.unmount(host, fs);
            }
        }
    }

    fn talk(&mut self, host: usize, to: Member) {
        let process = self.hosts[host].process.as_mut().expect("just looked at");
        let number = process.sent.entry(to).or_insert(0);
        let payload = (*number + 1).to_le_bytes();
        if process.machine.send_lock(to, LockspaceId(1), payload.as_slice().into()).is_ok() {
            *number += 1;
        }
        self.drain(host);
    }

    /// In order, exactly once, and from members of the view only (I6).
    fn deliver(&mut self, host: usize, from: Member, payload: &[u8]) {
        let process = self.hosts[host].process.as_mut().expect("it has just spoken");
        let view = process.view.expect("only members receive traffic");
        let members = &self.register.members_of[&view];
        assert!(members.contains(&from), "traffic of {from}, who is not in {view:?}");
        let number = u64::from_le_bytes(payload.try_into().expect("eight bytes"));
        let last = process.received.entry(from).or_insert(0);
        assert_eq!(number, *last + 1, "{from} to {}: in order and once", node_id(host));
        *last = number;
    }

    // Network

    pub(crate) fn delay(&mut self) -> u64 {
        self.rng.between(100_000, self.weather.network_delay)
    }

    fn dial(&mut self, from: usize, to: usize, life: u64) {
        if !self.is_life(from, life) {
            return;
        }
        let reachable = self.hosts[to].up && !self.net.cut[from][to] && !self.net.cut[to][from];
        if !reachable {
            self.after(3 * U, Event::DialFailed { host: from, life, to, refused: false });
            return;
        }
        let delay = self.delay();
        let Some(process) = &self.hosts[to].process else {
            self.after(delay, Event::DialFailed { host: from, life, to, refused: true });
            return;
        };
        self.net.next += 1;
        let id = ConnectionId(self.net.next);
        let connection = Connection {
            ends: [from, to],
            lives: [life, process.life],
            open: [true, true],
            directions: [Direction::default(), Direction::default()],
        };
        self.net.connections.insert(id, connection);
        self.after(delay, Event::Connected { connection: id });
    }

    fn connected(&mut self, id: ConnectionId) {
        let Some([from, to]) = self.net.connections.get(&id).map(|c| c.ends) else { return };
        // A stopped process accepts later; the kernel answers for it.
        if let Some(host) = self.open_end(id, 1) {
            self.with(host, |machine, now| machine.handle_accepted(id, now));
        }
        if self.open_end(id, 0).is_some() {
            self.with(from, |machine, now| {
                machine.handle_connected(node_id(to), id, now);
            });
        }
    }

    fn send(&mut self, host: usize, id: ConnectionId, frame: &Frame) {
        let (cut, paced) = {
            let Some(connection) = self.net.connections.get(&id) else { return };
            let side = connection.side(host);
            let other = connection.ends[1 - side];
            if !connection.open[side] {
                return;
            }
            (self.net.cut[host][other] || !self.hosts[other].up, self.delay())
        };
        let split = self.rng.chance(5);
        let now = self.now;
        let connection = self.net.connections.get_mut(&id).expect("just looked at");
        let side = connection.side(host);
        let direction = &mut connection.directions[side];
        direction.stuck |= cut;
        if direction.stuck {
            return;
        }
        let at = (now + paced).max(direction.busy_until + 1);
        direction.busy_until = at;
        let bytes = frame.to_bytes();
        if split {
            let (head, tail) = bytes.split_at(bytes.len() / 2);
            direction.busy_until = at + 1;
            let (head, tail) = (head.to_vec(), tail.to_vec());
            self.at(at, Event::Bytes { connection: id, side: 1 - side, bytes: head });
            self.at(at + 1, Event::Bytes { connection: id, side: 1 - side, bytes: tail });
        } else {
            self.at(at, Event::Bytes { connection: id, side: 1 - side, bytes });
        }
    }

    fn close(&mut self, host: usize, id: ConnectionId) {
        let Some(connection) = self.net.connections.get(&id) else { return };
        let side = connection.side(host);
        if connection.open[side] {
            self.close_end(id, side);
            self.tell_closed(id, side);
        }
    }

    /// The other side sees the end after what was sent before.
    fn tell_closed(&mut self, id: ConnectionId, side: usize) {
        let delay = self.delay();
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let (from, to) = (connection.ends[side], connection.ends[1 - side]);
        let cut = self.net.cut[from][to];
        let direction = &mut connection.directions[side];
        direction.stuck |= cut;
        if direction.stuck {
            return;
        }
        let at = (self.now + delay).max(direction.busy_until + 1);
        direction.busy_until = at;
        self.at(at, Event::Closed { connection: id, side: 1 - side });
    }

    /// Both sides lose it at once, with whatever was on its way.
    pub(crate) fn break_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        for side in 0..2 {
            connection.directions[side].stuck = true;
        }
        let (a, b) = (self.delay(), self.delay());
        self.after(a, Event::Closed { connection: id, side: 0 });
        self.after(b, Event::Closed { connection: id, side: 1 });
    }

    /// The host at this end, if the end is open in its present life.
    fn open_end(&self, id: ConnectionId, side: usize) -> Option<usize> {
        let connection = self.net.connections.get(&id)?;
        let host = connection.ends[side];
        let open = connection.open[side] && self.is_life(host, connection.lives[side]);
        open.then_some(host)
    }

    fn close_end(&mut self, id: ConnectionId, side: usize) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        connection.open[side] = false;
        if connection.open == [false, false] {
            self.net.connections.remove(&id);
        }
    }

    // Storage

    fn request(&mut self, request: Request) {
        let id = self.next_request;
        self.next_request += 1;
        let mut delay = self.rng.between(1, self.weather.storage_delay);
        if let RequestKind::Commit { .. } = request.kind {
            delay += self.weather.commit_delay;
        }
        if let RequestKind::Commit { unknown: true, .. } = request.kind {
            // Long enough for everybody to have given up on it, now and then.
            let answer = self.rng.between(1, U);
            self.after(answer, Event::RegisterAnswer { request: id });
            delay += self.rng.between(0, 12 * U);
        }
        self.requests.insert(id, request);
        self.after(delay, Event::Register { request: id });
    }

    fn register_works(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        let (host, life) = (request.host, request.life);
        if self.hosts[host].storage_cut {
            self.after(U, Event::Register { request: id });
            return;
        }
        let dead = !self.is_life(host, life);
        let request = self.requests.get_mut(&id).expect("just looked at");
        if let RequestKind::Commit { commit, done, .. } = &mut request.kind {
            if let Change::ColdStart { me } = commit.change
                && commit.expected == self.register.value.generation
            {
                self.oracle.check_cold_start(me, &self.register.value, request.issued);
            }
            let lost = self.rng.chance(self.weather.unknown);
            let verdict = if lost {
                Verdict::GenerationMoved
            } else {
                self.register.change(node_id(host), commit.expected, &commit.change)
            };
            let value = self.register.value.clone();
            *done = Some(match verdict {
                Verdict::Committed => CommitAnswer::Committed(value),
                Verdict::GenerationMoved => CommitAnswer::Refused(value),
            });
            let text = match verdict {
                Verdict::Committed => format!("register {:?}", self.register.value),
                Verdict::GenerationMoved => format!("register refuses {}", node_id(host)),
            };
            if matches!(verdict, Verdict::Committed) {
                self.oracle.committed(&self.register.value, self.now);
            }
            self.note(|| text);
        }
        if let RequestKind::Read { value } =
            &mut self.requests.get_mut(&id).expect("just looked at").kind
        {
            *value = Some(self.register.value.clone());
        }
        if dead {
            self.requests.remove(&id);
            return;
        }
        let delay = self.rng.between(1, self.weather.storage_delay);
        self.after(delay, Event::RegisterAnswer { request: id });
    }

    fn register_answers(&mut self, id: u64) {
        let Some(request) = self.requests.get(&id) else { return };
        let host = request.host;
        if !self.is_life(host, request.life) {
            return;
        }
        match &request.kind {
            RequestKind::Read { value } => {
                let value = value.clone().expect("it was read before it answers");
                let issued = request.issued;
                self.requests.remove(&id);
                let began = self.hosts[host].clock(issued);
                self.with(host, |machine, now| machine.handle_register(value, began, now));
            }
            RequestKind::Commit { commit, done, .. } => {
                let token = commit.token;
                let answer = done.clone().unwrap_or(CommitAnswer::Unknown);
                if done.is_some() {
                    self.requests.remove(&id);
                }
                self.with(host, |machine, now| machine.handle_commit_answer(token, answer, now));
            }
        }
    }

    fn poll_disk(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let me = process.me;
        let reach = process.machine.reach();
        let delay = self.rng.between(0, self.weather.storage_delay);
        self.after(2 * U + delay, Event::Poll { host });
        if self.hosts[host].storage_cut {
            self.with(host, |machine, now| machine.handle_register_unreadable(now));
            return;
        }
        if let Some(me) = me.filter(|me| !self.oracle.is_fenced(*me)) {
            let block = self.disk.entry(me.node).or_insert(DiskHeartbeat {
                node: me.node,
                incarnation: Incarnation(0),
                sequence: 0,
                reach,
            });
            block.incarnation = me.incarnation;
            block.sequence += 1;
            block.reach = reach;
            self.oracle.disk_sign(me, self.now);
        }
        let blocks: Vec<DiskHeartbeat> = self.disk.values().copied().collect();
        let value = self.register.value.clone();
        self.with(host, |machine, now| machine.handle_disk_heartbeats(&blocks, now));
        self.with(host, |machine, now| machine.handle_register(value, now, now));
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
