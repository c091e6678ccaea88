//! One node: its lock cache, the operations that use it, the surrenders it has to carry out.

use std::collections::VecDeque;
use std::pin::Pin as StdPin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use lcl::pin::{Entry, Pin, PinError, PinFuture, Requester, Table, Want};
use lcl::{BucketName, LockCache, LockspaceId, Surrendered};
use mx_base::{BoxFuture, Instant, Member};
use parking_lot::Mutex;

use crate::objects::{Disk, Objects, OneClass};

pub(crate) const LOCKSPACE: LockspaceId = LockspaceId(9);

pub(crate) struct Node {
    pub(crate) cache: LockCache,
    pub(crate) objects: Arc<Objects>,
    pub(crate) shell: Arc<Shell>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) surrenders: Vec<(Arc<Entry>, BoxFuture<'static, Surrendered>)>,
    /// Kept until then.
    pub(crate) holds: Vec<(Arc<Entry>, Instant)>,
}

/// What threads tell the machine; taken in when the test says so.
#[derive(Default)]
pub(crate) struct Shell {
    pub(crate) events: Mutex<VecDeque<Event>>,
}

pub(crate) enum Event {
    Missed(Vec<(Arc<Entry>, Want)>),
    Abandoned(Arc<Entry>),
}

impl Requester for Shell {
    fn missed(&self, entry: &Arc<Entry>, want: Want) {
        self.missed_together(&[(Arc::clone(entry), want)]);
    }

    fn missed_together(&self, missed: &[(Arc<Entry>, Want)]) {
        self.events.lock().push_back(Event::Missed(missed.to_vec()));
    }

    fn abandoned(&self, entry: &Arc<Entry>) {
        self.events.lock().push_back(Event::Abandoned(Arc::clone(entry)));
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Read,
    Write,
    /// The kernel reads a page and keeps it.
    Page,
    /// An open file: holds CR and relies on nothing.
    Open,
}

impl What {
    pub(crate) fn want(self) -> Want {
        match self {
            What::Read => Want::read(),
            What::Write => Want::write(),
            What::Page => Want::kernel_page(lcl::Mode::PR),
            What::Open => Want::shared(lcl::Mode::CR),
        }
    }
}

/// An operation of a user: waits for its pin, then works for some steps.
pub(crate) struct Operation {
    pub(crate) what: What,
    pub(crate) at: BucketName,
    pub(crate) stage: Stage,
}

pub(crate) enum Stage {
    Waiting(PinFuture),
    /// With what it has read.
    Working(Pin, u64),
    Ended(Result<(), PinError>),
}

impl Node {
    pub(crate) fn new(me: Member, disk: &Arc<Mutex<Disk>>) -> Node {
        let shell = Arc::new(Shell::default());
        let weak: Weak<Shell> = Arc::downgrade(&shell);
        let objects = Objects::new(me, Arc::clone(disk));
        let classes = Arc::new(OneClass(Arc::clone(&objects)));
        let table = Arc::new(Table::new(weak));
        let cache = LockCache::new(LOCKSPACE, me, table, classes, |_| true);
        let (operations, surrenders, holds) = (Vec::new(), Vec::new(), Vec::new());
        Node { cache, objects, shell, operations, surrenders, holds }
    }

    pub(crate) fn entry(&self, at: BucketName) -> Arc<Entry> {
        self.cache.table().entry(at.name, at.bucket)
    }

    /// Begins an operation, as a thread would: it waits if it has to. Returns its place.
    pub(crate) fn begin(&mut self, what: What, at: BucketName, want: Want) -> usize {
        let wait = self.entry(at).pin(want);
        self.operations.push(Operation { what, at, stage: Stage::Waiting(wait) });
        let place = self.operations.len() - 1;
        self.poll_operation(place);
        place
    }

    /// Looks whether the operation has got its pin.
    pub(crate) fn poll_operation(&mut self, place: usize) {
        let Operation { what, at, stage } = &mut self.operations[place];
        let Stage::Waiting(wait) = stage else { return };
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(outcome) = StdPin::new(wait).poll(&mut context) else { return };
        *stage = match outcome {
            Ok(pin) => {
                let seen = match what {
                    What::Read | What::Page => self.objects.read(&at.name),
                    What::Write => {
                        self.objects.write(&at.name);
                        0
                    }
                    What::Open => 0,
                };
                Stage::Working(pin, seen)
            }
            Err(error) => Stage::Ended(Err(error)),
        };
    }

    /// Ends the operation: whatever it relied on was true all the time.
    pub(crate) fn end_operation(&mut self, place: usize) {
        let Operation { what, at, stage } = &mut self.operations[place];
        let Stage::Working(pin, seen) = std::mem::replace(stage, Stage::Ended(Ok(()))) else {
            panic!("only what works ends");
        };
        match what {
            What::Read => assert_eq!(self.objects.read(&at.name), seen, "nobody wrote meanwhile"),
            What::Page => self.objects.give_to_kernel(&at.name, seen),
            What::Write | What::Open => {}
        }
        drop(pin);
    }

    pub(crate) fn is_waiting(&self, place: usize) -> bool {
        matches!(self.operations[place].stage, Stage::Waiting(_))
    }

    pub(crate) fn is_working(&self, place: usize) -> bool {
        matches!(self.operations[place].stage, Stage::Working(..))
    }

    pub(crate) fn outcome(&self, place: usize) -> Option<Result<(), PinError>> {
        match self.operations[place].stage {
            Stage::Ended(outcome) => Some(outcome),
            Stage::Waiting(_) | Stage::Working(..) => None,
        }
    }

    /// The machine takes in one thing that threads told it; `false` when there is none.
    pub(crate) fn take_event(&mut self, now: Instant) -> bool {
        let Some(event) = self.shell.events.lock().pop_front() else { return false };
        match event {
            Event::Missed(missed) => {
                for (entry, want) in missed {
                    self.cache.handle_missed(&entry, want, now);
                }
            }
            Event::Abandoned(entry) => self.cache.handle_abandoned(&entry, now),
        }
        true
    }

    /// Polls one surrender; tells whether it has ended.
    pub(crate) fn poll_surrender(&mut self, place: usize, now: Instant) -> bool {
        let (entry, future) = &mut self.surrenders[place];
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(surrendered) = future.as_mut().poll(&mut context) else { return false };
        let entry = Arc::clone(entry);
        drop(self.surrenders.swap_remove(place));
        self.cache.handle_surrendered(&entry, surrendered, now);
        true
    }
}
