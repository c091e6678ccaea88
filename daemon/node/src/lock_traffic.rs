//! Lock messages, each to and from the lock space that its frame names, and what the lock caches
//! want done.
//!
//! Keeps true: who breaks a rule in one lock space is not listened to in any. A node and a peer that
//! do not agree about who holds what have no common view of the cluster.

use std::sync::Arc;

use cluster::{Cluster, End};
use fencing::Closed;
use lcl::LockCache;
use mx_base::{Instant, Member};

use crate::backlog::Backlog;
use crate::bundles::Bundles;
use crate::file_system::FsCore;
use crate::file_systems::ForeignLockspace;
use crate::node::{Core, Node};

/// Why a lock message was not taken in.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Foreign(#[from] ForeignLockspace),
    #[error("a message of another lock space than its frame's")]
    Mislabelled,
    #[error("a message for a lock space that was not entered yet")]
    TooEarly,
    #[error(transparent)]
    Decode(#[from] lcl::DecodeError),
    #[error(transparent)]
    Handle(#[from] lcl::HandleError),
}

impl Node {
    pub(crate) fn deliver_lock(
        &self,
        core: &mut Core,
        from: Member,
        lockspace: cluster::LockspaceId,
        payload: &[u8],
        now: Instant,
    ) {
        if core.distrusted.contains(&from) {
            return;
        }
        match self.take_in(core, from, lockspace, payload, now) {
            Ok(()) => {}
            Err(Refused::Handle(error @ lcl::HandleError::TooFarBehind { .. })) => {
                tracing::error!(%from, %error, "locks cannot follow the views");
                self.end(core, End::Expelled, Closed::Contradiction);
            }
            Err(error) => {
                core.violations += 1;
                tracing::error!(%from, %error, "lock message not taken in; the sender is not spoken with any more");
                // The two do not agree about who holds what. Nothing later counts that it says, so
                // what this node holds it to have it keeps, until a view without one of the two:
                // that one is dead to the other's lock manager.
                core.distrusted.insert(from);
                core.cluster.handle_distrusted(from, now);
            }
        }
    }

    fn take_in(
        &self,
        core: &mut Core,
        from: Member,
        lockspace: cluster::LockspaceId,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Refused> {
        let fs = core.of_mut(self.config.file_systems.of_lockspace(lockspace)?);
        let (id, messages) = lcl::Bundle::decode(payload)?;
        if id != fs.local.lockspace.for_locks() {
            return Err(Refused::Mislabelled);
        }
        let locks = fs.locks.as_mut().ok_or(Refused::TooEarly)?;
        let mut messages = messages.into_iter();
        Ok(messages.try_for_each(|message| locks.handle_message(from, id, message, now))?)
    }

    pub(crate) fn carry_out_locks(&self, core: &mut Core, now: Instant) -> bool {
        let Core { file_systems, cluster, backlog, .. } = core;
        let mut moved = false;
        for fs in file_systems.values_mut() {
            moved |= self.carry_out_locks_of(fs, cluster, backlog, now);
        }
        moved
    }

    fn carry_out_locks_of(
        &self,
        fs: &mut FsCore,
        cluster: &mut Cluster,
        backlog: &mut Backlog,
        now: Instant,
    ) -> bool {
        let lockspace = fs.local.lockspace;
        let mut moved = false;
        let mut bundles = Bundles::default();
        while let Some(output) = fs.locks.as_mut().and_then(LockCache::poll_output) {
            moved = true;
            let tells_nobody = matches!(
                output,
                lcl::Output::Surrender { .. }
                    | lcl::Output::Hold { .. }
                    | lcl::Output::Claimed { .. }
            );
            if !tells_nobody && !matches!(output, lcl::Output::Send { .. }) {
                // What follows may speak to members, too: not before what was said until now.
                backlog.send_all(cluster, lockspace, &mut bundles);
            }
            match output {
                lcl::Output::Send { to, message } => {
                    if let Some(full) = bundles.add(to, lockspace.for_locks(), &message) {
                        backlog.send(cluster, to, lockspace, full);
                    }
                }
                lcl::Output::Surrender { entry, to, class, .. } => {
                    let (weak, id) = (self.weak.clone(), fs.local.given.id);
                    self.world.runtime.spawn(Box::pin(async move {
                        let surrendered = lcl::surrender(Arc::clone(&entry), to, class).await;
                        if let Some(node) = weak.upgrade() {
                            node.run_in(id, |fs, now| {
                                if let Some(locks) = &mut fs.locks {
                                    locks.handle_surrendered(&entry, surrendered, now);
                                }
                                fs.keep_locks_few();
                            });
                        }
                    }));
                }
                lcl::Output::Hold { entry, until } => {
                    let (weak, id) = (self.weak.clone(), fs.local.given.id);
                    let sleep = self.world.runtime.sleep(until.since(now));
                    self.world.runtime.spawn(Box::pin(async move {
                        sleep.await;
                        if let Some(node) = weak.upgrade() {
                            node.run_in(id, |fs, now| {
                                if let Some(locks) = &mut fs.locks {
                                    locks.handle_held(&entry, now);
                                }
                            });
                        }
                    }));
                }
                lcl::Output::Rebuilt { view } => {
                    fs.rebuilt = Some(view);
                    let locks = fs.locks.as_ref().expect("it has just rebuilt");
                    fs.local.waiters.lock().rebuilt(locks.lockspace());
                    fs.tell_rebuilt(cluster, now);
                }
                lcl::Output::Claimed { claim, verdict } => fs.claimed(claim, verdict),
                lcl::Output::Redo { dead, names } => fs.redo(dead, names),
                lcl::Output::Wanted { dead, names } => fs.wanted(dead, names),
                lcl::Output::Recovered { dead } => fs.lock_space_recovered(dead),
            }
        }
        backlog.send_all(cluster, lockspace, &mut bundles);
        moved
    }
}
