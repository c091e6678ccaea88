//! Targets of symbolic links: in the inode if they fit, else in a block of their own.

use std::sync::Arc;

use lcl::pin::{Pin, Want};

use super::create::NewKind;
use crate::alloc::PinnedGroup;
use crate::block::{BLOCK_SIZE, Block, BlockNo, as_usize};
use crate::cache::Step;
use crate::env::{Durability, WriteData};
use crate::error::FsError;
use crate::file::{FileId, FileType};
use crate::fs::Fs;
use crate::inode::extents::{Extent, ExtentEditor, ExtentTree, Grown, Mapping};
use crate::inode::{INLINE_BYTES_MAX, Inode};
use crate::journal::Transaction;
use crate::ondisk::inode::{AreaKind, InodeBlock};

/// The longest target: what the kernel accepts as a path, without its terminator.
pub(crate) const TARGET_MAX: usize = 4095;

/// Does the target need a block of its own?
pub(super) fn check_target(kind: NewKind<'_>) -> Result<bool, FsError> {
    match kind {
        NewKind::SymbolicLink([]) => Err(FsError::NotFound),
        NewKind::SymbolicLink(target) if target.len() > TARGET_MAX => Err(FsError::NameTooLong),
        NewKind::SymbolicLink(target) => Ok(target.len() as u64 > INLINE_BYTES_MAX),
        NewKind::Regular
        | NewKind::Directory
        | NewKind::Fifo
        | NewKind::Socket
        | NewKind::CharDevice(_)
        | NewKind::BlockDevice(_) => Ok(false),
    }
}

/// A target in a block that is not allocated yet, in a group that stays pinned until it is.
pub(super) struct WrittenTarget(BlockNo);

impl WrittenTarget {
    /// Allocates the block for the link.
    pub(super) fn take(
        &self,
        tx: &mut Transaction,
        group: &PinnedGroup,
        inode: &Arc<Inode>,
        pin: &Pin,
        generation: u32,
    ) -> Step<()> {
        let WrittenTarget(at) = *self;
        let taken = group.take_data(tx, 1, Some(BlockNo(at.0 - 1)))?;
        assert_eq!(taken, Some((at, 1)), "the group was pinned all the time");
        let tree = ExtentTree { inode, generation };
        let mut editor = ExtentEditor { tree: &tree, pin, nodes: &[], tx };
        let extent = Extent { logical: 0, physical: at, blocks: 1, unwritten: false };
        let grown = editor.insert(extent)?;
        assert!(matches!(grown, Grown::Done), "one extent fits the root");
        editor.add_blocks(1)
    }
}

impl Fs {
    /// Writes a long target to a block that is free, durably.
    pub(super) async fn write_target(
        &self,
        group: &PinnedGroup,
        kind: NewKind<'_>,
    ) -> Result<WrittenTarget, FsError> {
        let NewKind::SymbolicLink(target) = kind else { unreachable!("only links have targets") };
        let mut scratch = self.transaction();
        let at = self.settle(|| group.take_data(&mut scratch, 1, None)).await?;
        let Some((at, _)) = at else { return Err(FsError::NoSpace) };
        let mut block = Block::zeroed();
        block.0[..target.len()].copy_from_slice(target);
        let data = WriteData::Blocks(vec![block.into()]);
        self.env.disk.write(at, data, Durability::Durable).await?;
        Ok(WrittenTarget(at))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`FsError::Invalid`] when the file is none.
    pub async fn readlink(&self, file: FileId) -> Result<Vec<u8>, FsError> {
        self.check_open()?;
        let inode = self.inode(file.inode)?;
        let _pin = inode.entry.pin(Want::read()).await?;
        let tx = self.transaction();
        let (size, place) = self
            .settle(|| {
                let size = inode.with_file(file, |state| {
                    if state.core().file_type() == FileType::SymbolicLink {
                        Ok(as_usize(state.core().size()))
                    } else {
                        Err(FsError::Invalid("not a symbolic link").into())
                    }
                })?;
                let block = inode.block()?.data();
                let on_disk: &InodeBlock = block.get();
                if on_disk.core.area == AreaKind::Bytes as u8 {
                    return Ok((size, Place::Inline(on_disk.area[..size].to_vec())));
                }
                let tree = ExtentTree { inode: &inode, generation: file.generation };
                match tree.map(&tx, 0)? {
                    Mapping::Mapped(extent) => Ok((size, Place::Block(extent.physical))),
                    Mapping::Hole(_) => Err(FsError::Damaged.into()),
                }
            })
            .await?;
        match place {
            Place::Inline(target) => Ok(target),
            Place::Block(at) => {
                let block = self.env.disk.read(at, 1).await?;
                Ok(block[0].0[..size.min(BLOCK_SIZE)].to_vec())
            }
        }
    }
}

enum Place {
    Inline(Vec<u8>),
    Block(BlockNo),
}
