//! What the hot path does not do: allocate. In a program of its own, because it counts what all of
//! its threads ask for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use lcl::pin::{Entry, Requester, Table, Want};
use lcl::{Bucket, Mode, ResourceName};

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps what `alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps what `dealloc` asks for.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Nobody;

impl Requester for Nobody {
    fn missed(&self, entry: &Arc<Entry>, _: Want) {
        panic!("what is cached is not asked for: {entry:?}");
    }
}

#[test]
fn a_cached_lock_is_found_pinned_and_unpinned_without_an_allocation() {
    let nobody = Arc::new(Nobody);
    let weak: Weak<Nobody> = Arc::downgrade(&nobody);
    let table = Table::new(weak);
    let (name, bucket) = (ResourceName::new(b"inode/7").expect("short"), Bucket::of(7));
    table.entry(name, bucket).raise(Mode::EX);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        let entry = table.entry(name, bucket);
        drop(entry.try_pin(Want::read()).expect("cached"));
        drop(entry.try_pin(Want::write()).expect("cached"));
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
