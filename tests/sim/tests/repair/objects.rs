//! Every rule of `docs/spec/ondisk.md` 11 about inodes, extents and extended attributes broken, as in
//! `rules.rs`.

use mfs::block::BlockNo;
use mfs::fsck::RepairOptions;
use mfs::ondisk::extent::ExtentNodeBlock;
use mfs::ondisk::header::{Header, Kind};
use mfs::ondisk::inode::{InodeBlock, InodeCore};
use mfs::ondisk::xattr::XattrBlock;
use sim::disk::{Device, Image};

use super::broken::{broken, inode, root_extents, spoil};
use super::contents::{
    BLOCKS, OPTIONS, Tree, What, change, check, contents, repair_device, tree, zero,
};

#[test]
fn an_inode_that_cannot_be_believed_is_isolated_and_its_blocks_stay_reserved() {
    let path = "/dir-2/file-3";
    for (what, break_it) in [
        ("checksum", spoil as fn(&mut Image, BlockNo)),
        ("area", |image, at| change(image, at, |b| b.get_mut::<InodeBlock>().core.area = 77)),
        ("extents", |image, at| {
            change(image, at, |b| root_extents(b.get_mut())[0].physical.set(1 << 50));
        }),
        ("flags", |image, at| {
            change(image, at, |b| root_extents(b.get_mut())[0].flags.set(6));
        }),
        ("depth", |image, at| change(image, at, |b| b.get_mut::<InodeBlock>().core.depth = 9)),
        ("header", |image, at| change(image, at, |b| Header::of_mut(b).owner.set(5))),
    ] {
        let at = BlockNo(contents().file(path).inode.0);
        let broken = broken(|_, image| break_it(image, at));
        assert!(!broken.found.is_empty(), "{what}");
        broken.tells("", "isolated, what it leads to stays reserved").leaves(&[path]);
        assert!(broken.tree[path].1.is_err(), "{what}");
        assert_eq!(broken.repaired.after.isolated.len(), 1);
        if what == "checksum" {
            // What its blocks hold could still be read out.
            let before = contents().image[&at].get::<InodeBlock>().core.blocks.get();
            assert_eq!(broken.repaired.after.blocks_used, check(&contents().image).blocks_used);
            assert!(before > 0);
        }
    }
}

#[test]
fn what_was_isolated_is_removed_when_that_is_asked_for() {
    let path = "/dir-2/file-3";
    let at = BlockNo(contents().file(path).inode.0);
    let isolated = broken(|_, image| spoil(image, at));
    let remove = RepairOptions { remove_isolated: true, ..OPTIONS };
    let device = Device::new(BLOCKS, isolated.image.clone());
    let removed = repair_device(&device, 8, remove);
    assert!(removed.is_clean() && removed.after.isolated.is_empty(), "{:?}", removed.left);
    let before = contents().image[&at].get::<InodeBlock>().core.blocks.get();
    let used = isolated.repaired.after.blocks_used - before - 1;
    assert_eq!(removed.after.blocks_used, used);
    let mut expected = contents().tree.clone();
    expected.remove(path);
    assert_eq!(tree(device.visible()), expected);
    // Not what is found damaged now: that can be looked at first.
    let mut image = contents().image.clone();
    spoil(&mut image, at);
    let device = Device::new(BLOCKS, image);
    assert_eq!(repair_device(&device, 8, remove).after.isolated.len(), 1);
}

#[test]
fn what_a_recovery_has_isolated_and_is_in_order_is_given_free() {
    broken(|contents, image| {
        inode(image, contents, "/small-2", |i| i.core.flags.set(InodeCore::ISOLATED));
    })
    .tells("isolated by a recovery", "given free again")
    .leaves(&[]);
}

#[test]
fn a_file_whose_inode_is_gone_loses_its_name() {
    let broken = broken(|contents, image| zero(image, contents.of("/small-4", Kind::Inode)[0]));
    broken.tells("leads to no inode", "entry \"small-4\" led to inode").leaves(&["/small-4"]);
    assert!(!broken.tree.contains_key("/small-4"));
}

#[test]
fn bytes_behind_the_end_and_counts_of_blocks_are_put_right() {
    broken(|contents, image| {
        let at = contents.file("/deep-0/file").inode.0;
        change(image, BlockNo(at), |b| b.get_mut::<InodeBlock>().area[600] = 9);
    })
    .tells("behind the end of inline data", "behind the end of inline data")
    .leaves(&[]);
    broken(|contents, image| {
        inode(image, contents, "/dir-1/file-1", |i| i.core.blocks.set(999));
    })
    .tells("counts 999 blocks", "counted 999 blocks")
    .leaves(&[]);
}

