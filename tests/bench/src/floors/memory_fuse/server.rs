//! The requests of the kernel, answered from memory.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fuser::{
    Errno, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use nix::mount::{MsFlags, mount};
use parking_lot::{Mutex, RwLock};

use super::locks::{Answer, Locks};
use super::tree::Tree;

/// As `mfs/fuse/src/session.rs` has it.
const THREADS: usize = 2;
/// As `mfs/fuse/src/adapter.rs` has them.
const REQUEST_BYTES_MAX: u32 = 1 << 20;
const BACKGROUND_MAX: u16 = 64;
/// As `mfs/fuse/src/entries.rs` has it.
const UNTIL_TOLD: Duration = Duration::from_secs(1 << 30);
const GENERATION: Generation = Generation(0);
const HANDLE: FileHandle = FileHandle(1);

struct MemoryFs {
    tree: RwLock<Tree>,
    locks: Mutex<Locks<ReplyEmpty>>,
}

/// Mounts on `dir` and serves until it is unmounted; prints `ready` when it can be used.
///
/// # Errors
/// When it cannot be mounted or served.
pub fn serve(dir: &Path) -> Result<()> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device: OwnedFd = device.context("/dev/fuse")?.into();
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    mount(Some("memory"), dir, Some("fuse.memory"), MsFlags::empty(), Some(options.as_str()))
        .context("mount")?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let fs = MemoryFs { tree: RwLock::new(Tree::new()), locks: Mutex::default() };
    let session = fuser::Session::from_fd(fs, device, fuser::SessionACL::All, config);
    let session = session.context("the kernel's FUSE")?;
    writeln!(std::io::stdout(), "ready")?;
    session.run().context("serving")
}

impl fuser::Filesystem for MemoryFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        ];
        for flag in wanted {
            // What the kernel lacks ours lacks as well.
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(REQUEST_BYTES_MAX);
        let _ = config.set_max_readahead(REQUEST_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.read().lookup(parent.0, name) {
            Ok(found) => reply.entry(&UNTIL_TOLD, &found, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        match self.tree.read().attributes(node.0) {
            Ok(found) => reply.attr(&UNTIL_TOLD, &found),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        match self.tree.write().make(parent.0, name, FileType::Directory, permissions(mode)) {
            Ok(made) => reply.entry(&UNTIL_TOLD, &made, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.tree.write().make(parent.0, name, FileType::RegularFile, permissions(mode)) {
            Ok(made) => {
                reply.created(&UNTIL_TOLD, &made, GENERATION, HANDLE, opened(OpenFlags(flags)));
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.tree.write().remove(parent.0, name));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.tree.write().remove(parent.0, name));
    }

    fn open(&self, _request: &Request, _node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(HANDLE, opened(flags));
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree.read().read(node.0, offset, size as usize) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree.write().write(node.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a request has 1 MiB")),
            Err(error) => reply.error(error),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(HANDLE, FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree.read();
        let listed = match tree.list(node.0, offset) {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        for entry in listed {
            if reply.add(INodeNo(entry.node), entry.next, entry.kind, entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let tree = self.tree.read();
        let listed = match tree.list(node.0, offset) {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        for entry in listed {
            let Ok(found) = tree.attributes(entry.node) else { continue };
            let node = INodeNo(entry.node);
            if reply.add(node, entry.next, entry.name, &UNTIL_TOLD, &found, GENERATION) {
                break;
            }
        }
        reply.ok();
    }

    fn setlk(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        _process: u32,
        waits: bool,
        reply: ReplyEmpty,
    ) {
        let mut locks = self.locks.lock();
        if kind == libc::F_UNLCK {
            let freed = locks.unlock(node.0, owner.0, start..=end);
            drop(locks);
            reply.ok();
            freed.into_iter().for_each(ReplyEmpty::ok);
            return;
        }
        let answer = locks.lock(node.0, owner.0, start..=end, waits, reply);
        drop(locks);
        match answer {
            Answer::Had(reply) => reply.ok(),
            Answer::Refused(reply) => reply.error(Errno::EAGAIN),
            Answer::Waits => {}
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _data_only: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }
}

/// As `mfs/fuse/src/data.rs` has them: opens that can write are direct, readers cache.
fn opened(flags: OpenFlags) -> FopenFlags {
    if flags.0 & libc::O_ACCMODE == libc::O_RDONLY {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).expect("twelve bits")
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}
