//! Mounting a file system on this node, and giving it up.
//!
//! Keeps true:
//! * nothing is written under a grant that was revoked: writes that were under way have ended when
//!   the cluster hears more of this node;
//! * a mount that cannot be left in order ends this life of the node, so that others recover it;
//!   so does one that is given up half way when it has begun to write to its slot.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use cluster::{LockspaceId, MountState};
use fencing::Closed;
use futures_channel::oneshot;
use mfs::env::{Env, KernelCache};
use mfs::error::{DiskError, FsError};
use mfs::fs::{Fs, Options};
use mfs::mount::recover::Recovered;
use mfs::mount::{MountError as FsMountError, Mounted};
use mx_base::{Duration, FsId, Instant, Member};

use crate::file_system::{FsCore, Here};
use crate::fs_locks::NodeLocks;
use crate::group::NodeGroup;
use crate::node::{Core, Node};
use crate::revocable::{Revocable, RevocableDisk};

/// Between two looks at whether all locks have been given up.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// How long locks have to be given up by an unmount.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// Why a file system is not mounted here.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("this node is no member of the cluster")]
    Ended,
    #[error(transparent)]
    Cluster(cluster::MountError),
    #[error(transparent)]
    Fs(#[from] FsMountError),
    #[error("this node is not configured with file system {0}")]
    Unknown(FsId),
    #[error("nothing is mounted here")]
    NotMounted,
    #[error("this node is leaving the cluster")]
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Grant {
    lockspace: LockspaceId,
    first: bool,
}

/// How far a mount of a file system is on this node.
#[derive(Default)]
pub(crate) struct Mounting {
    grant: Option<Grant>,
    waiting: Option<oneshot::Sender<()>>,
    attempt: Option<Attempt>,
    /// Outputs of the cluster are held back until writes under a revoked grant have ended.
    is_held_back: bool,
    mounted: Option<Mounted>,
    /// Journals that this mount is replaying.
    pub(crate) replays: u32,
    /// Who else has it.
    pub(crate) group: BTreeMap<Member, MountState>,
    /// What the recoveries of this node have done; those that ended last come last.
    pub(crate) recovered: VecDeque<(Member, Recovered)>,
}

struct Attempt {
    disk: Arc<Revocable>,
    stop: Option<oneshot::Sender<()>>,
    /// Something may be in its journal.
    has_begun: bool,
}

/// What a revocation has interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupted {
    Nothing,
    /// Writes under the grant are under way still.
    Writes,
    /// What is in its journal has to be replayed by others.
    Slot,
}

impl Mounting {
    pub(crate) fn granted(&mut self, lockspace: LockspaceId, first: bool) {
        self.grant = Some(Grant { lockspace, first });
        if let Some(waiting) = self.waiting.take() {
            let _ = waiting.send(());
        }
    }

    pub(crate) fn revoked(&mut self) -> Interrupted {
        self.grant = None;
        self.stop();
        let Some(attempt) = self.attempt.take() else { return Interrupted::Nothing };
        let is_writing = attempt.disk.revoke();
        if is_writing {
            self.hold_back();
        }
        match attempt.has_begun {
            true => Interrupted::Slot,
            false if is_writing => Interrupted::Writes,
            false => Interrupted::Nothing,
        }
    }

    /// Until [`Node::go_on`].
    pub(crate) fn hold_back(&mut self) {
        self.is_held_back = true;
    }

    /// Whoever mounts looks at once whether it still may.
    fn stop(&mut self) {
        self.waiting = None;
        if let Some(stop) = self.attempt.as_mut().and_then(|attempt| attempt.stop.take()) {
            let _ = stop.send(());
        }
    }

    /// This node leaves: a mount that has begun with its slot is completed first.
    pub(crate) fn leaving(&mut self) {
        if !self.attempt.as_ref().is_some_and(|attempt| attempt.has_begun) {
            self.stop();
        }
    }

    pub(crate) fn slot_begun(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.has_begun = true;
        }
    }

    pub(crate) fn fs(&self) -> Option<Arc<Fs>> {
        self.mounted.as_ref().map(|mounted| Arc::clone(&mounted.fs))
    }

    pub(crate) fn take_mounted(&mut self) -> Option<Mounted> {
        self.waiting = None;
        self.attempt = None;
        self.mounted.take()
    }
}

impl Core {
    pub(crate) fn is_held_back(&self) -> bool {
        self.file_systems.values().any(|fs| fs.mounting.is_held_back)
    }
}

