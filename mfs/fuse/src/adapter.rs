//! What the kernel asks for, as operations of the file system.
//!
//! A request becomes a future that answers it. It is polled once, on the thread that read it: when
//! every lock and block is cached that is all. Otherwise it goes on in the mount's runtime, and the
//! thread reads the next request; no thread of the kernel's ever waits for a lock or the disk.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use dashmap::DashMap;
use mfs::env::{FileLocks, Runtime};
use mfs::file::FileId;
use mfs::ops::{NewKind, OpenFile};
use mfs::{Fs, FsError};
use mx_base::Duration;

use crate::attributes::{names_for, set_xattr};
use crate::caller;
use crate::data::{WriteKind, flags_of, fopen_flags, open_flags};
use crate::errno::errno;
use crate::flags;
use crate::lease::Lease;
use crate::names::{Made, MadeKind};
use crate::nodes::{Node, Nodes};
use crate::notify::Notifier;
use crate::protocol::init::Features;
use crate::protocol::layout::{FallocateIn, open};
use crate::protocol::{Malformed, Operation, Request};
use crate::ready;
use crate::requests::{Kind, Requests};
use crate::transport::interrupt::{Interrupts, Signalled, Waiter};
use crate::transport::{Channel, Errno, Message, Reply};
use crate::trim;

/// What is asked of the kernel. Not in a cluster:
///
/// The kernel learns the entries of a listing with attributes one by one, and in between waits for
/// lookups under way; those wait for locks, and who surrenders a lock waits until the kernel has
/// learnt what it was told. With other nodes that want the locks it would hang, and names would
/// outlive their epoch (docs/decisions/0014-no-readdirplus-in-clusters.md).
pub(crate) fn features(cluster: bool) -> Features {
    let always = Features::ASYNC_READ
        .and(Features::PARALLEL_DIROPS)
        .and(Features::ATOMIC_O_TRUNC)
        .and(Features::EXPLICIT_INVAL_DATA)
        .and(Features::CACHE_SYMLINKS)
        .and(Features::ASYNC_DIO)
        .and(Features::DONT_MASK)
        .and(Features::POSIX_ACL)
        .and(Features::SETXATTR_EXT)
        .and(Features::HANDLE_KILLPRIV_V2)
        .and(Features::POSIX_LOCKS)
        .and(Features::FLOCK_LOCKS)
        .and(Features::DIRECT_IO_ALLOW_MMAP);
    if cluster {
        always
    } else {
        always.and(Features::DO_READDIRPLUS).and(Features::READDIRPLUS_AUTO)
    }
}

/// A process that has handled a signal and waits on: so long until it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The file system as the kernel is served it.
#[derive(Clone)]
pub(crate) struct Adapter {
    pub(crate) shared: Arc<Shared>,
}

/// What answers need.
pub(crate) struct Shared {
    pub(crate) fs: Arc<Fs>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) locks: Arc<dyn FileLocks>,
    runtime: Arc<dyn Runtime>,
    lease: Arc<Lease>,
    handles: DashMap<u64, Arc<OpenFile>>,
    next_handle: AtomicU64,
    interrupts: Interrupts,
    /// Requests answered; tests count what the kernel's caches save.
    pub(crate) requests: Requests,
}

impl Shared {
    pub(crate) fn new(
        fs: Arc<Fs>,
        nodes: Arc<Nodes>,
        notifier: Arc<Notifier>,
        locks: Arc<dyn FileLocks>,
        runtime: Arc<dyn Runtime>,
        lease: Arc<Lease>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            fs,
            nodes,
            notifier,
            locks,
            runtime,
            lease,
            handles: DashMap::new(),
            next_handle: AtomicU64::new(1),
            interrupts: Interrupts::default(),
            requests: Requests::default(),
        })
    }

    /// The file that the kernel means.
    pub(crate) fn file(&self, node: Node) -> Result<FileId, FsError> {
        self.nodes.file(node).ok_or(FsError::Stale)
    }

    pub(crate) fn add_handle(&self, open: OpenFile) -> u64 {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.insert(handle, Arc::new(open));
        handle
    }

    pub(crate) fn handle(&self, handle: u64) -> Result<Arc<OpenFile>, FsError> {
        let found = self.handles.get(&handle).map(|open| Arc::clone(&open));
        found.ok_or(FsError::Stale)
    }
}

/// A request about to be served.
struct Asked {
    kind: Kind,
    pid: u32,
    unique: u64,
    reply: Reply,
    /// May it be given up at any time?
    stops: bool,
}

