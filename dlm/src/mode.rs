//! The six lock modes of VMS, which of them go together, and which conversion is up or down.
//!
//! The tables are the whole rule: nothing else in the project decides whether two modes conflict.

use std::fmt;

/// How strongly a lock holds its resource.
///
/// Ordered by declaration for use as a table index only; strength is the partial order of
/// [`Mode::covers`] (CW and PR are not comparable).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Mode {
    /// Null: no access, keeps the place.
    #[default]
    NL = 0,
    /// Concurrent read: read while others may write.
    CR = 1,
    /// Concurrent write: write while others may write.
    CW = 2,
    /// Protected read: read while nobody writes.
    PR = 3,
    /// Protected write: the only writer, beside concurrent readers.
    PW = 4,
    /// Exclusive.
    EX = 5,
}

use Mode::{CR, CW, EX, NL, PR, PW};

/// `COMPATIBLE[a][b]`: may `a` and `b` be granted on one resource at once? (VMS table.)
const COMPATIBLE: [[bool; 6]; 6] = {
    const Y: bool = true;
    const N: bool = false;
    [
        //NL CR CW PR PW EX
        [Y, Y, Y, Y, Y, Y], // NL
        [Y, Y, Y, Y, Y, N], // CR
        [Y, Y, Y, N, N, N], // CW
        [Y, Y, N, Y, N, N], // PR
        [Y, Y, N, N, N, N], // PW
        [Y, N, N, N, N, N], // EX
    ]
};

/// `COVERS[a][b]`: does holding `a` allow everything that holding `b` allows? The conversion from
/// `a` to `b` is then downwards and always granted at once. (VMS conversion table.)
const COVERS: [[bool; 6]; 6] = {
    const Y: bool = true;
    const N: bool = false;
    [
        //NL CR CW PR PW EX
        [Y, N, N, N, N, N], // NL
        [Y, Y, N, N, N, N], // CR
        [Y, Y, Y, N, N, N], // CW
        [Y, Y, N, Y, N, N], // PR
        [Y, Y, Y, Y, Y, N], // PW
        [Y, Y, Y, Y, Y, Y], // EX
    ]
};

impl Mode {
    pub const ALL: [Mode; 6] = [NL, CR, CW, PR, PW, EX];

    /// May both be granted at once?
    pub const fn compatible(self, other: Mode) -> bool {
        COMPATIBLE[self as usize][other as usize]
    }

    /// Is everything that `other` allows allowed by `self`?
    pub const fn covers(self, other: Mode) -> bool {
        COVERS[self as usize][other as usize]
    }

    /// Does the mode allow changing what the resource protects?
    pub const fn writes(self) -> bool {
        matches!(self, CW | PW | EX)
    }

    /// The weakest mode that covers both.
    pub fn join(self, other: Mode) -> Mode {
        if self.covers(other) {
            self
        } else if other.covers(self) {
            other
        } else {
            // CW and PR are the only pair that neither covers.
            PW
        }
    }

    /// The strongest mode covered by `self` that is compatible with `wanted`: the least a holder
    /// has to give up. EX asked for PR keeps PR.
    pub fn least_surrender(self, wanted: Mode) -> Mode {
        [EX, PW, PR, CW, CR, NL]
            .into_iter()
            .find(|kept| self.covers(*kept) && kept.compatible(wanted))
            .unwrap_or(NL)
    }

    /// From a byte of a message or a word; `None` above 5.
    pub const fn from_u8(byte: u8) -> Option<Mode> {
        match byte {
            0 => Some(NL),
            1 => Some(CR),
            2 => Some(CW),
            3 => Some(PR),
            4 => Some(PW),
            5 => Some(EX),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NL => "NL",
            CR => "CR",
            CW => "CW",
            PR => "PR",
            PW => "PW",
            EX => "EX",
        })
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_is_symmetric_and_nl_goes_with_everything() {
        for a in Mode::ALL {
            assert!(a.compatible(NL));
            for b in Mode::ALL {
                assert_eq!(a.compatible(b), b.compatible(a), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_mode_that_covers_another_conflicts_with_all_that_the_other_conflicts_with() {
        for a in Mode::ALL {
            assert!(a.covers(a));
            for b in Mode::ALL {
                let implied = Mode::ALL.iter().all(|x| b.compatible(*x) || !a.compatible(*x));
                if a.covers(b) {
                    assert!(implied, "{a} covers {b}");
                }
                for c in Mode::ALL {
                    if a.covers(b) && b.covers(c) {
                        assert!(a.covers(c), "{a} {b} {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_least_surrender_satisfies_the_asker_and_keeps_what_it_can() {
        assert_eq!(EX.least_surrender(PR), PR);
        assert_eq!(EX.least_surrender(EX), NL);
        assert_eq!(EX.least_surrender(CR), PW);
        assert_eq!(PR.least_surrender(EX), NL);
        assert_eq!(CR.least_surrender(EX), NL);
        for held in Mode::ALL {
            for wanted in Mode::ALL {
                let kept = held.least_surrender(wanted);
                assert!(held.covers(kept) && kept.compatible(wanted));
            }
        }
    }
}
