//! Several nodes and their partitions under one random schedule.
//!
//! Every step is drawn from a seed: which request takes effect, which answer arrives, who crashes
//! or starts. Writes tear, fail, get stuck and land at any later time, also after the death of the
//! node that sent them; reads see each block at its own moment.

use std::collections::BTreeMap;

use super::{CLUSTER, Disk, U, cold_start, member, node};
use crate::NodeSet;
use crate::administrator::{Change, Regroup};
use crate::layout::{self, MpBlock, MpIndex};
use crate::ondisk::Block;
use crate::random::Random;
use crate::reg_val::{Author, RegVal};
use crate::register::{Config, IoFailed, IoId, Outcome, Output, Register};
use mx_base::{Incarnation, Instant, Member, SanGeneration};

/// What is simulated, and which rules are left out.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    pub(super) nodes: u16,
    pub(super) partitions: u8,
    pub(super) keep_r4: bool,
    pub(super) keep_r5: bool,
    /// Per mille of writes that get stuck.
    pub(super) stuck: u64,
    /// Per mille of steps at which a node crashes.
    pub(super) crash: u64,
    /// A sector of one partition is bad.
    pub(super) bad_sector: bool,
    pub(super) steps: u32,
}

#[derive(Default, Debug)]
pub(super) struct Tally {
    pub(super) committed: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) not_done: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: &Tally) {
        self.committed += other.committed;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.not_done += other.not_done;
    }
}

enum Io {
    Write {
        block: MpBlock,
        data: Box<Block>,
    },
    /// Blocks read so far, by position; the rest is read at a later step.
    Read {
        block: MpBlock,
        blocks: Vec<Option<Block>>,
    },
    /// It has taken effect; the answer is on its way.
    Answer {
        result: Result<Vec<Block>, IoFailed>,
        write: bool,
    },
}

struct Request {
    owner: usize,
    nonce: u64,
    io: IoId,
    partition: MpIndex,
    what: Io,
    stuck: bool,
}

struct Running {
    /// Newest generation that anybody had announced when it began.
    floor: u64,
    change: bool,
}

struct Node {
    id: u16,
    nonce: u64,
    register: Option<Register>,
    running: Option<Running>,
    known: RegVal,
}

pub(super) struct World {
    rules: Rules,
    random: Random,
    now: Instant,
    disks: Vec<Disk>,
    nodes: Vec<Node>,
    requests: Vec<Request>,
    /// Every committed value by generation, announced or implied by a later one.
    history: BTreeMap<u64, RegVal>,
    parents: BTreeMap<(u16, u64, u32), RegVal>,
    /// Changes that were said not to have been made.
    never: Vec<Author>,
    announced: u64,
    pub(super) tally: Tally,
}

type Violation = String;

impl World {
    pub(super) fn new(rules: Rules, seed: u64) -> World {
        // One node more than there are programs: the members that come and go.
        let nodes_max = rules.nodes + 1;
        let mut random = Random::new(seed);
        let mut disks: Vec<Disk> = (0..rules.partitions).map(|i| Disk::new(i, nodes_max)).collect();
        if rules.bad_sector {
            let (first, count) = layout::register_run(nodes_max);
            let bad = u32::try_from(random.below(count.into())).expect("below a u32");
            disks[random.index(usize::from(rules.partitions))].bad = Some(MpBlock(first.0 + bad));
        }
        let nodes = (1..=rules.nodes)
            .map(|id| Node {
                id,
                nonce: 0,
                register: None,
                running: None,
                known: RegVal::initial(),
            })
            .collect();
        let history = BTreeMap::from([(0, RegVal::initial())]);
        World {
            rules,
            random,
            now: Instant(0),
            disks,
            nodes,
            requests: Vec::new(),
            history,
            parents: BTreeMap::new(),
            never: Vec::new(),
            announced: 0,
            tally: Tally::default(),
        }
    }

