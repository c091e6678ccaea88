//! What a node has to say about itself, put into reports.

use std::collections::BTreeMap;

use lcl::LockCache;
use lcl::explain::ResourceState;
use mx_base::FsId;

use crate::node::{Core, Node};
use crate::report::{
    FileSystem, FsLocks, FsUsage, Homed, Lock, LockDump, Mount, Mounted, Peer, Permit, Recovery,
    RecoveryReport, Replay, ResourceFilter, State, Status, Suspicion, Usage, View, Viewer, Work,
    milliseconds, wall_milliseconds,
};

/// What the daemon knows about its node, and the node does not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// NAME of `mount -t matrixfs NAME DIR`.
    pub name: String,
    /// Label of the file system.
    pub label: String,
    /// Where it is mounted here.
    pub directory: Option<String>,
    /// Requests of the kernel since the mount, by operation.
    pub requests: BTreeMap<String, u64>,
    pub gate: crate::report::Gate,
}

impl Node {
    /// `mxctl status`.
    pub fn status(&self, around: &Surroundings) -> Status {
        let now = self.world.control.now();
        self.look(|core| {
            let cluster = &core.cluster;
            let peer = |id: &mx_base::NodeId| {
                let suspected = cluster.suspected(*id);
                Peer {
                    node: id.get(),
                    connected: cluster.reach().contains(*id),
                    suspected: suspected.map(|suspected| Suspicion {
                        since_ms: milliseconds(now.since(suspected.since)),
                        cause: format!("{:?}", suspected.cause),
                    }),
                    unacknowledged_bytes: cluster.unacked_bytes(*id) as u64,
                }
            };
            let group = core.mounting.group.iter();
            let mounts = (!core.mounting.group.is_empty()).then(|| Mount {
                fs: self.file_system(around),
                lockspace: core.mounting.group.values().find_map(|s| s.lockspace()).map(|l| l.0),
                directory: around.directory.clone(),
                slot: core.mounting.fs().map(|fs| fs.slot().0),
                members: group.map(|(member, state)| Mounted::of(*member, *state)).collect(),
            });
            Status {
                viewer: self.viewer(core, around),
                state: state(core),
                activity: cluster.activity().to_owned(),
                view: view(core),
                permit: Permit::of(cluster.permit().map(cluster::Permit::until), now),
                peers: self.config.peers.iter().map(peer).collect(),
                mounts: mounts.into_iter().collect(),
                unrecovered: core.unrecovered().map(Into::into).collect(),
                gate: around.gate.clone(),
            }
        })
    }

    /// `mxctl lock dump`: at most `limit` entries in each list.
    pub fn lock_dump(
        &self,
        around: &Surroundings,
        filter: Option<&ResourceFilter>,
        limit: usize,
    ) -> LockDump {
        let now = self.world.control.now();
        self.look(|core| {
            let mut locks = FsLocks { fs: self.file_system(around), ..FsLocks::default() };
            let wanted = |name: &lcl::ResourceName| filter.is_none_or(|f| f.matches(name));
            if let Some(cache) = &core.locks {
                for cached in cache.cached().filter(|cached| wanted(&cached.name)) {
                    locks.locks_total += 1;
                    if locks.locks.len() < limit {
                        let home = cache.lockspace().home(cached.bucket);
                        locks.locks.push(Lock::of(&cached, home));
                    }
                }
                let homed = cache.lockspace().resources();
                for state in homed.filter(|state: &ResourceState| wanted(&state.name)) {
                    locks.homed_total += 1;
                    if locks.homed.len() < limit {
                        locks.homed.push(Homed::of(&state, now));
                    }
                }
            }
            LockDump { viewer: self.viewer(core, around), file_systems: vec![locks] }
        })
    }

