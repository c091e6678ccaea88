//! Fences with answers that are good, bad, late, or never come.

use super::*;
use mx_base::Incarnation;

const PATIENCE: Duration = Duration::from_secs(2);
const DISK: DeviceId = DeviceId([1; 16]);
const OTHER: DeviceId = DeviceId([2; 16]);
const ARBITER: Method = Method { id: MethodId(1), reach: Reach::Device };
const POWER: Method = Method { id: MethodId(2), reach: Reach::Node };

fn victim(node: u16, up_to: u32) -> Victim {
    let node = NodeId::new(node).expect("in range");
    Victim { node, up_to: Incarnation(up_to) }
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn failed() -> Answer {
    Answer::Failed { reason: "no route".into() }
}

fn director(devices: &[DeviceId], methods: &[Method]) -> Director {
    let plan = |device: &DeviceId| DevicePlan { device: *device, methods: methods.to_vec() };
    Director::new(devices.iter().map(plan).collect(), PATIENCE)
}

/// The attempts asked for, in order.
fn attempts(director: &mut Director) -> Vec<(AttemptId, MethodId, FenceRequest)> {
    std::iter::from_fn(|| director.poll_output())
        .filter_map(|output| match output {
            Output::Attempt { attempt, method, request } => Some((attempt, method, request)),
            Output::GivenUp { .. } | Output::Proven(_) => None,
        })
        .collect()
}

fn proofs(director: &mut Director) -> Vec<FenceProof> {
    std::iter::from_fn(|| director.poll_output())
        .filter_map(|output| match output {
            Output::Proven(proof) => Some(proof),
            Output::Attempt { .. } | Output::GivenUp { .. } => None,
        })
        .collect()
}

#[test]
fn a_verified_answer_proves_the_fence_and_nothing_else_does() {
    let mut director = director(&[DISK], &[ARBITER]);
    let victim = victim(3, 7);
    director.fence(victim, at(0));
    let asked = attempts(&mut director);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].2, FenceRequest { victim, device: DISK });
    director.handle_answer(asked[0].0, failed(), at(1));
    director.handle_timeout(at(2));
    assert_eq!(director.proof(victim, DISK), None);
    assert!(matches!(director.status()[0].state, FenceState::Pending { .. }));
    director.handle_timeout(at(3));
    let again = attempts(&mut director);
    director.handle_answer(again[0].0, Answer::Verified, at(4));
    let proven = proofs(&mut director);
    assert_eq!(proven.len(), 1);
    assert_eq!((proven[0].victim(), proven[0].device()), (victim, DISK));
    assert_eq!(proven[0].proven_at(), at(4));
    assert_eq!(director.proofs(victim), Some(proven));
    assert_eq!(director.poll_timeout(), None);
}

#[test]
fn methods_are_tried_in_order_and_again_from_the_first() {
    let mut director = director(&[DISK], &[ARBITER, POWER]);
    director.fence(victim(3, 7), at(0));
    let first = attempts(&mut director);
    director.handle_answer(first[0].0, failed(), at(0));
    let second = attempts(&mut director);
    assert_eq!((first[0].1, second[0].1), (ARBITER.id, POWER.id));
    director.handle_answer(second[0].0, failed(), at(1));
    assert_eq!(director.poll_timeout(), Some((at(3), "fence: next round")));
    director.handle_timeout(at(3));
    assert_eq!(attempts(&mut director)[0].1, ARBITER.id);
    let status = &director.status()[0];
    assert_eq!((status.attempts, status.failures.len()), (3, 2));
}

#[test]
fn a_method_that_does_not_answer_gives_way_to_the_next_and_may_still_prove_it() {
    let mut director = director(&[DISK], &[ARBITER, POWER]);
    director.fence(victim(3, 7), at(0));
    let slow = attempts(&mut director)[0].0;
    director.handle_timeout(at(2));
    let outputs: Vec<Output> = std::iter::from_fn(|| director.poll_output()).collect();
    assert_eq!(outputs[0], Output::GivenUp { attempt: slow });
    assert!(matches!(outputs[1], Output::Attempt { method, .. } if method == POWER.id));
    director.handle_answer(slow, Answer::Verified, at(3));
    let proven = proofs(&mut director);
    assert_eq!(proven.len(), 1);
    assert_eq!(proven[0].method(), ARBITER.id);
}

