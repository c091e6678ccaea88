//! The register's values and changes, between the crate that keeps them and the one that decides
//! on them.

use std::collections::BTreeMap;

use fencing::administrator::{ColdStart, Regroup};
use fencing::heartbeat::{Observer, Quiet};
use fencing::{FenceProof, RegVal};
use mx_base::{Member, NodeId, SanGeneration};

/// What the register says, as the cluster knows it.
pub(crate) fn value_of(value: &RegVal) -> cluster::RegisterValue {
    let victims = value.victims().into_iter().map(|victim| (victim.node, victim.up_to));
    let newest = |node| (node, value.newest_incarnation(node));
    let nodes = (1..=NodeId::MAX).filter_map(NodeId::new);
    cluster::RegisterValue {
        generation: value.generation(),
        view: value.view_id(),
        phase: match value.phase() {
            fencing::Phase::Stable => cluster::Phase::Stable,
            fencing::Phase::Fencing => cluster::Phase::Fencing,
            fencing::Phase::Fenced => cluster::Phase::Fenced,
            fencing::Phase::Recovered => cluster::Phase::Recovered,
        },
        administrator: value.administrator(),
        members: value.members(),
        victims: victims.collect(),
        incarnations: nodes.map(newest).filter(|(_, life)| life.0 != 0).collect::<BTreeMap<_, _>>(),
    }
}

/// What the proofs and watches are taken from when a change needs them.
pub(crate) struct Evidence<'a> {
    pub(crate) me: Member,
    /// The value that the change is meant for, as far as it is known here.
    pub(crate) known: Option<&'a cluster::RegisterValue>,
    pub(crate) proofs: Vec<FenceProof>,
    pub(crate) quiet: Quiet,
}

/// A change in the words of the register.
pub(crate) fn change_of(
    change: &cluster::Change,
    expected: SanGeneration,
    evidence: Evidence<'_>,
) -> fencing::Change {
    let by = evidence.me;
    match change {
        cluster::Change::Regroup(regroup) => {
            let leaves: fencing::NodeSet = regroup.leaves.iter().collect();
            let stays = !leaves.contains(by.node);
            let others = evidence.known.map(|known| regroup.members_after(known));
            let lowest = others.and_then(|after| after.first().map(|member| member.node));
            fencing::Change::Regroup(Regroup {
                by,
                expected,
                joins: regroup.joins.clone(),
                leaves,
                victims: regroup.victims.iter().collect(),
                administrator: if stays { Some(by.node) } else { lowest },
            })
        }
        cluster::Change::Fenced => {
            fencing::Change::Fenced { by, expected, proofs: evidence.proofs }
        }
        cluster::Change::Recovered => fencing::Change::Recovered { by, expected },
        cluster::Change::ColdStart { me } => {
            fencing::Change::ColdStart(ColdStart { me: *me, expected, quiet: evidence.quiet })
        }
    }
}

/// The nodes that have been still for as long as a cold start asks for.
pub(crate) fn quiet(observer: &Observer, unit: mx_base::Duration) -> Quiet {
    observer.quiet(unit * COLD_WATCH)
}

/// Units (R11).
const COLD_WATCH: u32 = 8;
