//! The reference for lock modes: who may hold what beside whom, and a judge of what is held.
//!
//! Written from the meaning of the modes (what the holder does, what it lets others do) and not
//! from a table, so that it cannot share a slip of the pen with the lock manager.

use std::collections::BTreeMap;
use std::fmt;

use mx_base::Member;

/// The modes of the VMS lock manager.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Mode {
    #[default]
    NL,
    CR,
    CW,
    PR,
    PW,
    EX,
}

/// Reading and writing, by the holder or by others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rights {
    read: bool,
    write: bool,
}

impl Rights {
    fn within(self, allowed: Rights) -> bool {
        (!self.read || allowed.read) && (!self.write || allowed.write)
    }
}

impl Mode {
    pub const ALL: [Mode; 6] = [Mode::NL, Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX];

    /// What the holder may do.
    fn does(self) -> Rights {
        match self {
            Mode::NL => Rights { read: false, write: false },
            Mode::CR | Mode::PR => Rights { read: true, write: false },
            Mode::CW | Mode::PW | Mode::EX => Rights { read: true, write: true },
        }
    }

    /// What the holder lets others do at the same time.
    fn lets(self) -> Rights {
        match self {
            Mode::NL | Mode::CR | Mode::CW => Rights { read: true, write: true },
            Mode::PR | Mode::PW => Rights { read: true, write: false },
            Mode::EX => Rights { read: false, write: false },
        }
    }

    /// May two holders have these modes on one resource at once?
    pub fn goes_with(self, other: Mode) -> bool {
        self.does().within(other.lets()) && other.does().within(self.lets())
    }
}

/// Two members could use modes that exclude each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    pub resource: Vec<u8>,
    /// Whose mode was raised last.
    pub holder: Member,
    pub mode: Mode,
    pub other: Member,
    pub other_mode: Mode,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict { resource, holder, mode, other, other_mode } = self;
        let resource = resource.escape_ascii();
        write!(f, "{resource}: {holder} may use {mode:?} while {other} may use {other_mode:?}")
    }
}

impl std::error::Error for Conflict {}

/// What every member may use at this moment, fed with the moments at which that changes.
///
/// A mode counts as lowered from the moment its holder sends that it lowers, and as raised from
/// the moment the holder has received the grant (I6).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holds {
    modes: BTreeMap<Vec<u8>, BTreeMap<Member, Mode>>,
}

impl Holds {
    pub fn new() -> Holds {
        Holds::default()
    }

    /// From now on `holder` may use `mode` on `resource`; [`Mode::NL`] is a release.
    ///
    /// # Errors
    /// The first member that may use a mode which does not go with it. The hold is recorded all
    /// the same, so that a run can go on after the alarm.
    pub fn set(&mut self, resource: &[u8], holder: Member, mode: Mode) -> Result<(), Conflict> {
        let holders = self.modes.entry(resource.to_vec()).or_default();
        if mode == Mode::NL {
            holders.remove(&holder);
            if holders.is_empty() {
                self.modes.remove(resource);
            }
            return Ok(());
        }
        holders.insert(holder, mode);
        let conflicting =
            holders.iter().find(|(other, held)| **other != holder && !held.goes_with(mode));
        match conflicting {
            None => Ok(()),
            Some((other, held)) => Err(Conflict {
                resource: resource.to_vec(),
                holder,
                mode,
                other: *other,
                other_mode: *held,
            }),
        }
    }

    /// `holder` is proven fenced and its caches are gone, or it left: nothing it held counts.
    pub fn end(&mut self, holder: Member) {
        self.modes.retain(|_, holders| {
            holders.remove(&holder);
            !holders.is_empty()
        });
    }

    pub fn mode(&self, resource: &[u8], holder: Member) -> Mode {
        self.modes.get(resource).and_then(|h| h.get(&holder)).copied().unwrap_or_default()
    }

    /// Everything held in a mode other than NL, by resource, then member.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Member, Mode)> {
        self.modes.iter().flat_map(|(resource, holders)| {
            holders.iter().map(move |(holder, mode)| (resource.as_slice(), *holder, *mode))
        })
    }
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;

    /// The table of the VMS manual, row by row.
    #[test]
    fn the_meaning_of_the_modes_gives_the_table_of_vms() {
        let rows = ["YYYYYY", "YYYYYN", "YYYNNN", "YYNYNN", "YYNNNN", "YNNNNN"];
        for (a, row) in Mode::ALL.into_iter().zip(rows) {
            for (b, expected) in Mode::ALL.into_iter().zip(row.chars()) {
                assert_eq!(a.goes_with(b), expected == 'Y', "{a:?} beside {b:?}");
            }
        }
    }

    #[test]
    fn two_who_may_write_at_once_are_named() {
        let mut holds = Holds::new();
        holds.set(b"inode 7", member(1), Mode::EX).expect("alone");
        let conflict = holds.set(b"inode 7", member(2), Mode::PR).expect_err("beside EX");
        assert_eq!(conflict.to_string(), "inode 7: n2.1 may use PR while n1.1 may use EX");
        assert_eq!(holds.mode(b"inode 7", member(2)), Mode::PR);
    }

    #[test]
    fn a_lowered_mode_makes_room_and_so_does_the_end_of_a_holder() {
        let mut holds = Holds::new();
        holds.set(b"r", member(1), Mode::EX).expect("alone");
        holds.set(b"r", member(1), Mode::PR).expect("lowered");
        holds.set(b"r", member(2), Mode::PR).expect("readers share");
        holds.end(member(1));
        holds.set(b"r", member(2), Mode::EX).expect("alone again");
        holds.set(b"r", member(2), Mode::NL).expect("a release");
        assert_eq!(holds.iter().count(), 0);
    }

    #[test]
    fn resources_do_not_see_each_other() {
        let mut holds = Holds::new();
        holds.set(b"a", member(1), Mode::EX).expect("alone");
        holds.set(b"b", member(2), Mode::EX).expect("another resource");
        assert_eq!(holds.iter().count(), 2);
    }

    fn member(node: u16) -> Member {
        let node = NodeId::new(node).expect("a node id between 1 and 64");
        Member { node, incarnation: Incarnation(1) }
    }
}
