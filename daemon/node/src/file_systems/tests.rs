//! File systems that may be served together, and those that may not. Nothing is mounted.

use std::sync::Arc;

use fencing::DeviceId;
use mfs::block::{Block, BlockNo};
use mfs::env::{Disk, Durability, WriteData};
use mfs::error::DiskError;
use mfs::layout::Layout;
use mx_base::BoxFuture;

use super::*;

struct Unused;

impl Disk for Unused {
    fn blocks(&self) -> u64 {
        1 << 20
    }

    fn read(&self, _: BlockNo, _: usize) -> BoxFuture<'static, Result<Box<[Block]>, DiskError>> {
        unreachable!("nothing is mounted")
    }

    fn write(
        &self,
        _: BlockNo,
        _: WriteData,
        _: Durability,
    ) -> BoxFuture<'static, Result<(), DiskError>> {
        unreachable!("nothing is mounted")
    }

    fn flush(&self) -> BoxFuture<'static, Result<(), DiskError>> {
        unreachable!("nothing is mounted")
    }
}

fn id(number: u64) -> FsId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    FsId(id)
}

fn fs(id: FsId) -> FileSystem {
    let layout = Layout::for_device(1 << 20).expect("large enough");
    FileSystem { id, device: DeviceId(id.0), layout, disk: Arc::new(Unused) }
}

/// It is on the wire between nodes that were built apart.
#[test]
fn the_number_of_a_lock_space_follows_from_the_file_system_alone() {
    assert_eq!(Lockspace::of(FsId([0; 16])), Lockspace(0x6969_1905));
    assert_ne!(Lockspace::of(id(1)), Lockspace::of(id(2)));
}

#[test]
fn file_systems_that_one_node_cannot_serve_together_are_refused() {
    let error = |all: Vec<FileSystem>| FileSystems::new(all).expect_err("refused");
    assert_eq!(error(vec![]), FileSystemsError::None);
    assert_eq!(error(vec![fs(id(1)), fs(id(2)), fs(id(1))]), FileSystemsError::Twice(id(1)));
    let many = (0..=cluster::FILE_SYSTEMS_MAX as u64).map(|number| fs(id(number)));
    assert_eq!(error(many.collect()), FileSystemsError::TooMany);
    assert_eq!(FileSystems::new([fs(id(1)), fs(id(2))]).expect("two").len(), 2);
}

#[test]
fn two_file_systems_whose_locks_would_be_one_are_refused() {
    // Found by trying.
    let one = FsId(0x8fee9d63_22c79426_1c997b75_d7a11c8f_u128.to_le_bytes());
    let other = FsId(0x8c4040f7_ec454fdc_17176575_c09cc54a_u128.to_le_bytes());
    let error = FileSystems::new([fs(one), fs(other)]).expect_err("refused");
    assert_eq!(error, FileSystemsError::SameLockspace(one, other));
}

#[test]
fn a_lock_space_that_is_not_known_is_refused() {
    let known = FileSystems::new([fs(id(1)), fs(id(2))]).expect("two");
    let [one, foreign] = [1, 3].map(|number| Lockspace::of(id(number)));
    assert_eq!(known.of_lockspace(one.for_frames()), Ok(id(1)));
    let refused = ForeignLockspace(foreign);
    assert_eq!(known.of_lockspace(foreign.for_frames()), Err(refused));
    assert_eq!(known.of_lockspace(cluster::LockspaceId(0)), Err(ForeignLockspace(Lockspace(0))));
    let told = [one.blob(vec![7]), foreign.blob(vec![])];
    assert_eq!(known.know(Some(&told)), Err(refused));
    assert_eq!(known.know(Some(&told[..1])), Ok(()));
    assert_eq!(one.told(Some(&told)), Some(&[7][..]));
    assert_eq!(Lockspace::of(id(2)).told(Some(&told)), None);
}
