//! Fences victims, device by device and method by method, until each fence is proven.
//!
//! Keeps true:
//! * a [`FenceProof`] comes out of a verified answer and of nothing else; a time-out, a failure or
//!   a silent method proves nothing, and the victim stays pending on that device;
//! * for a victim on a device one attempt is under way at a time; an answer to an attempt that was
//!   given up counts when it is [`Answer::Verified`], because what it says stays true;
//! * asking again for a fence that is proven does nothing, and asking for a later life of the same
//!   node begins anew.
//!
//! Carries nothing out itself: an [`Output::Attempt`] is for the caller to hand to the agent.

use std::collections::{BTreeMap, VecDeque};

use mx_base::{Duration, Instant, NodeId};

use crate::agent::{Answer, FenceRequest, MethodId, Reach};
use crate::proof::{DeviceId, FenceProof, Victim};

/// A method of a device, in the order in which methods are tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Method {
    pub id: MethodId,
    pub reach: Reach,
}

/// A shared device and how nodes are fenced from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePlan {
    pub device: DeviceId,
    /// In the order in which they are tried.
    pub methods: Vec<Method>,
}

/// Names one attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttemptId(pub u64);

/// What the caller carries out, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Hand the request to the agent of `method`; answer with [`Director::handle_answer`].
    Attempt { attempt: AttemptId, method: MethodId, request: FenceRequest },
    /// The answer is not waited for any more; the agent may be told to stop. Should it verify the
    /// fence all the same, the director still wants to know.
    GivenUp { attempt: AttemptId },
    /// The victim is fenced from the device.
    Proven(FenceProof),
}

/// Why an attempt came to nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    TimedOut,
    Failed { reason: String },
    Unsupported { reason: String },
}

/// Where a victim stands on a device, for people and for what waits on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FenceState {
    /// An attempt is under way.
    Trying {
        method: MethodId,
        since: Instant,
    },
    /// No method has worked so far. The device stays out of use for what the victim may have
    /// locked; all methods are tried again at `retry_at`.
    Pending {
        retry_at: Instant,
    },
    /// No method of the device can do it at all. Only a change of the configuration, or the victim
    /// itself by starting anew, ends this.
    Impossible,
    Proven(FenceProof),
}

/// See [`Director::status`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    pub victim: Victim,
    pub device: DeviceId,
    pub state: FenceState,
    pub asked_at: Instant,
    pub attempts: u32,
    /// The last failure of each method, in the order of the plan.
    pub failures: Vec<(MethodId, Failure)>,
}

#[derive(Debug)]
struct Target {
    victim: Victim,
    asked_at: Instant,
    attempts: u32,
    failures: BTreeMap<MethodId, Failure>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Trying { attempt: AttemptId, position: usize, since: Instant },
    Pending { retry_at: Instant },
    Impossible,
    Proven(FenceProof),
}

/// An attempt whose answer may still come.
#[derive(Debug)]
struct Asked {
    request: FenceRequest,
    method: Method,
}

/// Attempts that were given up and may still be answered; the oldest are forgotten first. Enough
/// for every method of a few devices over many rounds.
const GIVEN_UP_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Director {
    plans: Vec<DevicePlan>,
    /// How long an attempt may take, and how long the director rests after all methods have
    /// failed.
    patience: Duration,
    targets: BTreeMap<(NodeId, DeviceId), Target>,
    asked: BTreeMap<AttemptId, Asked>,
    attempt_no: u64,
    outputs: VecDeque<Output>,
}

