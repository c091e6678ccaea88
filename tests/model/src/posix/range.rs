//! Operations on ranges of a file: allocate, zero, punch, seek, copy.
//!
//! Which parts of a file are holes is the file system's affair; what may be told of them is not: data
//! is never in a hole.

use mx_base::Timestamp;

use super::FILE_SIZE_MAX;
use super::content::Content;
use super::errno::Errno;
use super::node::{Body, Ino};
use super::tree::Tree;

/// What fallocate does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allocate {
    Blocks { keep_size: bool },
    Zeros { keep_size: bool },
    Hole,
}

/// Where a seek looked for data or for a hole, and what there was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sought {
    content: Content,
    offset: u64,
    hole: bool,
}

impl Sought {
    /// May this be the answer? `None` is ENXIO.
    pub fn admits(&self, found: Option<u64>) -> bool {
        let (from, size) = (self.offset, self.content.size());
        match (self.hole, found) {
            // Nothing but holes up to there.
            (false, Some(at)) => at >= from && at < size && self.is_zero(from, at),
            (false, None) => self.is_zero(from, size),
            // The end counts as a hole.
            (true, Some(at)) if at == size => true,
            (true, Some(at)) => at >= from && at < size && self.is_zero(at, at + 1),
            (true, None) => false,
        }
    }

    fn is_zero(&self, from: u64, to: u64) -> bool {
        self.content.is_zero(from, to)
    }
}

impl Tree {
    /// # Errors
    /// ESTALE, EISDIR, EINVAL where there is no content and for an empty range, EFBIG.
    pub fn allocate(
        &mut self,
        ino: Ino,
        what: Allocate,
        offset: u64,
        len: u64,
        now: Timestamp,
    ) -> Result<(), Errno> {
        self.content(ino)?;
        if len == 0 {
            return Err(Errno::Invalid);
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX);
        let end = end.ok_or(Errno::FileTooBig)?;
        let node = self.must_mut(ino);
        node.modified(now);
        node.drop_capability();
        if let Body::File(content) = &mut node.body {
            let (zeros, keep_size) = match what {
                Allocate::Blocks { keep_size } => (false, keep_size),
                Allocate::Zeros { keep_size } => (true, keep_size),
                Allocate::Hole => (true, true),
            };
            if zeros {
                content.zero(offset, end);
            }
            if !keep_size && end > content.size() {
                content.resize(end);
            }
        }
        Ok(())
    }

    /// # Errors
    /// ESTALE, EISDIR, EINVAL where there is no content, ENXIO at or behind the end.
    pub fn seek(&self, ino: Ino, offset: u64, hole: bool) -> Result<Sought, Errno> {
        let content = self.content(ino)?;
        if offset >= content.size() {
            return Err(Errno::NoDevice);
        }
        Ok(Sought { content: content.clone(), offset, hole })
    }

    /// Copies as read and write would do it; returns how many bytes.
    ///
    /// # Errors
    /// As [`Tree::read`] and [`Tree::write`]; EINVAL for ranges of one file that overlap.
    pub fn copy_range(
        &mut self,
        (from, from_offset): (Ino, u64),
        (to, to_offset): (Ino, u64),
        len: usize,
        now: Timestamp,
    ) -> Result<usize, Errno> {
        let bytes = self.content(from)?.read(from_offset, len);
        self.content(to)?;
        let length = u64::try_from(bytes.len()).expect("a length");
        if from == to && from_offset.abs_diff(to_offset) < length {
            return Err(Errno::Invalid);
        }
        self.write(to, to_offset, &bytes, now)
    }
}
