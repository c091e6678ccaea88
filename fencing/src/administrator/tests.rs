//! Every change, legal and illegal, and random ones that must keep the value sound.

use super::*;
use crate::agent::{Answer, MethodId, Reach};
use crate::director::{DevicePlan, Director, Method, Output};
use crate::heartbeat::Observer;
use crate::layout;
use crate::ondisk::Block;
use crate::proof::DeviceId;
use mx_base::{ClusterId, Duration, Incarnation, Instant};

const AUTHOR_NONCE: u64 = 4;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16, incarnation: u32) -> Member {
    Member { node: node(id), incarnation: Incarnation(incarnation) }
}

fn set(ids: &[u16]) -> NodeSet {
    ids.iter().map(|id| node(*id)).collect()
}

fn author() -> Author {
    Author { node: node(1), nonce: AUTHOR_NONCE, serial: 1 }
}

fn apply(value: &RegVal, change: Change) -> Result<RegVal, Refusal> {
    change.apply(value, author(), 64)
}

/// Nodes whose blocks stood still.
fn quiet(ids: &[u16]) -> Quiet {
    let mut observer = Observer::new(ClusterId([0; 16]), None, 1, 64);
    for id in ids {
        for unit in [0, 10_000_000_000] {
            let blocks = [*Block::zeroed()];
            let block = layout::heartbeat(node(*id));
            let now = Instant(unit);
            observer.handle_read(layout::MpIndex(0), block, &blocks, now, now);
        }
    }
    observer.quiet(Duration::from_secs(1))
}

fn everybody_quiet() -> Quiet {
    quiet(&(1..=64).collect::<Vec<_>>())
}

fn cold_start(value: &RegVal, me: Member, quiet: Quiet) -> Result<RegVal, Refusal> {
    apply(value, Change::ColdStart(ColdStart { me, expected: value.generation(), quiet }))
}

/// Members 1.1 (administrator), 2.1 and 3.1.
fn three() -> RegVal {
    let mut value = cold_start(&RegVal::initial(), member(1, 1), quiet(&[])).expect("legal");
    for id in [2, 3] {
        let change = Change::join(member(1, 1), value.generation(), member(id, 1));
        value = apply(&value, change).expect("legal");
    }
    value
}

fn expelled(value: &RegVal, by: Member, victims: &[u16]) -> RegVal {
    apply(value, Change::expel(by, value.generation(), set(victims))).expect("legal")
}

/// Proofs as the director makes them.
fn proofs(victims: &[Victim]) -> Vec<FenceProof> {
    let device = DeviceId([0; 16]);
    let methods = vec![Method { id: MethodId(0), reach: Reach::Device }];
    let plan = DevicePlan { device, methods };
    let mut director = Director::new(vec![plan], Duration::from_secs(1));
    for victim in victims {
        director.fence(*victim, Instant(0));
    }
    while let Some(output) = director.poll_output() {
        if let Output::Attempt { attempt, .. } = output {
            director.handle_answer(attempt, Answer::Verified, Instant(1));
        }
    }
    victims.iter().flat_map(|victim| director.proofs(*victim).expect("all answered")).collect()
}

fn fenced(value: &RegVal, by: Member) -> Result<RegVal, Refusal> {
    let proofs = proofs(&value.victims());
    apply(value, Change::Fenced { by, expected: value.generation(), proofs })
}

fn recovered(value: &RegVal, by: Member) -> Result<RegVal, Refusal> {
    apply(value, Change::Recovered { by, expected: value.generation() })
}

#[test]
fn every_change_adds_one_to_the_generation_and_only_new_members_make_a_new_view() {
    let value = three();
    assert_eq!((value.generation(), value.view_id()), (SanGeneration(3), ViewId(3)));
    let by = member(2, 1);
    let taken = apply(&value, Change::TakeAdministration { by, expected: value.generation() });
    let taken = taken.expect("legal");
    assert_eq!((taken.generation(), taken.view_id()), (SanGeneration(4), ViewId(3)));
    assert_eq!(taken.administrator(), Some(by));
}

#[test]
fn a_change_meant_for_another_generation_is_refused() {
    let value = three();
    for expected in [SanGeneration(2), SanGeneration(4)] {
        let change = Change::join(member(1, 1), expected, member(4, 1));
        let found = SanGeneration(3);
        let moved = Refusal::GenerationMoved(GenerationMoved { expected, found });
        assert_eq!(apply(&value, change), Err(moved));
    }
}

