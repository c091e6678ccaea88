//! Where things are on a device: computed once from its size by mkfs, then read from the
//! superblock for ever.

use crate::block::BlockNo;
use crate::error::CorruptionKind;
use crate::ondisk::alloc_group::{BITS_PER_BLOCK, CHUNKS_PER_BLOCK, GROUPS_PER_MAP};
use crate::ondisk::superblock::{SUPERBLOCK_AT, SUPERBLOCK_COPY_AT, SuperblockBlock};
use mx_base::{NodeId, SlotId};

/// The smallest device that is formatted: 64 MiB.
pub const DEVICE_BLOCKS_MIN: u64 = 64 << (20 - 12);
/// The largest: 16 EiB less one block.
pub const DEVICE_BLOCKS_MAX: u64 = (1 << 52) - 1;

/// At least this many groups on devices above the smallest, so that every node finds some that are
/// homed on itself; the smallest lose two to what lies in front of the groups.
const GROUPS_MIN: u64 = 64;
const GROUP_BLOCKS_MIN: u64 = 1 << (20 - 12);
const GROUP_BLOCKS_MAX: u64 = 16 << (30 - 12);
/// Chunks are 64 KiB in groups smaller than 64 MiB, else 1 MiB.
const CHUNK_BLOCKS_SMALL: u32 = 16;
const CHUNK_BLOCKS_LARGE: u32 = 256;
const LARGE_CHUNKS_FROM: u64 = 64 << (20 - 12);

/// Blocks of the membership partition inside the device (`docs/spec/fencing.md`).
pub const MEMBERSHIP_BLOCKS: u64 = 226;

/// Which groups carry a copy of the superblock in their first block.
fn carries_superblock(group: GroupNo) -> bool {
    let mut n = group.0;
    while n > 1 && n.is_multiple_of(3) {
        n /= 3;
    }
    n == 1
}

/// Number of an allocation group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct GroupNo(pub u64);

/// The geometry of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub device_blocks: u64,
    pub membership_start: u64,
    pub slot_start: u64,
    pub slot_count: u16,
    pub group_start: u64,
    pub group_blocks: u64,
    pub group_count: u64,
    pub chunk_blocks: u32,
    pub journal_blocks: u32,
}

/// The device cannot hold a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("the device has {found} blocks of 4 KiB, fewer than the {min} that are needed")]
    TooSmall { found: u64, min: u64 },
    #[error("the device has {found} blocks of 4 KiB, more than the {max} that the format allows")]
    TooLarge { found: u64, max: u64 },
}

impl Layout {
    /// The layout that mkfs gives to a device.
    ///
    /// # Errors
    /// When the device is smaller than 64 MiB or larger than the format allows.
    pub fn for_device(device_blocks: u64) -> Result<Layout, LayoutError> {
        if device_blocks < DEVICE_BLOCKS_MIN {
            return Err(LayoutError::TooSmall { found: device_blocks, min: DEVICE_BLOCKS_MIN });
        }
        if device_blocks > DEVICE_BLOCKS_MAX {
            return Err(LayoutError::TooLarge { found: device_blocks, max: DEVICE_BLOCKS_MAX });
        }
        let group_blocks =
            prev_power_of_two(device_blocks / GROUPS_MIN).clamp(GROUP_BLOCKS_MIN, GROUP_BLOCKS_MAX);
        let chunk_blocks =
            if group_blocks < LARGE_CHUNKS_FROM { CHUNK_BLOCKS_SMALL } else { CHUNK_BLOCKS_LARGE };
        let slot_count = if device_blocks < (1 << (30 - 12)) { 64 } else { SlotId::MAX_COUNT };
        let membership_start = SUPERBLOCK_COPY_AT + 1;
        let slot_start = membership_start + MEMBERSHIP_BLOCKS;
        let slot_end = slot_start + Layout::BLOCKS_PER_SLOT * u64::from(slot_count);
        let group_start = slot_end.next_multiple_of(u64::from(chunk_blocks));
        // 64 MiB on devices from 16 GiB on, less on small ones, never below 1 MiB.
        let journal_blocks = (device_blocks / 256).clamp(256, 64 << (20 - 12)) as u32;
        let mut layout = Layout {
            device_blocks,
            membership_start,
            slot_start,
            slot_count,
            group_start,
            group_blocks,
            group_count: 0,
            chunk_blocks,
            journal_blocks,
        };
        let space = device_blocks - group_start;
        layout.group_count = space / group_blocks;
        // What is left at the end becomes a shorter group if it is worth its own metadata.
        let rest = space % group_blocks / u64::from(chunk_blocks) * u64::from(chunk_blocks);
        let last = GroupNo(layout.group_count);
        if rest >= layout.fixed_blocks(last) + 4 * u64::from(chunk_blocks) {
            layout.group_count += 1;
        }
        Ok(layout)
    }

