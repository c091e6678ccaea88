//! The grant rule: who is granted what, and when; who is called out.
//!
//! Conversions before new requests, each queue first in, first out; a new request is granted at
//! once only if it goes with everything granted and nobody waits or converts; lowering is always
//! at once; NL conflicts with nothing and never waits.

use mx_base::rules::{Rule, is_kept};

use crate::lock::{Denial, LockRef};
use crate::mode::Mode;
use crate::resource::{HomeLock, News, Notices, Phase, Queued, Resource};
use crate::value_block::ValueBlock;
use crate::violation::Violation;

impl Resource {
    /// A new lock. Without room it is denied where it would have to wait.
    pub(crate) fn request(
        &mut self,
        asked: Queued,
        phase: Phase,
        has_room: bool,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        if self.knows(asked.key) {
            return Err(Violation::LockKnown);
        }
        let unobstructed = asked.wanted == Mode::NL
            || (!self.is_waited_for() && self.is_grantable(asked.wanted, asked.key));
        match phase {
            Phase::Ready if unobstructed => self.grant(asked, notices),
            Phase::Ready if asked.no_queue => {
                notices.push(asked.key, News::Denied(Denial::WouldWait));
            }
            Phase::Ready | Phase::Rebuilding if !has_room => {
                notices.push(asked.key, News::Denied(Denial::TooManyWait));
            }
            Phase::Ready | Phase::Rebuilding => {
                self.new_queues().waiting.push_back(asked);
                self.call_out(phase, notices);
            }
        }
        Ok(())
    }

    /// A granted lock asks for a mode that it does not cover. As for a new lock without room.
    pub(crate) fn convert(
        &mut self,
        asked: Queued,
        phase: Phase,
        has_room: bool,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let lock = self.lock(asked.key)?;
        if lock.granted.covers(asked.wanted) || !asked.wanted.covers(lock.granted) {
            return Err(Violation::NotUpwards);
        }
        if self.converting().any(|queued| queued.key == asked.key) {
            return Err(Violation::LockBusy);
        }
        let unobstructed =
            self.converting().next().is_none() && self.is_grantable(asked.wanted, asked.key);
        match phase {
            Phase::Ready if unobstructed => {
                self.grant(asked, notices);
                // The stronger mode may stand in the way of whoever waits.
                self.call_out(phase, notices);
            }
            Phase::Ready if asked.no_queue => {
                notices.push(asked.key, News::Denied(Denial::WouldWait));
            }
            Phase::Ready | Phase::Rebuilding if !has_room => {
                notices.push(asked.key, News::Denied(Denial::TooManyWait));
            }
            Phase::Ready | Phase::Rebuilding => {
                self.new_queues().converting.push_back(asked);
                if is_kept(Rule::CallOutForConversion) {
                    self.call_out(phase, notices);
                }
            }
        }
        Ok(())
    }

    /// The owner uses no more than `to`; what it has queued keeps its place.
    pub(crate) fn lower(
        &mut self,
        key: LockRef,
        to: Mode,
        grants: u32,
        value: Option<Box<ValueBlock>>,
        phase: Phase,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        let lock = self.lock(key)?;
        if lock.grants != grants && is_kept(Rule::NoticeCrossingGrant) {
            // The grant of its queued conversion is on the way: the owner will find itself with
            // the higher mode, and must be taken to hold it.
            return Ok(());
        }
        if !lock.granted.covers(to) {
            return Err(Violation::NotDownwards);
        }
        self.leave_value(key, value)?;
        let lock = self.lock(key)?;
        lock.granted = to;
        lock.called_out = None;
        lock.lowers = lock.lowers.wrapping_add(1);
        self.settle(phase, notices);
        Ok(())
    }

    /// The owner is done with the lock; nothing of it is queued.
    pub(crate) fn unlock(
        &mut self,
        key: LockRef,
        value: Option<Box<ValueBlock>>,
        phase: Phase,
        notices: &mut Notices<'_>,
    ) -> Result<(), Violation> {
        self.lock(key)?;
        if self.converting().any(|queued| queued.key == key) {
            return Err(Violation::LockBusy);
        }
        self.leave_value(key, value)?;
        self.granted.retain(|lock| lock.key() != key);
        self.settle(phase, notices);
        Ok(())
    }

    /// Takes what the lock waits for out of the queue, if it still is there.
    pub(crate) fn cancel(&mut self, key: LockRef, phase: Phase, notices: &mut Notices<'_>) {
        let Some(queues) = self.queues_mut() else { return };
        let before = queues.converting.len() + queues.waiting.len();
        queues.converting.retain(|queued| queued.key != key);
        queues.waiting.retain(|queued| queued.key != key);
        if before == queues.converting.len() + queues.waiting.len() {
            return;
        }
        self.drop_empty();
        notices.push(key, News::Denied(Denial::Cancelled));
        self.settle(phase, notices);
    }

