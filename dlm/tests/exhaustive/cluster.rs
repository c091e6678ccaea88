//! One state of a whole cluster: the lock managers themselves, what is on the way between them, and
//! what the users of each node know. Small enough to be kept by the million.
//!
//! Keeps true: a state holds everything that decides what can happen next, and nothing else, so
//! that two ways to the same state are one. There is no time: every instant is zero.
//!
//! Never decides what happens: that is `events.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use dlm::rebuild::welcome::Welcome;
use dlm::{
    Ast, BucketName, LockId, Lockspace, LockspaceId, Message, Mode, Output, ResourceName,
    ValueBlock,
};
use mx_base::{Instant, Member, View, ViewId};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

pub(crate) const LOCKSPACE: LockspaceId = LockspaceId(7);
pub(crate) const NOW: Instant = Instant(0);

/// A node in one life, by its place in [`Cluster::nodes`].
pub(crate) type Who = usize;
/// A resource, by its place in [`crate::model::Model::resources`].
pub(crate) type What = usize;

#[derive(Clone, PartialEq, Hash)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// From the first node to all, from the second to all, and so on.
    pub(crate) links: Vec<Link>,
    /// All committed views, the newest last.
    pub(crate) views: Vec<Arc<Committed>>,
    /// For each node; `None` while it lives, or has left in order.
    pub(crate) dead: Vec<Option<DeadMember>>,
    pub(crate) left: Budget,
    /// How many values holders of PW and EX have left.
    pub(crate) written: u8,
    /// For each resource the value that was left last; `None` when nobody may vouch for one.
    pub(crate) truth: Vec<Option<u8>>,
    /// A lock manager has refused something, or one of its own assertions has failed.
    pub(crate) fault: Option<String>,
}

/// What may still happen, beside what must come to pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Budget {
    pub(crate) requests: u8,
    /// Requests and conversions that would not wait.
    pub(crate) impatient: u8,
    pub(crate) conversions: u8,
    /// Locks given up, wholly or in part, that nobody asked for.
    pub(crate) releases: u8,
    pub(crate) cancels: u8,
    /// Stops without a word.
    pub(crate) stops: u8,
    /// Views without a node that goes on for a while, not knowing.
    pub(crate) expulsions: u8,
    pub(crate) leaves: u8,
    pub(crate) joins: u8,
}

impl Budget {
    pub(crate) const NONE: Budget = Budget {
        requests: 0,
        impatient: 0,
        conversions: 0,
        releases: 0,
        cancels: 0,
        stops: 0,
        expulsions: 0,
        leaves: 0,
        joins: 0,
    };
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) space: Lockspace,
    pub(crate) state: State,
    /// How many of the committed views it has followed.
    pub(crate) followed: usize,
    pub(crate) locks: BTreeMap<LockId, Lock>,
    /// The dead whose caches it knows to be gone.
    pub(crate) told_gone: Vec<Who>,
    pub(crate) rebuilt: ViewId,
    /// Of everything above, so that it is walked once.
    print: u128,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum State {
    /// Has not been in any view.
    Outside,
    Running,
    /// Gives everything up and asks for nothing, on its way out.
    Leaving,
    /// Does nothing any more; what it held at that moment stays in its lock manager.
    Stopped,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Lock {
    pub(crate) what: What,
    pub(crate) held: Option<Mode>,
    pub(crate) asked: Option<Mode>,
    pub(crate) is_cancelled: bool,
    pub(crate) callout: Option<Mode>,
}

#[derive(Clone, PartialEq, Hash, Default)]
pub(crate) struct Link {
    pub(crate) messages: VecDeque<Message>,
    /// Nothing sent from now on arrives.
    pub(crate) is_severed: bool,
}

#[derive(PartialEq)]
pub(crate) struct Committed {
    pub(crate) view: View,
    pub(crate) left: Vec<Member>,
    /// For who joins in it or has missed others.
    pub(crate) welcome: Welcome,
}

/// A member that a committed view dropped without its consent, or that has stopped.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct DeadMember {
    /// The first committed view without it; `None` while the others have not noticed.
    pub(crate) lost_in: Option<ViewId>,
    /// From here on it changes nothing.
    pub(crate) is_fenced: bool,
    /// From here on its kernel serves nothing.
    pub(crate) caches_cut: bool,
    /// What has live records in its journal.
    pub(crate) live: Vec<What>,
    /// What has not been proven to need no replay, or been replayed.
    pub(crate) uncleared: Vec<What>,
    pub(crate) recoverer: Option<Who>,
    /// Handed out to the recoverer and not replayed yet.
    pub(crate) redo: Option<Vec<What>>,
    pub(crate) is_recovered: bool,
}

