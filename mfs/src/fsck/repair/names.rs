//! Names: every entry leads to something, every directory has one name, everything that stays has a
//! name, and what had none finds one in `lost+found`.
//!
//! Keeps true: nothing is freed for want of a name but what a list of orphans says was unlinked, and
//! what says so itself.

use std::collections::{BTreeMap, BTreeSet};

use super::item::{Entry, Item, Items, State};
use super::work::Work;
use crate::block::BlockNo;
use crate::file::{FileId, FileType, InodeNo};
use crate::ondisk::alloc_group::ChunkKind;

const LOST_AND_FOUND: &str = "lost+found";

/// Where everything is, when it is settled.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) links: BTreeMap<InodeNo, u32>,
    pub(super) parents: BTreeMap<InodeNo, FileId>,
}

impl Work<'_> {
    /// Something whole leads to an inode in a chunk that is said to be of another kind: true when that
    /// is so, and everything is to be read again.
    pub(super) async fn suspect_targets(&mut self, items: &Items) -> bool {
        let mut missing = BTreeSet::new();
        for entry in items.values().flat_map(|item| &item.entries) {
            if !items.contains_key(&entry.file.inode) {
                missing.insert(entry.file.inode);
            }
        }
        let mut any = false;
        for inode in missing {
            let at = BlockNo(inode.0);
            let kind = self.chunk_of(at).map(|chunk| chunk.kind);
            if kind.is_some_and(|kind| kind != Some(ChunkKind::Inode)) {
                any |= self.suspect(at, ChunkKind::Inode).await;
            }
        }
        any
    }

    /// Settles the names of everything; says which inodes are freed.
    pub(super) async fn settle_names(
        &mut self,
        items: &mut Items,
        orphans: &BTreeSet<FileId>,
    ) -> Names {
        let inodes: Vec<InodeNo> = items.keys().copied().collect();
        for no in &inodes {
            let mut item = items.remove(no).expect("of the list");
            self.drop_impossible_names(&mut item);
            self.drop_leading_nowhere(&mut item, items);
            items.insert(*no, item);
        }
        self.keep_one_name_of_directories(items);
        let mut reached = reach(items, self.sb.root.inode);
        self.free_orphans(items, orphans, &reached).await;
        // Directories that nothing leads to from the root: those on top go to lost+found.
        let mut found: Vec<FileId> = Vec::new();
        let lost = lost_directories(items, &reached);
        let named: BTreeSet<InodeNo> = lost
            .iter()
            .flat_map(|no| items[no].entries.iter().filter(|e| e.is_kept))
            .map(|entry| entry.file.inode)
            .collect();
        for top in lost.into_iter().filter(|no| !named.contains(no)) {
            found.push(items[&top].file);
            reached.extend(reach(items, top));
        }
        // In a circle one name is taken away.
        while let Some(top) = lost_directories(items, &reached).first().copied() {
            for item in items.values_mut() {
                for entry in item.entries.iter_mut().filter(|e| e.file.inode == top) {
                    entry.is_kept = false;
                }
            }
            found.push(items[&top].file);
            reached.extend(reach(items, top));
        }
        let mut names = Names::default();
        let has_name: BTreeSet<InodeNo> = items
            .values()
            .flat_map(|item| item.entries.iter().filter(|e| e.is_kept))
            .map(|entry| entry.file.inode)
            .collect();
        for item in items.values() {
            let is_top = item.file_type != FileType::Directory || item.is_isolated();
            if is_top && item.file != self.sb.root && !has_name.contains(&item.file.inode) {
                found.push(item.file);
            }
        }
        if !found.is_empty() {
            self.put_into_lost_and_found(items, &found);
        }
        for item in items.values() {
            for entry in item.entries.iter().filter(|e| e.is_kept) {
                let links = names.links.entry(entry.file.inode).or_default();
                if entry.file_type == FileType::Directory {
                    names.parents.insert(entry.file.inode, item.file);
                } else {
                    *links += 1;
                }
            }
        }
        names.parents.insert(self.sb.root.inode, self.sb.root);
        for item in items.values().filter(|item| item.file_type == FileType::Directory) {
            let below = item
                .entries
                .iter()
                .filter(|e| e.is_kept && e.file_type == FileType::Directory)
                .count();
            let links = 2 + u32::try_from(below).unwrap_or(u32::MAX - 2);
            names.links.insert(item.file.inode, links);
        }
        self.tell_links(items, &names);
        names
    }

    fn tell_links(&mut self, items: &Items, names: &Names) {
        for item in items.values().filter(|item| item.state == State::Good) {
            let links = names.links.get(&item.file.inode).copied().unwrap_or(0);
            if item.links != links {
                let said = item.links;
                self.did(item.name(), format!("had {said} links, {links} are; put right"));
            }
            if let Some(parent) = names.parents.get(&item.file.inode)
                && item.file_type == FileType::Directory
                && item.parent != *parent
            {
                self.did(item.name(), format!("now knows its parent {}", parent.inode));
            }
        }
    }

    fn drop_leading_nowhere(&mut self, item: &mut Item, others: &Items) {
        let name = item.name();
        let own = item.file;
        let own_type = item.file_type;
        let mut seen = BTreeMap::new();
        let mut did = Vec::new();
        let mut rebuild = false;
        for entry in item.entries.iter_mut().filter(|entry| entry.is_kept) {
            let shown = String::from_utf8_lossy(&entry.name).into_owned();
            let target = if entry.file.inode == own.inode {
                Some((own, own_type))
            } else {
                others.get(&entry.file.inode).map(|found| (found.file, found.file_type))
            };
            match target {
                None => {
                    let no = entry.file.inode;
                    did.push(format!("entry {shown:?} led to inode {no}, which is none; removed"));
                    entry.is_kept = false;
                }
                Some((file, _)) if file != entry.file => {
                    let no = entry.file.inode;
                    did.push(format!("entry {shown:?} led to an older inode {no}; removed"));
                    entry.is_kept = false;
                }
                Some((_, file_type)) => {
                    if file_type != entry.file_type {
                        did.push(format!("entry {shown:?} had the wrong type, put right"));
                        entry.file_type = file_type;
                        entry.retyped = true;
                    }
                    if let Some(first) = seen.insert(entry.name.clone(), entry.file) {
                        did.push(format!(
                            "a second entry {shown:?}, to inode {}, removed",
                            entry.file.inode
                        ));
                        seen.insert(entry.name.clone(), first);
                        entry.is_kept = false;
                        rebuild = true;
                    }
                }
            }
        }
        item.rebuild |= rebuild;
        for what in did {
            self.did(&name, what);
        }
    }

    /// The name in the directory that it knows as its parent, if there is one, else the first.
    fn keep_one_name_of_directories(&mut self, items: &mut Items) {
        let mut names: BTreeMap<InodeNo, Vec<(InodeNo, usize)>> = BTreeMap::new();
        for item in items.values() {
            for (i, entry) in item.entries.iter().enumerate().filter(|(_, e)| e.is_kept) {
                if entry.file_type == FileType::Directory {
                    names.entry(entry.file.inode).or_default().push((item.file.inode, i));
                }
            }
        }
        for (no, places) in names {
            let parent = items[&no].parent.inode;
            let is_root = no == self.sb.root.inode;
            let kept = places.iter().position(|(dir, _)| *dir == parent).unwrap_or(0);
            for (i, (dir, entry)) in places.iter().enumerate() {
                if i == kept && !is_root {
                    continue;
                }
                let item = items.get_mut(dir).expect("it has the entry");
                item.entries[*entry].is_kept = false;
                let shown = String::from_utf8_lossy(&item.entries[*entry].name).into_owned();
                let name = item.name();
                self.did(
                    name,
                    format!("entry {shown:?} was a further name of directory {no}; removed"),
                );
            }
        }
    }

    /// What was unlinked, and says so itself, goes.
    async fn free_orphans(
        &mut self,
        items: &mut Items,
        orphans: &BTreeSet<FileId>,
        reached: &BTreeSet<InodeNo>,
    ) {
        let named: BTreeSet<InodeNo> = items
            .values()
            .flat_map(|item| item.entries.iter().filter(|e| e.is_kept))
            .map(|entry| entry.file.inode)
            .collect();
        let gone: Vec<InodeNo> = items
            .values()
            .filter(|item| {
                orphans.contains(&item.file)
                    && item.state == State::Good
                    && item.links == 0
                    && !item.entries.iter().any(|entry| entry.is_kept)
                    && !reached.contains(&item.file.inode)
                    && !named.contains(&item.file.inode)
            })
            .map(|item| item.file.inode)
            .collect();
        for no in gone {
            let item = items.remove(&no).expect("of the list");
            let block = self.look(BlockNo(no.0)).await.whole().cloned();
            // What it has claimed: as it is planned, else as it is.
            let extents = match (&item.fix.extents, block) {
                (Some(extents), _) => extents.clone(),
                (None, Some(block)) => self.extents_of(&item, block.get()).await,
                (None, None) => Vec::new(),
            };
            for at in extents.iter().flat_map(|e| (0..e.blocks).map(|i| e.physical.plus(i))) {
                self.release(at);
            }
            for at in item.own.iter().chain(&item.dir_blocks).chain(&item.fix.old_nodes) {
                self.release(*at);
            }
            self.release(BlockNo(no.0));
            self.did(item.name(), "was unlinked; freed");
        }
    }

    fn put_into_lost_and_found(&mut self, items: &mut Items, found: &[FileId]) {
        let Some(dir) = self.lost_and_found(items) else {
            for file in found {
                let no = file.inode;
                self.report.left(
                    format!("inode {no}"),
                    "has no name, and there is no room for lost+found",
                );
            }
            return;
        };
        let mut names: BTreeSet<Vec<u8>> =
            items[&dir].entries.iter().filter(|e| e.is_kept).map(|e| e.name.clone()).collect();
        for file in found {
            let item = items.get_mut(&file.inode).expect("it is to have a name");
            // One that was being taken apart has pointers to nothing.
            item.rebuild |= item.file_type == FileType::Directory && item.links == 0;
            let (file_type, name_of) = (item.file_type, item.name());
            let mut name = format!("#{}", file.inode).into_bytes();
            while !names.insert(name.clone()) {
                name.push(b'_');
            }
            let shown = String::from_utf8_lossy(&name).into_owned();
            let lost = items.get_mut(&dir).expect("lost+found");
            lost.rebuild = true;
            lost.entries.push(Entry {
                name,
                file: *file,
                file_type,
                cookie: 0,
                at: BlockNo(dir.0),
                is_kept: true,
                retyped: false,
            });
            self.did(name_of, format!("had no name; is {LOST_AND_FOUND}/{shown} now"));
        }
    }

    /// The directory for what has no name; made if there is none.
    fn lost_and_found(&mut self, items: &mut Items) -> Option<InodeNo> {
        let root = self.sb.root;
        let mut name = LOST_AND_FOUND.as_bytes().to_vec();
        loop {
            let present = items[&root.inode].entries.iter().find(|e| e.is_kept && e.name == name);
            match present {
                Some(entry) if entry.file_type == FileType::Directory => {
                    let no = entry.file.inode;
                    if items.get(&no).is_some_and(|item| !item.is_isolated()) {
                        return Some(no);
                    }
                    name.push(b'_');
                }
                Some(_) => name.push(b'_'),
                None => break,
            }
        }
        let at = self.take(ChunkKind::Inode)?;
        let epoch = self.chunk_of(at).map_or(1, |chunk| chunk.entry.epoch.get());
        // One more than what the free block says, which is an epoch or the last generation there.
        let generation = self.free_generations.get(&at).copied().unwrap_or(epoch).saturating_add(1);
        let file = FileId { inode: InodeNo(at.0), generation };
        let mut item = Item::new(file, FileType::Directory, State::Made);
        item.rebuild = true;
        items.insert(file.inode, item);
        let shown = String::from_utf8_lossy(&name).into_owned();
        self.did(format!("directory {}", file.inode), format!("made, as /{shown}"));
        let dir = items.get_mut(&root.inode).expect("there is a root");
        dir.rebuild = true;
        dir.entries.push(Entry {
            name,
            file,
            file_type: FileType::Directory,
            cookie: 0,
            at: BlockNo(root.inode.0),
            is_kept: true,
            retyped: false,
        });
        Some(file.inode)
    }
}

/// Directories that nothing leads to from the root.
fn lost_directories(items: &Items, reached: &BTreeSet<InodeNo>) -> Vec<InodeNo> {
    let directories =
        items.values().filter(|item| item.file_type == FileType::Directory && !item.is_isolated());
    let lost = directories.filter(|item| !reached.contains(&item.file.inode));
    lost.map(|item| item.file.inode).collect()
}

/// Directories that are reached from one, itself included.
fn reach(items: &Items, from: InodeNo) -> BTreeSet<InodeNo> {
    let mut reached = BTreeSet::from([from]);
    let mut todo = vec![from];
    while let Some(no) = todo.pop() {
        let Some(item) = items.get(&no) else { continue };
        for entry in item.entries.iter().filter(|e| e.is_kept) {
            if entry.file_type == FileType::Directory && reached.insert(entry.file.inode) {
                todo.push(entry.file.inode);
            }
        }
    }
    reached
}
