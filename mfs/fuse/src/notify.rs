//! Notifications: what the kernel is told to forget.
//!
//! They are written to a duplicate of the connection's descriptor by threads of their own, which
//! hold no lock and no latch of the daemon: a notification may wait for a request that is being
//! served (`kernel-cache.md`, facts 3 and 4). But for attributes alone, of what a request names.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use futures_channel::oneshot;
use mfs::env::KernelCache;
use mfs::file::FileId;
use mx_base::BoxFuture;
use zerocopy::IntoBytes;

use crate::nodes::Nodes;
use crate::protocol::layout::{InvalInode, OutHeader, StoreOut, notify};

/// Enough that invalidations that wait for pages do not hold others up.
const THREADS: usize = 4;
/// While an answer that teaches the kernel a node is on its way, the kernel does not know it yet;
/// pauses between tries grow from the first to the second.
const RETRY_FIRST: Duration = Duration::from_micros(20);
const RETRY_MAX: Duration = Duration::from_millis(5);

/// Tells the kernel what to forget.
pub struct Notifier {
    connection: File,
    nodes: Arc<Nodes>,
    jobs: Sender<(Job, oneshot::Sender<()>)>,
    /// Does the kernel know epochs (6.16 and later), and are they to be used? Without them names get
    /// no time-out, so that there is nothing to forget.
    has_epochs: AtomicBool,
    /// Nothing is mounted any more, so the kernel has forgotten everything.
    is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Job {
    Inode { file: FileId, offset: i64, len: i64 },
    Epoch,
    Store { file: FileId, offset: u64, bytes: Vec<u8> },
}

impl Notifier {
    /// Starts the threads; they end when the notifier is dropped.
    pub(crate) fn start(connection: &File, nodes: Arc<Nodes>) -> io::Result<Arc<Notifier>> {
        let (jobs, received) = crossbeam_channel::unbounded();
        let is_over = Arc::new(AtomicBool::new(false));
        for i in 0..THREADS {
            let connection = connection.try_clone()?;
            let (nodes, received) = (Arc::clone(&nodes), received.clone());
            let is_over = Arc::clone(&is_over);
            thread::Builder::new()
                .name(format!("notify-{i}"))
                .spawn(move || run(&connection, &nodes, &is_over, &received))?;
        }
        let connection = connection.try_clone()?;
        let has_epochs = AtomicBool::new(false);
        Ok(Arc::new(Notifier { connection, nodes, jobs, has_epochs, is_over }))
    }

    /// The connection is established: finds out what the kernel knows.
    pub(crate) fn connected(&self, connection: &File) {
        self.has_epochs.store(supports_epochs(connection), Ordering::Release);
    }

    /// The file system is unmounted: what is still to be forgotten is forgotten. The kernel does not
    /// say so; it does not know the nodes any more, as while it does not know them yet.
    pub(crate) fn disconnected(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// May the kernel keep names?
    pub(crate) fn has_epochs(&self) -> bool {
        self.has_epochs.load(Ordering::Acquire)
    }

    /// Drops everything that the kernel has cached of this mount. Completes when it has.
    pub async fn forget_everything(&self) {
        self.forget_names().await;
        let all: Vec<_> = self
            .nodes
            .all()
            .into_iter()
            .map(|file| self.submit(Job::Inode { file, offset: 0, len: 0 }))
            .collect();
        for forgotten in all {
            forgotten.await;
        }
    }

    fn submit(&self, job: Job) -> BoxFuture<'static, ()> {
        let (done, waiting) = oneshot::channel();
        // The threads live as long as the sender does.
        let _ = self.jobs.send((job, done));
        Box::pin(async move {
            let _ = waiting.await;
        })
    }
}

impl KernelCache for Notifier {
    fn remember(&self, file: FileId) {
        self.nodes.remember(file);
    }

    fn remember_listed(&self, file: FileId) -> bool {
        self.nodes.remember_listed(file)
    }

