//! Which lives of the nodes may write: the rule that everything in the server asks.
//!
//! Keeps true: `min` and `newest` of a node only grow; so a life that was fenced is never let in
//! again, and an incarnation belongs for ever to the start that registered it first.

use mx_base::{Incarnation, Member, NodeId};

use fencing::Victim;

use crate::arbiter::protocol::HelloRefusal;

/// What is known of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct NodeEntry {
    /// Lives below it are fenced.
    pub(super) min: u32,
    /// The newest life that has registered, and the nonce of the start that did.
    pub(super) newest: u32,
    pub(super) nonce: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FenceTable {
    entries: [NodeEntry; NodeId::MAX as usize],
    /// Grows with every change, for knowing when a change is on disk.
    version: u64,
}

/// What registering a life would mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Registration {
    New,
    /// The same start has registered it before.
    Known,
}

impl FenceTable {
    pub(super) fn new(entries: [NodeEntry; NodeId::MAX as usize]) -> FenceTable {
        FenceTable { entries, version: 0 }
    }

    pub(super) fn entries(&self) -> &[NodeEntry; NodeId::MAX as usize] {
        &self.entries
    }

    pub(super) fn entry(&self, node: NodeId) -> NodeEntry {
        self.entries[node.index()]
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// May this life do I/O?
    pub(super) fn admits(&self, member: Member) -> bool {
        member.incarnation.0 >= self.entry(member.node).min
    }

    /// May this start register this life?
    pub(super) fn judge(&self, member: Member, nonce: u64) -> Result<Registration, HelloRefusal> {
        let entry = self.entry(member.node);
        if !self.admits(member) {
            return Err(HelloRefusal::Fenced);
        }
        match member.incarnation.0.cmp(&entry.newest) {
            std::cmp::Ordering::Less => Err(HelloRefusal::Superseded),
            std::cmp::Ordering::Greater => Ok(Registration::New),
            std::cmp::Ordering::Equal if entry.nonce == nonce => Ok(Registration::Known),
            std::cmp::Ordering::Equal => Err(HelloRefusal::InUse),
        }
    }

    /// # Panics
    /// When [`FenceTable::judge`] refuses it.
    pub(super) fn register(&mut self, member: Member, nonce: u64) {
        let judged = self.judge(member, nonce);
        assert!(judged.is_ok(), "{member} is judged before it is registered");
        if judged == Ok(Registration::New) {
            let entry = &mut self.entries[member.node.index()];
            entry.newest = member.incarnation.0;
            entry.nonce = nonce;
            self.version += 1;
        }
    }

    /// From now on no life of the victim is admitted.
    pub(super) fn fence(&mut self, victim: Victim) {
        let entry = &mut self.entries[victim.node.index()];
        let Incarnation(up_to) = victim.up_to;
        let min = up_to.checked_add(1).expect("the last number is refused when a request is read");
        if entry.min < min {
            entry.min = min;
            self.version += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(incarnation: u32) -> Member {
        let node = NodeId::new(3).expect("in range");
        Member { node, incarnation: Incarnation(incarnation) }
    }

    fn table() -> FenceTable {
        FenceTable::new([NodeEntry::default(); 64])
    }

    #[test]
    fn a_fenced_life_is_never_admitted_again_and_a_later_one_is() {
        let mut table = table();
        table.register(member(4), 1);
        table.fence(Victim::from(member(4)));
        assert!(!table.admits(member(4)) && table.admits(member(5)));
        assert_eq!(table.judge(member(4), 1), Err(HelloRefusal::Fenced));
        table.fence(Victim::from(member(2)));
        assert!(!table.admits(member(4)), "fencing an earlier life takes nothing back");
        assert_eq!(table.judge(member(5), 2), Ok(Registration::New));
    }

    #[test]
    fn a_life_may_be_fenced_before_it_was_ever_seen() {
        let mut table = table();
        table.fence(Victim::from(member(9)));
        assert_eq!(table.judge(member(9), 1), Err(HelloRefusal::Fenced));
    }

    #[test]
    fn an_incarnation_belongs_to_the_start_that_registered_it_first() {
        let mut table = table();
        table.register(member(4), 1);
        assert_eq!(table.judge(member(4), 1), Ok(Registration::Known));
        assert_eq!(table.judge(member(4), 2), Err(HelloRefusal::InUse));
        table.register(member(5), 2);
        assert_eq!(table.judge(member(4), 1), Err(HelloRefusal::Superseded));
        assert!(table.admits(member(4)), "its open sessions go on until it is fenced");
    }

    #[test]
    fn only_changes_make_a_new_version() {
        let mut table = table();
        table.register(member(4), 1);
        table.fence(Victim::from(member(3)));
        let version = table.version();
        table.register(member(4), 1);
        table.fence(Victim::from(member(3)));
        assert_eq!(table.version(), version);
    }
}