/// Do kernels cache what the lock of this name protects? As its name says.
pub(crate) fn lingers(name: &ResourceName) -> bool {
    name.as_bytes()[0] == b'c'
}

/// Something that must not be, in words.
pub(crate) type Fault = String;

impl Cluster {
    /// All of `members` in view 1, with everything delivered that the start sends.
    pub(crate) fn start(
        members: &[Member],
        outsiders: &[Member],
        resources: &[BucketName],
        left: Budget,
    ) -> Cluster {
        let count = members.len() + outsiders.len();
        let view = View::new(ViewId(1), mx_base::SanGeneration(1), members.to_vec());
        let welcome = Welcome::cold(&view, &[], false);
        let lives = members.iter().chain(outsiders);
        let mut cluster = Cluster {
            nodes: lives.map(|member| Arc::new(Node::new(*member))).collect(),
            links: vec![Link::default(); count * count],
            views: vec![Arc::new(Committed { view, left: Vec::new(), welcome })],
            dead: vec![None; count],
            left,
            written: 0,
            truth: vec![None; resources.len()],
            fault: None,
        };
        for who in 0..members.len() {
            cluster.follow(who, resources).expect("the first view is entered");
        }
        loop {
            let busy = cluster.busy_links().next();
            let Some((from, to)) = busy else { break };
            cluster.deliver(from, to, resources).expect("a start refuses nothing");
        }
        cluster
    }

    pub(crate) fn who(&self, member: Member) -> Who {
        let found = self.nodes.iter().position(|node| node.space.me() == member);
        found.expect("messages go to known nodes")
    }

    pub(crate) fn newest(&self) -> &Committed {
        self.views.last().expect("there is a view")
    }

    pub(crate) fn is_member(&self, who: Who) -> bool {
        self.newest().view.contains(self.nodes[who].space.me())
    }

