//! One cached cluster lock: fast path on the word, slow path through a queue.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use dlm::{Bucket, Mode, ResourceName};
use smallvec::SmallVec;

use super::word::Word;
use super::{Pin, PinError, PinFuture, Purpose, Requester, Want};
use crate::sync::{AtomicU32, AtomicU64, Mutex};

/// No place at all: [`Entry::place`].
const NOWHERE: u32 = u32::MAX;

/// One cluster lock as this node caches it. Lives as long as somebody refers to it; while the
/// lock is held the lock cache's machine does.
///
/// There is one for each cached lock, so whatever only a wait or a surrender needs is on the heap.
pub struct Entry {
    word: AtomicU64,
    queue: Mutex<QueueSlot>,
    /// Of the table, for all its entries.
    requester: Arc<Weak<dyn Requester>>,
    name: ResourceName,
    bucket: Bucket,
    /// See [`Entry::place`].
    place: AtomicU32,
    /// Two entries that are made one after the other are 128 bytes apart, with what an `Arc` and an
    /// allocator add: what is nearer two processors take from each other, line by line.
    _apart: [u64; 2],
}

#[derive(Default)]
struct QueueSlot {
    next_ticket: u32,
    /// `None` when nobody waits and no surrender is under way that was called out.
    queue: Option<Box<Queue>>,
}

#[derive(Default)]
struct Queue {
    /// In order of arrival. Those that the held mode covers are served first in, first out; the
    /// others wait for the cluster and do not stand in the way.
    waiters: SmallVec<[Waiter; 1]>,
    /// The surrender that waits for pins to go.
    drain: Option<Waker>,
    /// The mode that will be left of a surrender that another node asked for.
    called_out_to: Option<Mode>,
}

struct Waiter {
    ticket: u32,
    want: Want,
    outcome: Option<Result<(), PinError>>,
    waker: Option<Waker>,
}

impl Entry {
    pub(super) fn new(
        name: ResourceName,
        bucket: Bucket,
        requester: Arc<Weak<dyn Requester>>,
    ) -> Arc<Entry> {
        Arc::new(Entry {
            word: AtomicU64::new(Word::UNLOCKED.0),
            queue: Mutex::new(QueueSlot::default()),
            requester,
            name,
            bucket,
            place: AtomicU32::new(NOWHERE),
            _apart: [0; 2],
        })
    }

    /// Where the lock cache's machine keeps what it knows of the entry; `None` when it knows
    /// nothing. Only the machine asks and tells.
    pub(crate) fn place(&self) -> Option<u32> {
        Some(self.place.load(Ordering::Relaxed)).filter(|place| *place != NOWHERE)
    }

    pub(crate) fn set_place(&self, place: Option<u32>) {
        self.place.store(place.unwrap_or(NOWHERE), Ordering::Relaxed);
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
        let mut slot = self.queue.lock();
        let queue = slot.get();
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
        if let Some(queue) = &mut queue.queue {
            queue.called_out_to = None;
        }
        self.serve(&mut queue);
        queue.tidy();
    }

