//! One cached cluster lock: fast path on the word, slow path through a queue.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use dlm::{Bucket, Mode, ResourceName};

use super::word::Word;
use super::{Pin, PinError, PinFuture, Purpose, Requester, Want};
use crate::sync::{AtomicU64, Mutex};

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
            // New arrivals queue behind those who wait.
            let overtakes = want.purpose == Purpose::KernelPage && word.lets_pages_overtake();
            if word.is_waited() && !overtakes {
                return None;
            }
            let pinned = word.admit(want)?;
            match self.swap(word, pinned) {
                Ok(()) => return Some(Pin::new(Arc::clone(self), want)),
                Err(now) => word = now,
            }
        }
    }

    /// A pin, waiting for operations of this node and for other nodes as needed.
    pub fn pin(self: &Arc<Self>, want: Want) -> PinFuture {
        PinFuture::new(Arc::clone(self), want)
    }

    /// A shared pin beside one that exists, past those who wait: what the others hold keeps them
    /// waiting anyway. `None` when no shared pin exists or the mode does not cover.
    pub fn try_join(self: &Arc<Self>, mode: Mode) -> Option<Pin> {
        let want = Want::shared(mode);
        let mut word = self.load();
        loop {
            let joined = word.join(want)?;
            match self.swap(word, joined) {
                Ok(()) => return Some(Pin::new(Arc::clone(self), want)),
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

    /// Completes when no operation is alone with the lock. At most one task may wait so.
    pub async fn exclusive_drained(&self) {
        self.drained(|word| !word.is_exclusive()).await;
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
        self.close(false)
    }

    /// As [`Entry::try_close`], beside shared pins, which the mode that will be left covers
    /// ([`LockClass::leaves_pins`](crate::LockClass::leaves_pins)).
    ///
    /// # Panics
    /// When an operation holds an exclusive pin, or no surrender has begun.
    pub fn try_close_beside_pins(&self) -> bool {
        self.close(true)
    }

    fn close(&self, beside_shared: bool) -> bool {
        let _queue = self.queue.lock();
        let mut closed = false;
        self.update(|word| {
            let is_drained = word.operations() == 0 || (beside_shared && !word.is_exclusive());
            assert!(word.is_closing() && is_drained, "surrender in order: {word:?}");
            match word.close(beside_shared) {
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
        Pin::new(Arc::clone(self), want)
    }

    /// The surrender is over; the lock is held in `mode` from here on. Those who wait for more
    /// are reported to the requester by the caller: see [`Entry::wanted`].
    pub fn reopen(&self, mode: Mode) {
        let mut queue = self.queue.lock();
        self.update(|word| {
            // What a surrender leaves is shared, and relies on no more than CR.
            let is_left = !word.is_exclusive() && word.kernel_pages() == 0;
            let is_fit = word.pins() == 0 || (is_left && mode.covers(Mode::CR));
            assert!(word.is_closed() && is_fit, "reopened after a surrender: {word:?}");
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
        queue.settle_all(Err(PinError::CutOff));
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
        let mut somebody_waits = false;
        for waiter in queue.waiters.iter_mut().filter(|w| w.outcome.is_none()) {
            let mut word = self.load();
            let is_page = waiter.want.purpose == Purpose::KernelPage;
            let overtakes = is_page && word.lets_pages_overtake();
            let waits_for_cluster = !word.mode().covers(waiter.want.mode);
            if waits_for_cluster || (word.is_closing() && !overtakes) {
                continue;
            }
            // Behind one who waits for pins of this node only pages go on.
            let admitted = (!somebody_waits || overtakes)
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
                somebody_waits = true;
            }
        }
        if let Some(waker) = queue.drain.take() {
            waker.wake();
        }
        self.update(|word| word.waited(queue.is_waited()));
    }

    pub(super) fn unpin(&self, want: Want) {
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

    // --- for the wait for a pin ---

    /// Enters the queue and, if need be, lets the cluster be asked. The outcome may be there
    /// already: [`Entry::poll_ticket`] tells, and nobody is woken before it was called.
    pub(super) fn enqueue(self: &Arc<Self>, want: Want) -> u64 {
        let ticket = {
            let queue = &mut *self.queue.lock();
            let ticket = queue.next_ticket;
            queue.next_ticket += 1;
            let refusal = queue.called_out_to.filter(|to| want.no_queue && !to.covers(want.mode));
            let outcome = refusal.map(|_| Err(PinError::Busy));
            queue.waiters.push_back(Waiter { ticket, want, outcome, waker: None });
            // Set before the word is read: whoever unpins afterwards sees it.
            self.update(|word| word.waited(true));
            if self.load().is_cut_off() {
                queue.settle_all(Err(PinError::CutOff));
            }
            self.serve(queue);
            ticket
        };
        let word = self.load();
        // While a surrender is under way its end looks who waits.
        let needs_more = !word.is_closing() && !word.mode().covers(want.mode);
        if needs_more
            && !word.is_cut_off()
            && let Some(requester) = self.requester.upgrade()
        {
            requester.missed(self, want);
        }
        ticket
    }

    /// Says something to the requester, without any lock held.
    pub(super) fn tell(self: &Arc<Self>, what: impl FnOnce(&dyn Requester, &Arc<Self>)) {
        if let Some(requester) = self.requester.upgrade() {
            what(&*requester, self);
        }
    }

    /// The outcome of a wait, once; `None` while it lasts.
    pub(super) fn poll_ticket(&self, ticket: u64, waker: &Waker) -> Option<Result<(), PinError>> {
        let queue = &mut *self.queue.lock();
        let index = queue.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let index = index.expect("a waiter stays until its future is done");
        let waiter = &mut queue.waiters[index];
        if waiter.outcome.is_some() {
            return queue.waiters.remove(index)?.outcome;
        }
        waiter.waker = Some(waker.clone());
        None
    }

    /// Whoever waited does not wait any more.
    pub(super) fn give_up(self: &Arc<Self>, ticket: u64, want: Want) {
        let outcome = {
            let queue = &mut *self.queue.lock();
            let index = queue.waiters.iter().position(|waiter| waiter.ticket == ticket);
            let index = index.expect("a waiter stays until its future is done");
            let outcome = queue.waiters.remove(index).and_then(|waiter| waiter.outcome);
            // An exclusive waiter that leaves may have held others back.
            self.serve(queue);
            outcome
        };
        match outcome {
            Some(Ok(())) => self.unpin(want),
            Some(Err(_)) => {}
            None => {
                if !self.mode().covers(want.mode)
                    && let Some(requester) = self.requester.upgrade()
                {
                    requester.abandoned(self);
                }
            }
        }
    }
}

impl Queue {
    /// Ends every wait.
    fn settle_all(&mut self, outcome: Result<(), PinError>) {
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.outcome.is_none()) {
            waiter.settle(outcome);
        }
    }

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
