//! What must never be seen from outside, whatever the lock managers think.

use std::collections::BTreeMap;

use dlm::{BucketName, LockId, Mode};
use mx_base::Member;

use crate::world::{State, World, holdings, lingers};

/// Why somebody's mode on a resource counts.
#[derive(Clone, Copy, Debug)]
enum Because {
    /// It acts, or may act, on what it holds.
    InUse,
    /// It died and is fenced; its changes may still have to be replayed.
    Unreplayed,
    /// It died and is fenced; its kernel may still serve what it read.
    Cached,
}

/// Never two incompatible modes at once: not among nodes that act, whether or not the cluster still
/// counts them as members; not against what a dead node held in a writing mode, until that is
/// replayed; not against what its kernel caches, until that is gone.
pub(crate) fn check_usable_modes(world: &World) {
    let mut by_resource: BTreeMap<BucketName, Vec<(Member, Mode, Because)>> = BTreeMap::new();
    for (member, node) in &world.nodes {
        let died = world.dead.get(member);
        for (at, mode) in holdings(node) {
            let used = by_resource.entry(at).or_default();
            match died {
                None if node.state == State::Stopped => {}
                Some(died) if died.is_fenced => {
                    if died.uncleared.contains(&at) && mode.writes() {
                        used.push((*member, mode, Because::Unreplayed));
                    }
                    if !died.caches_cut && mode.covers(Mode::PR) && lingers(&at.name) {
                        used.push((*member, Mode::PR, Because::Cached));
                    }
                }
                // Whoever holds CR of a dead member's resource relies on nothing.
                Some(died) if died.lost_in.is_some() && matches!(mode, Mode::NL | Mode::CR) => {}
                None | Some(_) => used.push((*member, mode, Because::InUse)),
            }
        }
    }
    for (at, used) in &by_resource {
        for (i, (one, mode, because)) in used.iter().enumerate() {
            for (other, beside, beside_because) in &used[i + 1..] {
                // What one dead member left twice is no conflict.
                let both_act =
                    matches!((because, beside_because), (Because::InUse, Because::InUse));
                assert!(
                    (one == other && !both_act) || mode.compatible(*beside),
                    "{at:?}: {one} has {mode} ({because:?}), {other} has {beside} \
                     ({beside_because:?})"
                );
            }
        }
    }
    check_redo(world, &by_resource);
}

/// What a recoverer writes to nobody reads or writes meanwhile.
fn check_redo(world: &World, used: &BTreeMap<BucketName, Vec<(Member, Mode, Because)>>) {
    for (dead, died) in &world.dead {
        for at in died.redo.iter().flatten() {
            for (member, mode, because) in used.get(at).into_iter().flatten() {
                let disturbs = matches!(because, Because::InUse)
                    && world.is_member(*member)
                    && mode.covers(Mode::PR);
                assert!(!disturbs, "{at:?} of {dead} is redone while {member} has {mode}");
            }
        }
    }
}

type HeldAndWanted = (Option<Mode>, Option<Mode>);

/// When nothing is on the way any more, homes and owners agree, and nothing is left of the dead.
pub(crate) fn check_quiet(world: &World) {
    let mut at_home: BTreeMap<(BucketName, Member, LockId), HeldAndWanted> = BTreeMap::new();
    let mut at_owner = BTreeMap::new();
    for member in world.newest().view.members() {
        let space = &world.nodes[member].space;
        space.check_invariants();
        assert_eq!(space.dead().count(), 0, "nothing is left of the dead at {member}");
        assert_eq!(space.early_count(), 0, "{member} keeps nothing for later");
        assert!(space.unreported().is_empty(), "{member} has rebuilt");
        assert_eq!(space.recoveries().count(), 0, "{member} recovers nobody");
        for state in space.resources() {
            let at = BucketName { bucket: state.bucket, name: state.name };
            assert!(state.remnants.is_empty(), "{at:?} is nobody's remnant");
            for holder in &state.granted {
                at_home.entry((at, holder.owner, holder.lock)).or_default().0 = Some(holder.mode);
            }
            for waiter in state.converting.iter().chain(&state.waiting) {
                at_home.entry((at, waiter.owner, waiter.lock)).or_default().1 = Some(waiter.wanted);
            }
        }
        for own in space.own_locks() {
            let at = BucketName { bucket: own.bucket, name: own.name };
            at_owner.insert((at, *member, own.lock), (own.held, own.wanted));
        }
    }
    assert_eq!(at_home, at_owner, "homes and owners agree");
}