    /// What has to be asked for next, together with what is held: the mode of the first who would
    /// not wait, alone, so that it is not refused for another's sake; if there is none, the weakest
    /// mode that would satisfy everybody.
    pub fn wanted(&self) -> Option<Want> {
        let slot = self.queue.lock();
        let held = self.mode();
        let mut patient: Option<Want> = None;
        for waiter in slot.queue.iter().flat_map(|queue| queue.uncovered(held)) {
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
        let slot = self.queue.lock();
        let waiters = slot.queue.iter().flat_map(|queue| &queue.waiters);
        waiters.filter(|waiter| waiter.outcome.is_none()).count()
    }

    /// The cluster refused `mode` without queueing: those fail who would not wait and need it, or
    /// more, beside what is held.
    pub fn refuse(&self, mode: Mode) {
        let mut slot = self.queue.lock();
        let Some(queue) = &mut slot.queue else { return };
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
        let mut slot = self.queue.lock();
        self.update(Word::cut_off);
        if let Some(queue) = &mut slot.queue {
            queue.settle_all(Err(PinError::CutOff));
        }
        self.update(|word| word.waited(slot.is_waited()));
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
    fn serve(&self, slot: &mut QueueSlot) {
        let Some(queue) = &mut slot.queue else {
            return self.update(|word| word.waited(false));
        };
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
            let mut slot = self.queue.lock();
            let queue = slot.get();
            // Set before the word is read: whoever unpins afterwards sees it.
            self.update(|word| word.waited(true));
            if is_drained(self.load()) {
                queue.drain = None;
                self.update(|word| word.waited(queue.is_waited()));
                slot.tidy();
                Poll::Ready(())
            } else {
                queue.drain = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }

    // --- for the wait for a pin ---

    /// Enters the queue and, if need be, lets the cluster be asked.
    pub(super) fn enqueue(self: &Arc<Self>, want: Want) -> u32 {
        let ticket = self.join_queue(want);
        if self.needs_more(want) {
            self.tell(|requester, entry| requester.missed(entry, want));
        }
        ticket
    }

    /// Enters the queue. The outcome may be there already: [`Entry::poll_ticket`] tells, and
    /// nobody is woken before it was called.
    pub(super) fn join_queue(&self, want: Want) -> u32 {
        let mut slot = self.queue.lock();
        let ticket = slot.next_ticket;
        // Far fewer wait at once.
        slot.next_ticket = ticket.wrapping_add(1);
        let queue = slot.get();
        let refusal = queue.called_out_to.filter(|to| want.no_queue && !to.covers(want.mode));
        let outcome = refusal.map(|_| Err(PinError::Busy));
        queue.waiters.push(Waiter { ticket, want, outcome, waker: None });
        // Set before the word is read: whoever unpins afterwards sees it.
        self.update(|word| word.waited(true));
        if self.load().is_cut_off() {
            queue.settle_all(Err(PinError::CutOff));
        }
        self.serve(&mut slot);
        ticket
    }

    /// Does the cluster have to be asked for somebody who has just entered the queue? While a
    /// surrender is under way its end looks who waits.
    pub(super) fn needs_more(&self, want: Want) -> bool {
        let word = self.load();
        !word.is_closing() && !word.mode().covers(want.mode) && !word.is_cut_off()
    }

    /// Says something to the requester, without any lock held.
    pub(super) fn tell(self: &Arc<Self>, what: impl FnOnce(&dyn Requester, &Arc<Self>)) {
        if let Some(requester) = self.requester.upgrade() {
            what(&*requester, self);
        }
    }

    /// The outcome of a wait, once; `None` while it lasts.
    pub(super) fn poll_ticket(&self, ticket: u32, waker: &Waker) -> Option<Result<(), PinError>> {
        let mut slot = self.queue.lock();
        let queue = slot.get();
        let index = queue.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let index = index.expect("a waiter stays until its future is done");
        let waiter = &mut queue.waiters[index];
        if waiter.outcome.is_some() {
            let outcome = queue.waiters.remove(index).outcome;
            slot.tidy();
            return outcome;
        }
        waiter.waker = Some(waker.clone());
        None
    }

    /// Whoever waited does not wait any more.
    pub(super) fn give_up(self: &Arc<Self>, ticket: u32, want: Want) {
        let outcome = {
            let mut slot = self.queue.lock();
            let queue = slot.get();
            let index = queue.waiters.iter().position(|waiter| waiter.ticket == ticket);
            let index = index.expect("a waiter stays until its future is done");
            let outcome = queue.waiters.remove(index).outcome;
            // An exclusive waiter that leaves may have held others back.
            self.serve(&mut slot);
            slot.tidy();
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

impl QueueSlot {
    fn get(&mut self) -> &mut Queue {
        self.queue.get_or_insert_default()
    }

    /// Frees the queue when it says nothing.
    fn tidy(&mut self) {
        self.queue.take_if(|queue| {
            queue.waiters.is_empty() && queue.drain.is_none() && queue.called_out_to.is_none()
        });
    }

    fn is_waited(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.is_waited())
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
