//! Connections between processes: ordered frames both ways until they break.
//!
//! Loss is a broken connection, or a cut that swallows: behind a frame that was swallowed nothing
//! arrives on that connection, as with TCP. Urgent frames may overtake what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use cluster::{ConnectionId, Frame};
use futures_channel::mpsc;
use model::Random;
use mx_base::{Duration, Instant, NodeId};
use parking_lot::Mutex;

use super::plan::Weather;
use super::{LifeId, WORLD};
use crate::exec::Executor;

/// What happens to the connections of a process, in order.
#[derive(Debug)]
pub enum Incoming {
    Accepted(ConnectionId),
    Connected(NodeId, ConnectionId),
    ConnectFailed { peer: NodeId, refused: bool },
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Net {
    exec: Executor,
    weather: Weather,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    hosts: BTreeMap<NodeId, Host>,
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
    /// Nothing gets from the first to the second.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// From the first to the second it takes longer, by up to so much.
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    /// Connections are late by up to so much, each by an amount of its own.
    spread: Duration,
    frames: u64,
}

/// The process that runs on a host, if one does.
struct Host {
    is_up: bool,
    process: Option<(LifeId, mpsc::UnboundedSender<Incoming>)>,
}

struct Connection {
    /// The dialler, and the other.
    ends: [End; 2],
}

struct End {
    node: NodeId,
    life: LifeId,
    is_open: bool,
    /// On the way to this end, in order; `None` closes.
    queue: VecDeque<(bool, Option<Vec<u8>>)>,
    /// Nothing arrives before what was sent earlier.
    busy_until: Instant,
    is_stuck: bool,
    /// What was on the way then arrives no sooner.
    held_until: Instant,
}

impl End {
    fn new(node: NodeId, life: LifeId) -> End {
        let (queue, busy_until, held_until) = (VecDeque::new(), Instant(0), Instant(0));
        End { node, life, is_open: true, queue, busy_until, is_stuck: false, held_until }
    }
}

impl Net {
    pub fn new(exec: &Executor, weather: Weather) -> Net {
        Net { exec: exec.clone(), weather, state: Arc::default() }
    }

    /// Frames sent so far.
    pub fn frames(&self) -> u64 {
        self.state.lock().frames
    }

    pub fn host_up(&self, node: NodeId, is_up: bool) {
        let host = Host { is_up, process: None };
        self.state.lock().hosts.entry(node).or_insert(host).is_up = is_up;
    }

    /// A process listens on `node` from now on.
    pub fn listen(&self, node: NodeId, life: LifeId) -> mpsc::UnboundedReceiver<Incoming> {
        let (sender, incoming) = mpsc::unbounded();
        let host = Host { is_up: true, process: Some((life, sender)) };
        self.state.lock().hosts.insert(node, host);
        incoming
    }

    /// The process is gone. Its host closes its connections, unless it is gone as well.
    pub fn process_died(&self, life: LifeId, is_silent: bool) {
        let mut to_close = Vec::new();
        {
            let state = &mut *self.state.lock();
            for host in state.hosts.values_mut() {
                host.process.take_if(|(of, _)| *of == life);
            }
            for (id, connection) in &mut state.connections {
                for side in 0..2 {
                    if connection.ends[side].life == life && connection.ends[side].is_open {
                        connection.ends[side].is_open = false;
                        to_close.push((*id, 1 - side));
                    }
                }
            }
        }
        for (id, side) in to_close.into_iter().filter(|_| !is_silent) {
            self.reset(id, side);
        }
    }

    /// Ends a connection on one side; what is on its way there may be lost.
    fn reset(&self, id: ConnectionId, side: usize) {
        if self.exec.draw(|r| r.chance(50))
            && let Some(connection) = self.state.lock().connections.get_mut(&id)
        {
            connection.ends[side].queue.clear();
        }
        self.put(id, side, false, None);
    }

    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
    }

    /// Whatever is wrong with connections ends.
    pub fn heal(&self) {
        let state = &mut *self.state.lock();
        state.cut.clear();
        state.slow.clear();
        state.spread = Duration::ZERO;
    }

    /// The cuts end.
    pub fn reconnect(&self) {
        self.state.lock().cut.clear();
    }

