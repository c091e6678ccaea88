//! Messages of other nodes: which count, which wait for a view, which come too late.

use mx_base::rules::{Rule, is_kept};
use mx_base::{Instant, Member};

use super::{Asking, Lockspace};
use crate::advisory::ClaimRef;
use crate::early::Early;
use crate::lock::LockRef;
use crate::message::{LockspaceId, Message, ReportedLock, Scope};
use crate::name::Bucket;
use crate::resource::Queued;
use crate::violation::{HandleError, Violation};

/// What becomes of a message.
enum Standing {
    Counts,
    /// It belongs to a view this node has not heard of.
    Early,
    /// Its sender is no member any more.
    NoMember,
    /// What it speaks of has moved on.
    Old,
}

impl Lockspace {
    /// Takes in one message that arrived over the ordered link from `from`.
    ///
    /// # Errors
    /// When the message breaks a rule that both sides know, or nothing more can be kept. The state
    /// is as before the message; going on would mean not knowing who holds what, so the caller
    /// stops this node or the link for good.
    pub fn handle_message(
        &mut self,
        from: Member,
        lockspace: LockspaceId,
        message: Message,
        now: Instant,
    ) -> Result<(), HandleError> {
        if lockspace != self.id {
            return Err(HandleError::OtherLockspace);
        }
        assert!(from != self.me, "a node does not send messages to itself");
        let kind = message.kind();
        tracing::trace!(%from, ?kind, "receive");
        let standing = self.standing(from, &message);
        match standing {
            Ok(Standing::Counts) => self.take_in(from, message, now),
            Ok(Standing::Early) if !is_kept(Rule::KeepEarlyMessages) => Ok(()),
            Ok(Standing::Early) => {
                self.counters.kept_early += 1;
                return self
                    .early
                    .keep(from, message)
                    .map_err(|_| HandleError::TooFarBehind { bytes_max: Early::BYTES_MAX });
            }
            Ok(Standing::NoMember) => {
                self.counters.dropped_no_member += 1;
                Ok(())
            }
            Ok(Standing::Old) => {
                self.counters.dropped_old += 1;
                Ok(())
            }
            Err(violation) => Err(violation),
        }
        .map_err(|violation| HandleError::Violation { from, kind, violation })
    }

    fn standing(&self, from: Member, message: &Message) -> Result<Standing, Violation> {
        if !self.view.contains(from) {
            let newest = self.newest.get(&from.node);
            // Incarnations only grow: a higher one than any view has shown is a joiner to come.
            let is_to_come = newest.is_none_or(|newest| from.incarnation > *newest);
            return Ok(if is_to_come { Standing::Early } else { Standing::NoMember });
        }
        match message.scope() {
            Scope::ToHome(at) | Scope::FromHome(at) => {
                let epoch = self.homes.epoch(at.bucket);
                if at.epoch < epoch && is_kept(Rule::DropOldEpochs) {
                    return Ok(Standing::Old);
                }
                if at.epoch > epoch {
                    let is_to_come = at.epoch > self.view.id;
                    return if is_to_come { Ok(Standing::Early) } else { Err(Violation::Epoch) };
                }
                let home = self.homes.home(at.bucket);
                match message.scope() {
                    Scope::ToHome(_) if home != Some(self.me) => Err(Violation::NotHome),
                    Scope::FromHome(_) if home != Some(from) => Err(Violation::NotFromHome),
                    Scope::ToHome(_) | Scope::FromHome(_) | Scope::View(_) => Ok(Standing::Counts),
                }
            }
            Scope::View(view) if view > self.view.id => Ok(Standing::Early),
            Scope::View(view) if view < self.view.id => Ok(match message {
                // The recoverer tells it again under the present view.
                Message::LiveNames { .. } | Message::InLimbo { .. } | Message::Released { .. } => {
                    Standing::Old
                }
                // Reports are filtered bucket by bucket; the rest is true for ever.
                Message::Report { .. }
                | Message::ReportEnd { .. }
                | Message::ClaimReport { .. }
                | Message::Trace { .. }
                | Message::Recovered { .. }
                | Message::RecoveredSeen { .. } => Standing::Counts,
                Message::Request { .. }
                | Message::Convert { .. }
                | Message::Lower { .. }
                | Message::Unlock { .. }
                | Message::Cancel { .. }
                | Message::Granted { .. }
                | Message::Denied { .. }
                | Message::Callout { .. }
                | Message::Claim { .. }
                | Message::ClaimLower { .. }
                | Message::ClaimCancel { .. }
                | Message::ClaimAnswer { .. }
                | Message::Follow { .. }
                | Message::Confirm { .. } => unreachable!("these are about a bucket"),
            }),
            Scope::View(_) => Ok(Standing::Counts),
        }
    }

