//! Names and attributes: what the kernel is told, and for how long it may keep it.

use std::time::{Duration, SystemTime};

use fuser::{
    FileAttr, FileType as FuseType, FopenFlags, Generation, INodeNo, OpenFlags, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyEntry, TimeOrNow,
};
use mfs::file::{Attributes, FileId, FileType};
use mfs::ops::{Entry, Lookup, NewFile, RenameKind, SetAttributes, SetTime};
use mfs::{FsError, ops};
use mx_base::Timestamp;

use crate::adapter::Shared;
use crate::errno::errno;
use crate::nodes::Nodes;

/// As long as the lock is held; the surrender takes it back. The kernel caps it.
const UNTIL_TOLD: Duration = Duration::from_secs(1 << 30);
const NOT_AT_ALL: Duration = Duration::ZERO;

/// How entries are told to the kernel.
pub(crate) struct Names<'a> {
    pub(crate) nodes: &'a Nodes,
    pub(crate) has_epochs: bool,
}

impl Names<'_> {
    fn name_time(&self, keep: &ops::Keep) -> Duration {
        if keep.name && self.has_epochs { UNTIL_TOLD } else { NOT_AT_ALL }
    }

    pub(crate) fn answer(&self, reply: ReplyEntry, entry: &Entry) {
        let attributes = self.attr(&entry.attributes);
        let (name, time) = (self.name_time(&entry.keep), attribute_time(&entry.keep));
        reply.entry_with_ttls(&time, &name, &attributes, generation(&entry.attributes));
    }

    /// Where name and attributes share one time: both may be kept, or neither is.
    pub(crate) fn joint_time(&self, keep: &ops::Keep) -> Duration {
        self.name_time(keep).min(attribute_time(keep))
    }

    pub(crate) fn attr(&self, a: &Attributes) -> FileAttr {
        FileAttr {
            ino: INodeNo(self.nodes.id(a.file)),
            size: a.size,
            blocks: a.blocks * 8,
            atime: system_time(a.atime),
            mtime: system_time(a.mtime),
            ctime: system_time(a.ctime),
            crtime: system_time(a.btime),
            kind: fuse_type(a.file_type),
            perm: permissions(a),
            nlink: a.links,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            blksize: BLOCK_SIZE_U32,
            flags: 0,
        }
    }
}

/// As the kernel counts it.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const BLOCK_SIZE_U32: u32 = mfs::block::BLOCK_SIZE as u32;

fn permissions(a: &Attributes) -> u16 {
    (a.permissions & 0o7777) as u16
}

fn attribute_time(keep: &ops::Keep) -> Duration {
    if keep.attributes { UNTIL_TOLD } else { NOT_AT_ALL }
}

pub(crate) fn generation(attributes: &Attributes) -> Generation {
    Generation(attributes.file.generation.into())
}

