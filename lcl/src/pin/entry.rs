//! One cached cluster lock: fast path on the word, slow path through a queue.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin as StdPin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use super::word::Word;
use super::{PinError, Purpose, Requester, Want};
use crate::sync::{AtomicU64, Mutex};
use dlm::{Bucket, Mode, ResourceName};

/// One cluster lock as this node caches it. Lives as long as somebody refers to it; while the
/// lock is held the lock cache's machine does.
pub struct Entry {
    name: ResourceName,
    bucket: Bucket,
    word: AtomicU64,
    queue: Mutex<Queue>,
    requester: Weak<dyn Requester>,
}

#[derive(Default)]
struct Queue {
    /// In order of arrival. Those that the held mode covers are served first in, first out; the
    /// others wait for the cluster and do not stand in the way.
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
    /// The surrender that waits for pins to go.
    drain: Option<Waker>,
    /// The mode that will be left of a surrender that another node asked for.
    called_out_to: Option<Mode>,
}

struct Waiter {
    ticket: u64,
    want: Want,
    outcome: Option<Result<(), PinError>>,
    waker: Option<Waker>,
}

impl Entry {
    pub(super) fn new(
        name: ResourceName,
        bucket: Bucket,
        requester: Weak<dyn Requester>,
    ) -> Arc<Entry> {
        Arc::new(Entry {
            name,
            bucket,
            word: AtomicU64::new(Word::UNLOCKED.0),
            queue: Mutex::new(Queue::default()),
            requester,
        })
    }

    pub fn name(&self) -> ResourceName {
        self.name
    }

    pub fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// The mode this node may use; NL while it holds nothing.
    pub fn mode(&self) -> Mode {
        self.load().mode()
    }

    /// A surrender is under way: what the kernel is told now must not be cached.
    pub fn is_closing(&self) -> bool {
        self.load().is_closing()
    }

    /// A pin, if the lock is cached in a sufficient mode and nobody stands in the way.
    pub fn try_pin(self: &Arc<Self>, want: Want) -> Option<Pin> {
        let mut word = self.load();
        loop {
            // New arrivals queue behind those who wait, except for pages that a surrender is
            // waiting for.
            if word.is_waited() && !(want.purpose == Purpose::KernelPage && word.is_closing()) {
                return None;
            }
            let pinned = word.admit(want)?;
            match self.swap(word, pinned) {
                Ok(()) => return Some(Pin { entry: Arc::clone(self), want }),
                Err(now) => word = now,
            }
        }
    }

    /// A pin, waiting for operations of this node and for other nodes as needed.
    pub fn pin(self: &Arc<Self>, want: Want) -> PinFuture {
        PinFuture { entry: Arc::clone(self), want, ticket: None, done: false }
    }

    /// A shared pin beside one that exists, past those who wait: what the others hold keeps them
    /// waiting anyway. `None` when no shared pin exists or the mode does not cover.
    pub fn try_join(self: &Arc<Self>, mode: Mode) -> Option<Pin> {
        let want = Want::shared(mode);
        let mut word = self.load();
        loop {
            let joined = word.join(want)?;
            match self.swap(word, joined) {
                Ok(()) => return Some(Pin { entry: Arc::clone(self), want }),
                Err(now) => word = now,
            }
        }
    }

    // --- for the lock cache's machine and the surrender ---

    /// The cluster lock was granted in `mode`: serve those who waited for it.
    pub fn raise(&self, mode: Mode) {
        let mut queue = self.queue.lock();
        self.update(|word| {
            assert!(!word.is_closing(), "a lock is not granted while it is surrendered: {word:?}");
            assert!(mode.covers(word.mode()), "a grant raises the mode: {word:?} to {mode}");
            word.with_mode(mode)
        });
        self.serve(&mut queue);
    }

    /// A surrender begins: operations are no longer admitted.
    pub fn begin_close(&self) {
        let mut queue = self.queue.lock();
        self.update(|word| word.closing().unserved());
        // Pages that queued behind operations overtake them: the surrender will wait for them.
        self.serve(&mut queue);
    }

