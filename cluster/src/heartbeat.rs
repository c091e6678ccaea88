//! Heartbeats: one ping per unit to every connected peer, and what their answers permit (R13).
//!
//! Keeps true:
//! * what counts for the permit is when a ping was *sent*, never when its answer came;
//! * an answer counts for the start of the peer that was asked, never for a later one;
//! * a node whose proposal to drop a member this node has agreed to gets no answer from it until
//!   that proposal is known to have failed, so its permit runs out.
//!
//! Sends nothing itself: [`Heartbeat::handle_timeout`] says when pings are due, and
//! [`Heartbeat::ping`] makes one.

use std::collections::{BTreeMap, VecDeque};

use mx_base::{Instant, Member, NodeId, SanGeneration, ViewId};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::handshake::StartNonce;
use crate::nodes::NodeSet;
use crate::timer::{self, Unit};

/// Unanswered pings that are remembered for each peer: more than twice what suspicion allows.
const PINGS_REMEMBERED: usize = 16;

/// What a ping says of its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ping {
    pub sequence: u64,
    /// The view it has installed; 0 for none.
    pub view: ViewId,
    pub generation: SanGeneration,
    /// The peers that it hears.
    pub reach: NodeSet,
    pub flags: Flags,
}

/// What a node lets the others know of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// It acts in a view.
    pub member: bool,
    /// It reaches the membership partition.
    pub storage_ok: bool,
    /// It has given up everything and waits for the view without it.
    pub leaving: bool,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct WirePing {
    sequence: U64,
    view: U64,
    generation: U64,
    reach: U64,
    flags: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<WirePing>() == 40);

const FLAG_MEMBER: u32 = 1;
const FLAG_STORAGE_OK: u32 = 2;
const FLAG_LEAVING: u32 = 4;

impl Ping {
    pub fn to_bytes(self) -> Vec<u8> {
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let flags = flag(self.flags.member, FLAG_MEMBER)
            | flag(self.flags.storage_ok, FLAG_STORAGE_OK)
            | flag(self.flags.leaving, FLAG_LEAVING);
        WirePing {
            sequence: U64::new(self.sequence),
            view: U64::new(self.view.0),
            generation: U64::new(self.generation.0),
            reach: U64::new(self.reach.bits()),
            flags: U32::new(flags),
            reserved: U32::new(0),
        }
        .as_bytes()
        .to_vec()
    }

    /// `None` when the bytes are too few. Longer ones and unknown flags are ignored.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ping> {
        let (wire, _) = WirePing::ref_from_prefix(bytes).ok()?;
        let flags = wire.flags.get();
        Some(Ping {
            sequence: wire.sequence.get(),
            view: ViewId(wire.view.get()),
            generation: SanGeneration(wire.generation.get()),
            reach: NodeSet::from_bits(wire.reach.get()),
            flags: Flags {
                member: flags & FLAG_MEMBER != 0,
                storage_ok: flags & FLAG_STORAGE_OK != 0,
                leaving: flags & FLAG_LEAVING != 0,
            },
        })
    }
}

/// The answer to a ping: its sequence number.
pub(crate) fn pong_to_bytes(sequence: u64) -> Vec<u8> {
    U64::new(sequence).as_bytes().to_vec()
}

pub(crate) fn pong_from_bytes(bytes: &[u8]) -> Option<u64> {
    let (sequence, _) = U64::ref_from_prefix(bytes).ok()?;
    Some(sequence.get())
}

/// Until when a node may serve what it has cached (R13). The owner of the caches stops at
/// [`Permit::until`]; a permit that has run out is renewed by the next answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permit {
    /// More than half of the votes acknowledged a ping sent 5 U before. [`FOR_EVER`] when this
    /// node has so many itself.
    pub majority_until: Instant,
    /// Every other member did. The beginning of time when there is no other.
    pub everyone_until: Instant,
    /// The register, in a reading that began 5 U before, listed this node.
    pub register_until: Instant,
    /// This node's heartbeat reached the membership partition: nobody who sees it starts cold.
    pub pulse_until: Instant,
}

/// A permit that nobody else has to renew.
pub const FOR_EVER: Instant = Instant(u64::MAX);

