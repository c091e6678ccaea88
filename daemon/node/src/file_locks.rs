//! The locks of applications (flock, fcntl) on a file system of this node.
//!
//! Keeps true: who waits is answered once, or told that this life of the node is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::oneshot;
use lcl::advisory::{Claim, ClaimId, Owner, Span, TooManyClaims, Verdict};
use lcl::{Bucket, LockCache, ResourceName};
use mfs::env::{Asked, FileLocks, LockError};
use mfs::file::FileId;
use mfs::locks::Resource;
use mx_base::{FsId, Instant, Member};

use crate::file_system::{FsCore, Here};
use crate::node::Node;

/// See [`FileLocks`].
struct NodeFileLocks {
    here: Here,
    /// Zero only while nothing is held or asked for.
    some: AtomicUsize,
}

impl Node {
    /// The locks of applications on a file system; `None` when the cluster has no such one.
    pub fn file_locks(self: &Arc<Self>, fs: FsId) -> Option<Arc<dyn FileLocks>> {
        let here = self.here(fs)?;
        Some(Arc::new(NodeFileLocks { here, some: AtomicUsize::new(0) }))
    }
}

impl FsCore {
    /// Whoever waits for it learns what became of a claim.
    pub(crate) fn claimed(&mut self, claim: ClaimId, verdict: Verdict) {
        if let Some(waiting) = self.claims.remove(&claim) {
            // Nobody waits for what was given up by the end of an open file.
            let _ = waiting.send(verdict);
        }
    }

    /// Nobody uses the file system here any more.
    pub(crate) fn release_claims(&mut self, now: Instant) {
        if let Some(locks) = &mut self.locks {
            locks.release_all_claims(now);
        }
    }
}

impl NodeFileLocks {
    fn place(&self, file: FileId) -> (ResourceName, Bucket) {
        let resource = Resource::Inode(file.inode);
        (resource.name(), resource.bucket(&self.here.local.given.layout))
    }

    fn ask(
        &self,
        act: impl FnOnce(&mut LockCache, Instant) -> Option<Result<Option<ClaimId>, TooManyClaims>>,
    ) -> Asked {
        let (sender, answered) = oneshot::channel();
        let asked = self.here.run(|fs, now| {
            let locks = fs.locks.as_mut()?;
            let asked = act(locks, now)?;
            self.count(locks);
            if let Ok(Some(id)) = asked {
                fs.claims.insert(id, sender);
            }
            Some(asked)
        });
        let (id, at_once) = match asked {
            None => (None, Err(LockError::Ended)),
            Some(Err(TooManyClaims)) => (None, Err(LockError::TooMany)),
            Some(Ok(None)) => (None, Ok(Verdict::Granted)),
            Some(Ok(Some(id))) => {
                let outcome = Box::pin(async move { answered.await.map_err(|_| LockError::Ended) });
                return Asked { id: Some(id), outcome };
            }
        };
        Asked { id, outcome: Box::pin(std::future::ready(at_once)) }
    }

    fn count(&self, locks: &LockCache) {
        let (held, asked) = locks.lockspace().claims_count();
        self.some.store(held + asked, Ordering::Release);
    }
}

impl FileLocks for NodeFileLocks {
    fn claim(&self, file: FileId, claim: Claim) -> Asked {
        let (name, bucket) = self.place(file);
        self.ask(|locks, now| Some(locks.claim(name, bucket, claim, now)?.map(Some)))
    }

    fn unclaim(&self, file: FileId, owner: Owner, span: Span) -> Asked {
        if self.some.load(Ordering::Acquire) == 0 {
            return Asked { id: None, outcome: Box::pin(std::future::ready(Ok(Verdict::Granted))) };
        }
        let (name, bucket) = self.place(file);
        self.ask(|locks, now| locks.unclaim(name, bucket, owner, span, now))
    }

    fn release_via(&self, file: FileId, via: u64) {
        if self.some.load(Ordering::Acquire) == 0 {
            return;
        }
        let (name, bucket) = self.place(file);
        self.here.run(|fs, now| {
            if let Some(locks) = &mut fs.locks {
                locks.release_via(name, bucket, via, now);
                self.count(locks);
            }
        });
    }

    fn take_back(&self, claim: ClaimId) {
        self.here.run(|fs, now| {
            if let Some(locks) = &mut fs.locks {
                locks.take_claim_back(claim, now);
            }
        });
    }

    fn is_here(&self, member: Member) -> bool {
        self.here.node.config().me == member
    }
}
