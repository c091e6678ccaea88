//! Rules of what may be written to the device, looked at when it begins:
//! * a metadata block is covered by the one lock that its header names (I1), and while its contents
//!   in place change nobody else may use that lock in any mode (I2);
//! * whoever holds that lock for writing and may not use it any more is proven fenced (I5);
//! * the version of a block only grows (I3).

use lcl::ResourceName;
use mfs::block::{Block, BlockNo};
use mfs::layout::Layout;
use mfs::locks::{Resource, covering};
use mfs::ondisk::header::{self, Header, Kind, MAGIC};
use mx_base::{FsId, Member};

use super::Oracle;
use super::grants::Other;

/// The header, if the block is metadata of this place in a group.
pub(super) fn metadata(block: &Block, at: BlockNo, layout: &Layout) -> Option<Header> {
    let header = Header::of(block);
    let is_metadata = header.magic.get() == MAGIC && header.block.get() == at.0;
    (is_metadata && header.kind().is_some() && layout.group_of(at).is_some()).then_some(*header)
}

/// Not torn by a loss of power: that one is replaced by whatever the journal has.
pub(super) fn is_whole(block: &Block, at: BlockNo) -> bool {
    header::check(block, FsId(Header::of(block).fs_id), at).is_ok()
}

/// Where something is written.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) layout: &'a Layout,
    pub(super) at: BlockNo,
}

/// `writer` begins to write `new` over what lies in place. `others` are those who may hold something
/// of a resource, `is_proven` tells who is proven fenced.
pub(super) fn check(
    oracle: &Oracle,
    Place { layout, at }: Place<'_>,
    writer: Member,
    (old, new): (Option<&Block>, &Block),
    others: impl FnOnce(&ResourceName) -> Vec<Other>,
    is_proven: impl Fn(Member) -> bool,
) {
    let Some(after) = metadata(new, at, layout) else { return };
    let before = old.and_then(|old| metadata(old, at, layout));
    // A journal counts its own headers; what lay there before was never used or is used no more.
    let of_journal = |h: &Header| h.kind() == Some(Kind::JournalHeader);
    if let Some(before) = before.filter(|before| !of_journal(before) && !of_journal(&after))
        && before.version.get() > after.version.get()
        && old.is_some_and(|old| is_whole(old, at))
    {
        let versions = (before.version.get(), after.version.get());
        oracle.violation("versions grow", format!("{writer} takes {at} back: {versions:?}"));
    }
    let resource = match covering(&after, layout) {
        Ok(resource) => resource,
        Err(error) => {
            return oracle.violation("one lock", format!("{writer} writes {at}: {error}"));
        }
    };
    // What describes the file system as a whole is read by everybody who mounts.
    if matches!(resource, Resource::Superblock | Resource::Slot(_)) {
        return;
    }
    for Other { member, mode, may_use } in others(&resource.name()) {
        if may_use {
            let what = format!(
                "{writer} writes {at} of {resource:?} in place while {member} may use {mode}"
            );
            oracle.violation("nobody else looks", what);
        } else if mode.writes() && !is_proven(member) {
            let what = format!(
                "{writer} writes {at} of {resource:?}, which {member} holds in {mode} and is not \
                 proven fenced"
            );
            oracle.violation("fence", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use mfs::file::InodeNo;
    use mfs::layout::DEVICE_BLOCKS_MIN;
    use mfs::ondisk::header::Owner;
    use mx_base::{Incarnation, NodeId};

    use super::*;
    use crate::exec::Executor;

    fn member(node: u16) -> Member {
        let node = NodeId::new(node).expect("in range");
        Member { node, incarnation: Incarnation(1) }
    }

    /// What is found when member 1 writes an inode that member 2 holds in a mode.
    fn found(mode: lcl::Mode, may_use: bool, is_proven: bool) -> Option<&'static str> {
        let layout = Layout::for_device(DEVICE_BLOCKS_MIN).expect("large enough");
        let at = BlockNo(layout.group_start + 40);
        let mut block = Block::zeroed();
        let owner = Owner { id: at.0, generation: 1 };
        *Header::of_mut(&mut block) = Header::new(FsId([7; 16]), Kind::Inode, at, owner, 5);
        let oracle = Oracle::new(&Executor::new(1));
        let others = |name: &ResourceName| {
            assert_eq!(*name, Resource::Inode(InodeNo(at.0)).name());
            vec![Other { member: member(2), mode, may_use }]
        };
        let place = Place { layout: &layout, at };
        check(&oracle, place, member(1), (None, &block), others, |_| is_proven);
        oracle.first_violation().map(|found| found.oracle)
    }

    #[test]
    fn what_the_dead_held_for_writing_is_left_alone_until_they_are_proven_fenced() {
        use lcl::Mode::{EX, PR};
        assert_eq!(found(EX, false, false), Some("fence"));
        assert_eq!(found(EX, false, true), None);
        assert_eq!(found(PR, false, false), None);
        assert_eq!(found(PR, true, false), Some("nobody else looks"));
    }
}
