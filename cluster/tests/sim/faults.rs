//! What goes wrong in a random run, and the end of it: everything is mended, and the cluster must
//! heal.

use cluster::{ConnectionId, Phase};

use crate::node::Mount;
use crate::world::{Event, FILE_SYSTEMS, U, Weather, World, node_id};

pub(crate) enum Fault {
    /// The process ends; its host closes its connections.
    Kill {
        host: usize,
    },
    /// The process with this part ends.
    KillRole {
        role: Role,
    },
    /// The host is gone: silence. It comes back after so long.
    PowerOff {
        host: usize,
        until: u64,
    },
    PowerOn {
        host: usize,
    },
    /// The process is stopped and goes on later as if nothing had happened.
    Pause {
        host: usize,
        until: u64,
    },
    /// Two sides that hear nothing of each other.
    Partition {
        side: u64,
    },
    /// Nothing gets from one node to another.
    OneWay {
        from: usize,
        to: usize,
    },
    HealNetwork,
    CutStorage {
        host: usize,
    },
    HealStorage {
        host: usize,
    },
    BreakConnections {
        percent: u64,
    },
    Leave {
        host: usize,
    },
}

/// Whom a death hurts most.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Administrator,
    /// The lowest member: coordinates, leads recovery, grants mounts.
    Leader,
    Recoverer,
    /// The member that joined last.
    Newest,
}

/// How long faults go on.
const ROUGH_TIME: u64 = 250 * U;

/// After the last fault everything must be in order within so long: a restart within 30 U, a cold
/// start of 8 U and the turns of six nodes, joins one after the other, and recoveries.
const HEALING_MAX: u64 = 300 * U;

impl World {
    /// A run of this seed: 2 to 6 nodes, its own weather and its own faults.
    pub(crate) fn random(seed: u64) -> World {
        let mut world = World::new(seed, 2, Weather::CALM);
        let nodes = usize::try_from(world.rng.between(2, 7)).expect("small");
        let weather = match world.rng.between(0, 10) {
            0..3 => Weather::CALM,
            3..8 => Weather::ROUGH,
            _ => Weather::STORM,
        };
        let mut world = World::new(seed, nodes, weather);
        for host in 0..nodes {
            let at = world.rng.between(0, 20 * U);
            world.at(at, Event::Start { host });
        }
        world.plan_faults();
        world
    }

    fn plan_faults(&mut self) {
        let count = if self.rng.chance(20) { 40 } else { self.rng.between(2, 16) };
        let mut at = 0;
        for _ in 0..count {
            // Every other one comes while the last is still being dealt with.
            let again = at != 0 && self.rng.chance(50);
            at = if again {
                at + self.rng.between(0, 12 * U)
            } else {
                self.rng.between(15 * U, ROUGH_TIME)
            };
            at = at.min(ROUGH_TIME);
            let hosts = self.hosts.len() as u64;
            let mut pick = || usize::try_from(self.rng.between(0, hosts)).expect("small");
            let (host, other) = (pick(), pick());
            let short = at + self.rng.between(U / 2, 12 * U);
            let long = at + self.rng.between(2 * U, 60 * U);
            match self.rng.between(0, 12) {
                0 => self.at(at, Event::Fault(Fault::Kill { host })),
                2 => self.at(at, Event::Fault(Fault::PowerOff { host, until: long })),
                3 => {
                    let until = if self.rng.chance(50) { short } else { long };
                    self.at(at, Event::Fault(Fault::Pause { host, until }));
                }
                4 => {
                    let side = self.rng.next();
                    self.at(at, Event::Fault(Fault::Partition { side }));
                    self.at(long, Event::Fault(Fault::HealNetwork));
                }
                5 => {
                    if host != other {
                        self.at(at, Event::Fault(Fault::OneWay { from: host, to: other }));
                        self.at(long, Event::Fault(Fault::HealNetwork));
                    }
                }
                6 => {
                    self.at(at, Event::Fault(Fault::CutStorage { host }));
                    self.at(long, Event::Fault(Fault::HealStorage { host }));
                }
                7 => {
                    let percent = self.rng.between(1, 100);
                    self.at(at, Event::Fault(Fault::BreakConnections { percent }));
                }
                8 => self.at(at, Event::Fault(Fault::Leave { host })),
                _ => {
                    let role = match self.rng.between(0, 4) {
                        0 => Role::Administrator,
                        1 => Role::Leader,
                        2 => Role::Recoverer,
                        _ => Role::Newest,
                    };
                    self.at(at, Event::Fault(Fault::KillRole { role }));
                }
            }
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill { host } => {
                self.kill(host);
                let delay = self.rng.between(0, 40 * U);
                self.after(delay, Event::Start { host });
            }
            Fault::KillRole { role } => {
                if let Some(host) = self.host_of(role) {
                    self.fault(Fault::Kill { host });
                }
            }
            Fault::PowerOff { host, until } => {
                self.note(|| format!("{} loses power", node_id(host)));
                self.hosts[host].up = false;
                self.kill(host);
                self.at(until, Event::Fault(Fault::PowerOn { host }));
            }
            Fault::PowerOn { host } => {
                self.hosts[host].up = true;
                self.after(U, Event::Start { host });
            }
            Fault::Pause { host, until } => {
                self.note(|| format!("{} is stopped until {until}", node_id(host)));
                let paused = &mut self.hosts[host].paused_until;
                *paused = until.max(*paused);
            }
            Fault::Partition { side } => {
                self.note(|| format!("partition {side:b}"));
                let inside = |host: usize| side >> host & 1 == 1;
                for from in 0..self.hosts.len() {
                    for to in 0..self.hosts.len() {
                        self.net.cut[from][to] |= inside(from) != inside(to);
                    }
                }
            }
            Fault::OneWay { from, to } => {
                self.note(|| format!("nothing gets from {} to {}", node_id(from), node_id(to)));
                self.net.cut[from][to] = true;
            }
            Fault::HealNetwork => {
                self.note(|| "the network is whole".to_owned());
                self.net.heal();
            }
            Fault::CutStorage { host } => {
                self.note(|| format!("{} loses storage", node_id(host)));
                self.hosts[host].storage_cut = true;
            }
            Fault::HealStorage { host } => self.hosts[host].storage_cut = false,
            Fault::BreakConnections { percent } => {
                let ids: Vec<ConnectionId> = self.net.connections.keys().copied().collect();
                for id in ids {
                    if self.rng.chance(percent) {
                        self.break_connection(id);
                    }
                }
            }
            Fault::Leave { host } => self.leave(host),
        }
    }

