//! The memory through which payloads go: the client makes it, both map it.
//!
//! The other process may write to it at any time. So nothing here makes a reference to its bytes:
//! they are copied, or their address is given to the kernel.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use fencing::layout::BLOCK_SIZE;

use super::protocol::AREA_BLOCKS_MAX;
use crate::ring::Piece;

/// Mapped until it is dropped.
#[derive(Debug)]
pub(super) struct SharedMemory {
    start: NonNull<u8>,
    blocks: u32,
}

// SAFETY: the mapping belongs to the value, is reached by copying only, and what other threads or
// the other process do to it meanwhile changes bytes, never validity.
unsafe impl Send for SharedMemory {}
// SAFETY: as above; there are no references into it.
unsafe impl Sync for SharedMemory {}

/// The descriptor does not stand for memory that can be used safely.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("not sealed against shrinking: the client could take it away under a copy")]
    NotSealed,
    #[error("smaller than announced")]
    TooSmall,
    #[error("{0}")]
    System(#[from] Errno),
}

impl SharedMemory {
    /// New memory, and the descriptor to be sent to the server.
    pub(super) fn create(blocks: u32) -> Result<(OwnedFd, SharedMemory), Errno> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let descriptor = rustix::fs::memfd_create("mxarbiter", flags)?;
        rustix::fs::ftruncate(&descriptor, bytes(blocks) as u64)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&descriptor, seals)?;
        let memory = SharedMemory::map(&descriptor, blocks)?;
        Ok((descriptor, memory))
    }

    /// The memory behind a client's descriptor.
    pub(super) fn of_client(
        descriptor: &OwnedFd,
        blocks: u32,
    ) -> Result<SharedMemory, MemoryError> {
        assert!((1..=AREA_BLOCKS_MAX).contains(&blocks), "checked when the handshake was read");
        let seals = rustix::fs::fcntl_get_seals(descriptor).map_err(|_| MemoryError::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(MemoryError::NotSealed);
        }
        let size = rustix::fs::fstat(descriptor)?.st_size;
        if usize::try_from(size).is_ok_and(|size| size >= bytes(blocks)) {
            Ok(SharedMemory::map(descriptor, blocks)?)
        } else {
            Err(MemoryError::TooSmall)
        }
    }

    fn map(descriptor: &OwnedFd, blocks: u32) -> Result<SharedMemory, Errno> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes(blocks),
                protection,
                flags,
                descriptor.as_fd(),
                0,
            )?
        };
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(SharedMemory { start, blocks })
    }

    /// Are these blocks all inside?
    pub(super) fn holds(&self, first: u32, count: u32) -> bool {
        first.checked_add(count).is_some_and(|end| end <= self.blocks)
    }

    /// The address of some blocks.
    ///
    /// # Panics
    /// When they are not all inside.
    pub(super) fn piece(&self, first: u32, count: u32) -> Piece {
        assert!(self.holds(first, count), "checked when the request was read");
        // SAFETY: the range is inside the mapping.
        let start = unsafe { self.start.as_ptr().add(bytes(first)) };
        Piece { start, len: bytes(count) }
    }

    /// Copies blocks out.
    ///
    /// # Panics
    /// When they are not all inside, or `into` has another size.
    pub(super) fn copy_out(&self, first: u32, count: u32, into: &mut [u8]) {
        let piece = self.piece(first, count);
        assert_eq!(piece.len, into.len(), "as many bytes as blocks");
        // SAFETY: both ranges are valid for their length, and `into` is this process's own. The
        // other process may change the source meanwhile; any mix of bytes will do.
        unsafe { std::ptr::copy_nonoverlapping(piece.start, into.as_mut_ptr(), piece.len) };
    }

    /// Copies bytes in, from a block on.
    ///
    /// # Panics
    /// When they do not fit in `count` blocks that are all inside.
    pub(super) fn copy_in(&self, first: u32, count: u32, at: usize, from: &[u8]) {
        let piece = self.piece(first, count);
        assert!(at.checked_add(from.len()).is_some_and(|end| end <= piece.len), "fits");
        // SAFETY: both ranges are valid for their length and distinct.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), piece.start.add(at), from.len()) };
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size; whoever gave its addresses to the
        // kernel keeps this value until the request has ended.
        let unmapped =
            unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), bytes(self.blocks)) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

const fn bytes(blocks: u32) -> usize {
    blocks as usize * BLOCK_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_client_could_shrink_is_refused() {
        let descriptor =
            rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).expect("memfd");
        rustix::fs::ftruncate(&descriptor, 8192).expect("sized");
        let refused = SharedMemory::of_client(&descriptor, 2).map(drop);
        assert_eq!(refused, Err(MemoryError::NotSealed));
        rustix::fs::fcntl_add_seals(&descriptor, SealFlags::SHRINK).expect("sealed");
        assert_eq!(SharedMemory::of_client(&descriptor, 3).map(drop), Err(MemoryError::TooSmall));
        assert_eq!(SharedMemory::of_client(&descriptor, 2).map(drop), Ok(()));
        let file = std::fs::File::open("/proc/self/exe").expect("some file");
        let refused = SharedMemory::of_client(&file.into(), 1).map(drop);
        assert_eq!(refused, Err(MemoryError::NotSealed));
    }

    #[test]
    fn both_sides_see_the_same_bytes() {
        let (descriptor, client) = SharedMemory::create(4).expect("memfd");
        let server = SharedMemory::of_client(&descriptor, 4).expect("sealed");
        client.copy_in(1, 2, 4096, &[7; 4096]);
        let mut out = vec![0; 8192];
        server.copy_out(1, 2, &mut out);
        assert_eq!((out[4095], out[4096], out[8191]), (0, 7, 7));
        assert!(server.holds(3, 1) && !server.holds(3, 2) && !server.holds(u32::MAX, 2));
    }
}
