//! Content of files: read, write, append, truncate.

use mx_base::Timestamp;

use super::FILE_SIZE_MAX;
use super::attributes::Change;
use super::content::Content;
use super::errno::Errno;
use super::node::{Body, Ino};
use super::tree::Tree;

impl Tree {
    /// At most `len` bytes from `offset`; fewer, or none, where the end is nearer.
    ///
    /// # Errors
    /// ESTALE, EISDIR, EINVAL where there is no content.
    pub fn read(&self, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        Ok(self.content(ino)?.read(offset, len))
    }

    /// Returns how many bytes were written: fewer than all only where the largest size cuts them
    /// off. Writing nothing changes nothing, not even times.
    ///
    /// # Errors
    /// ESTALE, EISDIR, EINVAL where there is no content, EFBIG at or beyond the largest size.
    pub fn write(
        &mut self,
        ino: Ino,
        offset: u64,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<usize, Errno> {
        self.content(ino)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        let room = FILE_SIZE_MAX.checked_sub(offset).filter(|room| *room > 0);
        let room = usize::try_from(room.ok_or(Errno::FileTooBig)?).unwrap_or(usize::MAX);
        let bytes = &bytes[..room.min(bytes.len())];
        let node = self.must_mut(ino);
        node.modified(now);
        node.drop_capability();
        if let Body::File(content) = &mut node.body {
            content.write(offset, bytes);
        }
        Ok(bytes.len())
    }

    /// Writes at the end, wherever that is at this moment.
    ///
    /// # Errors
    /// As [`Tree::write`].
    pub fn append(&mut self, ino: Ino, bytes: &[u8], now: Timestamp) -> Result<usize, Errno> {
        let end = self.content(ino)?.size();
        self.write(ino, end, bytes, now)
    }

    /// # Errors
    /// As [`Tree::setattr`] with a size.
    pub fn truncate(&mut self, ino: Ino, size: u64, now: Timestamp) -> Result<(), Errno> {
        self.setattr(ino, &Change { size: Some(size), ..Change::default() }, now).map(|_| ())
    }

    /// # Errors
    /// ESTALE, EISDIR, EINVAL where there is no content.
    pub fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.node(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::IsDirectory),
            Body::Symlink(_) | Body::Special(_) => Err(Errno::Invalid),
        }
    }
}
