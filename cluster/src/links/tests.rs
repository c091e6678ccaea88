//! Handshakes, delivery over several connections, and peers that break the rules.

use super::*;
use crate::handshake::{Hello, Versions};
use crate::link::LinkError;
use crate::register::RegisterValue;

const UNIT: Unit = Unit::DEFAULT;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16, incarnation: u32) -> Member {
    Member { node: node(id), incarnation: Incarnation(incarnation) }
}

fn start(nonce: u64) -> StartNonce {
    StartNonce::new(nonce).expect("not zero")
}

fn at(units: u32) -> Instant {
    Instant(1) + UNIT.times(units)
}

/// Node `id` of nodes 1 to 3; its start has the nonce `id * 10 + life`.
fn links(id: u16, life: u64) -> Links {
    let identity = Identity {
        cluster: ClusterId([1; 16]),
        node: node(id),
        start: start(u64::from(id) * 10 + life),
    };
    let peers = (1..=3).filter(|peer| *peer != id).map(node).collect();
    Links::new(identity, peers, UNIT)
}

/// Nodes 1 and 2 in incarnation 1, their starts those of life 0.
fn roster() -> Roster {
    let members = [member(1, 1), member(2, 1)];
    let value = RegisterValue {
        members: members.to_vec(),
        incarnations: members.iter().map(|m| (m.node, m.incarnation)).collect(),
        ..RegisterValue::initial()
    };
    let starts = BTreeMap::from([(member(1, 1), start(10)), (member(2, 1), start(20))]);
    Roster::new(Some(&value), starts)
}

fn members() -> [Links; 2] {
    [1, 2].map(|id| {
        let mut links = links(id, 0);
        links.set_roster(roster(), Some(Incarnation(1)), at(0));
        links
    })
}

/// Two nodes and the connections between them, on which everything arrives at once.
struct Pair {
    ends: [Links; 2],
    events: [Vec<Event>; 2],
    open: BTreeSet<u64>,
    now: Instant,
}

impl Pair {
    fn of(ends: [Links; 2]) -> Pair {
        Pair { ends, events: [Vec::new(), Vec::new()], open: BTreeSet::new(), now: at(0) }
    }

    /// `from` has dialled the other.
    fn connect(&mut self, from: usize, id: u64) {
        let to = self.ends[1 - from].identity.node;
        self.open.insert(id);
        self.ends[1 - from].handle_accepted(ConnectionId(id), self.now);
        self.ends[from].handle_connected(to, ConnectionId(id), self.now);
        self.run();
    }

    fn cut(&mut self, id: u64) {
        self.open.remove(&id);
        for end in &mut self.ends {
            end.handle_closed(ConnectionId(id), self.now);
        }
        self.run();
    }

