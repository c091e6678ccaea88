//! Directories: entries where their hashes belong; and the tree that they make.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::index::IndexAt;
use super::inodes::Found;
use crate::block::BlockNo;
use crate::dir::area::Area;
use crate::dir::hash;
use crate::file::{FileType, InodeNo};
use crate::ondisk::alloc_group::ChunkKind;
use crate::ondisk::directory::{BucketBlock, INDEX_FANOUT, POINTER_TO_INDEX};
use crate::ondisk::header::{Kind, Owner};
use crate::ondisk::inode::{AreaKind, InodeBlock};

impl Check<'_> {
    /// Entries of a directory into `found`.
    pub(super) async fn read_directory(&mut self, found: &mut Found, on_disk: &InodeBlock) {
        let name = format!("directory {}", found.file.inode);
        if on_disk.core.area == AreaKind::Entries as u8 {
            self.read_area(found, on_disk.body(), BlockNo(found.file.inode.0), None);
        } else {
            let mut todo = vec![IndexAt::root(on_disk)];
            while let Some(index) = todo.pop() {
                todo.extend(self.read_index(found, &index).await);
            }
        }
        let mut names = BTreeSet::new();
        for (entry_name, _, _) in &found.entries {
            if !names.insert(entry_name) {
                let shown = String::from_utf8_lossy(entry_name);
                self.problem(&name, format!("has two entries {shown:?}"));
            }
        }
        let entries = found.entries.len() as u64;
        self.report.entries += entries;
        if entries != found.entries_counted {
            let counted = found.entries_counted;
            self.problem(&name, format!("counts {counted} entries, has {entries}"));
        }
    }

    /// Buckets of one index; returns the indexes below.
    async fn read_index(&mut self, found: &mut Found, index: &IndexAt) -> Vec<IndexAt> {
        let name = format!("directory {}", found.file.inode);
        let owner = Owner { id: found.file.inode.0, generation: found.file.generation };
        let (bits_above, bits) = (index.bits_above(), index.bits());
        let mut below = Vec::new();
        let mut at = 0;
        while at < 1 << bits {
            let pointer = index.pointers[at];
            if pointer == 0 {
                // Only a directory that is being taken apart has none.
                if found.links > 0 {
                    self.problem(&name, "a pointer of the index leads nowhere");
                }
                at += 1;
                continue;
            }
            let number = BlockNo(pointer & !POINTER_TO_INDEX);
            if pointer & POINTER_TO_INDEX != 0 {
                match self.read(number, Kind::DirIndex, owner).await {
                    Ok(block) => {
                        self.use_block(&name, number, ChunkKind::Tree);
                        match index.below(at, block.get()) {
                            Some(next) => below.push(next),
                            None => self.problem(&name, format!("index {number} of wrong level")),
                        }
                    }
                    Err(corruption) => self.problem(&name, corruption),
                }
                at += 1;
                continue;
            }
            let bucket = match self.read(number, Kind::DirBucket, owner).await {
                Ok(block) => *block.get::<BucketBlock>(),
                Err(corruption) => {
                    self.problem(&name, corruption);
                    at += 1;
                    continue;
                }
            };
            self.use_block(&name, number, ChunkKind::Tree);
            let depth = bucket.depth.get();
            let run = (bits_above + bits).checked_sub(depth).filter(|_| depth >= bits_above);
            let Some(run) = run.map(|shift| 1_usize << shift) else {
                self.problem(&name, format!("bucket {number} of depth {depth}"));
                at += 1;
                continue;
            };
            if !at.is_multiple_of(run)
                || index.pointers[at..(at + run).min(INDEX_FANOUT)].iter().any(|p| *p != pointer)
            {
                self.problem(&name, format!("bucket {number} is not shared as its depth says"));
            }
            if bucket.prefix.get() != hash::prefix(index.prefix_at(at), depth) {
                self.problem(&name, format!("bucket {number} has the wrong prefix"));
            }
            self.read_area(found, &bucket.area, number, Some((bucket.prefix.get(), depth)));
            at += run;
        }
        below
    }

    fn read_area(
        &mut self,
        found: &mut Found,
        area: &[u8],
        block: BlockNo,
        bucket: Option<(u64, u32)>,
    ) {
        let name = format!("directory {}", found.file.inode);
        let entries = match Area::new(area, block) {
            Ok(area) => area.after(0),
            Err(crate::cache::Fault::Fail(error)) => {
                self.problem(name, error);
                return;
            }
            Err(crate::cache::Fault::Missing(_)) => unreachable!("an area is in memory"),
        };
        let mut cookies = BTreeSet::new();
        for named in entries {
            let shown = String::from_utf8_lossy(&named.name).into_owned();
            let expected = hash::of(&self.sb.hash_key, &named.name);
            let found_hash = hash::of_cookie(named.entry.cookie);
            if found_hash != expected {
                self.problem(&name, format!("entry {shown:?} has a wrong hash"));
            }
            if let Some((prefix, depth)) = bucket
                && hash::prefix(found_hash, depth) != prefix
            {
                self.problem(&name, format!("entry {shown:?} is in a wrong bucket"));
            }
            if !super::is_possible_name(&named.name) {
                self.problem(&name, format!("entry {shown:?} has an impossible name"));
            }
            if !cookies.insert(named.entry.cookie) {
                self.problem(&name, format!("entry {shown:?} shares its cookie"));
            }
            found.entries.push((named.name, named.entry.file, named.entry.file_type));
        }
    }

    /// Every entry leads to an inode, every inode has the names it counts, and a way from the root.
    pub(super) fn walk_tree(&mut self) {
        let root = self.sb.root;
        let mut names: BTreeMap<InodeNo, u32> = BTreeMap::new();
        let mut subdirectories: BTreeMap<InodeNo, u32> = BTreeMap::new();
        let mut problems: Vec<(String, String)> = Vec::new();
        let mut reached = BTreeSet::from([root.inode]);
        let mut todo = vec![root];
        match self.inodes.get(&root.inode) {
            Some(found) if found.file_type == FileType::Directory && found.file == root => {}
            _ => problems.push(("root".into(), "is not a directory in use".into())),
        }
        while let Some(dir) = todo.pop() {
            let Some(found) = self.inodes.get(&dir.inode) else { continue };
            for (name, file, file_type) in &found.entries {
                let shown = String::from_utf8_lossy(name);
                let object = format!("directory {}", dir.inode);
                let Some(child) = self.inodes.get(&file.inode) else {
                    problems.push((object, format!("entry {shown:?} leads to no inode")));
                    continue;
                };
                if child.file != *file {
                    problems.push((object, format!("entry {shown:?} leads to an older file")));
                    continue;
                }
                if child.file_type != *file_type {
                    problems.push((object, format!("entry {shown:?} has the wrong type")));
                }
                *names.entry(file.inode).or_default() += 1;
                if child.file_type == FileType::Directory {
                    *subdirectories.entry(dir.inode).or_default() += 1;
                    if child.parent != dir {
                        let what = format!("does not know its parent {}", dir.inode);
                        problems.push((format!("directory {}", file.inode), what));
                    }
                    if names[&file.inode] > 1 {
                        let what = "has more than one name".to_owned();
                        problems.push((format!("directory {}", file.inode), what));
                        continue;
                    }
                    todo.push(*file);
                }
                reached.insert(file.inode);
            }
        }
        for (no, found) in &self.inodes {
            let object = format!("inode {no}");
            if found.is_damaged {
                if !names.contains_key(no) {
                    problems.push((object, "is isolated and has no name".into()));
                }
                continue;
            }
            let listed = self.orphans.contains(&found.file);
            let expected = match found.file_type {
                FileType::Directory if found.links == 0 => 0,
                FileType::Directory => 2 + subdirectories.get(no).copied().unwrap_or(0),
                FileType::Regular
                | FileType::SymbolicLink
                | FileType::BlockDevice
                | FileType::CharDevice
                | FileType::Fifo
                | FileType::Socket => names.get(no).copied().unwrap_or(0),
            };
            if found.links != expected {
                problems
                    .push((object.clone(), format!("has {} links, {expected} are", found.links)));
            }
            if found.links == 0 && !listed {
                problems.push((object, "has no name and is on no list of orphans".into()));
            } else if !reached.contains(no) && !listed {
                problems.push((object, "cannot be reached from the root".into()));
            }
        }
        for file in &self.orphans {
            if self.inodes.get(&file.inode).is_none_or(|found| found.file != *file) {
                let what = format!("orphan {file:?} is not there");
                problems.push(("slots".into(), what));
            }
        }
        for (object, what) in problems {
            self.problem(object, what);
        }
    }
}
