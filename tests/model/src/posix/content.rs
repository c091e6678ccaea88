//! The bytes of a file, exact at any offset: only pages that were written take memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const PAGE: u64 = 4096;
const PAGE_LEN: usize = 4096;
type Page = [u8; PAGE_LEN];

/// A size and the bytes below it; what was never written is zero.
///
/// Two contents are equal when every byte is: written zeros equal a hole. Bytes of a page beyond
/// the size are kept zero, so that growing shows zeros.
#[derive(Clone, Default)]
pub struct Content {
    size: u64,
    /// Shared, since versions of a tree are kept by the hundred.
    pages: Arc<BTreeMap<u64, Arc<Page>>>,
}

impl Content {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Number of 4 KiB pages that hold written bytes.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Puts `bytes` at `offset` and grows the size where they reach beyond it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut left = bytes;
        while !left.is_empty() {
            let (start, room) = within_page(at);
            let (part, rest) = left.split_at(room.min(left.len()));
            let pages = Arc::make_mut(&mut self.pages);
            let page = pages.entry(at / PAGE).or_insert_with(|| Arc::new([0; PAGE_LEN]));
            Arc::make_mut(page)[start..start + part.len()].copy_from_slice(part);
            at += length(part);
            left = rest;
        }
        self.size = self.size.max(at);
    }

    /// At most `len` bytes from `offset`; fewer, or none, where the end is nearer.
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let available = self.size.saturating_sub(offset);
        let len = usize::try_from(available).unwrap_or(usize::MAX).min(len);
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + length(&bytes);
            let (start, room) = within_page(at);
            let part = room.min(len - bytes.len());
            match self.pages.get(&(at / PAGE)) {
                Some(page) => bytes.extend_from_slice(&page[start..start + part]),
                None => bytes.resize(bytes.len() + part, 0),
            }
        }
        bytes
    }

    /// Cuts off what lies beyond `size`, or grows with zeros.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            let pages = Arc::make_mut(&mut self.pages);
            pages.split_off(&size.div_ceil(PAGE));
            let (start, _) = within_page(size);
            if let Some(page) = pages.get_mut(&(size / PAGE)) {
                Arc::make_mut(page)[start..].fill(0);
            }
        }
        self.size = size;
    }

    /// Zeros from `from` up to `to`, as far as that is in the file.
    pub fn zero(&mut self, from: u64, to: u64) {
        let to = to.min(self.size);
        let pages = Arc::make_mut(&mut self.pages);
        let touched: Vec<u64> = match to.checked_sub(1) {
            Some(last) if from < to => {
                pages.range(from / PAGE..=last / PAGE).map(|(page, _)| *page).collect()
            }
            _ => Vec::new(),
        };
        for number in touched {
            let (first, last) = part_of_page(number, from, to);
            let page = pages.get_mut(&number).expect("just listed");
            Arc::make_mut(page)[first..last].fill(0);
        }
    }

    /// Is every byte from `from` up to `to` zero, as far as that is in the file?
    pub fn is_zero(&self, from: u64, to: u64) -> bool {
        let to = to.min(self.size);
        from >= to
            || self.pages.range(from / PAGE..to.div_ceil(PAGE)).all(|(number, page)| {
                let (first, last) = part_of_page(*number, from, to);
                page[first..last].iter().all(|byte| *byte == 0)
            })
    }

    /// Nothing was written or resized between the two, as far as that is known without looking
    /// at bytes; contents that differ are never the same.
    pub fn is_untouched(&self, before: &Content) -> bool {
        self.size == before.size && Arc::ptr_eq(&self.pages, &before.pages)
    }

    /// Offsets of the 4 KiB pages that hold written bytes, ascending.
    pub fn written(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().map(|number| number * PAGE)
    }

    /// Where the two differ first: an offset and the byte there in each, `None` past the end.
    pub fn first_difference(&self, other: &Content) -> Option<(u64, Option<u8>, Option<u8>)> {
        let mut numbers: Vec<u64> = self.pages.keys().chain(other.pages.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let differs = |number: &u64| self.page(*number) != other.page(*number);
        let in_pages = numbers.into_iter().find(differs).map(|number| {
            let pairs = self.page(number).iter().zip(other.page(number));
            let same = pairs.take_while(|(a, b)| a == b).count();
            number * PAGE + u64::try_from(same).expect("an index of a page")
        });
        let at_end = (self.size != other.size).then(|| self.size.min(other.size));
        let at = in_pages.into_iter().chain(at_end).min()?;
        Some((at, self.byte(at), other.byte(at)))
    }

    fn byte(&self, at: u64) -> Option<u8> {
        self.read(at, 1).first().copied()
    }

    fn page(&self, number: u64) -> &Page {
        static ZEROS: Page = [0; PAGE_LEN];
        self.pages.get(&number).map_or(&ZEROS, |page| page)
    }
}

