//! Every rule of `docs/spec/ondisk.md` 11 about superblocks, slots and groups broken on a device with
//! contents: a check finds it, a repair says what it did, and a check finds nothing then; what was not
//! touched is there.

use mfs::block::BlockNo;
use mfs::fsck::RepairOptions;
use mfs::layout::GroupNo;
use mfs::ondisk::alloc_group::{BitmapBlock, ChunkTableBlock, GroupHeaderBlock, GroupMapBlock};
use mfs::ondisk::header::{Header, Kind};
use mfs::ondisk::inode::InodeBlock;
use mfs::ondisk::slot::{SlotBodyBlock, SlotHeadBlock};
use mfs::ondisk::superblock::SuperblockBlock;
use mfs::ops::{NewFile, NewKind, OpenFlags};
use mx_base::SlotId;
use sim::disk::{Device, Image};

use super::broken::{broken, root_extents, spoil};
use super::contents::{
    BLOCKS, OPTIONS, What, change, check, contents, damage, file, on_mount, repair, repair_device,
    repaired, same, tree, zero,
};

#[test]
fn what_is_in_order_stays_as_it_is_to_the_byte() {
    let contents = contents();
    let (image, repaired) = repair(&contents.image);
    assert!(repaired.is_clean() && repaired.done.is_empty(), "{:#?}", repaired.done);
    assert!(!repaired.was_damaged);
    assert!(same(&image, &contents.image), "something was written");
}

#[test]
fn a_flipped_bit_is_put_right_wherever_it_is() {
    for (path, kind) in [
        ("/small-1", Kind::Inode),
        ("/sparse", Kind::ExtentNode),
        ("/many", Kind::DirBucket),
        ("/xattrs-11", Kind::Xattr),
        ("", Kind::Inode),
    ] {
        for bit in [3, 77, 500, 2000, 30_001] {
            let broken = broken(|contents, image| {
                let at = contents.of(path, kind)[0];
                damage(image, at, |block| block.0[bit / 8] ^= 1 << (bit % 8));
            });
            broken.tells("block", "bit").leaves(&[]);
            assert_eq!(broken.lost_and_found(), Vec::<&str>::new());
        }
    }
}

#[test]
fn superblocks_are_made_anew_of_those_that_agree() {
    broken(|_, image| zero(image, BlockNo(16))).tells("superblock 16", "superblock 16").leaves(&[]);
    let lies = |image: &mut Image, at| {
        change(image, at, |block| {
            let sb: &mut SuperblockBlock = block.get_mut();
            sb.group_count.set(sb.group_count.get() - 3);
        });
    };
    broken(|_, image| lies(image, BlockNo(16))).tells("superblock 16", "superblock 16").leaves(&[]);
    let far = contents().layout.group_first(GroupNo(9));
    broken(|_, image| lies(image, far)).tells("superblock", "superblock").leaves(&[]);
}

#[test]
fn a_slot_begins_anew_when_its_heads_are_lost_and_when_they_lie() {
    let slot = SlotId(0);
    broken(|contents, image| {
        contents.layout.slot_heads(slot).into_iter().for_each(|at| zero(image, at));
    })
    .tells("both copies of its head", "begins anew")
    .leaves(&[]);
    broken(|contents, image| {
        for at in contents.layout.slot_heads(slot) {
            change(image, at, |block| {
                let head: &mut SlotHeadBlock = block.get_mut();
                let inode = contents.file("/small-1").inode.0;
                head.journal_extents[0].start.set(inode / 16 * 16);
                head.journal_extents[0].blocks.set(16);
            });
        }
    })
    .tells("chunk is", "its journal lies where it cannot")
    .leaves(&[]);
}

#[test]
fn a_journal_without_a_header_begins_anew() {
    broken(|contents, image| {
        contents.of_kind(Kind::JournalHeader).into_iter().for_each(|at| zero(image, at));
    })
    .tells("both headers", "begins anew, empty")
    .leaves(&[]);
}