    /// Another node asks for the surrender that has begun, and `to` will be left: those who would
    /// not wait for other nodes, and need more, fail.
    ///
    /// # Panics
    /// When no surrender has begun.
    pub fn call_out(&self, to: Mode) {
        let queue = &mut *self.queue.lock();
        assert!(self.load().is_closing(), "a callout is answered by a surrender");
        queue.called_out_to = Some(to);
        let is_refused = |want: Want| want.no_queue && !to.covers(want.mode);
        for waiter in queue.waiters.iter_mut().filter(|w| w.outcome.is_none()) {
            if is_refused(waiter.want) {
                waiter.settle(Err(PinError::Busy));
            }
        }
        self.update(|word| word.waited(queue.is_waited()));
    }

    /// Completes when no operation holds a pin. At most one task may wait so.
    pub async fn operations_drained(&self) {
        self.drained(|word| word.operations() == 0).await;
    }

    /// Completes when no kernel page is being served. At most one task may wait so.
    pub async fn kernel_pages_drained(&self) {
        self.drained(|word| word.kernel_pages() == 0).await;
    }

    /// Marks the entry closed, unless a kernel page was served since the last call or
    /// [`Entry::begin_close`]; that page must be invalidated first.
    ///
    /// # Panics
    /// When an operation still holds a pin, or no surrender has begun.
    pub fn try_close(&self) -> bool {
        let _queue = self.queue.lock();
        let mut closed = false;
        self.update(|word| {
            assert!(word.is_closing() && word.operations() == 0, "surrender in order: {word:?}");
            match word.close() {
                Some(word) => {
                    closed = true;
                    word
                }
                None => {
                    closed = false;
                    word.unserved()
                }
            }
        });
        closed
    }

    /// A pin in the mode that is still held, for the flush of the surrender: it is the only one and
    /// is not counted. [`LockClass::flush`](crate::LockClass::flush) drops it before it returns.
    ///
    /// # Panics
    /// When the entry is not closed.
    pub fn surrender_pin(self: &Arc<Self>) -> Pin {
        let word = self.load();
        assert!(word.is_closed(), "only a surrender pins a closed lock: {word:?}");
        let want = Want {
            mode: word.mode(),
            exclusive: true,
            purpose: Purpose::Surrender,
            no_queue: false,
        };
        Pin { entry: Arc::clone(self), want }
    }

    /// The surrender is over; the lock is held in `mode` from here on. Those who wait for more
    /// are reported to the requester by the caller: see [`Entry::wanted`].
    pub fn reopen(&self, mode: Mode) {
        let mut queue = self.queue.lock();
        self.update(|word| {
            assert!(word.is_closed() && word.pins() == 0, "reopened after a surrender: {word:?}");
            assert!(word.mode().covers(mode), "a surrender lowers: {word:?} to {mode}");
            word.reopened(mode)
        });
        queue.called_out_to = None;
        self.serve(&mut queue);
    }

    /// What has to be asked for next, together with what is held: the mode of the first who would
    /// not wait, alone, so that it is not refused for another's sake; if there is none, the weakest
    /// mode that would satisfy everybody.
    pub fn wanted(&self) -> Option<Want> {
        let queue = self.queue.lock();
        let held = self.mode();
        let mut patient: Option<Want> = None;
        for waiter in queue.uncovered(held) {
            let want = Want { mode: held.join(waiter.want.mode), ..waiter.want };
            if want.no_queue {
                return Some(want);
            }
            let mode = patient.map_or(want.mode, |all| all.mode.join(want.mode));
            patient = Some(Want { mode, ..patient.unwrap_or(want) });
        }
        patient
    }

    /// How many wait, for other nodes and for pins of this one.
    pub fn waiters(&self) -> usize {
        self.queue.lock().waiters.iter().filter(|waiter| waiter.outcome.is_none()).count()
    }

    /// The cluster refused `mode` without queueing: those fail who would not wait and need it, or
    /// more, beside what is held.
    pub fn refuse(&self, mode: Mode) {
        let queue = &mut *self.queue.lock();
        let held = self.mode();
        for waiter in &mut queue.waiters {
            let Waiter { want, outcome: None, .. } = waiter else { continue };
            let needs = held.join(want.mode);
            if want.no_queue && needs != held && needs.covers(mode) {
                waiter.settle(Err(PinError::Busy));
            }
        }
        self.update(|word| word.waited(queue.is_waited()));
    }

