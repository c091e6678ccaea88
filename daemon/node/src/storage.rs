//! This node's part in the register, the heartbeats on disk and the fencing of others: three
//! machines of crate `fencing`, and which of the cluster's wishes each of them is working on.
//!
//! Keeps true:
//! * every change that the cluster asks for is answered once for certain, or stays unknown because
//!   nobody can tell any more;
//! * the cluster is told of a fence only out of proofs of the director.

use std::collections::VecDeque;

use cluster::{Commit, CommitAnswer, CommitToken};
use fencing::director::{Director, Method};
use fencing::heartbeat::{Beat, Observer, OwnHeartbeat};
use fencing::ondisk::heartbeat::HeartbeatFlags;
use fencing::register::{self, IoId, Outcome, Register, glimpse};
use fencing::{Block, MpBlock, MpIndex, RegVal, Victim, director, layout};
use mx_base::rules::{Rule, is_kept};
use mx_base::{Incarnation, Instant, Member, NodeId, SanGeneration};

use crate::Config;
use crate::values::{self, Evidence, change_of, value_of};

/// The only partition of this release.
pub(crate) const PARTITION: MpIndex = MpIndex(0);

/// Units for which a change of the register may be under way before a ballot looks what it holds,
/// and units more for each node that goes first.
const UNSETTLED: u32 = 4;
const UNSETTLED_RANK: u32 = 6;

/// The one method of every device: its agent.
const METHOD: fencing::agent::MethodId = fencing::agent::MethodId(0);

/// What has to be done outside, in order.
#[derive(Debug)]
pub(crate) enum Effect {
    ReadRegister {
        io: IoId,
        block: MpBlock,
        count: u32,
    },
    WriteRegister {
        io: IoId,
        block: MpBlock,
        data: Box<Block>,
    },
    WriteHeartbeat {
        block: MpBlock,
        data: Box<Block>,
    },
    Fence {
        attempt: director::AttemptId,
        request: fencing::FenceRequest,
    },
    /// For the cluster.
    Committed {
        token: CommitToken,
        answer: CommitAnswer,
    },
    Register {
        value: cluster::RegisterValue,
        began: Instant,
    },
    RegisterUnreadable,
    Fenced {
        dead: Member,
    },
}

#[derive(Debug)]
enum Operation {
    Commit(CommitToken, SanGeneration),
    /// Finding out whether a change was made after all.
    Resolve(CommitToken, SanGeneration),
    Read {
        began: Instant,
    },
}

pub(crate) struct Storage {
    config: Config,
    register: Register,
    observer: Observer,
    own: OwnHeartbeat,
    director: Director,
    operation: Option<Operation>,
    unresolved: VecDeque<(CommitToken, SanGeneration)>,
    commits: VecDeque<Commit>,
    /// A look at the register did not settle what it holds.
    ballot_wanted: bool,
    /// Since when no look has.
    unsettled: Option<Instant>,
    /// The records as the last look showed them.
    seen: Option<Box<[Block]>>,
    effects: VecDeque<Effect>,
}

impl Storage {
    /// R5 is seen to: former lives of this node are over.
    pub(crate) fn new(config: &Config, now: Instant) -> Storage {
        let unit = config.unit.get();
        let Config { cluster, me, nonce, nodes_max, .. } = *config;
        let mut register = Register::new(register::Config {
            cluster,
            node: me.node,
            nonce: nonce.get(),
            partitions: 1,
            nodes_max,
            unit,
            patience: unit * 20,
            seed: config.seed,
        });
        register.handle_extinguished(PARTITION, now);
        let plans = config.file_systems.iter().map(|fs| director::DevicePlan {
            device: fs.device,
            methods: vec![Method { id: METHOD, reach: fencing::agent::Reach::Device }],
        });
        Storage {
            register,
            observer: Observer::new(cluster, Some((me.node, nonce.get())), 1, nodes_max),
            own: OwnHeartbeat::new(cluster, me.node, nonce.get(), 1, unit * 2, now),
            director: Director::new(plans.collect(), unit * 20),
            operation: None,
            unresolved: VecDeque::new(),
            commits: VecDeque::new(),
            ballot_wanted: false,
            unsettled: None,
            seen: None,
            effects: VecDeque::new(),
            config: config.clone(),
        }
    }

    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(crate) fn poll_timeout(&self, is_member: bool) -> Option<Instant> {
        let heartbeat = is_member.then(|| self.own.poll_timeout()).flatten();
        [heartbeat, self.register.poll_timeout(), self.director.poll_timeout()]
            .into_iter()
            .flatten()
            .map(|(at, _)| at)
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.register.handle_timeout(now);
        self.director.handle_timeout(now);
    }

    // The register

    pub(crate) fn commit(&mut self, commit: Commit) {
        self.commits.push_back(commit);
    }