    fn host_of(&self, role: Role) -> Option<usize> {
        let value = &self.register.value;
        let member = match role {
            Role::Administrator => value.administrator,
            Role::Leader => value.members.first().copied(),
            Role::Recoverer => self.oracle.recoverer(),
            Role::Newest => value.members.iter().copied().max_by_key(|m| m.incarnation),
        };
        member.map(|member| member.node.index())
    }

    /// Runs to the end; gives the hash of everything that happened.
    pub(crate) fn run(mut self) -> u64 {
        self.run_until(ROUGH_TIME);
        let last_pause = self.hosts.iter().map(|host| host.paused_until).max().unwrap_or(0);
        self.run_until(last_pause.max(self.now));
        self.note(|| "the last fault is over".to_owned());
        self.calm = true;
        self.net.heal();
        for host in 0..self.hosts.len() {
            self.hosts[host].storage_cut = false;
            self.hosts[host].up = true;
            let delay = self.rng.between(0, 10 * U);
            self.after(delay, Event::Start { host });
        }
        self.run_while(HEALING_MAX, |world| world.unhealed().is_some());
        if let Some(what) = self.unhealed() {
            for host in 0..self.hosts.len() {
                let process = self.hosts[host].process.as_ref();
                let activity = process.map(|p| p.machine.activity());
                self.note(|| format!("{}: {activity:?}", node_id(host)));
            }
            panic!("seed {}: not healed: {what}", self.seed);
        }
        self.trace_hash()
    }

    /// What is still not in order.
    pub(crate) fn unhealed(&self) -> Option<String> {
        let newest = &self.register.value;
        for (index, host) in self.hosts.iter().enumerate() {
            let Some(process) = &host.process else {
                return Some(format!("{} has not started", node_id(index)));
            };
            let Some(view) = process.machine.view() else {
                return Some(format!(
                    "{} is {} while the register says {newest:?}",
                    node_id(index),
                    process.machine.activity()
                ));
            };
            if view.id != newest.view {
                return Some(format!("{} acts in {:?}", node_id(index), view.id));
            }
            if process.leaving {
                return Some(format!("{} has not left", node_id(index)));
            }
            if process.machine.recoveries().any(|recovery| recovery.ended.is_none()) {
                return Some(format!("{} has recoveries that do not end", node_id(index)));
            }
            for fs in FILE_SYSTEMS {
                if !matches!(process.mounts.get(&fs), Some(Mount::Ready(_))) {
                    return Some(format!("{} has not mounted {fs}", node_id(index)));
                }
            }
        }
        if newest.members.len() != self.hosts.len() {
            return Some(format!("members are {:?}", newest.members));
        }
        matches!(newest.phase, Phase::Fencing | Phase::Fenced)
            .then(|| format!("victims in phase {:?}", newest.phase))
    }
}
