//! A cluster without time: nodes, ordered links between pairs, committed views, recoveries.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use lcl::{Bucket, BucketName, Bundle, Mode, Output, ResourceName, Welcome, surrender};
use mx_base::{Incarnation, Instant, Member, NodeId, SanGeneration, View, ViewId};
use parking_lot::Mutex;

use crate::node::{LOCKSPACE, Node};
use crate::objects::{Disk, Objects};

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) disk: Arc<Mutex<Disk>>,
    /// Those that run, members or not.
    pub(crate) nodes: BTreeMap<Member, Node>,
    /// What the kernels of stopped nodes still serve.
    pub(crate) kernels: BTreeMap<Member, Arc<Objects>>,
    pub(crate) links: BTreeMap<(Member, Member), VecDeque<Vec<u8>>>,
    pub(crate) severed: BTreeSet<(Member, Member)>,
    /// How many payloads each has sent to each.
    pub(crate) payloads: BTreeMap<(Member, Member), u64>,
    pub(crate) views: Vec<Committed>,
    pub(crate) followed: BTreeMap<Member, usize>,
    pub(crate) dead: BTreeMap<Member, DeadMember>,
    pub(crate) lives: BTreeMap<NodeId, u32>,
    pub(crate) trace: u64,
    /// Tell every event on stderr.
    is_told: bool,
}

#[derive(Clone)]
pub(crate) struct Committed {
    pub(crate) view: View,
    pub(crate) left: Vec<Member>,
    pub(crate) welcome: Welcome,
}

#[derive(Default)]
pub(crate) struct DeadMember {
    pub(crate) lost_in: Option<ViewId>,
    pub(crate) is_fenced: bool,
    pub(crate) caches_cut: bool,
    pub(crate) told_gone: BTreeSet<Member>,
    /// Live records: the version each brings the object to.
    pub(crate) journal: BTreeMap<BucketName, u64>,
    pub(crate) recoverer: Option<Member>,
    pub(crate) redo: Option<Vec<BucketName>>,
    pub(crate) is_recovered: bool,
}

pub(crate) fn member(node: u16, incarnation: u32) -> Member {
    let node = NodeId::new(node).expect("in range");
    Member { node, incarnation: Incarnation(incarnation) }
}

pub(crate) fn object(index: u16) -> BucketName {
    let bucket = Bucket::of(u64::from(index));
    let name = ResourceName::new(format!("o{index}").as_bytes()).expect("short");
    BucketName { bucket, name }
}

impl World {
    /// Nodes 1 to `count`, all in view 1 and up to date.
    pub(crate) fn of(count: u16) -> World {
        let mut world = World {
            now: 0,
            disk: Arc::default(),
            nodes: BTreeMap::new(),
            kernels: BTreeMap::new(),
            links: BTreeMap::new(),
            severed: BTreeSet::new(),
            payloads: BTreeMap::new(),
            views: Vec::new(),
            followed: BTreeMap::new(),
            dead: BTreeMap::new(),
            lives: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            is_told: is_told(),
        };
        let members: Vec<Member> = (1..=count).map(|node| world.give_life(node)).collect();
        let view = View::new(ViewId(1), SanGeneration(1), members.clone());
        let welcome = Welcome::cold(&view, &[], false);
        world.views.push(Committed { view, left: Vec::new(), welcome });
        for member in members {
            world.follow(member);
        }
        world.settle();
        world
    }

    pub(crate) fn give_life(&mut self, node: u16) -> Member {
        let life = self.lives.entry(NodeId::new(node).expect("in range")).or_insert(0);
        *life += 1;
        let member = member(node, *life);
        self.nodes.insert(member, Node::new(member, &self.disk));
        member
    }

    pub(crate) fn node(&mut self, member: Member) -> &mut Node {
        self.nodes.get_mut(&member).expect("the node runs")
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant(self.now)
    }

    pub(crate) fn newest(&self) -> &Committed {
        self.views.last().expect("there is a view")
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.newest().view.members().to_vec()
    }