impl Node {
    /// Mounts a file system. Waits until the cluster lets this node.
    ///
    /// # Errors
    /// [`MountError`]; nothing is mounted then.
    pub async fn mount(
        self: &Arc<Self>,
        fs: FsId,
        options: Options,
        kernel: Arc<dyn KernelCache>,
    ) -> Result<Arc<Fs>, MountError> {
        let here = self.here(fs).ok_or(MountError::Unknown(fs))?;
        here.mount(options, kernel).await
    }

    /// Unmounts: everything is in place, the slot is clean, and every lock is given up. The caller
    /// has ended all operations and keeps nothing of the file system.
    ///
    /// # Errors
    /// When something could not be written: this life of the node has ended then, and the others
    /// recover what it left.
    pub async fn unmount(self: &Arc<Self>, fs: FsId) -> Result<(), MountError> {
        let here = self.here(fs).ok_or(MountError::Unknown(fs))?;
        here.unmount().await
    }

    /// What is mounted of a file system.
    pub fn fs(&self, fs: FsId) -> Option<Arc<Fs>> {
        self.look(|core| core.file_systems.get(&fs)?.mounting.fs())
    }

    /// The last write under a revoked grant has ended.
    pub(crate) fn go_on(&self, fs: FsId) {
        self.run_in(fs, |fs, _| fs.mounting.is_held_back = false);
    }

    /// Waits until this node is a member.
    async fn is_joined(&self) -> Result<(), MountError> {
        loop {
            let (joined, ended) =
                self.look(|core| (core.cluster.me().is_some(), core.ended.is_some()));
            if ended {
                return Err(MountError::Ended);
            }
            if joined {
                return Ok(());
            }
            self.world.runtime.sleep(LOOK_AGAIN * 5).await;
        }
    }
}

impl Here {
    async fn mount(
        &self,
        options: Options,
        kernel: Arc<dyn KernelCache>,
    ) -> Result<Arc<Fs>, MountError> {
        let (node, fs) = (&self.node, self.id());
        node.is_joined().await?;
        node.run(|core, now| core.cluster.handle_mount(fs, now)).map_err(MountError::Cluster)?;
        let outcome = self.mount_when_granted(options, kernel).await;
        if outcome.is_err() {
            self.give_attempt_up().await;
            self.give_locks_up().await;
            self.give_grant_up();
        }
        outcome
    }

    /// The next mount has to be granted anew: others may be the first meanwhile.
    fn give_grant_up(&self) {
        self.node.run(|core, now| {
            core.of_mut(self.id()).mounting.grant = None;
            core.cluster.handle_unmounted(self.id(), now);
        });
    }

    /// A mount has failed: nothing of it writes any more when this completes.
    async fn give_attempt_up(&self) {
        // It stays where a revocation finds it: what others are told then waits for its writes.
        let begun = |fs: &mut FsCore, _: Instant| {
            fs.mounting.attempt.as_ref().map(|a| (Arc::clone(&a.disk), a.has_begun))
        };
        let Some((disk, has_begun)) = self.run(begun) else { return };
        disk.revoke();
        if has_begun {
            self.node.cut_off(Closed::SelfFenced);
        }
        self.writes_ended(&disk).await;
        self.run(|fs, _| fs.mounting.attempt = None);
    }

    async fn writes_ended(&self, disk: &Revocable) {
        while disk.is_writing() && !self.node.has_ended() {
            self.node.world.runtime.sleep(LOOK_AGAIN).await;
        }
    }

    async fn mount_when_granted(
        &self,
        options: Options,
        kernel: Arc<dyn KernelCache>,
    ) -> Result<Arc<Fs>, MountError> {
        loop {
            let grant = self.next_grant().await?;
            let (disk, stopped) = self.begin_attempt(grant);
            let Some(disk) = disk else { continue };
            let env = Env {
                disk: Arc::new(RevocableDisk(Arc::clone(&disk))),
                locks: Arc::new(NodeLocks(self.clone())),
                kernel: Arc::clone(&kernel),
                group: Arc::new(NodeGroup(self.clone())),
                runtime: Arc::clone(&self.node.world.runtime),
            };
            let register = |class| self.local.classes.register(class);
            let mut attempt = pin!(mfs::mount::mount(env, options, grant.first, register));
            let Some(mounted) = unless(attempt.as_mut(), stopped).await else {
                tracing::info!("stopped; mounting again with the next grant");
                disk.revoke();
                // Until then it keeps its locks: others must not use what it is writing to.
                self.writes_ended(&disk).await;
                continue;
            };
            let mounted = mounted?;
            let fs = Arc::clone(&mounted.fs);
            let refused = self.node.run(|core, now| {
                let Grant { lockspace, .. } = grant;
                if core.is_leaving || core.ended.is_some() {
                    return Some(mounted);
                }
                let ready = core.cluster.handle_mounted(self.id(), lockspace, fs.slot(), now);
                if ready.is_err() {
                    return Some(mounted);
                }
                disk.settle();
                let mounting = &mut core.of_mut(self.id()).mounting;
                mounting.attempt = None;
                mounting.mounted = Some(mounted);
                None
            });
            let Some(mounted) = refused else {
                self.spawn_announcements(&fs);
                self.spawn_adoption(&fs);
                return Ok(fs);
            };
            // Nobody has used it yet.
            match mounted.leave().await {
                Ok(()) => self.run(|fs, _| fs.mounting.attempt = None),
                Err(error) => {
                    tracing::error!(%error, "not everything could be written");
                    self.node.cut_off(Closed::SelfFenced);
                }
            }
        }
    }

