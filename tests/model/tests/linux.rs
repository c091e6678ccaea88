//! The judge is judged: the model and a file system of the running kernel get the same operations
//! and must give the same answers and the same tree.
//!
//! Uses tmpfs where there is one, for its speed and for sizes as large as an offset can say. Run
//! by another user than root it leaves out what only root may do.

// The crate is pure; this test is where it meets files.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the test does I/O")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use model::ops::{Action, Generator, Outcome, Profile, Value};
use model::posix::{
    Allocate, Attributes, Caller, Change, Compare, Content, Errno, Existing, Found, Handle, Ino,
    Kind, Presence, Rename, Snapshot, Special, TimeChange, Tree, diff,
};
use mx_base::Timestamp;
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};

#[test]
fn metadata() {
    compare(Profile::Metadata, 3_000);
}

#[test]
fn data() {
    compare(Profile::Data, 1_000);
}

#[test]
fn rename_storm() {
    compare(Profile::RenameStorm, 4_000);
}

#[test]
fn small_files() {
    compare(Profile::SmallFiles, 2_000);
}

#[test]
fn big_sparse() {
    compare(Profile::BigSparse, 400);
}

#[test]
fn deep_directories() {
    compare(Profile::DeepDirectories, 2_000);
}

#[test]
fn many_links() {
    compare(Profile::ManyLinks, 2_000);
}

fn compare(profile: Profile, ops: usize) {
    for seed in 1..=3 {
        let mut linux = Linux::new(profile, seed);
        let mut tree = Tree::new(time(0));
        let Caller { uid, gid, .. } = linux.me;
        let owner = Change { uid: Some(uid), gid: Some(gid), ..Change::default() };
        tree.setattr(Ino::ROOT, &owner, time(0)).expect("the root lives");
        for (step, op) in Generator::new(seed, profile).take(ops).enumerate() {
            let Some(mut action) = op.resolve(&tree) else { continue };
            linux.make_own(&mut action);
            if !linux.can(&action, &tree) {
                continue;
            }
            let theirs = linux.run(&action, &tree);
            let ours = tree.apply(&action, time(step));
            linux.follow(&action, &ours, &theirs);
            let (ours, theirs) = (comparable(ours, &action), theirs.map(|reply| reply.outcome));
            assert_eq!(theirs, ours, "{} seed {seed} step {step}: {action:?}", profile.name());
            if step % 500 == 499 {
                linux.assert_equals(&tree, seed, step);
            }
        }
        linux.assert_equals(&tree, seed, ops);
    }
}

/// What both can be asked: objects are compared by what they are, not by number.
fn comparable(ours: Result<Outcome, Errno>, action: &Action) -> Result<Plain, Errno> {
    Ok(match ours? {
        Outcome::Attributes(a) => {
            let set = mtime_set(action).then_some(a.mtime);
            Plain::Attributes(Shown::of(&a), set)
        }
        Outcome::Bytes(bytes) => Plain::Bytes(bytes),
        Outcome::Written(count) => Plain::Written(count),
        Outcome::Names(names) => Plain::Names(names),
        Outcome::Entries(entries) => {
            Plain::Entries(entries.into_iter().map(|(name, _, kind)| (name, kind)).collect())
        }
        Outcome::Done
        | Outcome::Object(_)
        | Outcome::Opened(..)
        | Outcome::Sought(_)
        | Outcome::Counts(_) => Plain::Done,
    })
}

fn mtime_set(action: &Action) -> bool {
    let Action::Setattr { change, .. } = action else { return false };
    matches!(change.mtime, Some(TimeChange::At(_)))
}

#[derive(PartialEq, Eq, Debug)]
enum Plain {
    Done,
    Attributes(Shown, Option<Timestamp>),
    Bytes(Vec<u8>),
    Written(usize),
    Entries(Vec<(Vec<u8>, Kind)>),
    Names(Vec<Vec<u8>>),
}

/// Attributes without times and without the size of a directory.
#[derive(PartialEq, Eq, Debug)]
struct Shown {
    kind: Kind,
    mode: u16,
    owner: (u32, u32),
    nlink: u32,
    size: u64,
}

