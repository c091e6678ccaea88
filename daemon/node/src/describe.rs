//! What a node has to say about itself, put into reports.

use std::collections::{BTreeMap, BTreeSet};

use lcl::LockCache;
use lcl::explain::ResourceState;
use mfs::fsck::online::Cursor;
use mx_base::{FsId, Instant, Member};

use crate::file_system::FsCore;
use crate::node::{Core, Node};
use crate::report;
use crate::report::{
    CheckCursor, Damage, FileSystem, FsCheck, FsDamage, FsLocks, FsTrim, FsUsage, Homed, Isolated,
    Lock, LockDump, LockLook, Mount, Mounted, Peer, Permit, Problem, Recovery, RecoveryReport,
    Replay, ResourceFilter, State, Status, Suspicion, Usage, View, Viewer, Work, milliseconds,
    wall_milliseconds,
};

/// What the daemon knows about its node, and the node does not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// NAME of `mount -t matrixfs NAME DIR`.
    pub name: String,
    pub file_systems: BTreeMap<FsId, Place>,
    pub gate: crate::report::Gate,
}

/// What the daemon knows about one file system.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    pub label: String,
    /// Where it is mounted here.
    pub directory: Option<String>,
    /// Requests of the kernel since the mount, by operation.
    pub requests: BTreeMap<String, u64>,
}

impl Surroundings {
    fn of(&self, fs: FsId) -> Place {
        self.file_systems.get(&fs).cloned().unwrap_or_default()
    }

    fn file_system(&self, fs: FsId) -> FileSystem {
        FileSystem { id: fs.to_string(), label: self.of(fs).label }
    }
}

