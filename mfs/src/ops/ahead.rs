//! Asking ahead for the inodes of a directory that somebody looks up in the order of its listing.
//!
//! Keeps true: nothing is waited for, and nothing that is granted is kept from whoever wants it. What
//! another node would have to give up is asked for only where look-ups in order have met it, and of
//! that at most about as much as they have met. What is remembered of listings is a hint, bounded, and
//! never an answer.

use std::collections::VecDeque;
use std::sync::Arc;

use lcl::pin::{Ahead, Want};
use parking_lot::Mutex;

use crate::file::InodeNo;
use crate::fs::Fs;
use crate::inode::Inode;

/// Directories of which a listing is remembered, and entries of each.
const DIRS_MAX: usize = 16;
const ENTRIES_MAX: usize = 128 << 10;
/// How far ahead somebody may look up and still be found.
const SEARCHED: usize = 4096;
/// Entries that may be passed over, for they were cached, without the order being lost.
const PASSED_OVER_MAX: usize = 64;
/// Look-ups in order, none of them cached, before more are expected to follow.
const IN_ORDER: u32 = 2;
/// Locks asked for at once.
const AT_ONCE: usize = 255;
/// Locks of other nodes asked for at once, at first and at most.
const DISTURBED_MIN: usize = 4;
const DISTURBED_MAX: usize = 128;

/// What was listed lately, and how far look-ups have followed.
#[derive(Default)]
pub(crate) struct Listings(Mutex<VecDeque<Listed>>);

struct Listed {
    dir: InodeNo,
    /// Those that were not looked up yet, in order.
    to_come: VecDeque<InodeNo>,
    in_order: u32,
    /// Those before them that were asked for, and are not cached if another node has them.
    asked: VecDeque<InodeNo>,
    /// How many others were asked for last that another node has.
    disturbed: usize,
}

/// What to ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Next {
    inodes: Vec<InodeNo>,
    /// Also what others have to give up.
    disturbs: bool,
}

impl Listed {
    fn new(dir: InodeNo) -> Listed {
        let (to_come, asked) = (VecDeque::new(), VecDeque::new());
        Listed { dir, to_come, in_order: 0, asked, disturbed: 0 }
    }

    fn next(&mut self, file: InodeNo) -> Option<Next> {
        if let Some(at) = place_of(file, &self.asked) {
            // Asked for, and still not cached.
            self.asked.drain(..=at);
            self.disturbed = (2 * self.disturbed).clamp(DISTURBED_MIN, DISTURBED_MAX);
            let count = self.asked.len().min(self.disturbed);
            let inodes = self.asked.drain(..count).collect();
            return Some(Next { inodes, disturbs: true });
        }
        let at = place_of(file, &self.to_come)?;
        self.to_come.drain(..=at);
        self.in_order = if at <= PASSED_OVER_MAX { self.in_order + 1 } else { 1 };
        if self.in_order < IN_ORDER {
            return None;
        }
        // Whoever has those before has these.
        let disturbs = self.disturbed == DISTURBED_MAX && at == 0;
        let most = if disturbs { DISTURBED_MAX } else { AT_ONCE };
        let count = self.to_come.len().min(most);
        let inodes: Vec<InodeNo> = self.to_come.drain(..count).collect();
        self.asked.clear();
        if !disturbs {
            self.disturbed = 0;
            self.asked.extend(&inodes);
        }
        Some(Next { inodes, disturbs })
    }
}

fn place_of(file: InodeNo, among: &VecDeque<InodeNo>) -> Option<usize> {
    among.iter().take(SEARCHED).position(|no| *no == file)
}

impl Listings {
    /// A piece of a listing was given out, the first one of it or a further one.
    pub(crate) fn note(&self, dir: InodeNo, is_first: bool, piece: impl Iterator<Item = InodeNo>) {
        let mut all = self.0.lock();
        let known = all.iter().position(|listed| listed.dir == dir);
        let mut listed = match known.and_then(|at| all.remove(at)) {
            Some(listed) if !is_first => listed,
            Some(_) | None => Listed::new(dir),
        };
        let room = ENTRIES_MAX.saturating_sub(listed.to_come.len());
        listed.to_come.extend(piece.take(room));
        all.truncate(DIRS_MAX - 1);
        all.push_front(listed);
    }

