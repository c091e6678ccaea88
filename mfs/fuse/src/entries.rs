//! Attributes: what the kernel is told, and for how long it may keep it.

use std::time::Duration;

use mfs::FsError;
use mfs::file::{Attributes, FileType};
use mfs::ops::{self, Entry, SetAttributes, SetTime};
use mx_base::Timestamp;

use crate::adapter::Shared;
use crate::errno::errno;
use crate::nodes::Nodes;
use crate::protocol::layout::{
    Attr, AttrOut, EntryOut, SetattrIn, StatfsOut, StatxOut, StatxTime, setattr,
};
use crate::transport::Reply;

/// As long as the lock is held; the surrender takes it back. The kernel caps it.
const UNTIL_TOLD: Duration = Duration::from_secs(1 << 30);
const NOT_AT_ALL: Duration = Duration::ZERO;

/// As the kernel counts it.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub(crate) const BLOCK_SIZE_U32: u32 = mfs::block::BLOCK_SIZE as u32;

/// How entries are told to the kernel.
pub(crate) struct Names<'a> {
    pub(crate) nodes: &'a Nodes,
    pub(crate) has_epochs: bool,
}

impl Names<'_> {
    fn name_time(&self, keep: &ops::Keep) -> Duration {
        if keep.name && self.has_epochs { UNTIL_TOLD } else { NOT_AT_ALL }
    }

    pub(crate) fn entry(&self, entry: &Entry) -> EntryOut {
        let attr = self.attr(&entry.attributes);
        let generation = entry.attributes.file.generation.into();
        let (name, attributes) = (self.name_time(&entry.keep), attribute_time(&entry.keep));
        entry_out(attr.node, generation, name, attributes, attr)
    }

    /// A name that is known to be absent: node 0; `None` when the kernel may not keep that.
    pub(crate) fn absent(&self, keep: &ops::Keep) -> Option<EntryOut> {
        let time = self.name_time(keep);
        (time != NOT_AT_ALL).then(|| entry_out(0, 0, time, NOT_AT_ALL, nothing()))
    }

    pub(crate) fn attr(&self, a: &Attributes) -> Attr {
        Attr {
            node: self.nodes.id(a.file),
            size: a.size,
            blocks: a.sectors(),
            atime: a.atime.seconds.cast_unsigned(),
            mtime: a.mtime.seconds.cast_unsigned(),
            ctime: a.ctime.seconds.cast_unsigned(),
            atime_nanos: a.atime.nanos,
            mtime_nanos: a.mtime.nanos,
            ctime_nanos: a.ctime.nanos,
            mode: file_type(a.file_type) | (a.permissions & mfs::file::PERMISSIONS),
            links: a.links,
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            block_size: BLOCK_SIZE_U32,
            flags: 0,
        }
    }
}

fn entry_out(node: u64, generation: u64, name: Duration, attr: Duration, of: Attr) -> EntryOut {
    EntryOut {
        node,
        generation,
        entry_valid: name.as_secs(),
        attr_valid: attr.as_secs(),
        entry_valid_nanos: name.subsec_nanos(),
        attr_valid_nanos: attr.subsec_nanos(),
        attr: of,
    }
}

fn attribute_time(keep: &ops::Keep) -> Duration {
    if keep.attributes { UNTIL_TOLD } else { NOT_AT_ALL }
}

/// Attributes of nothing.
fn nothing() -> Attr {
    zerocopy::FromZeros::new_zeroed()
}

/// A listed entry whose attributes are not at hand. Number and type are those that programs see in
/// the listing, so they are right; the size is one that the kernel refuses, whereupon it forgets the
/// node again and looks the name up when somebody asks. (With node 0 it would not count the node at
/// all, but the listing would have number 0, which libraries pass over.)
pub(crate) fn unknown(node: u64, of: FileType) -> EntryOut {
    let attr = Attr { node, size: u64::MAX, mode: file_type(of), ..nothing() };
    entry_out(node, 0, NOT_AT_ALL, NOT_AT_ALL, attr)
}

/// The type in `st_mode`.
pub(crate) fn file_type(file_type: FileType) -> u32 {
    match file_type {
        FileType::Fifo => libc::S_IFIFO,
        FileType::CharDevice => libc::S_IFCHR,
        FileType::Directory => libc::S_IFDIR,
        FileType::BlockDevice => libc::S_IFBLK,
        FileType::Regular => libc::S_IFREG,
        FileType::SymbolicLink => libc::S_IFLNK,
        FileType::Socket => libc::S_IFSOCK,
    }
}

