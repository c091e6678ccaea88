//! Rule: a block that was metadata never becomes data, and one that becomes metadata has a valid header
//! in place before (I4): a chunk of metadata stays one, and all its blocks get their headers before
//! the first of them is used.
//!
//! Headers of free blocks alone make no metadata: whoever claims a chunk may die between them and the
//! transaction that counts. First images of groups lie where nothing else ever does.

use std::collections::{BTreeMap, BTreeSet};

use mfs::block::{Block, BlockNo, SharedBlock};
use mfs::ondisk::header::{Header, Kind};
use mx_base::Member;

use super::Oracle;
use super::writes::{Place, is_whole, metadata};

#[derive(Default)]
pub(in crate::fleet) struct Metadata {
    /// Blocks that were in use as metadata when they were written over, or have become so.
    used: BTreeSet<BlockNo>,
    /// What lay where the medium has changed it since.
    damaged: BTreeMap<BlockNo, SharedBlock>,
}

impl Metadata {
    /// The medium changes what lies there.
    pub(in crate::fleet) fn flipped(&mut self, at: BlockNo, before: SharedBlock) {
        self.damaged.entry(at).or_insert(before);
    }

    /// `writer` begins to write `new` over what lies in place.
    pub(in crate::fleet) fn check(
        &mut self,
        oracle: &Oracle,
        Place { layout, at }: Place<'_>,
        writer: Member,
        (old, new): (Option<&Block>, &Block),
    ) {
        let undamaged = self.damaged.remove(&at);
        let old = undamaged.as_deref().or(old);
        let kind = |block: &Block| metadata(block, at, layout).and_then(|header| header.kind());
        let is_used = |kind: Kind| !matches!(kind, Kind::Free | Kind::JournalHeader);
        let Some(now) = kind(new) else {
            let was = old.is_some_and(|old| kind(old).is_some_and(is_used) && is_whole(old, at));
            if was || self.used.contains(&at) {
                let what = format!("{writer} writes data over {at}, which was metadata");
                oracle.violation("metadata stays", what);
            }
            return;
        };
        if !is_used(now) {
            return;
        }
        let is_first = self.used.insert(at);
        let needs_none = matches!(
            now,
            Kind::Superblock | Kind::GroupHeader | Kind::Bitmap | Kind::ChunkTable | Kind::GroupMap
        );
        if is_first && !needs_none && old.and_then(kind).is_none() {
            let version = Header::of(new).version();
            let what = format!("{writer} writes {now:?} {version} to {at}, which had no header");
            oracle.violation("metadata stays", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use mfs::layout::{DEVICE_BLOCKS_MIN, Layout};
    use mfs::ondisk::header::{self, Owner, Writer};
    use mx_base::{FsId, Incarnation, NodeId};

    use super::*;
    use crate::exec::Executor;

    struct Fixture {
        layout: Layout,
        at: BlockNo,
        seen: Metadata,
        in_place: Option<Box<Block>>,
    }

    impl Fixture {
        fn new() -> Fixture {
            let layout = Layout::for_device(DEVICE_BLOCKS_MIN).expect("large enough");
            let at = BlockNo(layout.group_start + 40);
            Fixture { layout, at, seen: Metadata::default(), in_place: None }
        }

        /// Is it found that a block of this kind, or data, is written?
        fn finds(&mut self, kind: Option<Kind>) -> bool {
            let mut block = Block::zeroed();
            if let Some(kind) = kind {
                let owner = Owner { id: self.at.0, generation: 1 };
                *Header::of_mut(&mut block) =
                    Header::new(FsId([7; 16]), kind, self.at, owner, 1 << 32);
                header::seal(&mut block, Writer::MKFS);
            }
            let oracle = Oracle::new(&Executor::new(1));
            let place = Place { layout: &self.layout, at: self.at };
            let me = Member { node: NodeId::new(1).expect("1"), incarnation: Incarnation(1) };
            self.seen.check(&oracle, place, me, (self.in_place.as_deref(), &block));
            self.in_place = Some(block);
            oracle.first_violation().is_some()
        }
    }

    #[test]
    fn what_was_metadata_never_becomes_data() {
        let mut f = Fixture::new();
        assert!(!f.finds(None) && !f.finds(Some(Kind::Free)) && !f.finds(None), "claimed in vain");
        assert!(!f.finds(Some(Kind::Free)) && !f.finds(Some(Kind::Inode)));
        assert!(!f.finds(Some(Kind::Free)) && f.finds(None), "freed, and data");
    }

    #[test]
    fn what_mkfs_made_is_metadata() {
        let mut f = Fixture::new();
        assert!(f.finds(Some(Kind::Inode)));
        f.seen = Metadata::default();
        assert!(f.finds(None));
    }

    #[test]
    fn what_becomes_metadata_had_a_header() {
        let mut f = Fixture::new();
        assert!(!f.finds(None) && f.finds(Some(Kind::DirBucket)));
    }

    #[test]
    fn a_header_that_the_medium_has_damaged_was_there() {
        let mut f = Fixture::new();
        assert!(!f.finds(Some(Kind::Free)));
        let before = f.in_place.replace(Block::zeroed()).expect("has been written");
        f.seen.flipped(f.at, before.into());
        assert!(!f.finds(Some(Kind::Inode)));
    }
}