    /// `file` was looked up in `dir` and is not cached: which are likely to follow?
    pub(crate) fn follow(&self, dir: InodeNo, file: InodeNo) -> Option<Next> {
        let mut all = self.0.lock();
        let listed = all.iter_mut().find(|listed| listed.dir == dir)?;
        listed.next(file).filter(|next| !next.inodes.is_empty())
    }
}

impl Fs {
    /// An inode was looked up whose lock is not cached: those that are likely to be next are asked
    /// for beside it, in one step.
    pub(crate) fn ask_ahead(&self, dir: InodeNo, file: InodeNo) {
        let Some(next) = self.listings.follow(dir, file) else { return };
        let inodes: Vec<Arc<Inode>> =
            next.inodes.into_iter().filter_map(|no| self.inode(no).ok()).collect();
        let want = if next.disturbs { Want::read() } else { Want::read().no_queue() };
        self.env.runtime.spawn(Box::pin(async move {
            let entries = inodes.iter().map(|inode| Arc::clone(&inode.entry));
            Ahead::new(entries, want).await;
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

    fn next(of: &Listings, dir: InodeNo, no: u64) -> Option<(std::ops::Range<u64>, bool)> {
        let Next { inodes, disturbs } = of.follow(dir, InodeNo(no))?;
        let (first, last) = (inodes.first()?.0, inodes.last()?.0);
        assert_eq!(inodes.len() as u64, last + 1 - first, "all between them");
        Some((first..last + 1, disturbs))
    }

    #[test]
    fn the_second_look_up_in_order_asks_for_those_that_follow_once() {
        let listings = listed(600);
        assert_eq!(next(&listings, DIR, 100), None);
        assert_eq!(next(&listings, DIR, 101), Some((102..357, false)));
        assert_eq!(next(&listings, DIR, 357), Some((358..613, false)));
        assert_eq!(next(&listings, DIR, 613), Some((614..700, false)));
        assert_eq!(next(&listings, DIR, 613), None);
    }

    #[test]
    fn what_others_have_is_asked_for_the_more_of_it_was_met() {
        let listings = listed(1000);
        assert_eq!(next(&listings, DIR, 100), None);
        assert_eq!(next(&listings, DIR, 101), Some((102..357, false)));
        // Nobody gives 102 up for no more than a guess; whoever looks it up waits for it.
        let mut at = 102;
        for count in [4, 8, 16, 32, 64] {
            assert_eq!(next(&listings, DIR, at), Some((at + 1..at + 1 + count, true)));
            assert_eq!(next(&listings, DIR, at + 1), None, "asked for already");
            at += 1 + count;
        }
        assert_eq!(next(&listings, DIR, at), Some((at + 1..357, true)), "the rest of those");
        assert_eq!(next(&listings, DIR, 357), Some((358..486, true)), "and those behind them");
        assert_eq!(next(&listings, DIR, 486), Some((487..615, true)));
        // One that is passed over was cached: others have less from here on.
        assert_eq!(next(&listings, DIR, 616), Some((617..872, false)));
    }

    #[test]
    fn look_ups_out_of_order_ask_for_nothing_else() {
        let listings = listed(1000);
        for no in [900, 300, 700, 1099] {
            assert_eq!(next(&listings, DIR, no), None);
        }
        assert_eq!(next(&listings, InodeNo(2), 100), None, "not listed");
    }

    #[test]
    fn pieces_go_on_a_new_listing_starts_over_and_the_oldest_is_forgotten() {
        let listings = listed(1);
        listings.note(DIR, false, (101..104).map(InodeNo));
        assert_eq!(next(&listings, DIR, 100), None);
        assert_eq!(next(&listings, DIR, 101), Some((102..104, false)));
        listings.note(DIR, true, std::iter::once(InodeNo(7)));
        assert_eq!(next(&listings, DIR, 7), None);
        let many = ENTRIES_MAX as u64 + 1000;
        for dir in 2..2 + DIRS_MAX as u64 {
            listings.note(InodeNo(dir), true, (0..many).map(InodeNo));
        }
        let all = listings.0.lock();
        assert_eq!(all.len(), DIRS_MAX);
        assert!(all.iter().all(|listed| listed.dir != DIR && listed.to_come.len() == ENTRIES_MAX));
    }
}
