//! A cluster without time and without a network of its own: nodes, ordered links between pairs,
//! committed views, recoveries. Everything happens when a test says so.
//!
//! Every message crosses a link as bytes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dlm::rebuild::welcome::Welcome;
use dlm::{
    Ast, Bucket, BucketName, Denial, LockId, Lockspace, LockspaceId, Message, Mode, Output,
    ResourceName, ValueBlock,
};
use mx_base::{Incarnation, Instant, Member, NodeId, SanGeneration, View, ViewId};

use crate::claimants::Claimants;

pub(crate) const LOCKSPACE: LockspaceId = LockspaceId(7);

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<Member, Node>,
    pub(crate) links: BTreeMap<(Member, Member), Link>,
    /// All committed views, the newest last.
    pub(crate) views: Vec<Committed>,
    pub(crate) dead: BTreeMap<Member, DeadMember>,
    /// The last life given to each node.
    pub(crate) lives: BTreeMap<NodeId, u32>,
    /// What a holder of PW or EX left last; `None` when nobody may vouch for anything.
    pub(crate) truth: BTreeMap<BucketName, Option<u64>>,
    pub(crate) values_written: u64,
    pub(crate) values_seen: u64,
    pub(crate) claimants: Claimants,
    pub(crate) trace: Trace,
    /// Tell every event on stderr.
    /// Names that came first because somebody had begun to wait for them.
    pub(crate) wanted: Vec<BucketName>,
    pub(crate) is_told: bool,
}

pub(crate) struct Node {
    pub(crate) space: Lockspace,
    pub(crate) state: State,
    /// How many of the committed views it has followed.
    pub(crate) followed: usize,
    pub(crate) locks: BTreeMap<LockId, Lock>,
    /// The dead whose caches it knows to be gone.
    pub(crate) told_gone: BTreeSet<Member>,
    pub(crate) rebuilt: ViewId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Running,
    /// Releases everything and asks for nothing, on its way out.
    Leaving,
    /// Does nothing any more; what it held at that moment stays in its lock manager.
    Stopped,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Lock {
    pub(crate) at: BucketName,
    pub(crate) held: Option<Mode>,
    pub(crate) asked: Option<Mode>,
    pub(crate) callout: Option<Mode>,
}

#[derive(Default)]
pub(crate) struct Link {
    pub(crate) messages: VecDeque<(u64, Vec<u8>)>,
    /// Nothing sent from now on arrives.
    pub(crate) is_severed: bool,
}

#[derive(Clone)]
pub(crate) struct Committed {
    pub(crate) view: View,
    pub(crate) left: Vec<Member>,
    pub(crate) welcome: Welcome,
}

/// A member that a committed view dropped without its consent, or that has stopped.
pub(crate) struct DeadMember {
    /// The first committed view without it; `None` while the others have not noticed.
    pub(crate) lost_in: Option<ViewId>,
    /// From here on it changes nothing.
    pub(crate) is_fenced: bool,
    /// From here on its kernel serves nothing.
    pub(crate) caches_cut: bool,
    /// Names with live records in its journal.
    pub(crate) live: BTreeSet<BucketName>,
    /// What has not been proven to need no replay, or been replayed.
    pub(crate) uncleared: BTreeSet<BucketName>,
    pub(crate) recoverer: Option<Member>,
    /// Handed out to the recoverer and not replayed yet.
    pub(crate) redo: Option<Vec<BucketName>>,
    pub(crate) is_recovered: bool,
}

/// A hash over everything that was sent and answered.
pub(crate) struct Trace(pub(crate) u64);

impl Trace {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

pub(crate) fn member(node: u16, incarnation: u32) -> Member {
    let node = NodeId::new(node).expect("in range");
    Member { node, incarnation: Incarnation(incarnation) }
}

/// A resource in a bucket of its own.
pub(crate) fn resource(index: u16) -> BucketName {
    let bucket = Bucket::of(u64::from(index));
    let name = ResourceName::new(format!("r{index}").as_bytes()).expect("short");
    BucketName { bucket, name }
}

/// A resource under which no kernel caches anything, in a bucket of its own.
pub(crate) fn resource_of_none(index: u16) -> BucketName {
    let name = ResourceName::new(format!("p{index}").as_bytes()).expect("short");
    BucketName { name, ..resource(index) }
}

pub(crate) fn lingers(name: &ResourceName) -> bool {
    name.as_bytes()[0] == b'r'
}

/// A resource whose home is `home` under the newest view.
pub(crate) fn resource_at(world: &World, home: Member) -> BucketName {
    let anyone = world.nodes.values().find(|n| n.followed == world.views.len());
    let space = &anyone.expect("somebody is up to date").space;
    (0..)
        .map(resource)
        .find(|at| space.home(at.bucket) == Some(home))
        .expect("everybody is home of something")
}

pub(crate) fn value_block(number: u64) -> ValueBlock {
    ValueBlock::new(&number.to_le_bytes()).expect("short")
}

fn value_number(value: &ValueBlock) -> u64 {
    u64::from_le_bytes(value.as_bytes().try_into().expect("values of tests have 8 bytes"))
}

impl World {
    /// Nodes 1 to `count`, all in view 1 and up to date.
    pub(crate) fn of(count: u16) -> World {
        World::cold(count, &[])
    }