/// What a crash leaves: a live slot, and a file without a name that was open.
pub(crate) fn crashed() -> Image {
    let (image, ()) = on_mount(contents().image.clone(), false, async |fs| {
        let open = file(&fs, fs.root(), "durable", b"contents").await;
        fs.fsync(&open).await.expect("durable");
        let flags = OpenFlags { write: true, ..OpenFlags::default() };
        let new = NewFile { kind: NewKind::Regular, permissions: 0o600, umask: 0, uid: 0, gid: 0 };
        let unnamed = fs.create_unnamed(fs.root(), &new, flags, true).await;
        let (_, unnamed) = unnamed.expect("there is room");
        fs.write(&unnamed, 0, &[5; 20_000]).await.expect("there is room");
        fs.fsync(&unnamed).await.expect("durable");
        std::mem::forget((open, unnamed));
    });
    image
}

#[test]
fn journals_are_replayed_and_files_without_a_name_that_were_unlinked_are_freed() {
    let image = crashed();
    assert!(check(&image).problems.is_empty());
    let (image, repaired) = repaired(&image);
    assert!(!repaired.was_damaged, "{:?}", repaired.before.problems);
    assert_eq!(repaired.slots_replayed, 1);
    let done: Vec<String> = repaired.done.iter().map(ToString::to_string).collect();
    assert!(done.iter().any(|text| text.contains("journal replayed")), "{done:?}");
    assert!(done.iter().any(|text| text.contains("was unlinked; freed")), "{done:?}");
    let tree = tree(image);
    assert!(!tree.contains_key("/lost+found"));
    assert!(matches!(&tree["/durable"].1, Ok(What::File(data, _)) if data == b"contents"));
}

#[test]
fn preening_replays_journals_and_sets_counters_and_leaves_the_rest() {
    let preen = RepairOptions { preen: true, ..OPTIONS };
    let mut image = crashed();
    change(&mut image, contents().layout.group_header(GroupNo(1)), |block| {
        block.get_mut::<GroupHeaderBlock>().free_blocks.set(1);
    });
    let device = Device::new(BLOCKS, image.clone());
    let repaired = repair_device(&device, 1, preen);
    assert!(repaired.is_clean(), "{:?}", repaired.after.problems);
    assert_eq!(repaired.slots_replayed, 1);
    spoil(&mut image, contents().of("/small-1", Kind::Inode)[0]);
    let device = Device::new(BLOCKS, image);
    let repaired = repair_device(&device, 1, preen);
    assert!(!repaired.is_clean());
    let before = device.visible();
    assert!(repair_device(&device, 1, preen).done.is_empty());
    assert!(same(&before, &device.visible()), "it wrote");
}

/// As [`crashed`], and not the last segment of the journal is damaged: what lies behind shows that it is
/// no end.
pub(crate) fn with_damaged_journal() -> Image {
    let mut image = crashed();
    let journal: Vec<BlockNo> =
        image.iter().filter(|(_, block)| block.0.starts_with(b"MXJS")).map(|(at, _)| *at).collect();
    assert!(journal.len() > 1, "{journal:?}");
    damage(&mut image, journal[journal.len() - 2], |block| block.0[100] ^= 0xff);
    image
}

#[test]
fn of_a_damaged_journal_what_comes_before_the_damage_is_replayed() {
    let (_, repaired) = repaired(&with_damaged_journal());
    let done: Vec<String> = repaired.done.iter().map(ToString::to_string).collect();
    assert!(repaired.slots_replayed == 1 && repaired.was_damaged, "{done:?}");
}

#[test]
fn lists_of_orphans_and_counters_are_made_anew() {
    let body = contents().layout.slot_body(SlotId(0));
    broken(|_, image| {
        change(image, body, |block| {
            let body: &mut SlotBodyBlock = block.get_mut();
            body.orphans[3].inode.set(12_345);
            body.orphans_count.set(7);
        });
    })
    .tells("counts 7 orphans", "")
    .leaves(&[]);
    broken(|_, image| {
        change(image, body, |block| block.get_mut::<SlotBodyBlock>().used_blocks.set(99));
    })
    .tells("blocks in use", "now count")
    .leaves(&[]);
    broken(|_, image| zero(image, body)).tells("block", "its body is lost").leaves(&[]);
    broken(|_, image| {
        change(image, body, |block| {
            block.get_mut::<SlotBodyBlock>().orphan_blocks_head.set(5000);
        });
    })
    .tells("block 5000", "cut off before block 5000")
    .leaves(&[]);
}