impl Shown {
    fn of(a: &Attributes) -> Shown {
        let size = if a.kind == Kind::Directory { 0 } else { a.size };
        Shown { kind: a.kind, mode: a.mode, owner: (a.uid, a.gid), nlink: a.nlink, size }
    }
}

struct Reply {
    outcome: Plain,
    opened: Option<File>,
}

impl From<Plain> for Reply {
    fn from(outcome: Plain) -> Reply {
        Reply { outcome, opened: None }
    }
}

/// A directory of the running kernel, and what is open in it.
struct Linux {
    root: PathBuf,
    open: BTreeMap<Handle, File>,
    me: Caller,
    /// Has it extended attributes and ACLs?
    xattrs: bool,
}

impl Linux {
    fn new(profile: Profile, seed: u64) -> Linux {
        rustix::process::umask(Mode::empty());
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let process = std::process::id();
        let root = base.join(format!("mx-model-{}-{seed}-{process}", profile.name()));
        fs::create_dir(&root).expect("a fresh directory");
        rustix::fs::chmod(&root, Mode::from_bits_retain(0o755)).expect("its own directory");
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let probe = |name: &str, value: &[u8]| {
            let set = rustix::fs::setxattr(&root, name, value, XattrFlags::empty()).is_ok();
            set && rustix::fs::removexattr(&root, name).is_ok()
        };
        let acl = Value::Acl(vec![(1, 7, 0), (4, 5, 0), (16, 5, 0), (32, 5, 0)]).bytes();
        let xattrs = probe("user.probe", b"x") && probe("system.posix_acl_access", &acl);
        let me = Caller { uid, gid, umask: 0 };
        Linux { root, open: BTreeMap::new(), me, xattrs }
    }

    /// This process makes everything, so everything is its own.
    fn make_own(&self, action: &mut Action) {
        if let Action::Create { caller, .. }
        | Action::Mknod { caller, .. }
        | Action::Mkdir { caller, .. }
        | Action::Symlink { caller, .. }
        | Action::Tmpfile { caller, .. } = action
        {
            *caller = self.me;
        }
    }

    /// Leaves out what the kernel does without the file system, and what only root may do.
    fn can(&self, action: &Action, tree: &Tree) -> bool {
        let served_by_kernel = |ino: Ino| {
            let kind = tree.kind(ino).expect("an operand lives");
            !matches!(kind, Kind::File | Kind::Directory | Kind::Symlink)
        };
        if let Action::Open { ino } | Action::Fsync { ino } = action
            && served_by_kernel(*ino)
        {
            return false;
        }
        if let Action::Fsync { ino } = action
            && tree.kind(*ino) == Some(Kind::Symlink)
        {
            return false;
        }
        if let Action::Create { dir, name, existing: Existing::Open | Existing::Truncate, .. } =
            action
            && tree.lookup(*dir, name).is_ok_and(served_by_kernel)
        {
            return false;
        }
        // In sticky directories the kernel refuses even root (`fs.protected_regular`).
        if let Action::Setattr { change, .. } = action
            && change.mode.is_some_and(|mode| mode & 0o1000 != 0)
        {
            return false;
        }
        let is_device = |special| !matches!(special, None | Some(Special::Fifo | Special::Socket));
        let by_root_only = match action {
            Action::Setattr { change, .. } => change.mode.is_some() || change.uid.is_some(),
            Action::Mknod { special, .. } => is_device(*special),
            // tmpfs has no such mode; where holes are is not compared.
            Action::Statfs
            | Action::Allocate { what: Allocate::Zeros { .. }, .. }
            | Action::Seek { .. } => return false,
            Action::Lookup { .. }
            | Action::Getattr { .. }
            | Action::Create { .. }
            | Action::Mkdir { .. }
            | Action::Symlink { .. }
            | Action::Readlink { .. }
            | Action::Link { .. }
            | Action::Unlink { .. }
            | Action::Rmdir { .. }
            | Action::Rename { .. }
            | Action::Open { .. }
            | Action::Release { .. }
            | Action::Read { .. }
            | Action::Write { .. }
            | Action::Append { .. }
            | Action::Allocate { .. }
            | Action::CopyRange { .. }
            | Action::Tmpfile { .. }
            | Action::Readdir { .. }
            | Action::Fsync { .. }
            | Action::Fdatasync { .. } => false,
            Action::ListXattrs { .. } => return self.xattrs,
            Action::GetXattr { name, .. } | Action::RemoveXattr { name, .. } => {
                return self.can_have(name);
            }
            Action::SetXattr { name, value, .. } => {
                return self.can_have(name) && value.bytes().len() <= 1_000;
            }
        };
        self.me.uid == 0 || !by_root_only
    }