impl Director {
    /// `patience` is 20 U.
    pub fn new(plans: Vec<DevicePlan>, patience: Duration) -> Director {
        Director {
            plans,
            patience,
            targets: BTreeMap::new(),
            asked: BTreeMap::new(),
            attempt_no: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Fences `victim` from every device. Idempotent.
    pub fn fence(&mut self, victim: Victim, now: Instant) {
        for device in self.plans.iter().map(|plan| plan.device).collect::<Vec<_>>() {
            let key = (victim.node, device);
            if self.targets.get(&key).is_some_and(|target| target.victim.up_to >= victim.up_to) {
                continue;
            }
            self.give_up(key);
            let target = Target {
                victim,
                asked_at: now,
                attempts: 0,
                failures: BTreeMap::new(),
                step: Step::Impossible,
            };
            self.targets.insert(key, target);
            self.try_from(key, 0, now);
        }
    }

    /// The victim has been recovered, or is somebody else's to fence: nothing more is tried.
    pub fn forget(&mut self, node: NodeId) {
        let keys: Vec<_> = self.targets.keys().copied().filter(|key| key.0 == node).collect();
        for key in keys {
            self.give_up(key);
            self.targets.remove(&key);
        }
    }

    /// The answer to an attempt. Answers that come late or twice do no harm.
    pub fn handle_answer(&mut self, attempt: AttemptId, answer: Answer, now: Instant) {
        let Some(asked) = self.asked.remove(&attempt) else { return };
        let key = (asked.request.victim.node, asked.request.device);
        let failure = match answer {
            Answer::Verified => return self.prove(&asked, now),
            Answer::Failed { reason } => Failure::Failed { reason },
            Answer::Unsupported { reason } => Failure::Unsupported { reason },
        };
        let Some(target) = self.targets.get_mut(&key) else { return };
        match target.step {
            Step::Trying { attempt: current, position, .. } if current == attempt => {
                target.failures.insert(asked.method.id, failure);
                self.try_from(key, position + 1, now);
            }
            Step::Trying { .. } | Step::Pending { .. } | Step::Impossible | Step::Proven(_) => {}
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let keys: Vec<_> = self.targets.keys().copied().collect();
        for key in keys {
            let target = self.targets.get_mut(&key).expect("just listed");
            match target.step {
                Step::Trying { attempt, position, since } if now >= since + self.patience => {
                    if let Some(asked) = self.asked.get(&attempt) {
                        target.failures.insert(asked.method.id, Failure::TimedOut);
                    }
                    self.outputs.push_back(Output::GivenUp { attempt });
                    self.try_from(key, position + 1, now);
                }
                Step::Pending { retry_at } if now >= retry_at => self.try_from(key, 0, now),
                Step::Trying { .. } | Step::Pending { .. } | Step::Impossible | Step::Proven(_) => {
                }
            }
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = self.targets.values().filter_map(|target| match target.step {
            Step::Trying { since, .. } => Some((since + self.patience, "fence: attempt")),
            Step::Pending { retry_at } => Some((retry_at, "fence: next round")),
            Step::Impossible | Step::Proven(_) => None,
        });
        due.min()
    }

    /// The proof for `victim` on one device, if there is one.
    pub fn proof(&self, victim: Victim, device: DeviceId) -> Option<&FenceProof> {
        match &self.targets.get(&(victim.node, device))?.step {
            Step::Proven(proof) if proof.covers(victim) => Some(proof),
            Step::Proven(_) | Step::Trying { .. } | Step::Pending { .. } | Step::Impossible => None,
        }
    }

    /// The proofs for `victim` on all devices; `None` while one is missing, or when there are no
    /// devices at all.
    pub fn proofs(&self, victim: Victim) -> Option<Vec<FenceProof>> {
        let proofs = self.plans.iter().map(|plan| self.proof(victim, plan.device).cloned());
        let proofs: Vec<FenceProof> = proofs.collect::<Option<_>>()?;
        (!proofs.is_empty()).then_some(proofs)
    }

    /// Everything that is being fenced or was, by node and device.
    pub fn status(&self) -> Vec<Status> {
        let status = |((_, device), target): (&(NodeId, DeviceId), &Target)| Status {
            victim: target.victim,
            device: *device,
            state: self.state(*device, &target.step),
            asked_at: target.asked_at,
            attempts: target.attempts,
            failures: target.failures.iter().map(|(id, failure)| (*id, failure.clone())).collect(),
        };
        self.targets.iter().map(status).collect()
    }

    fn state(&self, device: DeviceId, step: &Step) -> FenceState {
        match step {
            Step::Trying { position, since, .. } => {
                FenceState::Trying { method: self.methods(device)[*position].id, since: *since }
            }
            Step::Pending { retry_at } => FenceState::Pending { retry_at: *retry_at },
            Step::Impossible => FenceState::Impossible,
            Step::Proven(proof) => FenceState::Proven(proof.clone()),
        }
    }

    fn methods(&self, device: DeviceId) -> &[Method] {
        let plan = self.plans.iter().find(|plan| plan.device == device);
        &plan.expect("targets are on devices of the plans").methods
    }

    /// Tries the first method from `position` on that may work, or rests.
    fn try_from(&mut self, key: (NodeId, DeviceId), position: usize, now: Instant) {
        let methods = self.methods(key.1).to_vec();
        let target = self.targets.get_mut(&key).expect("the caller has it");
        let hopeless = |method: &Method| {
            matches!(target.failures.get(&method.id), Some(Failure::Unsupported { .. }))
        };
        if methods.iter().all(hopeless) {
            target.step = Step::Impossible;
            return;
        }
        let next = (position..methods.len()).find(|position| !hopeless(&methods[*position]));
        let Some(position) = next else {
            target.step = Step::Pending { retry_at: now + self.patience };
            return;
        };
        self.attempt_no += 1;
        let attempt = AttemptId(self.attempt_no);
        let method = methods[position];
        let request = FenceRequest { victim: target.victim, device: key.1 };
        target.attempts += 1;
        target.step = Step::Trying { attempt, position, since: now };
        if self.asked.len() >= GIVEN_UP_MAX + self.targets.len() {
            self.asked.pop_first();
        }
        self.asked.insert(attempt, Asked { request, method });
        self.outputs.push_back(Output::Attempt { attempt, method: method.id, request });
    }

    fn prove(&mut self, asked: &Asked, now: Instant) {
        let FenceRequest { victim, device } = asked.request;
        let reached: Vec<DeviceId> = match asked.method.reach {
            Reach::Device => vec![device],
            Reach::Node => self.plans.iter().map(|plan| plan.device).collect(),
        };
        for device in reached {
            let key = (victim.node, device);
            let Some(target) = self.targets.get(&key) else { continue };
            // It may speak of an earlier life than the one that is being fenced by now.
            let proven = matches!(target.step, Step::Proven(_));
            if proven || target.victim.up_to > victim.up_to {
                continue;
            }
            let proof = FenceProof::new(target.victim, device, asked.method.id, now);
            self.give_up(key);
            let target = self.targets.get_mut(&key).expect("found above");
            target.step = Step::Proven(proof.clone());
            self.outputs.push_back(Output::Proven(proof));
        }
    }

    /// The attempt under way on a target, if there is one and it was not just answered, is not
    /// waited for any more.
    fn give_up(&mut self, key: (NodeId, DeviceId)) {
        if let Some(Target { step: Step::Trying { attempt, .. }, .. }) = self.targets.get(&key)
            && self.asked.contains_key(attempt)
        {
            self.outputs.push_back(Output::GivenUp { attempt: *attempt });
        }
    }
}

#[cfg(test)]
mod tests;