    /// The layout that a superblock describes.
    ///
    /// # Errors
    /// What in it is impossible, so that nothing is computed from it.
    pub fn of_superblock(sb: &SuperblockBlock) -> Result<Layout, CorruptionKind> {
        let layout = Layout {
            device_blocks: sb.device_blocks.get(),
            membership_start: sb.membership_start.get(),
            slot_start: sb.slot_start.get(),
            slot_count: sb.slot_count.get(),
            group_start: sb.group_start.get(),
            group_blocks: sb.group_blocks.get(),
            group_count: sb.group_count.get(),
            chunk_blocks: sb.chunk_blocks.get(),
            journal_blocks: sb.journal_blocks.get(),
        };
        let bad = |what| Err(CorruptionKind::Contents(what));
        if !(DEVICE_BLOCKS_MIN..=DEVICE_BLOCKS_MAX).contains(&layout.device_blocks) {
            return bad("device size out of range");
        }
        if !matches!(layout.chunk_blocks, CHUNK_BLOCKS_SMALL | CHUNK_BLOCKS_LARGE) {
            return bad("chunk size unknown");
        }
        if !(GROUP_BLOCKS_MIN..=GROUP_BLOCKS_MAX).contains(&layout.group_blocks)
            || !layout.group_blocks.is_power_of_two()
        {
            return bad("group size out of range");
        }
        if layout.slot_count == 0 || layout.slot_count > SlotId::MAX_COUNT {
            return bad("number of slots out of range");
        }
        if usize::from(sb.node_count_max.get()) != usize::from(NodeId::MAX)
            || sb.membership_blocks.get() != MEMBERSHIP_BLOCKS
        {
            return bad("membership partition of another size");
        }
        if layout.membership_start <= SUPERBLOCK_COPY_AT
            || layout.slot_start < layout.membership_start.saturating_add(MEMBERSHIP_BLOCKS)
            || layout.group_start
                < layout
                    .slot_start
                    .saturating_add(Layout::BLOCKS_PER_SLOT * u64::from(layout.slot_count))
            || layout.group_start >= layout.device_blocks
        {
            return bad("regions overlap");
        }
        let space = layout.device_blocks - layout.group_start;
        if layout.group_count == 0 || layout.group_count > space.div_ceil(layout.group_blocks) {
            return bad("number of groups out of range");
        }
        if layout.journal_blocks < 16 {
            return bad("journal too small");
        }
        Ok(layout)
    }

    /// Blocks that a slot takes in the table of slots: two heads, in front, and a body, behind the
    /// heads of all.
    pub const BLOCKS_PER_SLOT: u64 = 3;

    /// The two copies of a slot's head.
    pub fn slot_heads(&self, slot: SlotId) -> [BlockNo; 2] {
        let first = BlockNo(self.slot_start + 2 * u64::from(slot.0));
        [first, first.plus(1)]
    }

    pub fn slot_body(&self, slot: SlotId) -> BlockNo {
        BlockNo(self.slot_start + 2 * u64::from(self.slot_count) + u64::from(slot.0))
    }

