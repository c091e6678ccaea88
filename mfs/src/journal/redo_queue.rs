//! In which order the locks of a dead member leave limbo.
//!
//! Keeps true: those that somebody waits for come first, also when they begin to wait during the
//! redo; a slot comes last, because whoever gets it takes its journal for replayed.

use std::collections::{BTreeSet, VecDeque};

use lcl::ResourceName;

use crate::locks::Resource;

/// The locks that are in limbo.
#[derive(Debug)]
pub(crate) struct RedoQueue {
    order: Vec<ResourceName>,
    /// Those that are in limbo still.
    pub(crate) names: BTreeSet<ResourceName>,
    /// Those with blocks that could not be written.
    pub(crate) unwritable: BTreeSet<ResourceName>,
    preferred: VecDeque<ResourceName>,
    rest: VecDeque<ResourceName>,
    /// Those that [`RedoQueue::next`] has not given yet.
    left: BTreeSet<ResourceName>,
}

impl RedoQueue {
    /// Of `order`, which those come first in that somebody waits for.
    pub(crate) fn new(order: Vec<ResourceName>) -> RedoQueue {
        let names = order.iter().copied().collect();
        let (preferred, rest, left) = (VecDeque::new(), VecDeque::new(), BTreeSet::new());
        RedoQueue { order, names, unwritable: BTreeSet::new(), preferred, rest, left }
    }

    /// Goes through all that are left, for one journal.
    pub(crate) fn begin(&mut self) {
        let is_slot =
            |name: &ResourceName| matches!(Resource::of_name(name), Some(Resource::Slot(_)));
        self.left = self.names.clone();
        self.preferred.clear();
        let (slots, others): (Vec<ResourceName>, Vec<ResourceName>) =
            self.order.iter().copied().partition(is_slot);
        self.rest = others.into_iter().chain(slots).collect();
    }

    /// Somebody has begun to wait for these.
    pub(crate) fn prefer(&mut self, names: Vec<ResourceName>) {
        self.preferred.extend(names);
    }

    pub(crate) fn next(&mut self) -> Option<ResourceName> {
        loop {
            let name = self.preferred.pop_front().or_else(|| self.rest.pop_front())?;
            if self.left.remove(&name) {
                return Some(name);
            }
        }
    }

    pub(crate) fn freed(&mut self, names: &[ResourceName]) {
        for name in names {
            self.names.remove(name);
        }
    }

    /// What all journals have been redone for and was not freed.
    pub(crate) fn rest(&self) -> Vec<ResourceName> {
        self.names.difference(&self.unwritable).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use mx_base::SlotId;

    use super::*;
    use crate::file::InodeNo;

    #[test]
    fn who_is_waited_for_comes_first_and_a_slot_last() {
        let inode = |n| Resource::Inode(InodeNo(n)).name();
        let slot = Resource::Slot(SlotId(1)).name();
        let mut queue = RedoQueue::new(vec![inode(9), slot, inode(1), inode(2), inode(3)]);
        queue.begin();
        assert_eq!(queue.next(), Some(inode(9)));
        queue.prefer(vec![inode(3), inode(9)]);
        let rest: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(rest, [inode(3), inode(1), inode(2), slot], "each once");
    }

    #[test]
    fn what_is_freed_or_unwritable_is_not_left() {
        let inode = |n| Resource::Inode(InodeNo(n)).name();
        let mut queue = RedoQueue::new(vec![inode(1), inode(2), inode(3)]);
        queue.freed(&[inode(1)]);
        queue.unwritable.insert(inode(2));
        assert_eq!(queue.rest(), [inode(3)]);
        queue.begin();
        let again: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(again, [inode(2), inode(3)]);
    }
}
