//! Bytes on their way: connections that delay, swallow and break.

use cluster::{ConnectionId, Frame};

use crate::net::{Connection, Direction};
use crate::world::{Event, U, World, node_id};

impl World {
    pub(crate) fn dial(&mut self, from: usize, to: usize, life: u64) {
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

    pub(crate) fn connected(&mut self, id: ConnectionId) {
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

    pub(crate) fn send(&mut self, host: usize, id: ConnectionId, frame: &Frame) {
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

    pub(crate) fn close(&mut self, host: usize, id: ConnectionId) {
        let Some(connection) = self.net.connections.get(&id) else { return };
        let side = connection.side(host);
        if connection.open[side] {
            self.close_end(id, side);
            self.tell_closed(id, side);
        }
    }

    /// The other side sees the end after what was sent before.
    pub(crate) fn tell_closed(&mut self, id: ConnectionId, side: usize) {
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
    pub(crate) fn open_end(&self, id: ConnectionId, side: usize) -> Option<usize> {
        let connection = self.net.connections.get(&id)?;
        let host = connection.ends[side];
        let open = connection.open[side] && self.is_life(host, connection.lives[side]);
        open.then_some(host)
    }

    pub(crate) fn close_end(&mut self, id: ConnectionId, side: usize) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        connection.open[side] = false;
        if connection.open == [false, false] {
            self.net.connections.remove(&id);
        }
    }
}