    /// Where copies of the superblock may be, the best first.
    pub fn superblock_copies(&self) -> impl Iterator<Item = BlockNo> + '_ {
        let fixed = [SUPERBLOCK_AT, SUPERBLOCK_COPY_AT].into_iter().map(BlockNo);
        let mut power: u64 = 1;
        let groups = std::iter::from_fn(move || {
            let group = power;
            power = power.saturating_mul(3);
            (group < self.group_count).then(|| self.group_first(GroupNo(group)))
        });
        fixed.chain(groups)
    }

    pub fn groups(&self) -> impl Iterator<Item = GroupNo> + use<> {
        (0..self.group_count).map(GroupNo)
    }

    pub fn group_first(&self, group: GroupNo) -> BlockNo {
        BlockNo(self.group_start + group.0 * self.group_blocks)
    }

    /// Blocks of a group; the last one may be shorter.
    pub fn group_len(&self, group: GroupNo) -> u64 {
        let first = self.group_first(group).0;
        let len = self.group_blocks.min(self.device_blocks.saturating_sub(first));
        len / u64::from(self.chunk_blocks) * u64::from(self.chunk_blocks)
    }

    /// The group that a block lies in, if it lies in one.
    pub fn group_of(&self, block: BlockNo) -> Option<GroupNo> {
        let group = GroupNo(block.0.checked_sub(self.group_start)? / self.group_blocks);
        let inside = group.0 < self.group_count
            && block.0 - self.group_first(group).0 < self.group_len(group);
        inside.then_some(group)
    }

    pub fn group_header(&self, group: GroupNo) -> BlockNo {
        self.group_first(group).plus(1)
    }

    pub fn bitmap_blocks(&self, group: GroupNo) -> u64 {
        self.group_len(group).div_ceil(BITS_PER_BLOCK)
    }

    pub fn bitmap_first(&self, group: GroupNo) -> BlockNo {
        self.group_first(group).plus(2)
    }

    pub fn chunk_count(&self, group: GroupNo) -> u64 {
        self.group_len(group) / u64::from(self.chunk_blocks)
    }

    pub fn chunk_table_blocks(&self, group: GroupNo) -> u64 {
        self.chunk_count(group).div_ceil(CHUNKS_PER_BLOCK as u64)
    }

    pub fn chunk_table_first(&self, group: GroupNo) -> BlockNo {
        self.bitmap_first(group).plus(self.bitmap_blocks(group))
    }

    /// The group whose header region carries the map that speaks for `group`.
    pub fn map_leader(&self, group: GroupNo) -> GroupNo {
        GroupNo(group.0 / GROUPS_PER_MAP * GROUPS_PER_MAP)
    }

    /// The map block in a leader's group.
    pub fn group_map(&self, leader: GroupNo) -> BlockNo {
        self.chunk_table_first(leader).plus(self.chunk_table_blocks(leader))
    }

    /// Blocks at the start of a group that its own structures take.
    pub fn fixed_blocks(&self, group: GroupNo) -> u64 {
        let map = u64::from(self.map_leader(group) == group);
        2 + self.bitmap_blocks(group) + self.chunk_table_blocks(group) + map
    }

    /// Does the group begin with a copy of the superblock?
    pub fn has_superblock(&self, group: GroupNo) -> bool {
        carries_superblock(group)
    }

    /// Blocks that files and their metadata can use, all groups together.
    pub fn usable_blocks(&self) -> u64 {
        // All groups but the leaders and the last are alike.
        let full = self.group_count.saturating_sub(1);
        let leaders = full.div_ceil(GROUPS_PER_MAP);
        let plain = GroupNo(1);
        let fixed = 2 + self.bitmap_blocks(plain) + self.chunk_table_blocks(plain);
        let last = GroupNo(self.group_count - 1);
        if self.group_count == 1 {
            return self.group_len(last) - self.fixed_blocks(last);
        }
        full * (self.group_blocks - fixed) - leaders + self.group_len(last)
            - self.fixed_blocks(last)
    }
}

fn prev_power_of_two(n: u64) -> u64 {
    1 << n.max(1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_at_least_62_groups_that_fit_on_the_device() {
        for shift in 14..52 {
            for blocks in [1 << shift, (1 << shift) + 12_345, (3 << shift) / 2] {
                let layout = Layout::for_device(blocks).expect("in range");
                assert!(layout.group_count >= 62, "{blocks}: {layout:?}");
                let last = GroupNo(layout.group_count - 1);
                let end = layout.group_first(last).0 + layout.group_len(last);
                assert!(end <= blocks, "{blocks}: {layout:?}");
                assert!(layout.fixed_blocks(last) < layout.group_len(last));
                assert!(layout.usable_blocks() < blocks);
            }
        }
    }

    #[test]
    fn usable_blocks_is_the_sum_over_the_groups() {
        for blocks in [1 << 14, 1 << 20, (1 << 21) + 777] {
            let layout = Layout::for_device(blocks).expect("in range");
            let sum: u64 =
                layout.groups().map(|g| layout.group_len(g) - layout.fixed_blocks(g)).sum();
            assert_eq!(layout.usable_blocks(), sum, "{layout:?}");
        }
    }

    #[test]
    fn a_block_is_found_in_its_group() {
        let layout = Layout::for_device(1 << 20).expect("in range");
        assert_eq!(layout.group_of(BlockNo(layout.group_start - 1)), None);
        assert_eq!(layout.group_of(layout.group_first(GroupNo(5))), Some(GroupNo(5)));
        assert_eq!(layout.group_of(BlockNo(layout.device_blocks + 5)), None);
    }

    #[test]
    fn devices_out_of_range_are_refused() {
        assert!(matches!(Layout::for_device(100), Err(LayoutError::TooSmall { .. })));
        assert!(matches!(Layout::for_device(1 << 52), Err(LayoutError::TooLarge { .. })));
    }

    #[test]
    fn a_petabyte_has_groups_of_16_gib() {
        let layout = Layout::for_device(1 << (50 - 12)).expect("in range");
        assert_eq!(layout.group_blocks, 16 << (30 - 12));
        assert_eq!(layout.map_leader(GroupNo(40_000)), GroupNo(GROUPS_PER_MAP));
        let copies: Vec<_> = layout.superblock_copies().take(4).collect();
        assert_eq!(copies[2], layout.group_first(GroupNo(1)));
        assert_eq!(copies[3], layout.group_first(GroupNo(3)));
    }
}
