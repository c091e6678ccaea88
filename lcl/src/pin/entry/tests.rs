use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use super::*;
use crate::pin::Table;

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
    let reader = entry.try_pin(Want::read()).expect("cached");
    let mut writer = entry.pin(Want::write());
    assert!(poll(&mut writer).is_pending());
    let mut page = entry.pin(Want::kernel_page(Mode::PR));
    assert!(poll(&mut page).is_pending());
    entry.begin_close();
    assert!(matches!(poll(&mut page), Poll::Ready(Ok(_))));
    drop(reader);
    assert!(poll(&mut writer).is_pending(), "waits until the surrender is over");
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
