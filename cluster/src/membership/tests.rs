//! The rules of proposals, views, joins and cold starts, one by one; here the situations they
//! are tried in.

mod agreement;
mod choice;
mod joining;
mod register;
mod rounds;

use mx_base::Duration;

use super::*;
use crate::heartbeat::{FOR_EVER, Flags};
use crate::register::{Phase, Regroup};
use crate::wire::OrderOutcome;

const UNIT: Unit = Unit::DEFAULT;

fn node(id: u16) -> NodeId {
    NodeId::new(id).expect("in range")
}

fn member(id: u16) -> Member {
    Member { node: node(id), incarnation: Incarnation(1) }
}

fn start(id: u16) -> StartNonce {
    StartNonce::new(u64::from(id) * 10).expect("not zero")
}

fn at(units: u32) -> Instant {
    Instant(1) + UNIT.times(units)
}

fn set(ids: &[u16]) -> NodeSet {
    ids.iter().copied().map(node).collect()
}

/// View 1, generation 1, administered by its first member.
fn value(ids: &[u16]) -> RegisterValue {
    let members: Vec<Member> = ids.iter().copied().map(member).collect();
    RegisterValue {
        generation: SanGeneration(1),
        view: ViewId(1),
        administrator: members.first().copied(),
        incarnations: members.iter().map(|m| (m.node, m.incarnation)).collect(),
        members,
        ..RegisterValue::initial()
    }
}

/// Node `me` acting in view 1 of `ids`.
fn acting(me: u16, ids: &[u16]) -> Membership {
    let mut membership = Membership::new(member(me), start(me), UNIT, 1, at(0));
    let starts = ids.iter().map(|id| (member(*id), start(*id))).collect();
    membership.install(member(me), value(ids), starts, None, at(0));
    membership.storage_ok = true;
    membership.effects.clear();
    membership
}

fn neighbour(id: u16, reach: &[u16], flags: Flags) -> Neighbour {
    let report = Ping {
        sequence: 1,
        view: ViewId(1),
        generation: SanGeneration(1),
        reach: set(reach),
        flags,
    };
    Neighbour {
        start: start(id),
        reached: true,
        gone: false,
        report: Some(report),
        missing: BTreeMap::new(),
    }
}

const WELL: Flags = Flags { member: true, storage_ok: true, leaving: false };

/// Everybody reaches everybody.
fn all_well(me: u16, ids: &[u16]) -> Neighbours {
    let peers = ids.iter().filter(|id| **id != me);
    peers.map(|id| (node(*id), neighbour(*id, ids, WELL))).collect()
}

fn silent(neighbours: &mut Neighbours, id: u16) {
    neighbours.get_mut(&node(id)).expect("a peer").reached = false;
}

fn gone(neighbours: &mut Neighbours, id: u16) {
    silent(neighbours, id);
    neighbours.get_mut(&node(id)).expect("a peer").gone = true;
}

fn sent(membership: &mut Membership) -> Vec<(NodeId, Control)> {
    let mut sent = Vec::new();
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Send { to, control } = effect {
            sent.push((to, control));
        }
    }
    sent
}

fn commits(membership: &mut Membership) -> Vec<Commit> {
    let mut commits = Vec::new();
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Commit(commit) = effect {
            commits.push(commit);
        }
    }
    commits
}

fn ended(membership: &mut Membership) -> Option<End> {
    let mut end = None;
    while let Some(effect) = membership.poll_effect() {
        if let Effect::Ended(ended) = effect {
            end = Some(ended);
        }
    }
    end
}

fn proposal(by: u16, base: RegisterValue, regroup: Regroup) -> Proposal {
    let after = regroup.members_after(&base);
    Proposal {
        round: RoundId { coordinator: member(by), number: 1 },
        base,
        regroup,
        starts: after.iter().map(|m| (*m, start(m.node.get()))).collect(),
    }
}

fn dropping(ids: &[u16]) -> Regroup {
    Regroup { victims: set(ids), ..Regroup::default() }
}

fn joining(id: u16) -> Regroup {
    Regroup { joins: vec![member(id)], ..Regroup::default() }
}

/// What `membership` answers to a proposal of node `from`.
fn answer(
    membership: &mut Membership,
    from: u16,
    proposal: Proposal,
    neighbours: &Neighbours,
) -> Option<Control> {
    membership.handle_control(node(from), Control::Propose(Box::new(proposal)), neighbours, at(1));
    sent(membership).pop().map(|(_, control)| control)
}

fn objection(control: Option<Control>) -> Objection {
    match control {
        Some(Control::Object { objection, .. }) => objection,
        other => panic!("an objection, not {other:?}"),
    }
}
