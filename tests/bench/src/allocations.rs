//! An allocator that counts, for what is measured in bytes of memory.
//!
//! Keeps true: bytes are those asked for, without what an allocator adds. Counts only while
//! somebody asks it to, and then of all threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static IN_USE: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator; to be the global one of a program.
#[derive(Debug)]
pub struct Counting;

/// Counts until it is dropped; one at a time.
#[derive(Debug)]
pub struct Count(());

/// Begins with nothing in use.
pub fn count() -> Count {
    IN_USE.store(0, Ordering::Relaxed);
    ALLOCATIONS.store(0, Ordering::Relaxed);
    IS_COUNTING.store(true, Ordering::Relaxed);
    Count(())
}

impl Count {
    /// Allocated since it began, and not freed; what was allocated before and freed since counts
    /// against it.
    pub fn bytes_in_use(&self) -> u64 {
        IN_USE.load(Ordering::Relaxed)
    }

    /// How many there were since it began.
    pub fn allocations(&self) -> u64 {
        ALLOCATIONS.load(Ordering::Relaxed)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        IS_COUNTING.store(false, Ordering::Relaxed);
    }
}

fn change(added: usize, removed: usize) {
    if IS_COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(u64::from(added > 0), Ordering::Relaxed);
        IN_USE.fetch_add(added as u64, Ordering::Relaxed);
        IN_USE.fetch_sub(removed as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        change(layout.size(), 0);
        // SAFETY: the caller keeps what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        change(layout.size(), 0);
        // SAFETY: the caller keeps what `alloc_zeroed` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        change(0, layout.size());
        // SAFETY: the caller keeps what `dealloc` asks for.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        change(size, layout.size());
        // SAFETY: the caller keeps what `realloc` asks for.
        unsafe { System.realloc(block, layout, size) }
    }
}
