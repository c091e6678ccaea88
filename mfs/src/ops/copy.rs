//! copy_file_range: between two open files, or within one.
//!
//! A copy is made of pieces; each is read at one moment and written as one write is. Nothing is locked
//! between them, and never both files at once: two that copy to and fro do not wait for each other. What
//! others write to the source meanwhile is in later pieces or not. Holes become zeros.

use lcl::pin::Want;

use super::open::OpenFile;
use super::read::ReadKind;
use crate::error::FsError;
use crate::fs::Fs;

/// Bytes read and written at once.
const PIECE: u64 = 1 << 20;
/// Bytes copied by one call; the caller goes on behind them.
const COPIED_MAX: u64 = 16 << 20;

impl Fs {
    /// Copies up to `len` bytes from an offset of one file to one of another; returns how many, which
    /// may be fewer: at the end of the source, at [`COPIED_MAX`], where the device is full behind what
    /// was copied. 0 at the end of the source.
    ///
    /// # Errors
    /// [`FsError::Invalid`] for ranges of one file that overlap and for a target that is open for appending;
    /// as [`Fs::read`] and [`Fs::write`], when nothing was copied.
    pub async fn copy_range(
        &self,
        (from, from_offset): (&OpenFile, u64),
        (to, to_offset): (&OpenFile, u64),
        len: u64,
    ) -> Result<u64, FsError> {
        self.check_writable()?;
        if !to.flags().write || to.flags().append {
            return Err(FsError::Invalid("not open for writing at an offset"));
        }
        let size = {
            let _pin = from.inode.entry.pin(Want::read()).await?;
            let size = || from.inode.with_file(from.file(), |state| Ok(state.core().size()));
            self.settle(size).await?
        };
        let len = len.min(size.saturating_sub(from_offset));
        if from.file() == to.file() && from_offset.abs_diff(to_offset) < len {
            return Err(FsError::Invalid("the ranges overlap"));
        }
        let len = len.min(COPIED_MAX);
        let mut copied = 0;
        while copied < len {
            let piece = PIECE.min(len - copied);
            match self.copy_piece((from, from_offset), (to, to_offset), copied, piece).await {
                Ok(0) => break,
                Ok(done) => copied += done,
                Err(error) if copied == 0 => return Err(error),
                Err(error) => {
                    tracing::debug!(from = ?from.file(), to = ?to.file(), copied, %error, "copy is short");
                    break;
                }
            }
        }
        Ok(copied)
    }

    /// One piece, `done` bytes behind the offsets.
    async fn copy_piece(
        &self,
        (from, from_offset): (&OpenFile, u64),
        (to, to_offset): (&OpenFile, u64),
        done: u64,
        len: u64,
    ) -> Result<u64, FsError> {
        let bytes = {
            let read = self.read(from, from_offset + done, len, ReadKind::Direct).await?;
            // Its pin goes before the other file is waited for.
            read.as_slice().to_vec()
        };
        if bytes.is_empty() {
            return Ok(0);
        }
        let at = to_offset.checked_add(done).ok_or(FsError::FileTooLarge)?;
        Ok(self.write(to, at, &bytes).await?.len)
    }
}
