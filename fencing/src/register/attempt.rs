//! An operation's attempts: survey, prepare, accept, and waiting when somebody else was faster.

use mx_base::rules::{Rule, is_kept};
use mx_base::{Duration, Instant};

use super::partition::Send;
use super::scan::Picture;
use super::{IoId, Outcome, Output, Register, Trouble};
use crate::administrator::Refusal;
use crate::ballot::Ballot;
use crate::reg_val::RegVal;

/// Where an attempt stands. The same for all partitions; each follows at its own pace.
#[derive(Debug)]
pub(super) enum Stage {
    /// Reading the own record and everybody's ballots, where that has not been done in this life.
    Survey,
    /// Phase 1: promising the ballot and finding out what was accepted.
    Prepare { ballot: Ballot },
    /// Phase 2: having the value accepted.
    Accept { ballot: Ballot, value: RegVal, verdict: Verdict },
    /// Somebody has a higher ballot, or no majority can be had for the moment.
    Waiting { until: Instant },
}

/// What the operation comes to once the value is accepted.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    Commit,
    Refuse(Refusal),
}

/// What a stage has come to over all partitions.
enum Tally {
    Majority,
    /// A ballot higher than ours was seen.
    Overtaken,
    /// So many partitions have failed that no majority can be had in this attempt.
    Hopeless(Trouble),
    Open,
}

