//! Cached pages of one file: 4 KiB each, clean or dirty, by page number.
//!
//! Dirty pages exist only while the inode's lock is held in EX. A page that is being written back
//! may be changed meanwhile: the write-back keeps its own copy, and the page is dirty again.

use std::collections::{BTreeMap, BTreeSet};

use crate::block::{BLOCK_SIZE, BLOCK_SIZE_U64, Block, SharedBlock, as_usize};

/// The page that holds a byte.
pub(crate) fn page_of(offset: u64) -> u64 {
    offset / BLOCK_SIZE_U64
}

/// The pages of a file, and which of them have to be written.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
    writing: BTreeSet<u64>,
    /// Pages that grow the tree, and runs of them, at most: see [`Pages::growth`].
    growth: Growth,
    /// Changes so far: a page read from disk is kept only if none happened meanwhile.
    pub(crate) changes: u64,
}

/// What the extent tree of a file may have to take in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Growth {
    pub(crate) pages: u64,
    /// Runs of pages that follow each other in the file.
    pub(crate) runs: u64,
}

#[derive(Debug)]
struct Page {
    data: SharedBlock,
    /// A block was promised for it, because it had none when it was written.
    promised: bool,
    /// It had none, or one never written: its write-back changes the extent tree.
    grows: bool,
}

impl Page {
    fn clean(data: SharedBlock) -> Page {
        Page { data, promised: false, grows: false }
    }
}

/// A page on its way to disk.
#[derive(Debug, Clone)]
pub(crate) struct PageOut {
    pub(crate) page: u64,
    pub(crate) data: SharedBlock,
    /// The promise goes with the page; whoever writes it settles it.
    pub(crate) promised: bool,
}

impl Pages {
    pub(crate) fn get(&self, page: u64) -> Option<&SharedBlock> {
        self.pages.get(&page).map(|p| &p.data)
    }

