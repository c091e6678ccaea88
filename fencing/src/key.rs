//! The reservation key: by it the storage side tells the lives of the nodes apart (R1).

use std::fmt;

use mx_base::{Incarnation, Member, NodeId};

/// Magic in the high 16 bits, node id in the next 16, incarnation in the low 32. Never zero, and
/// never used twice, because an incarnation never is: a stale session cannot look registered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Member);

const MAGIC: u64 = 0x4D58; // "MX"

impl Key {
    /// # Panics
    /// For incarnation 0, which no life has, and for the last number, after which none could come.
    pub fn of(member: Member) -> Key {
        assert!(is_life(member.incarnation), "no life has incarnation {}", member.incarnation);
        Key(member)
    }

    /// `None` when it is no key of ours: other magic, a node id out of range, or an incarnation
    /// that no life has.
    pub fn from_u64(bits: u64) -> Option<Key> {
        let node = NodeId::new(u16::try_from(bits >> 32 & 0xFFFF).ok()?)?;
        let incarnation = Incarnation(u32::try_from(bits & 0xFFFF_FFFF).ok()?);
        (bits >> 48 == MAGIC && is_life(incarnation)).then_some(Key(Member { node, incarnation }))
    }

    pub fn to_u64(self) -> u64 {
        MAGIC << 48 | u64::from(self.0.node.get()) << 32 | u64::from(self.0.incarnation.0)
    }

    pub const fn member(self) -> Member {
        self.0
    }
}

/// Fencing a life means letting in only later ones, so the last number is not used.
pub(crate) const fn is_life(incarnation: Incarnation) -> bool {
    incarnation.0 != 0 && incarnation.0 != u32::MAX
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.to_u64())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_foreign_ones_are_refused() {
        let member = Member {
            node: NodeId::new(7).expect("in range"),
            incarnation: Incarnation(0x0102_0304),
        };
        let bits = Key::of(member).to_u64();
        assert_eq!(bits, 0x4D58_0007_0102_0304);
        assert_eq!(Key::from_u64(bits).map(Key::member), Some(member));
        let (no_node, node_65) = (0x4D58_0000_0000_0001, 0x4D58_0041_0000_0001);
        let (no_life, last_number) = (0x4D58_0001_0000_0000, 0x4D58_0001_FFFF_FFFF);
        for foreign in [0, 1, no_node, node_65, no_life, last_number] {
            assert_eq!(Key::from_u64(foreign), None, "{foreign:#x}");
        }
    }
}
