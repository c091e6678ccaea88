//! Fences under way: marked at once, answered when they are true for good.

use std::time::Instant;

use mx_base::Member;
use rustix::io::Errno;
use tracing::{info, warn};

use fencing::Victim;

use super::Serving;
use super::session::Peer;
use crate::arbiter::protocol::Status;

/// A fence that has been asked for and not been answered.
#[derive(Debug)]
pub(super) struct PendingFence {
    pub(super) session: usize,
    id: u64,
    victim: Victim,
    /// The table of this version must be durable.
    version: u64,
    begun: Instant,
}

impl Serving<'_> {
    /// From here on nothing of the victim is begun; what waits is dropped.
    pub(super) fn begin_fence(&mut self, position: usize, id: u64, by: Member, victim: Victim) {
        self.table.fence(victim);
        self.store_table();
        let is_victim = |peer: Option<Peer>| {
            peer.and_then(|peer| peer.member).is_some_and(|m| victim.includes(m))
        };
        let mut dropped = 0_u32;
        for other in 0..self.sessions.len() {
            let Some(session) = &mut self.sessions[other] else { continue };
            if !is_victim(session.peer) {
                continue;
            }
            let member = session.peer.and_then(|peer| peer.member).expect("a victim is a member");
            for (id, request) in std::mem::take(&mut session.queue) {
                dropped += 1;
                self.refuse_fenced(other, id, member, request);
            }
        }
        let executing = self.writes_of(victim);
        info!(%victim, %by, dropped, executing, "fence begins");
        self.counters.fences += 1;
        let version = self.table.version();
        let begun = Instant::now();
        self.fences.push(PendingFence { session: position, id, victim, version, begun });
    }

    /// Answers the fences that have become true for good.
    pub(super) fn answer_fences(&mut self) {
        let (stored, mut answered) = (self.stored, Vec::new());
        let executing: Vec<u32> = self.fences.iter().map(|f| self.writes_of(f.victim)).collect();
        let mut executing = executing.into_iter();
        self.fences.retain(|fence| {
            let ended = executing.next() == Some(0) && fence.version <= stored;
            if ended {
                info!(victim = %fence.victim, waited_ms = fence.begun.elapsed().as_millis(), "fenced");
                answered.push((fence.session, fence.id));
            }
            !ended
        });
        for (session, id) in answered {
            self.reply(session, id, Status::Done);
        }
    }

    /// Fences that could not be made durable are refused; the victim stays cut off for the time
    /// being all the same.
    pub(super) fn fail_fences(&mut self, failed: u64, errno: Errno) {
        let (stored, mut refused) = (self.stored, Vec::new());
        self.fences.retain(|fence| {
            let fails = fence.version > stored && fence.version <= failed;
            if fails {
                warn!(victim = %fence.victim, %errno, "a fence cannot be stored");
                refused.push((fence.session, fence.id));
            }
            !fails
        });
        let errno = u32::try_from(errno.raw_os_error()).expect("errnos are positive");
        for (session, id) in refused {
            self.reply(session, id, Status::Io { errno });
        }
    }

    fn writes_of(&self, victim: Victim) -> u32 {
        let of_victim =
            self.executing_writes.iter().filter(|(member, _)| victim.includes(**member));
        of_victim.map(|(_, count)| count).sum()
    }
}