impl Register {
    /// Goes as far as the answers that have come in allow.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(operation) = &self.operation {
            if now >= operation.deadline {
                return self.give_up(operation.last_trouble.unwrap_or(Trouble::Slow));
            }
            if let Stage::Waiting { until } = operation.stage {
                if now < until {
                    return;
                }
                self.begin_attempt(now);
                continue;
            }
            self.pump();
            match self.tally() {
                Tally::Majority => self.enter_next(),
                Tally::Overtaken => self.wait(None, now),
                Tally::Hopeless(trouble) if trouble.is_final() => return self.give_up(trouble),
                Tally::Hopeless(trouble) => self.wait(Some(trouble), now),
                Tally::Open => return,
            }
        }
    }

    pub(super) fn begin_attempt(&mut self, now: Instant) {
        self.attempt_began = now;
        self.enter(Stage::Survey);
    }

    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage_no += 1;
        for partition in &mut self.partitions {
            partition.enter_stage();
        }
        let operation = self.operation.as_mut().expect("stages belong to an operation");
        operation.stage = stage;
    }

    /// Sends what every partition needs next.
    fn pump(&mut self) {
        let keeps_r4 = self.keeps_r4();
        let operation = self.operation.as_ref().expect("stages belong to an operation");
        for partition in &mut self.partitions {
            #[cfg(test)]
            if !keeps_r4 && partition.is_ready() {
                partition.forget_outstanding();
            }
            if partition.is_ready() && (partition.is_idle() || !keeps_r4) {
                match &operation.stage {
                    _ if !partition.is_loaded() => partition.begin_loading(),
                    Stage::Survey | Stage::Waiting { .. } => {}
                    Stage::Prepare { ballot } | Stage::Accept { ballot, .. }
                        if partition.own_promise() > *ballot => {}
                    Stage::Prepare { ballot } => {
                        partition.begin_writing(self.incarnation, *ballot, None);
                    }
                    Stage::Accept { ballot, value, .. } => {
                        let accepted = Some((*ballot, value));
                        partition.begin_writing(self.incarnation, *ballot, accepted);
                    }
                }
            }
            let io = IoId(self.io_no + 1);
            let output = match partition.poll_send(io, self.stage_no) {
                None => continue,
                Some(Send::Write { block, data }) => {
                    Output::Write { io, partition: partition.index(), block, data }
                }
                Some(Send::Read { block, count }) => {
                    Output::Read { io, partition: partition.index(), block, count }
                }
            };
            self.io_no += 1;
            self.outputs.push_back(output);
        }
    }

    fn tally(&self) -> Tally {
        let operation = self.operation.as_ref().expect("stages belong to an operation");
        let node = self.config.node;
        let counted = match &operation.stage {
            Stage::Survey => self.partitions.iter().filter(|p| p.is_loaded()).count(),
            Stage::Prepare { ballot } | Stage::Accept { ballot, .. } => {
                let higher = |picture: &Picture| picture.promised_by_others(node) > *ballot;
                let overtaken = self.partitions.iter().any(|partition| {
                    partition.own_promise() > *ballot || partition.picture().is_some_and(higher)
                });
                if overtaken {
                    return Tally::Overtaken;
                }
                self.partitions.iter().filter(|p| p.picture().is_some()).count()
            }
            Stage::Waiting { .. } => return Tally::Open,
        };
        if counted >= self.majority() {
            return Tally::Majority;
        }
        let failures: Vec<Trouble> = self.partitions.iter().filter_map(|p| p.failure()).collect();
        if failures.len() > self.partitions.len() - self.majority() {
            // A trouble that passes is worth another attempt, so it goes before one that does not.
            let passing = failures.iter().find(|trouble| !trouble.is_final());
            let worst = passing.or(failures.first()).copied();
            return Tally::Hopeless(worst.expect("at least one has failed"));
        }
        Tally::Open
    }

    fn enter_next(&mut self) {
        let operation = self.operation.as_ref().expect("stages belong to an operation");
        match &operation.stage {
            Stage::Survey => {
                let ballot =
                    Ballot::new(self.ballot_max.round + 1, self.config.nonce, self.config.node);
                self.ballot_max = ballot;
                self.enter(Stage::Prepare { ballot });
            }
            Stage::Prepare { ballot } => {
                let ballot = *ballot;
                let pictures: Vec<&Picture> =
                    self.partitions.iter().filter_map(|p| p.picture()).collect();
                let own = pictures.first().filter(|_| !is_kept(Rule::AdoptAccepted));
                let own = own.map(|picture| picture.record(self.config.node).value.clone());
                match own.map_or_else(|| Picture::accepted(&pictures), Ok) {
                    Ok(adopted) => {
                        let (value, verdict) = self.decide(adopted);
                        self.enter(Stage::Accept { ballot, value, verdict });
                    }
                    Err(trouble) => {
                        for partition in &mut self.partitions {
                            partition.rule_out(trouble);
                        }
                        self.give_up(trouble);
                    }
                }
            }
            Stage::Accept { value, verdict, .. } => {
                let value = value.clone();
                let outcome = match verdict.clone() {
                    Verdict::Commit => Outcome::Committed { value },
                    Verdict::Refuse(refusal) => {
                        let expected = operation.change.as_ref().map_or(0, |c| c.expected().0);
                        // One generation on, the author tells whose change it was.
                        let in_doubt = operation.proposed && value.generation().0 > expected + 1;
                        Outcome::Refused { refusal, value, in_doubt }
                    }
                };
                self.finish(outcome);
            }
            Stage::Waiting { .. } => unreachable!("nothing is counted while waiting"),
        }
    }

    /// The value to be accepted, now that it is known what was.
    fn decide(&mut self, adopted: RegVal) -> (RegVal, Verdict) {
        let operation = self.operation.as_mut().expect("stages belong to an operation");
        let Some(change) = &operation.change else { return (adopted, Verdict::Commit) };
        if adopted.author() == Some(operation.author) {
            // An earlier attempt of this operation got through, by this node or another.
            return (adopted, Verdict::Commit);
        }
        match change.apply(&adopted, operation.author, self.config.nodes_max) {
            Ok(value) => {
                operation.proposed = true;
                #[cfg(test)]
                self.lineage.push((adopted, value.clone()));
                (value, Verdict::Commit)
            }
            Err(refusal) => (adopted, Verdict::Refuse(refusal)),
        }
    }

    /// 1 to 4 U, or 1 to 4 times what the attempt took if that is more, so that of several nodes one
    /// gets through. An operation that ran out of patience leaves its pause to the next one: whoever
    /// tried again at once would only overtake the others.
    fn wait(&mut self, trouble: Option<Trouble>, now: Instant) {
        let unit = self.config.unit;
        let took = now.since(self.attempt_began);
        let least = took.clamp(unit, unit.max(self.config.patience / 2));
        let least = u64::try_from(least.as_nanos()).expect("patience is at most some minutes");
        let until = now + Duration::from_nanos(least + self.random.below(3 * least + 1));
        let operation = self.operation.as_mut().expect("stages belong to an operation");
        operation.last_trouble = trouble;
        self.next_attempt = trouble.is_none().then_some(until);
        self.enter(Stage::Waiting { until });
    }

    fn give_up(&mut self, why: Trouble) {
        let proposed = self.operation.as_ref().is_some_and(|operation| operation.proposed);
        self.finish(if proposed { Outcome::Unknown { why } } else { Outcome::NotDone { why } });
    }

    fn finish(&mut self, outcome: Outcome) {
        let operation = self.operation.take().expect("only an operation is finished");
        if matches!(outcome, Outcome::Committed { .. } | Outcome::Refused { .. }) {
            self.next_attempt = None;
        }
        self.stage_no += 1;
        for partition in &mut self.partitions {
            partition.enter_stage();
        }
        self.outputs.push_back(Output::Done { request: operation.request, outcome });
    }
}