    fn run(&mut self) {
        loop {
            let mut quiet = true;
            for from in 0..2 {
                while let Some(transmit) = self.ends[from].poll_transmit() {
                    quiet = false;
                    match transmit {
                        Transmit::Connect(_) => {}
                        Transmit::Send(id, frame) if self.open.contains(&id.0) => {
                            self.ends[1 - from].handle_bytes(id, &frame.to_bytes(), self.now);
                        }
                        Transmit::Send(..) => {}
                        Transmit::Close(id) => {
                            self.open.remove(&id.0);
                            self.ends[1 - from].handle_closed(id, self.now);
                        }
                    }
                }
            }
            for end in 0..2 {
                while let Some(event) = self.ends[end].poll_event() {
                    self.events[end].push(event);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn say(&mut self, from: usize, text: &[u8]) -> Result<(), SendError> {
        let to = [member(1, 1), member(2, 1)][1 - from];
        self.ends[from].send_traffic(to, Kind::Lock, LockspaceId(1), text.into())?;
        self.run();
        Ok(())
    }

    fn heard(&self, end: usize) -> Vec<u8> {
        let traffic = |event: &Event| match event {
            Event::Traffic { payload, .. } => payload.to_vec(),
            Event::Connected { .. }
            | Event::Disconnected { .. }
            | Event::DialRefused { .. }
            | Event::Heard { .. }
            | Event::Ping { .. }
            | Event::Pong { .. }
            | Event::Control { .. }
            | Event::TurnedAway { .. }
            | Event::Fault { .. } => Vec::new(),
        };
        self.events[end].iter().flat_map(traffic).collect()
    }

    fn faults(&self, end: usize) -> Vec<Fault> {
        let faults = self.events[end].iter().filter_map(|event| {
            if let Event::Fault { fault, .. } = event { Some(*fault) } else { None }
        });
        faults.collect()
    }

    fn connections(&self, end: usize) -> (usize, usize) {
        let count = |connected: bool| {
            let matching = self.events[end].iter().filter(|event| match event {
                Event::Connected { .. } => connected,
                Event::Disconnected { .. } => !connected,
                Event::DialRefused { .. }
                | Event::Heard { .. }
                | Event::Ping { .. }
                | Event::Pong { .. }
                | Event::Control { .. }
                | Event::Traffic { .. }
                | Event::TurnedAway { .. }
                | Event::Fault { .. } => false,
            });
            matching.count()
        };
        (count(true), count(false))
    }
}

// Handshakes

/// What node 1 answers to this greeting of a stranger.
fn answer(links: &mut Links, hello: Hello) -> Option<Refusal> {
    let id = ConnectionId(900);
    links.handle_accepted(id, at(1));
    let frame = unsequenced(Kind::Hello, 0, 0, hello.to_bytes());
    links.handle_bytes(id, &frame.to_bytes(), at(1));
    let mut refusal = None;
    while let Some(transmit) = links.poll_transmit() {
        if let Transmit::Send(to, frame) = transmit
            && to == id
            && frame.kind == Kind::Refusal
        {
            refusal = Some(Refusal::from_bytes(&frame.payload).expect("a refusal"));
        }
    }
    links.handle_closed(id, at(1));
    refusal
}

fn hello() -> Hello {
    Hello {
        cluster: ClusterId([1; 16]),
        versions: Versions::OURS,
        node: node(2),
        incarnation: Some(Incarnation(1)),
        start: start(20),
        to: node(1),
    }
}

#[test]
fn whoever_does_not_belong_is_told_why() {
    let [mut one, _] = members();
    let mut asked = |hello: Hello| answer(&mut one, hello);
    assert_eq!(asked(hello()), None);
    assert_eq!(
        asked(Hello { cluster: ClusterId([2; 16]), ..hello() }),
        Some(Refusal::ForeignCluster)
    );
    let versions = Versions { min: 7, max: 9 };
    assert!(matches!(asked(Hello { versions, ..hello() }), Some(Refusal::Version { .. })));
    assert_eq!(asked(Hello { to: node(3), ..hello() }), Some(Refusal::WrongNode));
    assert_eq!(asked(Hello { node: node(9), ..hello() }), Some(Refusal::WrongNode));
    assert_eq!(asked(Hello { node: node(1), ..hello() }), Some(Refusal::WrongNode));
}

#[test]
fn a_life_that_was_left_behind_is_not_spoken_with() {
    let [mut one, _] = members();
    let newest = Incarnation(5);
    let value = RegisterValue {
        members: vec![member(1, 1)],
        incarnations: BTreeMap::from([(node(1), Incarnation(1)), (node(2), newest)]),
        ..RegisterValue::initial()
    };
    let starts = BTreeMap::from([(member(1, 1), start(10))]);
    one.set_roster(Roster::new(Some(&value), starts), Some(Incarnation(1)), at(0));
    let life = |incarnation| Hello { incarnation: Some(Incarnation(incarnation)), ..hello() };
    assert_eq!(answer(&mut one, life(4)), Some(Refusal::StaleIncarnation { newest }));
    assert_eq!(answer(&mut one, life(5)), Some(Refusal::NotAMember));
    assert_eq!(answer(&mut one, life(6)), None, "a view not heard of yet may list it");
}

#[test]
fn a_second_process_with_the_same_node_id_is_turned_away_while_the_first_is_heard() {
    let mut pair = Pair::of([links(1, 0), links(2, 0)]);
    pair.connect(1, 1);
    let twin = Hello { incarnation: None, start: start(29), ..hello() };
    assert_eq!(answer(&mut pair.ends[0], twin), Some(Refusal::NodeInUse));
    pair.cut(1);
    assert_eq!(answer(&mut pair.ends[0], twin), None);
}

#[test]
fn a_start_that_was_replaced_never_comes_back() {
    let mut pair = Pair::of([links(1, 0), links(2, 0)]);
    pair.connect(1, 1);
    pair.cut(1);
    let next = Hello { incarnation: None, start: start(29), ..hello() };
    assert_eq!(answer(&mut pair.ends[0], next), None);
    let former = Hello { incarnation: None, ..hello() };
    assert!(matches!(answer(&mut pair.ends[0], former), Some(Refusal::StaleIncarnation { .. })));
}

#[test]
fn the_dialler_checks_the_answer_as_well() {
    let mut pair = Pair::of([links(1, 0), links(2, 0)]);
    pair.ends[1].identity.cluster = ClusterId([9; 16]);
    pair.connect(0, 1);
    assert_eq!(pair.faults(0), [Fault::RefusedUs(Refusal::ForeignCluster)]);
    assert!(pair.open.is_empty());
}

#[test]
fn a_slow_handshake_and_a_flood_of_strangers_are_cut_off() {
    let mut one = links(1, 0);
    let strangers = u64::try_from(STRANGERS_MAX).expect("small") + 1;
    for id in 0..strangers {
        one.handle_accepted(ConnectionId(id), at(0));
    }
    let closed = |one: &mut Links| {
        std::iter::from_fn(|| one.poll_transmit())
            .filter(|transmit| matches!(transmit, Transmit::Close(_)))
            .count()
    };
    assert_eq!(closed(&mut one), 1);
    one.handle_timeout(at(timer::HANDSHAKE));
    assert_eq!(closed(&mut one), STRANGERS_MAX);
}

// Delivery

#[test]
fn messages_arrive_once_and_in_order_over_connections_that_come_and_go() {
    let mut pair = Pair::of(members());
    pair.say(0, b"x").expect_err("nobody is there yet");
    pair.connect(0, 1);
    pair.say(0, b"1").expect("connected");
    pair.cut(1);
    pair.say(0, b"2").expect("kept");
    pair.say(0, b"3").expect("kept");
    pair.connect(1, 2);
    pair.say(0, b"4").expect("connected");
    assert_eq!(pair.heard(1), b"1234");
}

/// Both dial at once: the lower node closes the older connection and nothing is lost or doubled.
#[test]
fn of_two_connections_between_two_nodes_one_stays() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    pair.connect(1, 2);
    for text in [b"1", b"2"] {
        pair.say(0, text).expect("connected");
        pair.say(1, text).expect("connected");
    }
    assert_eq!(pair.open, BTreeSet::from([2]));
    assert_eq!((pair.heard(0), pair.heard(1)), (b"12".to_vec(), b"12".to_vec()));
    assert_eq!(pair.connections(0), (1, 0), "the peer was connected all the time");
}

#[test]
fn traffic_of_a_sender_that_is_no_member_yet_waits_for_its_view() {
    let [mut one, two] = members();
    one.set_roster(Roster::default(), None, at(0));
    let mut pair = Pair::of([one, two]);
    pair.connect(1, 1);
    pair.say(1, b"1").expect("connected");
    pair.say(1, b"2").expect("connected");
    assert_eq!(pair.heard(0), b"");
    pair.ends[0].set_roster(roster(), Some(Incarnation(1)), at(1));
    pair.run();
    pair.say(1, b"3").expect("connected");
    assert_eq!(pair.heard(0), b"123");
}

#[test]
fn what_waits_for_a_view_is_bounded_and_nothing_of_it_is_lost() {
    let [mut one, two] = members();
    one.set_roster(Roster::default(), None, at(0));
    let mut pair = Pair::of([one, two]);
    pair.connect(1, 1);
    for _ in 0..=HELD_FRAMES_MAX {
        pair.ends[1]
            .send_traffic(member(1, 1), Kind::Lock, LockspaceId(1), [7].as_slice().into())
            .expect("there is room");
    }
    pair.run();
    assert_eq!(pair.faults(0), [Fault::HeldTooMuch]);
    pair.ends[0].set_roster(roster(), Some(Incarnation(1)), at(1));
    pair.connect(1, 2);
    assert_eq!(pair.heard(0).len(), HELD_FRAMES_MAX + 1);
}

#[test]
fn what_fits_no_frame_is_refused() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    let bytes = PAYLOAD_MAX + 1;
    assert_eq!(pair.say(0, &vec![0; bytes]), Err(SendError::TooLong { bytes }));
    pair.say(0, &vec![0; PAYLOAD_MAX]).expect("it fits");
    assert_eq!(pair.heard(1).len(), PAYLOAD_MAX);
}

#[test]
fn nothing_meant_for_one_life_reaches_another() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    pair.cut(1);
    pair.say(0, b"old").expect("kept");
    pair.ends[1] = links(2, 9);
    pair.connect(1, 2);
    let to = member(2, 1);
    assert_eq!(pair.say(0, b"new"), Err(SendError::Gone { to }));
    assert_eq!(pair.heard(1), b"");
}

#[test]
fn a_member_that_a_view_drops_is_disconnected_and_cannot_return() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    let value = RegisterValue {
        members: vec![member(1, 1)],
        incarnations: BTreeMap::from([(node(1), Incarnation(1)), (node(2), Incarnation(1))]),
        ..RegisterValue::initial()
    };
    let starts = BTreeMap::from([(member(1, 1), start(10))]);
    let without = Roster::new(Some(&value), starts);
    pair.ends[0].set_roster(without, Some(Incarnation(1)), at(1));
    pair.run();
    assert!(pair.open.is_empty());
    pair.connect(1, 2);
    assert!(pair.faults(1).contains(&Fault::RefusedUs(Refusal::NotAMember)));
    assert!(pair.open.is_empty());
}