    /// As `of`, in a cluster that starts after `dead` died.
    pub(crate) fn cold(count: u16, dead: &[Member]) -> World {
        let mut world = World {
            now: 0,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            views: Vec::new(),
            dead: BTreeMap::new(),
            lives: BTreeMap::new(),
            truth: BTreeMap::new(),
            values_written: 0,
            values_seen: 0,
            claimants: Claimants::default(),
            trace: Trace(0xcbf2_9ce4_8422_2325),
            wanted: Vec::new(),
            is_told: is_told(),
        };
        let members: Vec<Member> = (1..=count).map(|node| world.give_life(node)).collect();
        let view = View::new(ViewId(1), SanGeneration(1), members.clone());
        let welcome = Welcome::cold(&view, dead, false);
        world.views.push(Committed { view, left: Vec::new(), welcome });
        for member in members {
            world.follow(member);
        }
        world.deliver_all();
        world
    }

    pub(crate) fn give_life(&mut self, node: u16) -> Member {
        let node_id = NodeId::new(node).expect("in range");
        let life = self.lives.entry(node_id).or_insert(0);
        *life += 1;
        let member = member(node, *life);
        self.nodes.insert(
            member,
            Node {
                space: Lockspace::new(LOCKSPACE, member, lingers),
                state: State::Running,
                followed: 0,
                locks: BTreeMap::new(),
                told_gone: BTreeSet::new(),
                rebuilt: ViewId(0),
            },
        );
        member
    }

    pub(crate) fn node(&mut self, member: Member) -> &mut Node {
        self.nodes.get_mut(&member).expect("the node exists")
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant(self.now)
    }

    pub(crate) fn newest(&self) -> &Committed {
        self.views.last().expect("there is a view")
    }

    pub(crate) fn is_member(&self, member: Member) -> bool {
        self.newest().view.contains(member)
    }

    // --- what owners do ---

    pub(crate) fn request(&mut self, owner: Member, at: BucketName, wanted: Mode) -> LockId {
        self.request_as(owner, at, wanted, false)
    }

    pub(crate) fn request_as(
        &mut self,
        owner: Member,
        at: BucketName,
        wanted: Mode,
        no_queue: bool,
    ) -> LockId {
        let now = self.instant();
        let node = self.node(owner);
        let id = node.space.request(at.name, at.bucket, wanted, no_queue, now).expect("room");
        node.locks.insert(id, Lock { at, held: None, asked: Some(wanted), callout: None });
        self.drain(owner);
        id
    }

    pub(crate) fn convert(&mut self, owner: Member, lock: LockId, wanted: Mode, no_queue: bool) {
        let now = self.instant();
        let node = self.node(owner);
        node.locks.get_mut(&lock).expect("known").asked = Some(wanted);
        node.space.convert(lock, wanted, no_queue, now);
        self.drain(owner);
    }

