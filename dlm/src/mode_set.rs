//! A set of modes: what a member whose holdings are not known exactly may have held.

use std::fmt;

use crate::mode::Mode;

/// Some of the six modes, in one byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ModeSet(u8);

impl ModeSet {
    pub const EMPTY: ModeSet = ModeSet(0);

    /// The modes that allow changing what the resource protects.
    pub const WRITING: ModeSet = ModeSet::EMPTY.with(Mode::CW).with(Mode::PW).with(Mode::EX);

    /// The modes whose holder may rely on what it has read until it gives the mode up.
    pub const PROTECTED: ModeSet = ModeSet::EMPTY.with(Mode::PR).with(Mode::PW).with(Mode::EX);

    #[must_use]
    pub const fn with(self, mode: Mode) -> ModeSet {
        ModeSet(self.0 | 1 << mode as u8)
    }

    #[must_use]
    pub const fn without(self, modes: ModeSet) -> ModeSet {
        ModeSet(self.0 & !modes.0)
    }

    #[must_use]
    pub const fn union(self, other: ModeSet) -> ModeSet {
        ModeSet(self.0 | other.0)
    }

    pub const fn contains(self, mode: Mode) -> bool {
        self.0 & 1 << mode as u8 != 0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub const fn intersects(self, other: ModeSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that may be granted beside `held`.
    #[must_use]
    pub const fn compatible_with(self, held: Mode) -> ModeSet {
        ModeSet(self.0 & COMPATIBLE[held as usize].0)
    }

    /// Does some mode of the set forbid granting `wanted`?
    pub const fn blocks(self, wanted: Mode) -> bool {
        self.0 & !COMPATIBLE[wanted as usize].0 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Mode> {
        Mode::ALL.into_iter().filter(move |mode| self.contains(*mode))
    }
}

/// For each mode those that may be granted beside it.
const COMPATIBLE: [ModeSet; 6] = {
    let mut table = [ModeSet::EMPTY; 6];
    let mut i = 0;
    while i < 36 {
        let (one, other) = (Mode::ALL[i / 6], Mode::ALL[i % 6]);
        if one.compatible(other) {
            table[i / 6] = table[i / 6].with(other);
        }
        i += 1;
    }
    table
};

impl fmt::Debug for ModeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, mode) in self.iter().enumerate() {
            write!(f, "{}{mode}", if i == 0 { "" } else { " " })?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_survivor_holds_rules_out_what_the_dead_may_have_held() {
        let any = ModeSet::WRITING.union(ModeSet::PROTECTED);
        assert!(any.compatible_with(Mode::EX).is_empty());
        assert_eq!(any.compatible_with(Mode::PR), ModeSet::EMPTY.with(Mode::PR));
        assert!(!any.compatible_with(Mode::PR).intersects(ModeSet::WRITING));
        assert_eq!(
            any.compatible_with(Mode::CR),
            ModeSet::EMPTY.with(Mode::CW).with(Mode::PR).with(Mode::PW)
        );
    }

    #[test]
    fn a_set_blocks_what_one_of_its_modes_does_not_go_with() {
        assert!(!ModeSet::EMPTY.blocks(Mode::EX));
        let readers = ModeSet::EMPTY.with(Mode::PR);
        assert!(readers.blocks(Mode::EX) && readers.blocks(Mode::CW) && !readers.blocks(Mode::PR));
        assert!(ModeSet::WRITING.blocks(Mode::CR) && !ModeSet::WRITING.blocks(Mode::NL));
    }
}