#[derive(Debug)]
struct Peer {
    start: StartNonce,
    asked: VecDeque<(u64, Instant)>,
    /// When the newest ping that was answered had been sent.
    answered: Option<Instant>,
    report: Option<Ping>,
    /// Nodes missing from its reach, and since when.
    missing: BTreeMap<NodeId, Instant>,
}

#[derive(Debug)]
pub(crate) struct Heartbeat {
    unit: Unit,
    sequence: u64,
    next_round: Instant,
    peers: BTreeMap<NodeId, Peer>,
}

impl Heartbeat {
    pub(crate) fn new(unit: Unit, now: Instant) -> Heartbeat {
        Heartbeat { unit, sequence: 0, next_round: now, peers: BTreeMap::new() }
    }

    /// A start of `peer` is connected that was not before: nothing of an earlier one counts.
    pub(crate) fn handle_start(&mut self, peer: NodeId, start: StartNonce) {
        if self.peers.get(&peer).is_some_and(|known| known.start == start) {
            return;
        }
        let fresh = Peer {
            start,
            asked: VecDeque::new(),
            answered: None,
            report: None,
            missing: BTreeMap::new(),
        };
        self.peers.insert(peer, fresh);
    }

    /// True when a round of pings is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> bool {
        if now < self.next_round {
            return false;
        }
        self.next_round = now + self.unit.times(timer::HEARTBEAT);
        true
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_round
    }

    /// A ping for `peer`, sent at `now`.
    pub(crate) fn ping(&mut self, peer: NodeId, about: Ping, now: Instant) -> Option<Ping> {
        let known = self.peers.get_mut(&peer)?;
        self.sequence += 1;
        if known.asked.len() == PINGS_REMEMBERED {
            known.asked.pop_front();
        }
        known.asked.push_back((self.sequence, now));
        Some(Ping { sequence: self.sequence, ..about })
    }

    /// True when what the peer says of itself has changed.
    pub(crate) fn handle_ping(&mut self, peer: NodeId, ping: Ping, now: Instant) -> bool {
        let Some(known) = self.peers.get_mut(&peer) else { return false };
        known.missing.retain(|node, _| !ping.reach.contains(*node));
        for node in (1..=NodeId::MAX).filter_map(NodeId::new) {
            if !ping.reach.contains(node) {
                known.missing.entry(node).or_insert(now);
            }
        }
        let said = |ping: Ping| (ping.view, ping.generation, ping.reach, ping.flags);
        let changed = known.report.is_none_or(|report| said(report) != said(ping));
        known.report = Some(ping);
        changed
    }

    pub(crate) fn handle_pong(&mut self, peer: NodeId, sequence: u64) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(position) = known.asked.iter().position(|(asked, _)| *asked == sequence) else {
            return;
        };
        let (_, sent) = known.asked[position];
        known.asked.drain(..=position);
        known.answered = known.answered.max(Some(sent));
    }

    /// What `peer` said last of itself.
    pub(crate) fn report(&self, peer: NodeId) -> Option<Ping> {
        self.peers.get(&peer)?.report
    }

    /// Nodes that `peer` does not reach, and since when it says so.
    pub(crate) fn missing(&self, peer: NodeId) -> BTreeMap<NodeId, Instant> {
        self.peers.get(&peer).map(|known| known.missing.clone()).unwrap_or_default()
    }

    /// What `members` permit to `me`, one of them. `start_of` says which start each
    /// of them is. Without an administrator nobody has the vote that breaks a tie, which then is
    /// missing to everybody.
    pub(crate) fn permit(
        &self,
        me: Member,
        members: &[Member],
        administrator: Option<Member>,
        start_of: impl Fn(Member) -> Option<StartNonce>,
    ) -> Permit {
        let answered = |member: Member| {
            let peer = self.peers.get(&member.node)?;
            (start_of(member) == Some(peer.start)).then_some(peer.answered)?
        };
        let mut answers: Vec<(Option<Instant>, u32)> = members
            .iter()
            .filter(|member| **member != me)
            .map(|member| (answered(*member), votes(members, administrator, *member)))
            .collect();
        answers.sort_unstable_by(|a, b| b.cmp(a));
        let until = |sent: Option<Instant>| match sent {
            Some(sent) => sent + self.unit.times(timer::SUSPECT),
            None => Instant(0),
        };
        let total = votes_in_all(members);
        let mut sum = votes(members, administrator, me);
        let mut majority_until = FOR_EVER;
        for (sent, votes) in &answers {
            if sum * 2 > total {
                break;
            }
            sum += votes;
            majority_until = until(*sent);
        }
        if sum * 2 <= total {
            majority_until = Instant(0);
        }
        let everyone_until = answers.last().map_or(Instant(0), |(sent, _)| until(*sent));
        Permit { majority_until, everyone_until, register_until: FOR_EVER, pulse_until: FOR_EVER }
    }
}