    /// Between two hosts it takes up to so much longer, both ways; zero for no longer.
    pub fn slow(&self, a: NodeId, b: NodeId, extra: Duration) {
        let state = &mut *self.state.lock();
        for way in [(a, b), (b, a)] {
            match extra {
                Duration::ZERO => drop(state.slow.remove(&way)),
                _ => drop(state.slow.insert(way, extra)),
            }
        }
    }

    /// Connections are late by up to so much, each by an amount of its own.
    pub fn spread(&self, spread: Duration) {
        self.state.lock().spread = spread;
    }

    /// Breaks connections, each with this chance in percent. One end learns it soon, the other when
    /// everything that was on its way has arrived, up to so late.
    pub fn half_open(&self, percent: u64, late: Duration) {
        let ids: Vec<ConnectionId> = self.state.lock().connections.keys().copied().collect();
        let late = u64::try_from(late.as_micros()).expect("short");
        for id in ids {
            let (breaks, late_side, late) = self
                .exec
                .draw(|r| (r.chance(percent), usize::from(r.chance(50)), r.below(late.max(1))));
            if !breaks {
                continue;
            }
            if let Some(connection) = self.state.lock().connections.get_mut(&id) {
                let until = self.exec.now() + Duration::from_micros(late);
                connection.ends[late_side].held_until = until;
            }
            self.put(id, late_side, false, None);
            self.reset(id, 1 - late_side);
        }
    }

    /// Breaks connections, each with this chance in percent.
    pub fn break_some(&self, percent: u64) {
        let ids: Vec<ConnectionId> = self.state.lock().connections.keys().copied().collect();
        for id in ids {
            if self.exec.draw(|r| r.chance(percent)) {
                (0..2).for_each(|side| self.reset(id, side));
            }
        }
    }

    /// The network as one process sees it.
    pub fn of(&self, node: NodeId, life: LifeId) -> Port {
        Port { net: self.clone(), node, life }
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(20 + self.exec.draw(|r| r.below(self.weather.network_delay)))
    }

    /// What faults add to the delay of a frame on its way to one end.
    fn lateness(&self, id: ConnectionId, side: usize) -> Duration {
        let (slow, spread) = {
            let state = self.state.lock();
            let Some(connection) = state.connections.get(&id) else { return Duration::ZERO };
            let way = (connection.ends[1 - side].node, connection.ends[side].node);
            (state.slow.get(&way).copied().unwrap_or_default(), state.spread)
        };
        let micros = |d: Duration| u64::try_from(d.as_micros()).expect("short");
        let mut late = 0;
        if spread > Duration::ZERO {
            // Of the connection, not of the frame.
            let own = Random::new(id.0 * 2 + u64::from(side == 1)).below(micros(spread));
            late += own;
        }
        if slow > Duration::ZERO {
            late += self.exec.draw(|r| r.below(micros(slow)));
        }
        Duration::from_micros(late)
    }

    /// Puts something on the way to one end of a connection.
    fn put(&self, id: ConnectionId, side: usize, is_urgent: bool, what: Option<Vec<u8>>) {
        let delay = self.delay() + self.lateness(id, side);
        let now = self.exec.now();
        let overtakes = is_urgent && self.exec.draw(|r| r.chance(50));
        let at = {
            let state = &mut *self.state.lock();
            let Some(connection) = state.connections.get_mut(&id) else { return };
            let from = connection.ends[1 - side].node;
            let end = &mut connection.ends[side];
            if state.cut.contains(&(from, end.node)) {
                end.is_stuck = true;
            }
            if end.is_stuck || !end.is_open {
                return;
            }
            state.frames += 1;
            let place = if overtakes {
                end.queue.iter().take_while(|(urgent, _)| *urgent).count()
            } else {
                end.queue.len()
            };
            end.queue.insert(place, (is_urgent, what));
            end.busy_until = end.busy_until.max(now + delay);
            end.busy_until
        };
        let (net, exec) = (self.clone(), self.exec.clone());
        self.exec.spawn(WORLD, async move {
            exec.sleep(at.since(now)).await;
            net.deliver(id, side);
        });
    }