    pub(crate) fn is_member(&self, member: Member) -> bool {
        self.newest().view.contains(member)
    }

    /// An object whose lock is homed on `home` under the newest view.
    pub(crate) fn object_at(&self, home: Member) -> BucketName {
        let cache = &self.nodes[&home].cache;
        (0..).map(object).find(|at| cache.is_home(at.bucket)).expect("a home has many")
    }

    // --- doing everything there is to do ---

    /// Messages, events and surrenders, until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        while self.move_on() {}
    }

    fn move_on(&mut self) -> bool {
        let mut moved = false;
        for member in self.nodes.keys().copied().collect::<Vec<_>>() {
            let now = self.instant();
            while self.node(member).take_event(now) {
                moved = true;
                self.drain(member);
            }
            let node = self.node(member);
            for place in (0..node.surrenders.len()).rev() {
                // Slow ones come to an end within so many polls, unless they wait for a pin.
                moved |= (0..20).any(|_| node.poll_surrender(place, now));
            }
            for place in 0..node.operations.len() {
                let waited = node.is_waiting(place);
                node.poll_operation(place);
                moved |= waited && !node.is_waiting(place);
            }
            self.drain(member);
        }
        for (from, to) in self.busy_links() {
            self.deliver(from, to);
            moved = true;
        }
        moved
    }

    /// The time of one hold of a node comes.
    pub(crate) fn end_hold(&mut self, member: Member, place: usize) {
        let (entry, until) = self.node(member).holds.swap_remove(place);
        self.now = self.now.max(until.0);
        self.node(member).cache.handle_held(&entry, until);
        self.drain(member);
    }

    // --- the network ---

    pub(crate) fn busy_links(&self) -> Vec<(Member, Member)> {
        let busy = self.links.iter().filter(|(_, link)| !link.is_empty());
        busy.map(|(pair, _)| *pair).collect()
    }

    pub(crate) fn deliver(&mut self, from: Member, to: Member) {
        let Some(bytes) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        let now = self.instant();
        let (lockspace, messages) = Bundle::decode(&bytes).expect("nodes send what decodes");
        for message in messages {
            self.tell(|| format!("{to} <- {from}: {message:?}"));
            let Some(node) = self.nodes.get_mut(&to) else { return };
            if let Err(error) = node.cache.handle_message(from, lockspace, message, now) {
                panic!("{to} refuses a message: {error}");
            }
        }
        self.drain(to);
    }

    /// Of what is on the way `kept` messages arrive, nothing after.
    pub(crate) fn sever(&mut self, from: Member, to: Member, kept: usize) {
        self.links.entry((from, to)).or_default().truncate(kept);
        self.severed.insert((from, to));
    }

    // --- views ---

    pub(crate) fn commit(&mut self, coordinator: Member, members: Vec<Member>, left: Vec<Member>) {
        let newest = self.newest().clone();
        let id = ViewId(newest.view.id.0 + 1);
        let view = View::new(id, SanGeneration(id.0), members);
        for lost in newest.view.lost_in(&view).filter(|lost| !left.contains(lost)) {
            self.dead.entry(lost).or_default().lost_in = Some(id);
        }
        self.views.push(Committed { view, left, welcome: newest.welcome });
        while self.followed[&coordinator] < self.views.len() {
            self.follow(coordinator);
        }
        let welcome = self.nodes[&coordinator].cache.welcome();
        self.views.last_mut().expect("just pushed").welcome = welcome;
    }

    /// Lets `member` follow the next view; a joiner enters the first one that it is in.
    pub(crate) fn follow(&mut self, member: Member) {
        let followed = self.followed.get(&member).copied();
        let joined = || self.views.iter().position(|c| c.view.contains(member));
        let next = followed.or_else(joined).expect("a joiner is in some view");
        let Committed { view, left, welcome } = self.views[next].clone();
        self.followed.insert(member, next + 1);
        self.tell(|| format!("{member} follows {:?} {:?}", view.id, view.members()));
        let now = self.instant();
        let cache = &mut self.node(member).cache;
        match followed {
            None => cache.enter(view, &welcome, now).expect("the welcome is for the view"),
            Some(_) => cache.handle_view(view, &left, now).expect("nothing wrong was kept"),
        }
        self.drain(member);
    }

    /// All members follow all views, and everything settles.
    pub(crate) fn follow_all(&mut self) {
        for member in self.members() {
            while self.nodes.contains_key(&member)
                && self.followed.get(&member).copied().unwrap_or(0) < self.views.len()
            {
                self.follow(member);
            }
        }
        self.settle();
    }

    /// The daemon dies; what it had changed and `is_durable` admits is in its journal.
    pub(crate) fn crash(&mut self, member: Member, mut is_durable: impl FnMut() -> bool) {
        self.tell(|| format!("{member} stops"));
        let node = self.nodes.remove(&member).expect("runs");
        let died = self.dead.entry(member).or_default();
        let mut disk = self.disk.lock();
        for (name, version) in node.objects.dirty() {
            let bucket = node.cache.table().find(&name).expect("dirty, so locked").bucket();
            if is_durable() {
                died.journal.insert(BucketName { bucket, name }, version);
            } else {
                let version = disk.version(&name);
                disk.truth.insert(name, version);
                node.objects.state.lock().kernel.remove(&name);
            }
        }
        drop(disk);
        self.kernels.insert(member, Arc::clone(&node.objects));
        for other in self.lives.clone().into_iter().flat_map(|(node, lives)| {
            (1..=lives).map(move |life| Member { node, incarnation: Incarnation(life) })
        }) {
            self.severed.insert((member, other));
            self.severed.insert((other, member));
            self.links.remove(&(other, member));
        }
    }

    /// It changes nothing on the disk from now on.
    pub(crate) fn fence(&mut self, dead: Member) {
        self.disk.lock().fenced.insert(dead);
        self.dead.entry(dead).or_default().is_fenced = true;
    }

    // --- recovery ---

    pub(crate) fn begin_recovery(&mut self, recoverer: Member, dead: Member) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        assert!(died.is_fenced, "nothing is recovered before the fence");
        died.recoverer = Some(recoverer);
        died.redo = None;
        let names: Vec<BucketName> = died.journal.keys().copied().collect();
        let cache = &mut self.node(recoverer).cache;
        cache.begin_recovery(dead, names, now).expect("the recoverer knows of the death");
        self.drain(recoverer);
    }

    pub(crate) fn replay(&mut self, dead: Member, name: BucketName) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        let recoverer = died.recoverer.expect("somebody recovers");
        let version = died.journal.remove(&name).expect("a live record");
        if let Some(redo) = &mut died.redo {
            redo.retain(|left| *left != name);
        }
        {
            let mut disk = self.disk.lock();
            let in_place = disk.version(&name.name);
            disk.versions.insert(name.name, in_place.max(version));
        }
        let cache = &mut self.node(recoverer).cache;
        cache.replayed(dead, &[name], now).expect("under way");
        self.drain(recoverer);
    }

    pub(crate) fn finish_recovery(&mut self, dead: Member) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        // What is left was not in limbo: it is in place.
        died.journal.clear();
        let recoverer = died.recoverer.expect("somebody recovers");
        self.node(recoverer).cache.finish_recovery(dead, now).expect("under way");
        self.drain(recoverer);
    }

    pub(crate) fn cut_caches(&mut self, dead: Member) {
        self.dead.get_mut(&dead).expect("dead").caches_cut = true;
        self.kernels.remove(&dead);
    }

    pub(crate) fn tell_caches_gone(&mut self, to: Member, dead: Member) {
        let now = self.instant();
        let died = self.dead.get_mut(&dead).expect("dead");
        assert!(died.caches_cut, "only what is true is told");
        died.told_gone.insert(to);
        self.node(to).cache.caches_gone(dead, now);
        self.drain(to);
    }

    /// The whole recovery, and the end of the caches.
    pub(crate) fn recover(&mut self, recoverer: Member, dead: Member) {
        self.fence(dead);
        self.begin_recovery(recoverer, dead);
        self.settle();
        for name in self.dead[&dead].redo.clone().expect("every home has answered") {
            self.replay(dead, name);
        }
        self.finish_recovery(dead);
        self.settle();
        self.cut_caches(dead);
        for to in self.members() {
            self.tell_caches_gone(to, dead);
        }
        self.settle();
        assert!(self.dead[&dead].is_recovered);
    }

    // --- outputs ---

    /// What a member has to say to another one leaves in one payload.
    pub(crate) fn drain(&mut self, member: Member) {
        let mut bundles: BTreeMap<Member, Bundle> = BTreeMap::new();
        while let Some(output) = self.node(member).cache.poll_output() {
            self.tell(|| format!("{member}: {output:?}"));
            self.carry_out(member, output, &mut bundles);
        }
        for (to, bundle) in bundles {
            self.send(member, to, bundle);
        }
    }

    fn send(&mut self, from: Member, to: Member, mut bundle: Bundle) {
        self.add_to_trace(bundle.payload());
        *self.payloads.entry((from, to)).or_default() += 1;
        if !self.severed.contains(&(from, to)) {
            self.links.entry((from, to)).or_default().push_back(bundle.payload().to_vec());
        }
    }

    fn carry_out(
        &mut self,
        member: Member,
        output: Output,
        bundles: &mut BTreeMap<Member, Bundle>,
    ) {
        match output {
            Output::Send { to, message } => {
                let Some(bundle) = bundles.get_mut(&to) else {
                    bundles.insert(to, Bundle::new(LOCKSPACE, &message));
                    return;
                };
                if !bundle.push(&message) {
                    let full = std::mem::replace(bundle, Bundle::new(LOCKSPACE, &message));
                    self.send(member, to, full);
                }
            }
            Output::Surrender { entry, from, to, class } => {
                self.add_to_trace(&[from as u8, to as u8]);
                assert_eq!(entry.mode(), from);
                let future = Box::pin(surrender(Arc::clone(&entry), to, class));
                self.node(member).surrenders.push((entry, future));
            }
            Output::Hold { entry, until } => self.node(member).holds.push((entry, until)),
            Output::Rebuilt { .. } | Output::Claimed { .. } => {}
            Output::Redo { dead, names } => {
                let died = self.dead.get_mut(&dead).expect("only the dead are recovered");
                died.redo = Some(names);
            }
            Output::Wanted { .. } => {}
            Output::Recovered { dead } => {
                self.dead.get_mut(&dead).expect("only the dead are recovered").is_recovered = true;
            }
        }
    }

    pub(crate) fn add_to_trace(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    #[expect(clippy::print_stderr, reason = "on request only")]
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            eprintln!("{:5} {}", self.now, what());
        }
    }

    // --- what must be true ---

    /// Every kernel that may still be asked serves what was written last, and no two nodes have
    /// incompatible modes.
    pub(crate) fn check(&self) {
        for node in self.nodes.values() {
            node.objects.check_kernel();
        }
        for objects in self.kernels.values() {
            objects.check_kernel();
        }
        let mut used: BTreeMap<ResourceName, Vec<(Member, Mode)>> = BTreeMap::new();
        for (member, node) in &self.nodes {
            // CR of those who do not know that they were dropped protects nothing.
            let weakest = if self.is_member(*member) { Mode::CR } else { Mode::PR };
            node.cache.table().for_each(|entry| {
                if entry.mode().covers(weakest) && !node.cache.is_cut_off() {
                    used.entry(entry.name()).or_default().push((*member, entry.mode()));
                }
            });
        }
        for (name, holders) in &used {
            for (i, (one, mode)) in holders.iter().enumerate() {
                for (other, beside) in &holders[i + 1..] {
                    assert!(
                        mode.compatible(*beside),
                        "{name:?}: {one} has {mode}, {other} has {beside}"
                    );
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs a failing seed wants to see it")]
fn is_told() -> bool {
    std::env::var("LCL_TELL").is_ok()
}