#[test]
fn a_member_that_is_distrusted_is_disconnected_and_nothing_of_this_life_is_taken_any_more() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    pair.ends[1].distrust(member(1, 2), at(1));
    pair.run();
    assert!(!pair.open.is_empty(), "another life of it was meant");
    pair.ends[1].distrust(member(1, 1), at(1));
    pair.run();
    assert_eq!(pair.faults(1), [Fault::Distrusted]);
    assert!(pair.open.is_empty());
    let gone = SendError::Gone { to: member(1, 1) };
    let sent = pair.ends[1].send_traffic(member(1, 1), Kind::Lock, LockspaceId(1), [7][..].into());
    assert_eq!(sent, Err(gone));
    pair.connect(0, 2);
    assert!(pair.open.is_empty(), "and does not come back");
}

// Peers that break the rules

#[test]
fn a_frame_out_of_sequence_closes_the_connection() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    let mut frame = unsequenced(Kind::Ack, 1, 0, Vec::new());
    frame.kind = Kind::Lock;
    frame.sequence = 5;
    pair.ends[1].handle_bytes(ConnectionId(1), &frame.to_bytes(), at(1));
    pair.run();
    assert_eq!(pair.faults(1), [Fault::Link(LinkError::Gap { expected: 1, found: 5 })]);
    assert!(pair.open.is_empty());
}