    /// Attributes that every file system takes, and whose values only we look at.
    fn can_have(&self, name: &[u8]) -> bool {
        let is_plain = name == b"user.a" || name == b"user.b" || name.starts_with(b"system.posix_");
        self.xattrs && self.me.uid == 0 && is_plain
    }

    fn run(&self, action: &Action, tree: &Tree) -> Result<Reply, Errno> {
        self.try_run(action, tree).map_err(|error| {
            let number = error.raw_os_error().expect("an error of a system call");
            Errno::from_number(number).unwrap_or_else(|| panic!("{action:?}: {error}"))
        })
    }

    fn try_run(&self, action: &Action, tree: &Tree) -> io::Result<Reply> {
        let at = |ino: Ino| self.reach(ino, tree);
        let done = Ok(Reply::from(Plain::Done));
        match action {
            Action::Lookup { dir, name } => {
                open_path(&at(*dir)?, name)?;
            }
            Action::Getattr { ino } => {
                return Ok(Plain::Attributes(shown(&metadata_of(&at(*ino)?)?), None).into());
            }
            Action::Setattr { ino, change } => {
                let object = at(*ino)?;
                set(&object, change)?;
                let metadata = metadata_of(&object)?;
                let mtime = mtime_set(action).then(|| Timestamp {
                    seconds: metadata.mtime(),
                    nanos: u32::try_from(metadata.mtime_nsec()).expect("below 10^9"),
                });
                return Ok(Plain::Attributes(shown(&metadata), mtime).into());
            }
            Action::Create { dir, name, mode, existing, .. } => {
                let how = match existing {
                    Existing::Open => OFlags::empty(),
                    Existing::Truncate => OFlags::TRUNC,
                    Existing::Refuse => OFlags::EXCL,
                };
                let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | how;
                let file = rustix::fs::openat(at(*dir)?, &**name, flags, bits(*mode))?;
                return Ok(Reply { outcome: Plain::Done, opened: Some(file.into()) });
            }
            Action::Mknod { dir, name, special, mode, .. } => {
                let (kind, device) = match special {
                    None => (FileType::RegularFile, 0),
                    Some(Special::Fifo) => (FileType::Fifo, 0),
                    Some(Special::Socket) => (FileType::Socket, 0),
                    Some(Special::CharDevice { major, minor }) => {
                        (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor))
                    }
                    Some(Special::BlockDevice { major, minor }) => {
                        (FileType::BlockDevice, rustix::fs::makedev(*major, *minor))
                    }
                };
                rustix::fs::mknodat(at(*dir)?, &**name, kind, bits(*mode), device)?;
            }
            Action::Mkdir { dir, name, mode, .. } => {
                rustix::fs::mkdirat(at(*dir)?, &**name, bits(*mode))?;
            }
            Action::Symlink { dir, name, target, .. } => {
                rustix::fs::symlinkat(&**target, at(*dir)?, &**name)?;
            }
            Action::Readlink { ino } => {
                let object = at(*ino)?;
                // An empty name on anything but a link is ENOENT; only links have this call.
                if tree.kind(*ino) != Some(Kind::Symlink) {
                    return Err(rustix::io::Errno::INVAL.into());
                }
                let target = rustix::fs::readlinkat(object, "", Vec::new())?;
                return Ok(Plain::Bytes(target.into_bytes()).into());
            }
            Action::Link { ino, dir, name } => {
                let object = at(*ino)?;
                let flags = AtFlags::SYMLINK_FOLLOW;
                rustix::fs::linkat(CWD, magic(&object), at(*dir)?, &**name, flags)?;
            }
            Action::Unlink { dir, name } => {
                rustix::fs::unlinkat(at(*dir)?, &**name, AtFlags::empty())?;
            }
            Action::Rmdir { dir, name } => {
                rustix::fs::unlinkat(at(*dir)?, &**name, AtFlags::REMOVEDIR)?;
            }
            Action::Rename { from, to, how } => {
                let flags = match how {
                    Rename::Replace => RenameFlags::empty(),
                    Rename::NoReplace => RenameFlags::NOREPLACE,
                    Rename::Exchange => RenameFlags::EXCHANGE,
                };
                let (from_dir, to_dir) = (at(from.0)?, at(to.0)?);
                rustix::fs::renameat_with(from_dir, &*from.1, to_dir, &*to.1, flags)?;
            }
            Action::Tmpfile { dir, mode, linkable, .. } => {
                let how = if *linkable { OFlags::empty() } else { OFlags::EXCL };
                let flags = OFlags::TMPFILE | OFlags::RDWR | how;
                let file = rustix::fs::openat(at(*dir)?, ".", flags, bits(*mode))?;
                return Ok(Reply { outcome: Plain::Done, opened: Some(file.into()) });
            }
            Action::Allocate { ino, what, offset, len } => {
                let flags = match what {
                    Allocate::Blocks { keep_size: false } => FallocateFlags::empty(),
                    Allocate::Blocks { keep_size: true } => FallocateFlags::KEEP_SIZE,
                    Allocate::Zeros { .. } => unreachable!("left out by `can`"),
                    Allocate::Hole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                };
                let file = reopen(&at(*ino)?, OFlags::RDWR)?;
                rustix::fs::fallocate(file, flags, *offset, *len)?;
            }
            Action::CopyRange { from, to, len } => {
                let source = reopen(&at(from.0)?, OFlags::RDONLY)?;
                let target = reopen(&at(to.0)?, OFlags::RDWR)?;
                // As far as the file reaches now: within one file the copy may make it longer.
                let size = metadata_of(&at(from.0)?)?.len();
                let there = usize::try_from(size.saturating_sub(from.1)).unwrap_or(usize::MAX);
                let len = *len.min(&there);
                let (mut at, mut into) = (from.1, to.1);
                let mut left = len;
                loop {
                    let (a, b) = (Some(&mut at), Some(&mut into));
                    let copied = rustix::fs::copy_file_range(&source, a, &target, b, left)?;
                    left -= copied;
                    if copied == 0 || left == 0 {
                        return Ok(Plain::Written(len - left).into());
                    }
                }
            }
            Action::Seek { .. } => unreachable!("left out by `can`"),
            Action::Open { ino } => {
                let file = reopen(&at(*ino)?, OFlags::RDONLY)?;
                return Ok(Reply { outcome: Plain::Done, opened: Some(file) });
            }
            Action::Read { ino, offset, len } => {
                let file = reopen(&at(*ino)?, OFlags::RDONLY)?;
                let mut bytes = vec![0; *len];
                let mut filled = 0;
                while filled < *len {
                    let at = offset + u64::try_from(filled).expect("small");
                    match file.read_at(&mut bytes[filled..], at)? {
                        0 => break,
                        count => filled += count,
                    }
                }
                bytes.truncate(filled);
                return Ok(Plain::Bytes(bytes).into());
            }
            Action::Write { ino, offset, data } => {
                let file = reopen(&at(*ino)?, OFlags::WRONLY)?;
                let count = file.write_at(&data.bytes(), *offset)?;
                return Ok(Plain::Written(count).into());
            }
            Action::Append { ino, data } => {
                let file = reopen(&at(*ino)?, OFlags::WRONLY | OFlags::APPEND)?;
                let count = rustix::io::write(&file, &data.bytes())?;
                return Ok(Plain::Written(count).into());
            }
            Action::Readdir { ino } => {
                let mut entries = Vec::new();
                for entry in rustix::fs::Dir::new(reopen(&at(*ino)?, OFlags::RDONLY)?)? {
                    let entry = entry?;
                    let name = entry.file_name().to_bytes();
                    if name != b"." && name != b".." {
                        let child = open_path(&at(*ino)?, name)?;
                        entries.push((name.to_vec(), shown(&metadata_of(&child)?).kind));
                    }
                }
                entries.sort();
                return Ok(Plain::Entries(entries).into());
            }
            Action::GetXattr { ino, name } => {
                return Ok(Plain::Bytes(get_xattr(&at(*ino)?, name)?).into());
            }
            Action::ListXattrs { ino } => {
                return Ok(Plain::Names(list_xattrs(&at(*ino)?)?).into());
            }
            Action::SetXattr { ino, name, value, presence } => {
                let flags = match presence {
                    Presence::Any => XattrFlags::empty(),
                    Presence::Absent => XattrFlags::CREATE,
                    Presence::Present => XattrFlags::REPLACE,
                };
                let object = at(*ino)?;
                rustix::fs::setxattr(magic(&object), &**name, &value.bytes(), flags)?;
            }
            Action::RemoveXattr { ino, name } => {
                let object = at(*ino)?;
                rustix::fs::removexattr(magic(&object), &**name)?;
            }
            Action::Fsync { ino } => reopen(&at(*ino)?, OFlags::RDONLY)?.sync_all()?,
            Action::Fdatasync { ino } => reopen(&at(*ino)?, OFlags::RDONLY)?.sync_data()?,
            Action::Release { handle } => assert!(self.open.contains_key(handle)),
            Action::Statfs => unreachable!("left out by `can`"),
        }
        done
    }

    /// Keeps handles in step with the model's.
    fn follow(
        &mut self,
        action: &Action,
        ours: &Result<Outcome, Errno>,
        theirs: &Result<Reply, Errno>,
    ) {
        if let (Ok(Outcome::Opened(_, handle)), Ok(Reply { opened: Some(file), .. })) =
            (ours, theirs)
        {
            self.open.insert(*handle, file.try_clone().expect("a descriptor"));
        }
        if let Action::Release { handle } = action {
            self.open.remove(handle);
        }
    }

    /// The object itself, by its names from the root (which may be longer than a path may be), or
    /// by a handle when it has no name.
    fn reach(&self, ino: Ino, tree: &Tree) -> io::Result<OwnedFd> {
        let mut names = Vec::new();
        let mut at = ino;
        while let Some((dir, name)) = tree.names(at).next() {
            names.push(name);
            at = dir;
        }
        let mut object = if at == Ino::ROOT {
            rustix::fs::open(&self.root, OFlags::PATH, Mode::empty())?
        } else {
            let (handle, _) = tree.handles().find(|(_, open)| *open == at).expect("it lives");
            self.open[&handle].as_fd().try_clone_to_owned()?
        };
        for name in names.into_iter().rev() {
            object = open_path(&object, name)?;
        }
        Ok(object)
    }

    fn assert_equals(&self, tree: &Tree, seed: u64, step: usize) {
        let root = rustix::fs::open(&self.root, OFlags::PATH, Mode::empty()).expect("the root");
        let mut found = Snapshot::default();
        walk(&root, b"/", &mut found).expect("a walk");
        let difference = diff(&tree.snapshot(), &found, Compare::WithoutTimes);
        assert_eq!(difference.map(|d| d.to_string()), None, "seed {seed} step {step}");
    }
}