#[test]
fn groups_are_made_anew_of_what_is_in_use() {
    let layout = contents().layout;
    let group = layout.group_of(BlockNo(contents().file("/small-1").inode.0)).expect("in one");
    let lost = [
        layout.group_header(group),
        layout.bitmap_first(group),
        layout.chunk_table_first(group),
        layout.group_map(GroupNo(0)),
    ];
    for at in lost {
        broken(|_, image| zero(image, at)).tells("block", "made anew").leaves(&[]);
    }
    broken(|_, image| lost.iter().for_each(|at| zero(image, *at))).tells("block", "").leaves(&[]);
    broken(|_, image| {
        change(image, lost[0], |b| b.get_mut::<GroupHeaderBlock>().free_chunks.set(999));
    })
    .tells("free chunks", "counters")
    .leaves(&[]);
    broken(|_, image| {
        change(image, lost[0], |b| b.get_mut::<GroupHeaderBlock>().isolated.set(1));
    })
    .tells("isolated", "given free")
    .leaves(&[]);
    broken(|_, image| change(image, lost[1], |b| b.get_mut::<BitmapBlock>().bits[20] ^= 0xff))
        .tells("marked", "bitmap")
        .leaves(&[]);
    broken(|_, image| change(image, lost[1], |b| b.get_mut::<BitmapBlock>().bits[4000] = 1))
        .tells("behind the end", "bitmap")
        .leaves(&[]);
    broken(|_, image| {
        change(image, lost[3], |block| {
            let map: &mut GroupMapBlock = block.get_mut();
            map.bits[usize::try_from(group.0 / 8).expect("small")] ^= 1 << (group.0 % 8);
            // And one that has never been used.
            map.bits[6] |= 0x40;
        });
    })
    .tells("group", "map of groups")
    .leaves(&[]);
}

#[test]
fn the_kind_of_a_chunk_follows_from_what_is_in_it() {
    let layout = contents().layout;
    for path in ["/small-1", "/dir-2/file-3", "/many", "/sparse"] {
        let block = match path {
            "/small-1" => BlockNo(contents().file(path).inode.0),
            "/many" => contents().of(path, Kind::DirBucket)[0],
            "/sparse" => contents().of(path, Kind::ExtentNode)[0],
            _ => {
                let at = BlockNo(contents().file(path).inode.0);
                let mut inode = *contents().image[&at].get::<InodeBlock>();
                BlockNo(root_extents(&mut inode)[0].physical.get())
            }
        };
        let group = layout.group_of(block).expect("in one");
        let chunk = (block.0 - layout.group_first(group).0) / 16;
        for kind in [0, 1, 2, 3, 4, 9] {
            let broken = broken(|_, image| {
                change(image, layout.chunk_table_first(group), |block| {
                    let table: &mut ChunkTableBlock = block.get_mut();
                    table.entries[usize::try_from(chunk).expect("small")].kind = kind;
                });
            });
            broken.leaves(&[]);
        }
    }
    let group = layout.group_of(BlockNo(contents().file("/small-1").inode.0)).expect("in one");
    let chunk = (contents().file("/small-1").inode.0 - layout.group_first(group).0) / 16;
    broken(|_, image| {
        change(image, layout.chunk_table_first(group), |block| {
            let table: &mut ChunkTableBlock = block.get_mut();
            table.entries[usize::try_from(chunk).expect("small")].epoch.set(700);
        });
    })
    .tells("older than its chunk", "chunk table")
    .leaves(&[]);
}

#[test]
fn free_blocks_get_their_headers_back() {
    let at = contents().of_kind(Kind::Free)[3];
    broken(|_, image| zero(image, at)).tells("block", "").leaves(&[]);
    broken(|_, image| {
        change(image, at, |block| Header::of_mut(block).kind = Kind::ExtentNode as u8);
    })
    .tells("free block", "")
    .leaves(&[]);
}
