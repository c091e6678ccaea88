//! One method for each request of the kernel.
//!
//! A request becomes a future that answers it. It is polled once, on the thread that read it: when
//! every lock and block is cached that is all. Otherwise it goes on in the mount's runtime, and the
//! thread reads the next request; no thread of the kernel's ever waits for a lock or the disk.

use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::SystemTime;

use dashmap::DashMap;
use fuser::{
    BsdFileFlags, Errno, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLock, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use mfs::env::Runtime;
use mfs::file::FileId;
use mfs::ops::{NewFile, NewKind, OpenFile};
use mfs::{Fs, FsError};

use crate::caller;
use crate::entries::{BLOCK_SIZE_U32, Names};
use crate::errno::errno;
use crate::lease::Lease;
use crate::nodes::Nodes;
use crate::notify::Notifier;
use crate::requests::{Operation, Requests};

/// One request carries at most this much data; more brings nothing (`kernel-cache.md`, fact 13).
const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Read-aheads and other requests that nobody waits for, at once.
const BACKGROUND_MAX: u16 = 64;

/// The file system as fuser serves it.
pub(crate) struct Adapter {
    pub(crate) shared: Arc<Shared>,
}

/// What answers need.
pub(crate) struct Shared {
    pub(crate) fs: Arc<Fs>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) notifier: Arc<Notifier>,
    runtime: Arc<dyn Runtime>,
    lease: Arc<Lease>,
    handles: DashMap<u64, Arc<OpenFile>>,
    next_handle: AtomicU64,
    /// More nodes than this one may have the file system mounted: locks of applications are not
    /// left to the kernel.
    cluster: bool,
    /// Requests answered; tests count what the kernel's caches save.
    pub(crate) requests: Requests,
}

impl Shared {
    pub(crate) fn new(
        fs: Arc<Fs>,
        nodes: Arc<Nodes>,
        notifier: Arc<Notifier>,
        runtime: Arc<dyn Runtime>,
        lease: Arc<Lease>,
        cluster: bool,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            fs,
            nodes,
            notifier,
            runtime,
            lease,
            handles: DashMap::new(),
            next_handle: AtomicU64::new(1),
            cluster,
            requests: Requests::default(),
        })
    }

    /// The file that the kernel means.
    pub(crate) fn file(&self, node: INodeNo) -> Result<FileId, FsError> {
        self.nodes.file(node).ok_or(FsError::Stale)
    }

    pub(crate) fn add_handle(&self, open: OpenFile) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.insert(handle, Arc::new(open));
        FileHandle(handle)
    }

    pub(crate) fn handle(&self, handle: FileHandle) -> Result<Arc<OpenFile>, FsError> {
        let found = self.handles.get(&handle.0).map(|open| Arc::clone(&open));
        found.ok_or(FsError::Stale)
    }

    fn remove_handle(&self, handle: FileHandle) {
        self.handles.remove(&handle.0);
    }

    pub(crate) fn names(&self) -> Names<'_> {
        Names { nodes: &self.nodes, has_epochs: self.notifier.has_epochs() }
    }
}

