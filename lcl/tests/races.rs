//! Interleavings of pin, unpin, drain, close, callout and raise, tried out by shuttle on the very
//! sources of `lcl::pin`.
//!
//! `LCL_RACES=N` tries N schedules of each test instead of the usual number.

/// `lcl::pin`, over the primitives of [`sync`] below.
#[path = "../src"]
mod src {
    #[expect(dead_code, unreachable_pub, reason = "the crate's sources, of which a part is used")]
    pub mod pin;
}

/// Stands in for `lcl::sync`.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU32, AtomicU64};

    /// With the interface of `parking_lot`.
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a panic ends the test")
        }
    }
}

use std::sync::{Arc, Weak};

use dlm::{Bucket, Mode, ResourceName};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::mpsc;
use shuttle::thread;
use src::pin::{Ahead, Entry, PinError, Requester, Table, Want};

/// Passes misses on to the thread that plays the lock cache's machine.
struct Misses(shuttle::sync::Mutex<mpsc::Sender<Event>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Event {
    Missed,
    Abandoned,
    WorkerDone,
}

impl Requester for Misses {
    fn missed(&self, _entry: &Arc<Entry>, _want: Want) {
        self.tell(Event::Missed);
    }

    fn abandoned(&self, _entry: &Arc<Entry>) {
        self.tell(Event::Abandoned);
    }
}

impl Misses {
    fn tell(&self, event: Event) {
        // The machine may have gone home: then nobody is left who waits.
        let _ = self.0.lock().expect("a panic ends the test").send(event);
    }
}

struct Stage {
    entry: Arc<Entry>,
    misses: Arc<Misses>,
    events: mpsc::Receiver<Event>,
}

fn stage() -> Stage {
    let (sender, events) = mpsc::channel();
    let misses = Arc::new(Misses(shuttle::sync::Mutex::new(sender)));
    let weak: Weak<Misses> = Arc::downgrade(&misses);
    let table = Table::new(weak);
    let name = ResourceName::new(b"inode/7").expect("short");
    Stage { entry: table.entry(name, Bucket::of(7)), misses, events }
}

/// Who is inside, as the protected object would see it.
#[derive(Default)]
struct Inside {
    readers: AtomicUsize,
    writers: AtomicUsize,
}

impl Inside {
    fn read(&self) {
        self.readers.fetch_add(1, Ordering::SeqCst);
        assert_eq!(self.writers.load(Ordering::SeqCst), 0, "nobody reads beside a writer");
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }

    fn write(&self) {
        assert_eq!(self.writers.fetch_add(1, Ordering::SeqCst), 0, "one writer at a time");
        assert_eq!(self.readers.load(Ordering::SeqCst), 0, "nobody reads beside a writer");
        self.writers.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_empty(&self) -> bool {
        self.readers.load(Ordering::SeqCst) == 0 && self.writers.load(Ordering::SeqCst) == 0
    }
}

fn surrender(entry: &Arc<Entry>, inside: &Inside, to: Mode, called_out: bool) {
    entry.begin_close();
    if called_out {
        entry.call_out(to);
    }
    block_on(entry.operations_drained());
    loop {
        block_on(entry.kernel_pages_drained());
        if entry.try_close() {
            break;
        }
    }
    assert!(inside.is_empty(), "nobody is inside a closed lock");
    assert!(entry.try_pin(Want::kernel_page(Mode::CR)).is_none());
    entry.reopen(to);
}

/// Grants what is missed and surrenders in between, until all workers are done.
fn machine(stage: &Stage, inside: &Inside, workers: usize, surrenders: &[(Mode, bool)]) {
    let mut done = 0;
    let mut surrenders = surrenders.iter();
    while done < workers {
        let event = stage.events.recv().expect("the workers tell when they are done");
        done += usize::from(event == Event::WorkerDone);
        while let Some(want) = stage.entry.wanted() {
            stage.entry.raise(want.mode);
            if let Some((to, called_out)) = surrenders.next() {
                surrender(&stage.entry, inside, *to, *called_out);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whoever runs the test says how long")]
fn tries(usual: usize) -> usize {
    std::env::var("LCL_RACES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

#[test]
fn pins_exclude_as_they_promise_and_everybody_is_served() {
    shuttle::check_random(
        || {
            let stage = stage();
            let inside = Arc::new(Inside::default());
            let worker = |wants: [Want; 2]| {
                let (entry, misses) = (Arc::clone(&stage.entry), Arc::clone(&stage.misses));
                let inside = Arc::clone(&inside);
                thread::spawn(move || {
                    for want in wants {
                        let pin = block_on(entry.pin(want)).expect("nobody is cut off");
                        assert!(entry.mode().covers(want.mode), "a pin proves the mode");
                        if want.exclusive {
                            inside.write()
                        } else {
                            inside.read()
                        }
                        drop(pin);
                    }
                    let ahead = Ahead::new([entry], Want::read());
                    let _ = (ahead.len(), ahead.is_empty());
                    block_on(ahead);
                    misses.tell(Event::WorkerDone);
                })
            };
            let workers = [
                worker([Want::read(), Want::write()]),
                worker([Want::write(), Want::kernel_page(Mode::PR)]),
                worker([Want::kernel_page(Mode::EX), Want::read()]),
            ];
            machine(&stage, &inside, 3, &[(Mode::PR, true), (Mode::NL, false), (Mode::NL, true)]);
            workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
            assert!(stage.entry.is_idle(), "nothing is left behind");
        },
        tries(1500),
    );
}

#[test]
fn waits_that_are_given_up_hold_nobody_back() {
    shuttle::check_random(
        || {
            let stage = stage();
            let inside = Arc::new(Inside::default());
            let spawn = |want: Want, gives_up: bool| {
                let (entry, misses) = (Arc::clone(&stage.entry), Arc::clone(&stage.misses));
                let inside = Arc::clone(&inside);
                thread::spawn(move || {
                    let mut wait = entry.pin(want);
                    if gives_up {
                        let waker = std::task::Waker::noop();
                        let mut context = std::task::Context::from_waker(waker);
                        let _ =
                            std::future::Future::poll(std::pin::Pin::new(&mut wait), &mut context);
                    } else {
                        let pin = block_on(&mut wait).expect("nobody is cut off");
                        if want.exclusive {
                            inside.write()
                        } else {
                            inside.read()
                        }
                        drop(pin);
                    }
                    drop(wait);
                    misses.tell(Event::WorkerDone);
                })
            };
            let workers = [
                spawn(Want::write(), true),
                spawn(Want::read(), false),
                spawn(Want::write(), false),
            ];
            machine(&stage, &inside, 3, &[(Mode::NL, false)]);
            workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
            assert!(stage.entry.is_idle(), "nothing is left behind");
        },
        tries(1500),
    );
}

#[test]
fn being_cut_off_ends_every_wait() {
    shuttle::check_random(
        || {
            let stage = stage();
            let worker = |want: Want| {
                let entry = Arc::clone(&stage.entry);
                thread::spawn(move || {
                    loop {
                        match block_on(entry.pin(want)) {
                            Ok(pin) => drop(pin),
                            Err(error) => break assert_eq!(error, PinError::CutOff),
                        }
                    }
                })
            };
            let workers = [worker(Want::write()), worker(Want::read()), worker(Want::read())];
            stage.entry.raise(Mode::EX);
            thread::yield_now();
            stage.entry.cut_off();
            workers.into_iter().for_each(|worker| worker.join().expect("no panic"));
        },
        tries(500),
    );
}

#[test]
fn who_would_not_wait_never_waits_for_another_node() {
    shuttle::check_random(
        || {
            let stage = stage();
            let inside = Arc::new(Inside::default());
            stage.entry.raise(Mode::EX);
            let (entry, misses) = (Arc::clone(&stage.entry), Arc::clone(&stage.misses));
            let worker = thread::spawn(move || {
                for _ in 0..2 {
                    match block_on(entry.pin(Want::write().no_queue())) {
                        Ok(pin) => drop(pin),
                        Err(error) => assert_eq!(error, PinError::Busy),
                    }
                }
                misses.tell(Event::WorkerDone);
            });
            surrender(&stage.entry, &inside, Mode::PR, true);
            // The other node keeps its PR: whoever asks for EX is refused.
            while stage.events.recv().expect("told when done") != Event::WorkerDone {
                while let Some(want) = stage.entry.wanted() {
                    stage.entry.refuse(want.mode);
                }
            }
            worker.join().expect("no panic");
            assert!(stage.entry.is_idle(), "nothing is left behind");
        },
        tries(1000),
    );
}