impl Permit {
    /// While everybody vouches for this node no member can have dropped it; a stranger who starts
    /// cold has seen no heartbeat for a while. While a majority does, only a side without that
    /// majority can have: then the register says so, and it was read.
    pub fn until(self) -> Instant {
        let vouched = self.everyone_until.min(self.pulse_until);
        vouched.max(self.majority_until.min(self.register_until))
    }

    /// What both permit.
    #[must_use]
    pub(crate) fn and(self, other: Permit) -> Permit {
        Permit {
            majority_until: self.majority_until.min(other.majority_until),
            everyone_until: self.everyone_until.min(other.everyone_until),
            register_until: self.register_until.min(other.register_until),
            pulse_until: self.pulse_until.min(other.pulse_until),
        }
    }
}

/// Each member has one vote; the administrator has one more when their number is even, so that
/// one of two halves is more than half.
pub(crate) fn votes(members: &[Member], administrator: Option<Member>, member: Member) -> u32 {
    let tie_break = members.len().is_multiple_of(2) && administrator == Some(member);
    1 + u32::from(tie_break)
}

/// The votes of all members: always odd.
pub(crate) fn votes_in_all(members: &[Member]) -> u32 {
    let count = u32::try_from(members.len()).expect("at most 64 members");
    count + u32::from(count.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mx_base::Incarnation;

    fn node(id: u16) -> NodeId {
        NodeId::new(id).expect("in range")
    }

    fn member(id: u16) -> Member {
        Member { node: node(id), incarnation: Incarnation(1) }
    }

    fn start(id: u16) -> StartNonce {
        StartNonce::new(u64::from(id) + 100).expect("not zero")
    }

    fn about() -> Ping {
        Ping {
            sequence: 0,
            view: ViewId(1),
            generation: SanGeneration(1),
            reach: NodeSet::EMPTY,
            flags: Flags::default(),
        }
    }

    struct Fixture {
        heartbeat: Heartbeat,
        members: Vec<Member>,
        starts: BTreeMap<Member, StartNonce>,
    }

    /// Node 1 among `nodes`, of which node `administrator` administers.
    fn of(nodes: u16) -> Fixture {
        let members: Vec<Member> = (1..=nodes).map(member).collect();
        let mut heartbeat = Heartbeat::new(Unit::DEFAULT, Instant(0));
        for id in 2..=nodes {
            heartbeat.handle_start(node(id), start(id));
        }
        Fixture {
            heartbeat,
            members,
            starts: (1..=nodes).map(|id| (member(id), start(id))).collect(),
        }
    }

    impl Fixture {
        fn answered(&mut self, by: u16, sent: u64) {
            let ping = self.heartbeat.ping(node(by), about(), Instant(sent)).expect("connected");
            self.heartbeat.handle_pong(node(by), ping.sequence);
        }

        fn permit(&self, administrator: u16) -> Permit {
            let start_of = |member: Member| self.starts.get(&member).copied();
            self.heartbeat.permit(member(1), &self.members, Some(member(administrator)), start_of)
        }
    }

    const FIVE_UNITS: u64 = 500_000_000;

    #[test]
    fn the_permit_counts_from_when_the_answered_ping_was_sent() {
        let mut f = of(3);
        assert_eq!(f.permit(1).majority_until, Instant(0));
        let early = f.heartbeat.ping(node(2), about(), Instant(1_000)).expect("connected");
        f.heartbeat.ping(node(2), about(), Instant(9_000)).expect("connected");
        f.heartbeat.handle_pong(node(2), early.sequence);
        assert_eq!(f.permit(1).majority_until, Instant(1_000 + FIVE_UNITS));
        assert_eq!(f.permit(1).everyone_until, Instant(0));
    }

    #[test]
    fn more_than_half_of_the_votes_are_needed_and_one_silent_node_does_not_matter() {
        let mut f = of(5);
        f.answered(2, 100);
        assert_eq!(f.permit(5).majority_until, Instant(0));
        f.answered(3, 300);
        f.answered(4, 200);
        assert_eq!(f.permit(5).majority_until, Instant(200 + FIVE_UNITS));
        f.answered(5, 50);
        assert_eq!(f.permit(5).everyone_until, Instant(50 + FIVE_UNITS));
    }

    #[test]
    fn the_administrator_breaks_the_tie_of_an_even_number() {
        let mut f = of(2);
        assert_eq!(f.permit(1).majority_until, FOR_EVER);
        assert_eq!(f.permit(2).majority_until, Instant(0));
        f.answered(2, 70);
        assert_eq!(f.permit(2).majority_until, Instant(70 + FIVE_UNITS));
        let mut f = of(4);
        f.answered(2, 70);
        assert_eq!(f.permit(1).majority_until, Instant(70 + FIVE_UNITS));
        assert_eq!(f.permit(2).majority_until, Instant(70 + FIVE_UNITS));
        assert_eq!(f.permit(3).majority_until, Instant(0));
    }

    /// Who will administer is not known before a proposal is committed.
    #[test]
    fn the_vote_that_breaks_a_tie_is_missing_to_everybody_while_nobody_administers() {
        let mut f = of(4);
        let permit = |f: &Fixture| {
            let start_of = |member: Member| f.starts.get(&member).copied();
            f.heartbeat.permit(member(1), &f.members, None, start_of).majority_until
        };
        f.answered(2, 70);
        assert_eq!(permit(&f), Instant(0));
        f.answered(3, 60);
        assert_eq!(permit(&f), Instant(60 + FIVE_UNITS));
    }

    #[test]
    fn an_answer_of_an_earlier_start_permits_nothing() {
        let mut f = of(2);
        f.answered(2, 70);
        f.heartbeat.handle_start(node(2), start(9));
        assert_eq!(f.permit(2).majority_until, Instant(0));
    }

    #[test]
    fn alone_in_the_view_only_the_register_can_vouch() {
        let f = of(1);
        let permit = Permit { register_until: Instant(9), ..f.permit(1) };
        assert_eq!(permit.majority_until, FOR_EVER);
        assert_eq!(permit.until(), Instant(9));
    }

    #[test]
    fn everybody_together_needs_no_register_and_a_majority_does() {
        let permit = |majority, everyone, register| Permit {
            majority_until: Instant(majority),
            everyone_until: Instant(everyone),
            register_until: Instant(register),
            pulse_until: FOR_EVER,
        };
        assert_eq!(permit(90, 70, 10).until(), Instant(70));
        assert_eq!(permit(90, 0, 10).until(), Instant(10));
        assert_eq!(permit(90, 0, 95).until(), Instant(90));
    }

    /// All members may have lost storage together, and somebody else has not.
    #[test]
    fn everybody_together_vouches_for_nobody_whose_heartbeats_do_not_reach_the_disk() {
        let permit = Permit {
            majority_until: Instant(90),
            everyone_until: Instant(90),
            register_until: Instant(10),
            pulse_until: Instant(40),
        };
        assert_eq!(permit.until(), Instant(40));
    }

    #[test]
    fn the_bytes_of_a_ping_are_those_of_the_specification() {
        let ping = Ping {
            sequence: 0x0102,
            view: ViewId(3),
            generation: SanGeneration(4),
            reach: NodeSet::from_bits(0b101),
            flags: Flags { member: true, storage_ok: false, leaving: true },
        };
        let mut golden = vec![2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        golden.extend([4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        golden.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ping.to_bytes(), golden);
        assert_eq!(Ping::from_bytes(&golden), Some(ping));
        assert_eq!(Ping::from_bytes(&golden[..39]), None);
    }
}