    fn deliver(&self, id: ConnectionId, side: usize) {
        let state = &mut *self.state.lock();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let from = connection.ends[1 - side].node;
        let end = &mut connection.ends[side];
        let now = self.exec.now();
        if end.held_until > now {
            let wait = end.held_until.since(now);
            let (net, exec) = (self.clone(), self.exec.clone());
            self.exec.spawn(WORLD, async move {
                exec.sleep(wait).await;
                net.deliver(id, side);
            });
            return;
        }
        let Some((_, what)) = end.queue.pop_front() else { return };
        if state.cut.contains(&(from, end.node)) {
            end.is_stuck = true;
        }
        if end.is_stuck || !end.is_open {
            return;
        }
        let process = state.hosts.get(&end.node).and_then(|host| host.process.as_ref());
        if let Some((life, inbox)) = process
            && *life == end.life
        {
            let incoming = match what {
                Some(bytes) => Incoming::Bytes(id, bytes),
                None => {
                    end.is_open = false;
                    Incoming::Closed(id)
                }
            };
            let _ = inbox.unbounded_send(incoming);
        }
        if connection.ends.iter().all(|end| !end.is_open) {
            state.connections.remove(&id);
        }
    }

    /// A process dials another.
    async fn dial(&self, from: NodeId, life: LifeId, to: NodeId) {
        let delay = self.delay();
        self.exec.sleep(delay).await;
        let is_cut = {
            let state = self.state.lock();
            let is_up = state.hosts.get(&to).is_some_and(|host| host.is_up);
            !is_up || state.cut.contains(&(from, to)) || state.cut.contains(&(to, from))
        };
        if is_cut {
            // The host waits for an answer.
            self.exec.sleep(Duration::from_millis(700)).await;
            return self.tell(from, life, Incoming::ConnectFailed { peer: to, refused: false });
        }
        let connected = {
            let state = &mut *self.state.lock();
            let process = state.hosts.get(&to).and_then(|host| host.process.as_ref());
            process.map(|(other, inbox)| {
                state.next += 1;
                let id = ConnectionId(state.next);
                let ends = [End::new(from, life), End::new(to, *other)];
                state.connections.insert(id, Connection { ends });
                let _ = inbox.unbounded_send(Incoming::Accepted(id));
                id
            })
        };
        let delay = self.delay();
        self.exec.sleep(delay).await;
        let answer = match connected {
            Some(id) => Incoming::Connected(to, id),
            None => Incoming::ConnectFailed { peer: to, refused: true },
        };
        self.tell(from, life, answer);
    }

    fn tell(&self, node: NodeId, life: LifeId, what: Incoming) {
        let state = self.state.lock();
        let process = state.hosts.get(&node).and_then(|host| host.process.as_ref());
        if let Some((of, inbox)) = process
            && *of == life
        {
            let _ = inbox.unbounded_send(what);
        } else if let Incoming::Connected(_, id) = what {
            drop(state);
            self.close(id, life);
        }
    }

    fn close(&self, id: ConnectionId, life: LifeId) {
        let side = {
            let state = &mut *self.state.lock();
            let Some(connection) = state.connections.get_mut(&id) else { return };
            let Some(side) = connection.ends.iter().position(|end| end.life == life) else {
                return;
            };
            connection.ends[side].is_open = false;
            side
        };
        self.put(id, 1 - side, false, None);
    }
}

/// The network as one process sees it.
#[derive(Clone)]
pub struct Port {
    net: Net,
    node: NodeId,
    life: LifeId,
}

impl Port {
    /// Does the process still run?
    fn is_there(&self) -> bool {
        let state = self.net.state.lock();
        let process = state.hosts.get(&self.node).and_then(|host| host.process.as_ref());
        process.is_some_and(|(life, _)| *life == self.life)
    }
}

impl mx_node::world::Network for Port {
    fn connect(&self, peer: NodeId) {
        if self.is_there() {
            let port = self.clone();
            self.net.exec.spawn(WORLD, async move {
                port.net.dial(port.node, port.life, peer).await;
            });
        }
    }

    fn send(&self, connection: ConnectionId, frame: Frame) {
        if !self.is_there() {
            return;
        }
        let side = {
            let state = self.net.state.lock();
            let Some(connection) = state.connections.get(&connection) else { return };
            let ends = &connection.ends;
            match ends.iter().position(|end| end.life == self.life) {
                Some(side) if ends[side].is_open => side,
                _ => return,
            }
        };
        self.net.put(connection, 1 - side, frame.is_urgent(), Some(frame.to_bytes()));
    }

    fn close(&self, connection: ConnectionId) {
        if self.is_there() {
            self.net.close(connection, self.life);
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("frames", &self.frames()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port of {}", self.node)
    }
}