    /// In order of their places.
    pub(crate) fn members(&self) -> impl Iterator<Item = Who> + '_ {
        (0..self.nodes.len()).filter(|who| self.is_member(*who))
    }

    pub(crate) fn is_up_to_date(&self, who: Who) -> bool {
        self.nodes[who].followed == self.views.len()
    }

    pub(crate) fn link(&self, from: Who, to: Who) -> &Link {
        &self.links[from * self.nodes.len() + to]
    }

    pub(crate) fn link_mut(&mut self, from: Who, to: Who) -> &mut Link {
        let count = self.nodes.len();
        &mut self.links[from * count + to]
    }

    pub(crate) fn busy_links(&self) -> impl Iterator<Item = (Who, Who)> + '_ {
        let count = self.nodes.len();
        let busy = (0..count * count).filter(|at| !self.links[*at].messages.is_empty());
        busy.map(move |at| (at / count, at % count))
    }

    /// Lets a node act, then carries out what its lock manager has put out.
    pub(crate) fn act<T>(
        &mut self,
        who: Who,
        resources: &[BucketName],
        act: impl FnOnce(&mut Node) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let node = Arc::make_mut(&mut self.nodes[who]);
        let outcome = act(node)?;
        let mut outputs = Vec::new();
        while let Some(output) = node.space.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.carry_out(who, output, resources)?;
        }
        let node = Arc::make_mut(&mut self.nodes[who]);
        node.space.check_invariants();
        node.print = node.fingerprint();
        Ok(outcome)
    }

    pub(crate) fn deliver(
        &mut self,
        from: Who,
        to: Who,
        resources: &[BucketName],
    ) -> Result<(), Fault> {
        let message = self.link_mut(from, to).messages.pop_front().expect("the link is busy");
        let sender = self.nodes[from].space.me();
        self.act(to, resources, |node| {
            let said = message.kind();
            node.space
                .handle_message(sender, LOCKSPACE, message, NOW)
                .map_err(|error| format!("{said:?} of {sender} is refused: {error}"))
        })
    }

    /// Lets a node follow the next view it has not followed; a joiner enters the first it is in.
    pub(crate) fn follow(&mut self, who: Who, resources: &[BucketName]) -> Result<(), Fault> {
        let me = self.nodes[who].space.me();
        let followed = self.nodes[who].followed;
        let is_first = followed == 0;
        let next = if is_first {
            let joined = self.views.iter().position(|committed| committed.view.contains(me));
            joined.expect("a joiner is in some view")
        } else {
            followed
        };
        let committed = Arc::clone(&self.views[next]);
        self.act(who, resources, |node| {
            let Committed { view, left, welcome } = &*committed;
            node.followed = next + 1;
            node.state = State::Running;
            let outcome = if is_first {
                node.space.enter(view.clone(), welcome, NOW).map_err(|error| error.to_string())
            } else {
                node.space.handle_view(view.clone(), left, NOW).map_err(|error| error.to_string())
            };
            outcome.map_err(|error| format!("{me} cannot follow: {error}"))
        })
    }

    /// Lets a node jump to the newest view, missing those between.
    pub(crate) fn catch_up(&mut self, who: Who, resources: &[BucketName]) -> Result<(), Fault> {
        let committed = Arc::clone(self.views.last().expect("there is a view"));
        let count = self.views.len();
        self.act(who, resources, |node| {
            node.followed = count;
            node.space
                .enter(committed.view.clone(), &committed.welcome, NOW)
                .map_err(|error| format!("cannot catch up: {error}"))
        })
    }

    /// Commits the next view. `by` follows it at once and welcomes who joins.
    pub(crate) fn commit(
        &mut self,
        by: Who,
        members: Vec<Member>,
        left: Vec<Member>,
        resources: &[BucketName],
    ) -> Result<(), Fault> {
        let id = ViewId(self.newest().view.id.0 + 1);
        let lost: Vec<Who> = self
            .members()
            .filter(|who| {
                let me = self.nodes[*who].space.me();
                !members.contains(&me) && !left.contains(&me)
            })
            .collect();
        for who in lost {
            self.dead[who].get_or_insert_default().lost_in = Some(id);
            self.forget_values(who);
        }
        let view = View::new(id, mx_base::SanGeneration(id.0), members);
        let placeholder = self.newest().welcome.clone();
        self.views.push(Arc::new(Committed {
            view: view.clone(),
            left: left.clone(),
            welcome: placeholder,
        }));
        self.follow(by, resources)?;
        let welcome = self.nodes[by].space.welcome();
        *self.views.last_mut().expect("just pushed") = Arc::new(Committed { view, left, welcome });
        Ok(())
    }

    /// What is on the way to and from a node may still arrive, nothing sent from now on does.
    pub(crate) fn sever(&mut self, who: Who) {
        for other in (0..self.nodes.len()).filter(|other| *other != who) {
            // Those expelled together still hear each other.
            if self.is_member(other) || self.nodes[other].state == State::Stopped {
                self.link_mut(who, other).is_severed = true;
                self.link_mut(other, who).is_severed = true;
            }
        }
    }

    /// The node does nothing any more, and nothing reaches it.
    pub(crate) fn stop(&mut self, who: Who) {
        for other in (0..self.nodes.len()).filter(|other| *other != who) {
            self.link_mut(who, other).is_severed = true;
            let inward = self.link_mut(other, who);
            inward.is_severed = true;
            inward.messages.clear();
        }
        let node = Arc::make_mut(&mut self.nodes[who]);
        node.state = State::Stopped;
        node.print = node.fingerprint();
    }

    /// What a dead member may have changed nobody vouches for.
    pub(crate) fn forget_values(&mut self, who: Who) {
        let node = Arc::clone(&self.nodes[who]);
        for (what, _) in node.holdings().filter(|(_, mode)| mode.covers(Mode::PW)) {
            self.truth[what] = None;
        }
    }

    /// The value that the owner of a lock leaves when it gives up PW or EX now.
    pub(crate) fn leave_value(&mut self, who: Who, lock: LockId) -> Option<ValueBlock> {
        let Lock { what, held, .. } = self.nodes[who].locks[&lock];
        if !held.is_some_and(|held| held.covers(Mode::PW)) {
            return None;
        }
        self.written += 1;
        // What an expelled node leaves reaches nobody.
        self.truth[what] = self.is_member(who).then_some(self.written);
        ValueBlock::new(&[self.written])
    }

    fn carry_out(
        &mut self,
        who: Who,
        output: Output,
        resources: &[BucketName],
    ) -> Result<(), Fault> {
        match output {
            Output::Send { to, message } => {
                let to = self.who(to);
                let link = self.link_mut(who, to);
                if !link.is_severed {
                    link.messages.push_back(message);
                }
            }
            Output::Ast { lock, ast, .. } => {
                let node = Arc::make_mut(&mut self.nodes[who]);
                let known = node.locks.get_mut(&lock).ok_or("an answer for an unknown lock")?;
                let wanted = known.asked.take().ok_or("an answer to nothing asked")?;
                known.is_cancelled = false;
                let what = known.what;
                match ast {
                    Ast::Granted { mode, value } => {
                        if mode != wanted {
                            return Err(format!("{mode} is granted, {wanted} was asked for"));
                        }
                        known.held = Some(mode);
                        // Whoever stands in the way of others is called out again.
                        known.callout = None;
                        let is_member = self.is_member(who);
                        let seen = value.map(|value| value.as_bytes().to_vec());
                        let truth = self.truth[what].map(|truth| vec![truth]);
                        if is_member && mode.covers(Mode::PR) && seen.is_some() && seen != truth {
                            return Err(format!("{seen:?} is told, {truth:?} was left last"));
                        }
                        if !is_member && mode.covers(Mode::PW) {
                            // Expelled, and does not know: nobody vouches for what it does now.
                            self.truth[what] = None;
                        }
                    }
                    Ast::Denied(_) if known.held.is_none() => {
                        node.locks.remove(&lock);
                    }
                    Ast::Denied(_) => {}
                }
            }
            Output::Callout { lock, wanted, .. } => {
                let node = Arc::make_mut(&mut self.nodes[who]);
                let known = node.locks.get_mut(&lock).ok_or("a callout for an unknown lock")?;
                let stronger = known.callout.map_or(wanted, |before| before.join(wanted));
                known.callout = Some(stronger);
            }
            Output::Rebuilt { view } => {
                let node = Arc::make_mut(&mut self.nodes[who]);
                if view <= node.rebuilt {
                    return Err(format!("{view:?} is rebuilt twice"));
                }
                node.rebuilt = view;
            }
            Output::Claimed { .. } => return Err("nobody claims anything".to_owned()),
            Output::Redo { dead, names } => self.hand_out(who, dead, &names, resources)?,
            Output::Wanted { dead, names } => {
                let dead = self.who(dead);
                let redo = self.dead[dead].as_ref().and_then(|died| died.redo.as_ref());
                let redo = redo.ok_or("wanted before it is handed out")?;
                if names.iter().any(|name| !redo.iter().any(|what| resources[*what] == *name)) {
                    return Err(format!("only what is left to redo is wanted: {names:?}"));
                }
            }
            Output::Recovered { dead } => {
                let dead = self.who(dead);
                self.dead[dead].as_mut().ok_or("recovered without a death")?.is_recovered = true;
            }
        }
        Ok(())
    }

    fn hand_out(
        &mut self,
        to: Who,
        dead: Member,
        names: &[BucketName],
        resources: &[BucketName],
    ) -> Result<(), Fault> {
        let dead = self.who(dead);
        let died = self.dead[dead].as_mut().ok_or("redone without a death")?;
        if died.recoverer != Some(to) {
            return Err("who does not recover is told to redo".to_owned());
        }
        let redo: Vec<What> = names
            .iter()
            .filter_map(|name| resources.iter().position(|resource| resource == name))
            .collect();
        if died.uncleared.iter().any(|what| !redo.contains(what)) {
            return Err(format!(
                "held in a writing mode and left live records: {died:?}, {redo:?}"
            ));
        }
        if redo.iter().any(|what| !died.live.contains(what)) {
            return Err(format!("only live records are redone: {died:?}, {redo:?}"));
        }
        died.redo = Some(redo);
        Ok(())
    }
}

