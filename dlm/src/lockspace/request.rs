//! What the owner of locks asks for: request, convert, lower, unlock, cancel.

use mx_base::Instant;

use super::{Asking, Lockspace};
use crate::lock::{LockId, LockRef};
use crate::message::Message;
use crate::mode::Mode;
use crate::name::{Bucket, ResourceName};
use crate::requester::{Asked, OwnLock, TooManyLocks};
use crate::resource::Queued;
use crate::value_block::ValueBlock;

/// A home on this node refused what this node checked before.
const SELF_CONSISTENT: &str = "this node asks its own home only what its locks allow";

impl Lockspace {
    /// Asks for a new lock. The outcome is an `Output::Ast`; with `no_queue` it comes without
    /// waiting for other holders. Denied, the lock is gone.
    pub fn request(
        &mut self,
        name: ResourceName,
        bucket: Bucket,
        wanted: Mode,
        no_queue: bool,
        now: Instant,
    ) -> Result<LockId, TooManyLocks> {
        let asked = Asked { wanted, no_queue, is_cancelled: false };
        let lock = self.own.insert(name, bucket, asked, now)?;
        let key = LockRef { owner: self.me, id: lock };
        match self.homes.home(bucket) {
            Some(home) if home == self.me => {
                let asked = Queued { key, wanted, no_queue, since: now };
                self.ask_home(bucket, name, asked, Asking::Request, now).expect(SELF_CONSISTENT);
            }
            Some(home) => {
                let at = self.at(bucket);
                self.send(home, Message::Request { at, lock, name, wanted, no_queue });
            }
            // No view yet: the first one brings a home, and it is reported there.
            None => {}
        }
        Ok(lock)
    }

    /// Asks for a stronger mode. The lock keeps what it holds meanwhile; the outcome is an
    /// `Output::Ast`.
    ///
    /// # Panics
    /// When the lock is not granted, something of it is outstanding, or `wanted` is not stronger
    /// than the mode held.
    pub fn convert(&mut self, lock: LockId, wanted: Mode, no_queue: bool, now: Instant) {
        let own = self.settled(lock);
        let held = own.held.expect("a lock is converted after its first grant");
        assert!(
            wanted.covers(held) && wanted != held,
            "a conversion goes upwards: {held} to {wanted}"
        );
        own.asked = Some(Asked { wanted, no_queue, is_cancelled: false });
        own.since = now;
        let (name, bucket) = (own.name, own.bucket);
        let key = LockRef { owner: self.me, id: lock };
        let home = self.homes.home(bucket).expect("a lock was granted by a home");
        if home == self.me {
            let asked = Queued { key, wanted, no_queue, since: now };
            self.ask_home(bucket, name, asked, Asking::Convert, now).expect(SELF_CONSISTENT);
        } else {
            let at = self.at(bucket);
            self.send(home, Message::Convert { at, lock, name, wanted, no_queue });
        }
    }

    /// Gives up all but `to`, from now on. A conversion that is outstanding stays so: its grant
    /// may follow, also when it was on the way already.
    ///
    /// From PW and EX `value` is what the next holder gets; `None` tells that nobody can vouch for
    /// it. From other modes it has to be `None`.
    ///
    /// # Panics
    /// When the mode held does not cover `to`, or is `to`.
    pub fn lower(&mut self, lock: LockId, to: Mode, value: Option<ValueBlock>, now: Instant) {
        let own = self.own.get_mut(lock).expect("a lock is lowered before it is unlocked");
        let held = own.held.expect("a lock is lowered after its first grant");
        assert!(held.covers(to) && held != to, "a lowering goes downwards: {held} to {to}");
        let writer = held.covers(Mode::PW);
        assert!(writer || value.is_none(), "only a holder of PW or EX leaves a value: {held}");
        let value = value.map(Box::new);
        own.held = Some(to);
        own.since = now;
        own.lowers = own.lowers.wrapping_add(1);
        if writer {
            own.value.clone_from(&value);
        }
        if !to.covers(Mode::PR) {
            own.value = None;
        }
        let (name, bucket, grants) = (own.name, own.bucket, own.grants);
        let key = LockRef { owner: self.me, id: lock };
        let home = self.homes.home(bucket).expect("a lock was granted by a home");
        if home == self.me {
            self.at_home(bucket, now, |home, notices| {
                home.lower(name, key, to, grants, value, notices)
            })
            .expect(SELF_CONSISTENT);
        } else {
            let at = self.at(bucket);
            self.send(home, Message::Lower { at, lock, name, to, grants, value });
        }
    }

    /// Gives the lock up. `value` as in [`Lockspace::lower`].
    ///
    /// # Panics
    /// When the lock is not granted, or something of it is outstanding.
    pub fn unlock(&mut self, lock: LockId, value: Option<ValueBlock>, now: Instant) {
        let own = self.settled(lock);
        let held = own.held.expect("a lock is unlocked after its first grant");
        assert!(
            held.covers(Mode::PW) || value.is_none(),
            "only a holder of PW or EX leaves a value: {held}"
        );
        let (name, bucket, value) = (own.name, own.bucket, value.map(Box::new));
        self.own.remove(lock);
        let key = LockRef { owner: self.me, id: lock };
        let home = self.homes.home(bucket).expect("a lock was granted by a home");
        if home == self.me {
            self.at_home(bucket, now, |home, notices| home.unlock(name, key, value, notices))
                .expect(SELF_CONSISTENT);
        } else {
            let at = self.at(bucket);
            self.send(home, Message::Unlock { at, lock, name, value });
        }
    }

    /// Takes back what is outstanding for the lock. The outcome is an `Output::Ast` all the same:
    /// denied, or granted if that came first. Does nothing when nothing is outstanding.
    pub fn cancel(&mut self, lock: LockId, now: Instant) {
        let Some(own) = self.own.get_mut(lock) else { return };
        let Some(asked) = own.asked.as_mut().filter(|asked| !asked.is_cancelled) else { return };
        asked.is_cancelled = true;
        let (name, bucket) = (own.name, own.bucket);
        let key = LockRef { owner: self.me, id: lock };
        match self.homes.home(bucket) {
            Some(home) if home == self.me => {
                self.at_home(bucket, now, |home, notices| {
                    home.cancel(name, key, notices);
                    Ok(())
                })
                .expect(SELF_CONSISTENT);
            }
            Some(home) => {
                let at = self.at(bucket);
                self.send(home, Message::Cancel { at, lock, name });
            }
            // Never sent: the first view finds it cancelled.
            None => {}
        }
    }

    fn settled(&mut self, lock: LockId) -> &mut OwnLock {
        let own = self.own.get_mut(lock).expect("a lock is used before it is unlocked");
        assert!(own.asked.is_none(), "one request or conversion of a lock at a time");
        own
    }
}