    /// Takes in a lock that its owner reports to the heir of its bucket.
    pub(crate) fn report(
        &mut self,
        key: LockRef,
        held: Option<Mode>,
        waits: Option<Queued>,
        value: Option<Box<ValueBlock>>,
        notices: &Notices<'_>,
    ) -> Result<(), Violation> {
        if self.knows(key) {
            return Err(Violation::LockKnown);
        }
        if let Some(granted) = held {
            if !self.granted.iter().all(|lock| lock.granted.compatible(granted)) {
                return Err(Violation::Incompatible);
            }
            self.granted.push(HomeLock::new(key, granted, 0, notices.now));
            if let Some(rare) = &mut self.rare {
                rare.remnants.iter_mut().for_each(|remnant| remnant.narrow(granted));
                rare.remnants.retain(|remnant| !remnant.is_over());
                self.drop_empty();
            }
            // All holders of PR have the same copy, and a holder of PW or EX the only one.
            if granted.covers(Mode::PR) && value.is_some() {
                self.set_value(value);
            }
        }
        if let Some(queued) = waits {
            let queues = self.new_queues();
            match held {
                Some(_) => queues.converting.push_back(queued),
                None => queues.waiting.push_back(queued),
            }
        }
        Ok(())
    }

    /// Everybody has reported: decide what was held back.
    pub(crate) fn complete(&mut self, notices: &mut Notices<'_>) {
        self.settle(Phase::Ready, notices);
        let Some(queues) = self.queues_mut() else { return };
        let impatient: Vec<LockRef> = queues
            .converting
            .iter()
            .chain(&queues.waiting)
            .filter(|queued| queued.no_queue)
            .map(|queued| queued.key)
            .collect();
        if impatient.is_empty() {
            return;
        }
        queues.converting.retain(|queued| !queued.no_queue);
        queues.waiting.retain(|queued| !queued.no_queue);
        self.drop_empty();
        for key in impatient {
            notices.push(key, News::Denied(Denial::WouldWait));
        }
        self.settle(Phase::Ready, notices);
    }

    /// Grants what can be granted, in order, and calls out whoever stands in the way of the rest.
    pub(crate) fn settle(&mut self, phase: Phase, notices: &mut Notices<'_>) {
        if phase == Phase::Rebuilding {
            return;
        }
        while let Some(head) = self.head().copied()
            && self.is_grantable(head.wanted, head.key)
        {
            if let Some(queues) = self.queues_mut() {
                let _ = queues.converting.pop_front().or_else(|| queues.waiting.pop_front());
            }
            self.drop_empty();
            self.grant(head, notices);
        }
        self.call_out(phase, notices);
    }

    /// Asks every lock in the way of the head to make room, once for each mode wanted.
    fn call_out(&mut self, phase: Phase, notices: &mut Notices<'_>) {
        let (Phase::Ready, Some(head)) = (phase, self.head().copied()) else { return };
        let waiters = self.converting().chain(self.waiting()).count();
        let waiters = u32::try_from(waiters).unwrap_or(u32::MAX);
        let wanted = head.wanted;
        for lock in self.granted.iter_mut() {
            let in_the_way = lock.key() != head.key && !lock.granted.compatible(wanted);
            if in_the_way && lock.called_out != Some(wanted) {
                lock.called_out = Some(wanted);
                notices.push(lock.key(), News::Callout { wanted, waiters });
            }
        }
    }

    fn grant(&mut self, asked: Queued, notices: &mut Notices<'_>) {
        let (key, mode, since) = (asked.key, asked.wanted, notices.now);
        let lowers = match self.granted.iter_mut().find(|lock| lock.key() == key) {
            Some(lock) => {
                lock.granted = mode;
                lock.called_out.take_if(|_| is_kept(Rule::CallOutAgain));
                lock.grants = lock.grants.wrapping_add(1);
                lock.since = since;
                lock.lowers
            }
            None => {
                self.granted.push(HomeLock::new(key, mode, 1, since));
                0
            }
        };
        let value = self.rare.as_ref().and_then(|rare| rare.value.clone());
        notices.push(key, News::Granted { mode, lowers, value });
    }

    /// A holder of PW or EX gives its mode up: what it leaves is the value block, also when it
    /// leaves nothing.
    fn leave_value(
        &mut self,
        key: LockRef,
        value: Option<Box<ValueBlock>>,
    ) -> Result<(), Violation> {
        if self.lock(key)?.granted.covers(Mode::PW) {
            self.set_value(value);
        } else if value.is_some() {
            return Err(Violation::ValueOfReader);
        }
        Ok(())
    }

    fn lock(&mut self, key: LockRef) -> Result<&mut HomeLock, Violation> {
        self.granted.iter_mut().find(|lock| lock.key() == key).ok_or(Violation::LockUnknown)
    }

    fn knows(&self, key: LockRef) -> bool {
        self.granted.iter().any(|lock| lock.key() == key)
            || self.waiting().any(|queued| queued.key == key)
    }
}