#[test]
fn only_a_member_in_its_present_life_makes_changes() {
    let value = three();
    for by in [member(4, 1), member(2, 2), member(2, 0)] {
        let change = Change::expel(by, value.generation(), set(&[3]));
        assert_eq!(apply(&value, change), Err(Refusal::NotAMember { by }));
    }
}

#[test]
fn who_changes_the_members_without_being_administrator_becomes_it() {
    let value = three();
    let by = member(2, 1);
    let kept = Change::Regroup(Regroup {
        victims: set(&[3]),
        administrator: Some(node(1)),
        ..Regroup::by_administrator(by, value.generation())
    });
    let administrator = member(1, 1);
    assert_eq!(apply(&value, kept), Err(Refusal::NotAdministrator { by, administrator }));
    let taken = expelled(&value, by, &[3]);
    assert_eq!(taken.administrator(), Some(by));
}

#[test]
fn when_all_leave_together_any_of_them_records_it() {
    let value = three();
    let all = Change::Regroup(Regroup {
        leaves: set(&[1, 2, 3]),
        administrator: None,
        ..Regroup::by_administrator(member(2, 1), value.generation())
    });
    let left = apply(&value, all).expect("legal");
    assert_eq!((left.members(), left.administrator()), (Vec::new(), None));
}

#[test]
fn a_life_is_used_once() {
    let value = three();
    let expected = value.generation();
    let by = member(1, 1);
    let join = |member| apply(&value, Change::join(by, expected, member));
    assert_eq!(join(member(2, 2)), Err(Refusal::MemberExists { node: node(2) }));
    let left = apply(&value, Change::leave(by, expected, set(&[2]))).expect("legal");
    let again =
        |incarnation| apply(&left, Change::join(by, left.generation(), member(2, incarnation)));
    let newest = Incarnation(1);
    assert_eq!(again(1), Err(Refusal::IncarnationUsed { member: member(2, 1), newest }));
    assert!(again(2).expect("legal").contains(member(2, 2)));
    // Incarnations that failed to join are skipped.
    assert!(again(9).expect("legal").contains(member(2, 9)));
}

#[test]
fn leaving_makes_no_victims_and_the_last_one_takes_the_administration_along() {
    let value = three();
    let by = member(1, 1);
    let handed_over = apply(
        &value,
        Change::Regroup(Regroup {
            leaves: set(&[1]),
            administrator: Some(node(3)),
            ..Regroup::by_administrator(by, value.generation())
        }),
    )
    .expect("legal");
    assert_eq!(handed_over.administrator(), Some(member(3, 1)));
    assert_eq!((handed_over.phase(), handed_over.victims()), (Phase::Stable, vec![]));
    let last = apply(
        &handed_over,
        Change::Regroup(Regroup {
            leaves: set(&[2, 3]),
            administrator: None,
            ..Regroup::by_administrator(member(3, 1), handed_over.generation())
        }),
    )
    .expect("legal");
    assert_eq!((last.members(), last.administrator()), (vec![], None));
    // Nobody is a member, so nobody has to be watched.
    let next = cold_start(&last, member(2, 2), quiet(&[])).expect("legal");
    assert_eq!((next.phase(), next.members()), (Phase::Stable, vec![member(2, 2)]));
}

#[test]
fn an_administrator_must_be_one_of_those_who_remain() {
    let value = three();
    for administrator in [None, Some(node(3)), Some(node(9))] {
        let change = Change::Regroup(Regroup {
            leaves: set(&[3]),
            administrator,
            ..Regroup::by_administrator(member(1, 1), value.generation())
        });
        assert_eq!(apply(&value, change), Err(Refusal::AdministratorNotThere));
    }
}

