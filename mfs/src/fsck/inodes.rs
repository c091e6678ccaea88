//! Inodes: every block that a group says is one.

use super::media::read_one;
use super::{Check, CheckError, ISOLATED, Problem, lenient};
use crate::block::{Block, BlockNo, as_usize};
use crate::error::Corruption;
use crate::file::{FileId, FileType, InodeNo};
use crate::inode::check_core;
use crate::layout::GroupNo;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::extent::{ExtentEntry, ExtentNodeBlock, NODE_ENTRIES_MAX};
use crate::ondisk::header::{self, Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore};

/// An inode in use, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) file: FileId,
    pub(crate) file_type: FileType,
    /// Damaged beyond repair.
    pub(crate) is_damaged: bool,
    pub(crate) links: u32,
    /// Of a directory: what it says of itself, and its entries.
    pub(crate) parent: FileId,
    pub(crate) entries_counted: u64,
    pub(crate) entries: Vec<(Vec<u8>, FileId, FileType)>,
}

/// A run of a file, as it was found in its tree.
#[derive(Clone, Copy)]
struct Run {
    logical: u64,
    blocks: u64,
}

impl Check<'_> {
    pub(super) async fn read_inodes(&mut self) -> Result<(), CheckError> {
        let groups: Vec<GroupNo> = self.groups.keys().copied().collect();
        let all = groups.len() as u64;
        for (done, no) in (0..).zip(groups) {
            self.step("inodes", done, all);
            let chunks = self.sb.layout.chunk_count(no);
            for at in self.inode_places(no, 0..chunks) {
                self.use_block(format!("inode {at}"), at, ChunkKind::Inode);
                if let Err(corruption) = self.read_inode(at).await {
                    self.problem(format!("inode {at}"), corruption);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn read_inode(&mut self, at: BlockNo) -> Result<(), Corruption> {
        let no = InodeNo(at.0);
        let name = format!("inode {at}");
        let block = read_one(&*self.disk, at).await.unwrap_or_else(Block::zeroed);
        let header = match header::check(&block, self.sb.fs_id, at) {
            Ok(header) => *header,
            Err(corruption) => return Err(corruption),
        };
        let mut on_disk: InodeBlock = *block.get();
        let flags = on_disk.core.flags.get();
        let is_damaged = flags & InodeCore::ISOLATED != 0 && flags & InodeCore::DAMAGED != 0;
        on_disk.core.flags.set(flags & !InodeCore::ISOLATED);
        let core = &on_disk.core;
        let generation = core.generation.get();
        if header.kind() != Some(Kind::Inode) || header.owner() != (Owner { id: no.0, generation })
        {
            self.problem(name, "the header is not that of this inode");
            return Ok(());
        }
        if is_damaged {
            self.read_damaged(FileId { inode: no, generation }, &on_disk);
            return Ok(());
        }
        if flags & InodeCore::DAMAGED != 0 {
            self.problem(&name, "marked as damaged, and not isolated");
        }
        // What it is made of is checked like everybody's: then that is all there is to mend.
        if flags & InodeCore::ISOLATED != 0 {
            self.problem(&name, ISOLATED);
        }
        if let Err(what) = check_core(core) {
            self.problem(name, what);
            return Ok(());
        }
        self.report.inodes += 1;
        let file = FileId { inode: no, generation };
        let file_type = FileType::of_mode(core.mode.get()).expect("checked");
        let parent =
            FileId { inode: InodeNo(core.parent.get()), generation: core.parent_generation.get() };
        let mut found = Found {
            file,
            file_type,
            is_damaged: false,
            links: core.links.get(),
            parent,
            entries_counted: core.entries.get(),
            entries: Vec::new(),
        };
        let blocks_before = self.report.blocks_used;
        match AreaKind::from_u8(core.area).expect("checked") {
            AreaKind::Empty => {}
            AreaKind::Bytes => {
                let size = as_usize(core.size.get());
                if on_disk.body()[size..].iter().any(|b| *b != 0) {
                    self.problem(&name, "bytes behind the end of inline data are not zero");
                }
            }
            AreaKind::Extents => {
                self.read_extents(file, on_disk.root_extents().to_vec(), core.depth).await;
            }
            AreaKind::Entries | AreaKind::Index => {
                self.report.directories += 1;
                self.read_directory(&mut found, &on_disk).await;
            }
        }
        self.read_xattrs(file, &on_disk).await;
        let blocks = self.report.blocks_used - blocks_before;
        if blocks != core.blocks.get() {
            let counted = core.blocks.get();
            self.miscount(&name, format!("counts {counted} blocks, has {blocks}"));
        }
        self.inodes.insert(no, found);
        Ok(())
    }

    /// An inode that fsck has found damaged beyond repair: nothing it says counts but who it is.
    fn read_damaged(&mut self, file: FileId, on_disk: &InodeBlock) {
        let Some(file_type) = FileType::of_mode(on_disk.core.mode.get()) else {
            self.problem(format!("inode {}", file.inode), "isolated, of unknown type");
            return;
        };
        let told = Problem::new(format!("inode {}", file.inode), "damaged beyond repair, isolated");
        self.report.isolated.push(told);
        self.report.inodes += 1;
        let nobody = FileId { inode: InodeNo(0), generation: 0 };
        self.inodes.insert(
            file.inode,
            Found {
                file,
                file_type,
                is_damaged: true,
                links: 0,
                parent: nobody,
                entries_counted: 0,
                entries: Vec::new(),
            },
        );
    }

    /// What they lead to stays reserved, as far as nobody else has it: when all others are known.
    pub(super) async fn keep_damaged(&mut self) {
        let damaged: Vec<FileId> =
            self.inodes.values().filter(|found| found.is_damaged).map(|found| found.file).collect();
        for file in damaged {
            let at = BlockNo(file.inode.0);
            let Some(block) = read_one(&*self.disk, at).await else { continue };
            let on_disk: InodeBlock = *block.get();
            for (at, kind) in lenient::blocks_of(&*self.disk, &self.sb, file, &on_disk).await {
                self.keep_block(at, kind);
            }
        }
    }

    /// Walks an extent tree, level by level.
    async fn read_extents(&mut self, file: FileId, root: Vec<ExtentEntry>, depth: u8) {
        let name = format!("inode {}", file.inode);
        if depth > 8 {
            self.problem(name, format!("extent tree of depth {depth}"));
            return;
        }
        let mut level_entries = root;
        for level in (0..depth).rev() {
            let mut below = Vec::new();
            for (i, entry) in level_entries.iter().enumerate() {
                let at = BlockNo(entry.physical.get());
                let owner = Owner { id: file.inode.0, generation: file.generation };
                let node = match self.read(at, Kind::ExtentNode, owner).await {
                    Ok(block) => *block.get::<ExtentNodeBlock>(),
                    Err(corruption) => {
                        self.problem(&name, corruption);
                        continue;
                    }
                };
                if !self.use_block(&name, at, ChunkKind::Tree) {
                    // Followed already.
                    continue;
                }
                let count = usize::from(node.count.get());
                if u16::from(level) != node.level.get() || count == 0 || count > NODE_ENTRIES_MAX {
                    self.problem(&name, format!("extent node {at} of wrong level or size"));
                    continue;
                }
                // The first key of the first node stands for everything smaller.
                if i > 0 && node.entries[0].logical.get() < entry.logical.get() {
                    self.problem(&name, format!("extent node {at} begins before its key"));
                }
                // What reaches into the next node is not found there.
                let last = &node.entries[count - 1];
                let end = last.logical.get().saturating_add(last.blocks.get().into());
                if level == 0 && level_entries.get(i + 1).is_some_and(|n| end > n.logical.get()) {
                    self.problem(&name, format!("extent node {at} reaches into the next one"));
                }
                below.extend_from_slice(&node.entries[..count]);
            }
            level_entries = below;
        }
        let mut last: Option<Run> = None;
        for entry in &level_entries {
            let run = Run { logical: entry.logical.get(), blocks: entry.blocks.get().into() };
            if run.blocks == 0 {
                self.problem(
                    &name,
                    format!("an empty extent at block {} of the file", run.logical),
                );
                continue;
            }
            if last.is_some_and(|l| run.logical < l.logical.saturating_add(l.blocks)) {
                let logical = run.logical;
                self.problem(&name, format!("extents overlap at block {logical} of the file"));
            }
            if entry.flags.get() & !ExtentEntry::UNWRITTEN != 0 {
                self.problem(&name, format!("unknown flags {:#x} of an extent", entry.flags.get()));
            }
            let first = BlockNo(entry.physical.get());
            let group = self.sb.layout.group_of(first);
            let end = BlockNo(first.0.saturating_add(run.blocks - 1));
            if group.is_none() || group != self.sb.layout.group_of(end) {
                self.problem(&name, format!("an extent at block {first} crosses groups"));
                continue;
            }
            self.use_blocks(&name, first, run.blocks, ChunkKind::Data);
            last = Some(run);
        }
    }
}
