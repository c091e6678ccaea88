//! Checks of a file system that is mounted and used: nothing that is right is called wrong, and what is
//! wrong is found, also below what the node has cached whole.

use std::sync::Arc;

use mfs::block::BlockNo;
use mfs::fsck::online::{Cursor, Piece};
use mfs::layout::GroupNo;
use mfs::ondisk::alloc_group::{BitmapBlock, ChunkTableBlock, GroupHeaderBlock};
use mfs::ondisk::directory::BucketBlock;
use mfs::ondisk::header::Kind;
use mfs::ondisk::inode::InodeBlock;
use mfs::{Fs, Options};
use mx_base::SlotId;
use sim::disk::{Device, Image};
use sim::exec::Executor;
use sim::single::env;

use super::broken::{inode, root_extents, spoil};
use super::contents::{
    BLOCKS, Contents, LIMIT, NODE, change, check, contents, file, on_mount, zero,
};

async fn look(fs: &Arc<Fs>) -> Piece {
    let mut all = Piece::default();
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        let mut piece = fs.check_online(from, true).await.expect("it is mounted");
        all.problems.append(&mut piece.problems);
        all.inodes += piece.inodes;
        all.directories += piece.directories;
        all.entries += piece.entries;
        all.data_blocks += piece.data_blocks;
        all.skipped += piece.skipped;
        next = piece.next;
    }
    all
}

/// What is found wrong on a device on which this is broken before it is mounted.
fn found(f: impl FnOnce(&Contents, &mut Image)) -> Vec<String> {
    let mut image = contents().image.clone();
    f(contents(), &mut image);
    let (_, piece) = on_mount(image, false, async |fs| look(&fs).await);
    piece.problems.iter().map(ToString::to_string).collect()
}

/// The first block of a file's data.
fn data_of(contents: &Contents, path: &str) -> BlockNo {
    let at = BlockNo(contents.file(path).inode.0);
    let mut inode: InodeBlock = *contents.image[&at].get();
    BlockNo(root_extents(&mut inode)[0].physical.get())
}

fn tells(what: &str, f: impl FnOnce(&Contents, &mut Image)) {
    let found = found(f);
    assert!(found.iter().any(|text| text.contains(what)), "{what:?}: {found:#?}");
}

#[test]
fn what_is_right_is_right_also_where_it_is_not_in_place_yet() {
    let before = check(&contents().image);
    let (_, (piece, in_place)) = on_mount(contents().image.clone(), false, async |fs| {
        let root = fs.root();
        for i in 0..300 {
            file(&fs, root, &format!("new-{i}"), &vec![7; i * 40]).await;
        }
        for i in 0..40 {
            fs.unlink(root, format!("small-{i}").as_bytes()).await.expect("it is there");
        }
        let before = fs.statistics().blocks_in_place;
        (look(&fs).await, fs.statistics().blocks_in_place - before)
    });
    assert!(piece.problems.is_empty(), "{:#?}", piece.problems);
    assert_eq!((piece.inodes, piece.skipped), (before.inodes + 260, 0));
    assert_eq!(piece.directories, before.directories);
    assert_eq!(piece.entries, before.entries + 260);
    assert!(piece.data_blocks > 1000, "{}", piece.data_blocks);
    assert_eq!(in_place, 0, "nothing had to be in place for it");
}

#[test]
fn damage_of_every_kind_of_block_is_found_while_the_file_system_is_used() {
    let layout = contents().layout;
    let home = |path: &str| BlockNo(contents().file(path).inode.0);
    let group = layout.group_of(home("/small-1")).expect("in one");
    tells("superblock", |_, image| zero(image, layout.group_first(GroupNo(9))));
    let other = contents().of_kind(Kind::GroupHeader).into_iter().find(|at| {
        let no = layout.group_of(*at).expect("in one");
        no != group && no != GroupNo(0)
    });
    let other = layout.group_of(other.expect("several are in use")).expect("in one");
    for at in [
        layout.group_header(other),
        layout.bitmap_first(other),
        layout.chunk_table_first(other),
        contents().of_kind(Kind::Free)[3],
        home("/small-1"),
        contents().of("/sparse", Kind::ExtentNode)[0],
        contents().of("/many", Kind::DirBucket)[0],
        contents().of("/xattrs-11", Kind::Xattr)[0],
    ] {
        tells("checksum", |_, image| spoil(image, at));
    }
}

