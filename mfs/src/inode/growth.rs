//! How many nodes an extent tree may take to map what is dirty: the promise that a write needs beside
//! that of its data.
//!
//! Keeps true: whenever a write is answered, the inode has promises for every node that mapping all
//! its dirty pages that are not mapped, or mapped and never written, can take from then on, whatever
//! the free space looks like. Each node taken uses one of them up, so that stays so until the next
//! write. What is too much comes back with the next flush.

use std::sync::Arc;

use super::pages::Growth;
use super::{Core, Inode, State};
use crate::alloc::claim::Use;
use crate::error::FsError;
use crate::fs::Fs;

/// Nodes that may be taken, at most, to map so much in the tree of `core`.
///
/// A page is an extent of its own at worst, and two more entries for a moment while it is marked
/// written. A node that splits is at least half full behind it: beyond one split of each node that
/// was full, on each level, in the at most two leaves that a run of pages ends in, it takes 42 pages
/// to split one, and the leaves that lie inside of a run have as many pages. The root goes into
/// nodes of its own, two, and again only when those have split that often.
pub(crate) fn nodes_at_most(core: &Core, growth: Growth) -> u64 {
    let Growth { pages, runs } = growth;
    if pages == 0 {
        return 0;
    }
    let depth = u64::from(core.attributes.depth);
    let in_root = u64::from(core.attributes.root_count.get()) + 2 * pages + 2;
    if depth == 0 && in_root <= core.attributes.root_entries_max() as u64 {
        return 0;
    }
    4 + depth * pages.min(2 * runs) + pages.div_ceil(20)
}

impl Fs {
    /// Promises an inode the nodes that so many new entries of its tree can take. Nothing of it is dirty;
    /// [`Fs::trim_nodes`] gives back what is left.
    pub(crate) async fn promise_nodes(
        &self,
        inode: &Arc<Inode>,
        entries: u64,
    ) -> Result<(), FsError> {
        let growth = Growth { pages: entries, runs: entries };
        let (needed, have) = {
            let state = inode.state.lock();
            (nodes_at_most(state.core(), growth), state.nodes_promised)
        };
        let short = needed.saturating_sub(have);
        if short > 0 {
            self.promise_space(Use::Nodes, short).await?;
            inode.state.lock().nodes_promised += short;
        }
        Ok(())
    }

    /// Gives promises for nodes back that what is dirty now does not need. Nothing of the inode is
    /// being written.
    pub(crate) fn trim_nodes(&self, state: &mut State) {
        state.pages.recount_growth();
        let needed = match &state.core {
            Some(core) => nodes_at_most(core, state.pages.growth()),
            None => 0,
        };
        let surplus = state.nodes_promised.saturating_sub(needed);
        state.nodes_promised -= surplus;
        self.nodes.settle(surplus);
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;
    use zerocopy::little_endian::U16;

    use super::*;
    use crate::inode::pages::Pages;
    use crate::ondisk::extent::ROOT_ENTRIES_MAX;
    use crate::ondisk::inode::InodeCore;

    fn core(depth: u8, root_count: u16) -> Core {
        let mut attributes = InodeCore::new_zeroed();
        attributes.depth = depth;
        attributes.root_count = U16::new(root_count);
        Core::of(&attributes)
    }

    #[test]
    fn a_file_whose_root_has_room_for_all_that_is_dirty_needs_no_nodes() {
        let few = Growth { pages: 10, runs: 10 };
        assert_eq!(nodes_at_most(&core(0, 0), few), 0);
        let full = u16::try_from(ROOT_ENTRIES_MAX).expect("small");
        assert!(nodes_at_most(&core(0, full), few) >= 2, "the root goes into two nodes");
        assert_eq!(nodes_at_most(&core(2, full), Growth::default()), 0);
    }

    #[test]
    fn each_run_of_pages_may_split_two_leaves_and_what_is_above() {
        let runs = |pages, runs| nodes_at_most(&core(2, 100), Growth { pages, runs });
        assert!(runs(1, 1) >= 2);
        assert!(runs(100, 1) >= 4 + 100 / 42);
        assert!(runs(100, 100) >= 200);
    }

    #[test]
    fn runs_are_counted_when_pages_are_promised_and_anew_behind_a_flush() {
        let mut pages = Pages::default();
        let write = |pages: &mut Pages, promised: &[u64]| {
            let growth = pages.grown_by(promised);
            for page in promised {
                pages.write(*page, 0, b"x");
            }
            pages.set_growth(growth, promised);
        };
        write(&mut pages, &[3, 4, 5, 9]);
        assert_eq!(pages.growth(), Growth { pages: 4, runs: 2 });
        write(&mut pages, &[6, 8]);
        assert_eq!(pages.growth(), Growth { pages: 6, runs: 3 }, "never too few");
        pages.recount_growth();
        assert_eq!(pages.growth(), Growth { pages: 6, runs: 2 });
        for out in pages.take_dirty(0, 10) {
            assert!(!pages.written(out.page, false, false));
        }
        pages.recount_growth();
        assert_eq!(pages.growth(), Growth::default());
    }
}