#[test]
fn contradictory_regroupings_are_refused() {
    let value = three();
    let by = member(1, 1);
    let base = || Regroup::by_administrator(by, value.generation());
    let refused = |change: Regroup| apply(&value, Change::Regroup(change)).expect_err("illegal");
    let torn = Regroup { leaves: set(&[2]), victims: set(&[2]), ..base() };
    assert_eq!(refused(torn), Refusal::Contradiction { node: node(2) });
    let suicide = Regroup { victims: set(&[1]), ..base() };
    assert_eq!(refused(suicide), Refusal::Contradiction { node: node(1) });
    let stranger = Regroup { victims: set(&[5]), ..base() };
    assert_eq!(refused(stranger), Refusal::NotThere { node: node(5) });
    let twice = Regroup { joins: vec![member(5, 1), member(5, 2)], ..base() };
    assert_eq!(refused(twice), Refusal::Contradiction { node: node(5) });
    let reborn = Regroup { joins: vec![member(2, 2)], victims: set(&[2]), ..base() };
    assert_eq!(refused(reborn), Refusal::Contradiction { node: node(2) });
    assert_eq!(refused(base()), Refusal::NothingToDo);
    let beyond = Change::join(by, value.generation(), member(9, 1));
    assert_eq!(
        beyond.apply(&value, author(), 8),
        Err(Refusal::BeyondNodesMax { node: node(9), nodes_max: 8 })
    );
}

#[test]
fn fencing_goes_from_victims_over_proofs_to_recovery() {
    let value = three();
    let by = member(1, 1);
    assert_eq!(recovered(&value, by), Err(Refusal::WrongPhase { phase: Phase::Stable }));
    let value = expelled(&value, by, &[2, 3]);
    assert_eq!(value.phase(), Phase::Fencing);
    let victims = [Victim::from(member(2, 1)), Victim::from(member(3, 1))];
    assert_eq!(value.victims(), victims);
    assert_eq!(recovered(&value, by), Err(Refusal::WrongPhase { phase: Phase::Fencing }));
    let proofs = proofs(&victims[..1]);
    let change = Change::Fenced { by, expected: value.generation(), proofs };
    assert_eq!(apply(&value, change), Err(Refusal::Unproven { victim: victims[1] }));
    let value = fenced(&value, by).expect("all proven");
    assert_eq!((value.phase(), value.unfenced()), (Phase::Fenced, NodeSet::EMPTY));
    let value = recovered(&value, by).expect("legal");
    assert_eq!((value.phase(), value.unrecovered()), (Phase::Recovered, NodeSet::EMPTY));
    assert_eq!(value.victims(), victims, "they stay listed until the next change");
    let value = apply(&value, Change::join(by, value.generation(), member(2, 2))).expect("legal");
    assert_eq!((value.phase(), value.victims()), (Phase::Stable, vec![]));
}

#[test]
fn a_further_death_brings_fencing_back_for_all_that_are_not_recovered() {
    let by = member(1, 1);
    let value = fenced(&expelled(&three(), by, &[2]), by).expect("proven");
    let value = expelled(&value, by, &[3]);
    assert_eq!(value.phase(), Phase::Fencing);
    assert_eq!(value.victims(), [Victim::from(member(2, 1)), Victim::from(member(3, 1))]);
    let value = recovered(&fenced(&value, by).expect("proven"), by).expect("legal");
    let value = apply(&value, Change::join(by, value.generation(), member(4, 1))).expect("legal");
    let value = expelled(&value, by, &[4]);
    assert_eq!(value.victims(), [Victim::from(member(4, 1))], "the others are recovered");
}

#[test]
fn a_successor_of_the_administrator_goes_on_where_it_stopped() {
    let value = expelled(&three(), member(1, 1), &[3]);
    // The administrator dies in the middle; the last one finds phase and victims in the register.
    let value = expelled(&value, member(2, 1), &[1]);
    assert_eq!(value.administrator(), Some(member(2, 1)));
    assert_eq!(value.victims(), [Victim::from(member(1, 1)), Victim::from(member(3, 1))]);
    let (by, administrator) = (member(1, 1), member(2, 1));
    assert_eq!(fenced(&value, by), Err(Refusal::NotAMember { by }));
    assert!(fenced(&value, administrator).is_ok());
}

#[test]
fn only_the_administrator_records_fences_and_recoveries() {
    let value = expelled(&three(), member(1, 1), &[3]);
    let (by, administrator) = (member(2, 1), member(1, 1));
    let refusal = Refusal::NotAdministrator { by, administrator };
    assert_eq!(fenced(&value, by), Err(refusal.clone()));
    let value = fenced(&value, administrator).expect("proven");
    assert_eq!(recovered(&value, by), Err(refusal));
}

