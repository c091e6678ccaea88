//! flock(2) and fcntl(2): the locks of applications.
//!
//! Keeps true:
//! * a lock that was answered is known to every node, and so is what was given up, but for what goes
//!   with the last close of an open file, for which nobody waits;
//! * a signal takes a wait back, and the answer says what came of it: EINTR only when nothing is
//!   held by it.
//!
//! The kernel keeps none of these locks itself. It tells of three ends: that an owner gives up a
//! range; that a process has closed the file, with which its fcntl locks end (FLUSH); and that an
//! open file is closed everywhere (RELEASE), with which the flock of it ends, and its own fcntl
//! locks. Of the last the kernel says nothing more, so a lock is known by the open file through
//! which it was taken, too.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use lcl::advisory::{Access, Claim, Conflict, Family, How, Owner, Span, Verdict};
use mfs::env::{Asked, LockError};
use mfs::file::FileId;
use mx_base::Member;

use crate::adapter::Shared;
use crate::errno::errno;
use crate::nodes::Node;
use crate::protocol::layout::{FileLock, LockIn, flag};
use crate::transport::{Errno, Reply};

/// What the kernel asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Lock(Access),
    Unlock,
}

/// A request of the kernel, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LockRequest {
    owner: Owner,
    via: u64,
    pid: u32,
    span: Span,
    wanted: Wanted,
}

impl LockRequest {
    /// `None` when the kernel asks for something that does not exist.
    pub(crate) fn of(asked: &LockIn) -> Option<LockRequest> {
        let FileLock { start, end, kind, pid } = asked.lock;
        let wanted = match i32::try_from(kind).ok()? {
            libc::F_RDLCK => Wanted::Lock(Access::Read),
            libc::F_WRLCK => Wanted::Lock(Access::Write),
            libc::F_UNLCK => Wanted::Unlock,
            _ => return None,
        };
        let via = asked.handle;
        if asked.flags & flag::LOCK_FLOCK != 0 {
            // It belongs to the open file, whose number is never used again, as the owner's may be.
            let owner = Owner { family: Family::Whole, id: via };
            return Some(LockRequest { owner, via, pid, span: Span::ALL, wanted });
        }
        let owner = Owner { family: Family::Ranges, id: asked.owner };
        Some(LockRequest { owner, via, pid, span: Span::new(start, end)?, wanted })
    }

    fn claim(&self, access: Access, how: How) -> Claim {
        let LockRequest { owner, via, pid, span, .. } = *self;
        Claim { owner, via, pid, span, access, how }
    }
}

impl Shared {
    /// F_GETLK.
    pub(crate) async fn test_lock(&self, node: Node, asked: LockIn, reply: Reply) {
        let Some(request) = LockRequest::of(&asked) else {
            return reply.error(Errno(libc::EINVAL));
        };
        let Wanted::Lock(access) = request.wanted else {
            return reply.error(Errno(libc::EINVAL));
        };
        let file = match self.file(node) {
            Ok(file) => file,
            Err(error) => return reply.error(errno(&error)),
        };
        let tested = self.locks.claim(file, request.claim(access, How::Test));
        match tested.outcome.await {
            Ok(Verdict::Held(conflict)) => {
                let is_here = |member: Member| self.locks.is_here(member);
                reply.structure(&told(conflict, is_here));
            }
            Ok(Verdict::Free) => {
                let kind = kind_of(libc::F_UNLCK);
                reply.structure(&FileLock { kind, ..asked.lock });
            }
            Ok(
                verdict @ (Verdict::Granted
                | Verdict::WouldWait
                | Verdict::Cancelled
                | Verdict::Deadlock
                | Verdict::TooMany),
            ) => reply.error(error_of(verdict).expect("a test grants nothing")),
            Err(error) => reply.error(refusal(error)),
        }
    }

    /// F_SETLK, F_SETLKW, flock, and what gives up.
    pub(crate) async fn set_lock(
        &self,
        node: Node,
        asked: LockIn,
        wait: bool,
        thread: u32,
        reply: Reply,
    ) {
        let Some(request) = LockRequest::of(&asked) else {
            return reply.error(Errno(libc::EINVAL));
        };
        let file = match self.file(node) {
            Ok(file) => file,
            Err(error) => return reply.error(errno(&error)),
        };
        let interrupted = reply.interrupted();
        let outcome = match request.wanted {
            Wanted::Unlock => self.locks.unclaim(file, request.owner, request.span).outcome.await,
            Wanted::Lock(access) => {
                let detect = request.owner.family == Family::Ranges;
                let how = if wait { How::Wait { detect } } else { How::Try };
                let asked = self.locks.claim(file, request.claim(access, how));
                let outcome = self.answered(asked, &interrupted).await;
                if outcome == Ok(Verdict::Deadlock) && waits_for_an_open_file(thread) {
                    // Not for an owner that others may help, says fcntl(2): it waits on.
                    let how = How::Wait { detect: false };
                    let asked = self.locks.claim(file, request.claim(access, how));
                    self.answered(asked, &interrupted).await
                } else {
                    outcome
                }
            }
        };
        match outcome {
            Ok(verdict) => match error_of(verdict) {
                None => reply.ok(),
                Some(error) => reply.error(error),
            },
            Err(error) => reply.error(refusal(error)),
        }
    }

