//! Devices that fail, and what is refused: nothing is written then.

use mfs::block::BlockNo;
use mfs::fsck::{self, CheckError, RepairError, RepairOptions, Repaired};
use mfs::ondisk::header::Kind;
use mfs::ondisk::superblock::SuperblockBlock;
use mfs::superblock::SuperblockError;
use sim::disk::{Device, Image};
use sim::exec::Executor;

use super::contents::{
    BLOCKS, LIMIT, NODE, OPTIONS, change, contents, repair_device, same, tree, zero,
};
use super::rules::{crashed, with_damaged_journal};

/// A repair that may be refused; `during` runs at each of its steps.
fn try_repair(
    device: &Device,
    options: RepairOptions,
    mut during: impl FnMut(&str) + Send + Sync + 'static,
) -> Result<Repaired, RepairError> {
    let exec = Executor::new(5);
    let port = device.port(&exec);
    let repair = async move {
        let mut progress = move |what: &str, _: u64, _: u64| during(what);
        fsck::repair(port, options, &mut progress).await
    };
    exec.run(NODE, LIMIT, repair).expect("ends")
}

#[test]
fn what_cannot_be_read_is_written_anew_or_given_up() {
    let contents = contents();
    let device = Device::new(BLOCKS, contents.image.clone());
    let layout = contents.layout;
    let group = layout.group_of(BlockNo(contents.file("/small-1").inode.0)).expect("in one");
    device.damage(layout.bitmap_first(group));
    device.damage(BlockNo(contents.file("/small-1").inode.0));
    device.damage(contents.of_kind(Kind::Free)[5]);
    let repaired = repair_device(&device, 4, OPTIONS);
    assert!(repaired.is_clean(), "{:#?} {:#?}", repaired.left, repaired.after.problems);
    let tree = tree(device.visible());
    for (path, there) in contents.tree.iter().filter(|(path, _)| *path != "/small-1") {
        assert_eq!(tree.get(path), Some(there), "{path}");
    }
}

#[test]
fn an_inode_that_cannot_be_read_keeps_its_name() {
    let contents = contents();
    let device = Device::new(BLOCKS, contents.image.clone());
    device.damage(BlockNo(contents.file("/small-1").inode.0));
    device.damage(BlockNo(contents.file("/dir-2").inode.0));
    let repaired = repair_device(&device, 4, OPTIONS);
    assert!(repaired.is_clean(), "{:#?} {:#?}", repaired.left, repaired.after.problems);
    let tree = tree(device.visible());
    assert!(tree["/small-1"].1.is_err(), "isolated");
    assert!(tree["/dir-2"].1.is_ok(), "made anew of nothing");
}

#[test]
fn a_device_that_fails_in_many_places_is_left_alone() {
    let contents = contents();
    let device = Device::new(BLOCKS, contents.image.clone());
    let inodes = contents.of_kind(Kind::Inode);
    inodes.iter().take(80).for_each(|at| device.damage(*at));
    let refused = try_repair(&device, OPTIONS, |_| {});
    assert!(matches!(refused, Err(RepairError::Unreadable(80))), "{:?}", refused.map(|r| r.left));
    assert!(same(&device.visible(), &contents.image), "it wrote");
}

#[test]
fn what_could_not_be_read_and_then_can_be_stops_the_repair() {
    let contents = contents();
    let device = Device::new(BLOCKS, contents.image.clone());
    device.lose(BlockNo(contents.file("/small-1").inode.0), 1);
    let during = device.clone();
    // Groups are written into the plan when all inodes have been read.
    let refused = try_repair(&device, OPTIONS, move |what| {
        if what == "writing" {
            during.mend();
        }
    });
    assert!(matches!(refused, Err(RepairError::Unsteady(_))), "{refused:?}");
    assert!(same(&device.visible(), &contents.image), "it wrote");
}

#[test]
fn what_is_no_matrixfs_is_refused() {
    let device = Device::new(BLOCKS, Image::new());
    let refused = try_repair(&device, OPTIONS, |_| {});
    let is_told = matches!(
        refused,
        Err(RepairError::Check(CheckError::Superblock(SuperblockError::NotFound)))
    );
    assert!(is_told, "{refused:?}");
    assert!(device.visible().is_empty());
}

#[test]
fn what_a_later_release_has_made_is_left_to_it() {
    let mut image = contents().image.clone();
    for at in contents().of_kind(Kind::Superblock) {
        change(&mut image, at, |b| b.get_mut::<SuperblockBlock>().features_ro_compat.set(8));
    }
    let device = Device::new(BLOCKS, image.clone());
    let refused = try_repair(&device, OPTIONS, |_| {});
    assert!(matches!(refused, Err(RepairError::Features { bits: 8 })), "{refused:?}");
    assert!(same(&device.visible(), &image), "it wrote");
}

#[test]
fn a_journal_that_cannot_be_replayed_is_left_by_preening() {
    let mut image = with_damaged_journal();
    let device = Device::new(BLOCKS, image.clone());
    let preen = RepairOptions { preen: true, ..OPTIONS };
    let left = repair_device(&device, 1, preen);
    assert!(!left.is_clean() && left.done.is_empty(), "{:?}", left.done);
    assert!(same(&device.visible(), &image), "it wrote");
    // Without any header nobody knows where it begins.
    let headers: Vec<BlockNo> = contents().of_kind(Kind::JournalHeader);
    image = crashed();
    headers.into_iter().for_each(|at| zero(&mut image, at));
    let device = Device::new(BLOCKS, image);
    let repaired = repair_device(&device, 1, OPTIONS);
    assert!(repaired.is_clean() && repaired.was_damaged, "{:?}", repaired.left);
    let told = repaired.done.iter().any(|done| done.what.contains("what only it had is lost"));
    assert!(told, "{:?}", repaired.done);
}

#[test]
fn a_place_for_something_new_that_cannot_be_written_stops_the_repair() {
    let contents = contents();
    let mut image = contents.image.clone();
    // What it names goes to a lost+found that is made for it.
    zero(&mut image, contents.of("/many", Kind::DirBucket)[1]);
    let device = Device::new(BLOCKS, image.clone());
    let repaired = repair_device(&device, 1, OPTIONS);
    assert!(repaired.is_clean());
    let first = device.log().into_iter().find_map(|event| {
        if let sim::disk::Event::Issued { at, .. } = event { Some(at) } else { None }
    });
    let again = Device::new(BLOCKS, image);
    let mut faults = sim::disk::Faults::default();
    faults.unwritable.extend(first);
    again.set_faults(faults);
    match try_repair(&again, OPTIONS, |_| {}) {
        Ok(repaired) => assert!(!repaired.is_clean(), "it is told"),
        Err(error) => assert!(matches!(error, RepairError::Check(CheckError::Disk(_))), "{error}"),
    }
}