    pub(crate) fn contains(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// Has a block been promised for the page?
    pub(crate) fn is_promised(&self, page: u64) -> bool {
        self.pages.get(&page).is_some_and(|p| p.promised)
    }

    /// Pages for which a block has been promised.
    pub(crate) fn promised_len(&self) -> u64 {
        self.dirty.iter().filter(|page| self.is_promised(**page)).count() as u64
    }

    /// Is it counted in [`Pages::growth`]?
    pub(crate) fn grows(&self, page: u64) -> bool {
        self.pages.get(&page).is_some_and(|p| p.grows)
    }

    /// Pages that may not be mapped, or not marked written, yet, those on their way to disk
    /// included; never too few.
    pub(crate) fn growth(&self) -> Growth {
        self.growth
    }

    /// These pages, in order, grow the tree too.
    pub(crate) fn grown_by(&self, pages: &[u64]) -> Growth {
        let Growth { pages: mut count, mut runs } = self.growth;
        let mut before = None;
        for page in pages {
            count += 1;
            let follows = before.is_some_and(|before| before + 1 == *page)
                || page.checked_sub(1).is_some_and(|before| self.grows(before));
            runs += u64::from(!follows);
            before = Some(*page);
        }
        Growth { pages: count, runs }
    }

    /// These pages, which are cached, grow the tree from now on.
    pub(crate) fn set_growth(&mut self, growth: Growth, pages: &[u64]) {
        self.growth = growth;
        for page in pages {
            self.pages.get_mut(page).expect("written before it is promised for").grows = true;
        }
    }

    /// Counts anew, when nothing is being written.
    pub(crate) fn recount_growth(&mut self) {
        assert!(self.writing.is_empty(), "pages being written have taken their promises along");
        let growing: Vec<u64> =
            self.dirty.iter().filter(|page| self.grows(**page)).copied().collect();
        let runs = growing.windows(2).filter(|w| w[0] + 1 != w[1]).count() as u64;
        let pages = growing.len() as u64;
        self.growth = Growth { pages, runs: runs + u64::from(pages > 0) };
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn dirty_len(&self) -> usize {
        self.dirty.len() + self.writing.len()
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.writing.is_empty()
    }

    /// A page as it was read; what is cached already counts.
    pub(crate) fn insert_clean(&mut self, page: u64, data: SharedBlock) {
        self.pages.entry(page).or_insert(Page::clean(data));
    }

    /// Lays bytes over a page and makes it dirty. A page that is not cached starts as zeros: the
    /// caller has brought it in unless all of it is overwritten or nothing is on disk.
    pub(crate) fn write(&mut self, page: u64, at: usize, bytes: &[u8]) {
        let cached = self.pages.entry(page).or_insert_with(|| Page::clean(Block::zeroed().into()));
        cached.data.make_mut().0[at..at + bytes.len()].copy_from_slice(bytes);
        self.dirty.insert(page);
        self.changes += 1;
    }

    /// Makes a cached page dirty as it is.
    pub(crate) fn mark_dirty(&mut self, page: u64) {
        assert!(self.pages.contains_key(&page), "page {page} is cached");
        self.dirty.insert(page);
        self.changes += 1;
    }

    /// Zeroes a cached page from byte `at` on.
    pub(crate) fn zero_tail(&mut self, page: u64, at: usize) {
        if let Some(cached) = self.pages.get_mut(&page)
            && cached.data.0[at..].iter().any(|b| *b != 0)
        {
            cached.data.make_mut().0[at..].fill(0);
            self.changes += 1;
        }
    }

    pub(crate) fn set_promised(&mut self, page: u64) {
        let cached = self.pages.get_mut(&page).expect("written before it is promised for");
        assert!(!cached.promised, "one promise a page");
        cached.promised = true;
    }

    /// Takes up to `max` dirty pages from `from` on to write them; they count as being written
    /// until [`Pages::written`].
    pub(crate) fn take_dirty(&mut self, from: u64, max: usize) -> Vec<PageOut> {
        let ready = self.dirty.range(from..).filter(|p| !self.writing.contains(p));
        let taken: Vec<u64> = ready.copied().take(max).collect();
        let mut out = Vec::with_capacity(taken.len());
        for page in taken {
            self.dirty.remove(&page);
            self.writing.insert(page);
            let cached = self.pages.get_mut(&page).expect("a dirty page is cached");
            let promised = std::mem::take(&mut cached.promised);
            out.push(PageOut { page, data: cached.data.clone(), promised });
        }
        out
    }

    /// The write of a page has ended; one that failed is dirty again. Returns whether the promise
    /// that came back with it is one too many: the page may have got another meanwhile.
    #[must_use]
    pub(crate) fn written(&mut self, page: u64, failed: bool, promise_left: bool) -> bool {
        assert!(self.writing.remove(&page), "page {page} was being written");
        if failed {
            self.dirty.insert(page);
        } else if let Some(cached) = self.pages.get_mut(&page) {
            cached.grows = false;
        }
        if promise_left && !self.is_promised(page) && self.dirty.contains(&page) {
            self.set_promised(page);
            return false;
        }
        promise_left
    }

    /// Drops pages from `first` on; returns how many of them had promises. Nothing of them is being
    /// written: the caller holds the inode for itself.
    pub(crate) fn truncate(&mut self, first: u64) -> u64 {
        assert!(self.writing.range(first..).next().is_none(), "no write-back under a truncation");
        let dropped = self.pages.split_off(&first);
        self.dirty.split_off(&first);
        self.changes += 1;
        dropped.values().filter(|p| p.promised).count() as u64
    }

    /// As [`Pages::truncate`], from `first` up to `end`.
    pub(crate) fn drop_range(&mut self, first: u64, end: u64) -> u64 {
        let mut behind = self.pages.split_off(&end);
        let mut dirty_behind = self.dirty.split_off(&end);
        let promised = self.truncate(first);
        self.pages.append(&mut behind);
        self.dirty.append(&mut dirty_behind);
        promised
    }

    /// The first dirty page from `page` on, those on their way to disk included.
    pub(crate) fn next_dirty(&self, page: u64) -> Option<u64> {
        let dirty = self.dirty.range(page..).next();
        let writing = self.writing.range(page..).next();
        dirty.into_iter().chain(writing).min().copied()
    }

    /// Drops all pages; returns how many had promises, which is none unless changes are given up.
    pub(crate) fn clear(&mut self) -> u64 {
        self.writing.clear();
        self.truncate(0)
    }

    /// Drops up to `max` clean pages.
    pub(crate) fn shed_clean(&mut self, max: usize) -> usize {
        let clean: Vec<u64> = self
            .pages
            .keys()
            .filter(|p| !self.dirty.contains(p) && !self.writing.contains(p))
            .copied()
            .take(max)
            .collect();
        for page in &clean {
            self.pages.remove(page);
        }
        clean.len()
    }
}

/// The pieces of a byte range, page by page: page, offset in it, length.
pub(crate) fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let inside = (at % BLOCK_SIZE_U64) as usize;
        let take = as_usize(end - at).min(BLOCK_SIZE - inside);
        let piece = (page_of(at), inside, take);
        at += take as u64;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_falls_into_pages() {
        let all: Vec<_> = pieces(4000, 5000).collect();
        assert_eq!(all, vec![(0, 4000, 96), (1, 0, 4096), (2, 0, 808)]);
        assert_eq!(pieces(10, 0).count(), 0);
    }

    #[test]
    fn a_page_written_during_its_write_back_is_dirty_again() {
        let mut pages = Pages::default();
        pages.write(3, 0, b"old");
        let out = pages.take_dirty(0, 10);
        pages.write(3, 0, b"new");
        assert_eq!(&out[0].data.0[..3], b"old");
        assert!(pages.take_dirty(0, 10).is_empty(), "one write-back at a time");
        assert!(!pages.written(3, false, false));
        assert_eq!(&pages.take_dirty(0, 10)[0].data.0[..3], b"new");
    }

    #[test]
    fn a_failed_write_back_leaves_the_page_dirty() {
        let mut pages = Pages::default();
        pages.write(3, 0, b"x");
        pages.set_promised(3);
        assert!(pages.take_dirty(0, 10)[0].promised);
        assert!(!pages.written(3, true, true));
        assert!(pages.is_promised(3));
        assert_eq!(pages.dirty_len(), 1);
        assert_eq!(pages.truncate(0), 1);
    }
}
