//! What the hot path does not do: allocate. In a program of its own, because it counts what all of
//! its threads ask for.

use std::sync::{Arc, Weak};

use bench::allocations::{self, Counting};
use lcl::pin::{Entry, Requester, Table, Want};
use lcl::{Bucket, Mode, ResourceName};

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
    let counting = allocations::count();
    for _ in 0..100 {
        let entry = table.entry(name, bucket);
        drop(entry.try_pin(Want::read()).expect("cached"));
        drop(entry.try_pin(Want::write()).expect("cached"));
    }
    assert_eq!(counting.allocations(), 0);
    drop(std::hint::black_box(vec![0_u8; 64]));
    assert!(counting.allocations() > 0, "it does count");
}