    /// One pass over all records, begun at `began`. True when another pass is wanted at once.
    /// `rank` counts those who have the precedence where a ballot has to tell: all at once they
    /// would hinder each other, and those who want to change something.
    pub(crate) fn handle_look(&mut self, blocks: Box<[Block]>, rank: u32, began: Instant) -> bool {
        let before = self.seen.replace(blocks);
        let now = self.seen.as_deref().expect("just put there");
        let Some(before) = before else { return true };
        if let Some(value) = glimpse(self.config.cluster, self.config.nodes_max, &before, now) {
            self.unsettled = None;
            self.effects.push_back(Effect::Register { value: value_of(&value), began });
            return false;
        }
        let since = *self.unsettled.get_or_insert(began);
        let patience = self.config.unit.get() * (UNSETTLED + UNSETTLED_RANK * rank);
        if began.since(since) >= patience {
            // The next one only after as long again, whatever comes of this one.
            self.unsettled = None;
            self.ballot_wanted = true;
        }
        false
    }

    pub(crate) fn handle_look_failed(&mut self) {
        self.seen = None;
        self.effects.push_back(Effect::RegisterUnreadable);
    }

    pub(crate) fn handle_read(
        &mut self,
        io: IoId,
        result: Result<&[Block], register::IoFailed>,
        now: Instant,
    ) {
        self.register.handle_read(io, result, now);
    }

    pub(crate) fn handle_written(
        &mut self,
        io: IoId,
        result: Result<(), register::IoFailed>,
        now: Instant,
    ) {
        self.register.handle_written(io, result, now);
    }

    // Heartbeats

    pub(crate) fn handle_heartbeats(
        &mut self,
        blocks: &[Block],
        started: Instant,
        ended: Instant,
    ) -> Vec<cluster::DiskHeartbeat> {
        let (first, _) = layout::heartbeat_run(self.config.nodes_max);
        self.observer.handle_read(PARTITION, first, blocks, started, ended);
        let nodes = (1..=self.config.nodes_max).filter_map(NodeId::new);
        let records = nodes.filter_map(|node| self.observer.record(node));
        let told = records.filter(|record| record.incarnation != Incarnation(0));
        told.map(|record| cluster::DiskHeartbeat {
            node: record.node,
            incarnation: record.incarnation,
            sequence: record.sequence,
            reach: record.reach.iter().collect(),
        })
        .collect()
    }

    pub(crate) fn handle_heartbeat_written(&mut self, written: bool, now: Instant) {
        self.own.handle_written(PARTITION, written, now);
    }

    /// When the newest heartbeat that is on the disk was issued.
    pub(crate) fn pulse(&self) -> Option<Instant> {
        self.own.confirmed(PARTITION)
    }

    /// The node has joined as `me`.
    pub(crate) fn set_member(&mut self, me: Member) {
        self.register.set_incarnation(me.incarnation);
        self.own.set_incarnation(me.incarnation);
    }

    /// What the next heartbeat says, and the heartbeat itself if it is due. Members only.
    pub(crate) fn beat(&mut self, cluster: &cluster::Cluster, now: Instant) {
        let known = cluster.register();
        self.own.set_beat(
            Beat {
                generation_seen: known.map_or_else(Default::default, |known| known.generation),
                view: cluster.view().map_or_else(Default::default, |view| view.id),
                reach: cluster.reach().iter().collect(),
                devices_usable: 1,
                flags: HeartbeatFlags::default(),
            },
            now,
        );
        while let Some(write) = self.own.poll_write(now) {
            let (block, data) = (write.block, write.data);
            self.effects.push_back(Effect::WriteHeartbeat { block, data });
        }
    }

    // Fencing

    pub(crate) fn fence(&mut self, dead: Member, now: Instant) {
        self.director.fence(Victim::from(dead), now);
        if self.director.proofs(Victim::from(dead)).is_some() || !is_kept(Rule::AwaitFence) {
            self.effects.push_back(Effect::Fenced { dead });
        }
    }

    pub(crate) fn handle_answer(
        &mut self,
        attempt: director::AttemptId,
        answer: fencing::Answer,
        now: Instant,
    ) {
        self.director.handle_answer(attempt, answer, now);
    }

    // Inside

    /// Takes what the machines have to say and gives them what waits. True when anything moved.
    pub(crate) fn advance(&mut self, known: Option<&cluster::RegisterValue>, now: Instant) -> bool {
        let mut moved = self.start_next(known, now);
        while let Some(output) = self.register.poll_output() {
            moved = true;
            match output {
                register::Output::Read { io, block, count, .. } => {
                    self.effects.push_back(Effect::ReadRegister { io, block, count });
                }
                register::Output::Write { io, block, data, .. } => {
                    self.effects.push_back(Effect::WriteRegister { io, block, data });
                }
                register::Output::Done { outcome, .. } => {
                    let operation = self.operation.take().expect("what has ended was begun");
                    self.ended(&operation, outcome, known);
                }
            }
        }
        while let Some(output) = self.director.poll_output() {
            moved = true;
            match output {
                director::Output::Attempt { attempt, request, .. } => {
                    self.effects.push_back(Effect::Fence { attempt, request });
                }
                director::Output::GivenUp { .. } => {}
                director::Output::Proven(proof) => {
                    let victim = proof.victim();
                    tracing::info!(%victim, "fence proven");
                    if self.director.proofs(victim).is_some() {
                        let dead = Member { node: victim.node, incarnation: victim.up_to };
                        self.effects.push_back(Effect::Fenced { dead });
                    }
                }
            }
        }
        moved
    }