impl Adapter {
    /// Serves one message of the kernel, and goes on with what waited for that.
    pub(crate) fn handle(&self, message: Message, channel: &Arc<Channel>, all: &[Arc<Channel>]) {
        ready::serving(&self.shared.runtime, || self.serve_message(message, channel, all));
    }

    fn serve_message(&self, message: Message, channel: &Arc<Channel>, all: &[Arc<Channel>]) {
        let request = match Request::parse(message.bytes()) {
            Ok(request) => request,
            Err(malformed) => return refuse(malformed, channel),
        };
        let Request { unique, pid, .. } = request;
        let asked = |kind: Kind| {
            let reply = Reply::new(channel, unique);
            Asked { kind, pid, unique, reply, stops: kind.only_looks() }
        };
        if let Operation::Setxattr { name, value, flags, kill_sgid } = &request.operation {
            let (node, name) = (Node(request.node), name.to_vec());
            let value = message.bytes()[value.clone()].to_vec();
            let how = set_xattr(*flags, *kill_sgid);
            let set = async move |shared: Arc<Shared>, reply: Reply| {
                let set =
                    async { shared.fs.set_xattr(shared.file(node)?, &name, &value, how).await };
                reply.empty(set.await);
            };
            return self.serve(asked(Kind::Setxattr), set);
        }
        let Operation::Write { handle, offset, data, laundered, kill_privileges } =
            request.operation
        else {
            return self.dispatch(&request, channel, all);
        };
        let kind = match (laundered, kill_privileges) {
            (true, _) => WriteKind::Laundered,
            (false, true) => WriteKind::Unprivileged,
            (false, false) => WriteKind::Privileged,
        };
        // What is written stays where it was read to.
        let data = message.into_data(data);
        self.serve(asked(Kind::Write), async move |shared: Arc<Shared>, reply: Reply| {
            shared.write(handle, offset, data.as_slice(), kind, reply).await;
        });
    }