impl Drop for Linux {
    fn drop(&mut self) {
        // rm walks names that are longer in sum than a path may be.
        let _ = std::process::Command::new("rm").arg("-rf").arg(&self.root).status();
    }
}

fn walk(object: &OwnedFd, path: &[u8], found: &mut Snapshot) -> io::Result<()> {
    let metadata = metadata_of(object)?;
    let Shown { kind, mode, owner, nlink, .. } = shown(&metadata);
    let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice)
        .then(|| (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev())));
    let zero = Timestamp::default();
    let attributes = Attributes {
        kind,
        mode,
        uid: owner.0,
        gid: owner.1,
        nlink,
        size: if matches!(kind, Kind::File | Kind::Symlink) { metadata.len() } else { 0 },
        device,
        atime: zero,
        mtime: zero,
        ctime: zero,
    };
    let mut xattrs = BTreeMap::new();
    for name in list_xattrs(object).unwrap_or_default() {
        let value = get_xattr(object, &name)?;
        xattrs.insert(name, value);
    }
    let mut found_here =
        Found { identity: metadata.ino(), attributes, content: None, target: None, xattrs };
    if kind == Kind::File {
        found_here.content = Some(content(object, metadata.len())?);
    }
    if kind == Kind::Symlink {
        found_here.target = Some(rustix::fs::readlinkat(object, "", Vec::new())?.into_bytes());
    }
    found.found.insert(path.to_vec(), found_here);
    if kind == Kind::Directory {
        for entry in rustix::fs::Dir::new(reopen(object, OFlags::RDONLY)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let prefix = if path == b"/" { b"" } else { path };
                walk(&open_path(object, name)?, &[prefix, b"/", name].concat(), found)?;
            }
        }
    }
    Ok(())
}