    /// Waits for the outcome; a signal takes back what is asked for.
    async fn answered(
        &self,
        mut asked: Asked,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Verdict, LockError> {
        poll_fn(|context| {
            if let Poll::Ready(outcome) = asked.outcome.as_mut().poll(context) {
                return Poll::Ready(outcome);
            }
            if interrupted.load(Ordering::Acquire)
                && let Some(id) = asked.id.take()
            {
                self.locks.take_back(id);
                return asked.outcome.as_mut().poll(context);
            }
            Poll::Pending
        })
        .await
    }

    /// A process has closed the file: what it held of it by fcntl ends.
    pub(crate) async fn end_of_owner(&self, node: Node, owner: u64) {
        let Ok(file) = self.file(node) else { return };
        let owner = Owner { family: Family::Ranges, id: owner };
        // At the end of this life of the node all locks of it have ended.
        let _ = self.locks.unclaim(file, owner, Span::ALL).outcome.await;
    }

    /// An open file is closed everywhere: what was taken through it ends.
    pub(crate) fn end_of_open(&self, file: FileId, handle: u64) {
        self.locks.release_via(file, handle);
    }
}

/// Whoever holds it on another node has no number here.
fn told(conflict: Conflict, is_here: impl Fn(Member) -> bool) -> FileLock {
    let Conflict { holder, pid, span, access } = conflict;
    let kind = kind_of(match access {
        Access::Read => libc::F_RDLCK,
        Access::Write => libc::F_WRLCK,
    });
    let pid = if is_here(holder) { pid } else { 0 };
    FileLock { start: span.start(), end: span.end(), kind, pid }
}

fn kind_of(kind: i32) -> u32 {
    u32::try_from(kind).expect("kinds of locks are 0 to 2")
}

fn error_of(verdict: Verdict) -> Option<Errno> {
    Some(Errno(match verdict {
        Verdict::Granted => return None,
        Verdict::WouldWait => libc::EAGAIN,
        Verdict::Cancelled => libc::EINTR,
        Verdict::Deadlock => libc::EDEADLK,
        Verdict::TooMany => libc::ENOLCK,
        Verdict::Free | Verdict::Held(_) => unreachable!("nothing was tested"),
    }))
}

fn refusal(error: LockError) -> Errno {
    Errno(match error {
        LockError::TooMany => libc::ENOLCK,
        LockError::Ended => libc::EIO,
    })
}

/// Is it `F_OFD_SETLKW` that a thread is in? The kernel does not say so in its request, and such a
/// lock belongs to the open file.
fn waits_for_an_open_file(thread: u32) -> bool {
    let told = std::fs::read_to_string(format!("/proc/{thread}/syscall"));
    told.is_ok_and(|told| is_ofd_wait(&told))
}

/// What /proc/TID/syscall says: the number, then the arguments; fcntl's second one is the command.
fn is_ofd_wait(told: &str) -> bool {
    let command = told.split_whitespace().nth(2).and_then(|text| text.strip_prefix("0x"));
    let command = command.and_then(|text| u64::from_str_radix(text, 16).ok());
    command.is_some_and(|command| {
        command & 0xffff_ffff == u64::from(libc::F_OFD_SETLKW.unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use mx_base::{Incarnation, NodeId};

    use super::*;

    fn asked(kind: i32, flags: u32) -> LockIn {
        let lock = FileLock { start: 3, end: 9, kind: kind_of(kind), pid: 77 };
        LockIn { handle: 5, owner: 6, lock, flags, reserved: 0 }
    }

    #[test]
    fn a_flock_belongs_to_the_open_file_and_a_range_to_its_owner() {
        let flock = LockRequest::of(&asked(libc::F_WRLCK, flag::LOCK_FLOCK)).expect("understood");
        assert_eq!(flock.owner, Owner { family: Family::Whole, id: 5 });
        assert_eq!((flock.span, flock.wanted), (Span::ALL, Wanted::Lock(Access::Write)));
        let range = LockRequest::of(&asked(libc::F_RDLCK, 0)).expect("understood");
        assert_eq!(range.owner, Owner { family: Family::Ranges, id: 6 });
        assert_eq!((range.span.start(), range.span.end(), range.via), (3, 9, 5));
        let unlock = LockRequest::of(&asked(libc::F_UNLCK, 0)).expect("understood");
        assert_eq!(unlock.wanted, Wanted::Unlock);
    }

    #[test]
    fn what_is_no_lock_is_not_understood() {
        assert_eq!(LockRequest::of(&asked(3, 0)), None);
        let lock = FileLock { start: 9, end: 3, kind: 0, pid: 1 };
        assert_eq!(LockRequest::of(&LockIn { lock, ..asked(0, 0) }), None);
    }

    #[test]
    fn a_holder_on_another_node_has_no_process_here() {
        let holder =
            Member { node: NodeId::new(2).expect("in range"), incarnation: Incarnation(1) };
        let span = Span::new(3, 9).expect("in order");
        let conflict = Conflict { holder, pid: 77, span, access: Access::Write };
        let there = told(conflict, |_| false);
        assert_eq!((there.start, there.end, there.kind, there.pid), (3, 9, 1, 0));
        assert_eq!(told(conflict, |_| true).pid, 77);
    }

    #[test]
    fn a_wait_for_a_lock_of_an_open_file_is_told_from_others() {
        assert!(is_ofd_wait("72 0x3 0x26 0x7ffe12 0x0 0x0 0x0 0x7ffe00 0x7f00"));
        assert!(!is_ofd_wait("72 0x3 0x7 0x7ffe12 0x0 0x0 0x0 0x7ffe00 0x7f00"));
        assert!(!is_ofd_wait("running"));
        assert!(!is_ofd_wait(""));
    }
}