    fn start_next(&mut self, known: Option<&cluster::RegisterValue>, now: Instant) -> bool {
        if self.operation.is_some() {
            return false;
        }
        let begun = if let Some((token, expected)) = self.unresolved.pop_front() {
            self.operation = Some(Operation::Resolve(token, expected));
            self.register.read(now)
        } else if let Some(commit) = self.next_commit(known) {
            let evidence = Evidence {
                me: self.config.me,
                known: known.filter(|known| known.generation == commit.expected),
                proofs: self.all_proofs(known),
                quiet: values::quiet(&self.observer, self.config.unit.get()),
            };
            let change = change_of(&commit.change, commit.expected, evidence);
            self.operation = Some(Operation::Commit(commit.token, commit.expected));
            self.register.change(change, now)
        } else if std::mem::take(&mut self.ballot_wanted) {
            self.operation = Some(Operation::Read { began: now });
            self.register.read(now)
        } else {
            return false;
        };
        begun.expect("no operation is under way");
        true
    }

    /// A cold start waits until the watch on the heartbeats has lasted, unless others were faster.
    fn next_commit(&mut self, known: Option<&cluster::RegisterValue>) -> Option<Commit> {
        let commit = self.commits.front()?;
        if let cluster::Change::ColdStart { .. } = commit.change {
            let quiet = values::quiet(&self.observer, self.config.unit.get()).nodes();
            let unmoved = known.filter(|known| known.generation == commit.expected);
            let listed = unmoved.map_or(cluster::NodeSet::EMPTY, cluster::RegisterValue::nodes);
            if !listed.iter().all(|node| quiet.contains(node)) {
                return None;
            }
        }
        self.commits.pop_front()
    }

    fn all_proofs(&self, known: Option<&cluster::RegisterValue>) -> Vec<fencing::FenceProof> {
        let victims = known.into_iter().flat_map(cluster::RegisterValue::unrecovered);
        victims.filter_map(|dead| self.director.proofs(dead.into())).flatten().collect()
    }

    fn ended(
        &mut self,
        operation: &Operation,
        outcome: Outcome,
        known: Option<&cluster::RegisterValue>,
    ) {
        match *operation {
            Operation::Read { began } => match outcome {
                Outcome::Committed { value } | Outcome::Refused { value, .. } => {
                    let value = value_of(&value);
                    self.effects.push_back(Effect::Register { value, began });
                }
                Outcome::Unknown { why } | Outcome::NotDone { why } => {
                    tracing::warn!(%why, "register not readable");
                    self.effects.push_back(Effect::RegisterUnreadable);
                }
            },
            Operation::Commit(token, expected) => match outcome {
                Outcome::Committed { value } => {
                    self.answer(token, CommitAnswer::Committed(value_of(&value)));
                }
                Outcome::Refused { value, in_doubt: true, refusal } => {
                    tracing::warn!(%refusal, "change of the register in doubt");
                    self.doubt(token, expected, &value);
                }
                Outcome::Refused { refusal, value, in_doubt: false } => {
                    tracing::info!(%refusal, "change of the register refused");
                    self.answer(token, CommitAnswer::Refused(value_of(&value)));
                }
                Outcome::Unknown { why } => {
                    tracing::warn!(%why, "change of the register not known to be made");
                    self.answer(token, CommitAnswer::Unknown);
                    self.unresolved.push_back((token, expected));
                }
                Outcome::NotDone { why } => {
                    tracing::warn!(%why, "register not changed");
                    self.effects.push_back(Effect::RegisterUnreadable);
                    let value = known.cloned().unwrap_or_else(cluster::RegisterValue::initial);
                    self.answer(token, CommitAnswer::Refused(value));
                }
            },
            Operation::Resolve(token, expected) => match outcome {
                Outcome::Committed { value } | Outcome::Refused { value, .. } => {
                    self.doubt(token, expected, &value);
                }
                Outcome::Unknown { .. } | Outcome::NotDone { .. } => {
                    self.effects.push_back(Effect::RegisterUnreadable);
                    self.unresolved.push_back((token, expected));
                }
            },
        }
    }

    /// What became of a change that was meant for `expected`, now that `value` is committed.
    fn doubt(&mut self, token: CommitToken, expected: SanGeneration, value: &RegVal) {
        let told = value_of(value);
        if value.generation() <= expected {
            self.answer(token, CommitAnswer::Refused(told));
        } else if value.generation().0 == expected.0 + 1 && self.register.is_own(value) {
            self.answer(token, CommitAnswer::Committed(told));
        } else if value.generation().0 == expected.0 + 1 {
            self.answer(token, CommitAnswer::Refused(told));
        } else {
            // Others have gone on from it, or from what they did instead.
            self.answer(token, CommitAnswer::Overtaken(told));
        }
    }

    fn answer(&mut self, token: CommitToken, answer: CommitAnswer) {
        self.effects.push_back(Effect::Committed { token, answer });
    }
}
