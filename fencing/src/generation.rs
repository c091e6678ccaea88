//! The generation: from which state of the cluster somebody acts (R7, R11).

use mx_base::{Member, SanGeneration};

use crate::reg_val::RegVal;

/// The register has another generation than the one that the change was meant for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the generation is {found:?}, the change was meant for {expected:?}", found = .found.0, expected = .expected.0)]
pub struct GenerationMoved {
    pub expected: SanGeneration,
    pub found: SanGeneration,
}

/// A change has effect only on the very state that its author acted in.
///
/// # Errors
/// When the register has moved on, or, after it was made anew, back.
pub fn expect(value: &RegVal, expected: SanGeneration) -> Result<(), GenerationMoved> {
    let found = value.generation();
    if found == expected { Ok(()) } else { Err(GenerationMoved { expected, found }) }
}

/// What a committed value says of one life of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member: it may use the shared storage.
    Member,
    /// It was a member or might have been, and is none any more: it must stop at once (R16).
    Expelled,
    /// It has not joined yet.
    Unknown,
}

/// The standing of `me` in `value`. A later life of the same node, or a newer incarnation, ends
/// this one.
pub fn standing(value: &RegVal, me: Member) -> Standing {
    if value.contains(me) {
        Standing::Member
    } else if value.newest_incarnation(me.node) < me.incarnation {
        Standing::Unknown
    } else {
        Standing::Expelled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_set::NodeSet;
    use crate::reg_val::Incarnations;
    use mx_base::{Incarnation, NodeId};

    #[test]
    fn a_life_that_is_not_a_member_any_more_is_expelled() {
        let node = NodeId::new(1).expect("in range");
        let life = |incarnation| Member { node, incarnation: Incarnation(incarnation) };
        let mut incarnations = [0; 64];
        incarnations[0] = 4;
        let mut value = RegVal {
            members: NodeSet::of(node),
            administrator: Some(life(4)),
            incarnations: Incarnations::from_array(incarnations),
            ..RegVal::initial()
        };
        assert_eq!(standing(&value, life(5)), Standing::Unknown);
        assert_eq!(standing(&value, life(4)), Standing::Member);
        assert_eq!(standing(&value, life(3)), Standing::Expelled);
        value.members = NodeSet::EMPTY;
        value.administrator = None;
        assert_eq!(standing(&value, life(4)), Standing::Expelled);
    }
}