    /// With a value of its own, if `writes` and the mode held allows it.
    pub(crate) fn lower(&mut self, owner: Member, lock: LockId, to: Mode, writes: bool) {
        let value = self.leave_value(owner, lock, writes);
        let now = self.instant();
        let node = self.node(owner);
        let state = node.locks.get_mut(&lock).expect("known");
        state.held = Some(to);
        if state.callout.is_some_and(|wanted| wanted.compatible(to)) {
            state.callout = None;
        }
        node.space.lower(lock, to, value, now);
        self.drain(owner);
    }

    pub(crate) fn unlock(&mut self, owner: Member, lock: LockId, writes: bool) {
        let value = self.leave_value(owner, lock, writes);
        let now = self.instant();
        let node = self.node(owner);
        node.locks.remove(&lock);
        node.space.unlock(lock, value, now);
        self.drain(owner);
    }

    pub(crate) fn cancel(&mut self, owner: Member, lock: LockId) {
        let now = self.instant();
        self.node(owner).space.cancel(lock, now);
        self.drain(owner);
    }

    /// Gives up what the last callout asks for, and no more.
    pub(crate) fn answer(&mut self, owner: Member, lock: LockId, writes: bool) {
        let state = self.node(owner).locks[&lock];
        let (Some(wanted), Some(held)) = (state.callout, state.held) else { return };
        let to = held.least_surrender(wanted);
        if to == held {
            self.node(owner).locks.get_mut(&lock).expect("known").callout = None;
        } else if to == Mode::NL && state.asked.is_none() {
            self.unlock(owner, lock, writes);
        } else {
            self.lower(owner, lock, to, writes);
        }
    }

    pub(crate) fn held(&self, owner: Member, lock: LockId) -> Option<Mode> {
        self.nodes[&owner].space.held(lock)
    }

    fn leave_value(&mut self, owner: Member, lock: LockId, writes: bool) -> Option<ValueBlock> {
        let state = self.nodes[&owner].locks[&lock];
        if !state.held.is_some_and(|held| held.covers(Mode::PW)) {
            return None;
        }
        self.values_written += 1;
        let number = writes.then_some(self.values_written);
        // What an expelled node leaves reaches nobody.
        let truth = number.filter(|_| self.is_member(owner));
        self.truth.insert(state.at, truth);
        number.map(value_block)
    }

    // --- the network ---

    /// Delivers the oldest message on a link, whatever its time.
    pub(crate) fn deliver(&mut self, from: Member, to: Member) {
        let link = self.links.get_mut(&(from, to)).expect("there is a link");
        let Some((_, bytes)) = link.messages.pop_front() else { return };
        let now = self.instant();
        let (lockspace, message) = Message::decode(&bytes).expect("nodes send what decodes");
        self.tell(|| format!("{to} <- {from}: {message:?}"));
        let node = self.node(to);
        if node.state == State::Stopped {
            return;
        }
        if let Err(error) = node.space.handle_message(from, lockspace, message.clone(), now) {
            panic!("{to} refuses {message:?} from {from}: {error}");
        }
        self.drain(to);
    }

    /// Until no message is on the way.
    pub(crate) fn deliver_all(&mut self) {
        while let Some((from, to)) = self.busy_links(u64::MAX).first().copied() {
            self.deliver(from, to);
        }
    }

    /// Links with a message due by `time`.
    pub(crate) fn busy_links(&self, time: u64) -> Vec<(Member, Member)> {
        self.links
            .iter()
            .filter(|(_, link)| link.messages.front().is_some_and(|(due, _)| *due <= time))
            .map(|(pair, _)| *pair)
            .collect()
    }

    /// Nothing sent from now on arrives, and of what is on the way only `kept` messages do.
    pub(crate) fn sever(&mut self, from: Member, to: Member, kept: usize) {
        let link = self.links.entry((from, to)).or_default();
        link.messages.truncate(kept);
        link.is_severed = true;
    }

    // --- views ---