/// Groups that one request to trim goes through.
const TRIM_GROUPS: u64 = 16;

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
            let mounts = core.file_systems.iter().filter_map(|(id, fs)| {
                let group = &fs.mounting.group;
                (!group.is_empty()).then(|| Mount {
                    fs: around.file_system(*id),
                    lockspace: group.values().find_map(|s| s.lockspace()).map(|l| l.0),
                    directory: around.of(*id).directory,
                    slot: fs.mounting.fs().map(|fs| fs.slot().0),
                    members: group.iter().map(|(member, s)| Mounted::of(*member, *s)).collect(),
                })
            });
            let unrecovered: BTreeSet<_> =
                core.file_systems.values().flat_map(FsCore::unrecovered).collect();
            Status {
                viewer: self.viewer(core, around),
                state: state(core),
                activity: cluster.activity().to_owned(),
                view: view(core),
                permit: Permit::of(cluster.permit().map(cluster::Permit::until), now),
                peers: self.config.peers.iter().map(peer).collect(),
                mounts: mounts.collect(),
                unrecovered: unrecovered.into_iter().map(Into::into).collect(),
                gate: around.gate.clone(),
            }
        })
    }

    /// `mxctl lock dump`: at most `limit` entries in each list of each file system.
    pub fn lock_dump(
        &self,
        around: &Surroundings,
        filter: Option<&ResourceFilter>,
        limit: usize,
    ) -> LockDump {
        let now = self.world.control.now();
        self.look(|core| {
            let wanted = |name: &lcl::ResourceName| filter.is_none_or(|f| f.matches(name));
            let dump = |(id, fs): (&FsId, &FsCore)| {
                let mut locks = FsLocks { fs: around.file_system(*id), ..FsLocks::default() };
                let Some(cache) = &fs.locks else { return locks };
                for cached in cache.cached().filter(|cached| wanted(&cached.name)) {
                    locks.locks_total += 1;
                    if locks.locks.len() < limit {
                        let home = cache.lockspace().home(cached.bucket);
                        locks.locks.push(Lock::of(&cached, home));
                    }
                }
                let look = LockLook { space: cache.lockspace(), cluster: &core.cluster, now };
                locks.file_locks = look.list(wanted, limit);
                let homed = cache.lockspace().resources();
                for state in homed.filter(|state: &ResourceState| wanted(&state.name)) {
                    locks.homed_total += 1;
                    if locks.homed.len() < limit {
                        locks.homed.push(Homed::of(&state, now));
                    }
                }
                locks
            };
            let file_systems = core.file_systems.iter().map(dump).collect();
            LockDump { viewer: self.viewer(core, around), file_systems }
        })
    }

    /// `mxctl recovery last`.
    pub fn recovery_report(&self, around: &Surroundings) -> RecoveryReport {
        let now = self.world.control.now();
        self.look(|core| {
            for fs in core.file_systems.values() {
                if let Some(locks) = &fs.locks {
                    fs.local.waiters.lock().recovered(locks.lockspace(), |_| false);
                }
            }
            let of = |course: &cluster::Recovery| {
                Recovery::of(course, now, |id: FsId| {
                    let known = core.file_systems.get(&id);
                    let (replay, work) = known.map_or_else(Default::default, |fs| {
                        (fs.replay_of(course.dead), fs.work_for(course.dead, now))
                    });
                    (around.file_system(id), replay, work)
                })
            };
            let recoveries = core.cluster.recoveries().map(of).collect();
            RecoveryReport { viewer: self.viewer(core, around), recoveries }
        })
    }

    /// `mxctl fs usage`: of what is mounted here.
    ///
    /// # Errors
    /// When a device cannot be read.
    pub async fn usage_report(&self, around: &Surroundings) -> Result<FsUsage, mfs::FsError> {
        let mut usages = Vec::new();
        for id in self.locals.keys() {
            let Some(fs) = self.fs(*id) else { continue };
            let (free, done, place) = (fs.statfs().await?, fs.statistics(), around.of(*id));
            let mut usage = Usage {
                fs: around.file_system(*id),
                directory: place.directory.unwrap_or_default(),
                block_bytes: mfs::block::BLOCK_SIZE as u64,
                blocks: free.blocks,
                blocks_free: free.blocks_free,
                inodes: free.inodes,
                inodes_free: free.inodes_free,
                groups: done.groups,
                groups_known: done.groups_known,
                journal_bytes: done.journal_bytes,
                journal_used_bytes: done.journal_used_bytes,
                frozen_at_ms: fs.frozen_since().map(wall_milliseconds),
                cached_inodes: done.cached_inodes,
                requests: place.requests.values().sum(),
                requests_by_operation: place.requests,
                forces: done.forces,
                ..Usage::default()
            };
            self.look(|core| {
                usage.payloads_sent = core.backlog.sent();
                core.of(*id).locks.as_ref().map(|locks| count_locks(&mut usage, locks))
            });
            usages.push(usage);
        }
        let viewer = self.look(|core| self.viewer(core, around));
        Ok(FsUsage { viewer, file_systems: usages })
    }

    /// `mxctl fs trim`: of a file system that is mounted here, some groups from `from` on, free runs of
    /// at least `minimum` bytes. What was removed before the request with `from` 0 is included.
    ///
    /// # Errors
    /// [`mfs::ops::TrimError`]; `None` when it is not mounted.
    pub async fn trim(
        &self,
        id: FsId,
        around: &Surroundings,
        from: u64,
        minimum: u64,
    ) -> Option<Result<FsTrim, mfs::ops::TrimError>> {
        let fs = self.fs(id)?;
        let groups = fs.layout().group_count;
        let end = from.saturating_add(TRIM_GROUPS).min(groups);
        let minimum = minimum.div_ceil(mfs::block::BLOCK_SIZE_U64);
        if from == 0
            && let Err(error) = fs.sync().await
        {
            return Some(Err(error.into()));
        }
        let trimmed = match fs.trim(from..end, minimum).await {
            Ok(trimmed) => trimmed,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(FsTrim {
            viewer: self.look(|core| self.viewer(core, around)),
            fs: around.file_system(id),
            directory: around.of(id).directory.unwrap_or_default(),
            groups,
            next: (end < groups).then_some(end),
            bytes: trimmed.blocks * mfs::block::BLOCK_SIZE_U64,
            groups_skipped: trimmed.skipped,
        }))
    }

    /// `mxctl fs check --online`: a piece of a file system that is mounted here; with `data` also the
    /// blocks of files.
    ///
    /// # Errors
    /// [`mfs::fsck::online::OnlineError`]; `None` when it is not mounted.
    pub async fn check(
        &self,
        id: FsId,
        around: &Surroundings,
        from: CheckCursor,
        data: bool,
    ) -> Option<Result<FsCheck, mfs::fsck::online::OnlineError>> {
        let fs = self.fs(id)?;
        let from = Cursor { group: from.group, chunk: from.chunk };
        let piece = match fs.check_online(from, data).await {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        let told =
            |problem: mfs::fsck::Problem| Problem { object: problem.object, what: problem.what };
        Some(Ok(FsCheck {
            viewer: self.look(|core| self.viewer(core, around)),
            fs: around.file_system(id),
            directory: around.of(id).directory.unwrap_or_default(),
            groups: fs.layout().group_count,
            next: piece.next.map(|Cursor { group, chunk }| CheckCursor { group, chunk }),
            problems: piece.problems.into_iter().map(told).collect(),
            inodes: piece.inodes,
            directories: piece.directories,
            entries: piece.entries,
            data_bytes: piece.data_blocks * mfs::block::BLOCK_SIZE_U64,
            skipped: piece.skipped,
        }))
    }

    /// `mxctl fs freeze`: of a file system that is mounted here.
    ///
    /// # Errors
    /// [`mfs::freeze::FreezeError`]; `None` when it is not mounted.
    pub async fn freeze(
        &self,
        id: FsId,
        patience: std::time::Duration,
        lasts: std::time::Duration,
    ) -> Option<Result<(), mfs::freeze::FreezeError>> {
        let fs = self.fs(id)?;
        Some(fs.freeze(patience, lasts).await)
    }

    /// `mxctl fs thaw`: was it frozen by this node? `None` when it is not mounted.
    pub fn thaw(&self, id: FsId) -> Option<bool> {
        Some(self.fs(id)?.thaw())
    }

    /// Does a change have to wait here, for this node or another one has frozen the file system?
    pub fn is_frozen(&self, id: FsId) -> bool {
        self.fs(id).is_some_and(|fs| fs.is_frozen())
    }

    /// `mxctl fs damage`: of what is mounted here.
    pub fn damage_report(&self, around: &Surroundings) -> FsDamage {
        let of = |id: &FsId| {
            let isolated = |(resource, why): (mfs::locks::Resource, String)| Isolated {
                resource: report::resource_text(&resource.name()),
                why,
            };
            let objects = self.fs(*id)?.damage().into_iter().map(isolated).collect();
            let directory = around.of(*id).directory.unwrap_or_default();
            Some(Damage { fs: around.file_system(*id), directory, objects })
        };
        let file_systems = self.locals.keys().filter_map(of).collect();
        FsDamage { viewer: self.look(|core| self.viewer(core, around)), file_systems }
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
}

impl FsCore {
    fn replay_of(&self, dead: Member) -> Option<Replay> {
        let mut replays = self.mounting.recovered.iter().rev();
        replays.find(|(of, _)| *of == dead).map(|(_, recovered)| Replay::from(*recovered))
    }

    fn work_for(&self, dead: Member, now: Instant) -> Work {
        let waiters = self.local.waiters.lock();
        let known = waiters.course(dead, now);
        let work = known.map(|(course, delays, count, total)| {
            Work::of(course, &delays, count, milliseconds(total))
        });
        work.unwrap_or_default()
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
