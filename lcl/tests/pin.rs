//! Pins of one entry, one rule at a time.

use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use lcl::class::{Damaged, LockClass};
use lcl::pin::{Entry, PinError, Requester, Table, Want};
use lcl::{Bucket, Mode, ResourceName, ValueBlock, surrender};
use mx_base::BoxFuture;

struct Misses(AtomicUsize);

impl Requester for Misses {
    fn missed(&self, _entry: &Arc<Entry>, _want: Want) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Woken;

impl Wake for Woken {
    fn wake(self: Arc<Self>) {}
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    StdPin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::new(Woken))))
}

fn entry() -> (Arc<Entry>, Arc<Misses>) {
    let misses = Arc::new(Misses(AtomicUsize::new(0)));
    let weak: Weak<Misses> = Arc::downgrade(&misses);
    let table = Table::new(weak);
    let name = ResourceName::new(b"inode/7").expect("short");
    (table.entry(name, Bucket::of(7)), misses)
}

#[test]
fn a_cached_lock_is_pinned_without_asking_anybody() {
    let (entry, misses) = entry();
    entry.raise(Mode::EX);
    let reader = entry.try_pin(Want::read()).expect("cached");
    assert!(entry.try_pin(Want::read()).is_some());
    assert!(entry.try_pin(Want::write()).is_none(), "a reader is there");
    drop(reader);
    let writer = entry.try_pin(Want::write()).expect("cached and free");
    assert!(entry.try_pin(Want::read()).is_none());
    drop(writer);
    assert_eq!(misses.0.load(Ordering::Relaxed), 0);
}

/// Server scope (S3-032): the cluster lock keeps other nodes out, and nobody of this one.
#[test]
fn shared_pins_do_not_exclude_each_other_whatever_the_mode() {
    for mode in [Mode::CR, Mode::CW, Mode::PR, Mode::PW, Mode::EX] {
        let (entry, misses) = entry();
        entry.raise(mode);
        let first = entry.try_pin(Want::shared(mode)).expect("cached");
        let second = entry.try_pin(Want::shared(mode)).expect("beside the first");
        assert!(entry.try_pin(Want { exclusive: true, ..Want::shared(mode) }).is_none());
        drop((first, second));
        assert_eq!(misses.0.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_miss_is_reported_once_and_served_by_the_grant() {
    let (entry, misses) = entry();
    let mut wait = entry.pin(Want::read());
    assert!(poll(&mut wait).is_pending());
    assert!(poll(&mut wait).is_pending());
    assert_eq!(misses.0.load(Ordering::Relaxed), 1);
    entry.raise(Mode::PR);
    assert!(matches!(poll(&mut wait), Poll::Ready(Ok(_))));
}

#[test]
fn a_waiting_writer_is_not_overtaken_by_new_readers() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let reader = entry.try_pin(Want::read()).expect("cached");
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    let mut late = entry.pin(Want::read());
    assert!(poll(&mut late).is_pending(), "waits behind the writer");
    drop(reader);
    let Poll::Ready(Ok(pin)) = poll(&mut writer) else { panic!("the writer is next") };
    assert!(poll(&mut late).is_pending());
    drop(pin);
    assert!(matches!(poll(&mut late), Poll::Ready(Ok(_))));
}

#[test]
fn readers_go_on_while_a_writer_waits_for_the_cluster() {
    let (entry, misses) = entry();
    entry.raise(Mode::PR);
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    assert_eq!(misses.0.load(Ordering::Relaxed), 1);
    let mut reader = entry.pin(Want::read());
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
}

#[test]
fn a_surrender_bars_operations_but_serves_the_kernels_pages() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let operation = entry.try_pin(Want::read()).expect("cached");
    entry.begin_close();
    let mut late = entry.pin(Want::read());
    assert!(poll(&mut late).is_pending());
    let page = entry.try_pin(Want::kernel_page(Mode::EX)).expect("overtakes");
    {
        let mut drained = Box::pin(entry.operations_drained());
        assert!(poll(&mut drained).is_pending());
        drop(operation);
        assert!(poll(&mut drained).is_ready());
    }
    assert!(!entry.try_close(), "a page was served");
    assert!(!entry.try_close(), "it is still being served");
    drop(page);
    assert!(!entry.try_close(), "it may have reached the kernel after that pass looked");
    assert!(entry.try_close());
    assert!(entry.try_pin(Want::kernel_page(Mode::CR)).is_none());
    entry.reopen(Mode::NL);
    assert!(poll(&mut late).is_pending());
    assert_eq!(entry.wanted().map(|w| w.mode), Some(Mode::PR));
    entry.raise(Mode::PR);
    assert!(matches!(poll(&mut late), Poll::Ready(Ok(_))));
}

#[test]
fn a_queued_page_overtakes_operations_when_the_surrender_begins() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let alone = entry.try_pin(Want::write()).expect("cached");
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    let mut page = entry.pin(Want::kernel_page(Mode::PR));
    assert!(poll(&mut page).is_pending());
    entry.begin_close();
    drop(alone);
    assert!(matches!(poll(&mut page), Poll::Ready(Ok(_))));
    assert!(poll(&mut writer).is_pending(), "waits until the surrender is over");
}