/// Reads only where there is data, so that sizes of terabytes take no time.
fn content(object: &OwnedFd, size: u64) -> io::Result<Content> {
    let file = reopen(object, OFlags::RDONLY)?;
    let mut content = Content::default();
    content.resize(size);
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start))?;
        let mut bytes = vec![0; usize::try_from(end - start).expect("little data")];
        file.read_exact_at(&mut bytes, start)?;
        content.write(start, &bytes);
        at = end;
    }
    Ok(content)
}

fn set(object: &OwnedFd, change: &Change) -> io::Result<()> {
    if let Some(mode) = change.mode {
        rustix::fs::chmod(magic(object), bits(mode))?;
    }
    if let Some(size) = change.size {
        reopen(object, OFlags::WRONLY)?.set_len(size)?;
    }
    if change.uid.is_some() || change.gid.is_some() {
        let uid = change.uid.map(rustix::process::Uid::from_raw);
        let gid = change.gid.map(rustix::process::Gid::from_raw);
        rustix::fs::chownat(object, "", uid, gid, AtFlags::EMPTY_PATH)?;
    }
    if change.atime.is_some() || change.mtime.is_some() {
        let time = |change: Option<TimeChange>| match change {
            None => rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
            Some(TimeChange::Now) => {
                rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW }
            }
            Some(TimeChange::At(at)) => {
                rustix::fs::Timespec { tv_sec: at.seconds, tv_nsec: i64::from(at.nanos) }
            }
        };
        let times = rustix::fs::Timestamps {
            last_access: time(change.atime),
            last_modification: time(change.mtime),
        };
        rustix::fs::utimensat(CWD, magic(object), &times, AtFlags::empty())?;
    }
    Ok(())
}

