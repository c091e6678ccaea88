//! Locks of ranges of files, each in write mode.
//!
//! Keeps true: no two owners have a range that overlaps. A range is unlocked as it was locked, which
//! is all that ping_pong needs.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

#[derive(Debug, PartialEq, Eq)]
struct Claim {
    node: u64,
    owner: u64,
    range: RangeInclusive<u64>,
}

impl Claim {
    fn excludes(&self, other: &Claim) -> bool {
        self.node == other.node
            && self.owner != other.owner
            && self.range.start() <= other.range.end()
            && other.range.start() <= self.range.end()
    }
}

/// What has come of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<R> {
    Had(R),
    Refused(R),
    /// It is answered when somebody else unlocks.
    Waits,
}

/// See the module. `R` answers a request.
#[derive(Debug)]
pub(super) struct Locks<R> {
    held: Vec<Claim>,
    waiting: VecDeque<(Claim, R)>,
}

impl<R> Default for Locks<R> {
    fn default() -> Locks<R> {
        Locks { held: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<R> Locks<R> {
    pub(super) fn lock(
        &mut self,
        node: u64,
        owner: u64,
        range: RangeInclusive<u64>,
        waits: bool,
        reply: R,
    ) -> Answer<R> {
        let claim = Claim { node, owner, range };
        if self.held.iter().all(|held| !held.excludes(&claim)) {
            self.held.push(claim);
            Answer::Had(reply)
        } else if waits {
            self.waiting.push_back((claim, reply));
            Answer::Waits
        } else {
            Answer::Refused(reply)
        }
    }

    /// Who has a lock now that waited.
    pub(super) fn unlock(&mut self, node: u64, owner: u64, range: RangeInclusive<u64>) -> Vec<R> {
        let gone = Claim { node, owner, range };
        self.held.retain(|held| *held != gone);
        let mut granted = Vec::new();
        for (claim, reply) in std::mem::take(&mut self.waiting) {
            match self.lock(claim.node, claim.owner, claim.range, true, reply) {
                Answer::Had(reply) | Answer::Refused(reply) => granted.push(reply),
                Answer::Waits => {}
            }
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_one_owners_until_it_is_unlocked_and_then_of_who_waited_first() {
        let mut locks = Locks::default();
        assert_eq!(locks.lock(1, 1, 0..=0, true, 'a'), Answer::Had('a'));
        assert_eq!(locks.lock(1, 2, 0..=0, false, 'b'), Answer::Refused('b'));
        assert_eq!(locks.lock(1, 2, 0..=0, true, 'c'), Answer::Waits);
        assert_eq!(locks.lock(1, 3, 0..=0, true, 'd'), Answer::Waits);
        assert_eq!(locks.lock(2, 3, 0..=0, true, 'e'), Answer::Had('e'), "another file");
        assert_eq!(locks.unlock(1, 1, 0..=0), ['c']);
        assert_eq!(locks.unlock(1, 2, 0..=0), ['d']);
    }
}