    async fn next_grant(&self) -> Result<Grant, MountError> {
        loop {
            let (sender, granted) = oneshot::channel();
            let grant = self.node.run(|core, _| {
                if core.is_leaving {
                    return Err(MountError::Leaving);
                }
                if core.ended.is_some() {
                    return Err(MountError::Ended);
                }
                let mounting = &mut core.of_mut(self.id()).mounting;
                mounting.waiting = Some(sender);
                Ok(mounting.grant)
            });
            if let Some(grant) = grant? {
                return Ok(grant);
            }
            // Nobody says more than that there is something to look at.
            let _ = granted.await;
        }
    }

    /// A disk for one attempt, unless its grant was revoked meanwhile; and word to stop.
    fn begin_attempt(&self, grant: Grant) -> (Option<Arc<Revocable>>, oneshot::Receiver<()>) {
        let (sender, stopped) = oneshot::channel();
        let disk = self.run(|fs, _| {
            if fs.mounting.grant != Some(grant) {
                return None;
            }
            let disk = Revocable::new(&self.local.given, self.node.weak.clone());
            fs.mounting.attempt =
                Some(Attempt { disk: Arc::clone(&disk), stop: Some(sender), has_begun: false });
            Some(disk)
        });
        (disk, stopped)
    }

    fn spawn_adoption(&self, fs: &Arc<Fs>) {
        let fs = Arc::clone(fs);
        self.node.world.runtime.spawn(Box::pin(async move {
            match fs.adopt_orphans().await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "files without a name adopted"),
                Err(error) => tracing::warn!(%error, "files without a name not adopted"),
            }
        }));
    }

    async fn unmount(&self) -> Result<(), MountError> {
        let fs = self.look(|fs| fs.mounting.fs()).ok_or(MountError::NotMounted)?;
        let left = self.leave_mount(&fs).await;
        // It keeps the lock of its slot.
        drop(fs);
        if let Err(error) = left {
            tracing::error!(%error, "not everything could be written");
            self.node.cut_off(Closed::SelfFenced);
            return Err(MountError::Fs(error.into()));
        }
        self.run(FsCore::release_claims);
        self.give_locks_up().await;
        self.give_grant_up();
        Ok(())
    }

    /// What is waited for may be in limbo until this mount has replayed the journal it belongs to;
    /// so the mount is there for replays until it waits for no lock any more.
    async fn leave_mount(&self, fs: &Fs) -> Result<(), FsError> {
        loop {
            fs.give_back().await?;
            let mounted = self.run(|fs, _| {
                let is_replaying = fs.mounting.replays > 0;
                if is_replaying { Ok(None) } else { fs.mounting.mounted.take().map(Some).ok_or(()) }
            });
            match mounted {
                Ok(Some(mounted)) => return mounted.leave().await,
                Ok(None) => self.node.world.runtime.sleep(LOOK_AGAIN).await,
                // This life has ended.
                Err(()) => return Err(DiskError::Fenced.into()),
            }
        }
    }

    /// Nothing of the file system is cached here when this completes, unless somebody keeps it.
    async fn give_locks_up(&self) {
        let runtime = &self.node.world.runtime;
        let began = runtime.now();
        loop {
            let left = self.run(|fs, _| {
                fs.locks.as_mut().map_or(0, |locks| {
                    locks.shrink(0);
                    locks.cached_count()
                })
            });
            if left == 0 || self.node.has_ended() {
                break;
            }
            if runtime.now().since(began) > UNMOUNT_PATIENCE {
                tracing::warn!(left, "locks kept");
                break;
            }
            runtime.sleep(LOOK_AGAIN).await;
        }
    }
}

/// What a future comes to, unless word to stop comes first.
async fn unless<T>(future: impl Future<Output = T>, stop: oneshot::Receiver<()>) -> Option<T> {
    let mut future = pin!(future);
    let mut stop = pin!(stop);
    poll_fn(|context| {
        if stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}
