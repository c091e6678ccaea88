//! What a repair knows of an inode that stays, and what is to be changed in it.

use std::collections::BTreeMap;

use crate::block::BlockNo;
use crate::file::{FileId, FileType, InodeNo};
use crate::inode::extents::Extent;
use crate::ondisk::header::Owner;
use crate::xattr::Xattrs;

/// One entry of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) file: FileId,
    pub(super) file_type: FileType,
    pub(super) cookie: u64,
    /// The block it was found in.
    pub(super) at: BlockNo,
    pub(super) is_kept: bool,
    /// The type in the entry is not that of the file.
    pub(super) retyped: bool,
}

/// How far an inode can be believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum State {
    Good,
    /// Every access fails. It was so before, or there is a reason.
    Isolated(Option<String>),
    /// Made by this repair, in the place of one that cannot be believed or for a new directory.
    Made,
}

/// An inode that stays, and what is to be changed.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) file: FileId,
    pub(super) file_type: FileType,
    pub(super) state: State,
    /// What it says.
    pub(super) links: u32,
    pub(super) parent: FileId,
    pub(super) entries_said: u64,
    /// Blocks it uses beside its own, and those of them that are metadata.
    pub(super) blocks: u64,
    pub(super) own: Vec<BlockNo>,
    /// Of a directory: index and buckets.
    pub(super) dir_blocks: Vec<BlockNo>,
    pub(super) entries: Vec<Entry>,
    /// Its structure is not as it has to be: it is made anew of its entries.
    pub(super) rebuild: bool,
    pub(super) fix: Fix,
}

/// Changes of an inode that do not depend on others.
#[derive(Clone, Debug, Default)]
pub(super) struct Fix {
    /// The mark of a recovery goes.
    pub(super) unmark: bool,
    /// Bytes behind the end of inline data go.
    pub(super) zero_tail: bool,
    /// A new map of blocks, and the nodes of the old one.
    pub(super) extents: Option<Vec<Extent>>,
    pub(super) old_nodes: Vec<BlockNo>,
    /// Runs that somebody else uses too.
    pub(super) shared: Vec<Extent>,
    pub(super) xattrs: Option<Xattrs>,
    /// Blocks of extended attributes, when some are lost.
    pub(super) xattr_blocks: Option<Vec<BlockNo>>,
    pub(super) mode: Option<u32>,
}

/// A map of blocks as it was found.
pub(super) struct Tree {
    pub(super) nodes: Vec<BlockNo>,
    pub(super) extents: Vec<Extent>,
    /// What is wrong with how it is stored; what it says is beyond doubt.
    pub(super) odd: Option<String>,
}

impl Item {
    pub(super) fn new(file: FileId, file_type: FileType, state: State) -> Item {
        Item {
            file,
            file_type,
            state,
            links: 0,
            parent: FileId { inode: InodeNo(0), generation: 0 },
            entries_said: 0,
            blocks: 0,
            own: Vec::new(),
            dir_blocks: Vec::new(),
            entries: Vec::new(),
            rebuild: false,
            fix: Fix::default(),
        }
    }

    pub(super) fn is_isolated(&self) -> bool {
        matches!(self.state, State::Isolated(_))
    }

    pub(super) fn owner(&self) -> Owner {
        Owner { id: self.file.inode.0, generation: self.file.generation }
    }

    pub(super) fn name(&self) -> String {
        let is_directory = self.file_type == FileType::Directory;
        let kind = if is_directory { "directory" } else { "inode" };
        format!("{kind} {}", self.file.inode)
    }
}

/// All inodes that stay.
pub(super) type Items = BTreeMap<InodeNo, Item>;