    /// Commits the next view. `coordinator` follows it at once and tells joiners the rest.
    pub(crate) fn commit(&mut self, coordinator: Member, members: Vec<Member>, left: Vec<Member>) {
        let newest = self.newest().clone();
        let id = ViewId(newest.view.id.0 + 1);
        let lost: Vec<Member> =
            newest.view.members().iter().copied().filter(|m| !members.contains(m)).collect();
        let view = View::new(id, SanGeneration(id.0), members);
        for member in lost.iter().filter(|member| !left.contains(member)) {
            let died = self.dead.entry(*member).or_insert_with(DeadMember::unnoticed);
            died.lost_in = Some(id);
            for (at, mode) in holdings(&self.nodes[member]) {
                if mode.covers(Mode::PW) {
                    self.truth.insert(at, None);
                }
            }
        }
        // The welcome is made by the coordinator once it has followed.
        let welcome = newest.welcome.clone();
        self.views.push(Committed { view, left, welcome });
        while self.nodes[&coordinator].followed < self.views.len() {
            self.follow(coordinator);
        }
        let welcome = self.nodes[&coordinator].space.welcome();
        let bytes = welcome.encode();
        assert_eq!(Welcome::decode(&bytes), Ok(welcome));
        self.views.last_mut().expect("just pushed").welcome =
            Welcome::decode(&bytes).expect("just compared");
    }

    /// Lets `member` follow the next view it has not followed; a joiner enters the first one that
    /// it is in.
    pub(crate) fn follow(&mut self, member: Member) {
        let followed = self.nodes[&member].followed;
        let next = if followed == 0 {
            let joined = self.views.iter().position(|c| c.view.contains(member));
            joined.expect("a joiner is in some view")
        } else {
            followed
        };
        let Committed { view, left, welcome } = self.views[next].clone();
        assert!(view.contains(member), "an expelled node does not hear of it");
        let now = self.instant();
        self.tell(|| format!("{member} follows {:?} {:?}", view.id, view.members()));
        let node = self.node(member);
        node.followed = next + 1;
        let outcome = if followed == 0 {
            node.space.enter(view, &welcome, now).map_err(|error| error.to_string())
        } else {
            node.space.handle_view(view, &left, now).map_err(|error| error.to_string())
        };
        outcome.unwrap_or_else(|error| panic!("{member} cannot follow: {error}"));
        self.drain(member);
    }

    /// Lets `member` jump to the newest view, missing those between.
    pub(crate) fn catch_up(&mut self, member: Member) {
        let Committed { view, welcome, .. } = self.newest().clone();
        let (now, count) = (self.instant(), self.views.len());
        self.tell(|| format!("{member} catches up with {:?} {:?}", view.id, view.members()));
        let node = self.node(member);
        node.followed = count;
        node.space
            .enter(view, &welcome, now)
            .unwrap_or_else(|error| panic!("{member} cannot catch up: {error}"));
        self.drain(member);
    }

    /// All members follow all views, and all that is on the way arrives.
    pub(crate) fn settle(&mut self) {
        loop {
            let behind = self.nodes.iter().find(|(member, node)| {
                node.state != State::Stopped
                    && node.followed < self.views.len()
                    && self.is_member(**member)
            });
            match behind.map(|(member, _)| *member) {
                Some(member) => self.follow(member),
                None => break,
            }
        }
        self.deliver_all();
    }

    /// The node stops; its links keep what was sent.
    pub(crate) fn crash(&mut self, member: Member) {
        self.node(member).state = State::Stopped;
        self.dead.entry(member).or_insert_with(DeadMember::unnoticed);
        for (at, mode) in holdings(&self.nodes[&member]) {
            if mode.covers(Mode::PW) {
                self.truth.insert(at, None);
            }
        }
        let others: Vec<Member> = self.nodes.keys().copied().collect();
        for other in others {
            self.sever(member, other, usize::MAX);
            self.sever(other, member, 0);
        }
    }

    /// Crash, and a view of the others that `coordinator` commits and everybody follows.
    pub(crate) fn lose(&mut self, coordinator: Member, dead: Member) {
        self.crash(dead);
        let members: Vec<Member> =
            self.newest().view.members().iter().copied().filter(|m| *m != dead).collect();
        self.commit(coordinator, members, Vec::new());
        self.settle();
    }

    // --- recovery ---