/// An operation that has the kernel drop pages waits for one that the kernel has locked and asks
/// for; who waits to be alone waits for that operation (simulator, seed 8662).
#[test]
fn a_page_goes_past_a_writer_that_waits_for_an_operation_and_no_operation_does() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let drops_pages = entry.try_pin(Want::shared(Mode::EX)).expect("cached");
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    assert!(entry.try_pin(Want::read()).is_none());
    let page = entry.try_pin(Want::kernel_page(Mode::EX)).expect("goes past");
    drop(drops_pages);
    assert!(poll(&mut writer).is_pending(), "the page is being served");
    let mut next = entry.pin(Want::kernel_page(Mode::EX));
    assert!(poll(&mut next).is_pending(), "pages alone keep no writer waiting");
    drop(page);
    assert!(matches!(poll(&mut writer), Poll::Ready(Ok(_))));
    assert!(matches!(poll(&mut next), Poll::Ready(Ok(_))));
}

/// Both wait for the cluster, in this order or the other.
#[test]
fn a_page_queued_behind_a_writer_is_served_beside_the_operation_before_both() {
    let (entry, _) = entry();
    let mut opens = entry.pin(Want::shared(Mode::EX));
    let mut writer = entry.pin(Want::write());
    let mut page = entry.pin(Want::kernel_page(Mode::EX));
    assert!(poll(&mut opens).is_pending() && poll(&mut writer).is_pending());
    assert!(poll(&mut page).is_pending());
    entry.raise(Mode::EX);
    let Poll::Ready(Ok(_opens)) = poll(&mut opens) else { panic!("first in the queue") };
    assert!(matches!(poll(&mut page), Poll::Ready(Ok(_))));
    assert!(poll(&mut writer).is_pending());
}

#[test]
fn a_wait_given_up_gives_its_pin_back() {
    let (entry, _) = entry();
    let mut wait = entry.pin(Want::write());
    assert!(poll(&mut wait).is_pending());
    entry.raise(Mode::EX);
    drop(wait);
    assert!(entry.try_pin(Want::write()).is_some());
}

#[test]
fn a_refusal_fails_only_those_who_would_not_wait() {
    let (entry, _) = entry();
    let mut impatient = entry.pin(Want::shared(Mode::EX).no_queue());
    let mut patient = entry.pin(Want::shared(Mode::EX));
    assert!(poll(&mut impatient).is_pending());
    assert!(poll(&mut patient).is_pending());
    entry.refuse(Mode::EX);
    assert!(matches!(poll(&mut impatient), Poll::Ready(Err(PinError::Busy))));
    assert!(poll(&mut patient).is_pending());
    entry.cut_off();
    assert!(matches!(poll(&mut patient), Poll::Ready(Err(PinError::CutOff))));
    assert!(matches!(poll(&mut entry.pin(Want::read())), Poll::Ready(Err(PinError::CutOff))));
}