    /// Answers a request: here if nothing has to be waited for, else where that ends ([`ready`]).
    fn serve<F>(&self, asked: Asked, answer: impl FnOnce(Arc<Shared>, Reply) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Asked { kind, pid, unique, reply, stops } = asked;
        let shared = Arc::clone(&self.shared);
        shared.requests.count(kind);
        let interrupted = reply.interrupted();
        let who = Waiter { thread: pid, by_any: kind.ends_by_any_signal() };
        let mut answer = Box::pin(answer(Arc::clone(&shared), reply));
        let runtime = Arc::clone(&shared.runtime);
        if !shared.lease.holds(runtime.now()) {
            ready::wait(&runtime, async move {
                let has_begun = AtomicBool::new(false);
                let begin = Box::pin(async {
                    shared.lease.granted(|| shared.runtime.now()).await;
                    has_begun.store(true, Ordering::Relaxed);
                    caller::on_behalf(pid, answer).await;
                });
                let may_stop = || stops || !has_begun.load(Ordering::Relaxed);
                shared.interrupts.attend(unique, who, interrupted, may_stop, begin).await;
            });
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if caller::during(pid, || answer.as_mut().poll(&mut context)).is_pending() {
            // Polled anew, with a waker.
            ready::wait(&runtime, async move {
                let answer = Box::pin(caller::on_behalf(pid, answer));
                shared.interrupts.attend(unique, who, interrupted, || stops, answer).await;
            });
        }
    }

    fn dispatch(&self, request: &Request<'_>, channel: &Arc<Channel>, all: &[Arc<Channel>]) {
        let Request { unique, uid, gid, pid, .. } = *request;
        let node = Node(request.node);
        let reply = || Reply::new(channel, unique);
        let asked =
            |kind: Kind| Asked { kind, pid, unique, reply: reply(), stops: kind.only_looks() };
        match &request.operation {
            // These want no answer.
            Operation::Forget(forgotten) => {
                forgotten
                    .iter()
                    .for_each(|(node, lookups)| self.shared.nodes.forget(*node, *lookups));
            }
            Operation::Interrupt { unique: of } => match self.shared.interrupts.signal(*of) {
                Signalled::Told => reply().forgo(),
                Signalled::Unknown => {
                    reply().forgo();
                    tell_again(unique, all);
                }
                Signalled::Handled => {
                    reply().forgo();
                    let all = all.to_vec();
                    let pause = self.shared.runtime.sleep(LOOK_AGAIN);
                    self.shared.runtime.spawn(Box::pin(async move {
                        pause.await;
                        tell_again(unique, &all);
                    }));
                }
            },
            Operation::Destroy => reply().ok(),
            Operation::Init(_) => reply().error(Errno(libc::EPROTO)),
            Operation::Unknown(opcode) => {
                tracing::debug!(opcode, "not an operation of this file system");
                reply().error(Errno(libc::ENOSYS));
            }

            // Names
            Operation::Lookup { name } => {
                let name = name.to_vec();
                self.serve(asked(Kind::Lookup), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.lookup(node, &name, reply).await;
                });
            }
            Operation::Symlink { name, target } => {
                let kind = MadeKind::SymbolicLink(target.to_vec());
                let new = Made { kind, permissions: 0o777, umask: 0, uid, gid };
                self.make(asked(Kind::Make), node, name, new);
            }
            Operation::Mknod { name, mode, rdev, umask } => {
                let kind = match mode & libc::S_IFMT {
                    libc::S_IFREG => NewKind::Regular,
                    libc::S_IFIFO => NewKind::Fifo,
                    libc::S_IFSOCK => NewKind::Socket,
                    libc::S_IFCHR => NewKind::CharDevice(*rdev),
                    libc::S_IFBLK => NewKind::BlockDevice(*rdev),
                    _ => return reply().error(Errno(libc::EINVAL)),
                };
                let kind = MadeKind::Plain(kind);
                let new = Made { kind, permissions: *mode, umask: *umask, uid, gid };
                self.make(asked(Kind::Make), node, name, new);
            }
            Operation::Mkdir { name, mode, umask } => {
                let kind = MadeKind::Plain(NewKind::Directory);
                let new = Made { kind, permissions: *mode, umask: *umask, uid, gid };
                self.make(asked(Kind::Make), node, name, new);
            }
            Operation::Unlink { name } => {
                let name = name.to_vec();
                self.serve(asked(Kind::Unlink), async move |shared: Arc<Shared>, reply: Reply| {
                    let done = async { shared.fs.unlink(shared.file(node)?, &name).await };
                    reply.empty(done.await);
                });
            }
            Operation::Rmdir { name } => {
                let name = name.to_vec();
                self.serve(asked(Kind::Rmdir), async move |shared: Arc<Shared>, reply: Reply| {
                    let done = async { shared.fs.rmdir(shared.file(node)?, &name).await };
                    reply.empty(done.await);
                });
            }
            Operation::Rename { name, new_parent, new_name, flags } => {
                let Some(kind) = crate::names::rename_kind(*flags) else {
                    return reply().error(Errno(libc::EINVAL));
                };
                let (to, name, new_name) = (Node(*new_parent), name.to_vec(), new_name.to_vec());
                self.serve(asked(Kind::Rename), async move |shared: Arc<Shared>, reply: Reply| {
                    let done = async {
                        let (from, to) = (shared.file(node)?, shared.file(to)?);
                        shared.fs.rename((from, &name), (to, &new_name), kind).await
                    };
                    reply.empty(done.await);
                });
            }
            Operation::Link { node: of, name } => {
                let (of, name) = (Node(*of), name.to_vec());
                self.serve(asked(Kind::Link), async move |shared: Arc<Shared>, reply: Reply| {
                    let linked = async {
                        let (file, parent) = (shared.file(of)?, shared.file(node)?);
                        shared.fs.link(file, parent, &name).await
                    };
                    shared.answer_entry(reply, linked.await);
                });
            }
            Operation::Readlink => {
                self.serve(asked(Kind::Readlink), async move |shared: Arc<Shared>, reply: Reply| {
                    match async { shared.fs.readlink(shared.file(node)?).await }.await {
                        Ok(target) => reply.bytes(&target),
                        Err(error) => reply.error(errno(&error)),
                    }
                })
            }

            // Attributes
            Operation::Getattr => {
                self.serve(asked(Kind::Getattr), async move |shared: Arc<Shared>, reply: Reply| {
                    let found = async { shared.fs.getattr(shared.file(node)?).await };
                    shared.answer_attributes(reply, found.await);
                })
            }
            Operation::Statx(_) => {
                self.serve(asked(Kind::Getattr), async move |shared: Arc<Shared>, reply: Reply| {
                    let found = async { shared.fs.getattr(shared.file(node)?).await };
                    shared.answer_statx(reply, found.await);
                })
            }
            Operation::Setattr(set) => {
                let set = crate::entries::set_attributes(set);
                self.serve(asked(Kind::Setattr), async move |shared: Arc<Shared>, reply: Reply| {
                    let found = async { shared.fs.setattr(shared.file(node)?, &set).await };
                    shared.answer_attributes(reply, found.await);
                });
            }
            Operation::Statfs => {
                self.serve(asked(Kind::Statfs), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.statfs(reply).await;
                })
            }

            // Open files
            Operation::Open { flags, kill_privileges } => {
                let flags = open_flags(*flags, *kill_privileges);
                self.serve(asked(Kind::Open), async move |shared: Arc<Shared>, reply: Reply| {
                    match async { shared.fs.open(shared.file(node)?, flags).await }.await {
                        Ok(open) => {
                            reply.opened(shared.add_handle(open), fopen_flags(flags));
                        }
                        Err(error) => reply.error(errno(&error)),
                    }
                });
            }
            Operation::Create { name, flags, mode, umask, kill_privileges } => {
                let name = name.to_vec();
                let exclusive = flags_of(*flags) & libc::O_EXCL != 0;
                let flags = open_flags(*flags, *kill_privileges);
                let kind = MadeKind::Plain(NewKind::Regular);
                let new = Made { kind, permissions: *mode, umask: *umask, uid, gid };
                self.serve(asked(Kind::Create), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.create(node, &name, &new.file(), flags, exclusive, reply).await;
                });
            }
            Operation::Tmpfile { flags, mode, umask } => {
                let linkable = flags_of(*flags) & libc::O_EXCL == 0;
                let flags = open_flags(*flags, false);
                let kind = MadeKind::Plain(NewKind::Regular);
                let new = Made { kind, permissions: *mode, umask: *umask, uid, gid };
                self.serve(asked(Kind::Create), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.create_unnamed(node, &new.file(), flags, linkable, reply).await;
                });
            }
            Operation::Read { handle, offset, size, direct } => {
                let (handle, offset, size, direct) = (*handle, *offset, *size, *direct);
                self.serve(asked(Kind::Read), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.read(handle, offset, size.into(), direct, reply).await;
                });
            }
            Operation::Write { .. } | Operation::Setxattr { .. } => {
                unreachable!("served where the message is at hand")
            }
            Operation::Flush { handle, lock_owner } => {
                let (handle, owner) = (*handle, *lock_owner);
                self.serve(asked(Kind::Flush), async move |shared: Arc<Shared>, reply: Reply| {
                    let flushed = shared.handle(handle).and_then(|open| shared.fs.flush(&open));
                    shared.end_of_owner(node, owner).await;
                    reply.empty(flushed);
                });
            }
            Operation::Release { handle } | Operation::Releasedir { handle } => {
                // Before it is closed, and with it the file may go.
                if let Ok(file) = self.shared.file(node) {
                    self.shared.end_of_open(file, *handle);
                }
                self.shared.handles.remove(handle);
                reply().ok();
            }
            Operation::Fsync { handle, .. } => {
                let handle = *handle;
                self.serve(asked(Kind::Fsync), async move |shared: Arc<Shared>, reply: Reply| {
                    let done = async { shared.fs.fsync(&*shared.handle(handle)?).await };
                    reply.empty(done.await);
                });
            }
            Operation::Opendir => {
                self.serve(asked(Kind::Opendir), async move |shared: Arc<Shared>, reply: Reply| {
                    match async { shared.fs.open_directory(shared.file(node)?).await }.await {
                        Ok(open) => {
                            let flags = open::CACHE_DIR | open::KEEP_CACHE;
                            reply.opened(shared.add_handle(open), flags);
                        }
                        Err(error) => reply.error(errno(&error)),
                    }
                })
            }
            Operation::Readdir { handle, offset, size } => {
                let (handle, offset, size) = (*handle, *offset, *size);
                self.serve(asked(Kind::Readdir), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.readdir(handle, offset, size, reply).await;
                });
            }
            Operation::Readdirplus { handle, offset, size } => {
                let (handle, offset, size) = (*handle, *offset, *size);
                // What the answer teaches the kernel is counted before it is whole.
                let asked = Asked { stops: false, ..asked(Kind::Readdir) };
                self.serve(asked, async move |shared: Arc<Shared>, reply: Reply| {
                    shared.readdir_plus(handle, offset, size, reply).await;
                });
            }
            Operation::Fsyncdir => {
                self.serve(asked(Kind::Fsync), async move |shared: Arc<Shared>, reply: Reply| {
                    reply.empty(shared.fs.fsync_directory().await);
                })
            }
            Operation::Syncfs => {
                self.serve(asked(Kind::Fsync), async move |shared: Arc<Shared>, reply: Reply| {
                    reply.empty(shared.fs.sync().await);
                })
            }

            // Extended attributes
            Operation::Getxattr { name, size } => {
                let (name, size) = (name.to_vec(), *size);
                self.serve(
                    asked(Kind::Getxattr),
                    async move |shared: Arc<Shared>, reply: Reply| {
                        let found = async { shared.fs.get_xattr(shared.file(node)?, &name).await };
                        shared.answer_xattr(reply, size, found.await);
                    },
                );
            }
            Operation::Listxattr { size } => {
                let size = *size;
                self.serve(
                    asked(Kind::Getxattr),
                    async move |shared: Arc<Shared>, reply: Reply| {
                        let listed = async { shared.fs.list_xattrs(shared.file(node)?).await };
                        let listed = listed.await.map(|names| names_for(uid, names));
                        shared.answer_xattr(reply, size, listed);
                    },
                );
            }
            Operation::Removexattr { name } => {
                let name = name.to_vec();
                self.serve(
                    asked(Kind::Setxattr),
                    async move |shared: Arc<Shared>, reply: Reply| {
                        let done =
                            async { shared.fs.remove_xattr(shared.file(node)?, &name).await };
                        reply.empty(done.await);
                    },
                );
            }

            // Locks of applications
            Operation::Getlk(lock) => {
                let lock = *lock;
                self.serve(asked(Kind::Getlk), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.test_lock(node, lock, reply).await;
                });
            }
            Operation::Setlk { lock, wait } => {
                let (lock, wait) = (*lock, *wait);
                self.serve(asked(Kind::Setlk), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.set_lock(node, lock, wait, pid, reply).await;
                });
            }

            // Ranges of files
            Operation::Fallocate(range) => {
                let Some(what) = crate::ranges::allocate(range.mode) else {
                    return reply().error(Errno(libc::EOPNOTSUPP));
                };
                let FallocateIn { handle, offset, len, .. } = *range;
                let allocate = async move |shared: Arc<Shared>, reply: Reply| {
                    shared.allocate(handle, what, (offset, len), reply).await;
                };
                self.serve(asked(Kind::Fallocate), allocate);
            }
            Operation::Lseek { handle, offset, whence } => {
                let Some(what) = crate::ranges::seek_for(*whence) else {
                    return reply().error(Errno(libc::EINVAL));
                };
                let (handle, offset) = (*handle, *offset);
                self.serve(asked(Kind::Seek), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.seek(handle, offset, what, reply).await;
                });
            }
            Operation::CopyRange(range) => {
                let range = *range;
                self.serve(
                    asked(Kind::CopyRange),
                    async move |shared: Arc<Shared>, reply: Reply| {
                        shared.copy_range(&range, reply).await;
                    },
                );
            }

            // Flags of files, and what nobody uses
            Operation::Ioctl { command, data } if trim::is_asked(command) => {
                let Some(range) = trim::range(data) else {
                    return reply().error(Errno(libc::EINVAL));
                };
                // FITRIM wants CAP_SYS_ADMIN (fs/ext4/ioctl.c); who has it is not known here.
                if uid != 0 {
                    return reply().error(Errno(libc::EPERM));
                }
                self.serve(asked(Kind::Trim), async move |shared: Arc<Shared>, reply: Reply| {
                    shared.trim(range, reply).await;
                });
            }
            Operation::Ioctl { command, data } => match flags::command(command, data) {
                Some(flags::Command::Get(form)) => {
                    let get = async move |shared: Arc<Shared>, reply: Reply| {
                        shared.get_flags(node, form, reply).await;
                    };
                    self.serve(asked(Kind::GetFlags), get);
                }
                Some(flags::Command::Set(flags)) => {
                    let set = async move |shared: Arc<Shared>, reply: Reply| {
                        shared.set_flags(node, flags, reply).await;
                    };
                    self.serve(asked(Kind::SetFlags), set);
                }
                None => reply().error(Errno(libc::ENOTTY)),
            },
        }
    }

    fn make(&self, asked: Asked, parent: Node, name: &[u8], new: Made) {
        let name = name.to_vec();
        self.serve(asked, async move |shared: Arc<Shared>, reply: Reply| {
            let made = async {
                let parent = shared.file(parent)?;
                let new = new.file();
                shared.fs.create(parent, &name, &new).await
            };
            shared.answer_entry(reply, made.await);
        });
    }
}

/// EAGAIN for an INTERRUPT: the kernel says it once more, should the request still be there. It looks for
/// that only on the channel where it was read, which another thread may just have done.
fn tell_again(interrupt: u64, all: &[Arc<Channel>]) {
    for channel in all {
        Reply::new(channel, interrupt).error(Errno(libc::EAGAIN));
    }
}

fn refuse(malformed: Malformed, channel: &Arc<Channel>) {
    tracing::error!(%malformed, "message of the kernel not understood");
    if let Some(unique) = malformed.unique() {
        Reply::new(channel, unique).error(Errno(libc::EIO));
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Adapter(..)")
    }
}
