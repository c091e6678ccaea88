//! The members that died, until nothing of them is left.

use std::collections::BTreeMap;

use mx_base::{Member, ViewId};

/// What is known about one dead member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dead {
    /// The first view without it.
    pub lost_in: ViewId,
    /// Its journal has been replayed, or nobody will: nothing it changed is still outstanding.
    pub recovered: bool,
    /// No process on its machine reads from what its kernel cached any more.
    pub caches_gone: bool,
}

impl Dead {
    pub(crate) fn new(lost_in: ViewId) -> Dead {
        Dead { lost_in, recovered: false, caches_gone: false }
    }

    /// Nothing of it is left; it can be forgotten.
    pub(crate) fn is_over(self) -> bool {
        self.recovered && self.caches_gone
    }
}

/// Every dead member of whom something is left.
pub(crate) type DeadTable = BTreeMap<Member, Dead>;