    /// `dead` changes nothing from now on; `live` have live records in its journal.
    pub(crate) fn fence(&mut self, dead: Member, live: &[BucketName]) {
        self.node(dead).state = State::Stopped;
        self.claimants.end(dead);
        let held = holdings(&self.nodes[&dead]);
        let died = self.dead.get_mut(&dead).expect("dead");
        died.is_fenced = true;
        died.live = live.iter().copied().collect();
        died.uncleared =
            held.into_iter().filter(|(_, mode)| mode.writes()).map(|(at, _)| at).collect();
    }

    pub(crate) fn begin_recovery(&mut self, recoverer: Member, dead: Member) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        assert!(died.is_fenced, "nothing is recovered before the fence");
        died.recoverer = Some(recoverer);
        died.redo = None;
        let live = died.live.clone();
        died.uncleared.retain(|name| live.contains(name));
        self.node(recoverer)
            .space
            .begin_recovery(dead, live, now)
            .expect("the recoverer knows of the death");
        self.drain(recoverer);
    }

    pub(crate) fn replay(&mut self, dead: Member, names: &[BucketName]) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        let recoverer = died.recoverer.expect("somebody recovers");
        for name in names {
            died.live.remove(name);
            died.uncleared.remove(name);
            if let Some(redo) = &mut died.redo {
                redo.retain(|left| left != name);
            }
        }
        self.node(recoverer).space.replayed(dead, names, now).expect("under way");
        self.drain(recoverer);
    }

