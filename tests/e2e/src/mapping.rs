//! A file in memory: a shared mapping that may reach beyond the end of the file.
//!
//! Whoever loads or stores has made sure that the range lies inside the file: the kernel ends the
//! process otherwise (SIGBUS).

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// See the module.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut u8,
    len: usize,
}

impl Mapping {
    /// Of the first `len` bytes.
    pub(crate) fn new(file: &File, len: usize) -> io::Result<Mapping> {
        Mapping::with(file, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Of a file that may be open only to read; nobody may store to it.
    pub(crate) fn to_load(file: &File, len: usize) -> io::Result<Mapping> {
        Mapping::with(file, len, ProtFlags::READ)
    }

    /// Where it is in the memory of this process.
    pub(crate) fn address(&self) -> usize {
        self.address.addr()
    }

    fn with(file: &File, len: usize, protection: ProtFlags) -> io::Result<Mapping> {
        // SAFETY: a new place is asked for, so that nothing is mapped over.
        let address = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Mapping { address: address.cast(), len })
    }

    pub(crate) fn load(&self, at: usize, bytes: &mut [u8]) {
        assert!(at + bytes.len() <= self.len, "inside the mapping");
        // SAFETY: the range lies in the mapping and, by the caller, in the file; `bytes` is no part
        // of it. What other mappings of the file store meanwhile is what is looked for: nobody does,
        // since one thread does everything.
        unsafe {
            ptr::copy_nonoverlapping(self.address.add(at), bytes.as_mut_ptr(), bytes.len());
        }
    }

    pub(crate) fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.len, "inside the mapping");
        // SAFETY: as for `load`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.add(at), bytes.len()) }
    }

    /// For those who load and store at the same time: a word at a place that is aligned to it.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(align_of::<AtomicU64>()), "aligned");
        assert!(at + size_of::<AtomicU64>() <= self.len, "inside the mapping");
        // SAFETY: the word lies in the mapping, which is aligned to pages and lives as long as the
        // reference, and, by the caller, in the file; whoever else stores to it in this process does
        // so by this function.
        unsafe { AtomicU64::from_ptr(self.address.add(at).cast()) }
    }

    /// msync(2), waiting, of the pages of a range.
    pub(crate) fn sync(&self, at: usize, len: usize) -> io::Result<()> {
        const PAGE: usize = 4096;
        let start = at / PAGE * PAGE;
        // SAFETY: the range lies in the mapping.
        Ok(unsafe { msync(self.address.add(start).cast(), at + len - start, MsyncFlags::SYNC) }?)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference to what is mapped.
        let _ = unsafe { munmap(self.address.cast(), self.len) };
    }
}