#[test]
fn a_late_failure_of_a_given_up_attempt_does_not_disturb_the_present_one() {
    let mut director = director(&[DISK], &[ARBITER, POWER]);
    director.fence(victim(3, 7), at(0));
    let slow = attempts(&mut director)[0].0;
    director.handle_timeout(at(2));
    let present = attempts(&mut director)[0].0;
    director.handle_answer(slow, failed(), at(3));
    assert!(attempts(&mut director).is_empty());
    director.handle_answer(present, Answer::Verified, at(3));
    assert_eq!(proofs(&mut director).len(), 1);
}

#[test]
fn a_device_that_cannot_be_fenced_does_not_hold_up_the_others() {
    let mut director = director(&[DISK, OTHER], &[ARBITER]);
    let victim = victim(3, 7);
    director.fence(victim, at(0));
    let asked = attempts(&mut director);
    let on = |device| asked.iter().find(|a| a.2.device == device).expect("asked for both").0;
    director.handle_answer(on(OTHER), failed(), at(0));
    director.handle_answer(on(DISK), Answer::Verified, at(1));
    assert!(director.proof(victim, DISK).is_some());
    assert!(director.proof(victim, OTHER).is_none());
    assert_eq!(director.proofs(victim), None, "not fenced everywhere");
}

#[test]
fn stopping_the_node_proves_it_for_all_devices() {
    let mut director = director(&[DISK, OTHER], &[POWER]);
    let victim = victim(3, 7);
    director.fence(victim, at(0));
    let asked = attempts(&mut director);
    assert_eq!(asked.len(), 2);
    director.handle_answer(asked[1].0, Answer::Verified, at(1));
    assert_eq!(director.proofs(victim).map(|proofs| proofs.len()), Some(2));
    director.handle_answer(asked[0].0, failed(), at(2));
    assert_eq!(director.proofs(victim).map(|proofs| proofs.len()), Some(2));
}

#[test]
fn asking_again_is_idempotent_and_a_later_life_begins_anew() {
    let mut director = director(&[DISK], &[ARBITER]);
    director.fence(victim(3, 7), at(0));
    let first = attempts(&mut director)[0].0;
    director.fence(victim(3, 7), at(0));
    director.fence(victim(3, 5), at(0));
    assert!(attempts(&mut director).is_empty());
    director.fence(victim(3, 8), at(1));
    let second = attempts(&mut director);
    assert_eq!(second[0].2.victim, victim(3, 8));
    // What is proven of the former life says nothing of the later one.
    director.handle_answer(first, Answer::Verified, at(1));
    assert_eq!(director.proof(victim(3, 8), DISK), None);
    director.handle_answer(second[0].0, Answer::Verified, at(2));
    assert!(director.proof(victim(3, 8), DISK).is_some());
    assert!(director.proof(victim(3, 7), DISK).is_some(), "earlier lives are covered");
    assert!(director.proof(victim(3, 9), DISK).is_none());
}

#[test]
fn a_device_without_a_method_that_works_at_all_is_impossible_and_never_proven() {
    let mut director = director(&[DISK], &[ARBITER]);
    director.fence(victim(3, 7), at(0));
    let asked = attempts(&mut director);
    let answer = Answer::Unsupported { reason: "no reservations".into() };
    director.handle_answer(asked[0].0, answer, at(0));
    assert_eq!(director.status()[0].state, FenceState::Impossible);
    assert_eq!(director.poll_timeout(), None);
    let mut none = Director::new(vec![DevicePlan { device: DISK, methods: vec![] }], PATIENCE);
    none.fence(victim(3, 7), at(0));
    assert_eq!(none.status()[0].state, FenceState::Impossible);
    assert_eq!(none.proofs(victim(3, 7)), None);
    assert_eq!(Director::new(vec![], PATIENCE).proofs(victim(3, 7)), None);
}

#[test]
fn a_victim_that_is_forgotten_is_not_fenced_any_more() {
    let mut director = director(&[DISK], &[ARBITER]);
    director.fence(victim(3, 7), at(0));
    let asked = attempts(&mut director)[0].0;
    director.forget(victim(3, 7).node);
    assert_eq!(director.poll_output(), Some(Output::GivenUp { attempt: asked }));
    director.handle_answer(asked, Answer::Verified, at(1));
    assert_eq!(director.poll_output(), None);
    assert!(director.status().is_empty());
}
