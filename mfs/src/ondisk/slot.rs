//! Slots: a mount's place on disk, with its journal, its counters and its orphans.

use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::Header;

/// Life of a slot. *Dirty* is not written down: it is a live slot whose member is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum SlotState {
    /// Never used; has no journal.
    Free = 0,
    /// In use by the member named.
    Live = 1,
    /// Left in order, or replayed: nothing in its journal matters.
    Clean = 2,
}

impl SlotState {
    pub const fn from_u8(byte: u8) -> Option<SlotState> {
        Some(match byte {
            0 => SlotState::Free,
            1 => SlotState::Live,
            2 => SlotState::Clean,
            _ => return None,
        })
    }
}

/// A run of blocks of a journal.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct JournalExtent {
    pub start: U64,
    pub blocks: U32,
    pub reserved0: U32,
}

/// An inode that was unlinked while open somewhere.
#[derive(
    Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, PartialEq, Eq,
)]
#[repr(C)]
pub struct OrphanEntry {
    /// 0 in a free place.
    pub inode: U64,
    pub generation: U32,
    pub reserved0: U32,
}

impl OrphanEntry {
    /// A free place.
    pub const FREE: OrphanEntry =
        OrphanEntry { inode: U64::ZERO, generation: U32::ZERO, reserved0: U32::ZERO };
}

pub const JOURNAL_EXTENTS_MAX: usize = 64;
pub const SLOT_ORPHANS_MAX: usize = 250;
pub const ORPHANS_PER_BLOCK: usize = 250;

/// Two copies, written in turn and never journaled: it leads to the journal. Covered by SLOT(n).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct SlotHeadBlock {
    pub header: Header,
    pub state: u8,
    pub reserved0: u8,
    /// The member whose slot this is or was; 0 before the first.
    pub node: U16,
    pub incarnation: U32,
    pub journal_extents_count: U16,
    pub reserved1: [u8; 54],
    pub journal_extents: [JournalExtent; JOURNAL_EXTENTS_MAX],
    pub reserved2: [u8; 2944],
}

/// What changes with the transactions of a slot, and inside them. Covered by SLOT(n).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct SlotBodyBlock {
    pub header: Header,
    /// What this slot's transactions took from the file system less what they gave back; the sum
    /// over all slots is what is in use.
    pub used_blocks: I64,
    pub used_inodes: I64,
    pub orphans_count: U16,
    pub reserved0: [u8; 6],
    /// First block of further orphans; 0 if there is none.
    pub orphan_blocks_head: U64,
    pub orphans: [OrphanEntry; SLOT_ORPHANS_MAX],
}

/// More orphans of a slot. Covered by SLOT(n).
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct OrphanBlock {
    pub header: Header,
    /// Next block of the list; 0 at the end.
    pub next: U64,
    pub count: U32,
    pub reserved0: [u8; 20],
    pub orphans: [OrphanEntry; ORPHANS_PER_BLOCK],
}