    /// Runs to the end or to the first violation.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        for _ in 0..self.rules.steps {
            self.step()?;
        }
        for author in &self.never {
            if self.history.values().any(|value| value.author() == Some(*author)) {
                return Err(format!("{author:?} was said not to have changed anything"));
            }
        }
        Ok(())
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.random.below(1000) < per_mille
    }

    fn step(&mut self) -> Result<(), Violation> {
        let who = self.random.index(self.nodes.len());
        if self.nodes[who].register.is_none() {
            if self.chance(300) {
                self.start(who);
            }
        } else if self.chance(self.rules.crash) {
            self.crash(who);
        } else if self.nodes[who].running.is_none() && self.chance(500) {
            self.begin(who);
        }
        let moving: Vec<usize> =
            (0..self.requests.len()).filter(|i| !self.requests[*i].stuck).collect();
        if moving.is_empty() || self.chance(10) {
            self.pass_time();
        }
        if !moving.is_empty() {
            let which = self.random.index(moving.len());
            self.progress(moving[which]);
        }
        if self.chance(20) && !self.requests.is_empty() {
            let which = self.random.index(self.requests.len());
            self.progress(which);
        }
        for who in 0..self.nodes.len() {
            self.drain(who)?;
        }
        Ok(())
    }

    fn start(&mut self, who: usize) {
        let id = self.nodes[who].id;
        let nonce = self.random.next_u64();
        if self.rules.keep_r5 {
            // Fencing the former lives: what they had under way lands now or never.
            let (mine, others) = std::mem::take(&mut self.requests)
                .into_iter()
                .partition(|request| request.owner == who);
            self.requests = others;
            for request in mine {
                self.extinguish(request);
            }
        }
        let mut register = Register::new(Config {
            cluster: CLUSTER,
            node: node(id),
            nonce,
            partitions: self.rules.partitions,
            nodes_max: self.rules.nodes + 1,
            unit: U,
            patience: U * 20,
            seed: nonce,
        });
        register.without_r4 = !self.rules.keep_r4;
        for partition in 0..self.rules.partitions {
            register.handle_extinguished(MpIndex(partition), self.now);
        }
        let node = &mut self.nodes[who];
        node.nonce = nonce;
        node.register = Some(register);
    }

    fn extinguish(&mut self, request: Request) {
        if let Io::Write { block, data } = request.what {
            match self.random.below(3) {
                0 => {}
                1 => self.land(request.partition, block, &data),
                _ => self.tear(request.partition, block, &data),
            }
        }
    }

    fn crash(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        let register = node.register.take().expect("checked by the caller");
        node.running = None;
        let lineage = register.lineage;
        self.learn(lineage);
        // Answers are lost; writes stay under way and land whenever they land.
        self.requests
            .retain(|request| request.owner != who || matches!(request.what, Io::Write { .. }));
    }

    fn begin(&mut self, who: usize) {
        let expected = self.nodes[who].known.generation();
        let me = member(self.nodes[who].id, 1);
        let known = self.nodes[who].known.clone();
        let read = self.chance(300);
        let change = if read { None } else { Some(self.some_change(me, expected, &known)) };
        let node = &mut self.nodes[who];
        let register = node.register.as_mut().expect("running");
        node.running = Some(Running { floor: self.announced, change: change.is_some() });
        let begun = match change {
            None => register.read(self.now),
            Some(change) => register.change(change, self.now),
        };
        begun.expect("idle");
    }

    /// Something that is legal if the node's knowledge is up to date.
    fn some_change(&mut self, me: Member, expected: SanGeneration, known: &RegVal) -> Change {
        if known.members().is_empty() {
            return cold_start(me.node.get(), 1, expected.0, self.rules.nodes + 1);
        }
        if !known.contains(me) {
            let by = known.administrator().expect("there are members");
            return Change::join(by, expected, me);
        }
        let guest = node(self.rules.nodes + 1);
        if self.chance(300) && known.administrator() != Some(me) {
            return Change::TakeAdministration { by: me, expected };
        }
        let mut regroup = Regroup::by_administrator(me, expected);
        if known.member_nodes().contains(guest) {
            regroup.leaves = NodeSet::of(guest);
        } else {
            let incarnation = Incarnation(known.newest_incarnation(guest).0 + 1);
            regroup.joins.push(Member { node: guest, incarnation });
        }
        Change::Regroup(regroup)
    }

    fn pass_time(&mut self) {
        self.now += U * u32::try_from(self.random.below(4)).expect("small");
        for node in &mut self.nodes {
            if let Some(register) = &mut node.register {
                register.handle_timeout(self.now);
            }
        }
    }

    /// One request comes one step further.
    fn progress(&mut self, which: usize) {
        let fails = self.chance(10);
        let tears = self.chance(100);
        let request = self.requests.swap_remove(which);
        let Request { partition, io, owner, nonce, .. } = request;
        let disk = &self.disks[usize::from(partition.0)];
        let what = match request.what {
            Io::Write { block, .. } if disk.bad == Some(block) => {
                Io::Answer { result: Err(IoFailed), write: true }
            }
            Io::Write { block, data } if fails => {
                match self.random.below(3) {
                    0 => {}
                    1 => self.land(partition, block, &data),
                    _ => self.tear(partition, block, &data),
                }
                Io::Answer { result: Err(IoFailed), write: true }
            }
            Io::Write { block, data } if tears => {
                // Seen half written for a while.
                self.tear(partition, block, &data);
                Io::Write { block, data }
            }
            Io::Write { block, data } => {
                self.land(partition, block, &data);
                Io::Answer { result: Ok(Vec::new()), write: true }
            }
            Io::Read { block, mut blocks } => {
                let bad =
                    |bad: MpBlock| (block.0..).zip(&blocks).any(|(number, _)| number == bad.0);
                if fails || disk.bad.is_some_and(bad) {
                    Io::Answer { result: Err(IoFailed), write: false }
                } else {
                    let half = self.random.next_u64();
                    let mut complete = true;
                    for (number, slot) in (block.0..).zip(&mut blocks) {
                        if slot.is_none() && half >> (number % 64) & 1 == 0 {
                            let disk = &mut self.disks[usize::from(partition.0)];
                            *slot = Some(disk.at(MpBlock(number)).clone());
                        }
                        complete &= slot.is_some();
                    }
                    if complete {
                        let blocks = blocks.into_iter().flatten().collect();
                        Io::Answer { result: Ok(blocks), write: false }
                    } else {
                        Io::Read { block, blocks }
                    }
                }
            }
            Io::Answer { result, write } => {
                let node = &mut self.nodes[owner];
                if let Some(register) = node.register.as_mut().filter(|_| node.nonce == nonce) {
                    if write {
                        register.handle_written(io, result.map(drop), self.now);
                    } else {
                        register.handle_read(io, result.as_deref().map_err(|e| *e), self.now);
                    }
                }
                return;
            }
        };
        self.requests.push(Request { owner, nonce, io, partition, what, stuck: false });
    }

    fn land(&mut self, partition: MpIndex, block: MpBlock, data: &Block) {
        *self.disks[usize::from(partition.0)].at(block) = data.clone();
    }

    fn tear(&mut self, partition: MpIndex, block: MpBlock, data: &Block) {
        let target = self.disks[usize::from(partition.0)].at(block);
        target.0[..128].copy_from_slice(&data.0[..128]);
        target.0[200] ^= 0x55;
    }

    fn drain(&mut self, who: usize) -> Result<(), Violation> {
        loop {
            let node = &mut self.nodes[who];
            let Some(register) = &mut node.register else { return Ok(()) };
            let lineage = std::mem::take(&mut register.lineage);
            let output = register.poll_output();
            let nonce = node.nonce;
            self.learn(lineage);
            let (io, partition, what) = match output {
                None => return Ok(()),
                Some(Output::Write { io, partition, block, data }) => {
                    (io, partition, Io::Write { block, data })
                }
                Some(Output::Read { io, partition, block, count }) => {
                    (io, partition, Io::Read { block, blocks: vec![None; count as usize] })
                }
                Some(Output::Done { outcome, .. }) => {
                    self.conclude(who, outcome)?;
                    continue;
                }
            };
            let stuck = matches!(what, Io::Write { .. }) && self.chance(self.rules.stuck);
            self.requests.push(Request { owner: who, nonce, io, partition, what, stuck });
        }
    }

    fn learn(&mut self, lineage: Vec<(RegVal, RegVal)>) {
        for (parent, child) in lineage {
            let author = child.author().expect("a change has an author");
            self.parents.insert((author.node.get(), author.nonce, author.serial), parent);
        }
    }

    fn conclude(&mut self, who: usize, outcome: Outcome) -> Result<(), Violation> {
        let running = self.nodes[who].running.take().expect("an operation was under way");
        let register = self.nodes[who].register.as_ref().expect("running");
        let author = Author {
            node: node(self.nodes[who].id),
            nonce: self.nodes[who].nonce,
            serial: register.serial,
        };
        let value = match outcome {
            Outcome::Committed { value } => {
                if running.change && value.author() != Some(author) {
                    return Err(format!("{author:?} was told that {value:?} is its change"));
                }
                self.tally.committed += 1;
                value
            }
            Outcome::Refused { value, in_doubt, .. } => {
                if !in_doubt {
                    self.never.push(author);
                }
                self.tally.refused += 1;
                value
            }
            Outcome::Unknown { .. } => {
                self.tally.unknown += 1;
                return Ok(());
            }
            Outcome::NotDone { .. } => {
                self.never.push(author);
                self.tally.not_done += 1;
                return Ok(());
            }
        };
        let generation = value.generation().0;
        if generation < running.floor {
            let floor = running.floor;
            return Err(format!("generation {generation} after {floor} was committed"));
        }
        self.announced = self.announced.max(generation);
        self.nodes[who].known = value.clone();
        self.record(value)
    }

    /// Enters a committed value, and those it was made of, into the one history.
    fn record(&mut self, mut value: RegVal) -> Result<(), Violation> {
        loop {
            let generation = value.generation().0;
            if let Some(known) = self.history.get(&generation) {
                return if *known == value {
                    Ok(())
                } else {
                    Err(format!("two values of generation {generation}: {known:?} and {value:?}"))
                };
            }
            let author = value.author().expect("a change has an author");
            let parent = self
                .parents
                .get(&(author.node.get(), author.nonce, author.serial))
                .cloned()
                .ok_or_else(|| format!("nobody proposed {value:?}"))?;
            if parent.generation().0 + 1 != generation {
                return Err(format!("{value:?} was made of {parent:?}"));
            }
            self.history.insert(generation, value);
            value = parent;
        }
    }
}