impl Node {
    fn new(me: Member) -> Node {
        let mut node = Node {
            space: Lockspace::new(LOCKSPACE, me, lingers),
            state: State::Outside,
            followed: 0,
            locks: BTreeMap::new(),
            told_gone: Vec::new(),
            rebuilt: ViewId(0),
            print: 0,
        };
        node.print = node.fingerprint();
        node
    }

    fn fingerprint(&self) -> u128 {
        let mut hasher = SipHasher13::new();
        self.space.hash(&mut hasher);
        (self.state, self.followed, &self.locks, &self.told_gone, self.rebuilt).hash(&mut hasher);
        hasher.finish128().as_u128()
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, State::Running | State::Leaving)
    }

    pub(crate) fn lock_on(&self, what: What) -> Option<(LockId, Lock)> {
        self.locks.iter().find(|(_, lock)| lock.what == what).map(|(id, lock)| (*id, *lock))
    }

    /// The modes it may use, as it believes.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = (What, Mode)> + '_ {
        self.locks.values().filter_map(|lock| Some((lock.what, lock.held?)))
    }

    /// Asks for a lock of its own.
    pub(crate) fn request(&mut self, what: What, at: BucketName, wanted: Mode, no_queue: bool) {
        let id = self.space.request(at.name, at.bucket, wanted, no_queue, NOW).expect("room");
        let asked = Some(wanted);
        let lock = Lock { what, held: None, asked, is_cancelled: false, callout: None };
        self.locks.insert(id, lock);
    }

    pub(crate) fn convert(&mut self, id: LockId, wanted: Mode, no_queue: bool) {
        self.locks.get_mut(&id).expect("known").asked = Some(wanted);
        self.space.convert(id, wanted, no_queue, NOW);
    }

    pub(crate) fn lower(&mut self, id: LockId, to: Mode, value: Option<ValueBlock>) {
        let lock = self.locks.get_mut(&id).expect("known");
        lock.held = Some(to);
        // When it makes too little room, it is called out again.
        lock.callout = None;
        self.space.lower(id, to, value, NOW);
    }

    pub(crate) fn unlock(&mut self, id: LockId, value: Option<ValueBlock>) {
        self.locks.remove(&id);
        self.space.unlock(id, value, NOW);
    }

    pub(crate) fn cancel(&mut self, id: LockId) {
        self.locks.get_mut(&id).expect("known").is_cancelled = true;
        self.space.cancel(id, NOW);
    }

    /// To what the last callout brings it, if anything: no further than it has to.
    pub(crate) fn surrender(&self, id: LockId) -> Option<Mode> {
        let lock = &self.locks[&id];
        let (wanted, held) = (lock.callout?, lock.held?);
        Some(held.least_surrender(wanted)).filter(|to| *to != held)
    }

    /// Gives up what the last callout asks for.
    pub(crate) fn answer(&mut self, id: LockId, value: Option<ValueBlock>) {
        let surrender = self.surrender(id);
        let lock = self.locks.get_mut(&id).expect("known");
        match surrender {
            None => lock.callout = None,
            Some(Mode::NL) if lock.asked.is_none() => self.unlock(id, value),
            Some(to) => self.lower(id, to, value),
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.print == other.print
    }
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

impl Hash for Committed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.view.id, self.view.members(), &self.left).hash(state);
        self.welcome.dead().hash(state);
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (node, died) in self.nodes.iter().zip(&self.dead) {
            let me = node.space.me();
            write!(f, "\n  {me} {:?} followed {} {:?}", node.state, node.followed, died)?;
            for own in node.space.own_locks() {
                write!(f, "\n    own {:?} {:?} -> {:?}", own.name, own.held, own.wanted)?;
            }
            for state in node.space.resources() {
                write!(f, "\n    home of {}", state.describe(NOW))?;
            }
        }
        for (from, to) in self.busy_links() {
            let (sender, receiver) = (self.nodes[from].space.me(), self.nodes[to].space.me());
            write!(f, "\n  {sender} to {receiver}: {:?}", self.link(from, to).messages)?;
        }
        match &self.fault {
            Some(fault) => write!(f, "\n  fault: {fault}"),
            None => Ok(()),
        }
    }
}
