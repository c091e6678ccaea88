//! Names: looked up, and made.

use mfs::FsError;
use mfs::file::{Attributes, FileId, FileType};
use mfs::ops::{self, Entry, Lookup, NewFile, NewKind, RenameKind};

use crate::adapter::Shared;
use crate::data::fopen_flags;
use crate::entries::Names;
use crate::errno::errno;
use crate::nodes::Node;
use crate::protocol::layout::OpenOut;
use crate::transport::{Errno, Reply};

/// A file about to be made, with what it borrows owned.
pub(crate) struct Made {
    pub(crate) kind: MadeKind,
    pub(crate) permissions: u32,
    pub(crate) umask: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) enum MadeKind {
    Plain(NewKind<'static>),
    SymbolicLink(Vec<u8>),
}

impl Made {
    pub(crate) fn file(&self) -> NewFile<'_> {
        let kind = match &self.kind {
            MadeKind::Plain(kind) => *kind,
            MadeKind::SymbolicLink(target) => NewKind::SymbolicLink(target),
        };
        let Made { permissions, umask, uid, gid, .. } = *self;
        NewFile { kind, permissions, umask, uid, gid }
    }
}

impl Shared {
    pub(crate) fn names(&self) -> Names<'_> {
        Names { nodes: &self.nodes, has_epochs: self.notifier.has_epochs() }
    }

    pub(crate) async fn lookup(&self, parent: Node, name: &[u8], reply: Reply) {
        // NFS asks for these by handle; the kernel itself never does.
        if name == b"." || name == b".." {
            return self.answer_entry(reply, self.lookup_dots(parent, name).await);
        }
        match async { self.fs.lookup(self.file(parent)?, name).await }.await {
            Ok(Lookup::Found(entry)) => reply.structure(&self.names().entry(&entry)),
            Ok(Lookup::Absent(keep)) => match self.names().absent(&keep) {
                Some(absent) => reply.structure(&absent),
                None => reply.error(Errno(libc::ENOENT)),
            },
            Err(error) => reply.error(errno(&error)),
        }
    }

    async fn lookup_dots(&self, parent: Node, name: &[u8]) -> Result<Entry, FsError> {
        let dir = self.file(parent)?;
        let file = if name == b"." { dir } else { self.fs.parent(dir).await? };
        let entry = self.fs.getattr(file).await?;
        self.nodes.remember(file);
        Ok(entry)
    }

    /// Makes a file and opens it, or opens the one that is there unless `exclusive`.
    pub(crate) async fn create(
        &self,
        parent: Node,
        name: &[u8],
        new: &NewFile<'_>,
        flags: ops::OpenFlags,
        exclusive: bool,
        reply: Reply,
    ) {
        let made = async {
            let parent = self.file(parent)?;
            loop {
                match self.fs.create_and_open(parent, name, new, flags).await {
                    Err(FsError::Exists) if !exclusive => {}
                    made => return made,
                }
                // Another node was faster: what it has made is opened.
                match self.open_existing(parent, name, (new.uid, new.gid), flags).await {
                    Err(FsError::NotFound) => {}
                    opened => return opened,
                }
            }
        };
        self.answer_created(reply, flags, made.await);
    }

    /// Makes a file without a name in a directory, and opens it.
    pub(crate) async fn create_unnamed(
        &self,
        dir: Node,
        new: &NewFile<'_>,
        flags: ops::OpenFlags,
        linkable: bool,
        reply: Reply,
    ) {
        let made = async { self.fs.create_unnamed(self.file(dir)?, new, flags, linkable).await };
        self.answer_created(reply, flags, made.await);
    }

    fn answer_created(
        &self,
        reply: Reply,
        flags: ops::OpenFlags,
        made: Result<(Entry, ops::OpenFile), FsError>,
    ) {
        match made {
            Ok((entry, open)) => {
                let (handle, flags) = (self.add_handle(open), fopen_flags(flags));
                let opened = OpenOut { handle, flags, backing: 0 };
                reply.both(&self.names().entry(&entry), &opened);
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

/// `None` for flags that are not supported.
pub(crate) fn rename_kind(flags: u32) -> Option<RenameKind> {
    match flags {
        0 => Some(RenameKind::Replace),
        libc::RENAME_NOREPLACE => Some(RenameKind::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameKind::Exchange),
        _ => None,
    }
}
