//! What the machine of the cluster says, carried out in order: views, steps of recovery, mounts.
//!
//! Keeps true: see [`crate::node`]. A view is followed by every file system's locks or by none of
//! this node's: a node that cannot follow with one of them has ended.

use cluster::{End, Installed, Output, Step};
use fencing::Closed;
use mx_base::rules::{Rule, is_kept};
use mx_base::{FsId, Instant};

use crate::file_system::FsCore;
use crate::file_systems::NotEntered;
use crate::mount::Interrupted;
use crate::node::{Core, Node};

/// From the moment nothing renews a dead member's read permit until nothing it cached is in use,
/// in units: 5 for the permit, 1 for dropping the caches, 1 for the drift of clocks (R13).
const CACHES_GONE: u32 = 7;

impl Node {
    pub(crate) fn carry_out(&self, core: &mut Core, now: Instant) {
        loop {
            let mut moved = false;
            while !core.is_held_back()
                && core.ended.is_none()
                && let Some(output) = core.cluster.poll_output()
            {
                moved = true;
                self.carry_out_cluster(core, output, now);
            }
            moved |= self.carry_out_locks(core, now);
            moved |= self.carry_out_storage(core, now);
            moved |= core.backlog.flush(&mut core.cluster);
            if !moved || core.ended.is_some() {
                break;
            }
        }
    }

    fn carry_out_cluster(&self, core: &mut Core, output: Output, now: Instant) {
        let network = &self.world.network;
        match output {
            Output::Connect { peer } => network.connect(peer),
            Output::Send { connection, frame } => network.send(connection, frame),
            Output::Close { connection } => network.close(connection),
            Output::DeliverLock { from, lockspace, payload } => {
                self.deliver_lock(core, from, lockspace, &payload, now);
            }
            Output::DeliverGroup { from, lockspace, payload } => {
                match self.config.file_systems.of_lockspace(lockspace) {
                    Ok(fs) => core.of_mut(fs).announced.hear(from, &payload),
                    Err(error) => tracing::error!(%from, %error, "an announcement"),
                }
            }
            Output::ReadRegister => self.look_at_register(core),
            Output::CommitView(commit) => core.storage.commit(commit),
            Output::ViewInstalled(installed) => self.install(core, &installed, now),
            Output::PhaseChanged(value) => {
                tracing::info!(phase = ?value.phase, generation = value.generation.0, "register");
                core.mark_recovered(now);
            }
            Output::CollectJoinState { view } => {
                let blobs: Vec<_> = core.file_systems.values().map(FsCore::welcome).collect();
                core.cluster.handle_join_state(view, &blobs, now);
            }
            Output::Step(step) => self.take_step(core, step, now),
            Output::MountGranted { fs, lockspace, first } => {
                tracing::info!(%fs, lockspace = lockspace.0, first, "may mount");
                core.of_mut(fs).mounting.granted(lockspace, first);
            }
            Output::MountRevoked { fs, .. } => {
                let interrupted = core.of_mut(fs).mounting.revoked();
                tracing::info!(%fs, ?interrupted, "may not mount after all");
                if interrupted == Interrupted::Slot {
                    self.end(core, End::Expelled, Closed::SelfFenced);
                }
            }
            Output::MountGroupChanged { fs, members } => match core.file_systems.get_mut(&fs) {
                Some(here) => here.mounting.group = members,
                None => tracing::error!(%fs, "others mount what this node is not configured with"),
            },
            Output::Scoped { .. } => core.mark_recovered(now),
            Output::Recovered { dead } => {
                tracing::info!(%dead, "recovered");
                core.mark_recovered(now);
            }
            Output::Suspected { peer, cause } => match cause {
                Some(cause) => tracing::warn!(%peer, ?cause, "suspected"),
                None => tracing::info!(%peer, "heard again"),
            },
            Output::JoinRefused { by, reason } => tracing::warn!(%by, %reason, "not let in yet"),
            Output::TurnedAway { peer, refusal } => {
                tracing::warn!(%peer, %refusal, "turned away");
            }
            Output::PeerFault { peer, fault } => {
                tracing::error!(?peer, %fault, "connection closed");
            }
            Output::Ended(end) => {
                // What was to be sent before, closing words among them, is on its way.
                while let Some(output) = core.cluster.poll_output() {
                    if let Output::Send { connection, frame } = output {
                        network.send(connection, frame);
                    } else if let Output::Close { connection } = output {
                        network.close(connection);
                    }
                }
                let why = if end == End::Left { Closed::Left } else { Closed::Expelled };
                self.end(core, end, why);
            }
        }
    }

    fn install(&self, core: &mut Core, installed: &Installed, now: Instant) {
        let Installed { me, view, previous, lost, left, quiet_from, .. } = installed;
        tracing::info!(view = view.id.0, members = ?view.members(), ?lost, ?left, "view");
        core.storage.set_member(*me);
        core.backlog.retain(view);
        core.distrusted.retain(|member| view.contains(*member));
        let known = self.config.file_systems.know(installed.join_state.as_deref());
        let followed = known.map_err(NotEntered::from).and_then(|()| {
            core.file_systems.values_mut().try_for_each(|fs| fs.follow(installed, now))
        });
        if let Err(error) = followed {
            // Going on with locks that others see differently could grant what is held.
            tracing::error!(%error, "locks cannot follow the view");
            return self.end(core, End::Expelled, Closed::Contradiction);
        }
        let unit = self.config.unit.get();
        let spaces = core.file_systems.values().filter_map(|fs| fs.locks.as_ref());
        for (dead, facts) in spaces.flat_map(|locks| locks.lockspace().dead()) {
            if !facts.caches_gone {
                // Of those who were lost earlier a joiner only knows that it was before now.
                let quiet =
                    if previous.is_some() && lost.contains(&dead) { *quiet_from } else { now };
                let patience = if is_kept(Rule::AwaitCachesOfDead) { CACHES_GONE } else { 0 };
                core.caches_gone.entry(dead).or_insert(quiet + unit * patience);
            }
        }
        core.file_systems.values().for_each(FsCore::look_at_waiters);
        core.mark_recovered(now);
    }

    fn take_step(&self, core: &mut Core, step: Step, now: Instant) {
        match step {
            // The lock spaces hold what the dead held since they have followed the view.
            Step::Hold { .. } => {}
            Step::Fence { dead } => {
                tracing::info!(%dead, "fencing");
                core.storage.fence(dead, now);
            }
            Step::Rebuild { view, fs } => {
                let Core { file_systems, cluster, .. } = core;
                let Some(here) = file_systems.get_mut(&fs) else { return unknown(fs, step) };
                here.rebuild_asked = Some(view);
                here.tell_rebuilt(cluster, now);
            }
            Step::Replay { dead, fs, slot } => {
                tracing::info!(%dead, %fs, ?slot, "replaying");
                let Some(here) = core.file_systems.get_mut(&fs) else { return unknown(fs, step) };
                self.spawn_replay(here, dead);
            }
            Step::Resume { dead, fs, .. } => {
                let Some(here) = core.file_systems.get_mut(&fs) else { return unknown(fs, step) };
                if let Some(locks) = &mut here.locks {
                    locks.mark_recovered(dead, now);
                }
            }
        }
    }
}

/// Members whose lock spaces differ are not let in; see [`NotEntered`].
fn unknown(fs: FsId, step: Step) {
    tracing::error!(%fs, ?step, "a recovery in what this node is not configured with");
}
