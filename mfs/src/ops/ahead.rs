//! Asking ahead for the inodes of a directory that somebody looks up in the order of its listing.
//!
//! Keeps true: nothing is waited for and nobody is disturbed: what another node would have to give
//! up is not asked for, and nothing that is granted is kept from whoever wants it. What is
//! remembered of listings is a hint, bounded, and never an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use lcl::pin::{Ahead, Want};
use parking_lot::Mutex;

use crate::file::InodeNo;
use crate::fs::Fs;
use crate::inode::Inode;

/// Directories of which a listing is remembered, and entries of each.
const DIRS_MAX: usize = 16;
const ENTRIES_MAX: usize = 4096;
/// Entries that may be passed over, for they were cached, without the order being lost.
const PASSED_OVER_MAX: usize = 64;
/// Look-ups in order, none of them cached, before more are expected to follow.
const IN_ORDER: u32 = 2;
/// Locks asked for at once.
const AT_ONCE: usize = 255;

/// What was listed lately, and how far look-ups have followed.
#[derive(Default)]
pub(crate) struct Listings(Mutex<VecDeque<Listed>>);

struct Listed {
    dir: InodeNo,
    /// Those that were not looked up yet, in order.
    to_come: VecDeque<InodeNo>,
    in_order: u32,
}

impl Listings {
    /// A piece of a listing was given out, the first one of it or a further one.
    pub(crate) fn note(&self, dir: InodeNo, is_first: bool, piece: impl Iterator<Item = InodeNo>) {
        let mut all = self.0.lock();
        let known = all.iter().position(|listed| listed.dir == dir);
        let mut listed = match known.and_then(|at| all.remove(at)) {
            Some(listed) if !is_first => listed,
            Some(_) | None => Listed { dir, to_come: VecDeque::new(), in_order: 0 },
        };
        let room = ENTRIES_MAX.saturating_sub(listed.to_come.len());
        listed.to_come.extend(piece.take(room));
        all.truncate(DIRS_MAX - 1);
        all.push_front(listed);
    }

    /// `file` was looked up in `dir` and is not cached: which are likely to follow?
    pub(crate) fn follow(&self, dir: InodeNo, file: InodeNo) -> Vec<InodeNo> {
        let mut all = self.0.lock();
        let Some(listed) = all.iter_mut().find(|listed| listed.dir == dir) else {
            return Vec::new();
        };
        let Some(at) = listed.to_come.iter().position(|no| *no == file) else {
            return Vec::new();
        };
        listed.to_come.drain(..=at);
        listed.in_order = if at <= PASSED_OVER_MAX { listed.in_order + 1 } else { 1 };
        if listed.in_order < IN_ORDER {
            return Vec::new();
        }
        let count = listed.to_come.len().min(AT_ONCE);
        listed.to_come.drain(..count).collect()
    }
}

impl Fs {
    /// An inode was looked up whose lock is not cached: those that are likely to be next are asked
    /// for beside it, in one step.
    pub(crate) fn ask_ahead(&self, dir: InodeNo, file: InodeNo) {
        let inodes: Vec<Arc<Inode>> = self
            .listings
            .follow(dir, file)
            .into_iter()
            .filter_map(|no| self.inode(no).ok())
            .collect();
        if inodes.is_empty() {
            return;
        }
        self.env.runtime.spawn(Box::pin(async move {
            let entries = inodes.iter().map(|inode| Arc::clone(&inode.entry));
            Ahead::new(entries, Want::read().no_queue()).await;
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: InodeNo = InodeNo(1);

    fn listed(count: u64) -> Listings {
        let listings = Listings::default();
        listings.note(DIR, true, (100..100 + count).map(InodeNo));
        listings
    }

    #[test]
    fn the_second_look_up_in_order_asks_for_those_that_follow_once() {
        let listings = listed(600);
        assert!(listings.follow(DIR, InodeNo(100)).is_empty());
        let next: Vec<InodeNo> = (102..102 + 255).map(InodeNo).collect();
        assert_eq!(listings.follow(DIR, InodeNo(101)), next);
        assert!(listings.follow(DIR, InodeNo(102)).is_empty(), "asked for already");
        assert_eq!(listings.follow(DIR, InodeNo(357)).len(), 255);
        assert_eq!(listings.follow(DIR, InodeNo(613)).len(), 86);
    }

    #[test]
    fn look_ups_out_of_order_ask_for_nothing_else() {
        let listings = listed(1000);
        for no in [900, 300, 700, 1099] {
            assert!(listings.follow(DIR, InodeNo(no)).is_empty());
        }
        assert!(listings.follow(InodeNo(2), InodeNo(100)).is_empty(), "not listed");
    }

    #[test]
    fn pieces_go_on_a_new_listing_starts_over_and_the_oldest_is_forgotten() {
        let listings = listed(1);
        listings.note(DIR, false, (101..104).map(InodeNo));
        assert!(listings.follow(DIR, InodeNo(100)).is_empty());
        assert_eq!(listings.follow(DIR, InodeNo(101)), [102, 103].map(InodeNo));
        listings.note(DIR, true, std::iter::once(InodeNo(7)));
        assert!(listings.follow(DIR, InodeNo(7)).is_empty());
        for dir in 2..2 + DIRS_MAX as u64 {
            listings.note(InodeNo(dir), true, (0..5000).map(InodeNo));
        }
        let all = listings.0.lock();
        assert_eq!(all.len(), DIRS_MAX);
        assert!(all.iter().all(|listed| listed.dir != DIR && listed.to_come.len() == ENTRIES_MAX));
    }
}
