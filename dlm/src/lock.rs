//! Identity of a lock: whose it is, and which of its owner's.

use std::fmt;

use mx_base::Member;

/// One request or hold of this node on a resource; never used twice in one incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(pub u64);

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l{:x}", self.0)
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A lock as other nodes name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockRef {
    pub owner: Member,
    pub id: LockId,
}

impl fmt::Debug for LockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.id)
    }
}

/// Why a request or conversion ended without a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Denial {
    /// It asked not to be queued, and would have had to wait.
    WouldWait,
    /// Its owner cancelled it before it was granted.
    Cancelled,
    /// It would have had to wait, and as many of its owner wait at this home as may: to be asked
    /// for again when one of those has ended.
    TooManyWait,
}

/// Completion of a request or conversion (asynchronous system trap, in the words of VMS).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Ast {
    /// The lock is held in `mode` from now on. `value` is what the last holder of PW or EX left;
    /// `None` when nobody can vouch for it.
    Granted { mode: crate::Mode, value: Option<Box<crate::ValueBlock>> },
    /// Held as before; a lock that was never granted is gone.
    Denied(Denial),
}