    pub(super) fn take_in(
        &mut self,
        from: Member,
        message: Message,
        now: Instant,
    ) -> Result<(), Violation> {
        match message {
            Message::Request { at, lock, name, wanted, no_queue } => {
                let key = LockRef { owner: from, id: lock };
                let asked = Queued { key, wanted, no_queue, since: now };
                self.ask_home(at.bucket, name, asked, Asking::Request, now)
            }
            Message::Convert { at, lock, name, wanted, no_queue } => {
                let key = LockRef { owner: from, id: lock };
                let asked = Queued { key, wanted, no_queue, since: now };
                self.ask_home(at.bucket, name, asked, Asking::Convert, now)
            }
            Message::Lower { at, lock, name, to, grants, value } => {
                let key = LockRef { owner: from, id: lock };
                self.at_home(at.bucket, now, |home, notices| {
                    home.lower(name, key, to, grants, value, notices)
                })
            }
            Message::Unlock { at, lock, name, value } => {
                let key = LockRef { owner: from, id: lock };
                self.at_home(at.bucket, now, |home, notices| home.unlock(name, key, value, notices))
            }
            Message::Cancel { at, lock, name } => {
                let key = LockRef { owner: from, id: lock };
                self.at_home(at.bucket, now, |home, notices| {
                    home.cancel(name, key, notices);
                    Ok(())
                })
            }
            Message::Granted { lock, mode, lowers, value, .. } => {
                self.granted(lock, mode, lowers, value, now)?;
                self.counters.grants_remote += 1;
                Ok(())
            }
            Message::Denied { lock, reason, .. } => self.denied(lock, reason, now),
            Message::Callout { lock, wanted, waiters, .. } => {
                self.called_out(lock, wanted, waiters);
                Ok(())
            }
            Message::Report { epoch, locks } => locks.into_iter().try_for_each(|lock| {
                let known = self.homes.epoch(lock.bucket);
                if known > epoch {
                    // The bucket has moved again: its owner reports it again, too.
                    return Ok(());
                }
                if known < epoch {
                    return Err(Violation::Epoch);
                }
                if self.homes.home(lock.bucket) != Some(self.me) {
                    return Err(Violation::NotHome);
                }
                self.take_in_report(from, lock, now)
            }),
            Message::ReportEnd { view } => {
                self.report_ended(from, view, now);
                Ok(())
            }
            Message::LiveNames { dead, names, last, .. } => {
                self.live_names_told(from, dead, names, last, now)
            }
            Message::InLimbo { dead, names, last, .. } => {
                self.limbo_answered(from, dead, names, last)
            }
            Message::Released { dead, names, .. } => {
                self.release(dead, &names, now);
                Ok(())
            }
            Message::Recovered { dead, .. } => {
                self.mark_recovered(dead, now);
                let view = self.view.id;
                self.send(from, Message::RecoveredSeen { view, dead });
                Ok(())
            }
            Message::RecoveredSeen { dead, .. } => {
                self.recovered_seen(from, dead);
                Ok(())
            }
            Message::Claim { at, id, name, claim, stamp } => {
                self.take_in_claim(from, at, (id, name), claim, (stamp, now))
            }
            Message::ClaimLower { at, id, name, owner, span, to } => {
                let key = ClaimRef { member: from, id };
                self.lower_at_home(at.bucket, name, key, owner, (span, to));
                self.carry_on();
                Ok(())
            }
            Message::ClaimCancel { at, id, name } => {
                self.cancel_at_home(at.bucket, name, ClaimRef { member: from, id });
                self.carry_on();
                Ok(())
            }
            Message::ClaimAnswer { id, verdict, .. } => {
                self.claim_answered(id, verdict)?;
                self.carry_on();
                Ok(())
            }
            Message::ClaimReport { epoch, claims } => {
                let mut claims = claims.iter();
                claims.try_for_each(|report| self.take_in_claim_report(from, epoch, report, now))
            }
            Message::Trace { path, owner, budget, .. } => self.take_in_trace(path, owner, budget),
            Message::Follow { at, path, budget } => self.take_in_follow(at, path, budget),
            Message::Confirm { at, cycle, position } => self.take_in_confirm(at, cycle, position),
        }
    }

    pub(super) fn take_in_report(
        &mut self,
        from: Member,
        lock: ReportedLock,
        now: Instant,
    ) -> Result<(), Violation> {
        let bucket: Bucket = lock.bucket;
        let key = LockRef { owner: from, id: lock.lock };
        let waits = lock.wanted.is_some();
        self.at_home(bucket, now, |home, notices| home.report(lock, key, notices))?;
        if waits {
            self.home.waiting.begin(from);
        }
        self.counters.locks_rebuilt += 1;
        Ok(())
    }
}
