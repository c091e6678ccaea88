//! One file system of the cluster on this node: its locks, its mount, and what is being recovered
//! in it.
//!
//! Keeps true: nothing here is shared with another file system, so what goes wrong in one, a replay
//! that does not end or a device that does not answer, changes nothing for another. What concerns
//! the node, its views and its end, is told to all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use cluster::{Cluster, JoinBlob};
use fencing::DeviceId;
use futures_channel::oneshot;
use lcl::advisory::{ClaimId, Verdict};
use lcl::pin::Table;
use lcl::{ClassTable, LockCache, Welcome};
use mfs::env::Disk;
use mfs::layout::Layout;
use mfs::locks::Resource;
use mx_base::{FsId, Instant, Member, View, ViewId};
use parking_lot::Mutex;

use crate::file_systems::{FileSystems, Lockspace, NotEntered};
use crate::fs_locks::{LockClasses, NodeRequester};
use crate::group::Announced;
use crate::mount::Mounting;
use crate::node::{Core, Node};
use crate::recovery::Waits;
use crate::waiters::Waiters;

/// Locks that a node keeps for objects that nobody uses, of all file systems together.
const LOCKS_KEPT: usize = 1 << 18;

/// A file system of the cluster, and this node's way to it.
#[derive(Clone)]
pub struct FileSystem {
    pub id: FsId,
    pub device: DeviceId,
    pub layout: Layout,
    pub disk: Arc<dyn Disk>,
}

/// What the node's latch does not guard.
pub(crate) struct Local {
    pub(crate) given: FileSystem,
    pub(crate) lockspace: Lockspace,
    pub(crate) table: Arc<Table>,
    pub(crate) classes: Arc<LockClasses>,
    /// Taken after the node's latch, never before it.
    pub(crate) waiters: Mutex<Waiters>,
    /// The entries keep a weak reference only.
    _requester: Arc<NodeRequester>,
}

impl Local {
    pub(crate) fn new(given: FileSystem, lockspace: Lockspace, node: &Weak<Node>) -> Local {
        let requester = Arc::new(NodeRequester::new(node.clone(), given.id));
        let as_requester: Weak<NodeRequester> = Arc::downgrade(&requester);
        Local {
            given,
            lockspace,
            table: Arc::new(Table::new(as_requester)),
            classes: Arc::new(LockClasses::default()),
            waiters: Mutex::default(),
            _requester: requester,
        }
    }
}

/// What the node's latch guards.
pub(crate) struct FsCore {
    pub(crate) local: Arc<Local>,
    /// From the first view on.
    pub(crate) locks: Option<LockCache>,
    locks_kept: usize,
    /// The view for which every bucket homed here is rebuilt.
    pub(crate) rebuilt: Option<ViewId>,
    pub(crate) rebuild_asked: Option<ViewId>,
    pub(crate) recoveries: BTreeMap<Member, Waits>,
    pub(crate) mounting: Mounting,
    pub(crate) announced: Announced,
    /// Who waits for the locks of applications.
    pub(crate) claims: BTreeMap<ClaimId, oneshot::Sender<Verdict>>,
}

impl FsCore {
    pub(crate) fn new(local: Arc<Local>, beside: &FileSystems) -> FsCore {
        FsCore {
            local,
            locks: None,
            locks_kept: LOCKS_KEPT / beside.len(),
            rebuilt: None,
            rebuild_asked: None,
            recoveries: BTreeMap::new(),
            mounting: Mounting::default(),
            announced: Announced::default(),
            claims: BTreeMap::new(),
        }
    }

    /// This node has left `previous`, if it was in a view, for `view`.
    pub(crate) fn follow(
        &mut self,
        installed: &cluster::Installed,
        now: Instant,
    ) -> Result<(), NotEntered> {
        let view = &installed.view;
        self.rebuilt = None;
        self.rebuild_asked = None;
        self.announced.retain(|member| view.contains(member));
        let Some(locks) = &mut self.locks else { return self.enter(installed, now) };
        self.local.waiters.lock().lose(&installed.lost, locks.lockspace());
        locks.handle_view(view.clone(), &installed.left, now)?;
        Ok(())
    }