    /// Was the entry pinned since the last call?
    pub fn take_accessed(&self) -> bool {
        if !self.load().is_accessed() {
            return false;
        }
        self.update(Word::unaccessed);
        true
    }

    /// Nobody holds a pin, nobody waits, and no surrender is under way; may change at any time.
    pub fn is_idle(&self) -> bool {
        let word = self.load();
        word.pins() == 0 && !word.is_waited() && !word.is_closing()
    }

    /// Pins of operations and of kernel pages, at some moment during the call.
    pub fn pins(&self) -> (u64, u64) {
        let word = self.load();
        (word.operations(), word.kernel_pages())
    }

    /// This node holds no locks any more: everybody who waits or comes later fails. Pins that
    /// exist stay until they are dropped; what they were for is stopped by the gate.
    pub fn cut_off(&self) {
        let queue = &mut *self.queue.lock();
        self.update(Word::cut_off);
        for waiter in &mut queue.waiters {
            if waiter.outcome.is_none() {
                waiter.settle(Err(PinError::CutOff));
            }
        }
        self.update(|word| word.waited(queue.is_waited()));
    }

    // --- inside ---

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> Result<(), Word> {
        self.word
            .compare_exchange_weak(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .map(|_| ())
            .map_err(Word)
    }

    fn update(&self, mut change: impl FnMut(Word) -> Word) {
        let mut word = self.load();
        while let Err(now) = self.swap(word, change(word)) {
            word = now;
        }
    }

    /// Gives pins to those who wait, in order, as far as the rule admits them.
    fn serve(&self, queue: &mut Queue) {
        let mut blocked = false;
        for waiter in queue.waiters.iter_mut().filter(|w| w.outcome.is_none()) {
            let mut word = self.load();
            let overtakes = waiter.want.purpose == Purpose::KernelPage && word.is_closing();
            let waits_for_cluster = !word.mode().covers(waiter.want.mode);
            if waits_for_cluster || (word.is_closing() && !overtakes) {
                continue;
            }
            // Behind one who waits for pins of this node only pages of a surrender go on.
            let admitted = (!blocked || overtakes)
                && loop {
                    match word.admit(waiter.want) {
                        None => break false,
                        Some(pinned) => match self.swap(word, pinned) {
                            Ok(()) => break true,
                            Err(now) => word = now,
                        },
                    }
                };
            if admitted {
                waiter.settle(Ok(()));
            } else if waiter.want.no_queue {
                // The cluster agrees, this node's own operations are in the way.
                waiter.settle(Err(PinError::Busy));
            } else if !overtakes {
                blocked = true;
            }
        }
        if let Some(waker) = queue.drain.take() {
            waker.wake();
        }
        self.update(|word| word.waited(queue.is_waited()));
    }

    fn unpin(&self, want: Want) {
        let mut word = self.load();
        loop {
            match self.swap(word, word.release(want)) {
                Ok(()) => break,
                Err(now) => word = now,
            }
        }
        if word.is_waited() {
            self.serve(&mut self.queue.lock());
        }
    }

    async fn drained(&self, is_drained: impl Fn(Word) -> bool) {
        std::future::poll_fn(|context| {
            let queue = &mut *self.queue.lock();
            // Set before the word is read: whoever unpins afterwards sees it.
            self.update(|word| word.waited(true));
            if is_drained(self.load()) {
                queue.drain = None;
                self.update(|word| word.waited(queue.is_waited()));
                Poll::Ready(())
            } else {
                queue.drain = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    /// Enters the queue; `Ok` when the pin could be given after all.
    fn enqueue(&self, want: Want, waker: &Waker) -> Result<(), u64> {
        let mut queue = self.queue.lock();
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        let (outcome, waker) = (None, Some(waker.clone()));
        queue.waiters.push_back(Waiter { ticket, want, outcome, waker });
        self.update(|word| word.waited(true));
        let refusal = if self.load().is_cut_off() {
            Some(PinError::CutOff)
        } else {
            // Set only while a surrender is under way.
            let lacks = |to: Mode| want.no_queue && !to.covers(want.mode);
            queue.called_out_to.filter(|to| lacks(*to)).map(|_| PinError::Busy)
        };
        if let Some(error) = refusal {
            queue.waiters.back_mut().expect("just pushed").settle(Err(error));
            self.update(|word| word.waited(queue.is_waited()));
            return Err(ticket);
        }
        self.serve(&mut queue);
        let granted = queue.waiters.back().is_some_and(|w| w.outcome == Some(Ok(())));
        if granted {
            queue.waiters.pop_back();
            self.update(|word| word.waited(queue.is_waited()));
            return Ok(());
        }
        Err(ticket)
    }
}

impl Queue {
    /// Those who wait for the cluster.
    fn uncovered(&self, held: Mode) -> impl Iterator<Item = &Waiter> {
        let waits = move |w: &&Waiter| w.outcome.is_none() && !held.covers(w.want.mode);
        self.waiters.iter().filter(waits)
    }

    fn is_waited(&self) -> bool {
        self.drain.is_some() || self.waiters.iter().any(|w| w.outcome.is_none())
    }
}

impl Waiter {
    fn settle(&mut self, outcome: Result<(), PinError>) {
        self.outcome = Some(outcome);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.name, self.load())
    }
}

/// The right to rely on a cluster lock in a mode until dropped.
pub struct Pin {
    entry: Arc<Entry>,
    want: Want,
}

impl Pin {
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The mode that the pin guarantees; the node may hold more.
    pub fn mode(&self) -> Mode {
        self.want.mode
    }

    pub fn is_exclusive(&self) -> bool {
        self.want.exclusive
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.entry.unpin(self.want);
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?} {:?})", self.entry.name, self.want)
    }
}

/// A wait for a pin; dropping it gives the place in the queue up.
#[must_use = "a future does nothing unless polled"]
pub struct PinFuture {
    entry: Arc<Entry>,
    want: Want,
    ticket: Option<u64>,
    done: bool,
}

impl Future for PinFuture {
    type Output = Result<Pin, PinError>;

    fn poll(mut self: StdPin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.done, "polled after completion");
        let this = &mut *self;
        let Some(ticket) = this.ticket else {
            if let Some(pin) = this.entry.try_pin(this.want) {
                this.done = true;
                return Poll::Ready(Ok(pin));
            }
            match this.entry.enqueue(this.want, context.waker()) {
                Ok(()) => {
                    this.done = true;
                    let entry = Arc::clone(&this.entry);
                    return Poll::Ready(Ok(Pin { entry, want: this.want }));
                }
                Err(ticket) => this.ticket = Some(ticket),
            }
            let word = this.entry.load();
            if !word.is_closing()
                && !word.is_cut_off()
                && !word.mode().covers(this.want.mode)
                && let Some(requester) = this.entry.requester.upgrade()
            {
                requester.missed(&this.entry, this.want);
            }
            return this.poll_ticket(context);
        };
        debug_assert_eq!(this.ticket, Some(ticket));
        this.poll_ticket(context)
    }
}

impl PinFuture {
    fn poll_ticket(&mut self, context: &mut Context<'_>) -> Poll<Result<Pin, PinError>> {
        let queue = &mut *self.entry.queue.lock();
        let index = queue.waiters.iter().position(|w| Some(w.ticket) == self.ticket);
        let Some(index) = index else { unreachable!("a waiter stays until its future is done") };
        match queue.waiters[index].outcome {
            None => {
                queue.waiters[index].waker = Some(context.waker().clone());
                Poll::Pending
            }
            Some(outcome) => {
                queue.waiters.remove(index);
                self.done = true;
                let entry = Arc::clone(&self.entry);
                Poll::Ready(outcome.map(|()| Pin { entry, want: self.want }))
            }
        }
    }
}

impl Drop for PinFuture {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.filter(|_| !self.done) else { return };
        let mut queue = self.entry.queue.lock();
        let Some(index) = queue.waiters.iter().position(|w| w.ticket == ticket) else { return };
        let waiter = queue.waiters.remove(index);
        if waiter.is_some_and(|w| w.outcome == Some(Ok(()))) {
            drop(queue);
            self.entry.unpin(self.want);
            return;
        }
        // An exclusive waiter that leaves may have held others back.
        self.entry.serve(&mut queue);
        drop(queue);
        if !self.entry.mode().covers(self.want.mode)
            && let Some(requester) = self.entry.requester.upgrade()
        {
            requester.abandoned(&self.entry);
        }
    }
}

impl fmt::Debug for PinFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinFuture({:?} {:?})", self.entry.name, self.want)
    }
}
