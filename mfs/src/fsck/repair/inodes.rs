//! Inodes: which can be believed, what they lead to, and what has to be changed in them.
//!
//! Keeps true: a file whose map of blocks is not whole is not served with holes where its data was,
//! but isolated; what it leads to stays reserved. Blocks are claimed for inodes that can be believed
//! first, so that nothing of theirs goes to one that cannot.

use std::collections::{BTreeMap, BTreeSet};

use zerocopy::little_endian::{U32, U64};

use super::groups::Found;
use super::item::{Item, Items, State};
use super::work::Work;
use crate::block::{Block, BlockNo, as_usize};
use crate::file::{FileId, FileType, InodeNo};
use crate::fsck::ISOLATED;
use crate::fsck::lenient;
use crate::fsck::media::Seen;
use crate::inode::check_core;
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock, InodeCore};

impl Work<'_> {
    /// Looks at every inode. `None`: something was found out about a chunk, begin again.
    pub(super) async fn read_inodes(
        &mut self,
        found: &mut Found,
        orphans: &BTreeSet<FileId>,
    ) -> Option<Items> {
        let mut items = Items::new();
        let mut broken: Vec<(BlockNo, String)> = Vec::new();
        let places = std::mem::take(&mut found.inodes);
        let all = places.len() as u64;
        // All of them are in use before anything they lead to is looked at.
        for at in places.iter().chain(&found.damaged) {
            self.claim(*at, ChunkKind::Inode);
        }
        for (done, at) in (0..).zip(places) {
            self.step("inodes", done, all);
            let Some(block) = self.look(at).await.whole().cloned() else { continue };
            match self.examine(at, block.get(), found, orphans).await {
                Ok(item) => {
                    items.insert(item.file.inode, item);
                }
                Err(None) => return None,
                Err(Some(why)) => broken.push((at, why)),
            }
        }
        for at in std::mem::take(&mut found.damaged) {
            let is_read = !matches!(self.look(at).await, Seen::Unreadable);
            let why = if is_read {
                "checksum wrong in more than a bit"
            } else {
                "the device cannot read it"
            };
            broken.push((at, why.into()));
        }
        let root = BlockNo(self.sb.root.inode.0);
        if !places_hold(&items, &broken, root) && self.suspect(root, ChunkKind::Inode).await {
            return None;
        }
        self.read_broken(broken, found, &mut items).await;
        self.see_to_root(found, &mut items).await;
        Some(items)
    }

    /// One inode in a whole block; what is wrong with it when it cannot be believed, or nothing when
    /// everything is to be read again.
    async fn examine(
        &mut self,
        at: BlockNo,
        on_disk: &InodeBlock,
        found: &Found,
        orphans: &BTreeSet<FileId>,
    ) -> Result<Item, Option<String>> {
        let mut core = on_disk.core;
        let flags = core.flags.get();
        let file = FileId { inode: InodeNo(at.0), generation: core.generation.get() };
        let owner = Owner { id: at.0, generation: file.generation };
        if on_disk.header.owner() != owner {
            return Err(Some("the header is not that of this inode".into()));
        }
        if flags & InodeCore::ISOLATED != 0 && flags & InodeCore::DAMAGED != 0 {
            return Err(Some(String::new()));
        }
        core.flags = U32::new(flags & !InodeCore::ISOLATED);
        check_core(&core).map_err(|what| Some(what.to_owned()))?;
        let file_type = FileType::of_mode(core.mode.get()).expect("checked");
        let mut item = Item::new(file, file_type, State::Good);
        item.fix.unmark = flags & (InodeCore::ISOLATED | InodeCore::DAMAGED) != 0;
        if item.fix.unmark {
            self.did(item.name(), format!("{ISOLATED}, looked through, given free again"));
        }
        item.links = core.links.get();
        item.entries_said = core.entries.get();
        item.parent =
            FileId { inode: InodeNo(core.parent.get()), generation: core.parent_generation.get() };
        match AreaKind::from_u8(core.area).expect("checked") {
            AreaKind::Empty => {}
            AreaKind::Bytes => {
                let size = as_usize(core.size.get());
                if on_disk.body()[size..].iter().any(|byte| *byte != 0) {
                    item.fix.zero_tail = true;
                    self.did(item.name(), "bytes behind the end of inline data are cut");
                }
            }
            AreaKind::Extents => {
                let listed = orphans.contains(&file);
                self.examine_extents(&mut item, on_disk, listed).await?;
            }
            AreaKind::Entries | AreaKind::Index => {
                let extra = found.buckets.get(&file).map_or(&[][..], Vec::as_slice);
                if !self.read_directory(&mut item, on_disk, extra).await {
                    return Err(None);
                }
            }
        }
        self.read_xattrs(&mut item, on_disk).await;
        item.blocks += (item.own.len() + item.dir_blocks.len()) as u64;
        if item.blocks != core.blocks.get() && item.fix.extents.is_none() && !item.rebuild {
            let (counted, have) = (core.blocks.get(), item.blocks);
            self.did(item.name(), format!("counted {counted} blocks, has {have}; put right"));
        }
        Ok(item)
    }

    /// Inodes that cannot be believed: directories are made of what is found of them, the others are
    /// isolated.
    async fn read_broken(
        &mut self,
        mut broken: Vec<(BlockNo, String)>,
        found: &Found,
        items: &mut Items,
    ) {
        loop {
            let mut named: BTreeMap<InodeNo, Vec<(u32, FileType)>> = BTreeMap::new();
            for entry in items.values().flat_map(|item| &item.entries) {
                let names = named.entry(entry.file.inode).or_default();
                names.push((entry.file.generation, entry.file_type));
            }
            let before = broken.len();
            let mut rest = Vec::new();
            for (at, why) in broken {
                let seen = self.look(at).await;
                let names = named.get(&InodeNo(at.0)).map_or(&[][..], Vec::as_slice);
                let (file, file_type) = self.identify(at, &seen, names, found);
                if file_type == FileType::Directory {
                    let item = self.remake_directory(file, &seen, found, &why).await;
                    items.insert(file.inode, item);
                } else {
                    rest.push((at, why));
                }
            }
            broken = rest;
            if broken.len() == before {
                for (at, why) in broken {
                    if why.is_empty() && self.options.remove_isolated {
                        self.release(at);
                        self.did(format!("inode {at}"), "was damaged beyond repair; removed");
                        continue;
                    }
                    let seen = self.look(at).await;
                    let names = named.get(&InodeNo(at.0)).map_or(&[][..], Vec::as_slice);
                    let (file, file_type) = self.identify(at, &seen, names, found);
                    let state = State::Isolated((!why.is_empty()).then_some(why));
                    let mut item = Item::new(file, file_type, state);
                    if let Some(block) = seen.of_its_place() {
                        self.reserve(&mut item, block).await;
                    }
                    items.insert(file.inode, item);
                }
                return;
            }
        }
    }

    /// Who an inode that cannot be believed is: by its header, else by the names that lead to it.
    fn identify(
        &self,
        at: BlockNo,
        seen: &Seen,
        names: &[(u32, FileType)],
        found: &Found,
    ) -> (FileId, FileType) {
        let inode = InodeNo(at.0);
        let (mut generation, mut by_mode) = (None, None);
        if let Some(block) = seen.of_its_place() {
            let on_disk: &InodeBlock = block.get();
            if on_disk.header.kind() == Some(Kind::Inode) {
                generation = Some(on_disk.header.owner_generation.get());
                by_mode = FileType::of_mode(on_disk.core.mode.get());
            }
        }
        let epoch = self.chunk_of(at).map_or(1, |chunk| chunk.entry.epoch.get().max(1));
        let generation = generation
            .filter(|g| names.is_empty() || names.iter().any(|(named, _)| named == g))
            .or_else(|| names.iter().map(|(named, _)| *named).max())
            .or(generation)
            .unwrap_or(epoch);
        let file = FileId { inode, generation };
        let by_name = names.iter().find(|(named, _)| *named == generation).map(|(_, t)| *t);
        let by_buckets = found.buckets.contains_key(&file).then_some(FileType::Directory);
        let file_type = by_name.or(by_buckets).or(by_mode).unwrap_or(FileType::Regular);
        (file, file_type)
    }

    /// What an isolated inode leads to, as far as nobody else uses it, stays reserved.
    async fn reserve(&mut self, item: &mut Item, block: &Block) {
        let on_disk: InodeBlock = *block.get();
        for (at, kind) in lenient::blocks_of(&*self.disk, &self.sb, item.file, &on_disk).await {
            let is_free = !self.is_used(at) && self.is_marked(at) != Some(false);
            if is_free && self.fits(at, kind) && self.chunk_of(at).is_some_and(|c| c.kind.is_some())
            {
                self.claim(at, kind);
                item.own.push(at);
            }
        }
    }

    /// There is a root directory.
    async fn see_to_root(&mut self, found: &Found, items: &mut Items) {
        let root = self.sb.root;
        let is_good = items.get(&root.inode).is_some_and(|item| {
            item.file == root && item.file_type == FileType::Directory && !item.is_isolated()
        });
        if is_good {
            return;
        }
        if let Some(item) = items.remove(&root.inode) {
            for at in item.own {
                self.release(at);
            }
        }
        if self.group_and_bit(BlockNo(root.inode.0)).is_none() {
            let Some(no) = self.sb.layout.group_of(BlockNo(root.inode.0)) else { return };
            self.add_group(no);
        }
        let seen = self.look(BlockNo(root.inode.0)).await;
        self.claim(BlockNo(root.inode.0), ChunkKind::Inode);
        let item = self.remake_directory(root, &seen, found, "there is no root directory").await;
        items.insert(root.inode, item);
    }

    /// An inode as it is to be.
    pub(super) async fn write_inode(&mut self, item: &mut Item, links: u32, parent: FileId) {
        let at = BlockNo(item.file.inode.0);
        let seen = self.look(at).await;
        match item.state.clone() {
            // Nothing of it counts but that it is there.
            State::Isolated(None) => {}
            State::Isolated(Some(why)) => self.write_isolated(item, &seen, &why).await,
            State::Good | State::Made => {
                let old = seen.whole().filter(|_| item.state == State::Good);
                let mut block =
                    old.map_or_else(|| self.new_directory(item), |b| Box::new(b.clone()));
                let on_disk: &mut InodeBlock = block.get_mut();
                self.apply(item, on_disk).await;
                on_disk.core.links = U32::new(links);
                if item.file_type == FileType::Directory {
                    on_disk.core.parent = U64::new(parent.inode.0);
                    on_disk.core.parent_generation = U32::new(parent.generation);
                }
                self.put_changed(at, Kind::Inode, item.owner(), block).await;
            }
        }
    }

    async fn apply(&mut self, item: &mut Item, on_disk: &mut InodeBlock) {
        if item.fix.unmark {
            let marks = InodeCore::ISOLATED | InodeCore::DAMAGED;
            on_disk.core.flags = U32::new(on_disk.core.flags.get() & !marks);
        }
        if item.fix.zero_tail {
            let size = as_usize(on_disk.core.size.get());
            on_disk.body_mut()[size..].fill(0);
        }
        self.write_xattrs(item, on_disk).await;
        if item.file_type == FileType::Directory {
            self.write_directory(item, on_disk).await;
        }
        self.write_extents(item, on_disk).await;
        if let Some(mode) = item.fix.mode {
            on_disk.core.mode = U32::new(mode);
        }
        on_disk.core.blocks = U64::new(item.blocks);
    }

    /// A directory with nothing in it.
    fn new_directory(&self, item: &Item) -> Box<Block> {
        let mut block = Block::zeroed();
        let on_disk: &mut InodeBlock = block.get_mut();
        let core = &mut on_disk.core;
        // Whose it was, and who might see it, is lost. The root everybody sees.
        let permissions = if item.file == self.sb.root { 0o755 } else { 0o700 };
        core.mode = U32::new(FileType::Directory.mode_bits() | permissions);
        core.generation = U32::new(item.file.generation);
        core.area = AreaKind::Entries as u8;
        let now = self.options.now.into();
        (core.atime, core.mtime, core.ctime, core.btime) = (now, now, now, now);
        crate::dir::area::clear(&mut on_disk.area);
        block
    }

    /// The bytes stay as they are; that nobody takes them for more is all that changes.
    async fn write_isolated(&mut self, item: &Item, seen: &Seen, why: &str) {
        let at = BlockNo(item.file.inode.0);
        let mut block = match seen {
            Seen::Whole(block)
            | Seen::Mended(block, _)
            | Seen::Damaged(block)
            | Seen::Garbage(block) => block.clone(),
            Seen::Foreign | Seen::Nothing | Seen::Unreadable => Block::zeroed(),
        };
        let core = &mut block.get_mut::<InodeBlock>().core;
        core.flags = U32::new(core.flags.get() | InodeCore::ISOLATED | InodeCore::DAMAGED);
        core.generation = U32::new(item.file.generation);
        let permissions = core.mode.get() & 0o7777;
        core.mode = U32::new(item.file_type.mode_bits() | permissions);
        self.put(at, Kind::Inode, item.owner(), block).await;
        self.did(item.name(), format!("{why}; isolated, what it leads to stays reserved"));
    }
}

/// Was an inode found at this place, whole or not?
fn places_hold(items: &Items, broken: &[(BlockNo, String)], at: BlockNo) -> bool {
    items.contains_key(&InodeNo(at.0)) || broken.iter().any(|(place, _)| *place == at)
}