/// Where in its page an offset lies, and how many bytes of the page begin there.
fn within_page(offset: u64) -> (usize, usize) {
    let start = usize::try_from(offset % PAGE).expect("an offset in a page");
    (start, PAGE_LEN - start)
}

/// The part of a page that lies between two offsets.
fn part_of_page(number: u64, from: u64, to: u64) -> (usize, usize) {
    let start = number * PAGE;
    let inside = |at: u64| at.clamp(start, start + PAGE) - start;
    let inside = |at: u64| usize::try_from(inside(at)).expect("in a page");
    (inside(from), inside(to))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).expect("a slice has fewer than 2^64 bytes")
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        self.first_difference(other).is_none()
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} pages", self.size, self.pages.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_across_pages_and_holes_read_as_zeros() {
        let mut content = Content::default();
        let bytes: Vec<u8> =
            (0..10_000_u32).map(|i| u8::try_from(i % 251).expect("< 251")).collect();
        content.write(5_000, &bytes);
        assert_eq!(content.read(5_000, 10_000), bytes);
        assert_eq!(content.read(0, 5_000), vec![0; 5_000]);
        assert_eq!(content.read(14_999, 100).len(), 1);
        assert!(content.read(15_000, 100).is_empty());
    }

    #[test]
    fn what_was_cut_off_does_not_come_back_when_the_file_grows() {
        let mut content = Content::default();
        content.write(0, &[7; 9_000]);
        content.resize(4_100);
        content.resize(9_000);
        assert_eq!(content.read(4_099, 2), [7, 0]);
        assert_eq!(content.read(8_192, 808), vec![0; 808]);
    }

    #[test]
    fn zeros_go_no_further_than_they_are_told_and_than_the_file() {
        let mut content = Content::default();
        content.write(0, &[7; 20_000]);
        content.zero(4_000, 12_289);
        assert_eq!(content.read(3_999, 3), [7, 0, 0]);
        assert_eq!(content.read(12_287, 4), [0, 0, 7, 7]);
        assert!(content.is_zero(4_000, 12_289));
        assert!(!content.is_zero(3_999, 12_289));
        assert!(!content.is_zero(4_000, 12_290));
        content.zero(19_999, 1 << 40);
        assert_eq!(content.read(19_998, 9), [7, 0]);
        assert_eq!(content.size(), 20_000);
    }

    #[test]
    fn a_byte_at_the_end_of_what_an_offset_can_say_takes_one_page() {
        let mut content = Content::default();
        content.write(i64::MAX as u64 - 1, b"x");
        assert_eq!(content.size(), i64::MAX as u64);
        assert_eq!(content.pages(), 1);
        assert_eq!(content.read(i64::MAX as u64 - 2, 5), [0, b'x']);
    }

    #[test]
    fn written_zeros_equal_a_hole_and_a_longer_hole_does_not() {
        let (mut a, mut b) = (Content::default(), Content::default());
        a.write(0, &[0; 8192]);
        b.resize(8192);
        assert_eq!(a, b);
        b.resize(8193);
        assert_eq!(a.first_difference(&b), Some((8192, None, Some(0))));
        b.write(5000, b"!");
        assert_eq!(a.first_difference(&b), Some((5000, Some(0), Some(b'!'))));
    }
}
