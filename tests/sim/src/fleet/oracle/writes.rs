//! Rules of what may be written to the device, looked at when it begins:
//! * a metadata block is covered by the one lock that its header names (I1), and while its contents
//!   in place change nobody else may use that lock in any mode (I2);
//! * the version of a block only grows (I3).

use lcl::Mode;
use mfs::block::{Block, BlockNo};
use mfs::layout::Layout;
use mfs::locks::{Resource, covering};
use mfs::ondisk::header::{self, Header, Kind, MAGIC};
use mx_base::{FsId, Member};

use super::Oracle;
use crate::fleet::host::Living;

/// The header, if the block is metadata of this place.
fn metadata(block: &Block, at: BlockNo, layout: &Layout) -> Option<Header> {
    let header = Header::of(block);
    let is_metadata = header.magic.get() == MAGIC && header.block.get() == at.0;
    (is_metadata && header.kind().is_some() && layout.group_of(at).is_some()).then_some(*header)
}

/// Not torn by a loss of power: that one is replaced by whatever the journal has.
fn is_whole(block: &Block, at: BlockNo) -> bool {
    header::check(block, FsId(Header::of(block).fs_id), at).is_ok()
}

/// Where something is written.
#[derive(Clone, Copy)]
pub(in crate::fleet) struct Place<'a> {
    pub(in crate::fleet) volume: usize,
    pub(in crate::fleet) fs: FsId,
    pub(in crate::fleet) layout: &'a Layout,
    pub(in crate::fleet) at: BlockNo,
}

/// `writer` begins to write `new` over what lies in place.
pub(in crate::fleet) fn check(
    oracle: &Oracle,
    Place { volume, fs, layout, at }: Place<'_>,
    living: &[Living],
    writer: Member,
    (old, new): (Option<&Block>, &Block),
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
    // Whoever had its mount revoked keeps its locks until it mounts again, and can write no more.
    let may_look = |l: &&Living| l.life.member != writer && l.life.mount(volume).is_some();
    for Living { life, node } in living.iter().filter(may_look) {
        let entry = node.table(fs).and_then(|table| table.find(&resource.name()));
        let mode = entry.map_or(Mode::NL, |entry| entry.mode());
        if mode != Mode::NL {
            let what = format!(
                "{writer} writes {at} of {resource:?} in place while {} may use {mode}",
                life.member
            );
            oracle.violation("nobody else looks", what);
        }
    }
}
