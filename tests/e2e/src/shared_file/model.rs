//! What the file must contain, and which operation is to thank for each byte.

use std::fmt::Write as _;

use crate::dice::mixed;

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    bytes: Vec<u8>,
    /// The operation that wrote each byte; 0 where nobody did.
    authors: Vec<u32>,
}

/// What operation `number` writes at a place: different from what any other writes there.
pub(super) fn pattern(number: u32, at: usize, len: usize) -> Vec<u8> {
    const WORD: usize = 8;
    let mut bytes = Vec::with_capacity(len + 2 * WORD);
    for word in at / WORD..=(at + len) / WORD {
        let word = mixed(u64::from(number) << 32 ^ word as u64);
        bytes.extend(word.to_le_bytes());
    }
    bytes.drain(..at % WORD);
    bytes.truncate(len);
    bytes
}

impl Model {
    pub(super) fn empty() -> Model {
        Model { bytes: Vec::new(), authors: Vec::new() }
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a read of a range must return: less at the end of the file.
    pub(super) fn range(&self, at: usize, len: usize) -> &[u8] {
        let end = (at + len).min(self.bytes.len());
        self.bytes.get(at..end).unwrap_or_default()
    }

    /// Nothing written makes nothing longer.
    pub(super) fn write(&mut self, number: u32, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.bytes.len() < at + bytes.len() {
            self.resize(at + bytes.len());
        }
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.authors[at..at + bytes.len()].fill(number);
    }

    pub(super) fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        self.authors.resize(size, 0);
    }

    /// Zeros as far as the file goes.
    pub(super) fn zero(&mut self, number: u32, at: usize, len: usize) {
        let end = (at + len).min(self.bytes.len());
        if at < end {
            self.bytes[at..end].fill(0);
            self.authors[at..end].fill(number);
        }
    }

    /// Where and how `found`, read at a place, differs from what must be there.
    pub(super) fn difference(&self, at: usize, len: usize, found: &[u8]) -> Option<String> {
        let expected = self.range(at, len);
        if found == expected {
            return None;
        }
        let mut text = String::new();
        if found.len() != expected.len() {
            let _ = write!(text, "{} bytes, expected {}", found.len(), expected.len());
        }
        let pairs = || found.iter().zip(expected).enumerate().filter(|(_, (f, e))| f != e);
        if let Some((first, _)) = pairs().next() {
            let last = pairs().next_back().map_or(first, |(last, _)| last);
            let (count, author) = (pairs().count(), self.authors[at + first]);
            let run = &found[first..(first + 8).min(found.len())];
            let right = &expected[first..(first + 8).min(expected.len())];
            let _ = write!(
                text,
                "{count} bytes wrong from {:#x} to {:#x}: {run:02x?}, expected {right:02x?} of \
                 operation {author}; found is {}",
                at + first,
                at + last,
                self.whose(at + first, run),
            );
        }
        Some(text)
    }

    /// Which operation writes such bytes at a place.
    fn whose(&self, at: usize, run: &[u8]) -> String {
        const ENOUGH: usize = 4;
        if run.iter().all(|byte| *byte == 0) {
            return "zeros".to_owned();
        }
        let latest = self.authors.iter().copied().max().unwrap_or(0) + 1000;
        let fits = |number: &u32| {
            pattern(*number, at, run.len().min(ENOUGH)) == run[..run.len().min(ENOUGH)]
        };
        match (1..=latest).rev().find(fits) {
            Some(number) if run.len() >= ENOUGH => format!("of operation {number}"),
            _ => "no operation's, or moved".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_the_same_from_wherever_it_begins() {
        let whole = pattern(7, 0, 100);
        assert_eq!(whole.len(), 100);
        for at in [1, 7, 8, 33] {
            assert_eq!(pattern(7, at, 20), whole[at..at + 20]);
        }
        assert_ne!(pattern(8, 0, 100), whole);
    }

    #[test]
    fn a_difference_names_who_wrote_what_was_found_and_who_what_was_expected() {
        let mut model = Model::empty();
        model.write(1, 0, &pattern(1, 0, 64));
        model.write(2, 16, &pattern(2, 16, 16));
        assert_eq!(model.difference(0, 64, model.bytes()), None);
        let difference = model.difference(0, 64, &pattern(1, 0, 64)).expect("an old byte");
        assert!(difference.contains("from 0x10 to 0x1f"), "{difference}");
        assert!(difference.contains("expected") && difference.contains("of operation 2"));
        assert!(difference.ends_with("of operation 1"), "{difference}");
        let short = model.difference(0, 64, model.range(0, 60)).expect("too short");
        assert_eq!(short, "60 bytes, expected 64");
    }
}