    pub(crate) fn finish_recovery(&mut self, dead: Member) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        let recoverer = died.recoverer.expect("somebody recovers");
        assert!(died.redo.as_ref().is_some_and(Vec::is_empty), "all is redone");
        assert!(died.uncleared.is_empty(), "all that {dead} may have changed is redone");
        self.node(recoverer).space.finish_recovery(dead, now).expect("under way");
        self.drain(recoverer);
    }

    /// Processes on the dead node's machine read nothing from its caches any more.
    pub(crate) fn cut_caches(&mut self, dead: Member) {
        self.dead.get_mut(&dead).expect("dead").caches_cut = true;
    }

    pub(crate) fn tell_caches_gone(&mut self, to: Member, dead: Member) {
        assert!(self.dead[&dead].caches_cut, "only what is true is told");
        let now = self.instant();
        let node = self.node(to);
        node.told_gone.insert(dead);
        node.space.caches_gone(dead, now);
        self.drain(to);
    }

    /// The whole recovery of `dead` by `recoverer`, with `live` names to redo.
    pub(crate) fn recover(&mut self, recoverer: Member, dead: Member, live: &[BucketName]) {
        if !self.dead[&dead].is_fenced {
            self.fence(dead, live);
        }
        self.begin_recovery(recoverer, dead);
        self.deliver_all();
        let redo = self.dead[&dead].redo.clone().expect("every home has answered");
        self.replay(dead, &redo);
        self.deliver_all();
        self.finish_recovery(dead);
        self.deliver_all();
        assert!(self.dead[&dead].is_recovered, "everybody has seen it");
    }

    // --- outputs ---

    /// Carries out what `member` has put out.
    pub(crate) fn drain(&mut self, member: Member) {
        while let Some(output) = self.node(member).space.poll_output() {
            self.carry_out(member, output);
        }
    }

    #[expect(clippy::print_stderr, reason = "on request only")]
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:5} {}", self.now, what());
        }
    }

    fn carry_out(&mut self, member: Member, output: Output) {
        self.tell(|| format!("{member}: {output:?}"));
        self.trace.add(&[u8::try_from(member.node.get()).expect("small")]);
        match output {
            Output::Send { to, message } => {
                let mut bytes = Vec::new();
                message.encode(LOCKSPACE, &mut bytes);
                self.trace.add(&bytes);
                let now = self.now;
                let link = self.links.entry((member, to)).or_default();
                if !link.is_severed {
                    link.messages.push_back((now, bytes));
                }
            }
            Output::Ast { lock, name, ast } => {
                self.trace.add(&lock.0.to_le_bytes());
                let is_member = self.is_member(member);
                let node = self.nodes.get_mut(&member).expect("the node exists");
                let state = node.locks.get_mut(&lock).expect("answers are for known locks");
                assert_eq!(state.at.name, name);
                let wanted = state.asked.take().expect("answers are for what was asked");
                match ast {
                    Ast::Granted { mode, value } => {
                        self.trace.add(&[mode as u8]);
                        assert_eq!(mode, wanted, "the mode asked for is granted");
                        state.held = Some(mode);
                        // Whoever stands in the way of others is called out again.
                        state.callout = None;
                        let at = state.at;
                        if let Some(value) = value {
                            let seen = value_number(&value);
                            self.trace.add(&seen.to_le_bytes());
                            if is_member && mode.covers(Mode::PR) {
                                self.values_seen += 1;
                                let truth = self.truth.get(&at).copied().flatten();
                                assert_eq!(
                                    Some(seen),
                                    truth,
                                    "{member} is told a value of {at:?} nobody vouches for"
                                );
                            }
                        }
                        if !is_member && mode.covers(Mode::PW) {
                            // Expelled, and does not know: what it does now nobody vouches for.
                            self.truth.insert(at, None);
                        }
                    }
                    Ast::Denied(reason) => {
                        self.trace.add(&[match reason {
                            Denial::WouldWait => 100,
                            Denial::Cancelled => 101,
                            Denial::TooManyWait => 104,
                        }]);
                        if state.held.is_none() {
                            node.locks.remove(&lock);
                        }
                    }
                }
            }
            Output::Callout { lock, wanted, .. } => {
                self.trace.add(&[wanted as u8, 102]);
                let state = self.node(member).locks.get_mut(&lock).expect("known");
                let stronger = state.callout.map_or(wanted, |before| before.join(wanted));
                state.callout = Some(stronger);
            }
            Output::Rebuilt { view } => {
                let node = self.node(member);
                assert!(view > node.rebuilt, "said once for a view");
                node.rebuilt = view;
            }
            Output::Claimed { claim, verdict } => {
                self.trace.add(&claim.0.to_le_bytes());
                self.claimants.answered(member, claim, verdict);
            }
            Output::Redo { dead, names } => {
                let died = self.dead.get_mut(&dead).expect("only the dead are recovered");
                assert_eq!(died.recoverer, Some(member), "the recoverer redoes");
                for name in &died.uncleared {
                    assert!(
                        names.contains(name),
                        "{dead} held {name:?} and left live records: they must be redone"
                    );
                }
                for name in &names {
                    assert!(died.live.contains(name), "only live records are redone: {name:?}");
                }
                died.redo = Some(names);
            }
            Output::Wanted { dead, names } => {
                let redo = self.dead[&dead].redo.as_ref().expect("handed out before");
                assert!(
                    names.iter().all(|name| redo.contains(name)),
                    "only what is left is wanted"
                );
                self.wanted.extend(names);
            }
            Output::Recovered { dead } => {
                let died = self.dead.get_mut(&dead).expect("only the dead are recovered");
                died.is_recovered = true;
            }
        }
    }
}

impl DeadMember {
    /// Of an earlier life of the cluster, fenced.
    pub(crate) fn recovered_by(recoverer: Member, live: &[BucketName]) -> DeadMember {
        let live: BTreeSet<BucketName> = live.iter().copied().collect();
        let uncleared = live.clone();
        let recoverer = Some(recoverer);
        DeadMember { is_fenced: true, live, uncleared, recoverer, ..DeadMember::unnoticed() }
    }

    fn unnoticed() -> DeadMember {
        DeadMember {
            lost_in: None,
            is_fenced: false,
            caches_cut: false,
            live: BTreeSet::new(),
            uncleared: BTreeSet::new(),
            recoverer: None,
            redo: None,
            is_recovered: false,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs a failing seed wants to see it")]
fn is_told() -> bool {
    std::env::var("DLM_TELL").is_ok()
}

/// The modes a node may use, as it believes.
pub(crate) fn holdings(node: &Node) -> Vec<(BucketName, Mode)> {
    node.space
        .own_locks()
        .filter_map(|own| Some((BucketName { bucket: own.bucket, name: own.name }, own.held?)))
        .collect()
}