impl Shared {
    pub(crate) fn answer_entry(&self, reply: Reply, made: Result<Entry, FsError>) {
        match made {
            Ok(entry) => reply.structure(&self.names().entry(&entry)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) fn answer_attributes(&self, reply: Reply, found: Result<Entry, FsError>) {
        match found {
            Ok(entry) => {
                let (time, attr) =
                    (attribute_time(&entry.keep), self.names().attr(&entry.attributes));
                let (valid, valid_nanos) = (time.as_secs(), time.subsec_nanos());
                reply.structure(&AttrOut { valid, valid_nanos, reserved: 0, attr });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) fn answer_statx(&self, reply: Reply, found: Result<Entry, FsError>) {
        match found {
            Ok(entry) => {
                let mut answer = statx(&entry.attributes, self.nodes.id(entry.attributes.file));
                let time = attribute_time(&entry.keep);
                (answer.valid, answer.valid_nanos) = (time.as_secs(), time.subsec_nanos());
                reply.structure(&answer);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    pub(crate) async fn statfs(&self, reply: Reply) {
        match self.fs.statfs().await {
            Ok(s) => reply.structure(&StatfsOut {
                blocks: s.blocks,
                blocks_free: s.blocks_free,
                blocks_available: s.blocks_free,
                files: s.inodes,
                files_free: s.inodes_free,
                block_size: BLOCK_SIZE_U32,
                name_max: s.name_max,
                fragment_size: BLOCK_SIZE_U32,
                reserved: [0; 7],
            }),
            Err(error) => reply.error(errno(&error)),
        }
    }
}

fn statx(a: &Attributes, node: u64) -> StatxOut {
    let time = |t: Timestamp| StatxTime { seconds: t.seconds, nanos: t.nanos, reserved: 0 };
    let mode = file_type(a.file_type) | (a.permissions & mfs::file::PERMISSIONS);
    StatxOut {
        mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
        block_size: BLOCK_SIZE_U32,
        links: a.links,
        uid: a.uid,
        gid: a.gid,
        mode: u16::try_from(mode).expect("type and permissions have 16 bits"),
        inode: node,
        size: a.size,
        blocks: a.sectors(),
        atime: time(a.atime),
        btime: time(a.btime),
        ctime: time(a.ctime),
        mtime: time(a.mtime),
        rdev_major: libc::major(a.rdev.into()),
        rdev_minor: libc::minor(a.rdev.into()),
        ..zerocopy::FromZeros::new_zeroed()
    }
}

/// What a SETATTR asks for.
pub(crate) fn set_attributes(set: &SetattrIn) -> SetAttributes {
    let has = |field: u32| set.valid & field != 0;
    let time = |field: u32, now: u32, seconds: u64, nanos: u32| {
        if has(now) {
            Some(SetTime::Now)
        } else {
            has(field).then(|| {
                let nanos = nanos.min(Timestamp::NANOS_PER_SECOND - 1);
                SetTime::To(Timestamp { seconds: seconds.cast_signed(), nanos })
            })
        }
    };
    SetAttributes {
        permissions: has(setattr::MODE).then_some(set.mode & mfs::file::PERMISSIONS),
        uid: has(setattr::UID).then_some(set.uid),
        gid: has(setattr::GID).then_some(set.gid),
        size: has(setattr::SIZE).then_some(set.size),
        atime: time(setattr::ATIME, setattr::ATIME_NOW, set.atime, set.atime_nanos),
        mtime: time(setattr::MTIME, setattr::MTIME_NOW, set.mtime, set.mtime_nanos),
        // A change of owner always takes them (fs/open.c, chown_common), and the kernel leaves it to us.
        kill_privileges: has(setattr::KILL_PRIVILEGES) || has(setattr::UID) || has(setattr::GID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(valid: u32, seconds: u64, nanos: u32) -> SetAttributes {
        let set = SetattrIn {
            valid,
            mtime: seconds,
            mtime_nanos: nanos,
            ..zerocopy::FromZeros::new_zeroed()
        };
        set_attributes(&set)
    }

    #[test]
    fn times_before_1970_and_nanoseconds_beyond_a_second_are_understood() {
        let of = |seconds: i64, nanos| Some(SetTime::To(Timestamp { seconds, nanos }));
        assert_eq!(set(setattr::MTIME, u64::MAX, 1).mtime, of(-1, 1));
        assert_eq!(set(setattr::MTIME, 5, u32::MAX).mtime, of(5, 999_999_999));
        assert_eq!(set(setattr::MTIME | setattr::MTIME_NOW, 5, 0).mtime, Some(SetTime::Now));
        assert_eq!(set(setattr::ATIME, 5, 0).mtime, None);
    }
}