    fn enter(&mut self, installed: &cluster::Installed, now: Instant) -> Result<(), NotEntered> {
        let cluster::Installed { me, view, unrecovered, .. } = installed;
        let classes = Arc::clone(&self.local.classes) as Arc<dyn ClassTable>;
        let table = Arc::clone(&self.local.table);
        let id = self.local.lockspace.for_locks();
        let locks = LockCache::new(id, *me, table, classes, Resource::is_cached_by_kernels);
        let locks = self.locks.insert(locks);
        let welcome = match self.local.lockspace.told(installed.join_state.as_deref()) {
            Some(bytes) => Welcome::decode(bytes)?,
            None if is_alone(view, *me) => Welcome::cold(view, unrecovered, false),
            None => return Err(NotEntered::NotTold { fs: self.local.given.id }),
        };
        locks.enter(view.clone(), &welcome, now)?;
        Ok(())
    }

    /// What a joiner is given to enter this lock space.
    pub(crate) fn welcome(&self) -> JoinBlob {
        let locks = self.locks.as_ref().expect("a member has entered every lock space");
        self.local.lockspace.blob(locks.welcome().encode())
    }

    /// Tells the cluster when what it asked for is rebuilt.
    pub(crate) fn tell_rebuilt(&mut self, cluster: &mut Cluster, now: Instant) {
        if let Some(view) = self.rebuild_asked
            && self.rebuilt == Some(view)
        {
            self.rebuild_asked = None;
            cluster.handle_rebuilt(view, self.local.given.id, now);
        }
    }

    /// Gives up locks that were not used for longest, with what is cached under them, as long as
    /// there are too many.
    pub(crate) fn keep_locks_few(&mut self) {
        if let Some(locks) = &mut self.locks
            && locks.cached_count() > self.locks_kept
        {
            locks.shrink(self.locks_kept);
        }
    }
}

fn is_alone(view: &View, me: Member) -> bool {
    view.members() == [me]
}

/// One file system of a node, for whatever belongs to it and not to the node.
#[derive(Clone)]
pub(crate) struct Here {
    pub(crate) node: Arc<Node>,
    pub(crate) local: Arc<Local>,
}

impl Here {
    pub(crate) fn id(&self) -> FsId {
        self.local.given.id
    }

    /// See [`Node::run`].
    pub(crate) fn run<T>(&self, act: impl FnOnce(&mut FsCore, Instant) -> T) -> T {
        self.node.run_in(self.id(), act)
    }

    /// See [`Node::look`].
    pub(crate) fn look<T>(&self, look: impl FnOnce(&FsCore) -> T) -> T {
        self.node.look(|core| look(core.of(self.id())))
    }
}

impl Node {
    /// `None` when the cluster has no such file system.
    pub(crate) fn here(self: &Arc<Self>, fs: FsId) -> Option<Here> {
        let local = Arc::clone(self.locals.get(&fs)?);
        Some(Here { node: Arc::clone(self), local })
    }

    /// [`Node::run`], for what concerns one file system only.
    pub(crate) fn run_in<T>(&self, fs: FsId, act: impl FnOnce(&mut FsCore, Instant) -> T) -> T {
        self.run(|core, now| act(core.of_mut(fs), now))
    }
}

/// Whoever asks for a file system has it from the node.
const CONFIGURED: &str = "a node has a state for each of its file systems";

impl Core {
    pub(crate) fn of(&self, fs: FsId) -> &FsCore {
        self.file_systems.get(&fs).expect(CONFIGURED)
    }

    pub(crate) fn of_mut(&mut self, fs: FsId) -> &mut FsCore {
        self.file_systems.get_mut(&fs).expect(CONFIGURED)
    }
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem").field("id", &self.id).finish_non_exhaustive()
    }
}