    /// `mxctl recovery last`.
    pub fn recovery_report(&self, around: &Surroundings) -> RecoveryReport {
        let now = self.world.control.now();
        self.look(|core| {
            let mut waiters = self.waiters.lock();
            if let Some(locks) = &core.locks {
                waiters.recovered(locks.lockspace(), |_| false);
            }
            let of = |course: &cluster::Recovery| {
                let replays = core.mounting.recovered.iter().rev();
                let replay = replays.into_iter().find(|(dead, _)| *dead == course.dead);
                let replay = replay.map(|(_, recovered)| Replay::from(*recovered));
                let known = waiters.course(course.dead, now);
                let work = known.map(|(course, delays, count, total)| {
                    Work::of(course, &delays, count, milliseconds(total))
                });
                let work = work.unwrap_or_default();
                Recovery::of(course, now, |_: FsId| {
                    (self.file_system(around), replay, work.clone())
                })
            };
            let recoveries = core.cluster.recoveries().map(of).collect();
            RecoveryReport { viewer: self.viewer(core, around), recoveries }
        })
    }

    /// `mxctl fs usage`: of what is mounted here.
    ///
    /// # Errors
    /// When the device cannot be read.
    pub async fn usage_report(&self, around: &Surroundings) -> Result<FsUsage, mfs::FsError> {
        let mut usages = Vec::new();
        if let Some(fs) = self.fs() {
            let (free, done) = (fs.statfs().await?, fs.statistics());
            let mut usage = Usage {
                fs: self.file_system(around),
                directory: around.directory.clone().unwrap_or_default(),
                block_bytes: mfs::block::BLOCK_SIZE as u64,
                blocks: free.blocks,
                blocks_free: free.blocks_free,
                inodes: free.inodes,
                inodes_free: free.inodes_free,
                groups: done.groups,
                groups_known: done.groups_known,
                journal_bytes: done.journal_bytes,
                journal_used_bytes: done.journal_used_bytes,
                cached_inodes: done.cached_inodes,
                requests: around.requests.values().sum(),
                requests_by_operation: around.requests.clone(),
                forces: done.forces,
                ..Usage::default()
            };
            self.look(|core| core.locks.as_ref().map(|locks| count_locks(&mut usage, locks)));
            usages.push(usage);
        }
        let viewer = self.look(|core| self.viewer(core, around));
        Ok(FsUsage { viewer, file_systems: usages })
    }

    /// Rules of the locks that messages of other nodes have broken.
    pub fn violations(&self) -> u64 {
        self.look(|core| core.violations)
    }

    pub(crate) fn viewer(&self, core: &Core, around: &Surroundings) -> Viewer {
        Viewer {
            node: self.config.me.node.get(),
            incarnation: core.cluster.me().map(|me| me.incarnation.0),
            cluster: self.config.cluster.to_string(),
            name: around.name.clone(),
            at_ms: wall_milliseconds(self.world.control.wall_time()),
        }
    }

    fn file_system(&self, around: &Surroundings) -> FileSystem {
        FileSystem { id: self.config.fs.to_string(), label: around.label.clone() }
    }
}

fn count_locks(usage: &mut Usage, locks: &LockCache) {
    let (cache, space) = (locks.counters(), locks.lockspace().counters());
    usage.locks_cached = locks.cached_count() as u64;
    usage.messages_sent = space.sent_total();
    let kinds = lcl::MessageKind::ALL.iter();
    usage.messages_by_kind = kinds
        .map(|kind| (format!("{kind:?}"), space.sent(*kind)))
        .filter(|(_, count)| *count > 0)
        .collect::<BTreeMap<_, _>>();
    usage.surrenders = cache.surrenders;
    usage.callouts = cache.callouts;
    usage.grants_local = space.grants_local;
    usage.grants_remote = space.grants_remote;
}

fn state(core: &Core) -> State {
    match core.ended {
        Some(end) => State::Ended { reason: end.to_string() },
        None if core.cluster.me().is_none() => State::Joining,
        None if core.is_leaving => State::Leaving,
        None => State::Member,
    }
}

fn view(core: &Core) -> Option<View> {
    let view = core.cluster.view()?;
    match core.cluster.register() {
        Some(value) if value.view == view.id => Some(View::from(value)),
        Some(_) | None => Some(View::from(view)),
    }
}