#[test]
fn what_contradicts_itself_is_found_while_the_file_system_is_used() {
    let layout = contents().layout;
    let small = BlockNo(contents().file("/small-1").inode.0);
    let of = |at: BlockNo| layout.group_of(at).expect("in one");
    tells("free chunks", |_, image| {
        change(image, layout.group_header(of(small)), |block| {
            block.get_mut::<GroupHeaderBlock>().free_chunks.set(999);
        });
    });
    tells("older than its chunk", |_, image| {
        let chunk = (small.0 - layout.group_first(of(small)).0) / 16;
        change(image, layout.chunk_table_first(of(small)), |block| {
            let table: &mut ChunkTableBlock = block.get_mut();
            table.entries[usize::try_from(chunk).expect("small")].epoch.set(700);
        });
    });
    tells("which is marked free", |contents, image| {
        let data = data_of(contents, "/dir-2/file-3");
        let bit = usize::try_from(data.0 - layout.group_first(of(data)).0).expect("small");
        change(image, layout.bitmap_first(of(data)), |block| {
            block.get_mut::<BitmapBlock>().bits[bit / 8] &= !(1 << (bit % 8));
        });
    });
    tells("counts 99 entries", |contents, image| {
        inode(image, contents, "/many", |i| i.core.entries.set(99));
    });
    tells("counts 77 blocks", |contents, image| {
        inode(image, contents, "/sparse", |i| i.core.blocks.set(77));
    });
    tells("crosses groups", |contents, image| {
        inode(image, contents, "/dir-2/file-3", |i| {
            let extents = root_extents(i);
            extents[0].blocks.set(extents[0].blocks.get() + 900);
        });
    });
    tells("wrong prefix", |contents, image| {
        let at = contents.of("/many", Kind::DirBucket)[0];
        change(image, at, |block| {
            let prefix = &mut block.get_mut::<BucketBlock>().prefix;
            prefix.set(!prefix.get());
        });
    });
    tells("leads to no file", |contents, image| {
        inode(image, contents, "/small-3", |i| {
            i.core.generation.set(i.core.generation.get() + 1);
            let header = &mut i.header;
            header.owner_generation.set(header.owner_generation.get() + 1);
        });
    });
    tells("leads to a directory of another one", |contents, image| {
        let elsewhere = contents.file("/dir-1");
        inode(image, contents, "/deep-0/deep-1", |i| {
            i.core.parent.set(elsewhere.inode.0);
            i.core.parent_generation.set(elsewhere.generation);
        });
    });
}

#[test]
fn what_became_damaged_below_what_is_cached_is_found_and_what_the_device_has_lost() {
    let exec = Executor::new(9);
    let device = Device::new(BLOCKS, contents().image.clone());
    let (env, below) = (env(&exec, &device, 2), device.clone());
    let blocks = [
        BlockNo(contents().file("/small-1").inode.0),
        contents().of("/sparse", Kind::ExtentNode)[0],
        contents().of("/many", Kind::DirBucket)[0],
    ];
    let data = data_of(contents(), "/dir-2/file-3");
    let done = exec.run(NODE, LIMIT, async move {
        let mounted = mfs::mount(env, Options::default(), true, |_| {}).await.expect("it can be");
        let fs = Arc::clone(&mounted.fs);
        let cached = look(&fs).await;
        assert!(cached.problems.is_empty(), "{:?}", cached.problems);
        for at in blocks {
            below.flip(at, 7777);
        }
        for at in contents().layout.slot_heads(SlotId(9)) {
            below.flip(at, 77);
        }
        below.damage(data);
        let piece = look(&fs).await;
        let found: Vec<String> = piece.problems.iter().map(ToString::to_string).collect();
        for at in blocks {
            let what = format!("block {at}: checksum");
            assert!(found.iter().any(|text| text.contains(&what)), "{what:?}: {found:#?}");
        }
        for what in [format!("block {data}:"), "both copies of its head".to_owned()] {
            assert!(found.iter().any(|text| text.contains(&what)), "{what:?}: {found:#?}");
        }
        // It was cached whole: nobody has missed it.
        fs.lookup(fs.root(), b"small-1").await.expect("cached");
        std::mem::forget(mounted);
    });
    done.expect("nothing waits for ever");
    exec.kill(NODE);
}
