//! What this node does for the recovery of dead members: replaying their journals, and clearing
//! the lock space of those who left no journal that matters.

use std::sync::Arc;

use futures_channel::oneshot;
use lcl::pin::PinError;
use lcl::{BucketName, RecoveryError, ResourceName};
use mfs::mount::recover::Recovered;
use mx_base::{Duration, Member};

use crate::node::{Core, Node};

/// Before a replay that failed is tried again.
const REPLAY_AGAIN: Duration = Duration::from_secs(1);

/// As many recoveries of the past as the cluster tells of.
const RECOVERED_KEPT: usize = 32;

/// Who waits for what in the recovery of one dead member.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    limbo: Option<oneshot::Sender<Vec<ResourceName>>>,
    recovered: Vec<oneshot::Sender<()>>,
}

impl Core {
    /// Dead members of which something may be left in the lock space.
    pub(crate) fn unrecovered(&self) -> impl Iterator<Item = Member> + '_ {
        let dead = self.locks.iter().flat_map(|locks| locks.lockspace().dead());
        dead.filter(|(_, facts)| !facts.recovered).map(|(member, _)| member)
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
    /// What is in limbo on account of `dead`, of `names` for which it has live records.
    pub(crate) async fn limbo_of(
        &self,
        dead: Member,
        names: Vec<BucketName>,
    ) -> Result<Vec<ResourceName>, PinError> {
        let (sender, limbo) = oneshot::channel();
        let is_over = self.run(|core, now| {
            let Some(locks) = &mut core.locks else { return true };
            let mut begun = locks.begin_recovery(dead, names.clone(), now);
            if let Err(RecoveryError::UnderWay(_)) = begun {
                locks.abandon_recovery(dead);
                begun = locks.begin_recovery(dead, names, now);
            }
            match begun {
                Ok(()) => {
                    core.recoveries.entry(dead).or_default().limbo = Some(sender);
                    false
                }
                // Perhaps not everybody has been told yet; that goes on.
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

    /// Dead members that nobody replays, because nobody had the file system mounted when they
    /// died: whoever mounts it first has replayed every journal, and now clears what the lock
    /// space keeps of them. The lowest member that uses the file system does.
    pub(crate) fn claim_unclaimed(&self, core: &mut Core) {
        if !core.mounting.is_lowest_user(self.config.me) {
            return;
        }
        for dead in core.unrecovered().filter(|dead| core.cluster.is_recovered(*dead)) {
            let Some(node) = self.weak.upgrade() else { return };
            self.world.runtime.spawn(Box::pin(async move { node.clear(dead).await }));
        }
    }

    /// Frees what a dead member held that has left no journal to replay.
    pub(crate) async fn clear(&self, dead: Member) {
        if self.limbo_of(dead, Vec::new()).await.is_ok() {
            self.finish_recovery(dead);
            self.finished(dead).await;
        }
    }
}
