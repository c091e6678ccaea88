//! The one machine on top: routes between links, heartbeats, membership and storage membership.
//!
//! Holds no protocol of its own. Every input is handled completely before the call returns: what
//! it means for one part is passed to the others until nothing is left, and what remains to be
//! done outside waits in [`Cluster::poll_output`].

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use mx_base::{ClusterId, FsId, Incarnation, Instant, Member, NodeId, SlotId, View, ViewId};

use crate::disk::DiskHeartbeat;
use crate::frame::{Kind, LockspaceId};
use crate::handshake::StartNonce;
use crate::heartbeat::{Heartbeat, Permit};
use crate::links::{ConnectionId, Identity, Links, SendError, Transmit};
use crate::membership::Membership;
use crate::nodes::NodeSet;
use crate::output::{JoinBlob, Output};
use crate::register::{CommitAnswer, CommitToken, RegisterValue};
use crate::san::{MountError, Recovery, San};
use crate::suspicion::{Suspected, Suspicion};
use crate::timer::{self, Unit};
use crate::wire::{Ending, MountTable};

mod route;

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: ClusterId,
    pub me: NodeId,
    /// Registered with shared storage for this start, above all that were seen there. The node
    /// becomes a member in this life or in none.
    pub incarnation: Incarnation,
    /// All other nodes that may be in the cluster.
    pub peers: BTreeSet<NodeId>,
    pub unit: Unit,
    /// Drawn at random for this machine, never used before.
    pub start: StartNonce,
    /// For the pauses between attempts.
    pub seed: u64,
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Cluster {
    unit: Unit,
    links: Links,
    suspicion: Suspicion,
    heartbeat: Heartbeat,
    membership: Membership,
    san: San,
    leave_wanted: bool,
    last_call: Instant,
    /// Something changed that the membership should look at.
    stirred: bool,
    /// Something happened that timers may depend on: anything but traffic.
    touched: bool,
    /// The earliest timer, as far as it could have been moved by what touched it.
    due: Option<(Instant, &'static str)>,
    outputs: VecDeque<Output>,
}

impl Cluster {
    /// A node that has not joined. It looks for members and joins them, or starts the cluster.
    ///
    /// # Panics
    /// When the node is among its own peers, or its incarnation is 0.
    pub fn new(config: Config, now: Instant) -> Cluster {
        let Config { cluster, me, incarnation, peers, unit, start, seed } = config;
        assert_ne!(incarnation, Incarnation(0), "a life has a number");
        let life = Member { node: me, incarnation };
        let identity = Identity { cluster, node: me, start };
        let mut machine = Cluster {
            unit,
            suspicion: Suspicion::new(unit, peers.iter().copied(), now),
            links: Links::new(identity, peers, unit),
            heartbeat: Heartbeat::new(unit, now),
            membership: Membership::new(life, start, unit, seed, now),
            san: San::default(),
            leave_wanted: false,
            last_call: now,
            stirred: true,
            touched: true,
            due: None,
            outputs: VecDeque::new(),
        };
        machine.settle(now);
        machine
    }

    // Connections

    /// A peer has connected; which one its handshake will say.
    pub fn handle_accepted(&mut self, connection: ConnectionId, now: Instant) {
        self.wake(now);
        self.links.handle_accepted(connection, now);
        self.settle(now);
    }

    /// [`Output::Connect`] has succeeded.
    pub fn handle_connected(&mut self, peer: NodeId, connection: ConnectionId, now: Instant) {
        self.wake(now);
        self.links.handle_connected(peer, connection, now);
        self.settle(now);
    }

    /// [`Output::Connect`] has failed. `refused` says that the peer's host answered and no process
    /// listens there.
    pub fn handle_connect_failed(&mut self, peer: NodeId, refused: bool, now: Instant) {
        self.wake(now);
        self.links.handle_connect_failed(peer, refused, now);
        self.settle(now);
    }

    /// Any piece of what came over a connection, in order.
    pub fn handle_bytes(&mut self, connection: ConnectionId, bytes: &[u8], now: Instant) {
        self.note_stall(now);
        self.links.handle_bytes(connection, bytes, now);
        self.settle(now);
    }

    /// A connection was reset or closed by the other side.
    pub fn handle_closed(&mut self, connection: ConnectionId, now: Instant) {
        self.wake(now);
        self.links.handle_closed(connection, now);
        self.settle(now);
    }

    /// What a member sent breaks a rule of a layer above, so that both cannot go on together:
    /// nothing more is taken from this life of it, and no connection of it accepted. It is suspected
    /// as any member that cannot be reached. What was delivered of it before and has not been looked
    /// at yet is for the caller to drop.
    pub fn handle_distrusted(&mut self, member: Member, now: Instant) {
        self.wake(now);
        self.links.distrust(member, now);
        self.settle(now);
    }

    // The register and the disk heartbeats

    /// What the register said in a reading that began at `began`. To be called whenever it was
    /// read, about every 2 U and after [`Output::ReadRegister`].
    pub fn handle_register(&mut self, value: RegisterValue, began: Instant, now: Instant) {
        self.wake(now);
        self.membership.handle_register(value, began, now);
        self.stirred = true;
        self.settle(now);
    }

    /// The register could not be read.
    pub fn handle_register_unreadable(&mut self, now: Instant) {
        self.wake(now);
        self.membership.handle_register_unreadable();
        self.stirred = true;
        self.settle(now);
    }

    /// How [`Output::CommitView`] ended.
    pub fn handle_commit_answer(&mut self, token: CommitToken, answer: CommitAnswer, now: Instant) {
        self.wake(now);
        self.membership.handle_commit_answer(token, answer, now);
        self.stirred = true;
        self.settle(now);
    }

    /// All heartbeat blocks, as just read; about every 2 U.
    pub fn handle_disk_heartbeats(&mut self, blocks: &[DiskHeartbeat], now: Instant) {
        self.wake(now);
        self.membership.handle_disk_heartbeats(blocks, now);
        self.settle(now);
    }

    /// A heartbeat of this node, issued at `issued`, is on the disk.
    pub fn handle_disk_heartbeat_written(&mut self, issued: Instant, now: Instant) {
        self.wake(now);
        self.membership.handle_pulse(issued);
        self.settle(now);
    }

    // Layers above

    /// What the layers above give those that joined with `view`; answers
    /// [`Output::CollectJoinState`].
    ///
    /// # Panics
    /// With more than 64 MiB.
    pub fn handle_join_state(&mut self, view: ViewId, blobs: &[JoinBlob], now: Instant) {
        self.wake(now);
        self.membership.handle_collected(view, blobs);
        self.settle(now);
    }

    /// Sends lock traffic to one member, in order with all other traffic to it. A message to this
    /// node itself does not come here.
    ///
    /// # Errors
    /// When `to` is no member that can be reached, or has too much unacknowledged.
    pub fn send_lock(
        &mut self,
        to: Member,
        lockspace: LockspaceId,
        payload: Arc<[u8]>,
    ) -> Result<(), SendError> {
        self.links.send_traffic(to, Kind::Lock, lockspace, payload)?;
        self.flush_links();
        Ok(())
    }

    /// Sends a message to one member of a mount group.
    ///
    /// # Errors
    /// See [`Cluster::send_lock`].
    pub fn send_group(
        &mut self,
        to: Member,
        lockspace: LockspaceId,
        payload: Arc<[u8]>,
    ) -> Result<(), SendError> {
        self.links.send_traffic(to, Kind::Group, lockspace, payload)?;
        self.flush_links();
        Ok(())
    }

    /// This node wants to mount `fs`; [`Output::MountGranted`] follows.
    ///
    /// # Errors
    /// When it is no member, has it mounted, or too many are.
    pub fn handle_mount(&mut self, fs: FsId, now: Instant) -> Result<(), MountError> {
        self.wake(now);
        let result = self.san.handle_mount(fs, now);
        self.settle(now);
        result
    }

    /// The mount granted under `lockspace` is complete.
    ///
    /// # Errors
    /// When the grant holds no longer: start over with the next.
    pub fn handle_mounted(
        &mut self,
        fs: FsId,
        lockspace: LockspaceId,
        slot: SlotId,
        now: Instant,
    ) -> Result<(), MountError> {
        self.wake(now);
        let result = self.san.handle_mounted(fs, lockspace, slot, now);
        self.settle(now);
        result
    }

    /// `fs` is unmounted here, its slot clean; or the mount was given up.
    pub fn handle_unmounted(&mut self, fs: FsId, now: Instant) {
        self.wake(now);
        self.san.handle_unmounted(fs, now);
        self.settle(now);
    }

    /// This node wants to leave. It does as soon as it has nothing mounted and replays nothing;
    /// until [`Output::Ended`] it goes on serving as home.
    pub fn handle_leave(&mut self, now: Instant) {
        self.wake(now);
        self.leave_wanted = true;
        self.settle(now);
    }

    /// No write of `dead`, or of an earlier life of its node, reaches shared storage any more:
    /// proven. Answers [`crate::Step::Fence`], and may come unasked.
    pub fn handle_fenced(&mut self, dead: Member, now: Instant) {
        self.wake(now);
        self.san.handle_fenced(dead, now);
        self.settle(now);
    }

    /// Answers [`crate::Step::Rebuild`].
    pub fn handle_rebuilt(&mut self, view: ViewId, fs: FsId, now: Instant) {
        self.wake(now);
        self.san.handle_rebuilt(view, fs, now);
        self.settle(now);
    }

    /// Answers [`crate::Step::Replay`]. Objects that could not be replayed are isolated; that ends
    /// the recovery as well.
    pub fn handle_replayed(&mut self, dead: Member, fs: FsId, isolated: bool, now: Instant) {
        self.wake(now);
        let ending = if isolated { Ending::Isolated } else { Ending::Replayed };
        self.san.handle_replayed(dead, fs, ending, now);
        self.settle(now);
    }

    // Time

    /// To be called at the time of [`Cluster::poll_timeout`], or at any other.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        self.settle(now);
    }

    /// When this machine wants to be woken, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.due
    }

    fn earliest_timer(&self) -> Option<(Instant, &'static str)> {
        let (reconsider, why) = self.membership.poll_timeout()?;
        let mut first = (reconsider, why);
        let candidates = [
            (self.links.poll_timeout(), "connections"),
            (self.suspicion.poll_timeout(), "suspicion"),
            (Some(self.heartbeat.poll_timeout()), "heartbeat"),
        ];
        for (at, why) in candidates {
            if let Some(at) = at
                && at < first.0
            {
                first = (at, why);
            }
        }
        Some(first)
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // What is known, for layers above and for people

    /// This node as a member, once it is one.
    pub fn me(&self) -> Option<Member> {
        self.membership.me()
    }

    /// The view that this node acts in.
    pub fn view(&self) -> Option<&View> {
        self.membership.view()
    }

    /// The newest value of the register that this node has heard of.
    pub fn register(&self) -> Option<&RegisterValue> {
        self.membership.known()
    }

    /// Until when this node may serve what it has cached (R13); `None` when it is no member.
    pub fn permit(&self) -> Option<Permit> {
        self.membership.permit(&self.heartbeat)
    }

    /// [`Permit::until`], or the beginning of time when this node is no member.
    pub fn permit_until(&self) -> Instant {
        self.permit().map_or(Instant(0), Permit::until)
    }

    /// The nodes that this one hears, itself among them: goes into its disk heartbeat (R12).
    pub fn reach(&self) -> NodeSet {
        let mut reach: NodeSet =
            self.links.peers().filter(|peer| self.suspicion.is_reached(*peer)).collect();
        reach.insert(self.membership.node());
        reach
    }

    /// Since when and why `peer` is suspected, if it is.
    pub fn suspected(&self, peer: NodeId) -> Option<Suspected> {
        self.suspicion.suspected(peer)
    }

    /// Who has what mounted.
    pub fn mounts(&self) -> &MountTable {
        self.san.mounts()
    }

    /// Recoveries that are under way, and the last ones that have ended, by this node's clock.
    pub fn recoveries(&self) -> impl Iterator<Item = &Recovery> {
        self.san.recoveries()
    }

    /// Is nothing left to do in `fs` for the recovery of `dead`, a former member?
    pub fn is_recovered(&self, dead: Member, fs: FsId) -> bool {
        self.san.is_recovered(dead, fs)
    }

    /// Bytes that `peer` has not acknowledged.
    pub fn unacked_bytes(&self, peer: NodeId) -> usize {
        self.links.unacked_bytes(peer)
    }

    /// What the membership is doing, in words.
    pub fn activity(&self) -> &'static str {
        self.membership.activity()
    }

    // Routing

    /// After a long time without a call nobody is judged by what was not read yet.
    fn wake(&mut self, now: Instant) {
        self.touched = true;
        self.note_stall(now);
    }

    fn note_stall(&mut self, now: Instant) {
        let stalled = now.since(self.last_call);
        if stalled > self.unit.times(timer::STALLED) {
            self.suspicion.handle_stall(stalled, now);
            self.membership.handle_stall(now);
        }
        self.last_call = now;
    }

    fn settle(&mut self, now: Instant) {
        if self.due.is_none_or(|(at, _)| now >= at) {
            self.touched = true;
        }
        if self.touched && !self.membership.has_ended() {
            self.run_timers(now);
        }
        loop {
            if let Some(event) = self.links.poll_event() {
                self.route_event(event, now);
            } else if let Some(effect) = self.membership.poll_effect() {
                self.route_membership(effect, now);
            } else if let Some(effect) = self.san.poll_effect() {
                self.route_san(effect, now);
            } else if std::mem::take(&mut self.stirred) {
                let neighbours = self.neighbours();
                self.membership.evaluate(&neighbours, now);
            } else {
                break;
            }
        }
        self.flush_links();
        if std::mem::take(&mut self.touched) {
            self.due = self.earliest_timer();
        }
    }

    fn flush_links(&mut self) {
        while let Some(transmit) = self.links.poll_transmit() {
            self.outputs.push_back(match transmit {
                Transmit::Connect(peer) => Output::Connect { peer },
                Transmit::Send(connection, frame) => Output::Send { connection, frame },
                Transmit::Close(connection) => Output::Close { connection },
            });
        }
    }
}
