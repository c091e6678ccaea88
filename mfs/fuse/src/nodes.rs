//! What the kernel knows, and the numbers it uses.
//!
//! A node id holds the inode's number and its generation, so that an inode whose place was used
//! again is another node to the kernel. The root is 1, as FUSE wants it.
//!
//! Keeps true: an entry exists as long as the kernel counts lookups of its node. It is made before
//! the answer that teaches the kernel is computed, so that an invalidation never misses one.

use std::fmt;

use dashmap::DashMap;
use mfs::file::{FileId, InodeNo};

/// The kernel's number for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Node(pub(crate) u64);

/// The root's node id.
const ROOT: u64 = 1;

/// Nodes that the kernel knows.
pub(crate) struct Nodes {
    root: FileId,
    /// Bits of a node id that hold the inode's number; the others hold its generation.
    inode_bits: u32,
    known: DashMap<u64, Known>,
}

struct Known {
    file: FileId,
    lookups: u64,
    /// By an answer of its own: by a listing alone it may take long.
    is_certain: bool,
}

impl Nodes {
    /// For a device of so many blocks.
    pub(crate) fn new(root: FileId, device_blocks: u64) -> Nodes {
        let inode_bits = u64::BITS - device_blocks.leading_zeros();
        Nodes { root, inode_bits, known: DashMap::new() }
    }

    /// The kernel's number for a file.
    pub(crate) fn id(&self, file: FileId) -> u64 {
        if file == self.root {
            return ROOT;
        }
        // On the largest devices a generation may lose its upper bits; the number is the same again
        // only after 4,096 reuses of a place that the kernel still knows from before.
        file.inode.0 | u64::from(file.generation) << self.inode_bits
    }

    /// The file that the kernel means; `None` for a node that it should not know.
    pub(crate) fn file(&self, node: Node) -> Option<FileId> {
        if node.0 == ROOT {
            return Some(self.root);
        }
        if let Some(known) = self.known.get(&node.0) {
            return Some(known.file);
        }
        // A handle from before a restart of this daemon, or of an NFS client: the number tells.
        let inode = InodeNo(node.0 & ((1 << self.inode_bits) - 1));
        let generation = u32::try_from(node.0 >> self.inode_bits).ok()?;
        Some(FileId { inode, generation })
    }

    pub(crate) fn remember(&self, file: FileId) {
        let new = Known { file, lookups: 0, is_certain: true };
        let mut known = self.known.entry(self.id(file)).or_insert(new);
        known.lookups += 1;
        known.is_certain = true;
    }

    /// As [`Nodes::remember`], for an entry of a listing. Did the kernel know it before?
    pub(crate) fn remember_listed(&self, file: FileId) -> bool {
        let new = Known { file, lookups: 0, is_certain: false };
        let mut known = self.known.entry(self.id(file)).or_insert(new);
        known.lookups += 1;
        known.is_certain
    }

    pub(crate) fn forget(&self, node: u64, lookups: u64) {
        if let Some(mut known) = self.known.get_mut(&node) {
            known.lookups = known.lookups.saturating_sub(lookups);
        }
        self.known.remove_if(&node, |_, known| known.lookups == 0);
    }

    /// Does the kernel count lookups of the file, or is an answer on its way that makes it?
    pub(crate) fn is_known(&self, file: FileId) -> bool {
        file == self.root || self.known.contains_key(&self.id(file))
    }

    /// Does the kernel know the file, or learn of it at once?
    pub(crate) fn is_certain(&self, file: FileId) -> bool {
        file == self.root || self.known.get(&self.id(file)).is_some_and(|known| known.is_certain)
    }

    /// Everything that the kernel may know.
    pub(crate) fn all(&self) -> Vec<FileId> {
        let known = self.known.iter().map(|known| known.file);
        std::iter::once(self.root).chain(known).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("known", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_used_again_is_another_node() {
        let root = FileId { inode: InodeNo(500), generation: 1 };
        let nodes = Nodes::new(root, 1 << 20);
        assert_eq!(nodes.id(root), 1);
        let old = FileId { inode: InodeNo(700), generation: 1 };
        let new = FileId { inode: InodeNo(700), generation: 2 };
        assert_ne!(nodes.id(old), nodes.id(new));
        assert_eq!(nodes.file(Node(nodes.id(new))), Some(new));
    }

    #[test]
    fn a_node_is_known_until_every_lookup_is_forgotten() {
        let root = FileId { inode: InodeNo(500), generation: 1 };
        let nodes = Nodes::new(root, 1 << 20);
        let file = FileId { inode: InodeNo(700), generation: 1 };
        nodes.remember(file);
        nodes.remember(file);
        nodes.forget(nodes.id(file), 1);
        assert!(nodes.is_known(file));
        nodes.forget(nodes.id(file), 1);
        assert!(!nodes.is_known(file));
    }

    #[test]
    fn what_is_only_listed_is_not_certain_to_be_known_until_it_is_looked_up() {
        let root = FileId { inode: InodeNo(500), generation: 1 };
        let nodes = Nodes::new(root, 1 << 20);
        let file = FileId { inode: InodeNo(700), generation: 1 };
        assert!(!nodes.remember_listed(file) && !nodes.is_certain(file));
        nodes.remember(file);
        assert!(nodes.is_certain(file) && nodes.remember_listed(file));
        nodes.forget(nodes.id(file), 3);
        assert!(!nodes.is_known(file) && !nodes.is_certain(file));
    }
}