    fn forget_attributes(&self, file: FileId, is_directory: bool) -> BoxFuture<'static, ()> {
        // A negative offset leaves pages alone. For a directory its listing goes as well, which
        // never waits.
        let offset = if is_directory { 0 } else { -1 };
        self.submit(Job::Inode { file, offset, len: 0 })
    }

    fn outdate_attributes(&self, file: FileId) {
        let node = self.nodes.id(file);
        let attributes = InvalInode { node, offset: -1, len: 0 };
        // On the thread of the request: no page, and no inode that is on its way out or in, is waited
        // for (`fuse_reverse_inval_inode`), as the request holds on to it.
        if let Err(error) = send(&self.connection, notify::INVAL_INODE, attributes.as_bytes()) {
            tracing::debug!(%error, node, "invalidation not delivered");
        }
    }

    fn forget_names(&self) -> BoxFuture<'static, ()> {
        if !self.has_epochs() {
            return Box::pin(std::future::ready(()));
        }
        self.submit(Job::Epoch)
    }

    fn forget_pages(&self, file: FileId, bytes: Option<Range<u64>>) -> BoxFuture<'static, ()> {
        let range = bytes.unwrap_or(0..0);
        let offset = i64::try_from(range.start).unwrap_or(0);
        let len = i64::try_from(range.end - range.start).unwrap_or(0);
        self.submit(Job::Inode { file, offset, len })
    }

    fn store(&self, file: FileId, offset: u64, bytes: Vec<u8>) -> BoxFuture<'static, ()> {
        self.submit(Job::Store { file, offset, bytes })
    }
}

fn run(
    connection: &File,
    nodes: &Nodes,
    is_over: &AtomicBool,
    jobs: &Receiver<(Job, oneshot::Sender<()>)>,
) {
    while let Ok((job, done)) = jobs.recv() {
        match job {
            Job::Inode { file, offset, len } => {
                let node = nodes.id(file);
                let mut pause = RETRY_FIRST;
                while nodes.is_known(file) {
                    match send(
                        connection,
                        notify::INVAL_INODE,
                        InvalInode { node, offset, len }.as_bytes(),
                    ) {
                        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                            // One that is only listed has nothing that is kept.
                            if !nodes.is_certain(file) || is_over.load(Ordering::Acquire) {
                                break;
                            }
                            thread::sleep(pause);
                            pause = (pause * 2).min(RETRY_MAX);
                        }
                        Err(error) => {
                            // The connection has ended; so have its caches, or the guard sees to it.
                            tracing::debug!(%error, node, "invalidation not delivered");
                            break;
                        }
                        Ok(()) => break,
                    }
                }
            }
            Job::Epoch => {
                if let Err(error) = send(connection, notify::INC_EPOCH, &[]) {
                    tracing::debug!(%error, "epoch not delivered");
                }
            }
            Job::Store { file, offset, bytes } => {
                let node = nodes.id(file);
                let len = u32::try_from(bytes.len()).expect("a page at most");
                let head = StoreOut { node, offset, len, reserved: 0 };
                let payload = [head.as_bytes(), &bytes].concat();
                if let Err(error) = send(connection, notify::STORE, &payload) {
                    tracing::debug!(%error, node, "bytes not delivered");
                }
            }
        }
        let _ = done.send(());
    }
}

/// A notification is a message that answers no request.
fn send(mut connection: &File, code: i32, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(size_of::<OutHeader>() + payload.len()).expect("short");
    let header = OutHeader { len, error: code, unique: 0 };
    let message = [header.as_bytes(), payload].concat();
    // In one piece: the kernel takes a message a write.
    let written = connection.write(&message)?;
    if written == message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Asks the kernel to begin a new epoch: EINVAL from one that knows none.
fn supports_epochs(connection: &File) -> bool {
    match send(connection, notify::INC_EPOCH, &[]) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() != Some(libc::EINVAL),
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("has_epochs", &self.has_epochs()).finish_non_exhaustive()
    }
}