#[test]
fn a_block_that_two_files_use_is_copied_for_the_second() {
    let (first, second) = ("/dir-0/file-1", "/dir-3/file-2");
    let broken = broken(|contents, image| {
        let block = image[&BlockNo(contents.file(first).inode.0)].to_boxed();
        let mut other = *block.get::<InodeBlock>();
        let shared = root_extents(&mut other)[0].physical;
        inode(image, contents, second, |i| root_extents(i)[0].physical = shared);
    });
    broken.tells("used already", "shared").leaves(&[second]);
    let data = |path: &str, tree: &Tree| match &tree[path].1 {
        Ok(What::File(data, _)) => data.clone(),
        other => panic!("{path}: {other:?}"),
    };
    let (a, b) = (data(first, &broken.tree), data(second, &broken.tree));
    assert_eq!(a[..4096], b[..4096], "both read what the block holds");
    let done: Vec<String> = broken.repaired.done.iter().map(ToString::to_string).collect();
    let both = [first, second].map(|path| contents().file(path).inode.0.to_string());
    assert!(done.iter().any(|text| both.iter().all(|no| text.contains(no))), "{done:#?}");
}

#[test]
fn a_lost_node_isolates_the_file_and_a_wrong_key_does_not() {
    let lost = broken(|contents, image| spoil(image, contents.of("/sparse", Kind::ExtentNode)[0]));
    lost.tells("checksum", "isolated").leaves(&["/sparse"]);
    assert!(lost.tree["/sparse"].1.is_err());
    broken(|contents, image| {
        inode(image, contents, "/sparse", |i| {
            let key = root_extents(i)[1].logical.get();
            root_extents(i)[1].logical.set(key + 1);
        });
    })
    .tells("begins before its key", "its tree is made anew")
    .leaves(&[]);
    broken(|contents, image| {
        let at = contents.of("/sparse", Kind::ExtentNode)[0];
        change(image, at, |block| {
            let node: &mut ExtentNodeBlock = block.get_mut();
            node.entries[3].logical = node.entries[2].logical;
        });
    })
    .tells("extents overlap", "isolated")
    .leaves(&["/sparse"]);
    broken(|contents, image| {
        let at = contents.of("/sparse", Kind::ExtentNode)[0];
        change(image, at, |block| {
            let node: &mut ExtentNodeBlock = block.get_mut();
            node.entries[3].blocks.set(0);
        });
    })
    .tells("empty extent", "empty extent");
}

#[test]
fn blocks_written_behind_the_end_are_cut_and_those_never_written_stay() {
    let path = contents()
        .tree
        .iter()
        .find(|(_, (_, what))| matches!(what, Ok(What::File(data, _)) if data.len() > 20_000))
        .map(|(path, _)| path.as_str())
        .expect("there are some");
    let broken = broken(|contents, image| {
        inode(image, contents, path, |i| i.core.size.set(4097));
    });
    let done: Vec<String> = broken.repaired.done.iter().map(ToString::to_string).collect();
    assert!(done.iter().any(|text| text.contains("behind its end are cut")), "{done:#?}");
    broken.leaves(&[path]);
    assert!(broken.found.is_empty() && !broken.repaired.was_damaged);
    let at = BlockNo(contents().file("/allocated").inode.0);
    let blocks = |image: &Image| image[&at].get::<InodeBlock>().core.blocks.get();
    assert_eq!(blocks(&broken.image), blocks(&contents().image));
}

#[test]
fn a_chain_of_extended_attributes_is_cut_where_it_is_damaged() {
    let path = "/xattrs-11";
    let broken = broken(|contents, image| spoil(image, contents.of(path, Kind::Xattr)[2]));
    broken.tells("checksum", "extended attributes are kept").leaves(&[path]);
    let (Ok(What::File(before, all)), Ok(What::File(after, kept))) =
        (&contents().tree[path].1, &broken.tree[path].1)
    else {
        panic!("it can be read");
    };
    assert_eq!(before, after);
    assert!(!kept.is_empty() && kept.len() < all.len(), "{}", kept.len());
    assert!(kept.iter().all(|(name, value)| all[name] == *value));
}

#[test]
fn lengths_kinds_and_places_of_extended_attributes_are_put_right() {
    for (path, break_it) in [
        ("/xattrs-2", (|c| c.xattr_kinds = 7) as fn(&mut InodeCore)),
        ("/xattrs-11", |c| c.xattr_len.set(100_000)),
        ("/xattrs-11", |c| c.xattr_blocks = 30),
        ("/xattrs-11", |c| c.xattr_blocks = 2),
        ("/xattrs-2", |c| c.mode.set(c.mode.get() | 0o070)),
    ] {
        let broken =
            broken(|contents, image| inode(image, contents, path, |i| break_it(&mut i.core)));
        assert!(!broken.found.is_empty());
        broken.leaves(&[path]);
        let (Ok(What::File(before, _)), Ok(What::File(after, _))) =
            (&contents().tree[path].1, &broken.tree[path].1)
        else {
            panic!("it can be read");
        };
        assert_eq!(before, after);
    }
    let broken = broken(|contents, image| {
        let at = contents.of("/xattrs-11", Kind::Xattr)[0];
        change(image, at, |block| block.get_mut::<XattrBlock>().payload[0] = 200);
    });
    broken.tells("unknown namespace", "0 extended attributes are kept").leaves(&["/xattrs-11"]);
    // An ACL that is lost allows nothing to the group that its mask spoke for.
    let at = BlockNo(contents().file("/xattrs-11").inode.0);
    let mode = broken.image[&at].get::<InodeBlock>().core.mode.get();
    assert_eq!(mode & 0o070, 0);
}
