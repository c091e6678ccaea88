//! What this node does for the recovery of dead members: replaying their journals, and freeing what
//! they held once that is done or left to the next mount.

use std::sync::Arc;

use futures_channel::oneshot;
use lcl::pin::PinError;
use lcl::{BucketName, RecoveryError, ResourceName};
use mfs::mount::recover::Recovered;
use mx_base::{Duration, Instant, Member};

use crate::file_system::{FsCore, Here};
use crate::node::{Core, Node};

/// Before a replay that failed is tried again.
const REPLAY_AGAIN: Duration = Duration::from_secs(1);

/// As many recoveries of the past as the cluster tells of.
const RECOVERED_KEPT: usize = 32;

/// Who waits for what in the recovery of one dead member.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    limbo: Option<oneshot::Sender<Vec<ResourceName>>>,
    /// Of what is being replayed, what somebody has begun to wait for.
    wanted: Vec<ResourceName>,
    recovered: Vec<oneshot::Sender<()>>,
}

impl Core {
    /// Whom the cluster holds for recovered in a file system its lock space does, too, on every node
    /// by itself. When nobody used the file system any more nobody has replayed the journal yet:
    /// whoever mounts it first does, before it asks for a lock.
    pub(crate) fn mark_recovered(&mut self, now: Instant) {
        let cluster = &self.cluster;
        for (id, fs) in &mut self.file_systems {
            fs.mark_recovered(|dead| cluster.is_recovered(dead, *id), now);
        }
    }
}

impl FsCore {
    /// Dead members of which something may be left in the lock space.
    pub(crate) fn unrecovered(&self) -> impl Iterator<Item = Member> + '_ {
        let dead = self.locks.iter().flat_map(|locks| locks.lockspace().dead());
        dead.filter(|(_, facts)| !facts.recovered).map(|(member, _)| member)
    }

    fn mark_recovered(&mut self, is_over: impl Fn(Member) -> bool, now: Instant) {
        let over: Vec<Member> = self.unrecovered().filter(|dead| is_over(*dead)).collect();
        let Some(locks) = &mut self.locks else { return };
        for dead in over {
            locks.mark_recovered(dead, now);
        }
        self.local.waiters.lock().recovered(locks.lockspace(), is_over);
    }

    /// The homes have said what is in limbo.
    pub(crate) fn redo(&mut self, dead: Member, names: Vec<BucketName>) {
        let waits = self.recoveries.entry(dead).or_default();
        if let Some(limbo) = waits.limbo.take() {
            let names = names.into_iter().map(|name| name.name).collect();
            // Whoever asked has given up: the recovery is begun anew.
            let _ = limbo.send(names);
        }
    }

    /// Somebody has begun to wait for what is being replayed.
    pub(crate) fn wanted(&mut self, dead: Member, names: Vec<BucketName>) {
        if let Some(waits) = self.recoveries.get_mut(&dead) {
            waits.wanted.extend(names.into_iter().map(|name| name.name));
        }
    }

    /// See `mfs::env::Locks::wanted_of`.
    pub(crate) fn take_wanted(&mut self, dead: Member) -> Vec<ResourceName> {
        let waits = self.recoveries.get_mut(&dead);
        waits.map(|waits| std::mem::take(&mut waits.wanted)).unwrap_or_default()
    }

    /// Every member knows that nothing of `dead` is left.
    pub(crate) fn lock_space_recovered(&mut self, dead: Member) {
        let Some(waits) = self.recoveries.remove(&dead) else { return };
        // Somebody else may have finished it before this node was told what is in limbo.
        if let Some(limbo) = waits.limbo {
            let _ = limbo.send(Vec::new());
        }
        for waiting in waits.recovered {
            let _ = waiting.send(());
        }
    }
}

impl Here {
    /// What is in limbo on account of `dead`, of `names` for which it has live records.
    pub(crate) async fn limbo_of(
        &self,
        dead: Member,
        names: Vec<BucketName>,
    ) -> Result<Vec<ResourceName>, PinError> {
        let (sender, limbo) = oneshot::channel();
        let is_over = self.run(|fs, now| {
            let Some(locks) = &mut fs.locks else { return true };
            locks.abandon_recovery(dead);
            match locks.begin_recovery(dead, names, now) {
                Ok(()) => {
                    fs.recoveries.entry(dead).or_default().limbo = Some(sender);
                    false
                }
                Err(RecoveryError::NotDead(_)) => true,
                Err(error) => unreachable!("abandoned just now: {error}"),
            }
        });
        if is_over {
            return Ok(Vec::new());
        }
        limbo.await.map_err(|_| PinError::CutOff)
    }

    pub(crate) fn finish_recovery(&self, dead: Member) {
        self.run(|fs, now| {
            if let Some(locks) = &mut fs.locks
                && locks.finish_recovery(dead, now).is_err()
            {
                // Somebody else has finished it, or it was over before.
                fs.lock_space_recovered(dead);
            }
        });
    }

    /// Completes when every member knows that nothing of `dead` is left.
    async fn finished(&self, dead: Member) {
        let (sender, over) = oneshot::channel();
        let is_over = self.run(|fs, _| {
            let Some(locks) = &fs.locks else { return true };
            let is_left = locks.lockspace().recoveries().any(|(member, _)| member == dead);
            if is_left {
                fs.recoveries.entry(dead).or_default().recovered.push(sender);
            }
            !is_left
        });
        if !is_over {
            // An error says that this life is over.
            let _ = over.await;
        }
    }

    fn replayed(&self, dead: Member, recovered: Recovered) {
        self.node.run(|core, now| {
            let mounting = &mut core.of_mut(self.id()).mounting;
            mounting.replays -= 1;
            if mounting.recovered.len() == RECOVERED_KEPT {
                mounting.recovered.pop_front();
            }
            mounting.recovered.push_back((dead, recovered));
            let isolated = recovered.locks_damaged > 0;
            core.cluster.handle_replayed(dead, self.id(), isolated, now);
        });
    }
}

impl Node {
    /// Replays the journal of a dead member, as its recoverer.
    pub(crate) fn spawn_replay(&self, here: &mut FsCore, dead: Member) {
        // Without one it has just been left, and another mount is asked.
        let Some(fs) = here.mounting.fs() else { return };
        here.mounting.replays += 1;
        let (weak, id) = (self.weak.clone(), here.local.given.id);
        let runtime = Arc::clone(&self.world.runtime);
        self.world.runtime.spawn(Box::pin(async move {
            let recovered = loop {
                match fs.recover_member(dead).await {
                    Ok(recovered) => break recovered,
                    Err(error) => {
                        let Some(node) = weak.upgrade() else { return };
                        if node.look(|core| core.ended.is_some()) {
                            return;
                        }
                        tracing::error!(%dead, fs = %id, %error, "replay failed; trying again");
                        drop(node);
                        runtime.sleep(REPLAY_AGAIN).await;
                    }
                }
            };
            let Some(here) = weak.upgrade().and_then(|node| node.here(id)) else { return };
            tracing::info!(%dead, fs = %id, ?recovered, "replayed");
            here.finished(dead).await;
            here.replayed(dead, recovered);
        }));
    }
}