#[test]
fn a_node_joins_again_only_after_its_former_life_is_fenced() {
    let by = member(1, 1);
    let value = expelled(&three(), by, &[3]);
    let join = |value: &RegVal| apply(value, Change::join(by, value.generation(), member(3, 2)));
    assert_eq!(join(&value), Err(Refusal::FormerLifeNotFenced { node: node(3) }));
    let value = join(&fenced(&value, by).expect("proven")).expect("legal");
    // Its former life is still to be recovered, and stays told from the present one.
    assert_eq!(value.phase(), Phase::Fenced);
    assert_eq!(value.victims(), [Victim::from(member(3, 1))]);
    let value = expelled(&value, by, &[3]);
    assert_eq!(value.victims(), [Victim::from(member(3, 2))], "both lives are victims");
}

#[test]
fn a_cold_start_fences_all_that_were_listed_the_own_former_life_included() {
    let value = three();
    let me = member(2, 2);
    let moving = cold_start(&value, me, quiet(&[1, 2]));
    assert_eq!(moving, Err(Refusal::NotQuiet { nodes: set(&[3]) }));
    let newest = Incarnation(1);
    assert_eq!(
        cold_start(&value, member(2, 1), everybody_quiet()),
        Err(Refusal::IncarnationUsed { member: member(2, 1), newest })
    );
    let value = cold_start(&value, me, everybody_quiet()).expect("legal");
    assert_eq!(value.members(), [me]);
    assert_eq!(value.administrator(), Some(me));
    assert_eq!(value.phase(), Phase::Fencing);
    let lives = [member(1, 1), member(2, 1), member(3, 1)];
    assert_eq!(value.victims(), lives.map(Victim::from));
    assert!(value.contains(me) && !value.contains(member(2, 1)));
}

#[test]
fn a_cold_start_takes_over_what_a_former_cluster_left_unrecovered() {
    let value = expelled(&three(), member(1, 1), &[3]);
    let value = cold_start(&value, member(3, 2), everybody_quiet()).expect("legal");
    assert_eq!(value.victims().len(), 3);
    assert_eq!(value.phase(), Phase::Fencing);
}

/// Whatever is asked for in whatever situation: nothing panics, incarnations never go back, and
/// who loses membership without leaving is a victim.
#[test]
fn random_changes_keep_the_value_sound() {
    let mut random = crate::random::Random::new(11);
    let mut made = 0;
    for _ in 0..300 {
        let mut value = RegVal::initial();
        for _ in 0..40 {
            let (change, leaves) = some_change(&value, &mut random);
            let Ok(next) = apply(&value, change) else { continue };
            made += 1;
            assert_eq!(next.generation().0, value.generation().0 + 1);
            for id in 1..=6 {
                let newest = value.newest_incarnation(node(id));
                assert!(next.newest_incarnation(node(id)) >= newest);
            }
            for member in value.members() {
                let victim = next.victims().iter().any(|victim| victim.includes(member));
                let left = leaves.contains(member.node);
                assert!(next.contains(member) || left || victim, "{member} is lost");
            }
            value = next;
        }
    }
    assert!(made > 1000, "{made}");
}

fn some_change(value: &RegVal, random: &mut crate::random::Random) -> (Change, NodeSet) {
    let mut pick = |bound: u64| u16::try_from(random.below(bound)).expect("small");
    let stranger = member(1 + pick(6), 1 + u32::from(pick(3)));
    let by = value.members().get(usize::from(pick(4))).copied().unwrap_or(stranger);
    let stale = u64::from(pick(10) == 0).min(value.generation().0);
    let expected = SanGeneration(value.generation().0 - stale);
    let node = node(1 + pick(6));
    let incarnation = Incarnation(value.newest_incarnation(node).0 + u32::from(pick(3)));
    let joiner = Member { node, incarnation };
    let leaves = set(&[1 + pick(6)]).intersection(value.member_nodes());
    let change = match pick(6) {
        0 => Change::TakeAdministration { by, expected },
        1 => Change::Fenced { by, expected, proofs: proofs(&value.victims()) },
        2 => Change::Recovered { by, expected },
        3 => Change::ColdStart(ColdStart { me: joiner, expected, quiet: everybody_quiet() }),
        _ => {
            let joins = if pick(2) == 0 { vec![joiner] } else { vec![] };
            let victims = NodeSet::from_bits(pick(64).into()).intersection(set(&[1 + pick(6)]));
            let administrator = NodeId::new(pick(7));
            let change = Regroup { by, expected, joins, leaves, victims, administrator };
            return (Change::Regroup(change), leaves);
        }
    };
    (change, NodeSet::EMPTY)
}
