//! What writes under way have replaced, while pages of the kernel may still show it.
//!
//! The kernel drops its pages of a range before it sends a write(2) and again behind the answer. A page
//! that it reads in between, before the write is applied, and that somebody stores to through a mapping,
//! comes back whole: the store, and around it what the write has replaced (`kernel-cache.md`, section 2).
//!
//! Meanwhile other processes of this node may still be shown the old page by the kernel. Whoever is shown
//! what is written, or the size that comes with it, waits until they are not: nobody sees an old byte
//! after a new one, or a new size and zeros where the bytes of the write are.
//!
//! Keeps true: of a page that comes back, a byte that a write under way has replaced leaves what was
//! written; every other byte is a store, or as it was. A write is under way until the kernel has dropped
//! every page that it had read before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::pages::{Pages, page_of, pieces};
use super::{Inode, State};
use crate::block::{BLOCK_SIZE_U64, SharedBlock, as_usize};

/// The writes under way to one file that pages of the kernel may be older than.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    writes: BTreeMap<u64, Write>,
    next: u64,
}

#[derive(Debug)]
struct Write {
    range: Range<u64>,
    /// Pages as they were. One that is not there was overwritten as a whole, or had nothing: stores to
    /// it at the same time count as earlier.
    old: BTreeMap<u64, SharedBlock>,
}

/// Makes a write one under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    inode: Arc<Inode>,
    ticket: u64,
    pub(crate) range: Range<u64>,
    /// Of [`State::page_reads`], when it began.
    page_reads: u64,
}

impl UnderWay {
    /// The kernel has dropped all pages of the range.
    pub(crate) fn dropped(self) {
        let mut state = self.inode.state.lock();
        if state.page_reads != self.page_reads {
            return;
        }
        // None was read since: what is noted is the rest.
        let page = BLOCK_SIZE_U64;
        let (from, to) = (self.range.start / page * page, self.range.end.next_multiple_of(page));
        state.kernel.pages = match state.kernel.pages {
            Some((a, b)) if from <= a && b <= to => None,
            Some((a, b)) if from <= a && a < to => Some((to, b)),
            Some((a, b)) if from < b && b <= to => Some((a, from)),
            pages => pages,
        };
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.inode.state.lock().replaced.writes.remove(&self.ticket);
        self.inode.shown.notify(usize::MAX);
    }
}

/// Writes that somebody has looked at while they were under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    /// All before this one.
    end: u64,
}

impl Inode {
    /// Waits until the kernel shows nobody what those writes have replaced.
    pub(crate) async fn shown(&self, seen: Option<Seen>) {
        let Some(Seen { end }) = seen else { return };
        loop {
            let shown = self.shown.listen();
            let first = self.state.lock().replaced.writes.keys().next().copied();
            if first.is_none_or(|first| first >= end) {
                return;
            }
            shown.await;
        }
    }
}

impl Replaced {
    /// Whoever looks now sees these writes, which are under way.
    pub(crate) fn seen(&self) -> Option<Seen> {
        (!self.writes.is_empty()).then_some(Seen { end: self.next })
    }

