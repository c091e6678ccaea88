//! Every rule of `docs/spec/ondisk.md` 11 about directories and names broken, as in `rules.rs`.

use mfs::block::{Block, BlockNo};
use mfs::ondisk::directory::BucketBlock;
use mfs::ondisk::header::Kind;
use mfs::ondisk::inode::{InodeBlock, InodeCore};
use sim::disk::Image;

use super::broken::{broken, inode, spoil};
use super::contents::{Tree, change, contents, damage, zero};

#[test]
fn a_directory_is_made_anew_of_its_buckets() {
    let many = contents().of("/many", Kind::DirBucket);
    let root = BlockNo(contents().file("/many").inode.0);
    // The root of the index: every pointer is lost, and what else the inode says.
    for break_it in [
        spoil as fn(&mut Image, BlockNo),
        |image, at| change(image, at, |b| b.get_mut::<InodeBlock>().area[..512].fill(0)),
        |image, at| change(image, at, |b| b.get_mut::<InodeBlock>().core.area = 3),
        zero,
    ] {
        let broken = broken(|_, image| break_it(image, root));
        assert!(!broken.found.is_empty());
        let lost = broken.lost_and_found().len();
        broken.leaves(&["/many"]);
        let below = |dir: &str| {
            let paths = broken.tree.keys().filter(|p| p.starts_with(dir));
            paths.count()
        };
        assert!(below("/many/") + lost >= 260, "{} {lost}", below("/many/"));
    }
    for break_it in [
        (|image, at| change(image, at, |b| b.get_mut::<BucketBlock>().depth.set(60)))
            as fn(&mut Image, BlockNo),
        |image, at| change(image, at, |b| b.get_mut::<BucketBlock>().prefix.set(1)),
        |image, at| change(image, at, |b| b.get_mut::<BucketBlock>().area[20] = 3),
    ] {
        let broken = broken(|_, image| break_it(image, many[0]));
        assert!(!broken.found.is_empty());
        broken.tells("", "made anew of").leaves(&[]);
    }
}

#[test]
fn what_a_lost_bucket_named_is_in_lost_and_found() {
    let at = contents().of("/many", Kind::DirBucket)[1];
    let lost = broken(|_, image| zero(image, at));
    lost.tells("", "had no name; is lost+found/#").leaves(&["/many"]);
    assert!(!lost.lost_and_found().is_empty());
    for name in lost.lost_and_found() {
        let (file, what) = &lost.tree[&format!("/lost+found/{name}")];
        assert_eq!(name, format!("#{}", file.inode));
        let before = contents().tree.iter().find(|(_, (f, _))| f == file).expect("it was there");
        assert_eq!(&before.1.1, what);
    }
    // With what is left of it, most names are.
    let torn = broken(|_, image| spoil(image, at));
    torn.leaves(&["/many"]);
    assert!(torn.lost_and_found().len() < lost.lost_and_found().len());
}

#[test]
fn a_damaged_directory_with_its_entries_in_its_inode_keeps_those_that_prove_themselves() {
    let path = "/deep-0";
    let broken = broken(|contents, image| {
        damage(image, BlockNo(contents.file(path).inode.0), |block| {
            block.0[70] ^= 0xff;
            block.0[100] ^= 0xff;
        });
    });
    broken.tells("checksum", "made anew of").leaves(&[path]);
    assert!(broken.tree.contains_key("/deep-0/deep-1/deep-2/file"));
    let at = BlockNo(contents().file(path).inode.0);
    assert_eq!(broken.image[&at].get::<InodeBlock>().core.mode.get(), 0o040_700);
}

#[test]
fn the_root_is_made_anew() {
    let root = BlockNo(contents().file("").inode.0);
    let gone = broken(|_, image| zero(image, root));
    gone.tells("root", "made anew");
    let found = |tree: &Tree, path: &str| {
        let expected = &contents().tree[path];
        tree.values().any(|there| there == expected)
    };
    for path in contents().tree.keys().filter(|path| !path.is_empty()) {
        assert!(found(&gone.tree, path), "{path}");
    }
    broken(|_, image| spoil(image, root)).tells("root", "made anew");
}

/// The bytes of a bucket, or of a small directory, with one entry's name in them.
fn entry<'a>(block: &'a mut Block, name: &str) -> &'a mut [u8] {
    let bytes = &mut block.0[..];
    let at = bytes.windows(name.len()).position(|w| w == name.as_bytes()).expect("it is there");
    &mut bytes[at - 24..]
}

fn entries_of(path: &str, name: &str) -> BlockNo {
    let contents = contents();
    let mut places = contents.of(path, Kind::DirBucket);
    places.push(BlockNo(contents.file(path).inode.0));
    let has = |at: &BlockNo| contents.image[at].0.windows(name.len()).any(|w| w == name.as_bytes());
    places.into_iter().find(has).expect("it is there")
}