#[test]
fn who_would_not_wait_fails_when_another_node_asks_for_the_lock() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    entry.begin_close();
    let mut before = entry.pin(Want::write().no_queue());
    let mut reader = entry.pin(Want::read().no_queue());
    assert!(poll(&mut before).is_pending(), "memory is short: the lock may be had again");
    entry.call_out(Mode::PR);
    assert!(matches!(poll(&mut before), Poll::Ready(Err(PinError::Busy))));
    let mut after = entry.pin(Want::write().no_queue());
    assert!(matches!(poll(&mut after), Poll::Ready(Err(PinError::Busy))));
    assert!(poll(&mut reader).is_pending(), "PR will be left");
    assert!(entry.try_close());
    entry.reopen(Mode::PR);
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
}

#[test]
fn what_is_asked_for_is_a_mode_that_keeps_what_is_held() {
    let (entry, _) = entry();
    entry.raise(Mode::CW);
    let mut reader = entry.pin(Want::read());
    assert!(poll(&mut reader).is_pending());
    assert_eq!(entry.wanted().map(|want| want.mode), Some(Mode::PW));
    entry.raise(Mode::PW);
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
}

#[test]
fn who_would_not_wait_is_asked_for_first_and_alone_and_every_refusal_ends_some_wait() {
    let (entry, _) = entry();
    entry.raise(Mode::CW);
    let mut patient = entry.pin(Want::shared(Mode::EX));
    let mut reader = entry.pin(Want::read().no_queue());
    let mut writer = entry.pin(Want::shared(Mode::EX).no_queue());
    assert!(poll(&mut patient).is_pending());
    assert!(poll(&mut reader).is_pending());
    assert!(poll(&mut writer).is_pending());
    let want = entry.wanted().expect("three wait");
    assert_eq!((want.mode, want.no_queue), (Mode::PW, true));
    entry.refuse(want.mode);
    assert!(matches!(poll(&mut reader), Poll::Ready(Err(PinError::Busy))));
    assert!(matches!(poll(&mut writer), Poll::Ready(Err(PinError::Busy))), "it needs more yet");
    let want = entry.wanted().expect("one waits");
    assert_eq!((want.mode, want.no_queue), (Mode::EX, false));
}