fn get_xattr(object: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 1 << 16];
    let len = rustix::fs::getxattr(magic(object), name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// Names that users and ACLs have, in order.
fn list_xattrs(object: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut list = vec![0; 1 << 16];
    let len = rustix::fs::listxattr(magic(object), &mut list[..])?;
    let names = list[..len].split(|byte| *byte == 0);
    let ours = |name: &&[u8]| name.starts_with(b"user.") || name.starts_with(b"system.");
    let mut names: Vec<Vec<u8>> = names.filter(ours).map(<[u8]>::to_vec).collect();
    names.sort();
    Ok(names)
}

fn open_path(dir: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// The link through which the kernel finds the object that a descriptor stands for.
fn magic(object: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", object.as_raw_fd())
}

fn reopen(object: &OwnedFd, flags: OFlags) -> io::Result<File> {
    Ok(rustix::fs::open(magic(object), flags, Mode::empty())?.into())
}

fn metadata_of(object: &OwnedFd) -> io::Result<fs::Metadata> {
    File::from(object.try_clone()?).metadata()
}

fn shown(metadata: &fs::Metadata) -> Shown {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_char_device() {
        Kind::CharDevice
    } else if file_type.is_block_device() {
        Kind::BlockDevice
    } else {
        Kind::File
    };
    Shown {
        kind,
        mode: u16::try_from(metadata.mode() & 0o7777).expect("12 bits"),
        owner: (metadata.uid(), metadata.gid()),
        nlink: u32::try_from(metadata.nlink()).expect("few links"),
        size: if matches!(kind, Kind::File | Kind::Symlink) { metadata.len() } else { 0 },
    }
}

fn bits(mode: u16) -> Mode {
    Mode::from_bits_retain(u32::from(mode))
}

fn time(step: usize) -> Timestamp {
    Timestamp { seconds: 1_000 + i64::try_from(step).expect("few steps"), nanos: 0 }
}