#[test]
fn entries_are_put_right() {
    let (dir, name) = ("/dir-1", "file-7");
    let path = "/dir-1/file-7";
    let at = entries_of(dir, name);
    // A cookie of another name.
    broken(|_, image| change(image, at, |b| entry(b, name)[3] ^= 0x55))
        .tells("wrong hash", "made anew of")
        .leaves(&[]);
    // A type that is not that of the file.
    broken(|_, image| change(image, at, |b| entry(b, name)[23] = 10))
        .tells("wrong type", "had the wrong type")
        .leaves(&[]);
    // An older file.
    let older = broken(|_, image| change(image, at, |b| entry(b, name)[16] ^= 0x40));
    older.tells("older file", "led to an older inode").leaves(&[path]);
    assert_eq!(older.lost_and_found().len(), 1);
    // Nothing.
    let nothing = broken(|_, image| {
        change(image, at, |b| entry(b, name)[8..16].copy_from_slice(&5000_u64.to_le_bytes()));
    });
    nothing.tells("leads to no inode", "which is none; removed").leaves(&[path]);
    // No name that a directory may have.
    let impossible = broken(|_, image| change(image, at, |b| entry(b, name)[24 + 4] = b'/'));
    impossible.tells("impossible name", "impossible name").leaves(&[path]);
    assert_eq!(impossible.lost_and_found().len(), 1);
    // Two of one name.
    let twice = broken(|_, image| change(image, at, |b| entry(b, name)[24 + 5] = b'8'));
    twice.tells("two entries", "a second entry");
    // Another count.
    broken(|contents, image| inode(image, contents, dir, |i| i.core.entries.set(3)))
        .tells("counts 3 entries", "counted 3 entries")
        .leaves(&[]);
}

#[test]
fn directories_have_one_name_and_know_their_parent() {
    broken(|contents, image| {
        inode(image, contents, "/deep-0/deep-1", |i| i.core.parent.set(77));
    })
    .tells("does not know its parent", "now knows its parent")
    .leaves(&[]);
    let inner = contents().file("/deep-0/deep-1/deep-2");
    let at = entries_of("/dir-1", "file-7");
    let two = broken(|_, image| {
        change(image, at, |block| {
            let entry = entry(block, "file-7");
            entry[8..16].copy_from_slice(&inner.inode.0.to_le_bytes());
            entry[16..20].copy_from_slice(&inner.generation.to_le_bytes());
            entry[23] = 4;
        });
    });
    two.tells("more than one name", "further name of directory").leaves(&["/dir-1/file-7"]);
    assert_eq!(two.lost_and_found().len(), 1, "the file has lost its name");
    // A circle that nothing leads to: /deep-0/deep-1 leads to itself, and has no other name.
    let dir = contents().file("/deep-0/deep-1");
    let above = entries_of("/deep-0", "deep-1");
    let inside = entries_of("/deep-0/deep-1", "deep-2");
    let circle = broken(|_, image| {
        change(image, above, |b| {
            entry(b, "deep-1")[8..16].copy_from_slice(&5000_u64.to_le_bytes())
        });
        change(image, inside, |block| {
            let entry = entry(block, "deep-2");
            entry[8..16].copy_from_slice(&dir.inode.0.to_le_bytes());
            entry[16..20].copy_from_slice(&dir.generation.to_le_bytes());
        });
    });
    circle.tells("cannot be reached", "is lost+found/#").leaves(&["/deep-0/deep-1"]);
    assert_eq!(circle.lost_and_found().len(), 2, "{:?}", circle.lost_and_found());
}

#[test]
fn links_are_counted_anew_and_what_has_no_name_gets_one() {
    broken(|contents, image| inode(image, contents, "/allocated", |i| i.core.links.set(9)))
        .tells("has 9 links, 2 are", "had 9 links")
        .leaves(&[]);
    broken(|contents, image| inode(image, contents, "/deep-0", |i| i.core.links.set(2)))
        .tells("has 2 links, 3 are", "had 2 links")
        .leaves(&[]);
    let broken = broken(|contents, image| {
        inode(image, contents, "/small-9", |i| i.core.links.set(0));
    });
    broken.tells("has 0 links", "had 0 links").leaves(&[]);
}

#[test]
fn an_index_that_is_lost_is_made_anew() {
    // Only large directories have indexes below their root; the pointers of the root do as well.
    let root = BlockNo(contents().file("/many").inode.0);
    let broken = broken(|_, image| {
        change(image, root, |block| {
            let inode: &mut InodeBlock = block.get_mut();
            inode.area[..8].fill(0);
            inode.area[8..16].copy_from_slice(&(5000_u64 | 1 << 63).to_le_bytes());
        });
    });
    broken.tells("leads nowhere", "made anew of").leaves(&[]);
}

#[test]
fn flags_of_inodes_stay_and_do_not_hinder() {
    let flags = InodeCore::IMMUTABLE | InodeCore::APPEND_ONLY | InodeCore::NO_ATIME;
    let (dir, name) = ("/dir-1", "file-7");
    let at = entries_of(dir, name);
    let broken = broken(|contents, image| {
        for path in ["", dir, "/dir-1/file-7"] {
            inode(image, contents, path, |i| i.core.flags.set(flags));
        }
        change(image, at, |b| entry(b, name)[23] = 10);
        let place = entries_of("/deep-0", "file");
        change(image, place, |b| entry(b, "file")[16] ^= 0x40);
        inode(image, contents, "/deep-0/file", |i| i.core.flags.set(InodeCore::IMMUTABLE));
    });
    broken.tells("wrong type", "had the wrong type").leaves(&["/deep-0/file"]);
    assert_eq!(broken.lost_and_found().len(), 1, "an immutable file gets its name, too");
    for path in ["", dir, "/dir-1/file-7"] {
        let at = BlockNo(contents().file(path).inode.0);
        assert_eq!(broken.image[&at].get::<InodeBlock>().core.flags.get(), flags, "{path}");
    }
}
