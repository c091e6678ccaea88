//! What must never be seen from outside, whatever the lock managers think: as the oracle of the
//! random histories (`tests/cluster/oracle.rs`), over states of this model; and what has to be seen
//! lest that prove nothing.

use dlm::Mode;

use crate::cluster::{Cluster, DeadMember, State, What, Who};
use crate::model::{Model, Sight};

/// Why somebody's mode on a resource counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    /// It acts, or may act, on what it holds.
    InUse,
    /// It died and is fenced; its changes may still have to be replayed, or its kernel may still
    /// serve what it read.
    Left,
}

type Used = Vec<(What, Who, Mode, Because)>;

fn used(model: &Model, cluster: &Cluster) -> Used {
    let mut used = Vec::new();
    for (who, node) in cluster.nodes.iter().enumerate() {
        let died = cluster.dead[who].as_ref();
        for (what, mode) in node.holdings() {
            match died {
                None if node.state == State::Stopped => {}
                Some(died) if died.is_fenced => {
                    if died.uncleared.contains(&what) && mode.writes() {
                        used.push((what, who, mode, Because::Left));
                    }
                    let is_cached = model.bounds.resources[what].is_cached && !died.caches_cut;
                    if is_cached && mode.covers(Mode::PR) {
                        used.push((what, who, Mode::PR, Because::Left));
                    }
                }
                // Whoever holds CR of a dead member's resource relies on nothing.
                Some(died) if died.lost_in.is_some() && matches!(mode, Mode::NL | Mode::CR) => {}
                None | Some(_) => used.push((what, who, mode, Because::InUse)),
            }
        }
    }
    used
}

/// Never two incompatible modes at once: not among nodes that act, whether or not the cluster still
/// counts them as members; not against what a dead node held in a writing mode, until that is
/// replayed; not against what its kernel caches, until that is gone.
pub(crate) fn modes_in_use_go_together(model: &Model, cluster: &Cluster) -> bool {
    let used = used(model, cluster);
    used.iter().enumerate().all(|(i, (what, who, mode, because))| {
        used[i + 1..].iter().all(|(other_what, other, beside, beside_because)| {
            // What one dead member left twice is no conflict.
            let both_act = (*because, *beside_because) == (Because::InUse, Because::InUse);
            what != other_what || (who == other && !both_act) || mode.compatible(*beside)
        })
    })
}

/// What a recoverer writes to nobody reads or writes meanwhile.
pub(crate) fn nobody_uses_what_is_redone(model: &Model, cluster: &Cluster) -> bool {
    let used = used(model, cluster);
    let redo = cluster.dead.iter().flatten().filter_map(|died| died.redo.as_ref()).flatten();
    redo.into_iter().all(|redone| {
        used.iter().all(|(what, who, mode, because)| {
            what != redone
                || *because != Because::InUse
                || !cluster.is_member(*who)
                || !mode.covers(Mode::PR)
        })
    })
}

/// Nothing is refused by a lock manager that another lock manager sent, and no assertion of theirs
/// fails, those of `check_invariants` included.
pub(crate) fn nothing_is_refused(_: &Model, cluster: &Cluster) -> bool {
    cluster.fault.is_none()
}

/// When nothing is on the way, nothing unanswered and nobody unrecovered: nobody waits, homes and
/// owners agree, and nothing is left of the dead.
pub(crate) fn at_rest_nobody_waits(model: &Model, cluster: &Cluster) -> bool {
    if cluster.fault.is_some() || !model.is_at_rest(cluster) {
        return true;
    }
    let mut at_home = Vec::new();
    let mut at_owner = Vec::new();
    for who in cluster.members() {
        let node = &cluster.nodes[who];
        let space = &node.space;
        let is_settled = node.state == State::Running
            && cluster.is_up_to_date(who)
            && node.locks.values().all(|lock| lock.asked.is_none() && lock.callout.is_none())
            && space.dead().count() == 0
            && space.early_count() == 0
            && space.unreported().is_empty()
            && space.recoveries().count() == 0;
        if !is_settled {
            return false;
        }
        for state in space.resources() {
            if !(state.remnants.is_empty()
                && state.waiting.is_empty()
                && state.converting.is_empty())
            {
                return false;
            }
            let granted = state.granted.iter();
            at_home.extend(granted.map(|held| (state.name, held.owner, held.lock, held.mode)));
        }
        let me = space.me();
        at_owner
            .extend(space.own_locks().filter_map(|own| Some((own.name, me, own.lock, own.held?))));
    }
    at_home.sort_unstable();
    at_owner.sort_unstable();
    let is_over = |died: &DeadMember| died.lost_in.is_some() && died.is_recovered;
    at_home == at_owner && cluster.dead.iter().flatten().all(is_over)
}

/// A conversion waits for its turn.
pub(crate) const CONVERTS: Sight = Sight {
    name: "a conversion waits",
    is_seen: |_, cluster| homes(cluster).any(|state| !state.converting.is_empty()),
};

/// Somebody waits because of what a dead member held.
pub(crate) const LIMBO: Sight = Sight {
    name: "somebody waits for limbo",
    is_seen: |_, cluster| {
        homes(cluster).any(|state| {
            state.remnants.iter().any(|remnant| remnant.is_limbo) && !state.waiting.is_empty()
        })
    },
};

/// Somebody waits because of what a dead member's kernel caches, though it is recovered.
pub(crate) const GHOST: Sight = Sight {
    name: "somebody waits for a ghost",
    is_seen: |_, cluster| {
        let is_recovered = cluster.dead.iter().flatten().any(|died| died.is_recovered);
        is_recovered
            && homes(cluster).any(|state| {
                state.remnants.iter().any(|remnant| !remnant.is_limbo) && !state.waiting.is_empty()
            })
    },
};

/// An heir holds back what it could not decide yet.
pub(crate) const REBUILT: Sight = Sight {
    name: "somebody waits for a rebuild",
    is_seen: |_, cluster| {
        homes(cluster).any(|state| !state.unreported.is_empty() && !state.waiting.is_empty())
    },
};

/// A message of a view not heard of yet is kept for it.
pub(crate) const EARLY: Sight = Sight {
    name: "a message comes early",
    is_seen: |_, cluster| cluster.nodes.iter().any(|node| node.space.early_count() > 0),
};

fn homes(cluster: &Cluster) -> impl Iterator<Item = dlm::explain::ResourceState> + '_ {
    cluster.members().flat_map(|who| cluster.nodes[who].space.resources())
}