#[test]
fn a_wait_that_is_given_up_is_reported_if_the_cluster_was_asked_for_it() {
    struct Abandoned(AtomicUsize);
    impl Requester for Abandoned {
        fn missed(&self, _entry: &Arc<Entry>, _want: Want) {}
        fn abandoned(&self, _entry: &Arc<Entry>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let abandoned = Arc::new(Abandoned(AtomicUsize::new(0)));
    let weak: Weak<Abandoned> = Arc::downgrade(&abandoned);
    let table = Table::new(weak);
    let name = ResourceName::new(b"inode/7").expect("short");
    let entry = table.entry(name, Bucket::of(7));
    let mut wait = entry.pin(Want::read());
    assert!(poll(&mut wait).is_pending());
    drop(wait);
    assert_eq!(abandoned.0.load(Ordering::Relaxed), 1);
    entry.raise(Mode::EX);
    let writer = entry.try_pin(Want::write()).expect("free");
    let mut wait = entry.pin(Want::read());
    assert!(poll(&mut wait).is_pending());
    drop(wait);
    drop(writer);
    assert_eq!(abandoned.0.load(Ordering::Relaxed), 1, "this one waited for the writer only");
}

#[test]
fn a_table_that_is_cut_off_gives_no_more_pins_on_entries_old_and_new() {
    let misses = Arc::new(Misses(AtomicUsize::new(0)));
    let weak: Weak<Misses> = Arc::downgrade(&misses);
    let table = Table::new(weak);
    let name = |text: &[u8]| ResourceName::new(text).expect("short");
    let old = table.entry(name(b"old"), Bucket::of(1));
    old.raise(Mode::EX);
    table.cut_off();
    assert!(old.try_pin(Want::read()).is_none());
    let new = table.entry(name(b"new"), Bucket::of(2));
    for entry in [old, new] {
        assert!(matches!(poll(&mut entry.pin(Want::read())), Poll::Ready(Err(PinError::CutOff))));
    }
    assert_eq!(misses.0.load(Ordering::Relaxed), 0);
}

#[test]
fn an_entry_is_forgotten_when_nobody_refers_to_it_and_it_holds_nothing() {
    let misses = Arc::new(Misses(AtomicUsize::new(0)));
    let weak: Weak<Misses> = Arc::downgrade(&misses);
    let table = Table::new(weak);
    let name = |text: &[u8]| ResourceName::new(text).expect("short");
    let used = table.entry(name(b"used"), Bucket::of(1));
    table.entry(name(b"held"), Bucket::of(2)).raise(Mode::CR);
    let _ = table.entry(name(b"unused"), Bucket::of(3));
    table.forget_unused();
    assert_eq!(table.len(), 2);
    drop(used);
    table.forget_unused();
    assert_eq!(table.len(), 1);
}

#[test]
fn whoever_pinned_lately_leaves_a_mark() {
    let (entry, _) = entry();
    assert!(!entry.take_accessed());
    entry.raise(Mode::PR);
    assert!(entry.is_idle());
    let pin = entry.try_pin(Want::read()).expect("cached");
    assert!(!entry.is_idle());
    drop(pin);
    assert!(entry.is_idle() && entry.take_accessed() && !entry.take_accessed());
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let _reader = entry.try_pin(Want::read()).expect("cached");
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    let mut behind = entry.pin(Want::read());
    assert!(poll(&mut behind).is_pending());
    drop(writer);
    assert!(matches!(poll(&mut behind), Poll::Ready(Ok(_))));
}

#[test]
fn a_callout_refuses_nobody_after_its_surrender() {
    let (entry, misses) = entry();
    entry.raise(Mode::EX);
    entry.begin_close();
    entry.call_out(Mode::NL);
    assert!(entry.try_close());
    entry.reopen(Mode::NL);
    let mut impatient = entry.pin(Want::write().no_queue());
    assert!(poll(&mut impatient).is_pending(), "the cluster is asked");
    assert_eq!(misses.0.load(Ordering::Relaxed), 1);
}

/// As OPEN: whoever pins it shared relies on CR.
struct OpenFiles;

impl LockClass for OpenFiles {
    fn leaves_pins(&self, _: &Entry, to: Mode) -> bool {
        to.covers(Mode::CR)
    }

    fn revoke<'a>(&'a self, _: &'a Arc<Entry>, _: Mode, _: u32) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    fn flush<'a>(&'a self, _: &'a Arc<Entry>, _: Mode) -> BoxFuture<'a, Result<(), Damaged>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn purge(&self, _: &Arc<Entry>, _: Mode) -> Option<ValueBlock> {
        None
    }

    fn refresh(&self, _: &Arc<Entry>, _: Mode, _: Option<&ValueBlock>) {}
}

#[test]
fn a_surrender_does_not_wait_for_pins_that_what_is_left_covers() {
    let (entry, _) = entry();
    let want = Want::shared(Mode::CR);
    let begin = |to| {
        entry.begin_close();
        Box::pin(surrender(Arc::clone(&entry), to, Arc::new(OpenFiles)))
    };
    entry.raise(Mode::EX);
    let open = entry.try_pin(want).expect("cached");
    assert!(poll(&mut begin(Mode::PR)).is_ready(), "the file stays open");
    let joined = entry.try_join(Mode::CR).expect("beside one that exists");
    entry.reopen(Mode::PR);
    assert!(entry.try_pin(want).is_some());
    let mut to_nothing = begin(Mode::NL);
    assert!(poll(&mut to_nothing).is_pending());
    drop((open, joined));
    assert!(poll(&mut to_nothing).is_ready());
    entry.reopen(Mode::NL);
}

#[test]
fn a_surrender_waits_for_who_is_alone_with_the_lock_whatever_is_left() {
    let (entry, _) = entry();
    entry.raise(Mode::EX);
    let alone = entry.try_pin(Want::write()).expect("cached");
    entry.begin_close();
    let mut under_way = Box::pin(surrender(Arc::clone(&entry), Mode::PR, Arc::new(OpenFiles)));
    assert!(poll(&mut under_way).is_pending());
    drop(alone);
    assert!(poll(&mut under_way).is_ready());
    entry.reopen(Mode::PR);
}
