//! What a dead member holds, or may hold, on one resource.
//!
//! Keeps true: a remnant forbids every grant that one of its modes forbids. Its writing modes (the
//! resource is in *limbo*) go when the resource has been replayed or is known to need no replay.
//! What remains of PR, PW and EX then, where [`Lingers`] says so, is the *ghost* of a PR, because
//! the dead member's kernel may go on serving what it cached; the ghost goes when those caches are
//! known to be gone. Elsewhere nothing remains: the member itself can neither read nor write the
//! storage by then, and its processes are answered nothing under such a lock alone.

use mx_base::Member;

use super::dead::Dead;
use crate::mode::Mode;
use crate::mode_set::ModeSet;
use crate::name::ResourceName;

/// Does a kernel cache what the lock of this name protects, and serve it without asking? Fixed for
/// the life of a cluster, and the same on every node.
pub type Lingers = fn(&ResourceName) -> bool;

/// The modes in which one dead member may still stand in the way. CR and NL never do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Remnant {
    pub(crate) dead: Member,
    pub(crate) modes: ModeSet,
}

const RELEVANT: ModeSet = ModeSet::WRITING.union(ModeSet::PROTECTED);

impl Remnant {
    /// Of a member that held `modes`, as far as the facts about it leave them in force.
    pub(crate) fn known(dead: Member, modes: ModeSet, facts: Dead, lingers: bool) -> Remnant {
        let irrelevant = ModeSet::EMPTY.with(Mode::NL).with(Mode::CR);
        let mut remnant = Remnant { dead, modes: modes.without(irrelevant) };
        if facts.recovered {
            remnant.free(lingers && !facts.caches_gone);
        }
        if facts.caches_gone {
            remnant.end_ghost();
        }
        remnant
    }

    /// Of a member that may have held anything, on names that linger. [`Remnant::on`] is what that
    /// is for one name.
    pub(crate) fn unknown(dead: Member, facts: Dead) -> Remnant {
        Remnant::known(dead, RELEVANT, facts, true)
    }

    /// Of what is unknown for a bucket, what stands on a resource that `lingers` or does not.
    pub(crate) fn on(self, lingers: bool) -> Option<Remnant> {
        (self.is_limbo() || lingers).then_some(self)
    }

    pub(crate) fn blocks(self, wanted: Mode) -> bool {
        self.modes.blocks(wanted)
    }

    pub(crate) fn is_limbo(self) -> bool {
        self.modes.intersects(ModeSet::WRITING)
    }

    pub(crate) fn is_over(self) -> bool {
        self.modes.is_empty()
    }

    /// A survivor held `held` while the dead member lived: the dead held nothing that conflicts.
    pub(crate) fn narrow(&mut self, held: Mode) {
        self.modes = self.modes.compatible_with(held);
    }

    /// Nothing of the resource is left to replay; what was read of it may still be `cached`.
    pub(crate) fn free(&mut self, cached: bool) {
        let read_too = self.modes.intersects(ModeSet::PROTECTED);
        self.modes =
            if read_too && cached { ModeSet::EMPTY.with(Mode::PR) } else { ModeSet::EMPTY };
    }

    /// The caches of the dead member are gone; what it may have changed is still outstanding.
    pub(crate) fn end_ghost(&mut self) {
        self.modes = self.modes.without(ModeSet::EMPTY.with(Mode::PR));
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId, ViewId};

    use super::*;

    fn held(modes: ModeSet) -> Remnant {
        Remnant::known(dead(), modes, Dead::new(ViewId(2)), true)
    }

    fn dead() -> Member {
        Member { node: NodeId::new(3).expect("in range"), incarnation: Incarnation(1) }
    }

    #[test]
    fn ex_of_the_dead_leaves_a_ghost_when_it_is_freed_before_the_caches_are_gone() {
        let mut remnant = held(ModeSet::EMPTY.with(Mode::EX));
        assert!(remnant.is_limbo() && remnant.blocks(Mode::CR));
        remnant.free(true);
        assert!(!remnant.is_limbo() && !remnant.blocks(Mode::PR) && remnant.blocks(Mode::EX));
        remnant.end_ghost();
        assert!(remnant.is_over());
    }

    #[test]
    fn limbo_outlasts_the_caches() {
        let mut remnant = held(ModeSet::EMPTY.with(Mode::EX));
        remnant.end_ghost();
        assert!(remnant.is_limbo() && remnant.blocks(Mode::CR));
        remnant.free(false);
        assert!(remnant.is_over());
    }

    #[test]
    fn what_no_kernel_caches_leaves_no_ghost() {
        for mode in [Mode::PR, Mode::PW, Mode::EX] {
            let mut remnant = held(ModeSet::EMPTY.with(mode));
            assert!(remnant.blocks(Mode::EX), "until it is freed");
            remnant.free(false);
            assert!(remnant.is_over(), "{mode:?}");
        }
        let recovered = Dead { lost_in: ViewId(2), recovered: true, caches_gone: false };
        let unknown = Remnant::unknown(dead(), recovered);
        assert!(unknown.on(true).is_some_and(|remnant| remnant.blocks(Mode::EX)));
        assert_eq!(unknown.on(false), None);
        let outstanding = Remnant::unknown(dead(), Dead::new(ViewId(2)));
        assert_eq!(outstanding.on(false), Some(outstanding));
    }

    #[test]
    fn cr_and_nl_of_the_dead_go_at_once_and_cw_leaves_no_ghost() {
        assert!(held(ModeSet::EMPTY.with(Mode::CR).with(Mode::NL)).is_over());
        let mut remnant = held(ModeSet::EMPTY.with(Mode::CW));
        remnant.free(true);
        assert!(remnant.is_over());
    }

    #[test]
    fn what_is_unknown_shrinks_by_what_is_known_of_the_dead() {
        let facts = |recovered, caches_gone| Dead { lost_in: ViewId(2), recovered, caches_gone };
        let unknown = |facts| Remnant::unknown(dead(), facts).modes;
        assert_eq!(unknown(facts(false, false)), RELEVANT);
        assert_eq!(unknown(facts(false, true)), ModeSet::WRITING);
        assert_eq!(unknown(facts(true, false)), ModeSet::EMPTY.with(Mode::PR));
        assert_eq!(unknown(facts(true, true)), ModeSet::EMPTY);
    }
}