#[test]
fn no_bytes_on_a_connection_make_a_node_panic() {
    let mut seed: u64 = 3;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        (seed >> 33).to_le_bytes()
    };
    let good = unsequenced(Kind::Hello, 0, 0, hello().to_bytes()).to_bytes();
    let mut ping = unsequenced(Kind::Ping, 1, 0, vec![0; 40]).to_bytes();
    ping.extend(unsequenced(Kind::Ack, 1, 0, Vec::new()).to_bytes());
    for round in 0..4000_u64 {
        let [mut one, _] = members();
        one.handle_accepted(ConnectionId(1), at(0));
        let mut bytes = [good.as_slice(), &ping].concat();
        for _ in 0..=round % 3 {
            let [a, b, c, ..] = noise();
            let position = usize::from(u16::from_le_bytes([a, b])) % bytes.len();
            bytes[position] = c;
        }
        let cut = usize::from(noise()[0]) % bytes.len();
        one.handle_bytes(ConnectionId(1), &bytes[..cut], at(0));
        one.handle_bytes(ConnectionId(1), &bytes[cut..], at(0));
    }
}

fn dialled(one: &mut Links, now: Instant) -> usize {
    one.handle_timeout(now);
    let dials = std::iter::from_fn(|| one.poll_transmit());
    dials.filter(|transmit| matches!(transmit, Transmit::Connect(_))).count()
}

#[test]
fn only_wanted_peers_are_dialled_and_not_too_often() {
    let mut one = links(1, 0);
    one.set_eager([node(2)].into_iter().collect());
    assert_eq!(dialled(&mut one, at(0)), 1);
    assert_eq!(dialled(&mut one, at(1)), 0, "one attempt at a time");
    one.handle_connect_failed(node(2), true, at(1));
    assert_eq!(dialled(&mut one, at(1)), 0);
    assert_eq!(dialled(&mut one, at(1 + timer::DIAL_AGAIN)), 1);
    assert_eq!(dialled(&mut one, at(2 + timer::DIAL_ANSWER)), 1, "no answer is a failure");
}

/// A process that ends closes its connections before it stops listening.
#[test]
fn whoever_is_closed_unheard_after_a_connection_dials_again_at_once_but_once() {
    let mut pair = Pair::of(members());
    pair.connect(0, 1);
    pair.cut(1);
    let [mut one, _] = pair.ends;
    one.set_eager([node(2)].into_iter().collect());
    assert_eq!(dialled(&mut one, at(0)), 1);
    one.handle_connected(node(2), ConnectionId(2), at(0));
    one.handle_closed(ConnectionId(2), at(0));
    assert_eq!(dialled(&mut one, at(0)), 1);
    one.handle_connected(node(2), ConnectionId(3), at(0));
    one.handle_closed(ConnectionId(3), at(0));
    assert_eq!(dialled(&mut one, at(0)), 0, "not too often");
    assert_eq!(dialled(&mut one, at(timer::DIAL_AGAIN)), 1);
}
