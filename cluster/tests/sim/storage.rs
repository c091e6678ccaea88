//! The way to the register and to the disk heartbeats: slow, cut off, or of unknown outcome.

use cluster::{Change, Commit, CommitAnswer, DiskHeartbeat, RegisterValue};
use mx_base::Incarnation;

use crate::register::Verdict;
use crate::world::{Event, U, World, node_id};

/// A request to the register that is under way.
pub(crate) struct Request {
    pub(crate) host: usize,
    pub(crate) life: u64,
    pub(crate) issued: u64,
    pub(crate) kind: RequestKind,
}

pub(crate) enum RequestKind {
    Read { value: Option<RegisterValue> },
    Commit { commit: Commit, done: Option<CommitAnswer>, unknown: bool },
}

impl World {
    pub(crate) fn request(&mut self, request: Request) {
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

    pub(crate) fn register_works(&mut self, id: u64) {
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

    pub(crate) fn register_answers(&mut self, id: u64) {
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

    pub(crate) fn poll_disk(&mut self, host: usize) {
        let Some(process) = &self.hosts[host].process else { return };
        let me = process.me;
        let reach = process.machine.reach();
        let delay = self.rng.between(0, self.weather.storage_delay);
        self.after(2 * U + delay, Event::Poll { host });
        if self.hosts[host].storage_cut {
            self.with(host, |machine, now| machine.handle_register_unreadable(now));
            return;
        }
        let beats = me.filter(|me| !self.oracle.is_fenced(*me));
        if let Some(me) = beats {
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
        if beats.is_some() {
            self.with(host, |machine, now| machine.handle_disk_heartbeat_written(now, now));
        }
        self.with(host, |machine, now| machine.handle_disk_heartbeats(&blocks, now));
        self.with(host, |machine, now| machine.handle_register(value, now, now));
    }
}
