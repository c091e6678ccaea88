//! What this node does for the recovery of dead members: replaying their journals, and freeing what
//! they held once that is done or left to the next mount.

use std::sync::Arc;

use futures_channel::oneshot;
use lcl::pin::PinError;
use lcl::{BucketName, RecoveryError, ResourceName};
use mfs::mount::recover::Recovered;
use mx_base::{Duration, Instant, Member};

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
    /// Dead members of which something may be left in the lock space.
    pub(crate) fn unrecovered(&self) -> impl Iterator<Item = Member> + '_ {
        let dead = self.locks.iter().flat_map(|locks| locks.lockspace().dead());
        dead.filter(|(_, facts)| !facts.recovered).map(|(member, _)| member)
    }

    /// Whom the cluster holds for recovered the lock space does, too, on every node by itself. When
    /// nobody used the file system any more nobody has replayed the journal yet: whoever mounts it
    /// first does, before it asks for a lock.
    pub(crate) fn mark_recovered(&mut self, now: Instant) {
        let is_over = |dead: &Member| self.cluster.is_recovered(*dead);
        let over: Vec<Member> = self.unrecovered().filter(is_over).collect();
        for dead in over {
            if let Some(locks) = &mut self.locks {
                locks.mark_recovered(dead, now);
            }
        }
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

impl Node {
    /// See [`Core::mark_recovered`].
    pub(crate) fn mark_recovered(&self, core: &mut Core, now: Instant) {
        core.mark_recovered(now);
        if let Some(locks) = &core.locks {
            let is_over = |dead| core.cluster.is_recovered(dead);
            self.waiters.lock().recovered(locks.lockspace(), is_over);
        }
    }

    /// What is in limbo on account of `dead`, of `names` for which it has live records.
    pub(crate) async fn limbo_of(
        &self,
        dead: Member,
        names: Vec<BucketName>,
    ) -> Result<Vec<ResourceName>, PinError> {
        let (sender, limbo) = oneshot::channel();
        let is_over = self.run(|core, now| {
            let Some(locks) = &mut core.locks else { return true };
            locks.abandon_recovery(dead);
            match locks.begin_recovery(dead, names, now) {
                Ok(()) => {
                    core.recoveries.entry(dead).or_default().limbo = Some(sender);
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
        self.run(|core, now| {
            if let Some(locks) = &mut core.locks
                && locks.finish_recovery(dead, now).is_err()
            {
                // Somebody else has finished it, or it was over before.
                core.lock_space_recovered(dead);
            }
        });
    }

    /// Completes when every member knows that nothing of `dead` is left.
    async fn finished(&self, dead: Member) {
        let (sender, over) = oneshot::channel();
        let is_over = self.run(|core, _| {
            let Some(locks) = &core.locks else { return true };
            let is_left = locks.lockspace().recoveries().any(|(member, _)| member == dead);
            if is_left {
                core.recoveries.entry(dead).or_default().recovered.push(sender);
            }
            !is_left
        });
        if !is_over {
            // An error says that this life is over.
            let _ = over.await;
        }
    }

    /// Replays the journal of a dead member, as its recoverer.
    pub(crate) fn spawn_replay(&self, core: &mut Core, dead: Member) {
        // Without one it has just been left, and another mount is asked.
        let Some(fs) = core.mounting.fs() else { return };
        core.mounting.replays += 1;
        let weak = self.weak.clone();
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
                        tracing::error!(%dead, %error, "replay failed; trying again");
                        drop(node);
                        runtime.sleep(REPLAY_AGAIN).await;
                    }
                }
            };
            let Some(node) = weak.upgrade() else { return };
            tracing::info!(%dead, ?recovered, "replayed");
            node.finished(dead).await;
            node.replayed(dead, recovered);
        }));
    }

    fn replayed(&self, dead: Member, recovered: Recovered) {
        self.run(|core, now| {
            core.mounting.replays -= 1;
            if core.mounting.recovered.len() == RECOVERED_KEPT {
                core.mounting.recovered.pop_front();
            }
            core.mounting.recovered.push_back((dead, recovered));
            let isolated = recovered.locks_damaged > 0;
            core.cluster.handle_replayed(dead, self.config.fs, isolated, now);
        });
    }
}