    /// Pages that come back in this range and hold bytes that a write under way has replaced.
    pub(crate) fn pages(&self, at: u64, len: u64) -> Vec<u64> {
        let concerned = |range: &Range<u64>| {
            let (from, to) = (range.start.max(at), range.end.min(at + len));
            (from < to).then(|| page_of(from)..=page_of(to - 1))
        };
        let mut pages: Vec<u64> =
            self.writes.values().filter_map(|write| concerned(&write.range)).flatten().collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// What is to be laid at `at`, where `bytes` came back. All of [`Replaced::pages`] are cached.
    pub(crate) fn merged(&self, at: u64, bytes: &[u8], pages: &Pages) -> Vec<u8> {
        let mut merged = bytes.to_vec();
        let end = at + bytes.len() as u64;
        for write in self.writes.values() {
            let (from, to) = (write.range.start.max(at), write.range.end.min(end));
            for (page, inside, take) in pieces(from, to.saturating_sub(from)) {
                let now = pages.get(page).expect("brought in before");
                let old = write.old.get(&page);
                let place = as_usize(page * BLOCK_SIZE_U64 + inside as u64 - at);
                for i in 0..take {
                    if old.is_none_or(|old| old.0[inside + i] == bytes[place + i]) {
                        merged[place + i] = now.0[inside + i];
                    }
                }
            }
        }
        merged
    }
}

impl State {
    /// A write is about to replace the range: remembers what, if the kernel has pages there.
    pub(crate) fn replace(&mut self, inode: &Arc<Inode>, range: Range<u64>) -> Option<UnderWay> {
        let noted = |(from, to): (u64, u64)| from < range.end && range.start < to;
        if self.pages_dropped_now == 0 && !self.kernel.pages.is_some_and(noted) {
            return None;
        }
        let touched = pieces(range.start, range.end - range.start).map(|(page, ..)| page);
        let old = touched.filter_map(|page| Some((page, self.pages.get(page)?.clone()))).collect();
        let replaced = &mut self.replaced;
        let ticket = replaced.next;
        replaced.next += 1;
        replaced.writes.insert(ticket, Write { range: range.clone(), old });
        let page_reads = self.page_reads;
        Some(UnderWay { inode: Arc::clone(inode), ticket, range, page_reads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of which `at` says what it holds, else zeros.
    fn page(at: &[(usize, &[u8])]) -> Vec<u8> {
        let mut page = vec![0; 4096];
        at.iter().for_each(|(at, bytes)| page[*at..*at + bytes.len()].copy_from_slice(bytes));
        page
    }

    fn begin(replaced: &mut Replaced, pages: &mut Pages, at: u64, bytes: &[u8]) {
        let range = at..at + bytes.len() as u64;
        let old =
            pages.get(page_of(at)).map(|old| (page_of(at), old.clone())).into_iter().collect();
        let ticket = replaced.next;
        replaced.next += 1;
        replaced.writes.insert(ticket, Write { range, old });
        pages.write(page_of(at), as_usize(at % BLOCK_SIZE_U64), bytes);
    }

    fn pages_with(contents: &[u8]) -> Pages {
        let mut pages = Pages::default();
        pages.write(0, 0, contents);
        pages
    }

    #[test]
    fn a_store_beside_a_write_keeps_both() {
        let (mut replaced, mut pages) = (Replaced::default(), pages_with(&page(&[(0, b"aabb")])));
        begin(&mut replaced, &mut pages, 0, b"WW");
        assert_eq!(replaced.pages(0, 4096), [0]);
        let merged = replaced.merged(0, &page(&[(0, b"aaSS")]), &pages);
        assert_eq!(merged, page(&[(0, b"WWSS")]));
    }

    #[test]
    fn a_store_to_what_was_written_is_the_later_one() {
        let (mut replaced, mut pages) = (Replaced::default(), pages_with(&page(&[(0, b"aabb")])));
        begin(&mut replaced, &mut pages, 0, b"WWW");
        let merged = replaced.merged(0, &page(&[(0, b"aSbb")]), &pages);
        assert_eq!(merged, page(&[(0, b"WSWb")]));
    }

    #[test]
    fn a_page_that_is_older_than_two_writes_brings_neither_back() {
        let (mut replaced, mut pages) = (Replaced::default(), pages_with(&page(&[(0, b"aabb")])));
        begin(&mut replaced, &mut pages, 0, b"VV");
        begin(&mut replaced, &mut pages, 1, b"WW");
        for came_back in [b"aabS", b"VVbS", b"VWWS"] {
            let merged = replaced.merged(0, &page(&[(0, came_back)]), &pages);
            assert_eq!(merged, page(&[(0, b"VWWS")]), "{came_back:?}");
        }
    }

    #[test]
    fn what_came_back_in_other_pages_counts() {
        let (mut replaced, mut pages) = (Replaced::default(), pages_with(&page(&[])));
        begin(&mut replaced, &mut pages, 4090, b"WWWWWW");
        assert!(replaced.pages(4096, 4096).is_empty());
        assert_eq!(replaced.merged(4096, b"S", &pages), b"S");
    }

    #[test]
    fn stores_to_a_page_that_is_overwritten_as_a_whole_count_as_earlier() {
        let (mut replaced, mut pages) = (Replaced::default(), Pages::default());
        begin(&mut replaced, &mut pages, 0, &[b'W'; 4096]);
        assert_eq!(replaced.merged(0, &page(&[(0, b"S")]), &pages), [b'W'; 4096]);
    }
}