impl Adapter {
    /// Answers a request: here if nothing has to be waited for, else in the runtime.
    fn serve<F>(
        &self,
        request: &Request,
        operation: Operation,
        answer: impl FnOnce(Arc<Shared>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.requests.count(operation);
        let pid = request.pid();
        let mut answer = Box::pin(answer(Arc::clone(&self.shared)));
        if !self.shared.lease.holds(self.shared.runtime.now()) {
            let shared = Arc::clone(&self.shared);
            self.shared.runtime.spawn(Box::pin(async move {
                shared.lease.granted(|| shared.runtime.now()).await;
                caller::on_behalf(pid, answer).await;
            }));
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if caller::during(pid, || answer.as_mut().poll(&mut context)).is_pending() {
            // The runtime polls it anew, with a waker of its own.
            self.shared.runtime.spawn(Box::pin(caller::on_behalf(pid, answer)));
        }
    }

    fn make(&self, request: &Request, parent: INodeNo, name: &OsStr, new: Made, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.serve(request, Operation::Make, |shared| async move {
            let made = async {
                let parent = shared.file(parent)?;
                let new = new.file();
                shared.fs.create(parent, &name, &new).await
            };
            match made.await {
                Ok(entry) => shared.names().answer(reply, &entry),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }
}

/// A file about to be made, with what it borrows owned.
struct Made {
    kind: MadeKind,
    permissions: u32,
    uid: u32,
    gid: u32,
}

enum MadeKind {
    Plain(NewKind<'static>),
    SymbolicLink(Vec<u8>),
}

impl Made {
    fn file(&self) -> NewFile<'_> {
        let kind = match &self.kind {
            MadeKind::Plain(kind) => *kind,
            MadeKind::SymbolicLink(target) => NewKind::SymbolicLink(target),
        };
        NewFile { kind, permissions: self.permissions, uid: self.uid, gid: self.gid }
    }
}

/// Answers a request that returns nothing.
fn answer_empty(reply: ReplyEmpty, result: Result<(), FsError>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        // The kernel learns the entries of a listing with attributes one by one, and in between waits
        // for lookups under way; those wait for locks, and who surrenders a lock waits until the
        // kernel has learnt what it was told. With other nodes that want the locks it would hang, and
        // names would outlive their epoch (docs/decisions/0014-no-readdirplus-in-clusters.md).
        let listing = [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO];
        let listing = listing.into_iter().filter(|_| !self.shared.cluster);
        for flag in wanted.into_iter().chain(listing) {
            if config.add_capabilities(flag).is_err() {
                tracing::info!(?flag, "the kernel lacks a FUSE feature");
            }
        }
        if self.shared.cluster {
            // Without these the kernel would grant locks for this node alone.
            let _ = config.add_capabilities(InitFlags::FUSE_POSIX_LOCKS);
            let _ = config.add_capabilities(InitFlags::FUSE_FLOCK_LOCKS);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        self.serve(request, Operation::Lookup, |shared| async move {
            shared.lookup(parent, &name, reply).await
        });
    }

    fn forget(&self, _request: &Request, node: INodeNo, lookups: u64) {
        self.shared.nodes.forget(node.0, lookups);
    }

    fn getattr(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.serve(request, Operation::Getattr, |shared| async move {
            let found = async { shared.fs.getattr(shared.file(node)?).await };
            shared.answer_attributes(reply, found.await);
        });
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = crate::entries::set_attributes(mode, uid, gid, size, atime, mtime);
        self.serve(request, Operation::Setattr, |shared| async move {
            let found = async { shared.fs.setattr(shared.file(node)?, &set).await };
            shared.answer_attributes(reply, found.await);
        });
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        self.serve(request, Operation::Readlink, |shared| async move {
            match async { shared.fs.readlink(shared.file(node)?).await }.await {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG => NewKind::Regular,
            libc::S_IFIFO => NewKind::Fifo,
            libc::S_IFSOCK => NewKind::Socket,
            libc::S_IFCHR => NewKind::CharDevice(rdev),
            libc::S_IFBLK => NewKind::BlockDevice(rdev),
            _ => return reply.error(Errno::EINVAL),
        };
        let kind = MadeKind::Plain(kind);
        let (uid, gid) = (request.uid(), request.gid());
        self.make(request, parent, name, Made { kind, permissions: mode, uid, gid }, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let kind = MadeKind::Plain(NewKind::Directory);
        let (uid, gid) = (request.uid(), request.gid());
        self.make(request, parent, name, Made { kind, permissions: mode, uid, gid }, reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let kind = MadeKind::SymbolicLink(target.as_os_str().as_bytes().to_vec());
        let (uid, gid) = (request.uid(), request.gid());
        self.make(request, parent, name, Made { kind, permissions: 0o777, uid, gid }, reply);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.serve(request, Operation::Unlink, |shared| async move {
            let done = async { shared.fs.unlink(shared.file(parent)?, &name).await };
            answer_empty(reply, done.await);
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        self.serve(request, Operation::Rmdir, |shared| async move {
            let done = async { shared.fs.rmdir(shared.file(parent)?, &name).await };
            answer_empty(reply, done.await);
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(kind) = crate::entries::rename_kind(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (name, new_name) = (name.as_bytes().to_vec(), new_name.as_bytes().to_vec());
        self.serve(request, Operation::Rename, |shared| async move {
            let done = async {
                let (from, to) = (shared.file(parent)?, shared.file(new_parent)?);
                shared.fs.rename((from, &name), (to, &new_name), kind).await
            };
            answer_empty(reply, done.await);
        });
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = new_name.as_bytes().to_vec();
        self.serve(request, Operation::Link, |shared| async move {
            let linked = async {
                let (file, parent) = (shared.file(node)?, shared.file(new_parent)?);
                shared.fs.link(file, parent, &name).await
            };
            match linked.await {
                Ok(entry) => shared.names().answer(reply, &entry),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.serve(request, Operation::Open, |shared| async move {
            shared.open(node, flags, reply).await
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.as_bytes().to_vec();
        let kind = MadeKind::Plain(NewKind::Regular);
        let (uid, gid) = (request.uid(), request.gid());
        let new = Made { kind, permissions: mode, uid, gid };
        self.serve(request, Operation::Create, |shared| async move {
            shared.create(parent, &name, &new.file(), OpenFlags(flags), reply).await;
        });
    }

    fn read(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let direct = lock_owner.is_some();
        self.serve(request, Operation::Read, |shared| async move {
            shared.read(handle, offset, size.into(), direct, reply).await;
        });
    }

    fn write(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let laundered = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let data = data.to_vec();
        self.serve(request, Operation::Write, |shared| async move {
            shared.write(handle, offset, &data, laundered, reply).await;
        });
    }

    fn flush(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        self.serve(request, Operation::Flush, |shared| async move {
            let done = shared.handle(handle).and_then(|open| shared.fs.flush(&open));
            answer_empty(reply, done);
        });
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.shared.remove_handle(handle);
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(request, Operation::Fsync, |shared| async move {
            let done = async { shared.fs.fsync(&*shared.handle(handle)?).await };
            answer_empty(reply, done.await);
        });
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.serve(request, Operation::Opendir, |shared| async move {
            match async { shared.fs.open_directory(shared.file(node)?).await }.await {
                Ok(open) => {
                    let flags = FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE;
                    reply.opened(shared.add_handle(open), flags);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdir(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.serve(request, Operation::Readdir, |shared| async move {
            shared.readdir(handle, offset, reply).await
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.serve(request, Operation::Readdir, |shared| async move {
            shared.readdir_plus(handle, offset, reply).await
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.remove_handle(handle);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.serve(request, Operation::Fsync, |shared| async move {
            answer_empty(reply, shared.fs.fsync_directory().await);
        });
    }

    fn statfs(&self, request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        self.serve(request, Operation::Statfs, |shared| async move {
            match shared.fs.statfs().await {
                Ok(s) => {
                    let (free, unit) = (s.blocks_free, BLOCK_SIZE_U32);
                    let (files, files_free) = (s.inodes, s.inodes_free);
                    reply.statfs(s.blocks, free, free, files, files_free, unit, s.name_max, unit);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn getlk(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _kind: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }

    fn setlk(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        kind: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        // Giving up what nobody could get is no error: close does it for every file.
        if kind == libc::F_UNLCK {
            reply.ok();
        } else {
            reply.error(Errno::EOPNOTSUPP);
        }
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Adapter(..)")
    }
}