impl Shared {
    pub(crate) async fn lookup(&self, parent: INodeNo, name: &[u8], reply: ReplyEntry) {
        // NFS asks for these by handle; the kernel itself never does.
        if name == b"." || name == b".." {
            return self.lookup_dots(parent, name, reply).await;
        }
        match async { self.fs.lookup(self.file(parent)?, name).await }.await {
            Ok(Lookup::Found(entry)) => self.names().answer(reply, &entry),
            Ok(Lookup::Absent(keep)) => {
                let time = self.names().name_time(&keep);
                if time == NOT_AT_ALL {
                    return reply.error(fuser::Errno::ENOENT);
                }
                // Node 0 stands for a name that is known to be absent.
                reply.entry_with_ttls(&NOT_AT_ALL, &time, &absent(), Generation(0));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    async fn lookup_dots(&self, parent: INodeNo, name: &[u8], reply: ReplyEntry) {
        let found = async {
            let dir = self.file(parent)?;
            let file = if name == b"." { dir } else { self.fs.parent(dir).await? };
            let entry = self.fs.getattr(file).await?;
            self.nodes.remember(file);
            Ok::<Entry, FsError>(entry)
        };
        match found.await {
            Ok(entry) => self.names().answer(reply, &entry),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) fn answer_attributes(&self, reply: ReplyAttr, found: Result<Entry, FsError>) {
        match found {
            Ok(entry) => {
                let attributes = self.names().attr(&entry.attributes);
                reply.attr(&attribute_time(&entry.keep), &attributes);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn create(
        &self,
        parent: INodeNo,
        name: &[u8],
        new: &NewFile<'_>,
        flags: OpenFlags,
        reply: ReplyCreate,
    ) {
        let open_flags = crate::data::open_flags(flags);
        let exclusive = flags.0 & libc::O_EXCL != 0;
        let made = async {
            let parent = self.file(parent)?;
            loop {
                match self.fs.create_and_open(parent, name, new, open_flags).await {
                    Err(FsError::Exists) if !exclusive => {}
                    made => return made,
                }
                // Another node was faster: what it has made is opened.
                match self.open_existing(parent, name, (new.uid, new.gid), open_flags).await {
                    Err(FsError::NotFound) => {}
                    opened => return opened,
                }
            }
        };
        match made.await {
            Ok((entry, open)) => {
                let how = crate::data::fopen_flags(open_flags);
                let names = self.names();
                let (time, attr) = (names.joint_time(&entry.keep), names.attr(&entry.attributes));
                let generation = generation(&entry.attributes);
                reply.created(&time, &attr, generation, self.add_handle(open), how);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    /// Opens a file that the kernel took for absent. What the caller may do is its to check; where
    /// that is not plain from owner and mode, it is told to look the name up again and check.
    ///
    /// # Errors
    /// [`FsError::NotFound`] when it is gone again; [`FsError::Stale`] when the kernel has to check.
    async fn open_existing(
        &self,
        parent: FileId,
        name: &[u8],
        (uid, gid): (u32, u32),
        flags: ops::OpenFlags,
    ) -> Result<(Entry, ops::OpenFile), FsError> {
        let file = match self.fs.lookup(parent, name).await? {
            Lookup::Absent(_) => return Err(FsError::NotFound),
            Lookup::Found(Entry { attributes, .. }) => {
                // The kernel learns of it by the answer below, if at all.
                self.nodes.forget(self.nodes.id(attributes.file), 1);
                if attributes.file_type != FileType::Regular
                    || !may_open(&attributes, uid, gid, flags)
                {
                    return Err(FsError::Stale);
                }
                attributes.file
            }
        };
        let opened = match self.fs.open(file, flags).await {
            Ok(open) => open,
            Err(FsError::Stale) => return Err(FsError::NotFound),
            Err(error) => return Err(error),
        };
        match self.fs.lookup(parent, name).await? {
            Lookup::Found(mut entry) if entry.attributes.file == file => {
                entry.keep.attributes = false;
                Ok((entry, opened))
            }
            Lookup::Found(Entry { attributes, .. }) => {
                self.nodes.forget(self.nodes.id(attributes.file), 1);
                Err(FsError::NotFound)
            }
            Lookup::Absent(_) => Err(FsError::NotFound),
        }
    }
}

/// May the caller certainly open the file so? Its further groups are not known here.
fn may_open(attributes: &Attributes, uid: u32, gid: u32, flags: ops::OpenFlags) -> bool {
    let wanted = 4 | u32::from(flags.write || flags.truncate) << 1;
    let bits = attributes.permissions;
    let (owner, group, other) = (bits >> 6 & 7, bits >> 3 & 7, bits & 7);
    let granted = if uid == 0 {
        7
    } else if uid == attributes.uid {
        owner
    } else if gid == attributes.gid {
        group
    } else {
        group & other
    };
    wanted & !granted == 0
}

/// Attributes of nothing.
fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FuseType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Attributes of a listed entry whose attributes are not at hand. Number and type are those that
/// programs see in the listing, so they are right; the size is one that the kernel refuses, whereupon
/// it forgets the node again and looks the name up when somebody asks. (With node 0 it would not
/// count the node at all, but the listing would have number 0, which libraries pass over.)
pub(crate) fn unknown(node: INodeNo, file_type: FileType) -> FileAttr {
    FileAttr { ino: node, size: u64::MAX, kind: fuse_type(file_type), ..absent() }
}

pub(crate) fn fuse_type(file_type: FileType) -> FuseType {
    match file_type {
        FileType::Fifo => FuseType::NamedPipe,
        FileType::CharDevice => FuseType::CharDevice,
        FileType::Directory => FuseType::Directory,
        FileType::BlockDevice => FuseType::BlockDevice,
        FileType::Regular => FuseType::RegularFile,
        FileType::SymbolicLink => FuseType::Symlink,
        FileType::Socket => FuseType::Socket,
    }
}

pub(crate) fn set_attributes(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
) -> SetAttributes {
    let time = |time: TimeOrNow| match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::To(timestamp(time)),
    };
    SetAttributes {
        permissions: mode.map(|mode| mode & mfs::file::PERMISSIONS),
        uid,
        gid,
        size,
        atime: atime.map(time),
        mtime: mtime.map(time),
    }
}

/// `None` for flags that are not supported.
pub(crate) fn rename_kind(flags: RenameFlags) -> Option<RenameKind> {
    if flags.is_empty() {
        Some(RenameKind::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameKind::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameKind::Exchange)
    } else {
        None
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    };
    whole.and_then(|t| t.checked_add(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: since.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => Timestamp { seconds: -seconds, nanos: 0 },
                nanos => {
                    Timestamp { seconds: -seconds - 1, nanos: Timestamp::NANOS_PER_SECOND - nanos }
                }
            }
        }
    }
}

/// The flags of an answer to OPEN that leave the kernel's cache alone.
pub(crate) const CACHED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_to_the_kernel_and_back() {
        for time in [
            Timestamp { seconds: 0, nanos: 0 },
            Timestamp { seconds: 1_700_000_000, nanos: 999_999_999 },
            Timestamp { seconds: -1, nanos: 1 },
            Timestamp { seconds: -5, nanos: 0 },
        ] {
            assert_eq!(timestamp(system_time(time)), time, "{time:?}");
        }
    }
}
